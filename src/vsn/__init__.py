"""Video Shuffle Networks: recognise what happens in a video at the price of a 2D CNN.

    import vsn
    model = vsn.create_model("vsn_resnet50", num_classes=174, num_frames=8)
    logits = model(clip)  # clip: (B, 8, 3, H, W), uint8 or float in [0, 1]

Names are imported when first used, so that importing the package does nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vsn.engine.predict import Predictor as Predictor
    from vsn.models import create_model as create_model
    from vsn.models import list_models as list_models
    from vsn.models.temporal import insert_at as insert_at
    from vsn.models.temporal import insert_temporal as insert_temporal
    from vsn.models.temporal import mixing_matrix as mixing_matrix
    from vsn.ops import temporal_shift as temporal_shift
    from vsn.ops import video_shuffle as video_shuffle

__version__ = "0.1.0"

_HOMES = {
    "Predictor": "vsn.engine.predict",
    "create_model": "vsn.models",
    "insert_at": "vsn.models.temporal",
    "insert_temporal": "vsn.models.temporal",
    "list_models": "vsn.models",
    "mixing_matrix": "vsn.models.temporal",
    "temporal_shift": "vsn.ops",
    "video_shuffle": "vsn.ops",
}

__all__ = [
    "Predictor",
    "create_model",
    "insert_at",
    "insert_temporal",
    "list_models",
    "mixing_matrix",
    "temporal_shift",
    "video_shuffle",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'vsn' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
