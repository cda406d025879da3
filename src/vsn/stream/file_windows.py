"""Read the windows of a file for scoring elsewhere. Needs no model: the service does it in worker processes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vsn.config import LiveConfig, Recipe, WindowConfig
from vsn.stream.collect import WindowCollector, images_of, window_views
from vsn.stream.grid import FrameFilter, WindowGrid
from vsn.stream.plan import longest_still, plan_grid, spread, window_processor
from vsn.stream.reader import LiveReader
from vsn.stream.source import Source


@dataclass(frozen=True)
class FileWindows:
    """The windows of a file, as a model takes them."""

    grid: WindowGrid
    seconds: float
    """Duration that was read."""
    parts: tuple[tuple[float, float], ...]
    """Start and end of each part; no window spans a break between two (see `Source.frames`)."""
    numbers: tuple[int, ...]
    """Number of each window on the grid, ascending."""
    clips: tuple[np.ndarray, ...]
    """Of each window, uint8 ``(crops, T, C, h, w)``."""


def read_windows(
    path: Path, recipe: Recipe, *, seconds: float | None, max_windows: int, video_seconds: float
) -> FileWindows:
    """Read the windows of `vsn predict --windows`, further apart where there would be more than `max_windows`.

    Windows last `seconds`, by default as long as training clips; `video_seconds` is the duration of the video.

    Raises:
        VideoError: the file cannot be opened, or no frame decodes.
        TooShortWindowError: a window is too short for the consecutive frames of one instant.
    """
    processor, live = window_processor(recipe), LiveConfig(fast=True)
    num_frames, num_consecutive = processor.num_frames, recipe.model.num_consecutive
    source = Source(path, live)
    try:
        grid, _ = plan_grid(recipe, WindowConfig(seconds=seconds), source, num_frames=num_frames)
    except BaseException:
        source.close()
        raise
    grid = spread(grid, max_windows=max_windows, video_seconds=video_seconds)
    # The same reader and collector as in `vsn stream`, so that the timelines of both are equal.
    collector, numbers, clips = WindowCollector(grid, num_consecutive), list[int](), list[np.ndarray]()
    reader = LiveReader(
        source,
        live,
        short_side=recipe.clip.short_side,
        wanted=FrameFilter(grid, num_consecutive),
        longest_still=longest_still(grid, source.frames_per_second),
    )
    try:
        while (frames := reader.take()) is not None:
            for frame in frames:
                # Durations may understate the video: never return more than `max_windows`.
                for window, stacks in collector.feed(frame)[: max_windows - len(clips)]:
                    numbers.append(window)
                    clips.append(window_views([images_of(stack) for stack in stacks], processor))
    finally:
        reader.close()
    return FileWindows(grid, reader.seconds, tuple(reader.parts), tuple(numbers), tuple(clips))
