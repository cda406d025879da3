"""Build what a training step needs (model, optimizer, loss, progress), and save it so that a run can resume."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from torch import nn
from torch.optim.swa_utils import AveragedModel

from vsn.config import ConfigError, Recipe
from vsn.data.dataset import VideoDataset
from vsn.inference.forward import autocast
from vsn.models import VideoClassifier, build_model
from vsn.models.run_weights import check_run_weights, find_run_weights
from vsn.models.weights_file import check_finite
from vsn.runs.checkpoint import save_checkpoint
from vsn.runs.run import Run
from vsn.system.distributed import Distributed
from vsn.system.interrupt import StopRequest
from vsn.system.limits import available_bytes
from vsn.system.lock import FolderLock
from vsn.system.terminal import print_note
from vsn.training.batch_norm import synchronize_batch_norm
from vsn.training.losses import Loss, build_loss
from vsn.training.memory import checkpoint_activations, describe_lack, kept_bytes, to_channels_last
from vsn.training.optim import base_lr, build_ema, build_optimizer, freeze_parts, schedule_factor
from vsn.training.start import load_start
from vsn.training.trackers import LogFunction
from vsn.training.train_state import TrainState


@dataclass
class Job:
    """A training run in memory."""

    run: Run
    distributed: Distributed
    train_set: VideoDataset
    val_set: VideoDataset
    model: VideoClassifier
    network: nn.Module
    """The model as a step calls it: compiled, and wrapped in `DistributedDataParallel`."""
    ema: AveragedModel | None
    """The exponential moving average of the weights, with train.ema."""
    loss: Loss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: TrainState
    console: Console
    log: LogFunction = lambda values, step: None
    """Logs metrics to the trackers."""
    stop: StopRequest = field(default_factory=StopRequest)
    lock: FolderLock | None = None
    """On the run folder; rank 0 holds it."""
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; the last may have fewer videos."""
        return -(-len(self.train_set) // self.run.recipe.train.batch_size)

    @property
    def steps_done(self) -> int:
        """Steps since the start of the run."""
        return self.progress.epoch * self.steps_per_epoch + self.progress.step

    @property
    def videos_done(self) -> int:
        """Videos of the current epoch that were trained on or skipped."""
        return min(self.progress.step * self.run.recipe.train.batch_size, len(self.train_set))

    @property
    def lr(self) -> float:
        """The learning rate of the last started step."""
        config = self.run.recipe.train
        # `step` is counted up before the step runs; at the start of an epoch it is 0.
        step = self.progress.epoch * self.steps_per_epoch + max(0, self.progress.step - 1)
        return base_lr(config) * schedule_factor(step, steps_per_epoch=self.steps_per_epoch, config=config)

    @property
    def eval_model(self) -> VideoClassifier:
        """The model that is validated and saved: the moving average of the weights if there is one."""
        return self.ema.module if self.ema else self.model  # type: ignore[return-value]

    @property
    def stops_early(self) -> bool:
        """Whether train.early_stop validations in a row were no better than the best."""
        patience = self.run.recipe.train.early_stop
        return bool(patience) and self.progress.stale >= patience

    def train_mode(self) -> None:
        """Switch to training mode; frozen modules stay in evaluation mode."""
        self.model.train()
        freeze_parts(self.model, self.run.recipe.train)

    def check_folder(self) -> None:
        """Raise `LockError` if the run folder was renamed or deleted. Call it before writing into it."""
        if self.lock:
            self.lock.check()

    def check_finite(self) -> None:
        """Raise `NotFiniteError` if a weight, batch statistic, moving average or state of the optimizer is not finite."""
        tensors = dict(self.model.state_dict())
        if self.ema:
            tensors |= {f"average {name}": value for name, value in self.ema.module.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            # AdamW counts its steps in a tensor on the CPU.
            tensors |= {f"optimizer {key} {index}": value for key, value in values.items() if key != "step"}
        check_finite({name: tensor for name, tensor in tensors.items() if isinstance(tensor, torch.Tensor)})

    def save(self) -> None:
        """Save the state on rank 0, so that the run can be resumed from here.

        Raises:
            NotFiniteError: on every rank, see `check_finite`; nothing is written.
        """
        self.check_finite()
        self.check_folder()
        if self.distributed.is_rank0:
            # No random generator's state: each step seeds its own.
            state = {
                "model": self.model.state_dict(),
                "average": self.ema.state_dict() if self.ema else None,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "progress": self.progress.state_dict(),
            }
            save_checkpoint(self.run, state)
        self.saved_at = time.monotonic()

    @property
    def is_save_due(self) -> bool:
        """Whether the last save is train.save_minutes ago; each rank has its own clock."""
        return time.monotonic() - self.saved_at >= 60 * self.run.recipe.train.save_minutes


def check_job(recipe: Recipe, distributed: Distributed, *, resume: bool = False) -> None:
    """Check what can be checked before videos are decoded and the run folder is created.

    Raises:
        ConfigError: the recipe cannot be trained here.
    """
    config = recipe.train
    autocast(distributed.device, config.precision)
    if config.partial_bn and recipe.model.weights == "none":
        # The statistics would stay at mean 0 and variance 1.
        raise ConfigError(
            "train.partial_bn freezes batch statistics, but model.weights is 'none'. Set pretrained weights, or "
            "train.partial_bn = false (--train.no-partial-bn)."
        )
    # Here and not in the recipe: older runs, which are still tested, may have it.
    if not resume and config.warmup_epochs > config.epochs:
        raise ConfigError(
            f"train.warmup_epochs is {config.warmup_epochs:g}, and the run has train.epochs = {config.epochs}: it would end "
            "before the learning rate reaches train.lr. Set a shorter warm-up, or 0."
        )
    # A resumed run has its own weights; the run that it started from may be deleted.
    if not resume and (source := find_run_weights(recipe.model.weights)):
        check_run_weights(source, recipe.model)
    if config.batch_size < distributed.world_size:
        raise ConfigError(
            f"train.batch_size = {config.batch_size} is smaller than the {distributed.world_size} processes; every process "
            "needs a video."
        )


def _check_smallest_step(recipe: Recipe, num_videos: int) -> int:
    """Raise `ConfigError` if batch normalization cannot compute the statistics of the smallest part of a step.

    It needs two values of a channel: two videos, frames or pixels.

    Returns:
        Bytes that a step in fp32 keeps for each video until its backward pass, without `train.checkpoint_activations`.
    """
    config, model, size = recipe.train, recipe.model, recipe.clip.crop_size
    steps = {min(config.batch_size, num_videos), num_videos % config.batch_size or config.batch_size}
    smallest = max(1, min(steps) // config.accumulate)
    # The meta device has shapes only: this computes nothing, and needs no memory.
    with torch.device("meta"):
        network = build_model(model).train()
        clips = torch.zeros(smallest, model.num_frames, model.clip_channels, size, size)
    freeze_parts(network, config)
    try:
        return kept_bytes(network, clips) // smallest
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            f"A step, or a part of one, has {smallest} video of {num_videos} (train.batch_size = {config.batch_size}, "
            f"train.accumulate = {config.accumulate}), too few for batch normalization with clip.crop_size = {size} and "
            f"model.num_frames = {model.num_frames}. Set a batch size that leaves more videos for the last step, a smaller "
            "train.accumulate, larger crops, or train.partial_bn."
        ) from error


def start_job(
    run: Run,
    datasets: tuple[VideoDataset, VideoDataset],
    state: dict[str, Any] | None,
    distributed: Distributed,
    console: Console,
) -> Job:
    """Build the job of a new run (``state`` is None) or of a resumed one."""
    recipe, config, train_set = run.recipe, run.recipe.train, datasets[0]
    if distributed.device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # training clips have one size
    if distributed.world_size == 1:  # several ranks compute statistics together
        per_video = _check_smallest_step(recipe, len(train_set))
        if (
            distributed.device.type == "cpu" and not config.checkpoint_activations
        ):  # a GPU says when it has no memory left
            at_once = math.ceil(min(config.batch_size, len(train_set)) / config.accumulate)
            kept = at_once * per_video // (1 if config.precision == "fp32" else 2)
            if lack := describe_lack(at_once, kept, available_bytes()):
                print_note(console, lack)
    # The same seed on all ranks: they start from equal weights. Steps seed themselves, see `train_step`.
    torch.manual_seed(config.seed)
    model = build_model(recipe.model)
    if state is None:
        progress = TrainState(fresh=load_start(model, recipe, run.classes, console))
    else:
        model.load_state_dict(state["model"])
        progress = TrainState.from_state(state["progress"])

    # The order matters from here on. The average copies the model on its device, before batch normalization
    # is synchronized: rank 0 validates and saves it with plain layers. The optimizer takes only parameters
    # that are not frozen. Compilation and DDP wrap what has its final layers.
    model = model.to(distributed.device)
    if config.channels_last:
        to_channels_last(model)
    ema = build_ema(model, config.ema) if config.ema else None
    if distributed.world_size > 1:
        synchronize_batch_norm(model, distributed.device)
    freeze_parts(model, config)
    optimizer = build_optimizer(model, config, fresh=progress.fresh)
    # fp16 gradients underflow without a scale; with bf16 and fp32 the scaler passes everything through.
    scaler = torch.amp.GradScaler(distributed.device.type, enabled=config.precision == "fp16")
    if state is not None:
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        if ema:
            ema.load_state_dict(state["average"])
    if config.checkpoint_activations:
        checkpoint_activations(model)
    network: nn.Module = torch.compile(model) if config.compile else model  # type: ignore[assignment]

    loss = build_loss(config, train_set.records, len(run.classes), multi_label=train_set.multi_label)
    job = Job(
        run, distributed, *datasets, model, distributed.wrap(network), ema, loss, optimizer, scaler, progress, console
    )  # fmt: skip
    if state is None and config.lr_batch_size not in (0, config.batch_size):
        print_note(
            job.console,
            f"Learning rate {base_lr(config):.3g}: train.lr = {config.lr:g} is for {config.lr_batch_size} videos per step, "
            f"this run has {config.batch_size}.",
        )
    return job
