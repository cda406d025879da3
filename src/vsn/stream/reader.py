"""A source read by a thread of its own: frames wait in a queue that does not grow, or are dropped and counted."""

from __future__ import annotations

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
    """A frame that somebody wanted.

    Attributes:
        number: of the frames of the source, 0, 1, 2, ...
        part: how often time stamps or the connection had begun anew before it; windows do not reach across.
        seconds: when it is shown, from the first frame on.
        end: when it is shown no more.
        image: uint8 `(H, W, 3)`, RGB, its shorter side as asked.
        picture: the same at the source's own size, where that was asked for.
        arrived: `time.perf_counter()` when it was decoded; of a file in real time, when it was due; of one that
            waits for its reader, when it was taken.
    """

    number: int
    part: int
    seconds: float
    end: float
    image: np.ndarray
    picture: np.ndarray | None
    arrived: float


class LiveReader:
    """Reads a source in a thread until `close`, or its end.

    A live source, and a file in real time, never waits for its reader: when `max_waiting` frames wait,
    the oldest is dropped and counted. With `fast` a finite source waits instead, and nothing is dropped.

    Attributes:
        num_frames: frames that came so far.
        seconds: of video, so far.
        dropped: frames that were wanted, and had to make room.
        lossless: whether the source waits.
    """

    def __init__(
        self,
        source: Source,
        config: LiveConfig,
        *,
        short_side: int,
        wanted: Callable[[float], bool],
        pictures: bool = False,
    ) -> None:
        """Begin to read.

        Args:
            source: opened; it is closed at the end.
            config: how to read it.
            short_side: of the images.
            wanted: of a frame's end, asked of all in turn in the thread: whether it is needed.
            pictures: hand over every frame, with its whole picture.
        """
        self.dropped = self.num_frames = 0
        self.seconds = 0.0
        self.lossless = config.fast and source.finite
        self._paced = source.finite and not config.fast
        self._source, self._config = source, config
        self._short_side, self._wanted, self._pictures = short_side, wanted, pictures
        self._waiting: deque[LiveFrame] = deque()
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._ended = False
        self._error: BaseException | None = None
        self._begin = 0.0
        self._thread = threading.Thread(target=self._run, name="vsn-live", daemon=True)
        self._thread.start()

    def take(self, timeout: float) -> list[LiveFrame] | None:
        """All frames that wait, oldest first, or of a lossless source one; [] when none came in time, None at the end.

        Raises `VideoError` when the source failed, after the frames before.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended, timeout)
            if self._waiting:
                count = 1 if self.lossless else len(self._waiting)
                taken = [self._waiting.popleft() for _ in range(count)]
                self._changed.notify_all()
                # Where a source waits, the wait says nothing of how fast the model is.
                return [replace(one, arrived=time.perf_counter()) for one in taken] if self.lossless else taken
            if self._error is not None:
                raise self._error
            return None if self._ended else []

    def close(self) -> None:
        """Stop the thread and close the source. A read that hangs is left to end by itself."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        try:
            for frame in self._source.frames(self._stop.is_set, self._stop.wait):
                limit = self._config.stop_after
                if self._stop.is_set() or (limit is not None and frame.seconds >= limit):
                    break
                self._hand_over(frame)
        except BaseException as error:
            self._error = error
        finally:
            self._source.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _hand_over(self, frame: SourceFrame) -> None:
        now = time.perf_counter()
        if self.num_frames == 0:
            self._begin = now - frame.seconds
        due = self._begin + frame.seconds
        if self._paced and due > now:
            self._stop.wait(due - now)
        number = self.num_frames
        self.num_frames += 1
        self.seconds = frame.end
        needed = self._wanted(frame.end)
        if not needed and not self._pictures:
            return
        image = self._source.picture(frame, self._short_side)
        picture = self._source.picture(frame, None) if self._pictures else None
        arrived = due if self._paced else time.perf_counter()
        ready = LiveFrame(number, frame.part, frame.seconds, frame.end, image, picture, arrived)
        with self._changed:
            if self.lossless:
                self._changed.wait_for(lambda: len(self._waiting) < self._config.max_waiting or self._stop.is_set())
            elif len(self._waiting) >= self._config.max_waiting:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(ready)
            self._changed.notify_all()
