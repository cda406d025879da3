"""Turn a video into the clips that a model takes in evaluation: sampling, resizing and crops as one object. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vsn.config import ConfigError, EvalConfig, Recipe
from vsn.config.recipes import recorded_recipe
from vsn.data.flow.stored import open_flow
from vsn.data.frames import Frames, stack_channels
from vsn.data.sampling import frame_order, stack_indices
from vsn.data.video import VideoReader, at_constant_rate, open_video
from vsn.data.video.arrays import ArrayReader
from vsn.data.views import PROTOCOLS, clip_indices, crop_views, num_test_frames
from vsn.system.files import write_json

PlanesOfFrames = Callable[[NDArray[np.int64], int, tuple[int, int]], Frames]
"""Indices `(clips, T)`, frames of the video, (H, W) -> planes of an extra input, uint8 `(clips, T, H, W, num_planes)`."""


class SampledFrames(NamedTuple):
    """The frames that the clips of a video show."""

    frames: Frames
    """uint8 `(clips * T * L, C, H, W)`, by clip and instant, at `clip.short_side`."""
    indices: NDArray[np.int64]
    """Of these frames in the video, `(clips, T, L)`."""
    num_video_frames: int


def open_as_in(recipe: Recipe, path: Path, *, num_threads: int = 1) -> VideoReader:
    """Open a video, or stored flow for a flow model, as a recipe reads it; see `open_video` and `open_flow`."""
    data, short_side = recipe.data, recipe.clip.short_side
    if recipe.model.modality == "flow":
        return open_flow(path, layout=data.flow_layout, short_side=short_side)
    return open_video(
        path,
        short_side=short_side,
        frame_template=data.frame_template,
        decoder=data.decoder,
        num_threads=num_threads,
    )


def sample_frames(
    video: VideoReader, recipe: Recipe, choose: Callable[[int, float], NDArray[np.int64]]
) -> SampledFrames:
    """Read the frames of a video's clips.

    Args:
        video: at `clip.short_side`.
        recipe: its table clip says how unevenly spaced frames are read.
        choose: number of frames and frames per second (0: unknown) -> indices `(clips, T, L)`. Called again for a
            damaged video, in which fewer frames decode.

    Raises:
        VideoError: it cannot be read.
    """
    even = at_constant_rate(video) if recipe.clip.by == "time" else video
    chosen: list[tuple[NDArray[np.int64], int]] = []

    def remember(num_frames: int) -> NDArray[np.int64]:
        chosen.append((choose(num_frames, even.frames_per_second), num_frames))
        return chosen[-1][0].ravel()

    frames = even.sample(remember)
    return SampledFrames(frames.transpose(0, 3, 1, 2), *chosen[-1])


class Processor:
    """The preprocessing of a model in evaluation, prediction and exported files.

    Frames are sampled as the protocol says, resized to `clip.short_side`, cropped and stacked. The model normalizes.

    Example:
        processor = vsn.Processor.load("runs/demo/vsn")
        clip = processor(frames, fps=25)  # frames: uint8 (N, H, W, 3), RGB; clip: uint8 (T, C, H, W)

    Args:
        recipe: of the run; its tables model, clip and data are used.
        view: protocol, order of frames and seed; default the recipe's table eval.

    Attributes:
        recipe: with `view` as its table eval.
        num_frames: T.

    Raises:
        ConfigError: the protocol fixes another T than the model has.
    """

    def __init__(self, recipe: Recipe, view: EvalConfig | None = None) -> None:
        self.recipe = recipe if view is None else replace(recipe, eval=view)
        self.num_frames = num_test_frames(recipe.model, self.recipe.eval.protocol)

    def __call__(
        self, frames: NDArray[np.uint8] | Iterable[NDArray[np.uint8]], *, fps: float | None = None
    ) -> NDArray[np.uint8]:
        """Return the clip of a video, uint8 ``(T, C, H, W)``; ``(views, T, C, H, W)`` if the protocol has several views.

        Args:
            frames: all frames of the video, uint8 ``(N, H, W, 3)``, RGB: an array, a CPU tensor, or a list or iterator of
                frames ``(H, W, 3)``.
            fps: frames per second; only needed for `clip.sampling` "rate".

        Raises:
            ValueError: frames of another layout or type.
            ConfigError: a model on flow or with an extra input, or `fps` is needed and missing.
        """
        return self.views(self.reader(frames, fps=fps))

    def reader(
        self, frames: NDArray[np.uint8] | Iterable[NDArray[np.uint8]], *, fps: float | None = None
    ) -> VideoReader:
        """Return frames in memory as a video at `clip.short_side`; see `__call__`."""
        recipe = self.recipe
        if recipe.model.modality == "flow" or recipe.model.extra_input:
            raise ConfigError(
                f"{recipe.model.name} takes {recipe.model.extra_input or 'optical flow'}, which is not made from frames in "
                "memory. Pass the path of a video."
            )
        if fps is None and recipe.clip.sampling == "rate":
            raise ConfigError(
                f"The model takes {recipe.clip.frames_per_second:g} frames a second, so the rate of these frames is needed: "
                "pass fps=."
            )
        if fps is not None and not 0 < fps < float("inf"):
            raise ValueError(f"fps is {fps}; it must be above 0.")
        return ArrayReader(frames, frames_per_second=fps or 0.0, short_side=recipe.clip.short_side)

    def views(
        self,
        video: VideoReader,
        *,
        planes: PlanesOfFrames | None = None,
        reverse: bool = False,
        generator: np.random.Generator | None = None,
    ) -> NDArray[np.uint8]:
        """Return the views of a video: uint8 ``(T, C, H, W)``, or ``(views, T, C, H, W)``.

        Args:
            video: at `clip.short_side`; for a flow model fields of flow.
            planes: makes the planes of the model's extra input.
            reverse: show the frames backward.
            generator: draws the order "shuffled"; default seeded with `eval.seed`.

        Raises:
            VideoError: the video cannot be read.
        """
        view = self.recipe.eval

        def choose(num_video_frames: int, rate: float) -> NDArray[np.int64]:
            indices = self.indices(num_video_frames, frames_per_second=rate)
            # The same frames forward and reversed: only their order tells the two apart.
            return indices[:, ::-1, ::-1] if reverse else indices

        frames, indices, num_video_frames = sample_frames(video, self.recipe, choose)
        if view.order != "forward":
            generator = generator or np.random.default_rng([view.seed, 0, 0, 0])
            # Rearrange segments, and keep the order within each: that of flow and differences is motion.
            order = frame_order(self.num_frames, view.order, generator)
            segments = frames.reshape(*indices.shape, *frames.shape[1:])
            frames, indices = segments[:, order].reshape(frames.shape), indices[:, order]
        frames = with_planes(frames, indices, num_video_frames, planes)
        crops = self.crops(frames.reshape(len(indices), -1, *frames.shape[1:]), num_frames=self.num_frames)
        return crops if len(crops) > 1 else crops[0]

    def indices(self, num_video_frames: int, *, frames_per_second: float = 0.0) -> NDArray[np.int64]:
        """Return which frames of a video its clips show: int64 ``(clips, T, L)``; L is 1 but for flow and differences."""
        num_consecutive = self.recipe.model.num_consecutive
        starts = clip_indices(
            self.recipe.eval.protocol, self.recipe.clip, num_video_frames, self.num_frames,
            video_rate=frames_per_second, num_consecutive=num_consecutive,
        )  # fmt: skip
        return stack_indices(starts, num_video_frames, num_consecutive)

    def crops(self, clips: Iterable[Frames], *, num_frames: int) -> NDArray[np.uint8]:
        """Crop the frames ``(T * L, C, H, W)`` of each clip: uint8 ``(views, T, L * C, h, w)``; `num_frames` is T."""
        model = self.recipe.model
        views = [
            stack_channels(crop, num_frames)
            for frames in clips
            for crop in crop_views(
                frames, self.recipe.clip, self.recipe.eval.protocol, model.modality, extra=model.extra_planes
            )
        ]
        # One memory layout for every protocol: convolutions give different last bits for another layout.
        return np.ascontiguousarray(np.stack(views) if len(views) > 1 else views[0][None])

    def to_dict(self) -> dict[str, Any]:
        """Return the settings for JSON: tables model, clip, eval and a part of data; no path of this machine."""
        tables = self.recipe.to_dict()
        return {
            # weights may name a path of that machine.
            "model": tables["model"] | {"weights": "none"},
            "clip": tables["clip"],
            # How videos are read, not where they are.
            "data": {key: tables["data"][key] for key in ("task", "frame_template", "decoder")},
            "eval": tables["eval"],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Processor:
        """Return the processor of `to_dict`. Raises `ConfigError` for settings that do not fit."""
        return cls(recorded_recipe(values, "the settings of a processor"))

    def save(self, path: Path) -> None:
        """Write ``preprocessing.json`` of a run: `describe` for people, and `to_dict` under "processor"."""
        write_json(path, self.describe() | {"processor": self.to_dict()})

    @classmethod
    def load(cls, path: str | Path) -> Processor:
        """Read the processor of a run folder, or of a file that `save` wrote.

        Raises:
            ConfigError: no such file, or another one.
        """
        path = Path(path)
        path = path / "preprocessing.json" if path.is_dir() else path
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8"))["processor"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"{path} is not the preprocessing of a run ({type(error).__name__}: {error}). Pass a run folder that this "
                "version of vsn wrote."
            ) from error

    def describe(self) -> dict[str, str]:
        """Describe what is done to a video, for people who feed the model themselves."""
        # Text rather than numbers, because users of other tools read it; `to_dict` has the numbers.
        recipe = self.recipe
        plan, crop, side = PROTOCOLS[recipe.eval.protocol], recipe.clip.crop_size, recipe.clip.short_side
        crops = {
            "whole": "every window of a crop's size in the whole frame" if plan.windows else "the whole frame",
            "center": f"one center crop of {crop}x{crop} pixels",
            "three": f"three squares of {side}x{side} pixels along the longer side",
            "ten": f"corners and center of {crop}x{crop} pixels, and their mirror images",
        }
        clips = {
            "one": "",
            "two": " of two clips: centers and beginnings of the segments",
            "dense": " of ten dense clips",
        }
        sampling = {
            "segment": "the center of each of as many equal segments of the video",
            "dense": "at equal distances in the middle 64 frames of the video",
            "rate": f"{recipe.clip.frames_per_second:g} a second, from the middle of the video",
        }
        by = "" if recipe.clip.by == "time" else ", by frame numbers also where frames are unevenly spaced in time"
        return {
            "frames": f"{recipe.model.num_frames}: {sampling[recipe.clip.sampling]}{by}",
            "resize": f"shorter side to {side} pixels, bilinear",
            "protocol": recipe.eval.protocol,
            "view": crops[plan.crops] + clips[plan.clips],
            "average": f"{recipe.eval.average} over {plan.num_views} views",
            "modality": recipe.model.modality,
            "input": f"(B, T, {recipe.model.clip_channels}, H, W), uint8 or float in [0, 1]",
            "normalization": "inside the model",
        }


def with_planes(
    frames: Frames, indices: NDArray[np.int64], num_video_frames: int, planes: PlanesOfFrames | None
) -> Frames:
    """Add the planes of an extra input to frames ``(clips * T, C, H, W)`` as their last channels."""
    if planes is None:
        return frames
    height, width = frames.shape[-2:]
    added = planes(indices[..., 0], num_video_frames, (height, width))
    return np.concatenate([frames, added.reshape(-1, *added.shape[2:]).transpose(0, 3, 1, 2)], axis=1)
