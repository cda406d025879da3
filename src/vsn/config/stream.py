"""Define the sliding windows over a long video, a webcam or a stream, and how a live source is read."""

from __future__ import annotations

from dataclasses import dataclass

from vsn.config.errors import check_range, require


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """The sliding windows, and how their probabilities become one label."""

    seconds: float | None = None
    """Length of a window; default that of the clips the model was trained on (see docs/stream.md)."""
    every: float | None = None
    """Seconds between predictions; default the distance between a window's frames. Rounded to a multiple or an integer
    fraction of that distance, so that windows share frames."""
    every_frames: int | None = None
    """The same in frames of the source, at its stated rate."""
    smooth: float = 1.0
    """Time constant, in seconds, of the exponential moving average of probabilities; 0: none."""
    enter: float = 0.5
    """Smoothed probability from which on a label begins."""
    leave: float = 0.3
    """Smoothed probability below which it ends."""
    unknown: float | None = None
    """No label below this probability, regardless of enter and leave; default the threshold of the calibration, if any,
    else 0."""

    def __post_init__(self) -> None:
        # Less than 10 ms is shorter than a frame of most cameras: probably a mistake of the unit.
        check_range(self, "[0.01, inf)", "seconds", "every")
        check_range(self, "[1, inf)", "every_frames")
        check_range(self, "[0, inf)", "smooth")
        check_range(self, "[0, 1]", "enter", "leave", "unknown")
        require(
            self.every is None or self.every_frames is None,
            "every and every_frames both set the time between predictions; pass only one of them.",
        )
        # Two thresholds (hysteresis) keep a label from flickering around a single one.
        require(
            self.leave <= self.enter,
            f"leave is {self.leave}, above enter {self.enter}: a label would end as soon as it begins. Lower leave.",
        )


@dataclass(frozen=True, kw_only=True)
class LiveConfig:
    """How a camera, a stream or a replayed file is read."""

    fast: bool = False
    """Read a file as fast as the model runs, without dropping frames, instead of in real time."""
    max_waiting: int = 16
    """Frames that may wait for the model (of a run on differences as many times those of an instant, unless a video is
    written); when there are more the oldest is dropped, and counted."""
    reconnects: int = 5
    """Successive attempts to reconnect after a lost connection."""
    reconnect_wait: float = 1.0
    """Seconds before the first attempt; doubled each time, up to 30."""
    stall_seconds: float = 10.0
    """Seconds without data after which a connection counts as lost."""
    stop_after: float | None = None
    """Stop after this many seconds of video."""

    def __post_init__(self) -> None:
        check_range(self, "[1, inf)", "max_waiting")
        check_range(self, "[0, inf)", "reconnects", "reconnect_wait")
        check_range(self, "(0, inf)", "stall_seconds")
        check_range(self, "(0, inf]", "stop_after")  # inf: never
