"""Read and write videos: `open_video(path)` for files, folders of frames and packed videos, `write_video`.

The path decides who reads it: a folder of frames (`frame_folders`), a video in a packed file
(`packed_files`), or a video file, by PyAV (`pyav_reader`) or TorchCodec (`torchcodec_reader`).
"""

from __future__ import annotations

import os
from pathlib import Path

from vsn.config import Decoder
from vsn.data.part import Part
from vsn.data.records import IMAGE_EXTENSIONS, is_hidden
from vsn.data.video.constant_rate import at_constant_rate
from vsn.data.video.frame_folders import FrameFolderReader
from vsn.data.video.packed_files import PackedReader, packed_bytes, packed_place
from vsn.data.video.pyav_reader import PyAVReader
from vsn.data.video.reader import (
    FewerFramesError,
    OutsideVideoError,
    PartReader,
    VideoError,
    VideoMetadata,
    VideoReader,
    part_reader,
)
from vsn.data.video.torchcodec_reader import TorchCodecReader, device_of
from vsn.data.video.write import write_video

__all__ = [
    "FewerFramesError",
    "OutsideVideoError",
    "Part",
    "PartReader",
    "VideoError",
    "VideoMetadata",
    "VideoReader",
    "at_constant_rate",
    "open_video",
    "part_reader",
    "stored_bytes",
    "write_video",
]


def open_video(
    path: str | Path,
    *,
    short_side: int | None = None,
    frame_template: str = "",
    decoder: Decoder = "pyav",
    num_threads: int = 1,
) -> VideoReader:
    """Open a video file, a folder of numbered frames or a video in a packed file.

    >>> with open_video("video.mp4", short_side=256) as video:  # doctest: +SKIP
    ...     frames = video.frames_at([0, video.num_frames - 1])  # uint8 (2, H, W, 3), RGB

    Args:
        path: a file, a folder, or `shard-00000.vsnpack/17`.
        short_side: pixels of the shorter side of the frames; None keeps the stored size.
        frame_template: names of the frame files of a folder, such as "img_{:05d}.jpg"; empty: detected.
        decoder: reads video files.
        num_threads: that PyAV decodes large frames with; for a process that reads one video at a time. The frames are
            the same for any number.

    Raises:
        VideoError: the video cannot be read.
        ConfigError: an invalid template, or a decoder that is not installed.
    """
    # Before the disk is asked: `shard-00000.vsnpack/17` is a video inside a file, and does not exist as a path.
    if packed_place(path):
        return PackedReader(path, short_side=short_side)
    if os.path.isdir(path):
        return FrameFolderReader(path, frame_template, short_side=short_side)
    if decoder == "pyav":
        return PyAVReader(path, short_side=short_side, num_threads=num_threads)
    return TorchCodecReader(path, short_side=short_side, device=device_of(decoder))


def stored_bytes(path: str | Path) -> int:
    """Return the bytes of a video: a file, the pictures of a folder, or in a packed file; 0 for one that is not there."""
    if packed_place(path):
        return packed_bytes(path)
    if os.path.isdir(path):
        # Not what file managers add: .DS_Store, Thumbs.db, ._00001.jpg.
        pictures = (one for one in os.scandir(path) if Path(one).suffix.lower() in IMAGE_EXTENSIONS)
        return sum(one.stat().st_size for one in pictures if one.is_file() and not is_hidden(one.name))
    return os.path.getsize(path) if os.path.isfile(path) else 0
