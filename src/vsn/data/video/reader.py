"""Define the interface of all video readers: errors, metadata, frame sizes and the rules for indices."""

from __future__ import annotations

import contextlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from vsn.data.part import Part

MAX_PIXELS = 36_000_000
"""Largest frame that is read or resized to, in pixels; 8192x4320 fits. A damaged header of a few bytes may announce
sizes that would exhaust the memory."""
MAX_ASPECT = 16
"""Longest side of a frame that is resized, as a multiple of its shorter side. Wide screens have 4."""


MAX_PAST_END = 0.5
"""Seconds that a segment may end after its video: tools round the end up."""
_FRAMES_AT_ONCE = 32
_NEIGHBORS = 100
"""Frames on each side that tell the usual interval at a frame."""


class VideoError(ValueError):
    """A video cannot be read. `str()` is one line: "path: reason".

    Attributes: `path` (str) and `reason` (str). The error can be pickled, so worker processes can raise it.
    """

    def __init__(self, path: str | Path, reason: str) -> None:
        self.path = str(path)
        # FFmpeg's messages and file names may hold line breaks; logs and CSV reports need one line.
        self.reason = " ".join(reason.split())
        super().__init__(self.path, self.reason)  # as args, which pickle passes to the constructor

    def __str__(self) -> str:
        # A name in another encoding holds surrogates, which print() cannot encode.
        path = self.path if self.path.isprintable() else ascii(self.path)
        return f"{path}: {self.reason}"


class FewerFramesError(VideoError):
    """A damaged file decodes fewer frames than its container announces.

    The reader's `num_frames` is then the number of frames that decode; `VideoReader.sample` reads again.
    """


class OutsideVideoError(VideoError):
    """A part begins or ends after the end of its video."""


@dataclass(frozen=True)
class VideoMetadata:
    """Properties of a video, counted from its content rather than taken from its header."""

    num_frames: int
    """Packets of the video stream that are shown (in a damaged file fewer may decode), or frame files."""
    frames_per_second: float
    """Average rate; 0.0 when unknown."""
    height: int
    """Pixels, as displayed."""
    width: int
    """Pixels, as displayed."""
    rotation: int
    """Degrees that the first stored frame is turned counterclockwise for display: 0, 90, 180 or 270."""
    mirrored: bool = False
    """Whether it is then mirrored left to right."""
    tone_mapped: bool = False
    """Whether it has a high dynamic range (PQ or HLG), mapped to the standard range."""


class VideoReader(ABC):
    """Frames of one video, uint8 RGB; a context manager.

    Frames have the size of the first frame, or that size with the shorter side at `short_side` pixels.

    Attributes: `path`; `num_frames`, see `VideoMetadata`; `frames_per_second`, 0.0 when unknown; `short_side`;
    `obstacle`, why frames are decoded from the first one on, such as "time stamps repeat", empty when they are not;
    `begins`, the seconds at which players show the first frame: later than 0.0 where the sound of a file begins earlier.
    """

    obstacle = ""
    begins = 0.0

    def __init__(
        self, path: str | Path, *, num_frames: int, frames_per_second: float, short_side: int | None = None
    ) -> None:
        self.path = path
        self.num_frames = num_frames
        self.frames_per_second = frames_per_second
        self.short_side = short_side

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027 - most readers hold nothing open
        """Release what the reader holds open."""

    @property
    def times(self) -> np.ndarray:
        """Seconds from the first frame to each frame, ascending, float64 `(num_frames,)`.

        From the time stamps of a video file; evenly spaced by `frames_per_second` (1 when unknown) where a file has no
        usable ones, and for frames that are stored as pictures.
        """
        return np.arange(self.num_frames) / (self.frames_per_second or 1.0)

    @property
    def last_seconds(self) -> float:
        """How long the last frame is shown, as far as the file says; else the usual interval between frames."""
        return usual_interval(self.times) if self.num_frames > 1 else 1 / (self.frames_per_second or 1.0)

    @property
    def seconds(self) -> float:
        """Duration, from the beginning of the first frame to the end of the last."""
        return float(self.times[-1]) + self.last_seconds

    @property
    def ends(self) -> float:
        """Seconds at which players end the last frame: `begins` and the duration."""
        return self.begins + self.seconds

    def indices_between(self, start: float, end: float | None = None) -> range:
        """Return the indices of the frames of a part: those that players show first in `[start, end)`, in seconds.

        So each frame is in one of two parts that follow each other, and the frames are those of a file that FFmpeg cuts
        and encodes. A frame that began before the part belongs to it where it stays on the screen for longer than a usual
        frame, as in a slide show, and where no other frame begins in the part: the range is never empty. `end` None: to
        the last frame.

        Raises:
            OutsideVideoError: the part begins after the last frame, or ends before the first.
            ValueError: `start` is negative, or `end` is not after it.
        """
        part = Part(start, end)
        times = self.begins + self.times
        # How long the last frame is shown is asked only where it matters: to find it in a long file takes milliseconds.
        if (start >= times[-1] and start >= self.ends) or (end is not None and end <= self.begins):
            raise _outside(self, part)
        # Half a millisecond of tolerance: containers round time stamps to one.
        first = int(np.searchsorted(times, start - 5e-4, side="left"))
        stop = len(times) if end is None else int(np.searchsorted(times, end - 5e-4, side="left"))
        if first >= stop or (times[first] > start and times[first] - start > _long_interval(times, first)):
            first = max(first - 1, 0)
        return range(first, max(stop, first + 1))

    @cached_property
    def metadata(self) -> VideoMetadata:
        """Size, orientation, number of frames and rate; a video file decodes its first frame. Raises `VideoError`."""
        raise NotImplementedError

    @abstractmethod
    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frames at these indices, uint8 `(n, H, W, 3)`. Repeats and any order are allowed.

        Indices are exact in every container: frame i is the i-th that a player would show.

        Raises:
            VideoError: no frame can be read; `FewerFramesError` when only some of the announced frames decode.
            ValueError: no index, or one outside `0..num_frames - 1`.
        """

    def sample(self, choose: Callable[[int], Sequence[int] | np.ndarray]) -> np.ndarray:
        """Return the frames at `choose(num_frames)`; in a damaged file, `num_frames` is the frames that decode."""
        # How many that are is known only after an attempt. A file whose list of packets is wrong may take two.
        for _ in range(2):
            with contextlib.suppress(FewerFramesError):
                return self.frames_at(choose(self.num_frames))
        return self.frames_at(choose(self.num_frames))

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield every frame that decodes, uint8 `(H, W, 3)`. Memory does not grow with the length of the video."""
        for index in range(self.num_frames):
            yield self.frames_at([index])[0]

    def all_frames(self) -> np.ndarray:
        """Return every frame that decodes, uint8 `(n, H, W, 3)`. Raises `VideoError`."""
        try:
            return np.stack(list(self))
        except MemoryError:
            raise VideoError(self.path, f"its {self.num_frames} frames do not fit in memory.") from None


class PictureReader(VideoReader):
    """A reader of a video whose frames are stored as separate pictures: each frame is read on its own."""

    @abstractmethod
    def read_into(self, index: int, out: np.ndarray) -> None:
        """Write frame `index`, resized, into `out`, uint8 `(H, W, 3)`. Raises `VideoError`."""

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the frames at these indices; only these are read, each once. See `VideoReader.frames_at`."""
        indices = checked_indices(indices, self.num_frames)
        size = frame_size(self.path, self.metadata.height, self.metadata.width, self.short_side)
        frames = np.empty((len(indices), *size, 3), np.uint8)
        # A repeated frame is copied: short videos repeat frames to fill T.
        first_row: dict[int, int] = {}
        for row, index in enumerate(indices):
            if index in first_row:
                frames[row] = frames[first_row[index]]
            else:
                first_row[index] = row
                self.read_into(index, frames[row])
        return frames

    def all_frames(self) -> np.ndarray:
        """See `VideoReader.all_frames`."""
        return self.frames_at(range(self.num_frames))  # into one array: stacking a list takes twice the memory


class PartReader(VideoReader):
    """The frames of a part of a video, as a video of its own; see `VideoReader.indices_between`.

    Raises `OutsideVideoError` for a part after the last frame.
    """

    def __init__(self, whole: VideoReader, part: Part) -> None:
        self._whole, self._part = whole, part
        super().__init__(
            whole.path, num_frames=0, frames_per_second=whole.frames_per_second, short_side=whole.short_side
        )
        self.obstacle = whole.obstacle
        self._locate()

    def _locate(self) -> None:
        """Find the frames of the part and their times."""
        whole, part = self._whole, self._part
        self._range = whole.indices_between(part.start, part.end)
        self.num_frames = len(self._range)
        first, stop = self._range.start, self._range.stop
        times = whole.begins + whole.times
        self._times = times[first:stop] - times[first]
        # A frame that lasts since before the part counts from its beginning.
        self._times[1:] -= max(0.0, part.start - float(times[first]))
        shown_from = max(float(times[stop - 1]), part.start if self.num_frames == 1 else 0.0)
        shown = (float(times[stop]) if stop < len(times) else whole.ends) - shown_from
        # A frame that lasts until long after the part counts to its end.
        if part.end is not None and part.end - shown_from < shown:
            shown = min(shown, max(part.end - shown_from, _long_interval(times, stop - 1)))
        self._last_seconds = shown

    def close(self) -> None:
        """See `VideoReader.close`."""
        self._whole.close()

    @property
    def times(self) -> np.ndarray:
        """See `VideoReader.times`."""
        return self._times

    @property
    def last_seconds(self) -> float:
        """See `VideoReader.last_seconds`."""
        return self._last_seconds

    @cached_property
    def metadata(self) -> VideoMetadata:
        """See `VideoReader.metadata`."""
        return replace(self._whole.metadata, num_frames=self.num_frames)

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `VideoReader.frames_at`."""
        try:
            return self._whole.frames_at([self._range[index] for index in checked_indices(indices, self.num_frames)])
        except FewerFramesError:
            self._locate()
            raise

    def __iter__(self) -> Iterator[np.ndarray]:
        # Several at once: one by one, each would be decoded from the key frame before it.
        num_read = 0
        while num_read < self.num_frames:
            with contextlib.suppress(FewerFramesError):  # then there are fewer to read
                frames = self.frames_at(range(num_read, min(num_read + _FRAMES_AT_ONCE, self.num_frames)))
                num_read += len(frames)
                yield from frames


def part_reader(whole: VideoReader, part: Part | None) -> VideoReader:
    """Return the segment of a video that a record shows, as a video of its own; None: the video itself.

    Raises `OutsideVideoError`, and closes the video, for a segment that does not end within it: its times mean something
    else. Half a second is tolerated, because tools round the end of a video up.
    """
    if part is None:
        return whole
    try:
        # A video in a packed file that was a folder of frames: seconds would count its frames.
        if isinstance(whole, PictureReader) and not whole.frames_per_second and not os.path.isdir(whole.path):
            raise VideoError(whole.path, "its frames have no times, and a part of it is in seconds: pack the segments.")
        latest = 0.0 if part.end is None else part.end - MAX_PAST_END
        if latest > whole.begins + whole.times[-1] and latest > whole.ends:
            raise _outside(whole, part)
        return PartReader(whole, part)
    except BaseException:
        whole.close()
        raise


def _long_interval(times: np.ndarray, index: int) -> float:
    """Return the seconds for which a usual frame near this one is not shown, with tolerance; infinite of a single frame."""
    near = times[max(0, index - _NEIGHBORS) : index + _NEIGHBORS]
    return 1.5 * usual_interval(near) if near[-1] > near[0] else math.inf


def _outside(video: VideoReader, part: Part) -> OutsideVideoError:
    """Return the error of a part that is not within a video, with a hint where its times look like numbers of frames."""
    end = "" if part.end is None else f" and ends at {part.end:g} s"
    lasts = f"it lasts {video.ends:.2f} s" + (f", its picture from {video.begins:.2f} s on" if video.begins else "")
    reason = f"{lasts}; the part begins at {part.start:g} s{end}."
    are_whole = all(time is None or float(time).is_integer() for time in (part.start, part.end))
    if are_whole and video.ends <= (part.end or part.start) <= video.num_frames:
        reason += (
            f" It has {video.num_frames} frames: if the times are numbers of frames, divide them by its "
            f"{video.num_frames / video.seconds:.4g} frames per second."
        )
    return OutsideVideoError(video.path, reason)


def usual_interval(times: np.ndarray) -> float:
    """Return the seconds between frames that most frames of a video have, more or less.

    The median gives the rate at which the video moves: the average would count pauses, and the rate that a file announces
    depends on its container. The mean of the intervals near it undoes their rounding: 33, 33 and 34 ms are 30 a second.
    Where frames of a constant rate were dropped, half of a median of two steps is not near it, whatever the rounding.
    """
    intervals = np.diff(times)
    ordered = np.sort(intervals[intervals > 0])
    median = ordered[(len(ordered) - 1) // 2]
    return float(intervals[np.abs(intervals - median) <= 0.4 * median + 1e-3].mean())


class MemoryReader(VideoReader):
    """Hold all frames of another reader, and their times."""

    def __init__(self, video: VideoReader) -> None:
        self._frames = video.all_frames()
        super().__init__(
            video.path,
            num_frames=len(self._frames),
            frames_per_second=video.frames_per_second,
            short_side=video.short_side,
        )
        # In a damaged file fewer frames decode than there are time stamps.
        self._times, self._last_seconds = video.times[: self.num_frames], video.last_seconds

    @property
    def num_bytes(self) -> int:
        """Memory of the frames."""
        return self._frames.nbytes

    @property
    def times(self) -> np.ndarray:
        """See `VideoReader.times`."""
        return self._times

    @property
    def last_seconds(self) -> float:
        """See `VideoReader.last_seconds`."""
        return self._last_seconds

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `VideoReader.frames_at`."""
        return self._frames[checked_indices(indices, self.num_frames)]

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self._frames)


def checked_indices(indices: Iterable[int] | np.ndarray, num_frames: int) -> list[int]:
    """Return indices as a list of int. Raises `ValueError` for no index, or one outside `0..num_frames - 1`."""
    # Python integers: numpy's are slower as keys of a dict, and may wrap around.
    checked = [int(index) for index in indices]
    if not checked or min(checked) < 0 or max(checked) >= num_frames:
        raise ValueError(f"Expected frame indices from 0 to {num_frames - 1}, got {checked}.")
    return checked


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return (height, width) with the shorter side at `short_side` pixels, the longer rounded down.

    >>> scaled_size(240, 320, 256)
    (256, 341)
    """
    if height <= width:
        return short_side, int(short_side * width / height)
    return int(short_side * height / width), short_side


def frame_size(path: str | Path, height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """Return the (height, width) that frames of this stored size are read at; see `scaled_size`.

    Raises `VideoError` when the stored or the resized frame has more than `MAX_PIXELS`, and when a frame to resize has a
    longer side of more than `MAX_ASPECT` times the shorter one.
    """
    limit = f"the limit is {MAX_PIXELS // 10**6} million"
    if height * width > MAX_PIXELS:
        raise VideoError(path, f"its frames have {height}x{width} pixels; {limit}.")
    if short_side is None:
        return height, width
    size = scaled_size(height, width, short_side)
    # What a network computes grows with the longer side: a picture of 16x8000 pixels is a file of 200 bytes.
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise VideoError(
            path,
            f"its frames of {height}x{width} pixels would have {size[0]}x{size[1]} with the shorter side at {short_side}; "
            f"for the longer side the limit is {MAX_ASPECT} times the shorter side. Crop the video.",
        )
    if size[0] * size[1] > MAX_PIXELS:
        raise VideoError(
            path,
            f"its frames of {height}x{width} pixels would have {size[0]}x{size[1]} with the shorter side "
            f"at {short_side}; {limit}.",
        )
    return size
