"""Adapt the stem, a backbone's first convolution, to clips of flow or frame differences.

The convolution is changed in place, so that its class and its weight's name do not change. Source: TSN (Wang et al., 2016),
cross-modality initialization.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from vsn.config import ConfigError

_RGB = 3
_CONVS = (nn.Conv2d, nn.Conv3d)
_HINT = "Take another backbone for model.modality 'flow' or 'rgbdiff', such as resnet50."


def stem_name(backbone: nn.Module) -> str:
    """Return the name of the first convolution: as timm states it, otherwise the first that the backbone defines.

    Raises:
        ConfigError: the backbone has several, or none.
    """
    name = (getattr(backbone, "pretrained_cfg", None) or {}).get("first_conv")
    name = name or next((n for n, m in backbone.named_modules() if isinstance(m, _CONVS)), None)
    if not isinstance(name, str) or not isinstance(backbone.get_submodule(name), _CONVS):
        raise ConfigError(f"{type(backbone).__name__} has no single first convolution. {_HINT}")
    return name


def widen_stem(backbone: nn.Module, channels: int) -> None:
    """Let the first convolution take `channels` input channels, in place, with random weights (He et al., 2015).

    With 3 channels nothing changes.

    Raises:
        ConfigError: there is no single first convolution, or it does not take the channels of the frames one to one
            (TResNet moves pixels into channels before it).
    """
    if channels == _RGB:
        return
    name = stem_name(backbone)
    stem = backbone.get_submodule(name)
    assert isinstance(stem, _CONVS)
    if stem.in_channels != _RGB or stem.groups != 1:
        raise ConfigError(
            f"{type(backbone).__name__}: its first convolution, {name}, takes {stem.in_channels} channels in {stem.groups} "
            f"groups, not the 3 of RGB frames, so that it cannot be given {channels}. {_HINT}"
        )
    # Pretrained weights, if any, are fitted when they are loaded (`fit_stem`).
    shape = (stem.out_channels, channels, *stem.weight.shape[2:])
    weight = nn.init.kaiming_normal_(stem.weight.new_empty(shape), mode="fan_out", nonlinearity="relu")
    stem.weight = nn.Parameter(weight)
    stem.in_channels = channels


def fit_stem(backbone: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Convert weights for RGB to weights of `backbone`, whose stem may take other channels.

    The stem's weight becomes its mean over the three colors, repeated for each channel (TSN). Weights that need no
    conversion are returned unchanged.
    """
    try:
        name = stem_name(backbone)
    except ConfigError:  # a backbone without a stem was not widened
        return state
    stem, weight = backbone.get_submodule(name), state.get(f"{name}.weight")
    assert isinstance(stem, _CONVS)
    # Weights of a widened stem, as in a run on flow, already have its channels.
    if stem.in_channels == _RGB or weight is None or weight.ndim != stem.weight.ndim or weight.shape[1] != _RGB:
        return state
    mean = weight.mean(dim=1, keepdim=True)
    return {**state, f"{name}.weight": mean.repeat_interleave(stem.in_channels, dim=1)}
