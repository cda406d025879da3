"""Batches of clips: the order of an epoch, and the loaders that read it."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from vsn.data.dataset import BadVideo, Sample, VideoDataset
from vsn.data.records import VideoRecord
from vsn.data.video import VideoError
from vsn.system.interrupt import interrupts_blocked

WORKER_SECONDS = 600
"""After so long without a batch the workers are taken to hang."""


class Batch(NamedTuple):
    """Clips of one size, uint8 `(B, T, C, H, W)`, stacked targets, record indices, int64 `(B,)`."""

    clips: torch.Tensor
    targets: torch.Tensor
    indices: torch.Tensor


def collate(samples: Sequence[Sample]) -> list[Batch]:
    """Stack samples, one `Batch` for each clip size, in the order in which sizes come.

    Usually there is one; whole frames (protocol "fcn") of videos with different aspects give several.
    """
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


class EpochSampler(Sampler[tuple[int, int]]):
    """Keys `(epoch, index)` of one epoch; the order depends on (seed, epoch) alone.

    Each index comes once, shuffled or not; every `together` indices in a row stay side by side. With
    `weights`, one for each index, as many are drawn with replacement, in proportion to them. `start`
    samples are passed over: where an interrupted epoch goes on.
    """

    def __init__(
        self,
        num_samples: int,
        epoch: int = 0,
        *,
        seed: int = 0,
        shuffle: bool = False,
        together: int = 1,
        weights: np.ndarray | None = None,
        start: int = 0,
    ) -> None:
        if not 0 <= start <= num_samples:
            raise ValueError(f"start is {start}; it must be 0 to {num_samples}, the samples of the epoch.")
        if together < 1 or num_samples % together:
            raise ValueError(f"together is {together}; it must divide the {num_samples} samples of the epoch.")
        if weights is not None and (len(weights) != num_samples or together > 1 or not shuffle):
            raise ValueError(
                f"{len(weights)} weights came for {num_samples} samples (together {together}, shuffle {shuffle}); "
                "one is needed for each sample, with shuffle and together = 1."
            )
        self.num_samples = num_samples
        self.epoch = epoch
        self.seed = seed
        self.shuffle = shuffle
        self.together = together
        self.weights = weights
        self.start = start

    def __len__(self) -> int:
        return self.num_samples - self.start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        if self.weights is not None:
            shares = self.weights / self.weights.sum()
            order = generator.choice(self.num_samples, size=self.num_samples, p=shares)
        else:
            groups = np.arange(self.num_samples).reshape(-1, self.together)
            order = (generator.permutation(groups) if self.shuffle else groups).ravel()
        return iter([(self.epoch, index) for index in order[self.start :].tolist()])


class Share(NamedTuple):
    """Which process of how many reads, and in how many parts it takes what falls to it of a step."""

    process: int = 0
    num_processes: int = 1
    parts: int = 1


class StepSampler(Sampler[list[tuple[int, int]]]):
    """What one process reads of each step: keys of an epoch, `batch_size` a step over all processes.

    A step is cut into `share.parts`, each of them over the processes, into runs as equal as can be;
    `together` keys in a row are never cut apart. A process's parts of a step come in a row, longest
    first. Every process gets as many steps, of which a short last one may leave it none.
    With `whole=True` processes take whole steps by turns instead, so that batches are the same for any
    number of them: for evaluation.
    """

    def __init__(
        self,
        keys: EpochSampler,
        batch_size: int,
        share: Share = Share(),  # noqa: B008  (immutable)
        *,
        whole: bool = False,
    ) -> None:
        if not 0 <= share.process < share.num_processes or share.parts < 1 or batch_size < 1:
            raise ValueError(
                f"{share}, batch_size {batch_size}: process must be 0 to num_processes - 1, parts and batch_size 1 or more."
            )
        self.keys = keys
        self.batch_size = batch_size
        self.share = share
        self.whole = whole

    def __len__(self) -> int:
        steps = -(-len(self.keys) // self.batch_size)
        return len(range(self.share.process, steps, self.share.num_processes)) if self.whole else steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        keys = list(self.keys)
        steps = [keys[i : i + self.batch_size] for i in range(0, len(keys), self.batch_size)]
        if self.whole:
            return iter(steps[self.share.process :: self.share.num_processes])
        return iter([self._share_of(step) for step in steps])

    def _share_of(self, step: list[tuple[int, int]]) -> list[tuple[int, int]]:
        process, num_processes, parts = self.share
        together = self.keys.together
        units = np.arange(-(-len(step) // together))
        ours = [np.array_split(part, num_processes)[process] for part in np.array_split(units, parts)]
        return [key for i in np.concatenate(ours).tolist() for key in step[i * together : (i + 1) * together]]


def balanced_weights(records: Sequence[VideoRecord]) -> np.ndarray:
    """A weight for each record, float64 `(len(records),)`, with which every class is drawn equally often."""
    labels = np.array([record.label for record in records])
    return 1.0 / np.bincount(labels)[labels]


class _VideoLoader(DataLoader[Any]):
    """A `DataLoader` that hands on the errors of its workers: raised as they were, or collected."""

    bad: list[BadVideo] | None = None

    def check_worker_number_rationality(self) -> None:
        """PyTorch warns here, twice, of more workers than CPUs: on one CPU of our own default."""

    def __iter__(self) -> Any:
        with interrupts_blocked():  # workers inherit it: Ctrl-C is the training process's to handle
            loading = super().__iter__()
        try:
            for batches, bad in _within_limit(loading):
                if bad and self.bad is None:
                    raise VideoError(bad[0].path, bad[0].reason)
                if self.bad is not None:
                    self.bad.extend(bad)
                yield batches
        finally:
            shutdown = getattr(loading, "_shutdown_workers", None)  # none with num_workers = 0
            if shutdown is not None:
                shutdown()
            for worker in getattr(loading, "_workers", ()):
                if worker.is_alive():  # it hangs, and takes no SIGTERM
                    worker.kill()
                    worker.join()


def _within_limit(loading: Iterator[Any]) -> Iterator[Any]:
    """What a loader yields, with a word on workers that hang."""
    try:
        yield from loading
    except RuntimeError as error:
        if "timed out" not in str(error):
            raise
        raise RuntimeError(
            f"No worker has read a batch for {WORKER_SECONDS} seconds. Is a disk or network gone, or does a "
            "decoder hang on a video? `vsn data doctor` finds videos that do."
        ) from error


def _outlive_sigterm(worker: int) -> None:
    """SIGTERM, which may go to every process of a job, asks the training process to stop; its workers then end."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


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
    share: Share = Share(),  # noqa: B008  (immutable)
    whole: bool = False,
    bad: list[BadVideo] | None = None,
) -> DataLoader[Any]:
    """A loader of one epoch that yields `list[Batch]`, `batch_size` samples at a time over all processes.

    `share` and `whole` say which of them this process reads (`StepSampler`). The last batch may be
    smaller; no sample is dropped or repeated, unless `balance` draws every class equally often. A video
    that cannot be read raises its `VideoError` here, from workers too; given a list `bad`, it is appended
    there and its batch comes without it (and may be empty). Samples are the same for any `num_workers`;
    PyTorch itself keeps every worker to one thread.
    """
    sampler = EpochSampler(
        len(dataset),
        epoch,
        seed=seed,
        shuffle=shuffle,
        together=1 if balance else dataset.per_video,
        weights=balanced_weights(dataset.records) if balance else None,
        start=start,
    )
    loader = _VideoLoader(
        dataset,
        batch_sampler=StepSampler(sampler, batch_size, share, whole=whole),
        num_workers=num_workers,
        timeout=WORKER_SECONDS if num_workers else 0,
        worker_init_fn=_outlive_sigterm,
        collate_fn=_collate_good,
        pin_memory=torch.cuda.is_available(),
    )
    loader.bad = bad
    return loader


def _collate_good(samples: Sequence[Sample | BadVideo]) -> tuple[list[Batch], list[BadVideo]]:
    bad = [sample for sample in samples if isinstance(sample, BadVideo)]
    return collate([sample for sample in samples if isinstance(sample, Sample)]), bad
