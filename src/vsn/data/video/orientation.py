"""Turn stored pictures for display: by the display matrix of a video frame, or by the EXIF orientation of a picture."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from vsn.data.video.reader import VideoError

_TOLERANCE_DEGREES = 1
# PyAV names the first kinds of side data; FFmpeg 8 has four more.
_UNNAMED = range(len(Type), len(Type) + 16)


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways to display a stored picture."""

    rotation: int = 0
    """Degrees that the stored picture is turned counterclockwise: 0, 90, 180 or 270."""
    mirrored: bool = False
    """Whether it is then mirrored left to right. Upside down (a vertical flip) is 180 and mirrored."""

    def exchanged(self, height: int, width: int) -> tuple[int, int]:
        """Return the displayed (height, width) of a stored size, or the stored one of a displayed size."""
        return (width, height) if self.rotation % 180 else (height, width)

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """Return a stored picture, uint8 `(H, W, C)`, as displayed; not a copy if it is upright."""
        if self == UPRIGHT:
            return picture
        turned = np.rot90(picture, self.rotation // 90)
        turned = turned[:, ::-1] if self.mirrored else turned
        # Channel by channel: numpy copies a reversed row of pixels eight times as slowly.
        displayed = np.empty(turned.shape, np.uint8)
        for channel in range(turned.shape[2]):
            displayed[..., channel] = turned[..., channel]
        return displayed


UPRIGHT = Orientation()
BY_EXIF = {
    1: UPRIGHT,
    2: Orientation(0, mirrored=True),
    3: Orientation(180),
    4: Orientation(180, mirrored=True),
    5: Orientation(270, mirrored=True),
    6: Orientation(270),
    7: Orientation(90, mirrored=True),
    8: Orientation(90),
}
"""The orientation of a picture by the value of its EXIF tag 0x0112."""


def frame_orientation(path: str | Path, frame: VideoFrame) -> Orientation:
    """Return the orientation of a decoded frame, as FFmpeg's tool applies it: a scale in the matrix has no effect.

    Raises `VideoError` for a matrix that turns by other than quarter turns.
    """
    try:
        matrix = _display_matrix(frame)
    except ValueError:  # side data that PyAV has no name for, such as the EXIF tags of a picture
        matrix = _display_matrix(filtered(frame, *(("sidedata", f"mode=delete:type={kind}") for kind in _UNNAMED)))
    if matrix is None:
        return UPRIGHT
    # (x, y) of the stored picture goes to (a*x + c*y, b*x + d*y), y down.
    a, b, _, c, d, *_ = matrix
    scale_x, scale_y = math.hypot(a, c), math.hypot(b, d)
    if not scale_x or not scale_y:  # such as all zeros, which some recorders write
        return UPRIGHT
    clockwise = math.degrees(math.atan2(b / scale_y, a / scale_x))
    quarters = round(clockwise / 90)
    if abs(clockwise - 90 * quarters) > _TOLERANCE_DEGREES:
        raise VideoError(
            path,
            f"its display matrix turns the frames by {clockwise:.0f} degrees; only quarter turns and mirror images are "
            "read. Write the frames turned: ffmpeg -i IN OUT.",
        )
    # A matrix that mirrors has a negative determinant; its angle is that of the upper edge.
    if a * d - b * c < 0:
        return Orientation((90 * quarters + 180) % 360, mirrored=True)
    return Orientation(-90 * quarters % 360)


class FrameOrientations:
    """The orientations of the frames of a video, see `frame_orientation`; it may change at key frames."""

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._by_angle: dict[int | None, Orientation] = {}
        self._reformatter = VideoReformatter()

    def of(self, frame: VideoFrame) -> Orientation:
        """Return the orientation of a frame, read from its side data or known from one of the same angle before."""
        try:
            angle = frame.rotation
        except (ArithmeticError, ValueError):  # a matrix of no angle
            angle = None
        if frame.key_frame or angle not in self._by_angle:
            # PyAV ties a frame and its side data into a cycle, which keeps their memory until garbage is collected:
            # a tiny copy is tied instead.
            try:
                copy = self._reformatter.reformat(frame, 16, 16, "rgb24", interpolation="POINT", threads=1)
            except (av.FFmpegError, ValueError):  # colors that FFmpeg does not convert
                copy = frame
            self._by_angle[angle] = frame_orientation(self._path, copy)
        return self._by_angle[angle]


def _display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else struct.unpack("=9i", data)


def filtered(frame: VideoFrame, *filters: tuple[str, str]) -> VideoFrame:
    """Return a frame after FFmpeg's filters of these names and options."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1)
    )
    graph.link_nodes(source, *(graph.add(*each) for each in filters), graph.add("buffersink")).configure()
    graph.push(frame)
    result = graph.pull()
    assert isinstance(result, VideoFrame)
    return result
