"""Turn the logits of consecutive windows into labels that do not flicker."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsn.config import WindowConfig
from vsn.scores.calibrate import UNKNOWN, Calibration, calibrated_probabilities
from vsn.stream.grid import WindowGrid


@dataclass(frozen=True)
class WindowPrediction:
    """The label of one window."""

    start: float
    """Seconds of the video."""
    end: float
    """Seconds; the last frame of the window is displayed half a frame interval earlier."""
    label: str
    """A class name, or "unknown"."""
    probability: float
    """Smoothed probability of that class; for "unknown" that of the most probable class."""
    smoothed: NDArray[np.float64]
    """Of all classes, after calibration and smoothing, ``(num_classes,)``."""
    lag_ms: float
    """From the arrival of the window's last frame to the prediction."""


class WindowLabeler:
    """Calibrate, smooth and label windows in order.

    Smoothing is an exponential mean m in time: ``m + (1 - exp(-every / smooth)) (p - m)``. Labels have hysteresis: the
    most probable class starts at `enter` and lasts until its mean falls below `leave` or another class starts.

    A calibration sets the temperature, and the threshold of "unknown" where `config.unknown` is None.
    """

    def __init__(
        self, classes: Sequence[str], config: WindowConfig, grid: WindowGrid, calibration: Calibration | None = None
    ) -> None:
        self.classes = tuple(classes)
        threshold = calibration.threshold if calibration else None
        # A label below the threshold of "unknown" would contradict it, so `enter` and `leave` are at least that.
        unknown = config.unknown if config.unknown is not None else threshold or 0.0
        self._enter, self._leave = max(config.enter, unknown), max(config.leave, unknown)
        self._grid, self._smooth = grid, config.smooth
        self._temperature = calibration.temperature if calibration else 1.0
        self.reset()

    def reset(self) -> None:
        """Forget earlier windows."""
        self._mean: NDArray[np.float64] | None = None
        self._current: int | None = None
        self._window: int | None = None

    def predict(self, window: int, logits: NDArray[np.floating], *, lag_ms: float = 0.0) -> WindowPrediction:
        """Label a window that follows earlier ones; some may have been skipped."""
        num_windows = 1 if self._window is None else window - self._window
        self._window = window
        probabilities = calibrated_probabilities(logits, self._temperature)
        label, probability, smoothed = self.update(probabilities, num_windows=num_windows)
        return WindowPrediction(*self._grid.interval(window), label, probability, smoothed, lag_ms)

    def update(
        self, probabilities: NDArray[np.floating], *, num_windows: int = 1
    ) -> tuple[str, float, NDArray[np.float64]]:
        """Return label, its smoothed probability, and those of all classes, `num_windows` after the last window."""
        # Double precision: a mean over hours must not drift.
        now = np.asarray(probabilities, np.float64)
        # A skipped window lets more time pass: the mean then moves further.
        share = 1.0 if self._smooth == 0 else -math.expm1(-num_windows * self._grid.every / self._smooth)
        self._mean = now.copy() if self._mean is None else self._mean + share * (now - self._mean)
        # Hysteresis: without the gap between enter and leave a probability near the limit would switch a label on and off.
        best = int(self._mean.argmax())
        if self._mean[best] >= self._enter:
            self._current = best
        elif self._current is not None and self._mean[self._current] < self._leave:
            self._current = None
        shown = best if self._current is None else self._current
        label = UNKNOWN if self._current is None else self.classes[shown]
        return label, float(self._mean[shown]), self._mean.copy()
