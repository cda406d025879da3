"""Define how a model is trained and evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vsn.config.errors import SEEDS, check_range, require

FrameOrder = Literal["forward", "reversed", "shuffled", "still"]
Protocol = Literal["fcn", "fcn-windows", "center", "3crop", "3crop-2clip", "10crop", "25x10", "dense-10clip-3crop"]
Tracker = Literal["tensorboard", "wandb", "mlflow"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the network is trained."""

    epochs: int = 50
    batch_size: int = 64
    """Videos per step over all processes: a recipe has the same steps on one GPU and on sixteen."""
    accumulate: int = 1
    """Parts of a step whose gradients are accumulated, to save memory. Each part is normalized by its own batch
    statistics."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    """Learning rate for lr_batch_size videos per step; scaled linearly with batch_size."""
    lr_batch_size: int = 64
    """Batch size of lr; 0: no scaling."""
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
    """Learning rate of the classifier's weights, relative to lr; its bias has twice that (TSN)."""
    fresh_lr_mult: float = 1.0
    """Learning rate, relative to lr, of backbone parts without pretrained weights."""
    label_smoothing: float = 0.0
    """Share of each target that is spread over all classes."""
    class_weights: bool = False
    """Weight the loss of each class by its inverse frequency in the training split."""
    freeze: tuple[str, ...] = ()
    """Backbone modules to freeze, including batch statistics, such as ["conv1", "bn1", "layer1"]."""
    partial_bn: bool = False
    """Freeze every batch normalization but the first, statistics and affine (TSN; the paper)."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    channels_last: bool = True
    compile: bool = False
    """torch.compile the network before training."""
    checkpoint_activations: bool = False
    """Keep only the inputs of residual blocks and recompute the rest in the backward pass: less memory, more time,
    the same weights."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, such as 0.999, which is validated and saved; 0: off. At
    first the decay is lower: at most (1 + step) / (10 + step)."""
    device: str = "auto"
    """auto: CUDA if available, else the CPU."""
    seed: int = 0
    """Seed of sample order, augmentation, initial head and dropout."""
    val_every: int = 1
    """Validate every n-th epoch, and after the last."""
    val_steps: int = 0
    """Validate also every n-th step within an epoch; 0: off."""
    early_stop: int = 0
    """Stop after this many successive validations without improvement; 0: off."""
    save_minutes: float = 10.0
    """Minutes between checkpoints within an epoch, which a killed run loses at most; 0: after every step."""
    trackers: tuple[Tracker, ...] = ("tensorboard",)
    """Trackers of curves in addition to metrics.jsonl; wandb and mlflow are separate packages."""

    def __post_init__(self) -> None:
        check_range(self, "[1, inf)", "epochs", "batch_size", "accumulate", "val_every", table="train.")
        counts = ("val_steps", "early_stop", "lr_batch_size", "warmup_epochs")
        check_range(self, "[0, inf)", *counts, "clip_grad_norm", "head_lr_mult", "fresh_lr_mult", table="train.")
        check_range(self, SEEDS, "seed", table="train.")
        check_range(self, "[1, inf)", "milestones", table="train.")
        check_range(self, "[0, inf]", "save_minutes", table="train.")  # inf: only after epochs
        check_range(self, "(0, inf)", "lr", table="train.")
        # Half-open: at 1 averages would never change, velocities never decay, and targets would be uniform.
        check_range(self, "[0, 1)", "momentum", "ema", "label_smoothing", table="train.")
        check_range(self, "[0, 1]", "weight_decay", table="train.")
        require(
            self.accumulate <= self.batch_size,
            f"train.accumulate is {self.accumulate}, more than train.batch_size {self.batch_size}; each part needs a video.",
        )


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a trained model is tested."""

    protocol: Protocol = "fcn"
    """fcn: the whole frame at clip.short_side (the paper's); fcn-windows: the same, each window of a
    training crop's size scored, as in the Non-local code; center: one center crop of clip.crop_size;
    the others average over several views (docs/evaluation.md)."""
    average: Literal["logits", "softmax"] = "logits"
    """Scores that are averaged over the views of a video."""
    order: FrameOrder = "forward"
    """Order of the sampled frames, for the temporal reliance test."""
    batch_size: int = 16
    """Views per step."""
    bad_videos: Literal["stop", "wrong"] = "stop"
    """Videos that cannot be read stop the evaluation, or count as wrong."""
    seed: int = 0
    """Seed of the `shuffled` order."""

    def __post_init__(self) -> None:
        check_range(self, "[1, inf)", "batch_size", table="eval.")
        check_range(self, SEEDS, "seed", table="eval.")
