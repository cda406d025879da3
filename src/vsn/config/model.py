"""What the network is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from vsn.config.errors import require

STAGES = ("res2", "res3", "res4", "res5")

FRAME_KINDS = ("tsn", "tsm", "vsn", "trn", "mtrn")
"""Models that see frames through a 2D backbone; a name is one of them, "_" and any 2D backbone."""
VOLUME_KINDS = ("c2d", "i3d", "i3d-fine", "nl-c2d", "nl-i3d", "nl-i3d-fine", "slowfast", "nl-slowfast")
"""3D ResNets; a name is one of them, "_" and one of VOLUME_BACKBONES."""
VOLUME_BACKBONES = ("resnet50", "resnet101", "resnet26_thin")
WHOLE_KINDS = (
    "eco",
    "eco_thin",
    "eco_lite",
    "eco_lite_thin",
    "s3d",
    "s3dg",
    "r2plus1d_18",
    "r2plus1d_34",
    "r2plus1d_34_thin",
)
"""Networks that come as a whole; these are names by themselves."""

Block = Literal["compact", "headtail", "pointwise"]
Modality = Literal["rgb", "flow", "rgbdiff"]
Pairwise = Literal["embedded-gaussian", "dot-product"]


def split_name(name: str) -> tuple[str, str]:
    """Kind and backbone of a model's name: ("vsn", "resnet50"); of a network that is a whole, ("s3d", "")."""
    if name in WHOLE_KINDS:
        return name, ""
    kind, _, backbone = name.partition("_")
    return kind, backbone


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What the network is. Stored with the weights; a model is rebuilt from it alone."""

    name: str = "vsn_resnet50"
    """{tsn,tsm,vsn,trn,mtrn}_{backbone}, or a 3D network; `vsn.list_models()` lists the names."""
    num_classes: int = 0
    """Outputs of the classifier; 0 means: as many as the data has."""
    num_frames: int = 8
    """T, frames a clip. A temporal model keeps the T it was trained for."""
    block: Block = "compact"
    """Where the shuffle pair sits in a residual block (paper, section 3.2 and Table 7; "pointwise", around its
    1x1 convolution, is ours: it mixes where 3x3 convolutions are grouped)."""
    places: tuple[str, ...] = STAGES
    """Stages whose last block is a shuffle block (paper, Tables 1 and 8). VSN only."""
    shift: bool = True
    """Temporal shift in every block that is not a shuffle block (paper, Table 9). VSN only."""
    shift_div: int = 8
    """1/shift_div of the channels move one frame back, as many one frame ahead. TSM and VSN."""
    shift_places: tuple[str, ...] = STAGES
    """Stages whose blocks may shift. Fewer leave the early stages a plain 2D CNN, fit to be frozen."""
    shift_every: int = 1
    """Shift every n-th block of a stage. 2 matches the official TSM ResNet-101 checkpoints."""
    pairwise: Pairwise = "embedded-gaussian"
    """How non-local blocks compare two places (Wang et al. 2018). Networks with nl- in their name only."""
    alpha: int = 8
    """The slow pathway takes every alpha-th of the T frames: with T = 32, 8 is 4x16 and 4 is 8x8. SlowFast only."""
    dropout: float = 0.5
    """Drop probability before the classifier (TSM 0.5; TSN and the VSN paper 0.8)."""
    weights: str = "none"
    """Start of the backbone: "none", a torchvision weight name, or a file of weights."""
    modality: Modality = "rgb"
    """What is seen of a segment: a frame (rgb), L stored fields of flow, or L differences of frames (rgbdiff)."""
    flow_length: int = 5
    """L, consecutive flow fields or differences a segment (TSN 5; the paper's flow 1 and 5)."""
    flow_bound: float = 20.0
    """Pixels of motion that the stored byte 255 stands for; flow with another bound is refused."""
    flow_method: str = "tv-l1"
    """How the flow was computed; flow stored by another method is refused."""
    flow_short_side: int = 0
    """Shorter side, pixels, of the frames whose flow was computed; 0: clip.short_side. Motions are in pixels of
    that size, so flow computed at another is refused."""

    def __post_init__(self) -> None:
        kind, backbone = split_name(self.name)
        require(
            (kind in FRAME_KINDS and bool(backbone))
            or (kind in VOLUME_KINDS and backbone in VOLUME_BACKBONES)
            or kind in WHOLE_KINDS,
            f"model.name is {self.name!r}; names are tsn_, tsm_, vsn_, trn_ or mtrn_ and a backbone, such as "
            f"'vsn_resnet50'; one of {', '.join(VOLUME_KINDS)}, _ and one of {', '.join(VOLUME_BACKBONES)}; or one of "
            f"{', '.join(WHOLE_KINDS)}. `vsn models` lists them all.",
        )
        require(
            self.num_classes >= 0,
            f"model.num_classes is {self.num_classes}; it counts from 1 (0: from the data).",
        )
        require(self.num_frames >= 1, f"model.num_frames is {self.num_frames}; a clip has at least one frame.")
        require(
            self.shift_div >= 2,
            f"model.shift_div is {self.shift_div}; it must be 2 or more: two parts of 1/shift_div move.",
        )
        modalities = get_args(Modality)
        require(self.modality in modalities, f"model.modality is {self.modality!r}, not of {modalities}.")
        require(self.flow_length >= 1, f"model.flow_length is {self.flow_length}; it must be 1 or more.")
        require(
            self.flow_short_side >= 0,
            f"model.flow_short_side is {self.flow_short_side}; it is a number of pixels, or 0 for clip.short_side.",
        )
        require(self.flow_bound > 0, f"model.flow_bound is {self.flow_bound}; it must be above 0 pixels.")
        require(self.shift_every >= 1, f"model.shift_every is {self.shift_every}; it must be 1 or more.")
        require(0.0 <= self.dropout < 1.0, f"model.dropout is {self.dropout}; it is a probability below 1.")
        pairs = get_args(Pairwise)
        require(self.pairwise in pairs, f"model.pairwise is {self.pairwise!r}, not of {pairs}.")
        require(self.alpha >= 1, f"model.alpha is {self.alpha}; it must be 1 or more.")
        if kind.endswith("slowfast"):
            require(
                self.num_frames % self.alpha == 0,
                f"model.num_frames is {self.num_frames} and model.alpha {self.alpha}: the slow pathway takes every alpha-th "
                "frame, so that num_frames must be a multiple of alpha, such as 32 of 8 (4x16) or 4 (8x8).",
            )
        for key, stages in (("places", self.places), ("shift_places", self.shift_places)):
            require(
                len(set(stages)) == len(stages) and set(stages) <= set(STAGES),
                f"model.{key} is {list(stages)}; choose each at most once from {list(STAGES)}.",
            )
        if kind == "vsn":
            require(
                bool(self.places) or self.shift,
                "model.places is empty and model.shift is false: a VSN without shuffle and shift is a TSN; name it tsn_...",
            )

    @property
    def kind(self) -> str:
        """What the model is, without its backbone: "vsn", "nl-i3d", "s3d"."""
        return split_name(self.name)[0]

    @property
    def backbone(self) -> str:
        """Name of its backbone; "" for a network that comes as a whole."""
        return split_name(self.name)[1]

    @property
    def any_num_frames(self) -> bool:
        """Whether the model takes clips of another T than it was trained with: its channels mean no frames."""
        return self.kind == "tsn"

    @property
    def clip_channels(self) -> int:
        """C of the clips `(B, T, C, H, W)` the model takes: 3, 2L of flow, 3 (L + 1) of frames to subtract."""
        return {"rgb": 3, "flow": 2 * self.flow_length, "rgbdiff": 3 * (self.flow_length + 1)}[self.modality]

    @property
    def num_consecutive(self) -> int:
        """How many frames or fields in a row are read of a segment: 1, L of flow, L + 1 to subtract."""
        return {"rgb": 1, "flow": self.flow_length, "rgbdiff": self.flow_length + 1}[self.modality]

    @property
    def stem_channels(self) -> int:
        """Channels that reach the first convolution: 3, 2L of flow, 3L of differences."""
        return {"rgb": 3, "flow": 2 * self.flow_length, "rgbdiff": 3 * self.flow_length}[self.modality]
