"""Insert temporal operations into a 2D CNN: plan where they go, replace the layers, show which frames mix."""

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
_TEMPORAL_LAYERS = (ShuffleConv2d, ShuffleLinear, ShuffleBatchNorm2d, ShiftConv2d)


@dataclass(frozen=True)
class Placement:
    """Which modules become temporal, by name.

    Attributes:
        shuffle: convolutions or linear layers wrapped by a shuffle pair (compact and pointwise blocks).
        headtail: (first convolution, last normalization) of headtail blocks.
        shift: convolutions preceded by a temporal shift.
    """

    shuffle: tuple[str, ...] = ()
    headtail: tuple[tuple[str, str], ...] = ()
    shift: tuple[str, ...] = ()


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

    Names and values of the weights do not change. With ``num_frames=1`` nothing changes.

    Raises:
        ConfigError: unknown architecture, a convolution that cannot mix frames, or C < T.

    Example:
        >>> import torchvision
        >>> resnet = insert_temporal(torchvision.models.resnet18(), num_frames=8)
        >>> resnet(torch.rand(16, 3, 64, 64)).shape  # 2 clips of 8 frames
        torch.Size([16, 1000])
    """
    stages = residual_blocks(backbone)
    plan = plan_placement(
        stages, block=block, places=places, shift=shift, shift_places=shift_places, shift_every=shift_every
    )
    return insert_at(backbone, num_frames=num_frames, placement=plan, shift_div=shift_div)


def plan_placement(
    stages: Mapping[str, Sequence[ResidualBlock]],
    *,
    block: Block = "compact",
    places: Sequence[str] = STAGES,
    shift: bool = True,
    shift_places: Sequence[str] = STAGES,
    shift_every: int = 1,
) -> Placement:
    """Choose the modules: shuffle in the last block of each of ``places``, shift in the other blocks.

    Args:
        stages: residual blocks by stage, from `residual_blocks`.
        block: "compact" or "headtail" (paper, Figure 3); or "pointwise", the shuffle pair around the projecting 1x1
            convolution, which is ours and not the paper's: it mixes frames where the 3x3 is grouped or depthwise.
        places: stages whose last block becomes a shuffle block (paper, Tables 1 and 8).
        shift: temporal shift in every block that is not a shuffle block.
        shift_places: stages whose blocks may shift.
        shift_every: shift only every n-th block of a stage.

    Raises:
        ConfigError: unknown block or stage, shift_every < 1, or no residual blocks in ``places``.
    """
    if block not in get_args(Block):
        raise ConfigError(f"block is {block!r}; it must be one of {list(get_args(Block))}.")
    for key, chosen in (("places", places), ("shift_places", shift_places)):
        if not set(chosen) <= set(STAGES):
            raise ConfigError(f"{key} is {list(chosen)}; choose from {list(STAGES)}.")
    if shift_every < 1:
        raise ConfigError(f"shift_every is {shift_every}; it must be at least 1.")
    if not any(stages.values()):
        raise ConfigError(
            "This backbone has no residual blocks with an identity path, so there is nothing to shift or shuffle. "
            "Use the model tsn_<backbone>."
        )
    # Small networks have no residual block in some stages: those have nothing to shuffle.
    shuffles = [stages[stage][-1] for stage in STAGES if stage in places and stages[stage]]
    if places and not shuffles:
        available = [stage for stage in STAGES if stages[stage]]
        raise ConfigError(f"places is {list(places)}, but this backbone has residual blocks only in {available}.")
    if block == "pointwise" and (without := [one.name for one in shuffles if not one.pointwise]):
        raise ConfigError(f"block is 'pointwise', but {without[0]} has no known 1x1 projection. Use block = 'compact'.")
    # Every n-th block counts from the first of the stage: with 2, blocks 0, 2, 4, ... shift, unless they shuffle.
    shifts = [
        one
        for stage, blocks in stages.items()
        for one in blocks[::shift_every]
        if shift and stage in shift_places and one not in shuffles
    ]
    return Placement(
        shuffle={
            "compact": tuple(one.spatial for one in shuffles),
            "pointwise": tuple(one.pointwise for one in shuffles),
            "headtail": (),
        }[block],
        headtail=tuple((one.head, one.tail) for one in shuffles) if block == "headtail" else (),
        shift=tuple(one.head for one in shifts),
    )


def insert_at(
    model: nn.Module,
    *,
    num_frames: int,
    shuffle: Sequence[str] = (),
    shift: Sequence[str] = (),
    placement: Placement | None = None,
    shift_div: int = 8,
) -> nn.Module:
    """Insert temporal operations at named modules of any CNN, in place.

    Args:
        model: takes frames ``(B*T, C, H, W)``.
        num_frames: T.
        shuffle: names of `nn.Conv2d` modules to put between a shuffle pair; or of `nn.Linear` modules
            that see ``(B*T, H, W, C)``, as ConvNeXt's do.
        shift: names of `nn.Conv2d` modules to put a temporal shift before.
        placement: a plan, instead of names.
        shift_div: 1/shift_div of the channels shift each way.

    Raises:
        ConfigError: a name that does not exist, is given twice or is not a plain convolution; a convolution that would mix
            nothing; or fewer channels than frames. The model is then unchanged.
    """
    if num_frames < 1:
        raise ConfigError(f"num_frames is {num_frames}; it must be at least 1.")
    if shift_div < 2:
        raise ConfigError(f"shift_div is {shift_div}; it must be at least 2, because 1/shift_div moves each way.")
    plan = placement or Placement(shuffle=tuple(shuffle), shift=tuple(shift))
    names = [*plan.shuffle, *(name for pair in plan.headtail for name in pair), *plan.shift]
    # A second conversion of a module would replace the first.
    if duplicate := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{duplicate} is named more than once; a module takes one temporal operation.")
    # New layers are made, and checked, before the first is put in, so that an error leaves the model unchanged.
    layers: dict[str, nn.Module] = {}
    for name in plan.shuffle:
        if any(n == name and isinstance(m, nn.Linear) for n, m in model.named_modules()):
            linear = _find(model, name, nn.Linear)
            _check_channels(name, num_frames, input=linear.in_features, output=linear.out_features)
            layers[name] = _convert(linear, ShuffleLinear, num_frames=num_frames)
        else:
            conv = _find(model, name, nn.Conv2d)
            _check_channels(name, num_frames, input=conv.in_channels, output=conv.out_channels)
            _check_groups(name, conv, num_frames)
            layers[name] = _convert(conv, ShuffleConv2d, num_frames=num_frames, unshuffle=True)
    for head, tail in plan.headtail:
        if not isinstance(model.get_submodule(tail), nn.BatchNorm2d):
            raise ConfigError(
                f"The residual branch at {head} ends in a {type(model.get_submodule(tail)).__name__}, not a plain batch "
                "normalization, so that a headtail block has no tail. Use block = 'compact'."
            )
        conv, norm = _find(model, head, nn.Conv2d), _find(model, tail, nn.BatchNorm2d)
        _check_channels(f"The headtail block at {head}", num_frames, input=conv.in_channels, output=norm.num_features)
        layers[head] = _convert(conv, ShuffleConv2d, num_frames=num_frames, unshuffle=False)
        layers[tail] = _convert(norm, ShuffleBatchNorm2d, num_frames=num_frames)
    for name in plan.shift:
        conv = _find(model, name, nn.Conv2d)
        if conv.in_channels < shift_div:
            raise ConfigError(f"{name} has {conv.in_channels} input channels, fewer than shift_div = {shift_div}.")
        layers[name] = _convert(conv, ShiftConv2d, num_frames=num_frames, shift_div=shift_div)
    # A single frame has nothing to exchange; then plain layers are faster.
    if num_frames > 1:
        for name, layer in layers.items():
            model.set_submodule(name, layer)
    return model


def _find(model: nn.Module, name: str, kind: type[_M]) -> _M:
    """Return a submodule of exactly this class."""
    try:
        module = model.get_submodule(name)
    except AttributeError:
        examples = [n for n, m in model.named_modules() if type(m) is kind][:3]
        raise ConfigError(f"The model has no module {name!r}; its {kind.__name__} modules begin {examples}.") from None
    # These would also fail the next check; their error should not suggest another layer.
    if isinstance(module, _TEMPORAL_LAYERS):
        raise ConfigError(f"{name} is a {type(module).__name__}: it is already temporal.")
    if type(module) is not kind:
        raise ConfigError(
            f"{name} is a {type(module).__name__}; only a plain {kind.__name__} can become temporal, because the forward of "
            "a subclass may differ."
        )
    return module


def _convert(module: nn.Module, layer: type[_M], **settings: int) -> _M:
    """Make a layer that shares the parameters, buffers, hooks and attributes of a module."""
    # __new__ skips __init__, which would draw random weights that are thrown away.
    new = layer.__new__(layer)
    new.__dict__.update(module.__dict__)
    new.__dict__.update(settings)
    return new


def _check_channels(name: str, num_frames: int, **channels: int) -> None:
    """Refuse a layer with fewer channels than frames: a shuffle needs a channel group for each frame."""
    for side, count in channels.items():
        if count < num_frames:
            raise ConfigError(
                f"{name} has {count} {side} channels, fewer than num_frames = {num_frames}; every frame needs a channel "
                f"group. Use at most {count} frames, or leave this block out."
            )


def _check_groups(name: str, conv: nn.Conv2d, num_frames: int) -> None:
    """Refuse a grouped convolution around which a shuffle mixes nothing; warn if it mixes some frames only.

    Example: 8 channels, T = 4 and 4 groups. After the shuffle, channels 0 and 1 are of frame 0, 2 and 3 of frame 1, and so
    on. Each group of the convolution holds 2 channels, of a single frame: nothing mixes. With 2 groups, frames 0 and 1 mix,
    and 2 and 3.
    """
    if num_frames == 1 or conv.groups == 1:
        return

    def frames_by_group(channels: int) -> Tensor:
        """Bool (groups, T + 1): the frames whose channels a group holds."""
        # The last column stands for the channels that the shuffle does not move.
        channel = torch.arange(channels, device="cpu")
        frame = (channel // (channels // num_frames)).clamp(max=num_frames)
        held = torch.zeros(conv.groups, num_frames + 1, dtype=torch.bool, device="cpu")
        held[channel // (channels // conv.groups), frame] = True
        return held

    # Input frame (column) reaches output frame (row) if some group holds channels of both.
    inputs, outputs = frames_by_group(conv.in_channels), frames_by_group(conv.out_channels)
    reach = (outputs[:, :-1, None] & inputs[:, None, :-1]).any(dim=0)
    # An unmoved channel is, in every frame, that frame's, next to channel groups of all others.
    reach |= (outputs[:, :-1] & inputs[:, -1:]).any(dim=0)[:, None]
    reach |= (inputs[:, :-1] & outputs[:, -1:]).any(dim=0)[None, :]
    if not reach.fill_diagonal_(False).any():
        raise ConfigError(
            f"{name} has {conv.groups} groups: with num_frames = {num_frames} each group holds channels of one frame, so "
            "that shuffling around it mixes nothing (see mixing_matrix). Use block = 'pointwise', which shuffles around the "
            "block's 1x1 convolution, or a backbone without grouped convolutions, or a num_frames that does not divide "
            "the groups."
        )
    if not reach.fill_diagonal_(True).all():
        warnings.warn(
            f"{name} has {conv.groups} groups; with num_frames = {num_frames} each sees a part of the frames "
            "(see mixing_matrix).",
            stacklevel=4,
        )


def mixing_matrix(model: nn.Module, *, num_frames: int, size: int = 64, seed: int = 0) -> Tensor:
    """Compute which input frame reaches which output frame's features, by gradient.

    Args:
        model: frames ``(T, 3, H, W)`` to per-frame outputs ``(T, ...)``; for a `VideoClassifier` its ``backbone``. A copy
            runs in evaluation mode and double precision, with weights that are all zero set to one: a residual branch that
            starts switched off (timm's way) is there to be trained.
        num_frames: T.
        size: height and width of the random input, pixels.
        seed: of the random input.

    Returns:
        Bool ``(T, T)``: row t, column s is whether output frame t depends on input frame s. The identity for TSN, three
        diagonals for one shift, all true after one compact block.
    """
    generator = torch.Generator().manual_seed(seed)
    # Double precision: in single precision a small dependence can round to zero, or rounding look like one.
    probe = copy.deepcopy(model).cpu().double().eval()
    for parameter in probe.parameters():
        if not parameter.detach().any():
            nn.init.ones_(parameter)
    frames = torch.randn(num_frames, 3, size, size, generator=generator, dtype=torch.float64, requires_grad=True)
    outputs = probe(frames).flatten(1)
    # A random projection: a plain sum can have gradient zero, for example after a softmax.
    weights = torch.randn(outputs.shape[1], generator=generator, dtype=torch.float64)
    rows = []
    for t in range(num_frames):
        (gradient,) = torch.autograd.grad((outputs[t] * weights).sum(), frames, retain_graph=True)
        rows.append(gradient.flatten(1).abs().amax(dim=1) > 0)
    return torch.stack(rows)
