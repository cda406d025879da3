"""Label frames that a program hands over one by one: OpenCV loops, ROS, GStreamer, web pages."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vsn.config import Protocol, WindowConfig
from vsn.data.video.arrays import checked_frame, resized_frame
from vsn.inference.predictor import Predictor
from vsn.scores.calibrate import Calibration
from vsn.stream.grid import FrameFilter
from vsn.stream.labels import WindowLabeler, WindowPrediction
from vsn.stream.plan import longest_still, plan_grid
from vsn.stream.reader import LiveFrame
from vsn.stream.scorer import WindowScorer
from vsn.stream.stream import WindowStream, check_calibrated_classes


@dataclass(frozen=True)
class _PushedFrames:
    """What `plan_grid` asks of a source."""

    frames_per_second: float
    name: str = "The stream"

    begins = 0.0

    def uneven_interval(self) -> float:
        return 0.0


class PushStream:
    """Windows over frames that are handed over; `vsn.Predictor.stream` makes one.

    Frames are resized and sampled as `vsn stream` does. Not for several threads at once.

    Example:
        stream = predictor.stream(seconds=2)
        while True:
            ok, frame = camera.read()  # OpenCV: BGR
            answer = stream.push(frame[..., ::-1], time.monotonic())
            if answer is not None:
                print(answer.label, answer.probability)

    Attributes:
        grid: the windows.
        description: length of the windows, and why, for display.

    Raises:
        ConfigError: a run or protocol without windows, or a calibration of other classes.
        ValueError: `fps` is not above 0.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        fps: float,
        windows: WindowConfig,
        calibration: Calibration | None = None,
        protocol: Protocol | None = None,
    ) -> None:
        if not 0 < fps < math.inf:
            raise ValueError(f"fps is {fps}; it must be above 0: about how many frames are pushed each second.")
        check_calibrated_classes(calibration, predictor.classes)
        self._scorer = WindowScorer(predictor, protocol=protocol)
        self.grid, reason = plan_grid(
            predictor.recipe,
            windows,
            _PushedFrames(fps),
            num_frames=self._scorer.num_frames,
            recorded=predictor.training_seconds,
        )
        self.description = f"Windows of {self.grid.seconds:.2f} seconds ({reason}). {self._scorer.note}"
        self._make_labeler = lambda: WindowLabeler(predictor.classes, windows, self.grid, calibration)
        self._short_side, self._fps = predictor.recipe.clip.short_side, fps
        self._longest_still = longest_still(self.grid, fps)
        self.reset()

    def reset(self) -> None:
        """Start over: the next frame is the first."""
        self._scorer.reset()
        self._windows = WindowStream(self._scorer, self.grid, self._make_labeler())
        self._is_wanted = FrameFilter(self.grid, self._scorer.num_consecutive)
        self._number = self._part = 0
        self._begin = self._last = 0.0
        self._size: tuple[int, ...] | None = None

    def push(self, frame: NDArray[np.uint8], seconds: float | None = None) -> WindowPrediction | None:
        """Take the next frame; return the prediction of the window that it completes, if it does.

        Args:
            frame: uint8 ``(H, W, 3)``, RGB: an array or a tensor, of any size, the same for all.
            seconds: when it is shown, on any clock that goes on; default: `fps` frames each second. After a gap that is
                longer than a window, windows start over, and none spans it.

        Raises:
            ValueError: another layout, type or size, or a time that is not after that of the frame before.
        """
        frame = checked_frame(frame)
        if self._size is not None and frame.shape != self._size:
            raise ValueError(
                f"Expected frames of one size, {self._size}, got {frame.shape}. Call reset() to start over."
            )
        if seconds is None:
            seconds = self._last + 1 / self._fps if self._number else 0.0
        if (self._number and not self._last < seconds < math.inf) or math.isnan(seconds):
            raise ValueError(
                f"seconds is {seconds}, and the frame before was at {self._last}; times must rise. Call reset() to start "
                "over."
            )
        if not self._number:
            self._begin = seconds
        elif seconds - self._last > self._longest_still:
            self._part += 1
        self._size, self._last = frame.shape, seconds
        # Without an image, which only some frames need.
        placed = LiveFrame(
            number=self._number,
            part=self._part,
            seconds=seconds - self._begin,
            end=seconds - self._begin + 1 / self._fps,
            image=frame,
            picture=None,
            arrived=time.perf_counter(),
        )
        self._number += 1
        if not self._is_wanted(placed):
            return None
        predictions = self._windows.feed([replace(placed, image=resized_frame(frame, self._short_side))])
        return predictions[-1] if predictions else None
