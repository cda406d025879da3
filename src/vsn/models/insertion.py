"""Temporal operations inside a 2D CNN: the layers, the placement plan, the insertion, the proof.

Each layer is a subclass of the layer it takes the place of and overrides ``forward`` alone, so that
every weight keeps the backbone's own name and shape.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, get_args

import torch
from torch import Tensor, nn

from vsn.config import STAGES, Block, ConfigError
from vsn.models.blocks import ResidualBlock, residual_blocks
from vsn.models.layers import ShiftConv2d, ShuffleBatchNorm2d, ShuffleConv2d, ShuffleLinear

_M = TypeVar("_M", bound=nn.Module)


@dataclass(frozen=True)
class Placement:
    """Which modules become temporal, by name.

    Attributes:
        shuffle: convolutions wrapped by a shuffle pair (compact and pointwise blocks).
        headtail: (first convolution, last normalization) of headtail blocks.
        shift: convolutions preceded by a temporal shift.
    """

    shuffle: tuple[str, ...] = ()
    headtail: tuple[tuple[str, str], ...] = ()
    shift: tuple[str, ...] = ()


def plan_placement(
    stages: Mapping[str, Sequence[ResidualBlock]],
    *,
    block: Block = "compact",
    places: Sequence[str] = STAGES,
    shift: bool = True,
    shift_places: Sequence[str] = STAGES,
    shift_every: int = 1,
) -> Placement:
    """Decide what goes where: shuffle in the last block of each of ``places``, shift in the others.

    Args:
        stages: residual blocks by stage, from `residual_blocks`.
        block: compact or headtail (paper, Figure 3); or pointwise, the pair around the block's projecting 1x1
            convolution, which is ours and not the paper's: it mixes where the 3x3 is grouped or depthwise.
        places: stages whose last block becomes a shuffle block (paper, Table 1 and 8).
        shift: temporal shift in every block that is not a shuffle block.
        shift_places: stages whose blocks may shift.
        shift_every: shift only every n-th block of a stage.

    Raises:
        ConfigError: no such block or stage, shift_every below 1, or none of ``places`` has such a block.
    """
    if block not in get_args(Block):
        raise ConfigError(f"block is {block!r}; it is {' or '.join(map(repr, get_args(Block)))}.")
    for key, chosen in (("places", places), ("shift_places", shift_places)):
        if not set(chosen) <= set(STAGES):
            raise ConfigError(f"{key} is {list(chosen)}; choose from {list(STAGES)}.")
    if shift_every < 1:
        raise ConfigError(f"shift_every is {shift_every}; it must be 1 or more.")
    if not any(stages.values()):
        raise ConfigError(
            "This backbone has no residual blocks with an identity path, so that there is nothing to shift or shuffle; it "
            "works as tsn_<its name>."
        )
    # A small network may have no residual block in a stage; then there is none to shuffle in.
    shuffles: list[ResidualBlock] = [stages[stage][-1] for stage in STAGES if stage in places and stages[stage]]
    if places and not shuffles:
        raise ConfigError(
            f"places is {list(places)}, where this backbone has no residual blocks; it has some in "
            f"{[stage for stage in STAGES if stages[stage]]}."
        )
    if block == "pointwise" and (without := [one.name for one in shuffles if not one.pointwise]):
        raise ConfigError(
            f"block is 'pointwise', and {without[0]} is not known to end in a 1x1 convolution; use block = 'compact'."
        )
    shifts = [
        one
        for stage, blocks in stages.items()
        for one in blocks[::shift_every]
        if shift and stage in shift_places and one not in shuffles
    ]
    return Placement(
        shuffle=tuple(
            one.path(one.spatial if block == "compact" else one.pointwise) for one in shuffles if block != "headtail"
        ),
        headtail=tuple((one.path(one.head), one.path(one.tail)) for one in shuffles) if block == "headtail" else (),
        shift=tuple(one.path(one.head) for one in shifts),
    )


def insert_temporal(
    backbone: nn.Module,
    *,
    num_frames: int,
    block: Block = "compact",
    places: Sequence[str] = STAGES,
    shift: bool = True,
    shift_places: Sequence[str] = STAGES,
    shift_div: int = 8,
    shift_every: int = 1,
) -> nn.Module:
    """Turn a torchvision or timm CNN into a VSN (or, with ``places=()``, a TSM), in place.

    Names and values of the weights stay as they are. With ``num_frames=1`` nothing changes.

    Raises:
        ConfigError: unknown architecture, a convolution that cannot mix frames, or C < T.

    Example:
        >>> import torchvision
        >>> resnet = insert_temporal(torchvision.models.resnet18(), num_frames=8)
        >>> resnet(torch.rand(16, 3, 64, 64)).shape  # 2 clips of 8 frames
        torch.Size([16, 1000])
    """
    plan = plan_placement(
        residual_blocks(backbone),
        block=block,
        places=places,
        shift=shift,
        shift_places=shift_places,
        shift_every=shift_every,
    )
    return insert_at(backbone, num_frames=num_frames, placement=plan, shift_div=shift_div)


def insert_at(
    model: nn.Module,
    *,
    num_frames: int,
    shuffle: Sequence[str] = (),
    shift: Sequence[str] = (),
    placement: Placement | None = None,
    shift_div: int = 8,
) -> nn.Module:
    """Insert temporal operations at modules named by hand, in any CNN, in place.

    Args:
        model: maps frames ``(B*T, C, H, W)`` to whatever it maps them to.
        num_frames: T.
        shuffle: names of `nn.Conv2d` modules to put between a shuffle pair; or of `nn.Linear` modules
            that see ``(B*T, H, W, C)``, as ConvNeXt's do.
        shift: names of `nn.Conv2d` modules to put a temporal shift before.
        placement: a plan, instead of names.
        shift_div: 1/shift_div of the channels shift each way.

    Raises:
        ConfigError: a name that is not there, comes twice or is no plain convolution, a convolution
            that would mix nothing, or fewer channels than frames. The model is unchanged then.
    """
    if num_frames < 1:
        raise ConfigError(f"num_frames is {num_frames}; a clip has at least one frame.")
    if shift_div < 2:
        raise ConfigError(f"shift_div is {shift_div}; it must be 2 or more: two parts of 1/shift_div move.")
    plan = placement or Placement(shuffle=tuple(shuffle), shift=tuple(shift))
    names = [*plan.shuffle, *(name for pair in plan.headtail for name in pair), *plan.shift]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"{twice} is named more than once; a module takes one temporal operation.")
    # All checks come before the first change, so that a refusal leaves the model as it was.
    for name in plan.shuffle:
        check_shuffle(name, _find_mixing(model, name), num_frames)
    for head, tail in plan.headtail:
        if not isinstance(model.get_submodule(tail), nn.BatchNorm2d):
            raise ConfigError(
                f"The residual branch at {head} ends in a {type(model.get_submodule(tail)).__name__}, not a plain "
                "batch normalization, so a headtail block has no tail here; use block = 'compact'."
            )
        check_headtail(head, _find(model, head, nn.Conv2d), _find(model, tail, nn.BatchNorm2d), num_frames)
    for name in plan.shift:
        conv = _find(model, name, nn.Conv2d)
        if conv.in_channels < shift_div:
            raise ConfigError(f"{name} has {conv.in_channels} input channels, fewer than shift_div = {shift_div}.")
    if num_frames == 1:
        return model
    for name in plan.shuffle:
        _replace(model, name, _shuffle_pair(_find_mixing(model, name), num_frames))
    for head, tail in plan.headtail:
        _replace(model, head, _shuffle_conv(_find(model, head, nn.Conv2d), num_frames, unshuffle=False))
        _replace(model, tail, _shuffle_norm(_find(model, tail, nn.BatchNorm2d), num_frames))
    for name in plan.shift:
        _replace(model, name, _shift_conv(_find(model, name, nn.Conv2d), num_frames, shift_div))
    return model


def mixing_matrix(model: nn.Module, *, num_frames: int, size: int = 64, seed: int = 0) -> Tensor:
    """Which input frame reaches which output frame's features, by gradient.

    Args:
        model: frames ``(T, 3, H, W)`` to per-frame outputs ``(T, ...)``; for a `VideoClassifier`
            its ``backbone``. It is copied, put in evaluation mode and double precision.
            Weights that are all zero count as ones there: a residual branch that starts switched
            off (timm's way) is there to be trained.
        num_frames: T.
        size: height and width of the random input, pixels.
        seed: of the random input.

    Returns:
        bool ``(T, T)``: row t, column s says whether output frame t depends on input frame s. The
        identity for TSN, three diagonals for one shift, all true after one compact block.
    """
    generator = torch.Generator().manual_seed(seed)
    probe = copy.deepcopy(model).cpu().double().eval()
    for parameter in probe.parameters():
        if not parameter.detach().any():
            nn.init.ones_(parameter)
    frames = torch.randn(num_frames, 3, size, size, generator=generator, dtype=torch.float64, requires_grad=True)
    outputs = probe(frames).flatten(1)
    weights = torch.randn(outputs.shape[1], generator=generator, dtype=torch.float64)
    rows = []
    for t in range(num_frames):
        (gradient,) = torch.autograd.grad((outputs[t] * weights).sum(), frames, retain_graph=True)
        rows.append(gradient.flatten(1).abs().amax(dim=1) > 0)
    return torch.stack(rows)


def _find(model: nn.Module, name: str, kind: type[_M]) -> _M:
    try:
        module = model.get_submodule(name)
    except AttributeError:
        examples = [n for n, m in model.named_modules() if type(m) is kind][:3]
        raise ConfigError(f"The model has no module {name!r}; its {kind.__name__} modules begin {examples}.") from None
    if type(module) is not kind:
        hint = (
            " It already is temporal."
            if isinstance(module, ShuffleConv2d | ShiftConv2d | ShuffleBatchNorm2d | ShuffleLinear)
            else ""
        )
        raise ConfigError(
            f"{name} is a {type(module).__name__}; only a plain {kind.__name__} can become temporal, because a "
            f"subclass may compute something else in its forward.{hint}"
        )
    return module


def _find_mixing(model: nn.Module, name: str) -> nn.Conv2d | nn.Linear:
    """A module that can stand between a shuffle pair."""
    linear = any(n == name and isinstance(m, nn.Linear) for n, m in model.named_modules())
    return _find(model, name, nn.Linear) if linear else _find(model, name, nn.Conv2d)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def _adopt(new: _M, old: nn.Module) -> _M:
    """Give ``new`` the parameters, buffers, hooks and settings of ``old``: the very same tensors."""
    new.__dict__.update(old.__dict__)
    return new


def _shuffle_conv(conv: nn.Conv2d, num_frames: int, *, unshuffle: bool) -> ShuffleConv2d:
    new = _adopt(ShuffleConv2d.__new__(ShuffleConv2d), conv)
    new.num_frames, new.unshuffle = num_frames, unshuffle
    return new


def _shuffle_pair(layer: nn.Conv2d | nn.Linear, num_frames: int) -> ShuffleConv2d | ShuffleLinear:
    if isinstance(layer, nn.Conv2d):
        return _shuffle_conv(layer, num_frames, unshuffle=True)
    new = _adopt(ShuffleLinear.__new__(ShuffleLinear), layer)
    new.num_frames = num_frames
    return new


def _shuffle_norm(norm: nn.BatchNorm2d, num_frames: int) -> ShuffleBatchNorm2d:
    new = _adopt(ShuffleBatchNorm2d.__new__(ShuffleBatchNorm2d), norm)
    new.num_frames = num_frames
    return new


def _shift_conv(conv: nn.Conv2d, num_frames: int, shift_div: int) -> ShiftConv2d:
    new = _adopt(ShiftConv2d.__new__(ShiftConv2d), conv)
    new.num_frames, new.shift_div = num_frames, shift_div
    return new


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
