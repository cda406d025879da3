"""The training loop, on one screen."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from vsn.config import Recipe
from vsn.data.augment import mix_clips
from vsn.data.dataset import BadVideo, VideoDataset
from vsn.data.decode import VideoError
from vsn.data.loader import Batch, make_loader
from vsn.engine.checkpoint import (
    Run,
    append_metrics,
    check_new,
    check_same,
    load_state,
    new_run,
    open_run,
    read_metrics,
    save_state,
    save_weights,
    write_bad_videos,
    write_run,
)
from vsn.engine.evaluate import autocast, pick_device, score_videos
from vsn.engine.inputs import open_datasets
from vsn.engine.losses import Loss, build_loss, mean_loss
from vsn.engine.optim import (
    base_lr,
    build_optimizer,
    check_partial_bn,
    freeze_parts,
    schedule_factor,
    set_lr,
)
from vsn.engine.scores import average_precisions, top_k_hits
from vsn.engine.start import load_start
from vsn.interrupt import uninterrupted
from vsn.models import VideoClassifier, build_model
from vsn.progress import progress_bar

_NO_STEPS = {"step": 0, "loss_sum": 0.0, "hits": 0, "videos": 0}
"""The progress within an epoch that has just begun."""


class TrainingStopped(RuntimeError):  # noqa: N818  (it stopped; it is not always an error)
    """Training ended before its last epoch; what was reached is saved."""


def train(
    recipe: Recipe,
    path: str | Path,
    *,
    resume: bool = False,
    console: Console | None = None,
    datasets: tuple[VideoDataset, VideoDataset] | None = None,
) -> Run:
    """Train a model and write its run folder.

    Args:
        recipe: all settings. When resuming it must be the run's own.
        path: the run folder; it must be new unless ``resume``.
        resume: continue where the run stopped, in the middle of an epoch too.
        console: where to report; default standard error.
        datasets: training and validation set, when several runs share one that is in memory.

    Returns:
        The run. Its folder holds weights after every epoch.

    Raises:
        ConfigError, RunError, VideoError: what is wrong and what to do.
            More bad videos than `data.bad_videos` allows, or a bad one in validation, stop training
            between two steps; the state is saved.
        TrainingStopped: Ctrl-C (the state is saved) or a loss that is not finite.
    """
    console = console or Console(stderr=True)
    path = Path(path)
    config, device = recipe.train, pick_device(recipe.train.device)
    # Whatever can be refused is refused before videos are decoded and a folder is made.
    autocast(device, config.precision)
    check_partial_bn(config, recipe.model.weights)
    if not resume:
        check_new(path)
    train_set, val_set = datasets or open_datasets(recipe, console)
    run = open_run(path) if resume else new_run(path, recipe, train_set.classes)
    check_same(run, recipe, train_set.classes)
    job = _start(run, train_set, load_state(run) if resume else None, device, console)
    if not resume:
        write_run(run)
        save_state(run, job.state())  # from here on the run can always be continued
    elif job.progress["epoch"] > len(read_metrics(path)):  # stopped between saving and writing the line
        append_metrics(run, job.progress["line"])

    with contextlib.closing(SummaryWriter(str(path / "tensorboard"))) as writer:
        for epoch in range(job.progress["epoch"], config.epochs):
            started = time.perf_counter()
            try:
                line = _train_epoch(job, epoch, console)
                if (epoch + 1) % config.val_every == 0 or epoch + 1 == config.epochs:
                    line |= _validate(job, val_set)
            except (KeyboardInterrupt, VideoError) as error:
                said = _stopped(job, epoch, error)
                if isinstance(error, VideoError):
                    console.print(said, highlight=False, soft_wrap=True)
                    raise
                raise TrainingStopped(said) from None
            line["seconds"] = time.perf_counter() - started
            job.progress |= {"epoch": epoch + 1, "line": line, **_NO_STEPS}
            try:
                with uninterrupted():
                    save_weights(run, job.model)
                    save_state(run, job.state())
                    append_metrics(run, line)
            except KeyboardInterrupt:  # it came while the epoch was being saved, which is done
                raise TrainingStopped(_stopped(job, epoch + 1)) from None
            for key in line.keys() - {"epoch", "step"}:
                writer.add_scalar(key, line[key], epoch + 1)
            console.print(describe_epoch(line, config.epochs), highlight=False, soft_wrap=True)
    return run


def _stopped(job: _Job, epoch: int, error: BaseException | None = None) -> str:
    """Save the state of a run that stops between two steps; say where it stopped and how to go on."""
    with contextlib.suppress(KeyboardInterrupt), uninterrupted():  # a second Ctrl-C waits for this too
        save_state(job.run, job.state())
    place = f"in epoch {epoch + 1} after {job.progress['step']} of {job.steps_per_epoch} steps"
    advice = f"continue with: vsn train --resume {job.run.path}"
    return f"Stopped {place}" + (
        f" by a video that cannot be read. Mend or remove it (or see data.bad_videos in {job.run.path / 'recipe.toml'}); "
        f"then {advice}"
        if isinstance(error, VideoError)
        else f"; {advice}"
    )


@dataclass
class _Job:
    """A run in training: what a step needs, and what is saved when it stops."""

    run: Run
    train_set: VideoDataset
    device: torch.device
    model: VideoClassifier
    network: Callable[[torch.Tensor], torch.Tensor]
    """The model, compiled or as it is."""
    loss: Loss
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: dict[str, Any]
    """Epochs done, steps done of the epoch under way, its sums so far."""

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train_set) / self.run.recipe.train.batch_size)

    def state(self) -> dict[str, Any]:
        """What resuming needs. No generator's state: each step seeds its own."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": self.progress,
        }


def _train_epoch(job: _Job, epoch: int, console: Console) -> dict[str, Any]:
    """Train for an epoch, or for what an interruption left of it; return its line of metrics."""
    recipe, config, progress = job.run.recipe, job.run.recipe.train, job.progress
    job.model.train()
    freeze_parts(job.model, config)
    start = min(progress["step"] * config.batch_size, len(job.train_set))
    bad: list[BadVideo] = []
    loader = make_loader(
        job.train_set,
        batch_size=config.batch_size,
        num_workers=recipe.data.num_workers,
        epoch=epoch,
        shuffle=True,
        balance=recipe.data.balance,
        seed=config.seed,
        start=start,
        bad=bad,
    )
    started, seen_before = time.perf_counter(), progress["videos"]
    with progress_bar("videos", console=console) as bar:
        where = f"epoch {epoch + 1}/{config.epochs}"
        task = bar.add_task(where, total=len(job.train_set), completed=start, note="")
        for batches in loader:
            num_bad = len(bad)
            _count_bad(job, bad)
            bad.clear()
            with uninterrupted():  # a step half taken could not be resumed
                progress["step"] += 1
                for batch in batches:  # one: training clips have one size; none when all its videos are bad
                    _train_step(job, batch, epoch)
            loss, top1 = _averages(progress)
            note = f"loss {loss:.3f}  top-1 {top1:.1%}  lr {_lr(job, epoch):.2g}"
            bar.update(task, advance=num_bad + sum(len(batch.indices) for batch in batches), note=note)
    loss, top1 = _averages(progress)
    return {
        "epoch": epoch + 1,
        "step": (epoch + 1) * job.steps_per_epoch,
        "lr": _lr(job, epoch),
        "train_loss": loss,
        "train_top1": top1,
        "bad_videos": len(progress["bad"]),
        "videos_per_second": (progress["videos"] - seen_before) / (time.perf_counter() - started),
    }


def _train_step(job: _Job, batch: Batch, epoch: int) -> None:
    """One step: forward, loss, backward, update, and the sums of the epoch."""
    recipe, config, progress, optimizer = job.run.recipe, job.run.recipe.train, job.progress, job.optimizer
    step = progress["step"]
    set_lr(optimizer, _lr(job, epoch))
    # Dropout and mixing depend on (seed, epoch, step) alone, as samples do, so that resuming changes nothing.
    torch.manual_seed(int(np.random.SeedSequence([config.seed, epoch, step - 1]).generate_state(1)[0]))
    clips = batch.clips.to(job.device, non_blocking=True)
    targets = batch.targets.to(job.device, non_blocking=True)
    shown, wanted = mix_clips(clips, targets, len(job.run.classes), recipe.augment)
    with autocast(job.device, config.precision):
        logits = job.network(shown)
        loss = job.loss(logits.float(), wanted)
    value = loss.item()
    if not math.isfinite(value):
        files = ", ".join(job.train_set.records[int(i)].video_id for i in batch.indices)
        raise TrainingStopped(
            f"The loss is not finite in epoch {epoch + 1}, step {step}, at learning rate {_lr(job, epoch):.3g}. "
            "The weights of the last whole epoch are kept. Try a lower train.lr or train.precision = 'fp32'. "
            f"Videos of the batch: {files}."
        )
    optimizer.zero_grad(set_to_none=True)
    job.scaler.scale(loss).backward()
    job.scaler.unscale_(optimizer)
    if config.clip_grad_norm:
        torch.nn.utils.clip_grad_norm_(job.model.parameters(), config.clip_grad_norm)
    job.scaler.step(optimizer)
    job.scaler.update()
    progress["loss_sum"] += value * len(targets)
    progress["hits"] += _num_hits(logits, targets)
    progress["videos"] += len(targets)


def _num_hits(logits: torch.Tensor, targets: torch.Tensor) -> int:
    """How many of the highest logits are (one of) the true labels."""
    best = logits.argmax(dim=1)
    right = targets == best if targets.ndim == 1 else targets.gather(1, best[:, None]) > 0
    return int(right.sum())


def _averages(progress: dict[str, Any]) -> tuple[float, float]:
    """Mean loss and top-1 of the epoch so far; NaN before the first video."""
    videos = progress["videos"] or math.nan
    return progress["loss_sum"] / videos, progress["hits"] / videos


def _count_bad(job: _Job, bad: list[BadVideo]) -> None:
    """List videos that could not be read in the run; raise the last one's error when they are too many."""
    known = job.progress["bad"]
    new = [video for video in bad if video.path not in known]
    if not new:
        return
    known.update({video.path: video.reason for video in new})
    write_bad_videos(job.run, known)
    share = job.run.recipe.data.bad_videos
    num_videos = len({record.path for record in job.train_set.records})
    if len(known) > share * num_videos:
        reason = new[-1].reason
        if len(known) > 1:
            reason += (
                f" It is one of {len(known)} bad videos of {num_videos}, more than data.bad_videos = {share:g} allows; "
                f"{job.run.path / 'bad_videos.json'} lists them."
            )
        raise VideoError(new[-1].path, reason)


def _lr(job: _Job, epoch: int) -> float:
    """The learning rate of the step under way: the last one begun."""
    config = job.run.recipe.train
    step = epoch * job.steps_per_epoch + max(0, job.progress["step"] - 1)
    return base_lr(config) * schedule_factor(step, steps_per_epoch=job.steps_per_epoch, config=config)


def _validate(job: _Job, val_set: VideoDataset) -> dict[str, float]:
    recipe, bad = job.run.recipe, []  # type: tuple[Recipe, list[BadVideo]]
    scores = score_videos(
        job.model,
        val_set,
        batch_size=recipe.eval.batch_size,
        num_workers=recipe.data.num_workers,
        precision=recipe.train.precision,
        bad=bad if recipe.eval.bad_videos == "wrong" else None,
    )
    line = {"val_loss": mean_loss(scores), "val_top1": float(top_k_hits(scores, 1).mean())}
    if bad:
        line["val_bad_videos"] = len(bad)
    if scores.multi_label:
        line["val_map"] = float(np.mean(list(average_precisions(scores).values())))
    return line


def describe_epoch(line: dict[str, Any], epochs: int) -> str:
    """One line on the terminal for one epoch."""
    text = (
        f"epoch {line['epoch']:>3}/{epochs}  loss {line['train_loss']:.3f}  top-1 {line['train_top1']:6.1%}"
    )
    if "val_top1" in line:
        text += f"  val loss {line['val_loss']:.3f}  val top-1 {line['val_top1']:6.1%}"
    if "val_map" in line:
        text += f"  val mAP {line['val_map']:6.1%}"
    if line["bad_videos"]:
        text += f"  {line['bad_videos']} bad videos skipped"
    return text + f"  {line['videos_per_second']:.1f} videos/s  lr {line['lr']:.2g}  {line['seconds']:.0f} s"


def _start(
    run: Run, train_set: VideoDataset, state: dict[str, Any] | None, device: torch.device, console: Console
) -> _Job:
    """Model, optimiser and progress: at the start of a run, or where it stopped."""
    recipe, config = run.recipe, run.recipe.train
    torch.manual_seed(config.seed)
    model = build_model(recipe.model)
    if state is None:
        progress: dict[str, Any] = {
            "epoch": 0,
            **_NO_STEPS,
            "bad": {},
            "fresh": _load_start(model, recipe, run.classes, console),
        }
    else:
        model.load_state_dict(state["model"])
        progress = state["progress"] | {"bad": {}}  # what was mended since no longer counts
    model = model.to(device)
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)
    freeze_parts(model, config)
    optimizer = build_optimizer(model, config, fresh=progress["fresh"])
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
    if state is not None:
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
    network = torch.compile(model) if config.compile else model
    loss = build_loss(config, train_set.records, len(run.classes), multi_label=train_set.multi_label)
    return _Job(run, train_set, device, model, network, loss, optimizer, scaler, progress)


def _load_start(
    model: VideoClassifier, recipe: Recipe, classes: tuple[str, ...], console: Console
) -> list[str]:
    """Load the weights a run starts from, say what is not plain; return the parts left at random."""
    config, fresh = recipe.train, load_start(model, recipe, classes, console)
    if config.lr_batch_size not in (0, config.batch_size):
        console.print(
            f"Learning rate {base_lr(config):.3g}: {config.lr:g} is for {config.lr_batch_size} videos a step, "
            f"this run takes {config.batch_size}.",
            highlight=False,
            soft_wrap=True,
        )
    return fresh
