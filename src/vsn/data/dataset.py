"""Sample clips of videos: record -> indices -> frames -> clip.

For a flow model the "frames" are fields of optical flow, uint8 `(n, H, W, 2)`. All randomness of a
sample depends on (seed, epoch, index) only, not on the number of workers, the order of loading, or what
was loaded before: a resumed run sees the clips that an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from vsn.config import EvalConfig, Recipe
from vsn.data.extra import ExtraPlanes
from vsn.data.flips import flipped_labels
from vsn.data.flow.values import ZERO
from vsn.data.frames import flip as flip_frames
from vsn.data.frames import stack_channels
from vsn.data.part import VideoPart
from vsn.data.processor import Processor, SampledFrames, open_as_in, sample_frames, with_planes
from vsn.data.records import RecordSet, VideoRecord
from vsn.data.sampling import sample_indices, stack_indices
from vsn.data.transforms import augment_clip, multiscale_corner_crop
from vsn.data.video import VideoError, VideoReader, part_reader
from vsn.data.video.reader import MemoryReader
from vsn.system.limits import available_bytes


class Sample(NamedTuple):
    """A clip, uint8 `(T, C, H, W)`, its target, and the index of its record.

    A protocol with several views gives `(views, T, C, H, W)`.
    """

    clip: torch.Tensor
    target: torch.Tensor
    """The label, int64 scalar, -1 when unknown; for multi-label records float32 `(num_classes,)`, 0 or 1."""
    index: int  # type: ignore[assignment]  # hides tuple.index


class BadVideo(NamedTuple):
    """A record whose video cannot be read, and the reason."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    path: str
    reason: str


class VideoDataset(Dataset[Sample]):
    """Clips of the records of a split, made as the recipe states.

    For training: random frames of each segment, a random crop resized to `clip.crop_size`, flips by
    `data.flip`, augmentation. Otherwise: the views of a test protocol, without randomness, frames in
    `eval.order` ("shuffled" depends on the seed).

    Channels of a clip by `model.modality`, L being `model.flow_length`: "rgb" C = 3; "flow" L
    consecutive flow fields for each segment, C = 2L (x1, y1, x2, y2, ...); "rgbdiff" L + 1 consecutive
    frames, C = 3 (L + 1), which the model subtracts. Past the end of a video its last frame or field
    repeats. The planes of an extra input follow the channels of the frames (`vsn.data.extra`).

    A video that cannot be read raises `VideoError`; it is never replaced by another.

    Args:
        records: what to sample from; for a flow model the paths are those of the stored flow
            (`vsn.data.flow.find`).
        recipe: with `data.cache = "memory"` every video is kept in this process, decoded and resized.
            Worker processes would each fill their own copy: use `num_workers=0`.
        train: training clips rather than test clips.
        view: protocol, order of frames and seed of test clips; the recipe's by default.
        extra: makes the planes of the extra input that the model's clips carry.
    """

    def __init__(
        self,
        records: RecordSet,
        recipe: Recipe,
        *,
        train: bool,
        view: EvalConfig | None = None,
        extra: ExtraPlanes | None = None,
    ) -> None:
        view, model = view or recipe.eval, recipe.model
        if bool(model.extra_input) != (extra is not None):
            raise ValueError(
                f"Clips of {model.name} carry {model.extra_input or 'no extra input'}; got extra = {extra!r}. Pass what "
                "vsn.data.extra.open_extra returns."
            )
        self.records = records.records
        self.classes = records.classes
        self.per_video = records.per_video
        self.multi_label = records.multi_label
        self.recipe = recipe
        self.clip = recipe.clip
        self.train = train
        self.protocol = view.protocol
        # A protocol may fix T ("25x10"); training never does.
        self._processor = None if train else Processor(recipe, view)
        self.num_frames = model.num_frames if self._processor is None else self._processor.num_frames
        self.seed = recipe.train.seed if train else view.seed
        self._open = partial(open_as_in, recipe)
        self._extra = extra
        self._flipped_labels = flipped_labels(self.classes, recipe.data.flip) if train else {}
        self._cached: dict[VideoPart, MemoryReader | VideoError] = {}
        self._extra_bytes: dict[VideoPart, int] = {}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        """Return the sample of `(epoch, index)`; an index only means epoch 0. Raises `VideoError`."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not 0 <= index < len(self.records):
            raise IndexError(f"Expected an index from 0 to {len(self.records) - 1}, got {index}.")
        record, model = self.records[index], self.recipe.model
        # Records that show the same video share their draws: a clip and its reversed copy are the same pixels.
        video = index // self.per_video
        # Frame indices have their own generator: a damaged video draws twice, and its crops stay the same.
        generator = np.random.default_rng([self.seed, epoch, video, 0])
        labels = record.labels
        planes = None if self._extra is None else partial(self._planes, record.shown)
        if self._processor is not None:
            with self._reader(record.shown) as stored:
                views = self._processor.views(stored, planes=planes, reverse=record.reverse, generator=generator)
            return Sample(torch.from_numpy(views), self._target(labels), index)
        images = with_planes(*self._training_frames(record, (self.seed, epoch, video, 1)), planes)
        # Crop on uint8 before stacking: all frames of all segments get the same crop.
        frames = multiscale_corner_crop(torch.from_numpy(images), self.clip, generator, extra=model.extra_planes)
        # Draw first: the flip rule of a class must not change the draws that follow.
        if generator.random() < 0.5 and labels and all(label in self._flipped_labels for label in labels):
            frames = torch.from_numpy(flip_frames(frames.numpy(), model.modality, extra=model.extra_planes))
            labels = tuple(self._flipped_labels[label] for label in labels)
        # Black is a color; the erased value of flow must mean no motion.
        erased = ZERO if model.modality == "flow" else 0
        # Augmentation changes colors; points keep what else is known of them.
        colors, planes_of_crop = frames.split(
            [frames.shape[1] - len(model.extra_planes), len(model.extra_planes)], dim=1
        )
        colors = augment_clip(colors, self.recipe.augment, generator, blank=erased)
        frames = torch.cat([colors, planes_of_crop], dim=1) if model.extra_planes else colors
        # Decoded pixels are interleaved R, G, B; NumPy separates them twice as fast as `Tensor.contiguous`.
        clip = np.ascontiguousarray(stack_channels(frames.numpy(), self.num_frames))
        return Sample(torch.from_numpy(clip), self._target(labels), index)

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[Sample | BadVideo]:
        """Return the samples of a batch, errors as values: a `DataLoader` worker would reduce errors to text."""
        samples: list[Sample | BadVideo] = []
        for key in keys:
            try:
                samples.append(self[key])
            except VideoError as error:
                index = key[1] if isinstance(key, tuple) else key
                part = self.records[index].part
                path = error.path if part is None else f"{error.path}#{part}"
                samples.append(BadVideo(index, path, error.reason))
        return samples

    def preload(self, *, num_threads: int = 4, progress: Callable[[int, int], None] | None = None) -> list[VideoError]:
        """Fill the memory cache; call `progress(num_done, num_videos)` after each video.

        Returns the errors of unreadable videos; getting their samples raises them. Raises `ValueError`
        unless `data.cache` is "memory", and when the videos would not fit in memory.
        """
        if self.recipe.data.cache != "memory":
            raise ValueError(f'data.cache is {self.recipe.data.cache!r}; set it to "memory" to preload.')
        # Once for each video or segment: forward and reversed records share one.
        shown = list(dict.fromkeys(record.shown for record in self.records if record.shown not in self._cached))
        # Threads suffice: PyAV releases the GIL while it decodes.
        with ThreadPoolExecutor(num_threads) as pool:
            jobs = [pool.submit(self._fill_cache, video) for video in shown]
            try:
                for num_done, job in enumerate(as_completed(jobs), 1):
                    job.result()
                    if num_done == min(8, len(jobs)):  # estimate from the first videos, before memory runs out
                        self._check_memory(len(shown))
                    if progress is not None:
                        progress(num_done, len(jobs))
            finally:
                pool.shutdown(cancel_futures=True)
        return [error for video in shown if isinstance(error := self._cached[video], VideoError)]

    def _target(self, labels: tuple[int, ...]) -> torch.Tensor:
        if not self.multi_label:
            return torch.tensor(labels[0] if labels else -1)
        target = torch.zeros(len(self.classes))
        target[list(labels)] = 1.0
        return target

    def _training_frames(self, record: VideoRecord, seed: tuple[int, ...]) -> SampledFrames:
        """Read the frames of a random clip, see `sample_frames`."""

        def choose(num_video_frames: int, rate: float) -> np.ndarray:
            num_consecutive = self.recipe.model.num_consecutive
            starts = sample_indices(
                self.clip, num_video_frames, self.num_frames, np.random.default_rng(seed),
                video_rate=rate, num_consecutive=num_consecutive,
            )  # fmt: skip
            indices = stack_indices(starts[None], num_video_frames, num_consecutive)
            # The same frames forward and reversed: only their order tells the two apart.
            return indices[:, ::-1, ::-1] if record.reverse else indices

        with self._reader(record.shown) as stored:
            return sample_frames(stored, self.recipe, choose)

    def _planes(
        self, shown: VideoPart, indices: np.ndarray, num_video_frames: int, size: tuple[int, int]
    ) -> np.ndarray:
        assert self._extra is not None
        return self._extra.planes(shown, indices, num_video_frames=num_video_frames, size=size)

    def _reader(self, shown: VideoPart) -> VideoReader:
        """A reader of the video or segment, from memory with `data.cache = "memory"`."""
        if self.recipe.data.cache != "memory":
            return part_reader(self._open(shown.path), shown.part)
        if shown not in self._cached:
            self._fill_cache(shown)
        cached = self._cached[shown]
        if isinstance(cached, VideoError):
            raise VideoError(cached.path, cached.reason)
        return cached

    def _fill_cache(self, shown: VideoPart) -> None:
        try:
            with part_reader(self._open(shown.path), shown.part) as video:
                frames = MemoryReader(video)
            if self._extra is not None:
                self._extra_bytes[shown] = self._extra.keep(shown)
            self._cached[shown] = frames
        except VideoError as error:
            self._cached[shown] = VideoError(error.path, error.reason)  # a copy, whose traceback keeps no frames alive

    def _check_memory(self, num_videos: int) -> None:
        """Raise `ValueError` when all videos, if like those decoded so far, would not fit in memory."""
        sizes = [
            0 if isinstance(video, VideoError) else video.num_bytes + self._extra_bytes.get(shown, 0)
            for shown, video in list(self._cached.items())
        ]
        needed, available = num_videos * sum(sizes) / len(sizes), available_bytes() + sum(sizes)
        if needed > 0.8 * available:
            raise ValueError(
                f"The decoded frames of {num_videos} videos would take about {needed / 1e9:.0f} GB of the "
                f"{available / 1e9:.0f} GB of memory that are free. Set data.cache = 'none' and data.num_workers to 1 or "
                "more."
            )
