"""The stem, a backbone's first convolution, for clips of other than three channels: flow, differences.

It is changed in place, so that its class and its weight's name stay the backbone's. Source: TSN (Wang
et al., 2016), cross-modality initialization.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from vsn.config import ConfigError

_RGB = 3
_CONVS = (nn.Conv2d, nn.Conv3d)


def stem_name(backbone: nn.Module) -> str:
    """Name of the first convolution: timm states it, elsewhere it is the first that the backbone defines.

    Raises:
        ConfigError: the backbone has several, or none.
    """
    stated = (getattr(backbone, "pretrained_cfg", None) or {}).get("first_conv")
    name = stated or next((n for n, m in backbone.named_modules() if isinstance(m, _CONVS)), None)
    if not isinstance(name, str) or not isinstance(backbone.get_submodule(name), _CONVS):
        raise ConfigError(f"{type(backbone).__name__} has no one first convolution. {_ADVICE}")
    return name


_ADVICE = "Take another backbone for model.modality 'flow' or 'rgbdiff', such as resnet50."


def widen_stem(backbone: nn.Module, channels: int) -> None:
    """Let the first convolution take `channels` channels, in place, with random weights (He et al., 2015).

    With 3 channels the backbone stays as it is.

    Raises:
        ConfigError: the first convolution does not see the channels of the frames one for one
            (TResNet moves pixels into channels before it), or there is no one first convolution.
    """
    if channels == _RGB:
        return
    name = stem_name(backbone)
    stem = backbone.get_submodule(name)
    assert isinstance(stem, _CONVS)
    if stem.in_channels != _RGB or stem.groups != 1:
        raise ConfigError(
            f"{type(backbone).__name__}: its first convolution, {name}, takes {stem.in_channels} channels in "
            f"{stem.groups} groups, not the 3 of RGB frames, so it cannot be given {channels}. {_ADVICE}"
        )
    old = stem.weight
    weight = torch.empty(old.shape[0], channels, *old.shape[2:], dtype=old.dtype, device=old.device)
    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
    stem.weight = nn.Parameter(weight)
    stem.in_channels = channels


def fit_stem(backbone: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Weights of a backbone for RGB as weights of `backbone`, whose stem may take other channels.

    The stem's weight becomes the mean over its three colors, repeated for each channel (TSN). Weights
    come back as they are where there is nothing to fit: `backbone` is for RGB too, or the
    weights are not.
    """
    try:
        name = stem_name(backbone)
    except ConfigError:  # what has no stem was not widened
        return state
    stem, weight = backbone.get_submodule(name), state.get(f"{name}.weight")
    assert isinstance(stem, _CONVS)
    if stem.in_channels == _RGB or weight is None or weight.ndim != stem.weight.ndim or weight.shape[1] != _RGB:
        return state
    mean = weight.mean(dim=1, keepdim=True)
    return {**state, f"{name}.weight": mean.repeat_interleave(stem.in_channels, dim=1)}
