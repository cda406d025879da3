"""Define where the videos are and how a video becomes a clip."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from vsn.config.errors import SEEDS, ConfigError, check_range, require

Sampling = Literal["segment", "dense", "rate"]
SampledBy = Literal["time", "index"]
BACKGROUND = "background"
"""The class of what shows none of the others; windows of it are no segment of a timeline."""
# Layouts that vsn defines, official files of data sets, lists of other code bases. Each has a reader in `vsn.data.readers`.
# fmt: off
Source = Literal[
    "folder", "csv", "synthetic",
    "something-v1", "something-v2", "jester", "kinetics", "moments", "ucf101", "hmdb51", "diving48",
    "tsn-list", "mmaction2-list", "slowfast-list",
    "label-studio", "cvat", "activitynet", "charades", "create-ml", "json",
]
# fmt: on
PreLabelFormat = Literal["label-studio", "cvat", "activitynet", "charades", "create-ml", "mmaction2-list", "json"]
"""Formats of segments that are read and written."""
Task = Literal["classify", "multilabel", "arrow"]
FlipRule = Literal["auto", "random", "never", "swap"]
Decoder = Literal["pyav", "torchcodec", "torchcodec-cuda"]
FlowLayout = Literal["auto", "xy", "rg", "file"]


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """How a video becomes a clip: frames, size, crops."""

    sampling: Sampling = "segment"
    """segment: one frame of each of T equal parts of the video (TSN, the paper); dense: T frames of a
    window of 64 (Non-local, TSM on Kinetics); rate: T frames in a row at frames_per_second."""
    frames_per_second: float = 8.0
    """Frames per second of video (sampling = "rate")."""
    by: SampledBy = "time"
    """time: parts, windows and consecutive frames of a video are equal in time, also where its frames are unevenly spaced;
    index: they are equal in numbers of frames, as before this setting existed. The same at a constant rate."""
    short_side: int = 256
    """Pixels of the shorter side to which frames are first resized."""
    crop_size: int = 224
    """Training crops are resized to crop_size x crop_size pixels."""
    crop_scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    """Crop sides relative to short_side; width and height are drawn at most one step apart (TSN)."""
    crop_positions: Literal[5, 13] = 13
    """Crops are at the corners and the center (5) or on a grid of quarters (13)."""

    def __post_init__(self) -> None:
        check_range(self, "(0, inf)", "frames_per_second", table="clip.")
        check_range(self, "[8, inf)", "crop_size", "short_side", table="clip.")
        # Crops are cut from the resized frame.
        require(
            self.short_side >= self.crop_size,
            f"clip.short_side is {self.short_side}, smaller than clip.crop_size {self.crop_size}. Set it to at least that.",
        )
        require(bool(self.crop_scales), "clip.crop_scales is []; it needs at least one value, in (0, 1].")
        check_range(self, "(0, 1]", "crop_scales", table="clip.")
        # Recipes are checked against the Literal; this is for objects made in Python.
        require(self.crop_positions in (5, 13), f"clip.crop_positions is {self.crop_positions}; it must be 5 or 13.")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the videos and their labels are."""

    root: str = ""
    """Folder of the data set. Relative paths are relative to the working directory."""
    source: Source = "folder"
    """folder: class folders (split/class/video or class/video); csv: a table with the columns path and label, and
    as needed start and end, group, and split (what `vsn data pack` writes too); synthetic: the embedded data set, written
    by `vsn data synth`; the others read the official files of that data set, or the lists of that code base."""
    annotations: str = ""
    """The annotation file, or the folder of the official ones, relative to root; empty: found by name."""
    videos: str = ""
    """Folder of the videos or frame folders, relative to root; empty: found by its usual names."""
    fold: int = 1
    """Number of the official split (UCF101 and HMDB51 have three)."""
    annotation_rate: float = 0.0
    """Frames per second by which annotations count frames (Label Studio's timelines, CVAT, MMAction2 lists with offsets), or
    that folders of frames with segments hold; 0: annotations count the frames of each video."""
    with_offset: bool = False
    """Lines of a list state the first frame of a part before the number of its frames (source = "mmaction2-list")."""
    separator: str = " "
    """Text between path and label in a line (source = "slowfast-list")."""
    frame_template: str = ""
    """Names of frame files, such as "img_{:05d}.jpg"; empty: found in each folder."""
    flow: str = ""
    """Folder of the stored optical flow, relative to root; empty: found by its usual names."""
    flow_backward: str = ""
    """Folder of the stored flow from each frame to the one before (`vsn flow extract --backward`), relative to root; empty:
    the folder of the flow with `_backward` appended. TrajectoryNet only."""
    boxes: str = ""
    """Folder of the boxes of objects (`vsn boxes extract`, or a file for each video; see docs/boxes.md), relative to root;
    empty: boxes. NL-I3D + GCN only."""
    detector: str = ""
    """Weights of torchvision's fasterrcnn_resnet50_fpn, a file, by which boxes are found in videos without stored ones:
    by `vsn boxes extract`, `vsn predict` and `vsn serve`. "none": random weights, to try the commands. NL-I3D + GCN only."""
    flow_layout: FlowLayout = "auto"
    """How a video's flow is stored: xy, rg or file (see `vsn.data.flow`); auto: by the names."""
    decoder: Decoder = "pyav"
    """Decoder of video files. torchcodec is an extra; torchcodec-cuda decodes on the GPU."""
    train_split: str = "train"
    """Name of the training split."""
    val_split: str = "val"
    """Name of the validation split."""
    test_split: str = "test"
    """Name of the test split, the default of `vsn eval`."""
    val_fraction: float = 0.2
    """Share of each class held out for validation if the data has no splits."""
    group_pattern: str = ""
    """Regular expression with one group in parentheses, searched in the id of each video (its path relative to root):
    what it finds is the video's group, such as a person or a recording, which a held-out part or a fold has whole or not
    at all: "/(S\\d+)_". Empty: the column group of a CSV file, or the groups that the data set states."""
    allow_overlap: bool = False
    """Train although a video is in two splits; otherwise that is an error."""
    split_seed: int = 0
    """Seed of the held-out share, and of the background."""
    background: float = 0.0
    """Segments of the class "background" for each labeled one, drawn from what no segment of a file covers, so that a window
    of a long file may show nothing; 0: none. See docs/data.md."""
    task: Task = "classify"
    """classify: the labels of the data set; multilabel: several per video, sigmoid loss, mAP. arrow: the
    arrow of time, every video once forward and once reversed, labels unused: shows how much the order of frames can
    teach."""
    flip: FlipRule = "auto"
    """Horizontal flips in training. auto: with probability 0.5, except for classes with left or right in their name;
    swap: these are flipped too and get the opposite label; random: with probability 0.5 for all; never."""
    cache: Literal["none", "memory"] = "none"
    """memory: decode and resize every video once, keep the frames in memory (small sets)."""
    num_workers: int = 2
    """Processes that load clips; 0 loads in the training process."""
    balance: bool = False
    """Sample all classes equally often in training."""
    bad_videos: float = 0.01
    """Share of the training videos that may fail to decode before training stops; they are skipped and
    listed in the run."""

    def __post_init__(self) -> None:
        # Open: a share of 0 or 1 leaves no validation or no training split.
        check_range(self, "(0, 1)", "val_fraction", table="data.")
        check_range(self, "[0, 1]", "bad_videos", table="data.")
        check_range(self, "[0, 100]", "background", table="data.")
        check_range(self, "[1, inf)", "fold", table="data.")
        check_range(self, "[0, 1000]", "annotation_rate", table="data.")
        check_range(self, "[0, inf)", "num_workers", table="data.")
        check_range(self, SEEDS, "split_seed", table="data.")
        self._check_group_pattern()
        require(bool(self.separator), "data.separator is empty; it must be the text between path and label.")
        # A multi-label video counts for several classes, and the arrow of time has its own two.
        require(
            not self.balance or self.task == "classify",
            f"data.balance draws by class, but with data.task {self.task!r} a video has no single class. Turn it off.",
        )
        require(
            not self.background or self.task == "classify",
            f"data.background is {self.background}, a class of its own, and data.task {self.task!r} has none for it. Set "
            "it to 0; a multi-label list may have segments without a label.",
        )
        # CUDA cannot be initialized again in a forked worker.
        require(
            self.decoder != "torchcodec-cuda" or self.num_workers == 0,
            f"data.num_workers is {self.num_workers}; with decoder 'torchcodec-cuda' it must be 0.",
        )

    def _check_group_pattern(self) -> None:
        shown = f"data.group_pattern is {self.group_pattern!r}"
        try:
            num_groups = re.compile(self.group_pattern).groups
        except re.error as error:
            raise ConfigError(f"{shown}, which is no regular expression: {error}.") from None
        require(
            not self.group_pattern or num_groups == 1,
            f"{shown}, with {num_groups} groups in parentheses; it must have one, around what names the group, as in "
            '"(person[0-9]+)_". Write (?:...) for parentheses that name nothing.',
        )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentation beyond the paper's crops and flips, one draw for the whole clip. All off by default."""

    color_jitter: float = 0.0
    """Brightness, contrast and saturation change by a factor in 1 +- this; hue by a quarter of it."""
    rand_augment: int = 0
    """RandAugment operations per clip (Cubuk et al., 2020)."""
    rand_augment_magnitude: int = 9
    """Their strength, 0 to 30."""
    random_erasing: float = 0.0
    """Probability that a rectangle of the clip is blanked (Zhong et al., 2020)."""
    mixup: float = 0.0
    """Alpha of mixup between the clips of a batch (Zhang et al., 2018)."""
    cutmix: float = 0.0
    """Alpha of CutMix between the clips of a batch (Yun et al., 2019); with mixup too, one of the two is drawn per step."""

    def __post_init__(self) -> None:
        check_range(self, "[0, 1]", "color_jitter", "random_erasing", table="augment.")
        check_range(self, "[0, inf)", "mixup", "cutmix", "rand_augment", table="augment.")
        check_range(self, "[0, 30]", "rand_augment_magnitude", table="augment.")
