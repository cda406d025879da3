"""Windows of a video that is read as it comes: which runs have them, where they lie, and the frames of each.

No network here: the service finds windows in processes that have none.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vsn.config import ConfigError, LiveConfig, Protocol, Recipe, WindowConfig
from vsn.data.readers import read_records
from vsn.data.sampling import DENSE_WINDOW
from vsn.data.transforms import planar, stack_channels
from vsn.data.video import VideoError, open_video
from vsn.data.views import PROTOCOLS, crop_views, frames_of
from vsn.stream.reader import LiveFrame, LiveReader
from vsn.stream.source import USUAL_RATE, Source, file_source
from vsn.stream.windows import GridWalk, WindowGrid

_POLL_SECONDS = 0.2

Stack = tuple[LiveFrame, ...]
"""What is seen of an instant: the frame on display, and of differences those that follow it, one by one."""


def check_windows(recipe: Recipe, protocol: Protocol | None = None) -> Protocol:
    """The protocol by which a run's windows are looked at, the run's own by default.

    Raises:
        ConfigError: a run on flow, or one that gives several labels, or a protocol that looks at several
            clips of a video, or at more frames than the model takes.
    """
    if recipe.model.modality == "flow":
        raise ConfigError(
            "The run looks at flow, which takes longer to compute than to watch; windows are scored by runs on RGB frames "
            "or their differences (model.modality 'rgb' and 'rgbdiff'). Take such a run, or `vsn predict` for single clips."
        )
    if recipe.data.task == "multilabel":
        raise ConfigError("The run gives several labels a video; windows are scored by runs that give one (data.task).")
    chosen: Protocol = protocol or recipe.eval.protocol
    if PROTOCOLS[chosen].clips != "one":
        one = ", ".join(name for name, plan in PROTOCOLS.items() if plan.clips == "one" and not plan.num_frames)
        raise ConfigError(
            f"Protocol {chosen!r} looks at several clips of a video, and a window is one; choose one of "
            f"{one} with --protocol."
        )
    window_num_frames(recipe, chosen)
    return chosen


def window_num_frames(recipe: Recipe, protocol: Protocol) -> int:
    """T of a window. Raises `ConfigError` where the protocol's is not the model's."""
    return frames_of(protocol, recipe.model.num_frames, any_num_frames=recipe.model.any_num_frames)


def plan_grid(recipe: Recipe, windows: WindowConfig, source: Source, *, num_frames: int) -> tuple[WindowGrid, str]:
    """Where the windows of a source lie, and where their length comes from, in words.

    Raises:
        ConfigError: `every_frames` of a source whose rate is unknown.
        TooShortWindowError: windows without room for the frames of one instant.
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
    tail = (recipe.model.num_consecutive - 1) / (rate or USUAL_RATE)
    if tail >= seconds:
        raise TooShortWindowError(
            f"A window of {seconds:.2f} seconds ({why}) is too short: the run sees {recipe.model.num_consecutive} frames "
            f"in a row at each instant, {tail:.2f} seconds at {rate or USUAL_RATE:g} frames a second. Give longer ones "
            "with --seconds, or a source of more frames a second."
        )
    return WindowGrid.of(seconds, num_frames, every, tail=tail), why


class TooShortWindowError(ConfigError):
    """Windows that have no room for the frames of one instant."""


class WantedFrames:
    """Asked of each frame in turn, by its end: whether some window has it."""

    def __init__(self, grid: WindowGrid, num_consecutive: int) -> None:
        self._walk, self._count, self._left = GridWalk(grid), num_consecutive, 0

    def __call__(self, end: float) -> bool:
        """Whether it is one of the `num_consecutive` frames from an instant on."""
        if self._walk.take(end):
            self._left = self._count
        self._left -= 1
        return self._left >= 0


class WindowFinder:
    """Frames in, as they come, and the windows out that are complete with them. None reaches across a break.

    The `num_consecutive` frames of an instant follow each other in the source. Where one of them was dropped, they
    begin anew with the next that came.
    """

    def __init__(self, grid: WindowGrid, num_consecutive: int = 1) -> None:
        self._grid, self._walk, self._count = grid, GridWalk(grid), num_consecutive
        self._at: dict[int, Stack] = {}
        self._open: list[tuple[list[int], list[LiveFrame]]] = []
        self._next = 0
        self.part = 0

    def feed(self, frame: LiveFrame) -> list[tuple[int, list[Stack]]]:
        """Number and frames of each window that is complete with this frame, which comes after those before."""
        steps = self._walk.take(frame.end)
        if frame.part != self.part:
            self.part = frame.part
            self._at.clear()
            self._open.clear()
        if frame.number != self._next:
            steps = [step for of_stack, _ in self._open for step in of_stack] + steps
            self._open.clear()
        self._next = frame.number + 1
        if steps:
            self._open.append((steps, []))
        for _, stack in self._open:
            stack.append(replace(frame, picture=None))
        complete: list[tuple[int, list[Stack]]] = []
        while self._open and len(self._open[0][1]) == self._count:
            done, stack = self._open.pop(0)
            complete += self._completed(done, tuple(stack))
        return complete

    def _completed(self, steps: list[int], stack: Stack) -> Iterator[tuple[int, list[Stack]]]:
        for step in steps:
            self._at[step] = stack
            window = self._grid.window_of(step)
            if window is None or self._grid.steps_of(window)[0] not in self._at:
                continue
            of_window = self._grid.steps_of(window)
            yield window, [self._at[one] for one in of_window]
            self._at = {one: kept for one, kept in self._at.items() if one >= of_window[0]}


def window_views(stacks: Sequence[np.ndarray], recipe: Recipe, protocol: Protocol) -> Tensor:
    """The crops of a window: uint8 ``(crops, T, C, h, w)``, as the run's model takes them.

    Args:
        stacks: what is seen of each instant, uint8 ``(n, H, W, 3)``: n is 1, or L + 1 of differences.
        recipe: the run's.
        protocol: which crops.
    """
    frames = torch.from_numpy(np.concatenate(stacks)).permute(0, 3, 1, 2)
    crops = crop_views(frames, recipe.clip, protocol, recipe.model.modality)
    return planar(torch.stack([stack_channels(crop, len(stacks)) for crop in crops]))


def images_of(stack: Stack) -> np.ndarray:
    """The images of an instant: uint8 ``(n, H, W, 3)``."""
    return np.stack([frame.image for frame in stack])


@dataclass(frozen=True)
class FileWindows:
    """The windows of a file, as a network takes them.

    Attributes:
        grid: where they lie.
        seconds: how far the file was read.
        numbers: of each window on the grid, in order.
        clips: of each, uint8 ``(crops, T, C, h, w)``.
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
        TooShortWindowError: a window has no room for the frames of one instant.
    """
    protocol, live = check_windows(recipe), LiveConfig(fast=True)
    source = Source(file_source(path), live)
    try:
        num_frames = window_num_frames(recipe, protocol)
        grid, _ = plan_grid(recipe, WindowConfig(seconds=seconds), source, num_frames=num_frames)
    except BaseException:
        source.close()
        raise
    grid = spread(grid, max_windows=max_windows, video_seconds=max(video_seconds, source.announced_seconds or 0.0))
    count = recipe.model.num_consecutive
    reader = LiveReader(source, live, short_side=recipe.clip.short_side, wanted=WantedFrames(grid, count))
    finder, numbers, clips = WindowFinder(grid, count), list[int](), list[np.ndarray]()
    try:
        while (frames := reader.take(_POLL_SECONDS)) is not None:
            for frame in frames:
                for window, members in finder.feed(frame)[: max_windows - len(clips)]:
                    numbers.append(window)
                    images = [images_of(stack) for stack in members]
                    clips.append(window_views(images, recipe, protocol).numpy())
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


DEFAULT_SECONDS = 4.0
"""Where nothing tells."""


NUM_PROBED = 25


def window_seconds(recipe: Recipe, frames_per_second: float) -> tuple[float, str]:
    """Seconds of a window, and where they come from, in words.

    Clips of T frames at a rate, and dense ones (64 frames), have their length by their sampling; where several
    frames are seen of each (differences), those after the last come on top. Where a clip
    is the whole video it is the median length of 25 training videos, evenly spread over the list, if the
    data set is still where the run found it; else 4 seconds.

    Args:
        recipe: the run's.
        frames_per_second: of what is looked at; 0.0 when unknown.
    """
    clip, num_frames = recipe.clip, recipe.model.num_frames
    more = recipe.model.num_consecutive - 1
    if clip.sampling == "rate":
        seconds = num_frames / clip.frames_per_second + (more / frames_per_second if frames_per_second else 0)
        return seconds, f"{num_frames} frames at {clip.frames_per_second:g} a second, as in training"
    if clip.sampling == "dense" and frames_per_second:
        count = DENSE_WINDOW + more
        return count / frames_per_second, f"{count} frames, as in training"
    lengths = _training_lengths(recipe)
    if lengths:
        return statistics.median(lengths), f"the median length of {len(lengths)} training videos"
    return DEFAULT_SECONDS, "the default: the training videos are not at hand; --seconds states their length"


def trained_seconds(recipe: Recipe) -> float | None:
    """Seconds of a window, whatever is looked at; None where that depends on its frames."""
    by_frames = recipe.clip.sampling == "dense" or (recipe.clip.sampling == "rate" and recipe.model.num_consecutive > 1)
    return None if by_frames else window_seconds(recipe, 0.0)[0]


def _training_lengths(recipe: Recipe) -> list[float]:
    try:
        records = read_records(recipe.data, recipe.data.train_split).records
    except (ConfigError, OSError):
        return []
    count = min(NUM_PROBED, len(records))
    lengths = []
    for place in range(count):
        path = records[place * len(records) // count].path
        try:
            video = open_video(path, frame_template=recipe.data.frame_template)
        except (VideoError, ConfigError):
            continue
        if video.frames_per_second:
            lengths.append(video.num_frames / video.frames_per_second)
    return lengths
