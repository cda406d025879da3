"""Read a source in a thread: frames wait in a bounded queue, or are dropped and counted."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from vsn.config import LiveConfig
from vsn.stream.source import Source, SourceFrame

_JOIN_SECONDS = 2.0


@dataclass(frozen=True)
class LiveFrame:
    """A frame of a source, converted."""

    number: int
    """Index in the source: 0, 1, 2, ..."""
    part: int
    """As in `SourceFrame`, also the two times."""
    seconds: float
    end: float
    image: np.ndarray
    """uint8 `(H, W, 3)`, RGB, resized to the short side of the reader."""
    picture: np.ndarray | None
    """The same at the size of the source, if requested."""
    arrived: float
    """`time.perf_counter()` when it was decoded; for a file in real time, when it was due; for a lossless source, when it
    was taken."""


class LiveReader:
    """A thread that reads a source until `close` or the end.

    A live source, or a file in real time, does not wait for its reader: when `max_waiting` frames are in the queue,
    the oldest is dropped and counted. With `config.fast` a finite source waits, and no frame is dropped.

    Args:
        source: an open source; the reader closes it.
        config: how to read it.
        short_side: shorter side of the images, in pixels.
        wanted: called in the thread with each frame, in order: whether it is needed.
        longest_still: seconds after which a picture is a pause, see `Source.frames`.
        pictures: return every frame, with its full-size picture.
        changed: notified when frames wait or the source ends; several readers may share one.

    Attributes: `num_frames` and `seconds` read; start and end of each part of the source (`parts`); needed frames
    `dropped`; whether the source waits (`lossless`).
    """

    def __init__(
        self,
        source: Source,
        config: LiveConfig,
        *,
        short_side: int,
        wanted: Callable[[SourceFrame], bool],
        longest_still: float = math.inf,
        pictures: bool = False,
        changed: threading.Condition | None = None,
    ) -> None:
        self.dropped = self.num_frames = 0
        self.seconds = 0.0
        self.parts: list[tuple[float, float]] = []
        self.lossless = config.fast and source.finite
        self._real_time = source.finite and not config.fast
        self._source, self._config = source, config
        self._short_side, self._wanted, self._pictures = short_side, wanted, pictures
        self._longest_still = longest_still
        self._waiting: deque[LiveFrame] = deque()
        self._changed = changed or threading.Condition()
        self._stop = threading.Event()
        self._ended = False
        self._error: BaseException | None = None
        self._part, self._start = -1, 0.0
        self._thread = threading.Thread(target=self._run, name="vsn-live", daemon=True)
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """Whether `take` returns at once with frames, with the end, or with an error."""
        return bool(self._waiting) or self._ended

    def take(self, timeout: float = 0.2) -> list[LiveFrame] | None:
        """Return all waiting frames, oldest first (one, if lossless); [] on timeout, None at the end.

        Raises `VideoError` if the source failed, after its last frames.
        """
        with self._changed:
            # With a timeout, so that the caller can look for stop requests.
            self._changed.wait_for(lambda: self.is_ready, timeout)
            if self._waiting:
                count = 1 if self.lossless else len(self._waiting)
                frames = [self._waiting.popleft() for _ in range(count)]
                self._changed.notify_all()
                # Time in the queue of a lossless source says nothing about the speed of the model.
                return [replace(frame, arrived=time.perf_counter()) for frame in frames] if self.lossless else frames
            if self._error is not None:
                raise self._error
            return None if self._ended else []

    def close(self) -> None:
        """Stop the thread and close the source. A read that hangs ends by itself, later."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        limit = self._config.stop_after
        try:
            for frame in self._source.frames(self._stop, longest_still=self._longest_still):
                if self._stop.is_set() or (limit is not None and frame.seconds - self._source.begins >= limit):
                    break
                self._handle(frame)
        except BaseException as error:
            # `take` raises it, in the thread of the caller.
            self._error = error
        finally:
            self._source.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _handle(self, frame: SourceFrame) -> None:
        now = time.perf_counter()
        # The clock of real time starts with the first frame, not when the file is opened. Pauses are left out.
        if frame.part != self._part:
            self._part, self._start = frame.part, now - frame.seconds
            self.parts.append((frame.seconds, frame.end))
        self.parts[-1] = (self.parts[-1][0], frame.end)
        due = self._start + frame.seconds
        if self._real_time and due > now:
            self._stop.wait(due - now)
        # Frames are numbered before any is left out: gaps in the numbers show the collector what is missing.
        number = self.num_frames
        self.num_frames += 1
        self.seconds = self._source.seconds
        # Called for every frame, also where all are returned: it counts them.
        if not self._wanted(frame) and not self._pictures:
            return
        # Conversion and resizing cost more than decoding: only for needed frames, and here, in parallel to the model.
        image = self._source.picture(frame, self._short_side)
        picture = self._source.picture(frame, None) if self._pictures else None
        arrived = due if self._real_time else time.perf_counter()
        converted = LiveFrame(number, frame.part, frame.seconds, frame.end, image, picture, arrived)
        with self._changed:
            if self.lossless:
                self._changed.wait_for(lambda: len(self._waiting) < self._config.max_waiting or self._stop.is_set())
            # The oldest is dropped, not the newest: what is labeled should be what happens now.
            elif len(self._waiting) >= self._config.max_waiting:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(converted)
            self._changed.notify_all()
