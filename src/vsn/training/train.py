"""Train a model: the loop over epochs and steps, from a recipe to a run folder."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from vsn.config import ConfigError, Recipe
from vsn.data.dataset import BadVideo, VideoDataset
from vsn.data.loader import Batch, Share, make_loader
from vsn.data.open import open_datasets
from vsn.data.transforms import mix_clips
from vsn.data.video import VideoError
from vsn.inference.forward import autocast
from vsn.models.weights_file import NotFiniteError
from vsn.runs.checkpoint import clear_leftovers, load_checkpoint, save_weights
from vsn.runs.metadata import different_threads, is_unstarted, write_run
from vsn.runs.run import (
    STATE_FILES,
    Run,
    RunError,
    append_metrics,
    check_new,
    check_resumable,
    is_finished,
    new_run,
    open_run,
    weights_file,
    write_bad_videos,
    write_summary,
)
from vsn.runs.videos import describe_changes, list_videos_of_run, read_videos, record_videos
from vsn.system.distributed import Distributed
from vsn.system.interrupt import Stopped, stop_requests
from vsn.system.lock import LOCK_FILE, FolderLock, lock_folder
from vsn.system.numbers import percent
from vsn.system.progress import progress_bar
from vsn.system.terminal import print_line, print_note, shell_quote
from vsn.training.job import Job, check_job, start_job
from vsn.training.memory import OUT_OF_MEMORY, is_out_of_memory
from vsn.training.optim import set_lr
from vsn.training.start import run_of_same_data
from vsn.training.trackers import check_trackers, open_trackers
from vsn.training.validate import describe_end, describe_epoch, validate, validate_when_due

STEPS_PER_LOG = 20
"""Trackers get the running loss every so many steps."""


class TrainingStopped(RuntimeError):  # noqa: N818  (not always an error)
    """Training ended before its last epoch; the run folder keeps the last saved state.

    Attributes:
        place: where a signal stopped the run after saving it, such as "epoch 2 after 1 of 3 steps"; "" after an
            error, and on every rank but 0.
        exit_status: of the command; after a signal the one that a shell reports for it, but 0 under `torchrun`.
    """

    def __init__(self, message: str, *, place: str = "", exit_status: int = 1) -> None:
        super().__init__(message)
        self.place, self.exit_status = place, exit_status


def train(
    recipe: Recipe,
    path: str | Path,
    *,
    resume: bool = False,
    console: Console | None = None,
    datasets: tuple[VideoDataset, VideoDataset] | None = None,
) -> Run:
    """Train a model and write its run folder.

    Under `torchrun` every process calls it; rank 0 writes and prints.

    Args:
        recipe: all settings. A resumed run may change only `vsn.runs.run.RESUMABLE_SETTINGS`.
        path: the run folder; it must be new unless ``resume``.
        resume: continue where the run stopped, also within an epoch.
        console: where to print; default standard error.
        datasets: training and validation set, for several runs that share one in memory.

    Returns:
        The run. Its folder has weights after every epoch.

    Raises:
        ConfigError, RunError: the recipe, or the run folder, cannot be trained.
        LockError: another process trains this run, or its folder was renamed or deleted meanwhile.
        VideoError: training videos cannot be read, more than `data.bad_videos` allows, or a validation video; the state
            is saved.
        TrainingStopped: Ctrl-C or SIGTERM (the state is saved), a loss that is not finite, or no memory.
    """
    distributed = Distributed(recipe.train.device)
    console = (console or Console(stderr=True)) if distributed.is_rank0 else Console(quiet=True)
    # The default path contains the time, which may differ between ranks.
    path = Path(distributed.broadcast_from_rank0(lambda: str(path)))

    # Find mistakes in the recipe before decoding videos, which can take hours, and before creating a folder.
    check_job(recipe, distributed, resume=resume)
    if resume:
        open_run(path)
    elif distributed.is_rank0 and not (path.is_dir() and is_unstarted(path)):
        check_new(path)
    if distributed.is_rank0:
        check_trackers(recipe.train.trackers)
    with contextlib.ExitStack() as stack:
        # Before the data is read: of two commands with one folder, the second is refused at once. A new folder that stays
        # empty is removed.
        lock = stack.enter_context(_lock_run(path)) if distributed.is_rank0 else None
        try:
            datasets = datasets or open_datasets(recipe, console)
        except ConfigError as error:
            if not resume or Path(recipe.data.root).is_dir():
                raise
            raise ConfigError(
                f"{error} If the data moved: vsn train --resume {shell_quote(path)} --data.root FOLDER"
            ) from error
        classes = datasets[0].classes
        run, state = distributed.broadcast_from_rank0(lambda: _open_run(recipe, path, classes, resume, console))
        job = start_job(run, datasets, state, distributed, console)
        job.lock = lock
        if distributed.is_rank0:
            write_run(run)
            videos = list_videos_of_run(job.train_set.records, job.val_set.records, run.classes)
            start = run_of_same_data(recipe) if state is None else None
            for note in record_videos(run.path, videos, start=start):
                print_note(console, note)
            # A run that was killed after saving its state and before writing the metrics lacks that line.
            if job.progress.line:
                append_metrics(run, job.progress.line)
        if state is None:
            job.save()  # from here on the run can be resumed
        _train_epochs(job)
    return run


def _train_epochs(job: Job) -> None:
    """Train, validate and save the epochs that are left, and write the summary."""
    run, recipe, distributed = job.run, job.run.recipe, job.distributed
    # Ctrl-C and SIGTERM only set `job.stop.requested`: `_sync_before_step` shares it between two steps, so that
    # all ranks stop after the same one, and `_save_on_stop` saves the checkpoint, RUN/state.pt (`vsn.runs.checkpoint`).
    # A validation stops between two batches. A second Ctrl-C raises KeyboardInterrupt at once: nothing more is saved.
    trackers = open_trackers(recipe.train.trackers if distributed.is_rank0 else (), run, job.steps_done, job.console)
    with stop_requests() as job.stop, trackers as job.log, _save_on_stop(job):
        while job.progress.epoch < recipe.train.epochs and not job.stops_early:
            started = time.perf_counter() - job.progress.epoch_seconds
            line = train_epoch(job)
            job.check_finite()  # an explosion in the last step shows in no later loss
            # The last epoch is always validated: its metrics end the run.
            if line["epoch"] % recipe.train.val_every == 0 or line["epoch"] == recipe.train.epochs:
                line |= validate(job)
            line["seconds"] = time.perf_counter() - started
            job.progress.finish_epoch(line)
            # In this order the run can be resumed after being killed at any point: the state decides which epoch is
            # next, and the line of a finished epoch is in the state too.
            job.check_folder()
            if distributed.is_rank0:
                save_weights(run, job.eval_model)
                job.save()
                append_metrics(run, line)
            job.log(line, job.steps_done)
            print_line(job.console, describe_epoch(line, recipe.train.epochs, width=_columns(job.console)))
    job.check_folder()
    if distributed.is_rank0:  # the summary marks the run as finished
        progress = job.progress.state_dict()
        write_summary(run, {key: progress[key] for key in ("epoch", "seconds", "best")})
    *notes, command = describe_end(job)
    for note in notes:
        print_note(job.console, note)
    print_line(job.console, command)  # whole, to be copied


def _columns(console: Console) -> int | None:
    """Return the width of a terminal; None for a file, whose lines may have any length."""
    return console.width if console.is_terminal else None


def train_or_reuse(
    recipe: Recipe, path: Path, *, datasets: tuple[VideoDataset, VideoDataset], console: Console, command: str
) -> Run:
    """Train a run of a larger job, resume it if it was interrupted, or return it if it is finished.

    Raises:
        TrainingStopped: as `train`, but it tells to repeat ``command``: resuming this run would leave out the others.
    """

    # Rank 0 looks at the folder and the others follow: it may create files before they look.
    has_state, finished = Distributed(recipe.train.device).broadcast_from_rank0(
        lambda: (any((path / name).is_file() for name in STATE_FILES), is_finished(path))
    )
    before = read_videos(path) if finished or has_state else None
    now = list_videos_of_run(datasets[0].records, datasets[1].records, datasets[0].classes)
    if before and (changes := describe_changes(before, now)):
        raise RunError(
            f"{path} was begun with other data; since then there are {changes}. Restore the data, or choose another folder "
            "with --out."
        )
    if finished:
        run = open_run(path)
        check_resumable(run, recipe, datasets[0].classes)
        return run
    try:
        return train(recipe, path, resume=has_state, console=console, datasets=datasets)
    except TrainingStopped as stopped:
        if not stopped.place:
            raise
        place = f"{stopped.place} of {path.name}"
        message = f"Stopped in {place}; the same `{command}` command with the same --out continues from there"
        raise TrainingStopped(message, place=place, exit_status=stopped.exit_status) from None


def train_epoch(job: Job) -> dict[str, float]:
    """Train the current epoch, or the steps of it that an interruption left; return its metrics."""
    config, progress = job.run.recipe.train, job.progress
    epoch = progress.epoch
    validate_when_due(job)  # the signal that stopped the run may have interrupted a validation
    job.train_mode()
    started, wait_seconds, seconds_before = time.perf_counter(), 0.0, progress.epoch_seconds
    with progress_bar("videos", console=job.console) as bar:
        # The bar counts videos of all ranks, from where an interruption left the epoch.
        description = f"epoch {epoch + 1}/{config.epochs}"
        task = bar.add_task(description, total=len(job.train_set), completed=job.videos_done, note="")
        for batch, bad, seconds in _load_batches(job, epoch):
            wait_seconds += seconds
            weight, num_parts, save_is_due = _sync_before_step(job, batch, bad)
            progress.step += 1
            if weight:  # 0 if no video of the step could be read, on any rank
                train_step(job, batch, weight, num_parts)
            loss, top1 = progress.averages()
            wait_share = wait_seconds / (time.perf_counter() - started)
            note = f"loss {loss:.3f} top-1 {percent(top1, 0)} data {percent(wait_share, 0)} lr {job.lr:.2g}"
            bar.update(task, completed=job.videos_done, note=note)
            if job.steps_done % STEPS_PER_LOG == 0:
                job.log({"running_loss": loss, "running_top1": top1, "lr": job.lr}, job.steps_done)
            validate_when_due(job)
            progress.epoch_seconds = seconds_before + time.perf_counter() - started
            if save_is_due:
                job.save()
    seconds = time.perf_counter() - started
    loss, top1 = progress.averages()
    return {
        "epoch": epoch + 1,
        "step": (epoch + 1) * job.steps_per_epoch,
        "lr": job.lr,
        "train_loss": loss,
        "train_top1": top1,
        "bad_videos": len(progress.bad),
        "videos_per_second": progress.videos / (seconds_before + seconds),
        "data_wait": wait_seconds / seconds,
    }


def train_step(job: Job, batch: Batch, weight: float, num_parts: int) -> None:
    """Run forward, loss, backward and update of one step, and add it to the sums of the epoch.

    The batch has the videos of this rank, which may be none; ``weight`` is that of the videos of all ranks, see
    `vsn.training.losses.Loss`. Gradients are accumulated over ``num_parts`` parts of the batch.
    """
    recipe, config, progress, distributed = job.run.recipe, job.run.recipe.train, job.progress, job.distributed
    set_lr(job.optimizer, job.lr)
    # Seed dropout and mixing from (seed, epoch, step, rank): a resumed run draws the same numbers, and the
    # state needs no random generator. Rank 0 uses the same entropy as a run with one process.
    entropy = [config.seed, progress.epoch, progress.step - 1, *([distributed.rank] if distributed.rank else [])]
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    # Gradient accumulation: each part adds its share of the gradient of the mean over the whole step.
    job.optimizer.zero_grad(set_to_none=True)
    loss_sum, num_hits = 0.0, 0
    # All ranks run the same number of passes, because DDP communicates in them: a part may be empty here.
    parts = (tensor.tensor_split(config.accumulate)[:num_parts] for tensor in (batch.clips, batch.targets))
    for number, part in enumerate(zip(*parts, strict=True), 1):
        clips, targets = (tensor.to(distributed.device, non_blocking=True) for tensor in part)
        mixed_clips, mixed_targets = clips, targets
        if len(targets):
            mixed_clips, mixed_targets = mix_clips(clips, targets, len(job.run.classes), recipe.augment)
        # Ranks exchange gradients once per step, in the backward pass of the last part.
        with contextlib.nullcontext() if number == num_parts else distributed.no_sync(job.network):
            with autocast(distributed.device, config.precision):
                logits = job.network(mixed_clips)
            # The loss in float32: bf16 logits would lose digits in the softmax.
            loss = job.loss.total(logits.float(), mixed_targets) / weight
            # DDP averages gradients over the ranks; the factor turns the average into the sum.
            job.scaler.scale(loss * distributed.world_size).backward()
        loss_sum += loss.item()
        num_hits += _num_hits(logits, targets)
    loss_sum, hits, videos = distributed.all_reduce_sum([loss_sum, num_hits, len(batch.targets)])
    if not math.isfinite(loss_sum):
        video_ids = [job.train_set.records[int(i)].video_id for i in batch.indices]
        names = ", ".join(name for names in distributed.all_gather(video_ids) for name in names)
        raise NotFiniteError(f"the loss is not finite for the videos {names}")

    # Unscale fp16 gradients before clipping, so that the limit holds for the true ones. Unlike a loss that is
    # not finite, gradients that are not only make the scaler skip the step and lower its scale.
    job.scaler.unscale_(job.optimizer)
    if config.clip_grad_norm:
        torch.nn.utils.clip_grad_norm_(job.model.parameters(), config.clip_grad_norm)
    job.scaler.step(job.optimizer)
    job.scaler.update()
    if job.ema:
        job.ema.update_parameters(job.model)
    progress.loss_sum += loss_sum * videos
    progress.hits += hits
    progress.videos += videos


def _load_batches(job: Job, epoch: int) -> Iterator[tuple[Batch, list[BadVideo], float]]:
    """Yield this rank's share of each remaining step, its videos that could not be read, and the seconds waited."""
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
        start=job.videos_done,  # the order of an epoch depends on (seed, epoch), so that resuming skips videos
        share=Share(job.distributed.rank, job.distributed.world_size, config.accumulate),
        bad=bad,
        stop=job.stop,
    )
    started = time.perf_counter()
    for batches in loader:
        assert len(batches) <= 1, "training clips have one size"
        yield batches[0] if batches else _empty_batch(job), bad.copy(), time.perf_counter() - started
        bad.clear()
        started = time.perf_counter()


def _sync_before_step(job: Job, batch: Batch, bad: list[BadVideo]) -> tuple[float, int, bool]:
    """All-reduce what every rank must know before a step: the loss weight, signals, bad videos, and the clock of rank 0.

    Returns:
        The weight of the videos of all ranks, the number of parts that are not empty on every rank, and whether the state
        is saved after the step.
    """
    accumulate = job.run.recipe.train.accumulate
    num_parts = min(accumulate, len(batch.targets))
    # One all-reduce for all of it: each costs a round trip. The number of parts needed is the maximum over
    # the ranks; summed as flags, 2 parts here and 1 there are [1, 1, 0] + [1, 0, 0] = [2, 1, 0], so 2.
    has_part = [part < num_parts for part in range(accumulate)]
    clock = job.distributed.is_rank0 and job.is_save_due
    weight, num_bad, stop, save_is_due, *counts = job.distributed.all_reduce_sum(
        [job.loss.weight(batch.targets), len(bad), job.stop.requested, clock, *has_part]
    )
    if stop:
        raise Stopped
    if num_bad:
        _record_bad(job, [video for videos in job.distributed.all_gather(bad) for video in videos])
    return weight, sum(map(bool, counts)), bool(save_is_due)


def _record_bad(job: Job, bad: list[BadVideo]) -> None:
    """Write `bad_videos.json`; raise `VideoError` if there are more than `data.bad_videos` allows."""
    known = job.progress.bad
    new = [video for video in bad if video.path not in known]
    if not new:
        return
    known.update({video.path: video.reason for video in new})
    job.check_folder()
    if job.distributed.is_rank0:
        write_bad_videos(job.run, known)
    share = job.run.recipe.data.bad_videos
    num_videos = len({record.shown for record in job.train_set.records})
    none_left = len(known) == num_videos
    if none_left and not job.progress.videos:
        job.progress.step = 0  # nothing was trained: once the videos are back, the epoch is
    if len(known) > share * num_videos or none_left:
        reason = new[-1].reason
        if none_left:
            reason += f" None of the {num_videos} training videos can be read; see {job.run.path / 'bad_videos.json'}."
        elif len(known) > 1:
            reason += (
                f" {len(known)} of {num_videos} videos cannot be read, more than data.bad_videos = {share:g} allows; see "
                f"{job.run.path / 'bad_videos.json'}."
            )
        raise VideoError(new[-1].path, reason)


def _open_run(
    recipe: Recipe, path: Path, classes: tuple[str, ...], resume: bool, console: Console
) -> tuple[Run, dict[str, Any] | None]:
    """Return a new run and None, or the run to resume and its state.

    A run that was killed before its first save has nothing to resume from, and nothing to lose: it starts over.
    """
    is_left = path.is_dir() and is_unstarted(path) and any(file.name != LOCK_FILE for file in path.iterdir())
    if is_left:
        print_note(console, f"{path} was stopped before its first save; it starts over.")
    if not resume:
        if is_left:
            for file in path.iterdir():
                if file.name != LOCK_FILE:
                    file.unlink()
        return new_run(path, recipe, classes), None
    run = open_run(path)
    check_resumable(run, recipe, classes)
    clear_leftovers(run)
    state, note = (None, "") if is_left else load_checkpoint(run)
    for line in (note, different_threads(path)):
        if line:
            print_note(console, line)
    # The resumable settings are those of the recipe; the model's have the number of classes filled in.
    return Run(path, replace(recipe, model=run.recipe.model), run.classes), state


@contextlib.contextmanager
def _lock_run(path: Path) -> Iterator[FolderLock]:
    """Hold the run folder, so that no other process writes into it."""
    with contextlib.ExitStack() as stack:
        try:
            lock = stack.enter_context(lock_folder(path))
        except OSError as error:
            hint = (
                "A resumed run writes into its own folder: copy it to a disk that can be written, and resume the copy."
                if (path / "recipe.toml").is_file()
                else "Choose another with --out."
            )
            raise RunError(f"The run folder {path} cannot be written ({error.strerror}). {hint}") from error
        yield lock


@contextlib.contextmanager
def _save_on_stop(job: Job) -> Iterator[None]:
    """Save the state if a signal, a bad video or a failed worker stops the run between two steps, and say how to go on.

    A run that diverged is not saved.
    """
    try:
        yield
    except NotFiniteError as error:
        raise _diverged(job, error) from error
    except (Stopped, VideoError) as error:
        try:
            job.save()
        except NotFiniteError as not_finite:
            raise _diverged(job, not_finite) from not_finite
        place = f"epoch {job.progress.epoch + 1} after {job.progress.step} of {job.steps_per_epoch} steps"
        resume = f"continue with: vsn train --resume {shell_quote(job.run.path)}"
        # torchrun ends all processes as soon as one fails: not while rank 0 saves.
        job.distributed.all_gather(None)
        if job.stop.failure:
            print_line(job.console, f"Stopped in {place}, and saved; {resume}")
            raise job.stop.failure from None
        if isinstance(error, Stopped):
            # torchrun takes any other status for a failure: it prints a traceback, and may start the processes again.
            status = 0 if "TORCHELASTIC_RUN_ID" in os.environ else job.stop.exit_status
            if not job.distributed.is_rank0:
                raise TrainingStopped("", exit_status=status) from None  # rank 0 prints the message
            raise TrainingStopped(f"Stopped in {place}, and saved; {resume}", place=place, exit_status=status) from None
        print_line(
            job.console,
            f"Stopped in {place}: a video cannot be read. Repair or remove it (`vsn data doctor` finds all of them), or "
            f"allow more bad training videos with --data.bad-videos; then {resume}",
        )
        raise
    except (RuntimeError, torch.OutOfMemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # Saving now could interrupt an update halfway; the last saved state is consistent.
        raise TrainingStopped(f"{OUT_OF_MEMORY} The run keeps its last saved state.") from error


def _diverged(job: Job, error: NotFiniteError) -> TrainingStopped:
    """Build the error for a loss, weights or scores that are NaN or infinite; it names the weights to go on from."""
    weights = weights_file(job.run)
    # Nothing that is not finite is written, so that a file of weights is from an epoch before.
    advice = (
        f"{weights} has the weights after epoch {job.progress.epoch}: train from them, vsn train RECIPE --init-from "
        f"{shell_quote(weights)}, with a lower train.lr, or with train.precision = 'fp32'."
        if weights.is_file()
        else f"No epoch has finished, so that there are no weights to go on from: delete {job.run.path}, and train again "
        "with a lower train.lr, a train.warmup_epochs, or train.precision = 'fp32'."
    )
    return TrainingStopped(
        f"The training diverged in epoch {job.progress.epoch + 1}, step {job.progress.step}, at learning rate "
        f"{job.lr:.3g}: {error}. {advice} --resume would repeat these steps."
    )


def _empty_batch(job: Job) -> Batch:
    """Build the batch of a rank that has no video of a step: it must still take part in the collectives."""
    size, model = job.train_set.clip.crop_size, job.run.recipe.model
    clips = torch.empty(0, model.num_frames, model.clip_channels, size, size, dtype=torch.uint8)
    targets = torch.empty(0, len(job.run.classes)) if job.train_set.multi_label else torch.empty(0, dtype=torch.int64)
    return Batch(clips, targets, torch.empty(0, dtype=torch.int64))


def _num_hits(logits: torch.Tensor, targets: torch.Tensor) -> int:
    """Count the videos whose highest logit is the label, or one of the labels."""
    best = logits.argmax(dim=1)
    correct = targets == best if targets.ndim == 1 else targets.gather(1, best[:, None]) > 0
    return int(correct.sum())
