"""Whether a shuffle mixes frames where it is put: asked before a model is changed."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from vsn.config import ConfigError


def check_shuffle(name: str, layer: nn.Conv2d | nn.Linear, num_frames: int) -> None:
    """Refuse a layer around which a shuffle pair mixes nothing; warn of one that mixes some frames only.

    Raises:
        ConfigError: fewer channels than frames, or groups that line up with the frames.
    """
    if isinstance(layer, nn.Linear):
        widths = (layer.in_features, layer.out_features)
    else:
        widths = (layer.in_channels, layer.out_channels)
    for what, channels in zip(("input", "output"), widths, strict=True):
        if channels < num_frames:
            raise ConfigError(
                f"{name} has {channels} {what} channels, fewer than num_frames = {num_frames}; every frame needs a "
                f"channel group. Use at most {channels} frames or leave this block out."
            )
    if not isinstance(layer, nn.Linear) and num_frames > 1 and layer.groups > 1:
        reach = _reach(layer, num_frames)
        if not reach.fill_diagonal_(False).any():
            raise ConfigError(
                f"{name} has {layer.groups} groups: with num_frames = {num_frames} each group holds channels of one "
                "frame, so that shuffling around it mixes nothing (mixing_matrix shows it). Use block = 'pointwise', "
                "which shuffles around the 1x1 convolution of the block, a backbone whose 3x3 convolutions are not "
                "grouped, or a num_frames that does not divide the groups."
            )
        if not reach.fill_diagonal_(True).all():
            warnings.warn(
                f"{name} has {layer.groups} groups; with num_frames = {num_frames} each sees a part of the frames, not "
                "all. mixing_matrix shows which.",
                stacklevel=4,
            )


def _reach(conv: nn.Conv2d, num_frames: int) -> Tensor:
    """Which input frame (column) reaches which output frame (row) through a grouped convolution."""

    def frames_by_group(channels: int) -> Tensor:
        # The last column stands for the channels that the shuffle leaves where they are.
        channel = torch.arange(channels, device="cpu")
        frame = (channel // (channels // num_frames)).clamp(max=num_frames)
        held = torch.zeros(conv.groups, num_frames + 1, dtype=torch.bool, device="cpu")
        held[channel // (channels // conv.groups), frame] = True
        return held

    inputs, outputs = frames_by_group(conv.in_channels), frames_by_group(conv.out_channels)
    reach = (outputs[:, :-1, None] & inputs[:, None, :-1]).any(dim=0)
    # A channel that stays meets, in each frame in turn, a channel group of every other frame.
    reach |= (outputs[:, :-1] & inputs[:, -1:]).any(dim=0)[:, None]
    reach |= (inputs[:, :-1] & outputs[:, -1:]).any(dim=0)[None, :]
    return reach


def check_headtail(name: str, head: nn.Conv2d, tail: nn.BatchNorm2d, num_frames: int) -> None:
    """Refuse a headtail block too narrow for T.

    Raises:
        ConfigError: fewer channels than frames at either end.
    """
    for channels in (head.in_channels, tail.num_features):
        if channels < num_frames:
            raise ConfigError(
                f"The headtail block at {name} has {channels} channels, fewer than num_frames = {num_frames}; T must "
                "fit both its input and its output width. Use fewer frames or leave this stage out."
            )
