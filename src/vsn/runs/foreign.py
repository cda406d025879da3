"""Read checkpoints of other code bases: detect the code base, and rename its weights to those of our backbones.

Two naming schemes are known:

- The official TSM and TSN-PyTorch: torchvision's names below ``base_model``, ``.net`` behind each convolution that
  follows a temporal shift, classifier ``new_fc``.
- MMAction2: a convolution and its batch norm in one module (``conv1.conv``, ``conv1.bn``), ``.net`` as well, classifier
  ``cls_head.fc_cls``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from vsn.config import STAGES, ConfigError
from vsn.config.errors import quote_first
from vsn.models.backbones import THIN_BACKBONES, TORCHVISION_BACKBONES, build_backbone
from vsn.models.blocks import residual_blocks
from vsn.models.insertion import plan_placement
from vsn.models.weights_file import NotFiniteError, check_finite, clamp_variances

Layout = Literal["tsm", "mmaction2"]
LAYOUT_NAMES: dict[Layout, str] = {"tsm": "TSM or TSN-PyTorch", "mmaction2": "MMAction2"}


@dataclass(frozen=True)
class ForeignWeights:
    """The weights of another code base's TSN or TSM, with the names of our backbones."""

    layout: Layout
    backbone: dict[str, Tensor]
    """Without its classifier."""
    head_weight: Tensor
    """``(num_classes, D)``."""
    head_bias: Tensor
    """``(num_classes,)``."""
    shifted: tuple[str, ...]
    """Convolutions that follow a temporal shift; empty for a TSN."""
    names: dict[str, str]
    """Name in ``backbone`` -> name in the checkpoint."""


# Networks that cannot be built here: a pattern of parameter names, and the reason.
_UNSUPPORTED: tuple[tuple[str, str], ...] = (
    (
        r"(^|\.)conv1_7x7_s2\.",
        "its backbone is BN-Inception, whose layers differ from every backbone that is converted",
    ),
    (r"\.(nl|non_local_block)\.", "it has non-local blocks, which a TSM here does not have"),
    (r"^neck\.", "it combines the stages of its backbone (TPN), where TSN and TSM use the last one"),
    (r"^(cls_head\.)?consensus\.", "it combines frames by relations (TRN), where TSN and TSM take a mean"),
    (r"layer2\.net\.\d", "it pools over time (temporal_pool), so its last stages have fewer frames"),
    (
        r"layer\d\.\d+\.net\.",
        "its shift is before whole blocks (shift_place 'block'); here a shift is on the residual path only",
    ),
    (r"(^|\.)features\.\d+\.", "its backbone is a MobileNet whose names are not torchvision's"),
)

# MMAction2's modules of a convolution and its batch norm, as torchvision names them.
_CONV_MODULE: tuple[tuple[str, str], ...] = (
    (r"^((?:layer\d\.\d+\.)?conv\d)\.conv\.net\.", r"\1.net."),
    (r"^((?:layer\d\.\d+\.)?conv\d)\.conv\.", r"\1."),
    (r"^((?:layer\d\.\d+\.)?)conv(\d)\.bn\.", r"\1bn\2."),
    (r"\.downsample\.conv\.", ".downsample.0."),
    (r"\.downsample\.bn\.", ".downsample.1."),
)


def read_foreign(state: Mapping[str, Tensor]) -> ForeignWeights:
    """Detect the code base of a state dict, and rename its weights.

    Args:
        state: names to tensors; a prefix ``module.`` of all names, from `DistributedDataParallel`, is removed.

    Raises:
        ConfigError: names of neither code base, a network other than TSN and TSM on a residual network, tensors that
            such a network does not have, or values that are not finite.
    """
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    # The layout first: the checks and the names of the classifier depend on it.
    layout = _layout(state)
    _check_supported(state)
    prefix, head = ("backbone.", "cls_head.fc_cls") if layout == "mmaction2" else ("base_model.", "new_fc")
    # Where the classifier is depends on a setting that the checkpoint does not store.
    if layout == "tsm" and "new_fc.weight" not in state:
        head = "base_model.fc"  # trained without dropout, for which TSM leaves the classifier in the backbone
    if f"{head}.weight" not in state or f"{head}.bias" not in state:
        raise ConfigError(
            f"The checkpoint has no classifier {head}.weight and {head}.bias, as {LAYOUT_NAMES[layout]} has. If it is only "
            "a backbone, start from it with --model.weights FILE."
        )
    state = clamp_variances(state)
    try:
        check_finite(state)
    except NotFiniteError as error:
        raise ConfigError(f"The checkpoint's training failed: {error}. Use an earlier checkpoint.") from error
    backbone: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    unused, shifted = [], []
    for foreign_name, tensor in state.items():
        if foreign_name in (f"{head}.weight", f"{head}.bias"):
            continue
        if not foreign_name.startswith(prefix):
            unused.append(foreign_name)
            continue
        name = foreign_name.removeprefix(prefix)
        for pattern, replacement in _CONV_MODULE if layout == "mmaction2" else ():
            name = re.sub(pattern, replacement, name)
        # TSM wraps a convolution as TemporalShift(net=conv): layer1.0.conv1.net.weight -> layer1.0.conv1.weight
        if match := re.match(r"(.*conv1)\.net\.", name):
            shifted.append(match[1])
            name = name.replace(".net.", ".", 1)
        # Two names for one layer: with and without a shift, say.
        if name in backbone:
            unused.append(foreign_name)
        backbone[name], names[name] = tensor, foreign_name
    refuse_unused(unused)
    return ForeignWeights(
        layout, backbone, state[f"{head}.weight"], state[f"{head}.bias"], tuple(dict.fromkeys(shifted)), names
    )


def refuse_unused(names: Sequence[str]) -> None:
    """Raise `ConfigError` if there are tensors for which a TSN or TSM has no place: it would be another network."""
    if names:
        raise ConfigError(
            f"The checkpoint has {len(names)} tensors that a TSN or TSM does not have: {quote_first(names, 5)}. It cannot "
            "be converted without them. If they belong to its training only, save a checkpoint without them."
        )


def _layout(state: Mapping[str, Tensor]) -> Layout:
    names = list(state)
    if any(name.startswith("base_model.") for name in names):
        return "tsm"
    if any(name.startswith("cls_head.") for name in names):
        return "mmaction2"
    examples = ", ".join(names[:3]) or "none"
    if "head.weight" in state and any(name.startswith("backbone.") for name in names):
        raise ConfigError(f"The checkpoint has the names of vsn ({examples}); a run needs no conversion: vsn eval RUN.")
    raise ConfigError(
        f"Expected names of TSM or TSN-PyTorch (base_model..., new_fc) or MMAction2 (backbone..., cls_head...), got "
        f"{examples}. To start from an image network of torchvision or timm, use --model.weights FILE."
    )


def _check_supported(state: Mapping[str, Tensor]) -> None:
    problems = [(name, reason) for pattern, reason in _UNSUPPORTED for name in state if re.search(pattern, name)]
    problems += [(name, f"it is a 3D network {tuple(t.shape)}") for name, t in state.items() if t.ndim == 5]
    # The first pattern in the table wins, so the more specific ones come first.
    if problems:
        name, reason = problems[0]
        raise ConfigError(
            f"This checkpoint cannot be converted: {reason} (it has {name}). TSN and TSM on residual networks can."
        )


def find_backbone(state: Mapping[str, Tensor]) -> str:
    """Return the backbone whose names and shapes these weights have, ignoring the channels of the first convolution.

    Raises:
        ConfigError: there is none; shows how the nearest one differs.
    """
    shapes = _shapes(state)
    # Building a backbone takes a while, even without weights, so only the right family is tried.
    family = "densenet" if any(name.startswith("features.") for name in state) else "resne"
    candidates = [name for name in (*THIN_BACKBONES, *TORCHVISION_BACKBONES) if family in name]
    nearest: tuple[int, str, str] | None = None
    for name in candidates:
        with torch.device("meta"):
            expected = _shapes(build_backbone(name).state_dict())
        # ResNet-50 and ResNet-101 differ in names, ResNet-50 and Wide ResNet-50 in shapes only.
        different = [key for key in sorted(expected.keys() | shapes.keys()) if expected.get(key) != shapes.get(key)]
        if not different:
            return name
        if nearest is None or len(different) < nearest[0]:
            key = different[0]
            nearest = len(different), name, f"{key}: expected {expected.get(key)}, got {shapes.get(key)}"
    assert nearest is not None
    raise ConfigError(
        f"No backbone has the names and shapes of this checkpoint. The nearest, {nearest[1]}, differs in {nearest[0]}, for "
        f"example {nearest[2]}. Backbones compared: {', '.join(candidates)}."
    )


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes by name, without what may differ: classifier, input channels, and batch counts, which old files lack."""
    shapes = {
        name: tuple(tensor.shape)
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked") and not name.startswith(("fc.", "classifier.", "head."))
    }
    stem = next((name for name, shape in shapes.items() if len(shape) == 4), None)
    # Flow and frame differences have more input channels than RGB; everything else is the same network.
    if stem is not None:
        out_channels, _, *kernel = shapes[stem]
        shapes[stem] = (out_channels, *kernel)
    return shapes


def plan_shift(backbone: str, shifted: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
    """Return the settings ``shift_places`` and ``shift_every`` with which exactly these convolutions follow a shift.

    The official TSM shifts every second block of a ResNet-101, and every block of smaller ones.

    Raises:
        ConfigError: no stages and step give these convolutions; names one that does not fit.
    """
    with torch.device("meta"):
        stages = residual_blocks(build_backbone(backbone))
    by_stage = {stage: {block.head for block in blocks} for stage, blocks in stages.items()}
    places = tuple(stage for stage in STAGES if by_stage[stage] & set(shifted))
    # A few dozen candidates at most, so trying them all is simpler than solving for the step.
    for every in range(1, max(map(len, stages.values())) + 1):
        plan = plan_placement(stages, places=(), shift_places=places, shift_every=every)
        if set(plan.shift) == set(shifted):
            return places, every
    all_of_stages = plan_placement(stages, places=(), shift_places=places)
    # A block that should shift and does not, or the reverse: whichever exists shows what is irregular.
    odd = sorted(set(all_of_stages.shift) - set(shifted)) or sorted(set(shifted) - set(all_of_stages.shift))
    raise ConfigError(
        f"{len(shifted)} convolutions of this {backbone} follow a shift, but not in every n-th block of its stages: "
        f"{odd[0]} does not fit. A recipe cannot express this placement."
    )
