"""Place sliding windows on a time grid: the instants that each window samples, and the frames that show them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

_EPSILON = 1e-6
"""Seconds; a sum of frame durations may miss an instant by rounding (0.1 + 0.1 + 0.1 > 0.3)."""


@dataclass(frozen=True)
class WindowGrid:
    """The instants at which windows are sampled.

    A window of S seconds has T frames: those on display in the middle of each T-th of it, as evaluation samples a
    video of S seconds. Instants are numbered in steps, which windows share:

        S = 4, T = 4, a window every 2 seconds: spacing 1, stride 2
        step      0   1   2   3   4   5
        seconds   0.5 1.5 2.5 3.5 4.5 5.5
        window 0  x   x   x   x
        window 1          x   x   x   x

    A network on frame differences sees several consecutive frames at each instant. Those of the last instant must be
    within the window too, so its instants divide S minus the `tail`, as segments of training do.

    Attributes:
        seconds: S.
        num_frames: T.
        spacing: steps from one frame of a window to the next.
        stride: steps from one window to the next.
        tail: seconds from the first to the last frame of an instant; 0.0 for a single frame.
        frame_interval: seconds between the frames of an instant, where those of the source are unevenly spaced; 0.0:
            they are neighbors in the source.
        begins: seconds at which window 0 begins, with the first frame of the source.
    """

    seconds: float
    num_frames: int
    spacing: int
    stride: int
    tail: float = 0.0
    frame_interval: float = 0.0
    begins: float = 0.0

    @classmethod
    def of(
        cls,
        seconds: float,
        num_frames: int,
        every: float | None,
        *,
        tail: float = 0.0,
        frame_interval: float = 0.0,
        begins: float = 0.0,
    ) -> WindowGrid:
        """Return the grid whose windows start nearest to `every` seconds apart; None: as far as its instants.

        To share instants, windows are a multiple of S / T apart, or a whole fraction of it. `tail` is below `seconds`.

        >>> grid = WindowGrid.of(4.0, 8, every=1.1)
        >>> grid.every, [round(grid.instant(step), 2) for step in grid.steps_of(1)]
        (1.0, [1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75])
        """
        assert tail < seconds
        # With T = 8 and S = 4 frames are 0.5 seconds apart: `every` 1.1 becomes stride 2 (1.0 seconds), 0.2 becomes
        # spacing 2 (0.25 seconds).
        ratio = 1.0 if every is None else every * num_frames / (seconds - tail)
        spacing, stride = (1, round(ratio)) if ratio >= 1 else (round(1 / ratio), 1)
        return cls(seconds, num_frames, spacing, stride, tail, frame_interval, begins)

    @property
    def step_seconds(self) -> float:
        """Seconds from one instant to the next."""
        return (self.seconds - self.tail) / (self.num_frames * self.spacing)

    @property
    def every(self) -> float:
        """Seconds from one window to the next."""
        return self.stride * self.step_seconds

    def instant(self, step: int) -> float:
        """Seconds of a step, on the clock of the source."""
        return self.begins + self.step_seconds * (step + self.spacing / 2)

    def step_from(self, seconds: float) -> int:
        """The first step at or after a time."""
        step = max(0, math.ceil((seconds - self.begins) / self.step_seconds - self.spacing / 2) - 1)
        while self.instant(step) < seconds - _EPSILON:
            step += 1
        return step

    def steps_of(self, window: int) -> range:
        """Steps of a window, numbered from 0."""
        first = window * self.stride
        return range(first, first + self.num_frames * self.spacing, self.spacing)

    def window_of(self, step: int) -> int | None:
        """The window whose last step this is, if any."""
        # The inverse of the last of `steps_of`.
        window, rest = divmod(step - (self.num_frames - 1) * self.spacing, self.stride)
        return window if window >= 0 and rest == 0 else None

    def is_needed(self, step: int) -> bool:
        """Whether some window has the step; none has those in a gap between windows."""
        return self.stride <= self.num_frames * self.spacing or step % self.stride < self.num_frames

    def interval(self, window: int) -> tuple[float, float]:
        """Start and end of a window, in seconds."""
        start = self.begins + window * self.every
        return start, start + self.seconds


class Displayed(Protocol):
    """A frame on the screen of a source."""

    @property
    def part(self) -> int:
        """Number of breaks of the source before it."""

    @property
    def seconds(self) -> float:
        """Start of its display."""

    @property
    def end(self) -> float:
        """End of its display."""


class GridWalk:
    """Assign steps to frames in order: to each those before its end that no earlier frame took.

    At a constant rate that is the frame on display at the instant. If a frame was dropped, the next takes its steps.
    Steps of a break belong to no frame.
    """

    def __init__(self, grid: WindowGrid) -> None:
        self.grid = grid
        self._next = 0
        self._part = 0

    def take(self, frame: Displayed) -> list[int]:
        """Return the needed steps of the next frame."""
        if frame.part != self._part:
            self._part = frame.part
            self._next = max(self._next, self.grid.step_from(frame.seconds))
        # A frame that lasts long takes several steps.
        first, self._next = self._next, max(self._next, self.grid.step_from(frame.end))
        return [step for step in range(first, self._next) if self.grid.is_needed(step)]


class FrameFilter:
    """Decide for each frame of a source, in order, whether a window needs it; others need not be converted."""

    def __init__(self, grid: WindowGrid, num_consecutive: int) -> None:
        self._walk, self._num_consecutive, self._num_left = GridWalk(grid), num_consecutive, 0
        self._until = -1.0

    def __call__(self, frame: Displayed) -> bool:
        """Whether the next frame is one of the `num_consecutive` frames from an instant on."""
        # Instants closer than the frames of one restart the count: their stacks overlap.
        if steps := self._walk.take(frame):
            self._num_left = self._num_consecutive
            self._until = max(self._walk.grid.instant(steps[-1]), frame.seconds) + self._walk.grid.tail + _EPSILON
        self._num_left -= 1
        return frame.seconds <= self._until if self._walk.grid.frame_interval else self._num_left >= 0
