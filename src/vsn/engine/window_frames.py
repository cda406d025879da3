"""Windows of a video that is read as it comes: which runs have them, where they lie, and the frames of each.

No network here: the service finds windows in processes that have none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vsn.config import ClipSpec, ConfigError, LiveConfig, Protocol, Recipe, WindowConfig
from vsn.data.live import LiveFrame, LiveReader
from vsn.data.live_source import Source, file_source
from vsn.data.transforms import planar
from vsn.data.views import PROTOCOLS, crop_views, frames_of
from vsn.engine.window_length import window_seconds
from vsn.engine.windows import GridWalk, WindowGrid

_POLL_SECONDS = 0.2


def check_windows(recipe: Recipe, protocol: Protocol | None = None) -> Protocol:
    """The protocol by which a run's windows are looked at, the run's own by default.

    Raises:
        ConfigError: a run that is not on RGB frames or gives several labels, or a protocol that looks at several
            clips of a video, or at more frames than the model takes.
    """
    if recipe.model.modality != "rgb":
        raise ConfigError(
            f"The run looks at {recipe.model.modality!r}; windows are scored by runs on RGB frames alone. "
            "Take such a run, or `vsn predict` for single clips."
        )
    if recipe.data.task == "multilabel":
        raise ConfigError(
            "The run gives several labels a video; windows are scored by runs that give one (data.task)."
        )
    chosen: Protocol = protocol or recipe.eval.protocol
    if PROTOCOLS[chosen].clips != "one":
        one = ", ".join(
            name for name, plan in PROTOCOLS.items() if plan.clips == "one" and not plan.num_frames
        )
        raise ConfigError(
            f"Protocol {chosen!r} looks at several clips of a video, and a window is one; choose one of "
            f"{one} with --protocol."
        )
    window_num_frames(recipe, chosen)
    return chosen


def window_num_frames(recipe: Recipe, protocol: Protocol) -> int:
    """T of a window. Raises `ConfigError` where the protocol's is not the model's."""
    return frames_of(protocol, recipe.model.num_frames, any_num_frames=recipe.model.any_num_frames)


def plan_grid(
    recipe: Recipe, windows: WindowConfig, source: Source, *, num_frames: int
) -> tuple[WindowGrid, str]:
    """Where the windows of a source lie, and where their length comes from, in words.

    Raises:
        ConfigError: `every_frames` of a source whose rate is unknown.
    """
    rate, every = source.frames_per_second, windows.every
    if windows.every_frames is not None:
        if not rate:
            raise ConfigError(
                f"{source.name} announces no frame rate, which every_frames counts by; give --every in seconds."
            )
        every = windows.every_frames / rate
    seconds, why = windows.seconds, "as asked"
    if seconds is None:
        seconds, why = window_seconds(recipe, rate)
    return WindowGrid.of(seconds, num_frames, every), why


class WindowFinder:
    """Frames in, as they come, and the windows out that are complete with them. None reaches across a break."""

    def __init__(self, grid: WindowGrid) -> None:
        self._grid, self._walk = grid, GridWalk(grid)
        self._at: dict[int, LiveFrame] = {}
        self.part = 0

    def feed(self, frame: LiveFrame) -> list[tuple[int, list[LiveFrame]]]:
        """Number and frames of each window that is complete with this frame, which follows those before."""
        steps = self._walk.take(frame.end)
        if frame.part != self.part:
            self.part = frame.part
            self._at.clear()
        complete = []
        for step in steps:
            self._at[step] = replace(frame, picture=None)
            window = self._grid.window_of(step)
            if window is None or self._grid.steps_of(window)[0] not in self._at:
                continue
            of_window = self._grid.steps_of(window)
            complete.append((window, [self._at[one] for one in of_window]))
            self._at = {one: kept for one, kept in self._at.items() if one >= of_window[0]}
        return complete


def window_views(images: Sequence[np.ndarray], clip: ClipSpec, protocol: Protocol) -> Tensor:
    """The crops of frames ``(H, W, 3)`` of one size: uint8 ``(crops, T, 3, h, w)``."""
    frames = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return planar(crop_views(frames, clip, protocol))


@dataclass(frozen=True)
class FileWindows:
    """The windows of a file, as a network takes them.

    Attributes:
        grid: where they lie.
        seconds: how far the file was read.
        numbers: of each window on the grid, in order.
        clips: of each, uint8 ``(crops, T, 3, h, w)``.
    """

    grid: WindowGrid
    seconds: float
    numbers: tuple[int, ...]
    clips: tuple[np.ndarray, ...]


def read_windows(
    path: Path, recipe: Recipe, *, seconds: float | None, max_windows: int, video_seconds: float
) -> FileWindows:
    """The windows of a file that `vsn predict --windows` has, further apart where there would be too many.

    Args:
        path: the file.
        recipe: of a run that has windows (`check_windows`).
        seconds: length of a window; None: that of the clips of training.
        max_windows: no more than these.
        video_seconds: about the length of the video.

    Raises:
        VideoError: it cannot be opened, or nothing of it decodes.
    """
    protocol, live = check_windows(recipe), LiveConfig(fast=True)
    source = Source(file_source(path), live)
    try:
        num_frames = window_num_frames(recipe, protocol)
        grid, _ = plan_grid(recipe, WindowConfig(seconds=seconds), source, num_frames=num_frames)
    except BaseException:
        source.close()
        raise
    grid = spread(
        grid, max_windows=max_windows, video_seconds=max(video_seconds, source.announced_seconds or 0.0)
    )
    walk = GridWalk(grid)
    reader = LiveReader(
        source, live, short_side=recipe.clip.short_side, wanted=lambda end: bool(walk.take(end))
    )
    finder, numbers, clips = WindowFinder(grid), list[int](), list[np.ndarray]()
    try:
        while (frames := reader.take(_POLL_SECONDS)) is not None:
            for frame in frames:
                for window, members in finder.feed(frame)[: max_windows - len(clips)]:
                    numbers.append(window)
                    clips.append(window_views([one.image for one in members], recipe.clip, protocol).numpy())
    finally:
        reader.close()
    return FileWindows(grid, reader.seconds, tuple(numbers), tuple(clips))


def spread(grid: WindowGrid, *, max_windows: int, video_seconds: float) -> WindowGrid:
    """The grid with its windows as much further apart as it takes for a video to have no more than `max_windows`.

    >>> spread(WindowGrid.of(4.0, 8, None), max_windows=10, video_seconds=60.0).every
    6.0
    """
    assert grid.spacing == 1
    # A window is complete half a step before it ends.
    room = (video_seconds - grid.seconds) / grid.step_seconds + 0.5
    return replace(grid, stride=max(grid.stride, math.floor(room / max_windows) + 1))
