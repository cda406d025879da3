"""Checkpoints of other code bases: whose they are, and their weights in the names of our backbones.

Two families of names are known. The official TSM and TSN-PyTorch keep torchvision's names below
``base_model``, put ``.net`` behind each convolution that a temporal shift precedes, and call the classifier
``new_fc``. MMAction2 puts a convolution and its normalization into one module (``conv1.conv``,
``conv1.bn``), with ``.net`` behind as well, and calls the classifier ``cls_head.fc_cls``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vsn.config import STAGES, ConfigError
from vsn.models.backbones import THIN_BACKBONES, TORCHVISION_BACKBONES, build_backbone
from vsn.models.blocks import residual_blocks
from vsn.models.insertion import plan_placement

Layout = Literal["tsm", "mmaction2"]
LAYOUT_NAMES: dict[Layout, str] = {"tsm": "TSM or TSN-PyTorch", "mmaction2": "MMAction2"}


@dataclass(frozen=True)
class ForeignWeights:
    """The weights of another code base's TSN or TSM, in the names of our backbones."""

    layout: Layout
    backbone: dict[str, Tensor]
    """By the backbone's own names; without its classifier."""
    head_weight: Tensor
    """``(num_classes, D)``."""
    head_bias: Tensor
    """``(num_classes,)``."""
    shifted: tuple[str, ...]
    """Convolutions that a temporal shift precedes, by the backbone's own names; none in a TSN."""


@dataclass(frozen=True)
class ShiftPlan:
    """Which blocks of a backbone shift, as settings of `vsn.config.ModelConfig`."""

    shift_places: tuple[str, ...]
    shift_every: int


# What cannot be built here: a pattern of names, and what it is the mark of. The first that fits is said.
_UNKNOWN: tuple[tuple[str, str], ...] = (
    (
        r"(^|\.)conv1_7x7_s2\.",
        "its backbone is BN-Inception, whose inputs and layers differ from any backbone's that is converted",
    ),
    (r"\.(nl|non_local_block)\.", "it has non-local blocks, which a TSM here has not"),
    (r"^consensus\.", "it weighs frames by relations (TRN), where TSN and TSM take a mean"),
    (
        r"layer2\.net\.\d",
        "it pools over time (temporal_pool), so that its last stages see fewer frames, which is not done here",
    ),
    (
        r"layer\d\.\d+\.net\.",
        "its shift moves whole blocks, the identity path too (shift_place 'block'); here a shift stays on the residual path",
    ),
    (
        r"(^|\.)features\.\d+\.",
        "its backbone is a MobileNet in names of its own, which are not torchvision's",
    ),
)

# MMAction2's modules of a convolution and its normalization, as torchvision names them.
_CONV_MODULE: tuple[tuple[str, str], ...] = (
    (r"^((?:layer\d\.\d+\.)?conv\d)\.conv\.net\.", r"\1.net."),
    (r"^((?:layer\d\.\d+\.)?conv\d)\.conv\.", r"\1."),
    (r"^((?:layer\d\.\d+\.)?)conv(\d)\.bn\.", r"\1bn\2."),
    (r"\.downsample\.conv\.", ".downsample.0."),
    (r"\.downsample\.bn\.", ".downsample.1."),
)


def read_foreign(state: Mapping[str, Tensor]) -> ForeignWeights:
    """Tell whose names a state dict has, and give its weights ours.

    Args:
        state: names to tensors, as the checkpoint holds them; a ``module.`` before all of them is dropped.

    Raises:
        ConfigError: names of neither code base, or a network that is built otherwise than TSN and TSM on a
            residual network are here. The message says which.
    """
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    layout = _layout(state)
    _check_known(state)
    prefix, head = ("backbone.", "cls_head.fc_cls") if layout == "mmaction2" else ("base_model.", "new_fc")
    if layout == "tsm" and "new_fc.weight" not in state:
        head = "base_model.fc"  # trained without dropout, where TSM leaves the classifier in the backbone
    if f"{head}.weight" not in state or f"{head}.bias" not in state:
        raise ConfigError(
            f"The checkpoint has no classifier {head}.weight and {head}.bias, where {LAYOUT_NAMES[layout]} has it. If it is "
            "a backbone alone, start from it with --model.weights FILE."
        )
    backbone: dict[str, Tensor] = {}
    shifted = []
    for name, tensor in state.items():
        if not name.startswith(prefix) or name.rpartition(".")[0] == head:
            continue
        own = name.removeprefix(prefix)
        for pattern, ours in _CONV_MODULE if layout == "mmaction2" else ():
            own = re.sub(pattern, ours, own)
        if match := re.match(r"(.*conv1)\.net\.", own):
            shifted.append(match[1])
            own = own.replace(".net.", ".", 1)
        backbone[own] = tensor
    return ForeignWeights(
        layout, backbone, state[f"{head}.weight"], state[f"{head}.bias"], tuple(dict.fromkeys(shifted))
    )


def _layout(state: Mapping[str, Tensor]) -> Layout:
    names = list(state)
    if any(name.startswith("base_model.") for name in names):
        return "tsm"
    if any(name.startswith("cls_head.") for name in names):
        return "mmaction2"
    seen = ", ".join(names[:3]) or "none"
    if "head.weight" in state and any(name.startswith("backbone.") for name in names):
        raise ConfigError(f"The checkpoint has names of vsn itself ({seen}); a run needs no conversion: vsn eval RUN.")
    raise ConfigError(
        f"The checkpoint has names of neither TSM, TSN-PyTorch (base_model..., new_fc) nor MMAction2 (backbone..., "
        f"cls_head...): {seen}. An image network in torchvision's or timm's names starts a run with --model.weights FILE."
    )


def _check_known(state: Mapping[str, Tensor]) -> None:
    for pattern, reason in _UNKNOWN:
        name = next((name for name in state if re.search(pattern, name)), None)
        if name is not None:
            raise ConfigError(
                f"This checkpoint cannot be converted: {reason} (it has {name}). TSN and TSM on residual networks can."
            )
    solid = next((name for name, tensor in state.items() if tensor.ndim == 5), None)
    if solid is not None:
        raise ConfigError(
            f"This checkpoint cannot be converted: it is a 3D network ({solid} has shape {tuple(state[solid].shape)}). "
            "TSN and TSM on residual networks can."
        )


def find_backbone(state: Mapping[str, Tensor]) -> str:
    """The name of the backbone that has these weights, told by all names and shapes but the stem's channels.

    Raises:
        ConfigError: none has; says how the nearest differs.
    """
    shapes = _shapes(state)
    nearest: tuple[int, str, str] | None = None
    # Building one takes a while, even without weights; the code bases have these two families.
    family = "densenet" if any(name.startswith("features.") for name in state) else "resne"
    names = [name for name in (*THIN_BACKBONES, *TORCHVISION_BACKBONES) if family in name]
    for name in names:
        with torch.device("meta"):
            own = _shapes(build_backbone(name).state_dict())
        differing = [key for key in sorted(own.keys() | shapes.keys()) if own.get(key) != shapes.get(key)]
        if not differing:
            return name
        if nearest is None or len(differing) < nearest[0]:
            key = differing[0]
            nearest = (
                len(differing),
                name,
                f"{key} is {_said(own, key)} there and {_said(shapes, key)} here",
            )
    assert nearest is not None
    raise ConfigError(
        f"No backbone of vsn has the names and shapes of this checkpoint. The nearest, {nearest[1]}, differs in "
        f"{nearest[0]} of them, for example {nearest[2]}. Those that are looked through: {', '.join(names)}."
    )


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes by name, without the classifier's, the number of input channels of the stem, and the counts of
    batches, which old checkpoints lack."""
    classifier = ("fc.", "classifier.", "head.")
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked") and not name.startswith(classifier)
    }
    stem = next((name for name, shape in shapes.items() if len(shape) == 4), None)
    if stem is not None:
        out, _, *kernel = shapes[stem]
        shapes[stem] = (out, *kernel)
    return shapes


def _said(shapes: Mapping[str, tuple[int, ...]], key: str) -> str:
    return str(shapes[key]) if key in shapes else "not"


def plan_shift(backbone: str, shifted: tuple[str, ...]) -> ShiftPlan:
    """The settings under which exactly these convolutions of a backbone shift.

    The official TSM shifts every second block of a ResNet-101, and every block of smaller ones.

    Raises:
        ConfigError: no stage and step give these; names what is left over.
    """
    with torch.device("meta"):
        stages = residual_blocks(build_backbone(backbone))
    by_stage = {stage: {block.head for block in blocks} for stage, blocks in stages.items()}
    places = tuple(stage for stage in STAGES if by_stage[stage] & set(shifted))
    for every in range(1, max(map(len, stages.values())) + 1):
        plan = plan_placement(stages, places=(), shift_places=places, shift_every=every)
        if set(plan.shift) == set(shifted):
            return ShiftPlan(places, every)
    whole = plan_placement(stages, places=(), shift_places=places)
    missing = sorted(set(whole.shift) - set(shifted)) or sorted(set(shifted) - set(whole.shift))
    raise ConfigError(
        f"{len(shifted)} convolutions of this {backbone} shift, {shifted[0]} the first, and not in every n-th block of its "
        f"stages: {missing[0]} stands out. Such a placement cannot be stated in a recipe."
    )
