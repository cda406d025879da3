"""A run in training: what a step needs, and what is saved when it stops."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console
from torch import nn
from torch.optim.swa_utils import AveragedModel

from vsn.config import ConfigError, Recipe, TrainConfig
from vsn.data.dataset import VideoDataset
from vsn.inference.forward import autocast
from vsn.models import VideoClassifier, build_model
from vsn.runs.checkpoint import save_state
from vsn.runs.run import Run
from vsn.system.distributed import Distributed
from vsn.system.interrupt import StopRequest
from vsn.training.batch_norm import synchronize_batch_norm
from vsn.training.losses import Loss, build_loss
from vsn.training.memory import checkpoint_activations, to_channels_last
from vsn.training.optim import (
    base_lr,
    build_optimizer,
    check_partial_bn,
    freeze_parts,
    schedule_factor,
)
from vsn.training.start import check_start, load_start
from vsn.training.trackers import Trackers

NO_STEPS = {"step": 0, "loss_sum": 0.0, "hits": 0.0, "videos": 0.0}
"""The progress within an epoch that has just begun."""


@dataclass
class Job:
    """A run in training."""

    run: Run
    distributed: Distributed
    train_set: VideoDataset
    val_set: VideoDataset
    model: VideoClassifier
    network: nn.Module
    """The model as a step runs it: compiled, its gradients averaged over the processes."""
    average: AveragedModel | None
    """The moving average of the weights, with train.ema."""
    loss: Loss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: dict[str, Any]
    """Epochs done, steps done of the epoch under way, its sums so far, the best validation."""
    console: Console
    trackers: Trackers = field(default_factory=lambda: Trackers([]))
    stop: StopRequest = field(default_factory=StopRequest)
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch; the last may be smaller."""
        return -(-len(self.train_set) // self.run.recipe.train.batch_size)

    @property
    def steps_done(self) -> int:
        """Steps taken in the whole run."""
        return int(self.progress["epoch"] * self.steps_per_epoch + self.progress["step"])

    @property
    def tested_model(self) -> VideoClassifier:
        """The model that is validated and saved: the average of the weights where there is one."""
        return self.average.module if self.average else self.model  # type: ignore[return-value]

    @property
    def out_of_patience(self) -> bool:
        """Whether train.early_stop validations in a row brought nothing better."""
        patience = self.run.recipe.train.early_stop
        return bool(patience) and self.progress["stale"] >= patience

    @property
    def lr(self) -> float:
        """The learning rate of the step under way: the last one begun."""
        config = self.run.recipe.train
        step = self.progress["epoch"] * self.steps_per_epoch + max(0, self.progress["step"] - 1)
        return base_lr(config) * schedule_factor(step, steps_per_epoch=self.steps_per_epoch, config=config)

    def state(self) -> dict[str, Any]:
        """What resuming needs. No generator's state: each step seeds its own."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": self.progress,
        }

    def save(self) -> None:
        """Save the state, so that the run can be continued from here."""
        if self.distributed.is_rank0:
            save_state(self.run, self.state())
        self.saved_at = time.monotonic()

    def save_when_due(self) -> None:
        """Save the state when the last time is train.save_minutes ago."""
        if time.monotonic() - self.saved_at >= 60 * self.run.recipe.train.save_minutes:
            self.save()


def check_job(recipe: Recipe, distributed: Distributed, *, resume: bool = False) -> None:
    """Refuse what cannot be trained here before videos are decoded and a folder is made.

    Raises:
        ConfigError: says what to change.
    """
    config = recipe.train
    autocast(distributed.device, config.precision)
    check_partial_bn(config, recipe.model.weights)
    if not resume:  # what it started from may be gone since
        check_start(recipe.model)
    if config.batch_size < distributed.world_size:
        raise ConfigError(
            f"train.batch_size = {config.batch_size} is smaller than the {distributed.world_size} processes; every process "
            "needs a video."
        )


def start_job(
    run: Run,
    datasets: tuple[VideoDataset, VideoDataset],
    state: dict[str, Any] | None,
    distributed: Distributed,
    console: Console,
) -> Job:
    """Model, optimizer and progress: at the start of a run, or where it stopped."""
    recipe, config, train_set = run.recipe, run.recipe.train, datasets[0]
    if distributed.device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # training clips have one size
    torch.manual_seed(config.seed)
    model = build_model(recipe.model)
    if state is None:
        fresh = load_start(model, recipe, run.classes, console)
        said = describe_step(config, distributed.world_size)
        if said:
            console.print(said, highlight=False, soft_wrap=True)
        progress: dict[str, Any] = {
            "epoch": 0,
            **NO_STEPS,
            "bad": {},
            "fresh": fresh,
            "best": None,
            "stale": 0,
        }
        progress |= {"validated": 0, "seconds": 0.0, "line": None}
    else:
        model.load_state_dict(state["model"])
        progress = state["progress"] | {"bad": {}}  # what was mended since no longer counts
    model = model.to(distributed.device)
    if config.channels_last:
        to_channels_last(model)
    average = average_of(model, config.ema) if config.ema else None
    if distributed.world_size > 1:
        synchronize_batch_norm(model, distributed.device)
    freeze_parts(model, config)
    optimizer = build_optimizer(model, config, fresh=progress["fresh"])
    scaler = torch.amp.GradScaler(distributed.device.type, enabled=config.precision == "fp16")
    if state is not None:
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        if average:
            average.load_state_dict(state["average"])
    if config.checkpoint_activations:
        checkpoint_activations(model)
    network: nn.Module = torch.compile(model) if config.compile else model  # type: ignore[assignment]
    loss = build_loss(config, train_set.records, len(run.classes), multi_label=train_set.multi_label)
    return Job(
        run, distributed, *datasets, model, distributed.wrap(network), average, loss, optimizer, scaler, progress, console
    )  # fmt: skip


def average_of(model: nn.Module, decay: float) -> AveragedModel:
    """A moving average of a model's weights; its buffers are the model's own.

    After step n it is ``d * average + (1 - d) * weights`` with ``d = min(decay, (1 + n) / (10 + n))``,
    so that the random start is soon forgotten.
    """

    @torch.no_grad()
    def update(averages: list[torch.Tensor], weights: list[torch.Tensor], num_updates: torch.Tensor) -> None:
        steps = float(num_updates)
        torch._foreach_lerp_(averages, weights, 1.0 - min(decay, (1.0 + steps) / (10.0 + steps)))

    multi: Callable[..., None] = update
    return AveragedModel(model, multi_avg_fn=multi)


def describe_step(config: TrainConfig, num_processes: int) -> str:
    """How a step is spread over processes and parts, and the learning rate where it was scaled; often nothing."""
    lines = []
    if num_processes * config.accumulate > 1:
        ways = [f"over {num_processes} processes"] if num_processes > 1 else []
        ways += [f"in {config.accumulate} parts"] if config.accumulate > 1 else []
        lines.append(f"{config.batch_size} videos a step, {', '.join(ways)}.")
    if config.lr_batch_size not in (0, config.batch_size):
        lines.append(
            f"Learning rate {base_lr(config):.3g}: {config.lr:g} is for {config.lr_batch_size} videos a step, "
            f"this run takes {config.batch_size}."
        )
    return "\n".join(lines)
