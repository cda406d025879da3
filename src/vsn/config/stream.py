"""Windows that slide over a long video, a camera or a stream: how long, how often, and when a label counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vsn.config.errors import require


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """Where windows lie, and how their probabilities become one label."""

    seconds: float | None = None
    """Length of a window; default that of the clips the model was trained on (docs/stream.md says how it is found)."""
    every: float | None = None
    """Seconds from one answer to the next; default the distance of a window's frames. It is rounded to a multiple of
    that distance, or a whole part of it, so that windows share frames."""
    every_frames: int | None = None
    """The same in frames of the source, at the rate that it announces."""
    smooth: float = 1.0
    """Time constant, in seconds, of the exponential mean over probabilities; 0: none."""
    enter: float = 0.5
    """Least smoothed probability at which a label begins."""
    leave: float = 0.3
    """Smoothed probability below which it ends."""
    unknown: float | None = None
    """Nothing below this probability is given a label, whatever enter and leave say; default the threshold of the
    calibration, if it has one, else 0."""

    def __post_init__(self) -> None:
        for key in ("seconds", "every"):
            value = getattr(self, key)
            require(
                value is None or (math.isfinite(value) and value >= 0.01),
                f"{key} is {value}; it must be 0.01 seconds or more.",
            )
        require(
            self.every_frames is None or self.every_frames >= 1,
            f"every_frames is {self.every_frames}; it must be 1 or more.",
        )
        require(
            self.every is None or self.every_frames is None,
            "every and every_frames say the same in two units; give one of them.",
        )
        require(
            math.isfinite(self.smooth) and self.smooth >= 0,
            f"smooth is {self.smooth}; it must be 0 seconds (no smoothing) or more.",
        )
        for key in ("enter", "leave", "unknown"):
            value = getattr(self, key)
            require(value is None or 0 <= value <= 1, f"{key} is {value}; it is a probability between 0 and 1.")
        require(
            self.leave <= self.enter,
            f"leave is {self.leave}, above enter {self.enter}: a label would end as it begins. Lower leave.",
        )


@dataclass(frozen=True, kw_only=True)
class LiveConfig:
    """How a camera, a stream or a replayed file is read."""

    fast: bool = False
    """Read a file as fast as the model goes, and leave nothing out, instead of in real time."""
    max_waiting: int = 16
    """Frames that may wait for the model (of a run on differences as many times those of an instant, unless a video is
    written); when there are more the oldest is dropped, and counted."""
    reconnects: int = 5
    """How many times in a row a connection that was lost is tried again."""
    reconnect_wait: float = 1.0
    """Seconds before the first of these; doubled each time, up to 30."""
    stall_seconds: float = 10.0
    """Seconds without data after which a connection counts as lost."""
    stop_after: float | None = None
    """Stop after so many seconds of video."""

    def __post_init__(self) -> None:
        require(self.max_waiting >= 1, f"max_waiting is {self.max_waiting}; it must be 1 or more.")
        require(self.reconnects >= 0, f"reconnects is {self.reconnects}; it must be 0 (give up at once) or more.")
        require(
            math.isfinite(self.reconnect_wait) and self.reconnect_wait >= 0,
            f"reconnect_wait is {self.reconnect_wait}; it must be 0 seconds or more.",
        )
        require(
            math.isfinite(self.stall_seconds) and self.stall_seconds > 0,
            f"stall_seconds is {self.stall_seconds}; it must be above 0.",
        )
        require(
            self.stop_after is None or self.stop_after > 0,
            f"stop_after is {self.stop_after}; it must be above 0 seconds.",
        )
