"""Video Shuffle Networks: recognize what happens in a video at the price of a 2D CNN.

    import vsn
    model = vsn.create_model("vsn_resnet50", num_classes=174, num_frames=8)
    logits = model(clip)  # clip: (B, 8, 3, H, W), uint8 or float in [0, 1]

Names are imported at first use, so that `import vsn` takes milliseconds and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vsn.config.recipes import find_recipe as find_recipe
    from vsn.config.recipes import load_recipe as load_recipe
    from vsn.data.processor import Processor as Processor
    from vsn.inference.evaluate import evaluate_run as evaluate_run
    from vsn.inference.feature_files import load_features as load_features
    from vsn.inference.features import extract_features as extract_features
    from vsn.inference.predictor import Predictor as Predictor
    from vsn.models import create_model as create_model
    from vsn.models import list_models as list_models
    from vsn.models.insertion import insert_at as insert_at
    from vsn.models.insertion import insert_temporal as insert_temporal
    from vsn.models.insertion import mixing_matrix as mixing_matrix
    from vsn.ops import temporal_shift as temporal_shift
    from vsn.ops import video_shuffle as video_shuffle
    from vsn.runs.convert import convert_checkpoint as convert_checkpoint
    from vsn.runs.hub import from_pretrained as from_pretrained
    from vsn.runs.hub import push_to_hub as push_to_hub
    from vsn.training.train import train as train

    __version__: str

# Public name -> the module that defines it.
_HOMES = {
    "Predictor": "vsn.inference.predictor",
    "Processor": "vsn.data.processor",
    "convert_checkpoint": "vsn.runs.convert",
    "create_model": "vsn.models",
    "evaluate_run": "vsn.inference.evaluate",
    "extract_features": "vsn.inference.features",
    "find_recipe": "vsn.config.recipes",
    "from_pretrained": "vsn.runs.hub",
    "insert_at": "vsn.models.insertion",
    "insert_temporal": "vsn.models.insertion",
    "list_models": "vsn.models",
    "load_features": "vsn.inference.feature_files",
    "load_recipe": "vsn.config.recipes",
    "mixing_matrix": "vsn.models.insertion",
    "push_to_hub": "vsn.runs.hub",
    "temporal_shift": "vsn.ops",
    "train": "vsn.training.train",
    "video_shuffle": "vsn.ops",
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    from vsn.config.distribution import explain_missing, installed_version

    if name in _HOMES:
        try:
            return getattr(importlib.import_module(_HOMES[name]), name)
        except ModuleNotFoundError as error:
            if (message := explain_missing(error, f"vsn.{name}")) is None:
                raise
            raise ModuleNotFoundError(message, name=error.name) from None
    if name == "__version__":
        return installed_version()
    raise AttributeError(f"module 'vsn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
