"""Batches of clips: the order of an epoch, and the loaders that read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from vsn.data.dataset import BadVideo, Sample, VideoDataset
from vsn.data.decode import VideoError
from vsn.data.records import VideoRecord
from vsn.interrupt import interrupts_blocked


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
            raise ValueError(
                f"together is {together}; it must divide the {num_samples} samples of the epoch."
            )
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


def balanced_weights(records: Sequence[VideoRecord]) -> np.ndarray:
    """A weight for each record, float64 `(len(records),)`, with which every class is drawn equally often."""
    labels = np.array([record.label for record in records])
    return 1.0 / np.bincount(labels)[labels]


class _VideoLoader(DataLoader[Any]):
    """A `DataLoader` that hands on the errors of its workers: raised as they were, or collected."""

    bad: list[BadVideo] | None = None

    def __iter__(self) -> Any:
        with interrupts_blocked():  # workers inherit it: Ctrl-C is the training process's to handle
            loading = super().__iter__()
        for batches, bad in loading:
            if bad and self.bad is None:
                raise VideoError(bad[0].path, bad[0].reason)
            if self.bad is not None:
                self.bad.extend(bad)
            yield batches


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
    bad: list[BadVideo] | None = None,
) -> DataLoader[Any]:
    """A loader of one epoch that yields `list[Batch]`, `batch_size` samples at a time.

    The last batch may be smaller; no sample is dropped or repeated, unless `balance` draws every class
    equally often. A video that cannot be read raises its `VideoError` here, from workers too; given a
    list `bad`, it is appended there and its batch comes without it (and may be empty). Samples are the
    same for any `num_workers`; PyTorch itself keeps every worker to one thread.
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
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=_collate_good,
        pin_memory=torch.cuda.is_available(),
    )
    loader.bad = bad
    return loader


def _collate_good(samples: Sequence[Sample | BadVideo]) -> tuple[list[Batch], list[BadVideo]]:
    bad = [sample for sample in samples if isinstance(sample, BadVideo)]
    return collate([sample for sample in samples if isinstance(sample, Sample)]), bad
