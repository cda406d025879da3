"""Define how a model is trained and evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vsn.config.errors import check_range, require

FrameOrder = Literal["forward", "reversed", "shuffled", "still"]
Protocol = Literal["fcn", "center", "3crop", "3crop-2clip", "10crop", "25x10", "dense-10clip-3crop"]
Tracker = Literal["tensorboard", "wandb", "mlflow"]


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
    """Freeze every batch normalization but the first, statistics and affine (TSN; the paper)."""
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
        check_range(self, "[1, inf)", "epochs", "batch_size", "accumulate", "val_every", table="train.")
        check_range(
            self,
            "[0, inf)",
            "val_steps",
            "early_stop",
            "save_minutes",
            "lr_batch_size",
            "warmup_epochs",
            "seed",
            table="train.",
        )
        check_range(self, "(0, inf)", "lr", table="train.")
        check_range(self, "[0, 1)", "ema", "label_smoothing", table="train.")
        require(
            (
                self.accumulate <= self.batch_size,
                f"train.accumulate is {self.accumulate}, more than train.batch_size {self.batch_size}; each part needs at "
                "least one video.",
            )
        )


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a trained model is tested."""

    protocol: Protocol = "fcn"
    """fcn: the whole frame at clip.short_side (the paper's); center: one center crop of clip.crop_size;
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
        check_range(self, "[1, inf)", "batch_size", table="eval.")
        check_range(self, "[0, inf)", "seed", table="eval.")
