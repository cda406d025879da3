"""Entry points of `torch.hub.load`: models by name, and trained runs.

    import torch
    model = torch.hub.load("path/to/this/checkout", "vsn_resnet50", source="local", num_classes=174)

Each returns a model that maps a clip ``(B, T, 3, H, W)``, uint8 or float in [0, 1], to logits ``(B, num_classes)``.
The package need not be installed; its dependencies must be.
"""

from __future__ import annotations

import functools as _functools
import sys
from pathlib import Path as _Path

sys.path.insert(0, str(_Path(__file__).parent / "src"))  # torch.hub imports this file from a checkout

from vsn.models import VideoClassifier as _VideoClassifier
from vsn.models import create_model as _create_model
from vsn.runs.hub import from_pretrained as _from_pretrained

dependencies = ["torch", "torchvision", "safetensors"]


def model(
    name: str, *, num_classes: int, num_frames: int = 8, pretrained: bool | str = False, dropout: float = 0.5
) -> _VideoClassifier:
    """Create any model of `vsn.list_models()`.

    Args:
        name: such as "vsn_resnet34".
        num_classes: outputs of the classifier, which starts at random.
        num_frames: T, frames per clip.
        pretrained: True: ImageNet weights of the backbone (torchvision's newest); vsn comes without weights trained on
            video. A string: the name of other weights, a file or a run folder, as ``model.weights``.
        dropout: drop probability before the classifier.

    Raises:
        ConfigError: (a ValueError) an impossible setting, or weights that cannot be loaded.
    """
    weights = pretrained if isinstance(pretrained, str) else "DEFAULT" if pretrained else "none"
    return _create_model(name, num_classes=num_classes, num_frames=num_frames, weights=weights, dropout=dropout)


def _entry_point(name: str, description: str) -> _functools.partial[_VideoClassifier]:
    entry = _functools.partial(model, name)
    entry.__doc__ = f"{description}; arguments as those of `model`."  # shown by torch.hub.help
    return entry


vsn_resnet18 = _entry_point("vsn_resnet18", "Video Shuffle Network on ResNet-18")
vsn_resnet50 = _entry_point("vsn_resnet50", "Video Shuffle Network on ResNet-50, the paper's")
vsn_resnet101 = _entry_point("vsn_resnet101", "Video Shuffle Network on ResNet-101, the paper's larger one")
tsm_resnet50 = _entry_point("tsm_resnet50", "TSM on ResNet-50")
tsn_resnet50 = _entry_point("tsn_resnet50", "TSN on ResNet-50")


def run(name: str) -> _VideoClassifier:
    """Load a trained model in evaluation mode: a run folder, or a repository of the Hugging Face hub, ``user/name``."""
    return _from_pretrained(name)
