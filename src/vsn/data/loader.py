"""Load batches of clips: the order of an epoch, each rank's share of a step, and the loader over worker processes."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info

from vsn.data.dataset import BadVideo, Sample, VideoDataset
from vsn.data.records import VideoRecord
from vsn.data.video import VideoError
from vsn.data.video.packet_index import CACHE, FileKey, PacketIndex
from vsn.system.interrupt import Interrupted, StopRequest, child_signals, interrupts_blocked
from vsn.system.pool import WorkerError, exit_reason

WORKER_SECONDS = 600
"""Workers that return no batch for this long are considered hung."""

_END_SECONDS = 2.0
"""Time that workers have to end by themselves when no more batches are wanted."""

_PREFETCHED = 2
"""Batches that a worker holds ready."""

Key = tuple[int, int]
"""`(epoch, index)` of a sample."""


class Batch(NamedTuple):
    """Clips of one size, uint8 `(B, T, C, H, W)`, stacked targets, record indices, int64 `(B,)`."""

    clips: torch.Tensor
    targets: torch.Tensor
    indices: torch.Tensor


class Share(NamedTuple):
    """The part of each step that a process reads, and in how many parts it computes it."""

    rank: int = 0
    world_size: int = 1
    num_parts: int = 1
    """Parts of gradient accumulation."""


def collate(samples: Sequence[Sample]) -> list[Batch]:
    """Stack samples into one `Batch` for each clip size, in order of first appearance.

    Usually there is one; whole frames (protocol "fcn") of videos with different aspect ratios give several.
    """
    # default_collate would fail on clips of different sizes.
    groups: dict[torch.Size, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.clip.shape, []).append(sample)
    return [
        Batch(
            torch.stack([sample.clip for sample in group]),
            torch.stack([sample.target for sample in group]),
            torch.tensor([sample.index for sample in group]),
        )
        for group in groups.values()
    ]


def epoch_keys(
    num_samples: int,
    epoch: int = 0,
    *,
    seed: int = 0,
    shuffle: bool = False,
    together: int = 1,
    weights: np.ndarray | None = None,
) -> list[Key]:
    """Return the keys of an epoch in their order, which depends on (seed, epoch) only: a resumed run skips the first.

    Each index comes once; every `together` indices in a row stay adjacent. With `weights`, one for each index,
    as many are drawn with replacement, in proportion to them.
    """
    # A new generator for each epoch: resuming in epoch 30 does not replay 29 epochs.
    generator = np.random.default_rng([seed, epoch])
    if weights is not None:
        order = generator.choice(num_samples, size=num_samples, p=weights / weights.sum())
    else:
        # Shuffle the rows. together=2: [[0, 1], [2, 3], [4, 5]] -> 4, 5, 0, 1, 2, 3.
        groups = np.arange(num_samples).reshape(-1, together)
        order = (generator.permutation(groups) if shuffle else groups).ravel()
    return [(epoch, index) for index in order.tolist()]


def step_batches(
    keys: Sequence[Key],
    batch_size: int,
    share: Share = Share(),  # noqa: B008  (immutable)
    *,
    together: int = 1,
    whole: bool = False,
) -> list[list[Key]]:
    """Return what one process reads of each step of `batch_size` keys over all processes.

    A step is cut into `share.num_parts`, each of them over the processes, into runs as equal as possible; every
    `together` keys in a row stay in one process. Every process gets the same number of steps (a short last
    step may leave it no key), because all of them meet in the all-reduce of a step.

    With `whole=True` the processes take whole steps in turn, so that batches are the same for any number of
    processes: for evaluation.

    >>> keys = epoch_keys(6)
    >>> [[index for _, index in step] for step in step_batches(keys, 4, Share(rank=1, world_size=2))]
    [[2, 3], [5]]
    """
    # One step of the optimizer is a batch over all processes, so that results do not depend on their number.
    steps = [list(keys[i : i + batch_size]) for i in range(0, len(keys), batch_size)]
    if whole:
        return steps[share.rank :: share.world_size]
    ours = []
    for step in steps:
        # A unit is a run of `together` keys. Cut units first into parts, then each part over the processes: part k
        # holds the same videos for any number of processes, and its batch statistics are comparable.
        units = np.arange(-(-len(step) // together))
        parts = [np.array_split(part, share.world_size)[share.rank] for part in np.array_split(units, share.num_parts)]
        ours.append([key for i in np.concatenate(parts).tolist() for key in step[i * together : (i + 1) * together]])
    return ours


def balanced_weights(records: Sequence[VideoRecord]) -> np.ndarray:
    """Return a weight for each record, float64 `(len(records),)`, that draws every class equally often."""
    # 90 videos of class 0 and 10 of class 1: weights 1/90 and 1/10, each class sums to 1.
    labels = np.array([record.label for record in records])
    return 1.0 / np.bincount(labels)[labels]


class _NoBatchError(Exception):
    """A worker hangs or has died."""


class _VideoLoader(DataLoader[Any]):
    """A `DataLoader` that raises the errors of its workers as `VideoError`, or collects them in `bad`."""

    bad: list[BadVideo] | None = None
    stop: StopRequest | None = None

    def check_worker_number_rationality(self) -> None:
        """Skip PyTorch's warning about more workers than CPUs: the default of two is right on one CPU too."""

    def __iter__(self) -> Any:
        with interrupts_blocked():  # workers inherit the mask: the training process handles Ctrl-C
            batches_of_workers: Any = super().__iter__()
        number = 0
        with child_signals.held() if self.num_workers else contextlib.nullcontext():
            try:
                while received := self._wait(batches_of_workers):
                    sent, bad, indices = received
                    number += 1
                    batches = [Batch(*map(torch.as_tensor, batch)) for batch in sent]
                    CACHE.add(indices)
                    # Workers return errors as values: raised there, PyTorch would wrap them in its own text.
                    if bad and self.bad is None:
                        raise VideoError(bad[0].path, bad[0].reason)
                    if self.bad is not None:
                        self.bad.extend(bad)
                    yield batches
            except (_NoBatchError, Interrupted) as error:
                if isinstance(error, _NoBatchError):
                    failure = WorkerError(self._explain(batches_of_workers._workers, number, str(error)))
                    if self.stop is None:
                        raise failure from error
                    self.stop.fail(failure)
                elif self.stop is None:
                    raise
                # In place of a batch, after which the consumer looks at `stop`. After the last one it does so anyway, and
                # other processes, which know how many batches there are, would not meet this one.
                if number < len(self.batch_sampler):  # type: ignore[arg-type]
                    yield []
            finally:
                # Also when the consumer stops early: otherwise workers keep decoding until garbage collection.
                if self.num_workers:
                    _end_workers(batches_of_workers)

    def _wait(self, batches_of_workers: Any) -> Any:
        """Return the next batch, None after the last."""
        if not self.num_workers:
            return next(batches_of_workers, None)
        try:
            with child_signals.delivered(), self.stop.raising() if self.stop else contextlib.nullcontext():
                # PyTorch overlooks one that was waited for since, as the start of other processes does.
                if not all(worker.is_alive() for worker in batches_of_workers._workers):
                    raise _NoBatchError("a worker died")
                return next(batches_of_workers, None)
        except RuntimeError as error:
            # PyTorch has no class for "DataLoader timed out ...", "DataLoader worker (pid 12) is killed by signal ...".
            if str(error).startswith("DataLoader "):
                raise _NoBatchError(str(error)) from error
            raise

    def _explain(self, workers: Sequence[BaseProcess], number: int, error: str) -> str:
        """Say what became of the worker that has died, or that batch ``number`` is awaited from, and name its last video."""
        dead = [i for i, worker in enumerate(workers) if worker.exitcode is not None]
        hung = [] if dead or "timed out" not in error else [number % self.num_workers]  # workers take batches in turn
        names = self.dataset.last_videos(dead or hung)  # type: ignore[attr-defined]
        video = f"The last video that it opened is {' or '.join(map(repr, names))}. " if names else ""
        if hung:
            return (
                f"No worker returned a batch for {WORKER_SECONDS} seconds. Is a disk or network gone, or does a decoder "
                f"hang? {video}`vsn data doctor` finds videos that hang."
            )
        # Without a dead one here, it is a worker of another loader: of the epoch that a validation interrupts.
        reason = exit_reason(workers[dead[0]].exitcode) if dead else error
        return (
            f"A worker that reads videos died ({reason}). {video}Fewer data.num_workers take less memory; "
            "`vsn data doctor` finds videos that crash the decoder."
        )


class _NotingDataset:
    """A `VideoDataset` that notes which video each worker reads, where the training process sees it too."""

    def __init__(self, dataset: VideoDataset, num_workers: int) -> None:
        self._dataset = dataset
        self._indices = RawArray("q", [-1] * num_workers)

    def __getitems__(self, keys: Sequence[Key]) -> list[Sample | BadVideo]:
        samples: list[Sample | BadVideo] = []
        worker = get_worker_info()
        assert worker
        for key in keys:
            self._indices[worker.id] = key[1]
            samples += self._dataset.__getitems__([key])
        return samples

    def last_videos(self, workers: Sequence[int]) -> list[str]:
        """Return the names of the last videos that these workers began to read."""
        indices = [self._indices[worker] for worker in workers]
        return [str(self._dataset.records[index].shown) for index in indices if index >= 0]


def _end_workers(batches_of_workers: Any) -> None:
    """End the workers of an iterator of `DataLoader`, also those that hang."""

    def kill() -> None:
        for worker in batches_of_workers._workers:
            if worker.is_alive():
                worker.kill()

    # PyTorch waits up to ten seconds for each worker that hangs, and the run is saved only after that.
    killing = threading.Timer(_END_SECONDS, kill)
    killing.daemon = True
    try:
        killing.start()
        batches_of_workers._shutdown_workers()
    finally:  # also if a second Ctrl-C interrupts this: a worker ignores the SIGTERM that Python sends it at exit
        killing.cancel()
        kill()
        for worker in batches_of_workers._workers:
            worker.join(_END_SECONDS)  # one that waits for a disk that is gone cannot be killed


def _start_worker(worker: int) -> None:
    # SIGTERM, which a scheduler sends to all processes, is left to the training process: it stops its workers.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    CACHE.take_new()  # the training process, which a worker is a copy of, has these


def make_loader(
    dataset: VideoDataset,
    *,
    batch_size: int,
    num_workers: int,
    epoch: int = 0,
    shuffle: bool,
    balance: bool = False,
    seed: int = 0,
    start: int = 0,
    indices: Sequence[int] | None = None,
    share: Share = Share(),  # noqa: B008  (immutable)
    whole: bool = False,
    bad: list[BadVideo] | None = None,
    stop: StopRequest | None = None,
) -> DataLoader[Any]:
    """Return a loader of one epoch that yields `list[Batch]`, `batch_size` samples at a time over all processes.

    Samples are the same for any `num_workers`. The last batch may be smaller; no sample is dropped or
    repeated, unless `balance` draws every class equally often. A video that cannot be read raises its
    `VideoError` here, also from workers; given a list `bad`, it is appended there and left out of its batch,
    which may then be empty.

    Args:
        start: samples to skip, where an interrupted epoch resumes.
        indices: the samples to read, in this order; default those of an epoch.
        share: the samples this process reads, of each step or, with `whole`, in whole steps; see `step_batches`.
        stop: ends the wait for workers when it is requested, and records a `WorkerError`: an empty batch comes in place of
            the next, and no more. Look at it after each batch.

    Raises:
        WorkerError: while a batch is awaited: a worker died, or none returned a batch for `WORKER_SECONDS`.
    """
    if not 0 <= start <= len(dataset):
        raise ValueError(f"start is {start}; it must be 0 to {len(dataset)}, the samples of an epoch.")
    # Records of one video (forward and reversed) stay in one batch, unless weights draw them one by one.
    together = 1 if balance else dataset.per_video
    weights = balanced_weights(dataset.records) if balance else None
    if indices is None:
        keys = epoch_keys(len(dataset), epoch, seed=seed, shuffle=shuffle, together=together, weights=weights)
    else:
        keys = [(epoch, index) for index in indices]
    loader = _VideoLoader(
        _NotingDataset(dataset, num_workers) if num_workers else dataset,  # type: ignore[arg-type]
        batch_sampler=step_batches(keys[start:], batch_size, share, together=together, whole=whole),
        num_workers=num_workers,
        prefetch_factor=_PREFETCHED if num_workers else None,
        timeout=WORKER_SECONDS if num_workers else 0,  # PyTorch rejects a timeout without workers
        worker_init_fn=_start_worker,
        collate_fn=_collate_readable,
        pin_memory=torch.cuda.is_available(),
    )
    loader.bad, loader.stop = bad, stop
    return loader


def _collate_readable(
    samples: Sequence[Sample | BadVideo],
) -> tuple[list[Any], list[BadVideo], list[tuple[FileKey, PacketIndex]]]:
    bad = [sample for sample in samples if isinstance(sample, BadVideo)]
    batches = collate([sample for sample in samples if isinstance(sample, Sample)])
    # Tensors are sent through shared memory. One that does not fit is lost, and the training process waits for it.
    sent = batches if _fit_shared_memory(batches) else [[tensor.numpy() for tensor in batch] for batch in batches]
    return sent, bad, CACHE.take_new()


def _fit_shared_memory(batches: Sequence[Batch]) -> bool:
    """Return whether batches like these, as many as all workers hold ready, fit into what is left of the shared memory."""
    worker = get_worker_info()
    left = _shared_memory_left() if worker else None
    if worker is None or left is None:
        return True
    num_bytes = sum(tensor.nbytes for batch in batches for tensor in batch)
    return num_bytes * _PREFETCHED * worker.num_workers <= left


def _shared_memory_left() -> int | None:
    """Return the bytes that are free in Linux's shared memory, of which Docker gives a container 64 MB; None elsewhere."""
    try:
        disk = os.statvfs("/dev/shm")
    except (AttributeError, OSError):
        return None
    return disk.f_bavail * disk.f_frsize
