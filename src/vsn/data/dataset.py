"""Record -> indices -> frames -> clip, and the loaders that batch clips.

Whatever is random about a sample depends on (seed, epoch, index) alone: not on the number of
workers, the order of loading, or what was loaded before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from vsn.config import ClipSpec, FlipRule, FrameOrder, Protocol
from vsn.data.decode import VideoError, read_all_frames, read_frames
from vsn.data.records import RecordSet, VideoRecord, has_side, opposite_labels
from vsn.data.sampling import frame_order, segment_indices
from vsn.data.transforms import flip as flip_frames
from vsn.data.transforms import multiscale_corner_crop, test_view
from vsn.interrupt import interrupts_blocked


class Sample(NamedTuple):
    """A clip, uint8 `(T, C, H, W)`, its label, and the index of its record."""

    clip: torch.Tensor
    label: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks a sample for


class Batch(NamedTuple):
    """Clips of one size, uint8 `(B, T, C, H, W)`, with labels and record indices, int64 `(B,)`."""

    clips: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor


class VideoDataset(Dataset[Sample]):
    """Clips of the records of a split.

    `train=True`: random frames of each segment, a random crop resized to `clip.crop_size`, flips by
    the rule `flip`. Otherwise the segments' centres under `protocol`, without randomness (but for
    `order="shuffled"`, which depends on the seed). `order` rearranges the sampled frames. Records that
    show the same video share what is drawn for it: a clip and its reversed copy are the same pixels.

    `cache="memory"` keeps every video, decoded and resized, in this process; the copies of worker
    processes would each fill a cache of their own, so it goes with `num_workers=0`.

    A video that cannot be read raises `VideoError`; it is never replaced by another.
    """

    def __init__(
        self,
        records: RecordSet,
        *,
        clip: ClipSpec,
        num_frames: int,
        train: bool,
        flip: FlipRule = "never",
        protocol: Protocol = "fcn",
        order: FrameOrder = "forward",
        seed: int = 0,
        cache: Literal["none", "memory"] = "none",
    ) -> None:
        if num_frames < 1:
            raise ValueError(f"num_frames is {num_frames}; a clip has at least one frame.")
        self.records = records.records
        self.classes = records.classes
        self.per_video = records.per_video
        self.clip = clip
        self.num_frames = num_frames
        self.train = train
        self.protocol = protocol
        self.order = order
        self.seed = seed
        self.cache = cache
        self._flipped_labels = flipped_labels(self.classes, flip) if train else {}
        self._frames: dict[Path, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """The sample of `(epoch, index)`; a plain index is one of epoch 0. Raises `VideoError`."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self.records):
            raise IndexError(f"index {index} of a data set of {len(self.records)} videos.")
        record = self.records[index]
        video = index // self.per_video
        # Frames draw from a stream of their own: how often they are asked for changes no crop.
        generator = np.random.default_rng([self.seed, epoch, video, 0])
        images = self._sampled_frames(record, (self.seed, epoch, video, 1))
        frames = torch.from_numpy(images).permute(0, 3, 1, 2)
        if self.order != "forward":
            frames = frames[torch.from_numpy(frame_order(self.num_frames, self.order, generator))]
        label = record.label
        if self.train:
            frames = multiscale_corner_crop(frames, self.clip, generator)
            if generator.random() < 0.5 and label in self._flipped_labels:
                frames, label = flip_frames(frames), self._flipped_labels[label]
        else:
            frames = test_view(frames, self.clip, self.protocol)
        return Sample(frames.contiguous(), label, index)

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[Sample | VideoError]:
        """Samples of many keys, errors as values: a `DataLoader` asks so, and its workers raise text only."""
        samples: list[Sample | VideoError] = []
        for key in keys:
            try:
                samples.append(self[key])
            except VideoError as error:
                samples.append(VideoError(error.path, error.reason))  # a fresh one: no traceback to pickle
        return samples

    def preload(self, *, num_threads: int = 4, progress: Callable[[int, int], None] | None = None) -> None:
        """Fill the memory cache now; `progress(videos_done, videos_in_all)` is called after each video.

        Raises `VideoError` for the first video found bad, and `ValueError` unless `cache="memory"`.
        """
        if self.cache != "memory":
            raise ValueError(f'cache is {self.cache!r}, so there is none to fill; pass cache="memory".')
        paths = list(dict.fromkeys(record.path for record in self.records if record.path not in self._frames))
        with ThreadPoolExecutor(num_threads) as pool:
            jobs = [pool.submit(self._cached_frames, path) for path in paths]
            try:
                for num_done, job in enumerate(as_completed(jobs), 1):
                    job.result()
                    if num_done == min(8, len(jobs)):
                        self._check_memory(len(paths))
                    if progress is not None:
                        progress(num_done, len(jobs))
            finally:
                pool.shutdown(cancel_futures=True)

    def _check_memory(self, num_videos: int) -> None:
        """Raise `ValueError` when all videos, if like those decoded so far, would not fit in memory."""
        if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
            return
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        frames = list(self._frames.values())
        needed = num_videos * sum(video.nbytes for video in frames) / len(frames)
        if needed > 0.8 * there:
            raise ValueError(
                f"The decoded frames of {num_videos} videos would take about {needed / 1e9:.0f} GB of the "
                f"{there / 1e9:.0f} GB there are. Set data.cache = 'none' and data.num_workers to 1 or more."
            )

    def _sampled_frames(self, record: VideoRecord, seed: tuple[int, ...]) -> np.ndarray:
        """Sampled frames at the spec's shorter side, uint8 `(T, H, W, C)`."""

        def choose(num_video_frames: int) -> np.ndarray:
            generator = np.random.default_rng(seed) if self.train else None
            indices = segment_indices(num_video_frames, self.num_frames, generator)
            # The same frames both ways, so that nothing but their order can tell the two apart.
            return indices[::-1] if record.reverse else indices

        if self.cache == "memory":
            frames = self._cached_frames(record.path)
            sampled: np.ndarray = frames[choose(len(frames))]
            return sampled
        return read_frames(record.path, choose, short_side=self.clip.short_side)

    def _cached_frames(self, path: Path) -> np.ndarray:
        if path not in self._frames:
            self._frames[path] = read_all_frames(path, short_side=self.clip.short_side)
        return self._frames[path]


def flipped_labels(classes: Sequence[str], rule: FlipRule) -> dict[int, int]:
    """Label -> label of the flipped clip, for the labels that the rule lets flip.

    random: all labels, unchanged; never: none; auto: those whose name has no side; swap: those and,
    exchanged, the ones whose opposite is a class.
    """
    match rule:
        case "never":
            return {}
        case "random":
            return {label: label for label in range(len(classes))}
        case "auto" | "swap":
            plain = {label: label for label, name in enumerate(classes) if not has_side(name)}
            return plain | opposite_labels(classes) if rule == "swap" else plain
    raise ValueError(f"the flip rule is {rule!r}; it is auto, random, never or swap.")


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
            torch.tensor([sample.label for sample in group]),
            torch.tensor([sample.index for sample in group]),
        )
        for group in groups.values()
    ]


class EpochSampler(Sampler[tuple[int, int]]):
    """Keys `(epoch, index)` of one epoch, each index once; the order depends on (seed, epoch) alone.

    Every `together` indices in a row stay side by side when the rest is shuffled. `start` samples are
    passed over: where an interrupted epoch goes on.
    """

    def __init__(
        self,
        num_samples: int,
        epoch: int = 0,
        *,
        seed: int = 0,
        shuffle: bool = False,
        together: int = 1,
        start: int = 0,
    ) -> None:
        if not 0 <= start <= num_samples:
            raise ValueError(f"start is {start}; it must be 0 to {num_samples}, the samples of the epoch.")
        if together < 1 or num_samples % together:
            raise ValueError(
                f"together is {together}; it must divide the {num_samples} samples of the epoch."
            )
        self.num_samples = num_samples
        self.epoch = epoch
        self.seed = seed
        self.shuffle = shuffle
        self.together = together
        self.start = start

    def __len__(self) -> int:
        return self.num_samples - self.start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        groups = np.arange(self.num_samples).reshape(-1, self.together)
        if self.shuffle:
            groups = np.random.default_rng([self.seed, self.epoch]).permutation(groups)
        return iter([(self.epoch, index) for index in groups.ravel()[self.start :].tolist()])


class _VideoLoader(DataLoader[Any]):
    """A `DataLoader` that raises the `VideoError` of a worker as it was, not its traceback as text."""

    def __iter__(self) -> Any:
        with interrupts_blocked():  # workers inherit it: Ctrl-C is the training process's to handle
            loading = super().__iter__()
        for batches in loading:
            if isinstance(batches, VideoError):
                raise batches
            yield batches


def make_loader(
    dataset: VideoDataset,
    *,
    batch_size: int,
    num_workers: int,
    epoch: int = 0,
    shuffle: bool,
    seed: int = 0,
    start: int = 0,
) -> DataLoader[Any]:
    """A loader of one epoch that yields `list[Batch]`, `batch_size` samples at a time.

    The last batch may be smaller; no sample is dropped or repeated. A video that cannot be read
    raises its `VideoError` here, from workers too. Samples are the same for any `num_workers`;
    PyTorch itself keeps every worker to one thread.
    """
    sampler = EpochSampler(
        len(dataset), epoch, seed=seed, shuffle=shuffle, together=dataset.per_video, start=start
    )
    return _VideoLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=_collate_or_error,
        pin_memory=torch.cuda.is_available(),
    )


def _collate_or_error(samples: Sequence[Sample | VideoError]) -> list[Batch] | VideoError:
    error = next((sample for sample in samples if isinstance(sample, VideoError)), None)
    return error or collate([sample for sample in samples if not isinstance(sample, VideoError)])
