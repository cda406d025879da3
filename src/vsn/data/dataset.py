"""Record -> indices -> frames -> clip. Of a flow model the "frames" are fields of flow, uint8 `(n, H, W, 2)`.

Whatever is random about a sample depends on (seed, epoch, index) alone: not on the number of
workers, the order of loading, or what was loaded before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from vsn.config import (
    AugmentConfig,
    ClipSpec,
    Decoder,
    FlipRule,
    FlowLayout,
    FrameOrder,
    Modality,
    ModelConfig,
    Protocol,
)
from vsn.data.flips import flipped_labels
from vsn.data.flow.read import read_all_flow, read_flow
from vsn.data.flow.values import ZERO
from vsn.data.records import RecordSet, VideoRecord
from vsn.data.sampling import frame_order, sample_indices, stack_indices
from vsn.data.transforms import augment_clip, multiscale_corner_crop, planar, stack_channels
from vsn.data.transforms import flip as flip_frames
from vsn.data.video import FewerFramesError, VideoError, VideoReader, open_video
from vsn.data.video.reader import Choose
from vsn.data.views import clip_indices, crop_views, frames_of


class Sample(NamedTuple):
    """A clip, uint8 `(T, C, H, W)`, its target, and the index of its record.

    A protocol with several views gives `(views, T, C, H, W)`.
    """

    clip: torch.Tensor
    target: torch.Tensor
    """The label, int64 scalar, -1 when unknown; of multi-label records float32 `(num_classes,)`, 0 or 1."""
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks a sample for


class BadVideo(NamedTuple):
    """A record whose video could not be read, and why."""

    index: int  # type: ignore[assignment]  # hides tuple.index
    path: str
    reason: str


class VideoDataset(Dataset[Sample]):
    """Clips of the records of a split.

    `train=True`: random frames of each segment, a random crop resized to `clip.crop_size`, flips by
    the rule `flip`. Otherwise the views of `protocol` (`vsn.data.views`), without randomness (but for
    `order="shuffled"`, which depends on the seed); a model that takes any T says so by `any_num_frames`,
    as some protocols have one of their own. `order` rearranges the sampled frames; of flow and
    differences it rearranges the segments, and leaves the order within each, which is motion. Records that
    show the same video share what is drawn for it: a clip and its reversed copy are the same pixels.

    `modality` says what a clip is made of. "rgb": C = 3. "flow": `flow_length` (L) consecutive fields of
    stored flow a segment, C = 2L, channels x1, y1, x2, y2, ...; the records' paths are then those of the
    flow (`vsn.data.flow.find`). "rgbdiff": L + 1 consecutive frames, C = 3 (L + 1), which the model
    subtracts. Past the end the last field or frame is repeated. `read_fields` takes the place of reading
    stored flow: the chosen fields of a video, at the spec's shorter side.

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
        augment: AugmentConfig | None = None,
        frame_template: str = "",
        decoder: Decoder = "pyav",
        modality: Modality = "rgb",
        flow_length: int = ModelConfig.flow_length,
        flow_layout: FlowLayout = "auto",
        any_num_frames: bool = False,
        read_fields: Callable[[Path, Choose], np.ndarray] | None = None,
    ) -> None:
        if num_frames < 1:
            raise ValueError(f"num_frames is {num_frames}; a clip has at least one frame.")
        if flow_length < 1:
            raise ValueError(f"flow_length is {flow_length}; a segment has at least one field or difference.")
        self.records = records.records
        self.classes = records.classes
        self.per_video = records.per_video
        self.multi_label = records.multi_label
        self.clip = clip
        self.num_frames = num_frames if train else frames_of(protocol, num_frames, any_num_frames=any_num_frames)
        self.train = train
        self.protocol = protocol
        self.order = order
        self.seed = seed
        self.cache = cache
        self.augment = augment
        self.frame_template = frame_template
        self.decoder: Decoder = decoder
        self.modality: Modality = modality
        self.flow_layout: FlowLayout = flow_layout
        self._read_fields = read_fields
        self._per_segment = {"rgb": 1, "flow": flow_length, "rgbdiff": flow_length + 1}[modality]
        self._flipped_labels = flipped_labels(self.classes, flip) if train else {}
        self._cached: dict[Path, tuple[np.ndarray, float] | VideoError] = {}

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
            order = torch.from_numpy(frame_order(self.num_frames, self.order, generator))
            segments = frames.unflatten(0, (-1, self.num_frames, self._per_segment))
            frames = segments[:, order].flatten(0, 2)
        labels = record.labels
        if not self.train:
            return Sample(self._views(frames), self._target(labels), index)
        frames = multiscale_corner_crop(frames, self.clip, generator)
        if generator.random() < 0.5 and labels and all(label in self._flipped_labels for label in labels):
            frames = flip_frames(frames, self.modality)
            labels = tuple(self._flipped_labels[label] for label in labels)
        if self.augment is not None:
            blank = ZERO if self.modality == "flow" else 0
            frames = augment_clip(frames, self.augment, generator, blank=blank)
        return Sample(planar(stack_channels(frames, self.num_frames)), self._target(labels), index)

    def _views(self, frames: torch.Tensor) -> torch.Tensor:
        """The views of the protocol, clip by clip: `(views, T, C, H, W)`, or `(T, C, H, W)` of one alone."""
        clips = frames.unflatten(0, (-1, self.num_frames * self._per_segment))
        crops = [crop for clip in clips for crop in crop_views(clip, self.clip, self.protocol, self.modality)]
        views = [stack_channels(crop, self.num_frames) for crop in crops]
        # In one layout whatever the crops had: a network computes other last bits in another.
        return planar(torch.stack(views) if len(views) > 1 else views[0])

    def _target(self, labels: tuple[int, ...]) -> torch.Tensor:
        if not self.multi_label:
            return torch.tensor(labels[0] if labels else -1)
        target = torch.zeros(len(self.classes))
        target[list(labels)] = 1.0
        return target

    def __getitems__(self, keys: Sequence[int | tuple[int, int]]) -> list[Sample | BadVideo]:
        """Samples of many keys, errors as values: a `DataLoader` asks so, and its workers raise text only."""
        samples: list[Sample | BadVideo] = []
        for key in keys:
            try:
                samples.append(self[key])
            except VideoError as error:
                samples.append(BadVideo(key[1] if isinstance(key, tuple) else key, error.path, error.reason))
        return samples

    def preload(self, *, num_threads: int = 4, progress: Callable[[int, int], None] | None = None) -> list[VideoError]:
        """Fill the memory cache now; `progress(videos_done, videos_in_all)` is called after each video.

        Returns what could not be read; asking for its samples raises it. Raises `ValueError` unless
        `cache="memory"`.
        """
        if self.cache != "memory":
            raise ValueError(f'cache is {self.cache!r}, so there is none to fill; pass cache="memory".')
        paths = list(dict.fromkeys(record.path for record in self.records if record.path not in self._cached))
        with ThreadPoolExecutor(num_threads) as pool:
            jobs = [pool.submit(self._fill_cache, path) for path in paths]
            try:
                for num_done, job in enumerate(as_completed(jobs), 1):
                    job.result()
                    if num_done == min(8, len(jobs)):
                        self._check_memory(len(paths))
                    if progress is not None:
                        progress(num_done, len(jobs))
            finally:
                pool.shutdown(cancel_futures=True)
        return [found for path in paths if isinstance(found := self._cached[path], VideoError)]

    def _check_memory(self, num_videos: int) -> None:
        """Raise `ValueError` when all videos, if like those decoded so far, would not fit in memory."""
        if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
            return
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found = list(self._cached.values())
        sizes = [0 if isinstance(video, VideoError) else video[0].nbytes for video in found]
        needed = num_videos * sum(sizes) / len(sizes)
        if needed > 0.8 * there:
            raise ValueError(
                f"The decoded frames of {num_videos} videos would take about {needed / 1e9:.0f} GB of the "
                f"{there / 1e9:.0f} GB there are. Set data.cache = 'none' and data.num_workers to 1 or more."
            )

    def _sampled_frames(self, record: VideoRecord, seed: tuple[int, ...]) -> np.ndarray:
        """Sampled frames at the spec's shorter side, by clip and segment: uint8 `(clips * T * L, H, W, C)`."""

        def choose(num_video_frames: int, video_rate: float) -> np.ndarray:
            if self.train:
                starts = sample_indices(
                    self.clip.sampling,
                    num_video_frames,
                    self.num_frames,
                    np.random.default_rng(seed),
                    video_rate=video_rate,
                    wanted_rate=self.clip.frames_per_second,
                    num_consecutive=self._per_segment,
                )[None]
            else:
                starts = clip_indices(
                    self.protocol,
                    self.clip.sampling,
                    num_video_frames,
                    self.num_frames,
                    video_rate=video_rate,
                    wanted_rate=self.clip.frames_per_second,
                    num_consecutive=self._per_segment,
                )
            indices = stack_indices(starts, num_video_frames, self._per_segment)
            # The same frames both ways, so that nothing but their order can tell the two apart.
            flat = indices.reshape(len(starts), -1)
            return (flat[:, ::-1] if record.reverse else flat).ravel()

        if self.cache == "memory":
            frames, rate = self._cached_frames(record.path)
            sampled: np.ndarray = frames[choose(len(frames), rate)]
            return sampled
        if self._read_fields is not None:
            return self._read_fields(record.path, choose)
        if self.modality == "flow":
            return read_flow(record.path, choose, layout=self.flow_layout, short_side=self.clip.short_side)
        with self._open(record.path) as video:
            try:
                return video.frames_at(choose(video.num_frames, video.frames_per_second))
            except FewerFramesError:  # a damaged file: sample from the frames that decode
                return video.frames_at(choose(video.num_frames, video.frames_per_second))

    def _open(self, path: Path) -> VideoReader:
        return open_video(
            path, short_side=self.clip.short_side, frame_template=self.frame_template, decoder=self.decoder
        )

    def _cached_frames(self, path: Path) -> tuple[np.ndarray, float]:
        if path not in self._cached:
            self._fill_cache(path)
        found = self._cached[path]
        if isinstance(found, VideoError):
            raise VideoError(found.path, found.reason)
        return found

    def _fill_cache(self, path: Path) -> None:
        try:
            if self.modality == "flow":
                found = read_all_flow(path, layout=self.flow_layout, short_side=self.clip.short_side)
            else:
                with self._open(path) as video:
                    found = video.all_frames(), video.frames_per_second
            self._cached[path] = found
        except VideoError as error:
            self._cached[path] = VideoError(error.path, error.reason)  # a fresh one: no traceback to keep
