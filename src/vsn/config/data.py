"""Where the videos are, and how one becomes a clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vsn.config.errors import require

Sampling = Literal["segment", "dense", "rate"]
Source = Literal[
    "folder",
    "csv",
    "synthetic",
    "something-v1",
    "something-v2",
    "jester",
    "kinetics",
    "moments",
    "ucf101",
    "hmdb51",
    "diving48",
    "tsn-list",
    "mmaction2-list",
    "slowfast-list",
]
Task = Literal["classify", "multilabel", "arrow"]
FlipRule = Literal["auto", "random", "never", "swap"]
Decoder = Literal["pyav", "torchcodec", "torchcodec-cuda"]
FlowLayout = Literal["auto", "xy", "rg", "file"]


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """How a video becomes a clip: which frames, which size, which crops."""

    sampling: Sampling = "segment"
    """segment: one frame of each of T equal parts of the video (TSN, the paper); dense: T frames of a
    window of 64 (Non-local, TSM on Kinetics); rate: T frames in a row at frames_per_second."""
    frames_per_second: float = 8.0
    """Frames taken of each second of video (sampling = "rate")."""
    short_side: int = 256
    """Frames are first resized so that their shorter side has this many pixels."""
    crop_size: int = 224
    """Training crops are resized to crop_size x crop_size pixels."""
    crop_scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    """Crop sides as shares of short_side; width and height are drawn at most one step apart (TSN)."""
    crop_positions: Literal[5, 13] = 13
    """Crops sit at the corners and the center (5) or on a grid of quarters (13)."""

    def __post_init__(self) -> None:
        require(
            self.frames_per_second > 0,
            f"clip.frames_per_second is {self.frames_per_second}; it must be above 0.",
        )
        require(self.crop_size >= 8, f"clip.crop_size is {self.crop_size}; it must be 8 pixels or more.")
        require(
            self.short_side >= self.crop_size,
            f"clip.short_side is {self.short_side}, smaller than clip.crop_size {self.crop_size}; "
            "crops are cut from the resized frame, so short_side must be at least crop_size.",
        )
        require(
            bool(self.crop_scales) and all(0 < s <= 1 for s in self.crop_scales),
            f"clip.crop_scales is {list(self.crop_scales)}; it needs at least one share in (0, 1].",
        )
        require(self.crop_positions in (5, 13), f"clip.crop_positions is {self.crop_positions}; it is 5 or 13.")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the videos and their labels are."""

    root: str = ""
    """Folder of the data set. Relative paths count from where the command runs."""
    source: Source = "folder"
    """folder: class folders (split/class/video or class/video); csv: path,label[,split] columns (what
    `vsn data pack` writes too); synthetic: the embedded data set, written by `vsn data synth`; the others
    read the official files of that data set, or the lists of that code base."""
    annotations: str = ""
    """The annotation file, or the folder of the official ones, relative to root; empty: found by name."""
    videos: str = ""
    """Folder of the videos or frame folders, relative to root; empty: found by its usual names."""
    fold: int = 1
    """Which of the official splits (UCF101 and HMDB51 have three)."""
    separator: str = " "
    """What stands between path and label in a line (source = "slowfast-list")."""
    frame_template: str = ""
    """Names of frame files, such as "img_{:05d}.jpg"; empty: found in each folder."""
    flow: str = ""
    """Folder of the stored optical flow, relative to root; empty: found by its usual names."""
    flow_layout: FlowLayout = "auto"
    """How a video's flow is stored: xy, rg or file (see `vsn.data.flow`); auto: told by the names."""
    decoder: Decoder = "pyav"
    """What decodes video files. torchcodec is an extra; torchcodec-cuda decodes on the GPU."""
    train_split: str = "train"
    """Name of the split that is trained on."""
    val_split: str = "val"
    """Name of the split that is validated on after each epoch."""
    test_split: str = "test"
    """Name of the split that `vsn eval` reports."""
    val_fraction: float = 0.2
    """Share of each class held out when the data states no splits."""
    split_seed: int = 0
    """Seed of that hold-out."""
    task: Task = "classify"
    """classify: the labels of the data set; multilabel: several a video, sigmoid loss, mAP. arrow: the
    arrow of time, every video once forward and once reversed, labels unused: how much order is there to
    learn?"""
    flip: FlipRule = "auto"
    """Horizontal flips in training. auto: at 0.5, never for a class whose name says left or right;
    swap: such a class is flipped and becomes its opposite; random: at 0.5 for all; never."""
    cache: Literal["none", "memory"] = "none"
    """memory: decode and resize every video once, keep the frames in memory (small sets)."""
    num_workers: int = 2
    """Processes that load clips; 0 loads in the training process."""
    balance: bool = False
    """Draw every class equally often in training, so that rare classes count as much as common ones."""
    bad_videos: float = 0.01
    """Share of the training videos that may fail to decode before training stops; they are skipped and
    listed in the run."""

    def __post_init__(self) -> None:
        require(
            0.0 < self.val_fraction < 1.0,
            f"data.val_fraction is {self.val_fraction}; it is a share between 0 and 1.",
        )
        require(self.fold >= 1, f"data.fold is {self.fold}; it counts from 1.")
        require(bool(self.separator), "data.separator is empty; it is what stands between path and label.")
        require(
            0.0 <= self.bad_videos <= 1.0,
            f"data.bad_videos is {self.bad_videos}; it is a share between 0 and 1.",
        )
        require(
            not (self.balance and self.task != "classify"),
            f"data.balance draws by class, which task {self.task!r} does not have one of a video; turn it off.",
        )
        require(self.split_seed >= 0, f"data.split_seed is {self.split_seed}; it must be 0 or more.")
        require(
            self.decoder != "torchcodec-cuda" or self.num_workers == 0,
            f"data.num_workers is {self.num_workers}; decoder 'torchcodec-cuda' works in the training process "
            "alone, so set it to 0.",
        )
        require(self.num_workers >= 0, f"data.num_workers is {self.num_workers}; it must be 0 or more.")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation beyond the paper's crops and flips, one draw for the whole clip. All off by default."""

    color_jitter: float = 0.0
    """Brightness, contrast and saturation change by a factor in 1 +- this; hue by a quarter of it."""
    rand_augment: int = 0
    """Operations of RandAugment a clip (Cubuk et al., 2020)."""
    rand_augment_magnitude: int = 9
    """Their strength, 0 to 30."""
    random_erasing: float = 0.0
    """Probability that a rectangle of the clip is blanked (Zhong et al., 2020)."""
    mixup: float = 0.0
    """Alpha of mixup between the clips of a batch (Zhang et al., 2018)."""
    cutmix: float = 0.0
    """Alpha of CutMix between the clips of a batch (Yun et al., 2019); with mixup too, one of them a step."""

    def __post_init__(self) -> None:
        for key in ("color_jitter", "random_erasing"):
            value = getattr(self, key)
            require(0.0 <= value <= 1.0, f"augment.{key} is {value}; it must be between 0 and 1.")
        for key in ("mixup", "cutmix"):
            value = getattr(self, key)
            require(value >= 0.0, f"augment.{key} is {value}; it must be 0 (off) or more.")
        require(self.rand_augment >= 0, f"augment.rand_augment is {self.rand_augment}; it must be 0 or more.")
        require(
            0 <= self.rand_augment_magnitude <= 30,
            f"augment.rand_augment_magnitude is {self.rand_augment_magnitude}; it must be 0 to 30.",
        )
