"""Define what the network is, and list every kind of model by name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal, get_args

from vsn.config.errors import ConfigError, ConfigTypeError, check_range, require

# The paper's names of the four stages of a ResNet, used for all backbones (`vsn.models.blocks`).
STAGES = ("res2", "res3", "res4", "res5")

# Literals are the allowed values on the command line, in recipes and in Python.
Block = Literal["compact", "headtail", "pointwise"]
Modality = Literal["rgb", "flow", "rgbdiff"]
Pairwise = Literal["embedded-gaussian", "dot-product"]
NonLocalPool = Literal["before", "after"]
ExtraInput = Literal["", "paths", "boxes"]
Plane = Literal["path-x", "path-y", "box"]
"""What a channel of an extra input holds, which decides how it is flipped and resized: motion in pixels of the frame, or the
share of each pixel that is inside of a box."""

EXTRA_PLANES: dict[ExtraInput, tuple[Plane, ...]] = {
    "": (),
    # To the next frame of the clip, then to the one before.
    "paths": ("path-x", "path-y", "path-x", "path-y"),
    # For each of `ModelConfig.num_boxes`.
    "boxes": ("box",),
}
"""The channels that an extra input adds to each frame of a clip, after its colors."""
ZERO_PATH = 128
"""The byte of no motion in a plane of paths. Byte b is (b - 128) / 127.5 times `ModelConfig.path_bound` pixels."""


@dataclass(frozen=True)
class ModelKind:
    """A kind of model: where it is built and which backbones it takes."""

    module: str
    """Module below `vsn.models` that defines ``build(config: ModelConfig) -> VideoClassifier``."""
    backbones: tuple[str, ...] | Literal["2d"] = ()
    """Names of ResNets; "2d" for any 2D backbone, applied to each frame; empty for a whole network."""
    inflated: bool = False
    """Takes the weights of its 2D backbone, inflated along time where kernels are longer."""
    image_network: str = ""
    """Name of torchvision's 2D network whose weights a whole 3D network takes, inflated along time."""
    extra: ExtraInput = ""
    """What its clips carry besides the frames; see `EXTRA_PLANES`."""


# 3D ResNets exist in these sizes; the thin one is for CPUs and tests.
RESNETS_3D = ("resnet50", "resnet101", "resnet26_thin")
SEPARABLE_RESNETS = ("resnet18", "resnet18_thin")

# A model's name is its kind, or for kinds with backbones `{kind}_{backbone}`. Modules are named, not imported: settings
# are read without torch, and a network is imported when it is first built.
MODELS: dict[str, ModelKind] = {
    "tsn": ModelKind("vsn", "2d"),
    "tsm": ModelKind("vsn", "2d"),
    "vsn": ModelKind("vsn", "2d"),
    "trn": ModelKind("peers.trn", "2d"),
    "mtrn": ModelKind("peers.trn", "2d"),
    "cluster": ModelKind("peers.cluster", "2d"),
    "c2d": ModelKind("peers.i3d", RESNETS_3D, inflated=True),
    "i3d": ModelKind("peers.i3d", RESNETS_3D, inflated=True),
    "i3d-fine": ModelKind("peers.i3d", RESNETS_3D, inflated=True),
    "i3d_inception": ModelKind("peers.i3d_inception", image_network="googlenet"),
    "i3d_inception_thin": ModelKind("peers.i3d_inception"),
    "nl-c2d": ModelKind("peers.i3d", RESNETS_3D, inflated=True),
    "nl-i3d": ModelKind("peers.i3d", RESNETS_3D, inflated=True),
    "nl-i3d-fine": ModelKind("peers.i3d", RESNETS_3D, inflated=True),
    "gcn": ModelKind("peers.gcn", RESNETS_3D, inflated=True, extra="boxes"),
    "cost": ModelKind("peers.cost", RESNETS_3D, inflated=True),
    "cost-a": ModelKind("peers.cost", RESNETS_3D, inflated=True),
    "cpnet": ModelKind("peers.cpnet", ("resnet34", "resnet101", "resnet26_thin"), inflated=True),
    "slowfast": ModelKind("peers.slowfast", RESNETS_3D),
    "nl-slowfast": ModelKind("peers.slowfast", RESNETS_3D),
    "eco": ModelKind("peers.eco"),
    "eco_thin": ModelKind("peers.eco"),
    "eco_lite": ModelKind("peers.eco"),
    "eco_lite_thin": ModelKind("peers.eco"),
    "s3d": ModelKind("peers.s3d"),
    "s3dg": ModelKind("peers.s3d"),
    "r2plus1d_18": ModelKind("peers.r2plus1d"),
    "r2plus1d_34": ModelKind("peers.r2plus1d"),
    "r2plus1d_34_thin": ModelKind("peers.r2plus1d"),
    "separable": ModelKind("peers.trajectory", SEPARABLE_RESNETS, inflated=True),
    "trajectory": ModelKind("peers.trajectory", SEPARABLE_RESNETS, inflated=True, extra="paths"),
}


def split_name(name: str) -> tuple[str, str]:
    """Split a model's name into kind and backbone.

    Raises:
        ConfigError: no such model; the nearest name is offered. The names of 2D backbones are checked when they are built.

    Example:
        >>> split_name("vsn_resnet50"), split_name("eco_lite")
        (('vsn', 'resnet50'), ('eco_lite', ''))
    """
    if not isinstance(name, str):
        raise ConfigTypeError(f"model.name is {name!r}, of type {type(name).__name__}; it must be a string.")
    # Whole networks first: their names may hold underscores, and "eco_lite" is not an ECO with a backbone "lite".
    if name in MODELS and not MODELS[name].backbones:
        return name, ""
    kind, _, backbone = name.partition("_")
    allowed = MODELS[kind].backbones if kind in MODELS else ()
    if backbone and (allowed == "2d" or backbone in allowed):
        return kind, backbone
    names: list[str] = []
    for known, entry in MODELS.items():
        backbones = (backbone or "resnet50",) if entry.backbones == "2d" else entry.backbones
        names += [f"{known}_{suffix}" for suffix in backbones] or [known]
    # If the kind exists, only the rest is wrong: "eco_lite_resnet50" means "eco_lite", not the nearer "slowfast_resnet50".
    alike = [known for known in names if known.startswith(kind)] if kind in MODELS else names
    near = difflib.get_close_matches(name, alike, cutoff=0 if kind in MODELS else 0.6)
    hint = f"Nearest: {', '.join(near)}. " if near else ""
    raise ConfigError(f"model.name is {name!r}; there is no such model. {hint}`vsn models` lists the names.")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The settings of the network. A run's model is rebuilt from them; the copy in the weights file must agree."""

    name: str = "vsn_resnet50"
    """{tsn,tsm,vsn,trn,mtrn,cluster}_{backbone}, or a 3D network; `vsn.list_models()` lists the names."""
    num_classes: int = 0
    """Outputs of the classifier; 0: as many as the data has."""
    num_frames: int = 8
    """T, frames per clip. A temporal model keeps the T it was trained with."""
    block: Block = "compact"
    """Place of the shuffle pair in a residual block (paper, section 3.2 and Table 7; "pointwise", around its 1x1
    convolution, is ours: it mixes frames where 3x3 convolutions are grouped)."""
    places: tuple[str, ...] = STAGES
    """Stages whose last block is a shuffle block (paper, Tables 1 and 8). VSN only."""
    shift: bool = True
    """Temporal shift in every block that is not a shuffle block (paper, Table 9). VSN only."""
    shift_div: int = 8
    """1/shift_div of the channels move one frame backward, as many one frame forward. TSM and VSN."""
    shift_places: tuple[str, ...] = STAGES
    """Stages whose blocks may shift. Without the early stages these are a plain 2D CNN, which can be frozen."""
    shift_every: int = 1
    """Shift every n-th block of a stage. 2 matches the official TSM ResNet-101 checkpoints."""
    pairwise: Pairwise = "embedded-gaussian"
    """Pairwise function of non-local blocks (Wang et al. 2018). Only for names with nl-, and gcn."""
    non_local_pool: NonLocalPool = "before"
    """Non-local blocks max-pool before the convolutions phi and g, as their authors' code, or after."""
    non_local_scale: bool = False
    """Divide the products by the square root of their width, as the authors' code; the paper's equation 4 does not."""
    clusters: int = 32
    """N, attention units: weighted averages of the frames' features. Only Attention Clusters (`cluster_...`)."""
    alpha: int = 8
    """The slow pathway takes every alpha-th of the T frames: with T = 32, 8 is 4x16 and 4 is 8x8. Only SlowFast."""
    dropout: float = 0.5
    """Drop probability before the classifier (TSM 0.5; TSN and the VSN paper 0.8)."""
    weights: str = "none"
    """Initial weights: "none", a torchvision weight name, a file of weights, or a run folder."""
    modality: Modality = "rgb"
    """Input per segment: a frame (rgb), L stored flow fields (flow), or L differences of frames (rgbdiff)."""
    flow_length: int = 5
    """L, consecutive flow fields or differences per segment (TSN 5; the paper's flow 1 and 5)."""
    flow_bound: float = 20.0
    """Motion in pixels that is stored as byte 255; flow with another bound is refused."""
    flow_method: str = "tv-l1"
    """How the flow was computed; flow stored by another method is refused."""
    flow_short_side: int = 0
    """Shorter side, pixels, of the frames whose flow was computed; 0: clip.short_side. Motion is in pixels of that
    size, so that flow computed at another is refused."""
    path_bound: float = 64.0
    """Largest motion between two frames of a clip, in pixels of its frames; longer paths are clipped. TrajectoryNet only."""
    num_boxes: int = 10
    """Boxes of each frame, the first of those there are (the paper: 10 for Something-Something, 50 for Charades). Only
    NL-I3D + GCN (`gcn_...`)."""

    def __post_init__(self) -> None:
        kind, _ = split_name(self.name)
        check_range(self, "[0, inf)", "num_classes", "flow_short_side", table="model.")
        check_range(self, "[1, inf)", "num_frames", "flow_length", "shift_every", "alpha", "clusters", table="model.")
        check_range(self, "[1, 1000]", "num_boxes", table="model.")
        check_range(self, "[2, inf)", "shift_div", table="model.")  # 1/shift_div of the channels move each way
        check_range(self, "(0, inf)", "flow_bound", "path_bound", table="model.")
        check_range(self, "[0, 1)", "dropout", table="model.")
        # Recipes are checked against the Literals; this is for objects made in Python.
        for key, choices in {
            "block": Block,
            "modality": Modality,
            "pairwise": Pairwise,
            "non_local_pool": NonLocalPool,
        }.items():
            value, allowed = getattr(self, key), get_args(choices)
            require(value in allowed, f"model.{key} is {value!r}; it must be one of {list(allowed)}.")
        for key in ("places", "shift_places"):
            stages = getattr(self, key)
            require(
                len(set(stages)) == len(stages) and set(stages) <= set(STAGES),
                f"model.{key} is {list(stages)}; choose from {list(STAGES)}, each at most once.",
            )
        require(
            not kind.endswith("slowfast") or self.num_frames % self.alpha == 0,
            f"model.num_frames is {self.num_frames}; it must be a multiple of model.alpha = {self.alpha}.",
        )
        require(
            not self.extra_input or self.modality == "rgb",
            f"model.modality is {self.modality!r}; {self.name} takes frames, and {self.extra_input} beside them. Set it to "
            "'rgb'.",
        )
        # A name must say what the network is: tables and reports compare models by name.
        require(
            kind != "vsn" or bool(self.places) or self.shift,
            "model.places is empty and model.shift is false: a VSN without shuffle and shift is a TSN. Name it tsn_...",
        )

    @property
    def kind(self) -> str:
        """The kind of model, without its backbone: "vsn", "nl-i3d", "s3d"."""
        return split_name(self.name)[0]

    @property
    def backbone(self) -> str:
        """The name of the backbone; "" for a whole network."""
        return split_name(self.name)[1]

    @property
    def sees_frames(self) -> bool:
        """Whether a 2D backbone is applied to each frame; otherwise the network is 3D."""
        return MODELS[self.kind].backbones == "2d"

    @property
    def any_num_frames(self) -> bool:
        """Whether the model accepts clips of another T than it was trained with: it averages what it sees of each frame."""
        return self.kind in ("tsn", "cluster")

    @property
    def num_consecutive(self) -> int:
        """Frames or flow fields read per segment: 1, L of flow, L + 1 frames to subtract."""
        return {"rgb": 1, "flow": self.flow_length, "rgbdiff": self.flow_length + 1}[self.modality]

    @property
    def clip_channels(self) -> int:
        """C of the clips `(B, T, C, H, W)` that the model takes: 3, 2L of flow, 3 (L + 1) of frames to subtract.

        The planes of an extra input follow.
        """
        # A flow field has two channels, x and y; a frame has three.
        return (2 if self.modality == "flow" else 3) * self.num_consecutive + len(self.extra_planes)

    @property
    def stem_channels(self) -> int:
        """Input channels of the first convolution: 3, 2L of flow, 3L of differences."""
        return self.clip_channels - len(self.extra_planes) - (3 if self.modality == "rgbdiff" else 0)

    @property
    def has_non_local(self) -> bool:
        """Whether the network has non-local blocks."""
        return self.kind.startswith("nl-") or self.kind == "gcn"

    @property
    def extra_input(self) -> ExtraInput:
        """What the clips carry besides the frames; "" for nothing."""
        return MODELS[self.kind].extra

    @property
    def extra_planes(self) -> tuple[Plane, ...]:
        """The channels that the extra input adds to each frame."""
        return EXTRA_PLANES[self.extra_input] * (self.num_boxes if self.extra_input == "boxes" else 1)

    @property
    def reads_flow(self) -> bool:
        """Whether clips are made from optical flow: of it, or with the paths of points along it."""
        return self.modality == "flow" or self.extra_input == "paths"
