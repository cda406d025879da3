"""Every setting of a run, as dataclasses that check themselves.

A default lives here once. A `Recipe` is the whole of a run: it is read from TOML (`vsn.recipes`),
changed on the command line, and written into the run folder, from which the model is rebuilt. This
module imports no torch, so that `vsn --help` answers at once.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

STAGES = ("res2", "res3", "res4", "res5")

Block = Literal["compact", "headtail"]
FlipRule = Literal["auto", "random", "never", "swap"]
FrameOrder = Literal["forward", "reversed", "shuffled", "still"]
Protocol = Literal["fcn", "center", "3crop", "3crop-2clip", "10crop", "25x10", "dense-10clip-3crop"]
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
Decoder = Literal["pyav", "torchcodec", "torchcodec-cuda"]
Tracker = Literal["tensorboard", "wandb", "mlflow"]
Modality = Literal["rgb", "flow", "rgbdiff"]
FlowLayout = Literal["auto", "xy", "rg", "file"]


class ConfigError(ValueError):
    """A setting that cannot be used; the message says what came, what is allowed, what to do."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What the network is. Stored with the weights; a model is rebuilt from it alone."""

    name: str = "vsn_resnet50"
    """{tsn,tsm,vsn}_{backbone}; `vsn.list_models()` lists the names."""
    num_classes: int = 0
    """Outputs of the classifier; 0 means: as many as the data has."""
    num_frames: int = 8
    """T, frames a clip. A temporal model keeps the T it was trained for."""
    block: Block = "compact"
    """Where the shuffle pair sits in a residual block (paper, section 3.2 and Table 7)."""
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

    def __post_init__(self) -> None:
        prefix, _, backbone = self.name.partition("_")
        _require(
            prefix in {"tsn", "tsm", "vsn"} and bool(backbone),
            f"model.name is {self.name!r}; names are tsn_, tsm_ or vsn_ and a backbone, "
            "such as 'vsn_resnet50'. vsn.list_models() lists them all.",
        )
        _require(
            self.num_classes >= 0,
            f"model.num_classes is {self.num_classes}; it counts from 1 (0: from the data).",
        )
        _require(
            self.num_frames >= 1, f"model.num_frames is {self.num_frames}; a clip has at least one frame."
        )
        _require(
            self.shift_div >= 2,
            f"model.shift_div is {self.shift_div}; it must be 2 or more: two parts of 1/shift_div move.",
        )
        modalities = get_args(Modality)
        _require(self.modality in modalities, f"model.modality is {self.modality!r}, not of {modalities}.")
        _require(self.flow_length >= 1, f"model.flow_length is {self.flow_length}; it must be 1 or more.")
        _require(self.flow_bound > 0, f"model.flow_bound is {self.flow_bound}; it must be above 0 pixels.")
        _require(self.shift_every >= 1, f"model.shift_every is {self.shift_every}; it must be 1 or more.")
        _require(0.0 <= self.dropout < 1.0, f"model.dropout is {self.dropout}; it is a probability below 1.")
        for key, stages in (("places", self.places), ("shift_places", self.shift_places)):
            _require(
                len(set(stages)) == len(stages) and set(stages) <= set(STAGES),
                f"model.{key} is {list(stages)}; choose each at most once from {list(STAGES)}.",
            )
        if prefix == "vsn":
            _require(
                bool(self.places) or self.shift,
                "model.places is empty and model.shift is false: a VSN without shuffle and shift is a TSN; name it tsn_...",
            )

    @property
    def any_num_frames(self) -> bool:
        """Whether the model takes clips of another T than it was trained with: its channels mean no frames."""
        return self.name.startswith("tsn_")

    @property
    def clip_channels(self) -> int:
        """C of the clips `(B, T, C, H, W)` the model takes: 3, 2L of flow, 3 (L + 1) of frames to subtract."""
        return {"rgb": 3, "flow": 2 * self.flow_length, "rgbdiff": 3 * (self.flow_length + 1)}[self.modality]

    @property
    def stem_channels(self) -> int:
        """Channels that reach the first convolution: 3, 2L of flow, 3L of differences."""
        return {"rgb": 3, "flow": 2 * self.flow_length, "rgbdiff": 3 * self.flow_length}[self.modality]


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
    """Crops sit at the corners and the centre (5) or on a grid of quarters (13)."""

    def __post_init__(self) -> None:
        _require(
            self.frames_per_second > 0,
            f"clip.frames_per_second is {self.frames_per_second}; it must be above 0.",
        )
        _require(self.crop_size >= 8, f"clip.crop_size is {self.crop_size}; it must be 8 pixels or more.")
        _require(
            self.short_side >= self.crop_size,
            f"clip.short_side is {self.short_side}, smaller than clip.crop_size {self.crop_size}; "
            "crops are cut from the resized frame, so short_side must be at least crop_size.",
        )
        _require(
            bool(self.crop_scales) and all(0 < s <= 1 for s in self.crop_scales),
            f"clip.crop_scales is {list(self.crop_scales)}; it needs at least one share in (0, 1].",
        )
        _require(
            self.crop_positions in (5, 13), f"clip.crop_positions is {self.crop_positions}; it is 5 or 13."
        )


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
        _require(
            0.0 < self.val_fraction < 1.0,
            f"data.val_fraction is {self.val_fraction}; it is a share between 0 and 1.",
        )
        _require(self.fold >= 1, f"data.fold is {self.fold}; it counts from 1.")
        _require(bool(self.separator), "data.separator is empty; it is what stands between path and label.")
        _require(
            0.0 <= self.bad_videos <= 1.0,
            f"data.bad_videos is {self.bad_videos}; it is a share between 0 and 1.",
        )
        _require(
            not (self.balance and self.task != "classify"),
            f"data.balance draws by class, which task {self.task!r} does not have one of a video; turn it off.",
        )
        _require(self.split_seed >= 0, f"data.split_seed is {self.split_seed}; it must be 0 or more.")
        _require(
            self.decoder != "torchcodec-cuda" or self.num_workers == 0,
            f"data.num_workers is {self.num_workers}; decoder 'torchcodec-cuda' works in the training process "
            "alone, so set it to 0.",
        )
        _require(self.num_workers >= 0, f"data.num_workers is {self.num_workers}; it must be 0 or more.")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the network is trained."""

    epochs: int = 50
    batch_size: int = 64
    """Videos a step, over all processes: the same recipe means the same steps on one GPU and on sixteen."""
    accumulate: int = 1
    """Parts in which a process takes its share of a step, one after the other: the gradients of the whole
    step in the memory of a part. Batch statistics are those of a part."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    """Learning rate for lr_batch_size videos a step; scaled linearly when batch_size differs."""
    lr_batch_size: int = 64
    """The batch size lr is stated for; 0 turns the scaling off."""
    schedule: Literal["multistep", "cosine"] = "multistep"
    milestones: tuple[int, ...] = (20, 40)
    """Epochs after which the learning rate is divided by 10 (multistep)."""
    warmup_epochs: float = 0.0
    """Linear warm-up from 0, in epochs."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip_grad_norm: float = 20.0
    """Largest gradient norm; 0 turns clipping off."""
    head_lr_mult: float = 5.0
    """Learning rate of the classifier's weights, times lr; its bias takes twice that (TSN)."""
    fresh_lr_mult: float = 1.0
    """Learning rate, times lr, of backbone parts that had no pretrained weights to start from."""
    label_smoothing: float = 0.0
    """Share of each target that is spread over all classes."""
    class_weights: bool = False
    """Weigh the loss of each class by the inverse of how often it occurs in the training split."""
    freeze: tuple[str, ...] = ()
    """Backbone modules that stay as they are, batch statistics too, such as ["conv1", "bn1", "layer1"]."""
    partial_bn: bool = False
    """Freeze every batch normalisation but the first, statistics and affine (TSN; the paper)."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    """torch.compile the network before training."""
    checkpoint_activations: bool = False
    """Keep only the inputs of residual blocks and compute the rest again on the way back: less memory, more
    time, the same weights."""
    ema: float = 0.0
    """Decay of a moving average of the weights, such as 0.999, which is then what is validated and saved;
    0 turns it off. It averages over fewer steps at first: never more than (1 + step) / (10 + step)."""
    device: str = "auto"
    """auto: CUDA where there is one, else the CPU."""
    seed: int = 0
    """Sample order, augmentation, initial head and dropout depend on it."""
    val_every: int = 1
    """Validate every n-th epoch, and after the last."""
    val_steps: int = 0
    """Validate also every n-th step within an epoch; 0: not."""
    early_stop: int = 0
    """Stop after so many validations in a row without a better one; 0: never."""
    save_minutes: float = 10.0
    """Save within an epoch too when so much time has passed, so that a killed run loses no more; 0: after
    every step."""
    trackers: tuple[Tracker, ...] = ("tensorboard",)
    """Where curves go besides metrics.jsonl; wandb and mlflow are packages of their own."""

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"train.epochs is {self.epochs}; it must be 1 or more.")
        for key in ("batch_size", "accumulate"):
            value = getattr(self, key)
            _require(value >= 1, f"train.{key} is {value}; it must be 1 or more.")
        for key in ("val_steps", "early_stop", "save_minutes"):
            value = getattr(self, key)
            _require(value >= 0, f"train.{key} is {value}; it must be 0 (off) or more.")
        _require(
            self.accumulate <= self.batch_size,
            f"train.accumulate is {self.accumulate}, more than the train.batch_size of {self.batch_size} videos it parts.",
        )
        _require(0 <= self.ema < 1, f"train.ema is {self.ema}; it is a decay in [0, 1), 0 for none.")
        _require(self.lr > 0, f"train.lr is {self.lr}; it must be above 0.")
        _require(
            self.lr_batch_size >= 0,
            f"train.lr_batch_size is {self.lr_batch_size}; it is a batch size, or 0 for no scaling.",
        )
        _require(
            self.warmup_epochs >= 0, f"train.warmup_epochs is {self.warmup_epochs}; it must be 0 or more."
        )
        _require(self.seed >= 0, f"train.seed is {self.seed}; it must be 0 or more.")
        _require(self.val_every >= 1, f"train.val_every is {self.val_every}; it must be 1 or more.")
        _require(
            0 <= self.label_smoothing < 1,
            f"train.label_smoothing is {self.label_smoothing}; it must be in [0, 1).",
        )


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
            _require(0.0 <= value <= 1.0, f"augment.{key} is {value}; it must be between 0 and 1.")
        for key in ("mixup", "cutmix"):
            value = getattr(self, key)
            _require(value >= 0.0, f"augment.{key} is {value}; it must be 0 (off) or more.")
        _require(
            self.rand_augment >= 0, f"augment.rand_augment is {self.rand_augment}; it must be 0 or more."
        )
        _require(
            0 <= self.rand_augment_magnitude <= 30,
            f"augment.rand_augment_magnitude is {self.rand_augment_magnitude}; it must be 0 to 30.",
        )


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a trained model is tested."""

    protocol: Protocol = "fcn"
    """fcn: the whole frame at clip.short_side (the paper's); center: one centre crop of clip.crop_size;
    the others look at several views and average (docs/evaluation.md)."""
    average: Literal["logits", "softmax"] = "logits"
    """What is averaged over the views of a video."""
    order: FrameOrder = "forward"
    """Order in which the sampled frames are shown: the temporal reliance test."""
    batch_size: int = 16
    """Views a step."""
    bad_videos: Literal["stop", "wrong"] = "stop"
    """What a video that cannot be read does: stop the evaluation, or count as wrong."""
    seed: int = 0
    """Seed of the `shuffled` order."""

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, f"eval.batch_size is {self.batch_size}; it must be 1 or more.")
        _require(self.seed >= 0, f"eval.seed is {self.seed}; it must be 0 or more.")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    clip: ClipSpec = field(default_factory=ClipSpec)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        if self.data.task == "multilabel":
            _require(
                self.train.label_smoothing == 0,
                f"train.label_smoothing is {self.train.label_smoothing}; with data.task 'multilabel' it must be 0.",
            )
        _require(
            not (self.data.task == "arrow" and (self.augment.mixup or self.augment.cutmix)),
            "augment.mixup and augment.cutmix would mix a clip with its reversed copy; turn them off for "
            "data.task 'arrow'.",
        )
        flow = self.model.modality == "flow"
        _require(
            not (flow and self.data.task == "arrow"),
            "data.task is 'arrow': stored flow backwards is not the reversed video's flow; take rgb or rgbdiff.",
        )
        _require(
            not flow or not (self.augment.color_jitter or self.augment.rand_augment),
            "augment.color_jitter and augment.rand_augment change colours, and flow has none; turn them off for "
            "model.modality 'flow' (random_erasing, mixup and cutmix may stay).",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dict, lists for tuples; `vsn.recipes.recipe_from_dict` reads it back."""
        return json.loads(json.dumps(dataclasses.asdict(self)))
