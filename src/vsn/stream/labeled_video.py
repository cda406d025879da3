"""Write a video with the labels of its timeline below the picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vsn.data.video import open_video, write_video
from vsn.inference.pictures import BAR, FAINT, INK, PAPER, SOFT, fitted, font
from vsn.scores.calibrate import UNKNOWN
from vsn.stream.timeline import Timeline
from vsn.system.numbers import percent

SHORT_SIDE = 360
"""Pixels of the shorter side of the picture; smaller videos keep their size."""
MAX_RATE = 30.0
"""Frames a second; videos with more are thinned out."""
_BAND = 56
"""Pixels of the height below the picture."""


def write_labeled_video(path: Path, timeline: Timeline, *, frame_template: str = "") -> Path:
    """Write an .mp4 that shows the label at each time and, as a bar, where in the video that is.

    Frames are shown when they are in the video, as far as a constant rate allows; there is no sound.

    Raises:
        VideoError: the video cannot be read.
    """
    with open_video(timeline.path, frame_template=frame_template) as video:
        side = min(video.metadata.height, video.metadata.width)
    with open_video(timeline.path, short_side=min(side, SHORT_SIDE), frame_template=frame_template) as video:
        rate = min(MAX_RATE, video.frames_per_second or MAX_RATE)
        times = video.begins + video.times

        def frames() -> Iterator[NDArray[np.uint8]]:
            shown = 0
            for index, frame in enumerate(video):
                end = times[index + 1] if index + 1 < len(times) else video.ends
                # As often as its time lasts: a long pause repeats a frame, a dense part leaves some out.
                while shown / rate < min(end, timeline.seconds) - 1e-6:
                    yield _with_label(frame, timeline, shown / rate)
                    shown += 1

        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, frames(), frames_per_second=rate)
    return path


def _with_label(frame: NDArray[np.uint8], timeline: Timeline, seconds: float) -> NDArray[np.uint8]:
    # H.264 takes even sizes.
    height, width = frame.shape[0] // 2 * 2, max(frame.shape[1] // 2 * 2, 160)
    picture = Image.new("RGB", (width, height + _BAND), PAPER)
    picture.paste(Image.fromarray(frame).crop((0, 0, frame.shape[1], height)), ((width - frame.shape[1]) // 2, 0))
    draw, text = ImageDraw.Draw(picture), font(18)
    now = next((one for one in timeline.segments if one.start <= seconds < one.end), None)
    label, score = (UNKNOWN, "") if now is None else (now.label, percent(now.score, 0))
    draw.text((6, height + 4), fitted(label, text, width - 70), SOFT if now is None else INK, text)
    draw.text((width - 6, height + 4), score, INK, text, anchor="ra")
    top, scale = height + 34, (width - 12) / max(timeline.seconds, 1e-6)
    draw.rectangle((6, top, width - 6, top + 12), FAINT)
    for one in timeline.segments:
        left = 6 + one.start * scale + 1
        right = max(left, 6 + one.end * scale - 1)  # of a short one in a long video a line is left
        draw.rectangle((left, top, right, top + 12), BAR if one is now else SOFT)
    draw.line((6 + seconds * scale, top - 3, 6 + seconds * scale, top + 15), INK, 2)
    return np.asarray(picture)
