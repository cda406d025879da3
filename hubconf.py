"""Entry points of `torch.hub.load`: models by name, and trained runs.

    import torch
    model = torch.hub.load("path/to/this/checkout", "vsn_resnet50", source="local", num_classes=174)

Each gives a model that maps a clip ``(B, T, 3, H, W)``, uint8 or float in [0, 1], to logits ``(B, num_classes)``.
The package need not be installed; what it depends on must be.
"""

from __future__ import annotations

import sys
from pathlib import Path as _Path

sys.path.insert(0, str(_Path(__file__).parent / "src"))  # torch.hub imports this file out of a checkout

from vsn.models import VideoClassifier as _VideoClassifier
from vsn.models import create_model as _create_model
from vsn.runs.hub import from_pretrained as _from_pretrained

dependencies = ["torch", "torchvision", "safetensors"]


def model(
    name: str, *, num_classes: int, num_frames: int = 8, pretrained: bool | str = False, dropout: float = 0.5
) -> _VideoClassifier:
    """Any model of `vsn.list_models()`.

    Args:
        name: such as "vsn_resnet34".
        num_classes: outputs of the classifier, which starts at random.
        num_frames: T, frames a clip.
        pretrained: True: the image network's ImageNet weights (torchvision's newest); no weights trained on video
            come with vsn. Text: the name of other weights, a file or a run folder, as ``model.weights``.
        dropout: drop probability before the classifier.

    Raises:
        ConfigError: (a ValueError) an impossible setting, or weights that cannot be had.
    """
    weights = pretrained if isinstance(pretrained, str) else "DEFAULT" if pretrained else "none"
    return _create_model(name, num_classes=num_classes, num_frames=num_frames, weights=weights, dropout=dropout)


def vsn_resnet18(
    *, num_classes: int, num_frames: int = 8, pretrained: bool | str = False, dropout: float = 0.5
) -> _VideoClassifier:
    """Video Shuffle Network on ResNet-18; arguments as those of `model`."""
    return model("vsn_resnet18", num_classes=num_classes, num_frames=num_frames, pretrained=pretrained, dropout=dropout)


def vsn_resnet50(
    *, num_classes: int, num_frames: int = 8, pretrained: bool | str = False, dropout: float = 0.5
) -> _VideoClassifier:
    """Video Shuffle Network on ResNet-50, the paper's; arguments as those of `model`."""
    return model("vsn_resnet50", num_classes=num_classes, num_frames=num_frames, pretrained=pretrained, dropout=dropout)


def vsn_resnet101(
    *, num_classes: int, num_frames: int = 8, pretrained: bool | str = False, dropout: float = 0.5
) -> _VideoClassifier:
    """Video Shuffle Network on ResNet-101, the paper's larger one; arguments as those of `model`."""
    return model(
        "vsn_resnet101",
        num_classes=num_classes,
        num_frames=num_frames,
        pretrained=pretrained,
        dropout=dropout,
    )


def tsm_resnet50(
    *, num_classes: int, num_frames: int = 8, pretrained: bool | str = False, dropout: float = 0.5
) -> _VideoClassifier:
    """TSM on ResNet-50; arguments as those of `model`."""
    return model("tsm_resnet50", num_classes=num_classes, num_frames=num_frames, pretrained=pretrained, dropout=dropout)


def tsn_resnet50(
    *, num_classes: int, num_frames: int = 8, pretrained: bool | str = False, dropout: float = 0.5
) -> _VideoClassifier:
    """TSN on ResNet-50; arguments as those of `model`."""
    return model("tsn_resnet50", num_classes=num_classes, num_frames=num_frames, pretrained=pretrained, dropout=dropout)


def run(name: str) -> _VideoClassifier:
    """A trained model, in evaluation mode: a run folder, or a repository of the Hugging Face hub, ``user/name``."""
    return _from_pretrained(name)
