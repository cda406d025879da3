"""Show a video whose frames are unevenly spaced in time at a constant rate, as FFmpeg extracts frames.

Phones in low light, screen recorders and conferences record frames at varying distances. Samplers choose frames by number,
which means equal parts of *time* only at a constant rate. There a video shows the frame that is on the screen at each
instant: a frame that lasts repeats, and of frames closer than the rate the last one is shown.

    seconds of the frames    0.0       1.0       2.0  2.1  2.2  2.3
    frames at 10 a second    0 0 ... 0 1 1 ... 1 2    3    4    5

TSN and the paper sample frames that FFmpeg extracted at a constant rate. Consecutive frames, of which flow and differences
are made, are those of the constant rate too: motion is always measured over the same time, and is zero while a frame lasts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np

from vsn.data.video.reader import FewerFramesError, VideoMetadata, VideoReader, checked_indices, usual_interval

_ROUNDING_SECONDS = 1e-3
"""Containers round time stamps to a millisecond."""


def at_constant_rate(video: VideoReader) -> VideoReader:
    """Return a video at a constant rate: itself where its frames already are, else a `ConstantRateReader`."""
    return video if is_at_constant_rate(video) else ConstantRateReader(video)


def is_at_constant_rate(video: VideoReader) -> bool:
    """Return whether frames are evenly spaced by `video.frames_per_second`, if that is known.

    Each frame, and the end, must be within half a frame of even times: rounded time stamps, jitter, 3:2 pulldown and a
    single lost frame are even. The rate may differ by 2%: 29.97 is often announced as 30.
    """
    times, rate = video.times, video.frames_per_second
    if len(times) == 1:
        return True
    # Half a frame, or 2% of a longer video.
    num_intervals = len(times) - 1
    if (
        rate
        and abs(float(times[-1]) * rate - num_intervals) > max(0.5, 0.02 * num_intervals) + _ROUNDING_SECONDS * rate
    ):
        return False
    # A last frame that lasts belongs to the spacing, one that is cut off does not.
    if video.last_seconds > float(times[-1]) / num_intervals:
        times = np.append(times, video.seconds)
    numbers = np.arange(len(times)) - (len(times) - 1) / 2
    # The slope of the straight line with the least squared distances.
    interval = float(numbers @ times) / float(numbers @ numbers)
    return bool(np.ptp(times - interval * numbers) <= interval + _ROUNDING_SECONDS)


class ConstantRateReader(VideoReader):
    """Show the frames of `video`, a reader of several frames that this one closes, at its usual rate."""

    def __init__(self, video: VideoReader) -> None:
        self._video = video
        self._interval = usual_interval(video.times)
        super().__init__(video.path, num_frames=0, frames_per_second=1 / self._interval, short_side=video.short_side)
        self._place()

    def _place(self) -> None:
        # The first frame of the constant rate that shows each stored one. Half a frame of tolerance, as FFmpeg's filter
        # `fps`: rounded time stamps must not skip and repeat frames.
        self._first = np.floor(self._video.times / self._interval + 0.5).astype(np.int64)
        self.num_frames = max(int(self._first[-1]) + 1, round(self._video.seconds / self._interval))

    def close(self) -> None:
        """See `VideoReader.close`."""
        self._video.close()

    @cached_property
    def metadata(self) -> VideoMetadata:
        """See `VideoReader.metadata`; of the video as stored."""
        return self._video.metadata

    def stored_indices(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the stored frames that are shown at these indices, int64."""
        return np.searchsorted(self._first, indices, side="right") - 1

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """See `VideoReader.frames_at`."""
        try:
            return self._video.frames_at(self.stored_indices(checked_indices(indices, self.num_frames)))
        except FewerFramesError:
            self._place()
            raise

    def __iter__(self) -> Iterator[np.ndarray]:
        # A damaged file may decode more or fewer frames than it announces.
        repeats = np.diff(self._first, append=self.num_frames).tolist()
        for frame, count in zip(self._video, repeats, strict=False):
            yield from itertools.repeat(frame, count)
