"""Convert decoded frames to RGB as FFmpeg's tools do: one size, as displayed, HDR mapped to the standard range.

Color matrix and range are those of the frame; without them BT.601 and the limited range, as in FFmpeg. Pixels are taken
as square, even if the file states another aspect ratio.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from vsn.data.video.orientation import FrameOrientations, filtered, frame_orientation
from vsn.data.video.reader import VideoError, frame_size
from vsn.data.video.tone_mapping import HDR_TRANSFERS, tone_mapped

# Color matrices by their number in ITU-T H.273, which FFmpeg uses.
_CONVERTED = {0, 1, 2, 4, 5, 6, 7, 9}
"""Those that FFmpeg converts: RGB, BT.709, unspecified, FCC, BT.601 (two numbers), SMPTE 240M, BT.2020."""
_CONSTANT_LUMINANCE = 10
_OTHERS = {8, 11, 12, 13, 14, 15, 16, 17}
"""Those that it names and does not convert, such as YCgCo and ICtCp. The rest is reserved."""


@dataclass(frozen=True)
class FrameConverter:
    """Convert the decoded frames of a video to RGB at one size, turned and mirrored for display."""

    path: str | Path
    height: int
    """Pixels, as displayed."""
    width: int
    # One reformatter for the whole video: creating one a frame costs four times the conversion.
    reformatter: VideoReformatter
    orientations: FrameOrientations

    @classmethod
    def of(cls, path: str | Path, first: VideoFrame, short_side: int | None) -> FrameConverter:
        """Return the converter of a video that begins with this frame.

        Raises `VideoError` for too many pixels, and for colors that FFmpeg does not convert.
        """
        displayed = frame_orientation(path, first).exchanged(first.height, first.width)
        converter = cls(path, *frame_size(path, *displayed, short_side), VideoReformatter(), FrameOrientations(path))
        converter._corrections(first)
        return converter

    def rgb(self, frame: VideoFrame) -> np.ndarray:
        """Return a frame of any size and orientation as uint8 `(H, W, 3)`, RGB, resized and as displayed."""
        orientation = self.orientations.of(frame)
        height, width = orientation.exchanged(self.height, self.width)
        if corrections := self._corrections(frame):
            frame = filtered(frame, ("setparams", ":".join(corrections)))
        # Color often has fewer pixels than brightness, so that it is interpolated at any size: like FFmpeg's tool.
        is_resized = (frame.height, frame.width) != (height, width)
        resized = self.reformatter.reformat(
            frame,
            width,
            height,
            "rgb48le" if is_hdr(frame) else "rgb24",
            interpolation="BILINEAR" if is_resized else "BICUBIC",
            threads=1,  # by default a conversion starts a thread on every core
        ).to_ndarray()
        return orientation.apply(tone_mapped(resized, frame.color_trc) if is_hdr(frame) else resized)

    def _corrections(self, frame: VideoFrame) -> list[str]:
        """Return the parameters of a frame to change, because FFmpeg's library would not convert as its tools do."""
        corrections = []
        if frame.interlaced_frame:  # it would resize the two fields separately
            corrections.append("field_mode=prog")
        # It converts no other matrices.
        if frame.colorspace == _CONSTANT_LUMINANCE:  # nearly the same, and what FFmpeg before version 8 did
            corrections.append("colorspace=bt2020nc")
        elif frame.colorspace in _OTHERS:
            raise VideoError(
                self.path,
                f"its colors are coded by matrix {frame.colorspace} of ITU-T H.273, which FFmpeg does not convert to "
                "RGB. Encode it again with BT.709, such as with FFmpeg's filter zscale=matrix=709.",
            )
        elif frame.colorspace not in _CONVERTED:  # a reserved number, written by mistake
            corrections.append("colorspace=unknown")
        return corrections


def is_hdr(frame: VideoFrame) -> bool:
    """Return whether a frame has a high dynamic range, which is mapped to the standard range."""
    return frame.color_trc in HDR_TRANSFERS
