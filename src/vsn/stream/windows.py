"""Windows that slide over a video: the grid their frames lie on, and how their probabilities become one label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsn.config import WindowConfig
from vsn.scores.calibrate import UNKNOWN, Calibration, calibrated_probabilities

_EPSILON = 1e-6
"""Seconds by which a sum of durations may miss the instant it stands for."""


@dataclass(frozen=True)
class WindowGrid:
    """The instants that windows are sampled at, and which of them each window has.

    A window of S seconds has T frames, those on display in the middle of each T-th of it, as evaluation
    samples a video of S seconds. Windows begin `every` seconds apart. That is a multiple of S / T, or
    S / T is a multiple of it, so that windows that overlap share instants; instants count in steps of the smaller.

    Where a network sees several frames from an instant on (differences), those of the last instant must lie in the
    window too: its instants then divide S less the `tail`, as segments of training do.

    Attributes:
        seconds: S.
        num_frames: T.
        spacing: steps from one frame of a window to the next.
        stride: steps from one window to the next.
        tail: seconds from the first to the last frame that is seen of an instant; 0.0 of one frame.
    """

    seconds: float
    num_frames: int
    spacing: int
    stride: int
    tail: float = 0.0

    @classmethod
    def of(cls, seconds: float, num_frames: int, every: float | None, *, tail: float = 0.0) -> WindowGrid:
        """The grid whose windows are nearest to `every` seconds apart; None: as far as its instants.

        `tail` is less than `seconds`.

        >>> grid = WindowGrid.of(4.0, 8, every=1.1)
        >>> grid.every, [round(grid.instant(step), 2) for step in grid.steps_of(1)]
        (1.0, [1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75])
        """
        assert tail < seconds
        ratio = 1.0 if every is None else every * num_frames / (seconds - tail)
        spacing, stride = (1, round(ratio)) if ratio >= 1 else (round(1 / ratio), 1)
        return cls(seconds, num_frames, spacing, stride, tail)

    @property
    def step_seconds(self) -> float:
        """Seconds from one instant to the next."""
        return (self.seconds - self.tail) / (self.num_frames * self.spacing)

    @property
    def every(self) -> float:
        """Seconds from one window to the next."""
        return self.stride * self.step_seconds

    @property
    def shared(self) -> float:
        """Share of a window's instants that some window before it had."""
        return 1.0 if self.spacing > 1 else max(0, self.num_frames - self.stride) / self.num_frames

    def instant(self, step: int) -> float:
        """Seconds from the beginning of the video."""
        return self.step_seconds * (step + self.spacing / 2)

    def steps_of(self, window: int) -> range:
        """The instants of a window, counted from 0 as windows are."""
        first = window * self.stride
        return range(first, first + self.num_frames * self.spacing, self.spacing)

    def window_of(self, step: int) -> int | None:
        """The window that is complete with an instant, if there is one."""
        window, rest = divmod(step - (self.num_frames - 1) * self.spacing, self.stride)
        return window if window >= 0 and rest == 0 else None

    def is_needed(self, step: int) -> bool:
        """Whether some window has the instant; where windows leave gaps, those within have none."""
        return self.stride <= self.num_frames * self.spacing or step % self.stride < self.num_frames

    def covers(self, window: int) -> tuple[float, float]:
        """Begin and end of a window, in seconds."""
        begin = window * self.every
        return begin, begin + self.seconds


class GridWalk:
    """Hands each frame the instants it stands for: those before its end that no frame before it took.

    At a constant rate that is the frame on display. Of a frame that was dropped the next one takes the place.
    """

    def __init__(self, grid: WindowGrid) -> None:
        self.grid = grid
        self._next = 0

    def take(self, end: float) -> list[int]:
        """The needed instants of a frame that is displayed until `end`, frames coming in order."""
        first = self._next
        while self.grid.instant(self._next) < end - _EPSILON:
            self._next += 1
        return [step for step in range(first, self._next) if self.grid.is_needed(step)]


@dataclass(frozen=True)
class Answer:
    """What is said of one window.

    Attributes:
        start: seconds of the video at which the window begins.
        end: at which it ends; its last frame is shown half a frame's distance before.
        label: a class name, or "unknown".
        probability: the smoothed probability of that class; of "unknown" that of the most probable class.
        smoothed: of all classes, after calibration and smoothing, float64 ``(num_classes,)``.
        lag_ms: from the arrival of the window's last frame to the answer.
    """

    start: float
    end: float
    label: str
    probability: float
    smoothed: NDArray[np.float64]
    lag_ms: float


class Labeller:
    """Probabilities of one window after another to a label that does not flicker.

    The exponential mean m becomes ``m + (1 - exp(-every / smooth)) (p - m)``, in the time of two windows for one
    that was left out. Its most probable class begins
    at `enter` and stays until it falls below `leave`, or another begins.
    """

    def __init__(
        self, classes: Sequence[str], config: WindowConfig, *, every: float, threshold: float | None = None
    ) -> None:
        """`every` is the distance of windows in seconds, `threshold` the calibration's: `unknown`, unless stated."""
        self.classes = tuple(classes)
        unknown = config.unknown if config.unknown is not None else threshold or 0.0
        self.enter, self.leave = max(config.enter, unknown), max(config.leave, unknown)
        self._every, self._smooth = every, config.smooth
        self.reset()

    def reset(self) -> None:
        """Forget what came before."""
        self._mean: NDArray[np.float64] | None = None
        self._current: int | None = None

    def update(
        self, probabilities: NDArray[np.floating], *, windows: int = 1
    ) -> tuple[str, float, NDArray[np.float64]]:
        """The label, its smoothed probability, and those of all classes, `windows` after the last."""
        now = np.asarray(probabilities, np.float64)
        share = 1.0 if self._smooth == 0 else -math.expm1(-windows * self._every / self._smooth)
        self._mean = now.copy() if self._mean is None else self._mean + share * (now - self._mean)
        best = int(self._mean.argmax())
        if self._mean[best] >= self.enter:
            self._current = best
        elif self._current is not None and self._mean[self._current] < self.leave:
            self._current = None
        shown = best if self._current is None else self._current
        label = UNKNOWN if self._current is None else self.classes[shown]
        return label, float(self._mean[shown]), self._mean.copy()


class WindowLabels:
    """Logits of one window after another to answers: calibrated, smoothed, labeled.

    Args:
        classes: in the order of the logits.
        config: how probabilities become a label.
        grid: where the windows lie.
        calibration: temperature and threshold; None: neither.
    """

    def __init__(
        self,
        classes: Sequence[str],
        config: WindowConfig,
        grid: WindowGrid,
        calibration: Calibration | None = None,
    ) -> None:
        threshold = calibration.threshold if calibration else None
        self._labeller = Labeller(classes, config, every=grid.every, threshold=threshold)
        self._grid, self._temperature = grid, calibration.temperature if calibration else 1.0
        self._answered: int | None = None

    def reset(self) -> None:
        """Forget what came before."""
        self._labeller.reset()
        self._answered = None

    def answer(self, window: int, logits: NDArray[np.floating], *, lag_ms: float = 0.0) -> Answer:
        """The answer to a window, which follows those before; some may have been left out."""
        passed = 1 if self._answered is None else window - self._answered
        label, probability, smoothed = self._labeller.update(
            calibrated_probabilities(logits, self._temperature), windows=passed
        )
        self._answered = window
        return Answer(*self._grid.covers(window), label, probability, smoothed, lag_ms)
