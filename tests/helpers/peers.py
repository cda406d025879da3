"""What the tests of the published peers share: small clips, models that say something, costs on paper."""

import torch
from torch import Tensor, nn

from vsn.config import ModelConfig
from vsn.models import VideoClassifier, build_model
from vsn.models.measure import count_multiply_adds


def make(name: str, *, num_frames: int = 8, num_classes: int = 5, **settings: object) -> VideoClassifier:
    """A model in evaluation mode whose head says something: its start of nearly zero would hide differences."""
    torch.manual_seed(0)
    config = ModelConfig(name=name, num_classes=num_classes, num_frames=num_frames, **settings)  # type: ignore[arg-type]
    model = build_model(config).eval()
    nn.init.normal_(model.head.weight, std=0.1)
    return model


def make_clip(num_frames: int = 8, *, batch: int = 2, size: int = 32, channels: int = 3) -> Tensor:
    """Random bytes ``(B, T, C, size, size)``."""
    generator = torch.Generator().manual_seed(1)
    shape = (batch, num_frames, channels, size, size)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def num_parameters(name: str, *, num_classes: int, num_frames: int) -> int:
    """Learnable values, counted without memory for them."""
    with torch.device("meta"):
        model = build_model(ModelConfig(name=name, num_classes=num_classes, num_frames=num_frames))
    return sum(parameter.numel() for parameter in model.parameters())


def giga_multiply_adds(name: str, *, num_classes: int, num_frames: int, size: int) -> float:
    """Of one clip, in 10^9."""
    config = ModelConfig(name=name, num_classes=num_classes, num_frames=num_frames)
    return count_multiply_adds(config, size=size) / 1e9
