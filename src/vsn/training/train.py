"""The training loop, on one screen."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from vsn.config import Recipe
from vsn.data.dataset import BadVideo, VideoDataset
from vsn.data.loader import Batch, Share, make_loader
from vsn.data.open import open_datasets
from vsn.data.transforms import mix_clips
from vsn.data.video import VideoError
from vsn.inference.forward import autocast
from vsn.runs.checkpoint import clear_leftovers, load_state, save_weights
from vsn.runs.metadata import write_run
from vsn.runs.run import (
    Run,
    append_metrics,
    check_new,
    check_resumable,
    new_run,
    open_run,
    write_bad_videos,
    write_summary,
)
from vsn.system.distributed import Distributed
from vsn.system.interrupt import Stopped, stop_requests
from vsn.system.progress import progress_bar
from vsn.training.job import NO_STEPS, Job, check_job, start_job
from vsn.training.memory import OUT_OF_MEMORY, is_out_of_memory
from vsn.training.optim import freeze_parts, set_lr
from vsn.training.trackers import open_trackers
from vsn.training.validate import describe_end, describe_epoch, validate, validate_when_due

STEPS_TRACKED = 20
"""Trackers get the numbers of every n-th step."""


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

    Under `torchrun` every process calls it; the first one writes and talks.

    Args:
        recipe: all settings. When resuming it must be the run's own, but for `vsn.runs.run.RESUMABLE_SETTINGS`.
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
        TrainingStopped: Ctrl-C or SIGTERM (the state is saved; the first process alone says where), a loss
            that is not finite, or no memory.
    """
    distributed = Distributed(recipe.train.device)
    console = (console or Console(stderr=True)) if distributed.is_rank0 else Console(quiet=True)
    path = Path(distributed.broadcast_from_rank0(lambda: str(path)))  # a name with the time in it may differ
    # Whatever can be refused is refused before videos are decoded and a folder is made.
    check_job(recipe, distributed, resume=resume)
    if distributed.is_rank0 and not resume:
        check_new(path)
    train_set, val_set = datasets or open_datasets(recipe, console)
    run, state = distributed.broadcast_from_rank0(lambda: _open(recipe, path, train_set.classes, resume, console))
    job = start_job(run, (train_set, val_set), state, distributed, console)
    if distributed.is_rank0:
        write_run(run)
        if resume and job.progress["line"]:  # stopped between saving and writing the line
            append_metrics(run, job.progress["line"])
    if not resume:
        job.save()  # from here on the run can always be continued

    trackers = open_trackers(recipe.train.trackers if distributed.is_rank0 else (), run)
    with stop_requests() as job.stop, trackers as job.trackers, _stopping(job):
        while job.progress["epoch"] < recipe.train.epochs and not job.out_of_patience:
            started = time.perf_counter()
            line = train_epoch(job)
            if (line["epoch"] % recipe.train.val_every == 0) or line["epoch"] == recipe.train.epochs:
                line |= validate(job)
            line["seconds"] = time.perf_counter() - started
            job.progress |= {"epoch": line["epoch"], "line": line, **NO_STEPS}
            job.progress["seconds"] += line["seconds"]
            if distributed.is_rank0:
                save_weights(run, job.tested_model)
                job.save()
                append_metrics(run, line)
            job.trackers.log(line, line["step"])
            console.print(describe_epoch(line, recipe.train.epochs), highlight=False, soft_wrap=True)
    if distributed.is_rank0:
        write_summary(run, {key: job.progress[key] for key in ("epoch", "seconds", "best")})
    console.print(describe_end(job), highlight=False, soft_wrap=True)
    return run


def train_epoch(job: Job) -> dict[str, Any]:
    """Train for an epoch, or for what an interruption left of it; return its line of metrics."""
    config, progress = job.run.recipe.train, job.progress
    epoch = progress["epoch"]
    validate_when_due(job)  # a validation that was cut short
    job.model.train()
    freeze_parts(job.model, config)
    started, waited, seen_before = time.perf_counter(), 0.0, progress["videos"]
    with progress_bar("videos", console=job.console) as bar:
        done = min(progress["step"] * config.batch_size, len(job.train_set))
        task = bar.add_task(f"epoch {epoch + 1}/{config.epochs}", total=len(job.train_set), completed=done, note="")
        for batch, bad, seconds in _batches(job, epoch):
            waited += seconds
            weight, num_parts = _meet(job, batch, bad)
            progress["step"] += 1
            if weight:  # not when all videos of the step are bad
                train_step(job, batch, weight, num_parts)
            loss, top1 = _averages(progress)
            share = waited / (time.perf_counter() - started)
            note = f"loss {loss:.3f} top-1 {top1:.0%} data {share:.0%} lr {job.lr:.2g}"
            bar.update(task, completed=min(progress["step"] * config.batch_size, len(job.train_set)), note=note)
            if job.steps_done % STEPS_TRACKED == 0:
                job.trackers.log({"running_loss": loss, "running_top1": top1, "lr": job.lr}, job.steps_done)
            validate_when_due(job)
            job.save_when_due()
    seconds = time.perf_counter() - started
    loss, top1 = _averages(progress)
    return {
        "epoch": epoch + 1,
        "step": (epoch + 1) * job.steps_per_epoch,
        "lr": job.lr,
        "train_loss": loss,
        "train_top1": top1,
        "bad_videos": len(progress["bad"]),
        "videos_per_second": (progress["videos"] - seen_before) / seconds,
        "data_wait": waited / seconds,
    }


def train_step(job: Job, batch: Batch, weight: float, num_parts: int) -> None:
    """One step: forward, loss, backward, update, and the sums of the epoch.

    The loss is the mean over all videos of the step, in whatever process and part they are; ``weight``
    is what it divides by. Every process takes ``num_parts``, of which this one's may be empty.
    """
    recipe, config, progress, distributed = job.run.recipe, job.run.recipe.train, job.progress, job.distributed
    set_lr(job.optimizer, job.lr)
    # Dropout and mixing depend on (seed, epoch, step, process) alone, so that resuming changes nothing.
    entropy = [
        config.seed,
        progress["epoch"],
        progress["step"] - 1,
        *([distributed.rank] if distributed.rank else []),
    ]
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
    job.optimizer.zero_grad(set_to_none=True)
    loss_sum, hits = 0.0, 0.0
    parts = (tensor.tensor_split(config.accumulate)[:num_parts] for tensor in (batch.clips, batch.targets))
    for number, part in enumerate(zip(*parts, strict=True), 1):
        clips, targets = (tensor.to(distributed.device, non_blocking=True) for tensor in part)
        shown, wanted = clips, targets
        if len(targets):
            shown, wanted = mix_clips(clips, targets, len(job.run.classes), recipe.augment)
        with contextlib.nullcontext() if number == num_parts else distributed.no_sync(job.network):
            with autocast(distributed.device, config.precision):
                logits = job.network(shown)
            loss = job.loss.total(logits.float(), wanted) / weight
            job.scaler.scale(loss * distributed.world_size).backward()  # gradients are averaged over the processes
        loss_sum += loss.item()
        hits += _num_hits(logits, targets)
    loss_sum, hits, videos = distributed.all_reduce_sum([loss_sum, hits, len(batch.targets)])
    if not math.isfinite(loss_sum):
        raise _not_finite(job, batch)
    job.scaler.unscale_(job.optimizer)
    if config.clip_grad_norm:
        torch.nn.utils.clip_grad_norm_(job.model.parameters(), config.clip_grad_norm)
    job.scaler.step(job.optimizer)
    job.scaler.update()
    if job.average:
        job.average.update_parameters(job.model)
    progress["loss_sum"] += loss_sum * videos
    progress["hits"] += hits
    progress["videos"] += videos


def _batches(job: Job, epoch: int) -> Iterator[tuple[Batch, list[BadVideo], float]]:
    """What this process takes of each step left of an epoch, the videos it could not read, seconds waited."""
    recipe, config = job.run.recipe, job.run.recipe.train
    bad: list[BadVideo] = []
    loader = make_loader(
        job.train_set,
        batch_size=config.batch_size,
        num_workers=recipe.data.num_workers,
        epoch=epoch,
        shuffle=True,
        balance=recipe.data.balance,
        seed=config.seed,
        start=min(job.progress["step"] * config.batch_size, len(job.train_set)),
        share=Share(job.distributed.rank, job.distributed.world_size, config.accumulate),
        bad=bad,
    )
    started = time.perf_counter()
    for batches in loader:
        assert len(batches) <= 1, "training clips have one size"
        yield batches[0] if batches else _no_videos(job), bad.copy(), time.perf_counter() - started
        bad.clear()
        started = time.perf_counter()


def _meet(job: Job, batch: Batch, bad: list[BadVideo]) -> tuple[float, int]:
    """Meet the other processes before a step: stop together, count bad videos.

    Returns what all the videos of the step weigh, and the number of parts that are not empty in all processes.
    """
    num_parts = min(job.run.recipe.train.accumulate, len(batch.targets))
    facts = [
        job.loss.weight(batch.targets),
        len(bad),
        job.stop.requested,
        *(i < num_parts for i in range(job.run.recipe.train.accumulate)),
    ]
    weight, num_bad, stop, *filled = job.distributed.all_reduce_sum(facts)
    if stop:
        raise Stopped
    if num_bad:
        _count_bad(job, [video for videos in job.distributed.all_gather(bad) for video in videos])
    return weight, sum(map(bool, filled))


def _count_bad(job: Job, bad: list[BadVideo]) -> None:
    """List videos that could not be read in the run; raise the last one's error when they are too many."""
    known = job.progress["bad"]
    new = [video for video in bad if video.path not in known]
    if not new:
        return
    known.update({video.path: video.reason for video in new})
    if job.distributed.is_rank0:
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


def _open(
    recipe: Recipe, path: Path, classes: tuple[str, ...], resume: bool, console: Console
) -> tuple[Run, dict[str, Any] | None]:
    """A new run, or one to go on with and its state; its free settings are those of `recipe`."""
    if not resume:
        return new_run(path, recipe, classes), None
    run = open_run(path)
    check_resumable(run, recipe, classes)
    clear_leftovers(run)
    state, note = load_state(run)
    if note:
        console.print(note, highlight=False, soft_wrap=True)
    return Run(path, replace(recipe, model=run.recipe.model), run.classes), state


@contextlib.contextmanager
def _stopping(job: Job) -> Iterator[None]:
    """Save the state of a run that stops between two steps; say where it stopped and how to go on."""
    try:
        yield
    except (Stopped, VideoError) as error:
        job.save()
        place = f"in epoch {job.progress['epoch'] + 1} after {job.progress['step']} of {job.steps_per_epoch} steps"
        advice = f"continue with: vsn train --resume {job.run.path}"
        if isinstance(error, Stopped):
            said = f"Stopped {place}; {advice}" if job.distributed.is_rank0 else ""
            raise TrainingStopped(said) from None
        job.console.print(
            f"Stopped {place} by a video that cannot be read. Mend or remove it (`vsn data doctor` finds them all) or, "
            f"where it is one to train on, allow a larger share with --data.bad-videos; then {advice}",
            highlight=False,
            soft_wrap=True,
        )
        raise
    except (RuntimeError, torch.OutOfMemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingStopped(f"{OUT_OF_MEMORY} The run is kept as it was last saved.") from error


def _not_finite(job: Job, batch: Batch) -> TrainingStopped:
    """The error of a loss that is NaN or infinite, with what led to it."""
    ours = [job.train_set.records[int(i)].video_id for i in batch.indices]
    files = ", ".join(name for names in job.distributed.all_gather(ours) for name in names)
    return TrainingStopped(
        f"The loss is not finite in epoch {job.progress['epoch'] + 1}, step {job.progress['step']}, at learning rate "
        f"{job.lr:.3g}. The run is kept as it was last saved. Begin another from its weights (--init-from {job.run.path}) "
        f"with a lower train.lr, or with train.precision = 'fp32'. Videos of the batch: {files}."
    )


def _no_videos(job: Job) -> Batch:
    """The share of a process to which no video of a step falls."""
    size, model = job.train_set.clip.crop_size, job.run.recipe.model
    clips = torch.empty(0, model.num_frames, model.clip_channels, size, size, dtype=torch.uint8)
    targets = torch.empty(0, len(job.run.classes)) if job.train_set.multi_label else torch.empty(0, dtype=torch.int64)
    return Batch(clips, targets, torch.empty(0, dtype=torch.int64))


def _num_hits(logits: torch.Tensor, targets: torch.Tensor) -> int:
    """How many of the highest logits are (one of) the true labels."""
    best = logits.argmax(dim=1)
    right = targets == best if targets.ndim == 1 else targets.gather(1, best[:, None]) > 0
    return int(right.sum())


def _averages(progress: dict[str, Any]) -> tuple[float, float]:
    """Mean loss and top-1 of the epoch so far; NaN before the first video."""
    videos = progress["videos"] or math.nan
    return progress["loss_sum"] / videos, progress["hits"] / videos
