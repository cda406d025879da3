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
_MAX_SHARE = 0.99
"""Share of a video's time in which one frame may stay."""


def at_constant_rate(video: VideoReader) -> VideoReader:
    """Return a video at a constant rate: itself where its frames already are, else a `ConstantRateReader`."""
    return video if is_at_constant_rate(video) else ConstantRateReader(video)


def is_at_constant_rate(video: VideoReader) -> bool:
    """Return whether frames are evenly spaced by `video.frames_per_second`, if that is known.

    The rate may differ by half a frame, in longer videos by 2%: 29.97 is often announced as 30.
    """
    rate, num_intervals = video.frames_per_second, video.num_frames - 1
    if not num_intervals:
        return True
    difference = abs(float(video.times[-1]) - num_intervals / rate) if rate else 0.0
    is_announced = not rate or difference <= max(0.5, 0.02 * num_intervals) / rate + _ROUNDING_SECONDS
    return is_announced and even_interval(video) is not None


def even_interval(video: VideoReader) -> float | None:
    """Return the seconds between the frames of a video of several, if they are evenly spaced; else None.

    Each frame, and the end, must be within half a frame of even times: rounded time stamps, jitter, 3:2 pulldown and a
    single lost frame are even.
    """
    times = video.times
    # A last frame that lasts belongs to the spacing, one that is cut off does not.
    if video.last_seconds > float(times[-1]) / (len(times) - 1):
        times = np.append(times, video.seconds)
    numbers = np.arange(len(times)) - (len(times) - 1) / 2
    # The slope of the straight line with the least squared distances.
    interval = float(numbers @ times) / float(numbers @ numbers)
    return interval if np.ptp(times - interval * numbers) <= interval + _ROUNDING_SECONDS else None


class ConstantRateReader(VideoReader):
    """Show the frames of `video`, a reader of several frames that this one closes, at its usual rate."""

    def __init__(self, video: VideoReader) -> None:
        self._video = video
        super().__init__(video.path, num_frames=0, frames_per_second=0.0, short_side=video.short_side)
        self.begins = video.begins
        self._place()

    def _place(self) -> None:
        """Find the first frame of the constant rate that shows each stored one, int64 `(num_stored,)`."""
        video = self._video
        interval = even_interval(video)
        if interval is not None:  # at another rate than announced: the frames as they are
            self._first, self.num_frames = np.arange(video.num_frames), video.num_frames
        else:
            times, seconds = video.times.copy(), video.seconds
            interval = usual_interval(times)
            # As good as all of the time in one frame: an error of the clock, or no video that any clip could show.
            stays = np.diff(times, append=seconds)
            longest = int(stays.argmax())
            if stays[longest] > _MAX_SHARE * seconds:
                times[longest + 1 :] -= stays[longest] - interval
                seconds -= stays[longest] - interval
            # Half a frame of tolerance, as FFmpeg's filter `fps`: rounded time stamps must not skip and repeat frames.
            # A little more for times half way between two: rounding errors must not decide.
            self._first = np.floor(times / interval + 0.501).astype(np.int64)
            self.num_frames = max(int(self._first[-1]) + 1, round(seconds / interval))
        self.frames_per_second = 1 / interval

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
