"""timm backbones: building them and finding their residual blocks (extra ``timm``)."""

from __future__ import annotations

from torch import nn

from vsn.config import STAGES, ConfigError
from vsn.models.residual import ResidualBlock


def build_timm(name: str) -> nn.Module:
    raise ConfigError("soon")


def timm_blocks(backbone: nn.Module) -> dict[str, list[ResidualBlock]]:
    raise ConfigError("soon")
