"""Frames at indices, whatever holds them: a video file, a folder of frames, a video in a packed file.

Frames are numpy arrays, uint8, `(n, H, W, 3)`, RGB. The path says who reads them: a folder goes to
`frame_folders`, a path inside a `.vsnpack` file to `packed_files`, any other to `video_files`, or
to `torchcodec_files` when the decoder is TorchCodec.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from vsn.config import Decoder
from vsn.data.video import frame_folders, torchcodec_files, video_files
from vsn.data.video.frames import Choose, VideoError, VideoInfo, scaled_size
from vsn.data.video.video_files import write_video

__all__ = [
    "Choose",
    "VideoError",
    "VideoInfo",
    "iter_frames",
    "probe_video",
    "read_all_frames",
    "read_frames",
    "scaled_size",
    "write_video",
]


def probe_video(path: str | Path, *, frame_template: str = "") -> VideoInfo:
    """Count the frames of a video and read its rate, size and rotation.

    Of a video file every packet is counted and one frame decoded; of a folder the files are counted
    and the first is opened. Raises `VideoError`.
    """
    match _kind(path):
        case "folder":
            return frame_folders.probe_folder(path, frame_template)
        case "packed":
            from vsn.data.video import packed_files

            return packed_files.probe_packed(path)
        case "file":
            return video_files.probe_file(path)


def read_frames(
    path: str | Path,
    choose: Choose,
    *,
    short_side: int | None = None,
    frame_template: str = "",
    decoder: Decoder = "pyav",
) -> np.ndarray:
    """The frames whose indices `choose(num_frames, frames_per_second)` returns: uint8 `(n, H, W, 3)`, RGB.

    Indices count from 0; repeats and any order are allowed. Of a video file, `num_frames` is the
    number of packets that are shown; when decoding ends before the last wanted frame, `choose` is
    asked again with the number of frames that do decode. Decoding starts at the first frame, so
    indices are exact in every container, and stops after the last wanted one. Of a folder it is the
    number of frame files, and only those wanted are read. The rate is 0.0 when unknown, as for folders.

    Frames take the size of the video's first frame, or that size with its shorter side at
    `short_side`. `frame_template` names the frame files of a folder, such as "img_{:05d}.jpg"; empty:
    found. `decoder` reads video files. Raises `VideoError` for a video without a readable frame,
    `ValueError` when `choose` returns nothing or an index outside the video, and `ConfigError` for a
    template of no use or a decoder that is not installed.
    """
    match _kind(path):
        case "folder":
            return frame_folders.read_folder(path, choose, frame_template, short_side=short_side)
        case "packed":
            from vsn.data.video import packed_files

            return packed_files.read_packed_frames(path, choose, short_side=short_side)
        case "file" if decoder != "pyav":
            device = torchcodec_files.device_of(decoder)
            return torchcodec_files.read_file(path, choose, short_side=short_side, device=device)
        case "file":
            return video_files.read_file(path, choose, short_side=short_side)


def read_all_frames(
    path: str | Path,
    *,
    short_side: int | None = None,
    frame_template: str = "",
    decoder: Decoder = "pyav",
) -> tuple[np.ndarray, float]:
    """Every frame that decodes, uint8 `(num_frames, H, W, 3)`, RGB, and frames per second; see `read_frames`."""
    match _kind(path):
        case "packed":
            from vsn.data.video import packed_files

            return packed_files.read_all_packed_frames(path, short_side=short_side)
        case "file" if decoder == "pyav":
            return video_files.read_whole_file(path, short_side=short_side)
    frames_per_second = 0.0

    def all_frames(num_frames: int, rate: float) -> range:
        nonlocal frames_per_second
        frames_per_second = rate
        return range(num_frames)

    frames = read_frames(path, all_frames, short_side=short_side, frame_template=frame_template, decoder=decoder)
    return frames, frames_per_second


def iter_frames(
    path: str | Path,
    *,
    short_side: int | None = None,
    frame_template: str = "",
    decoder: Decoder = "pyav",
) -> Iterator[np.ndarray]:
    """Every frame that decodes, one after the other, uint8 `(H, W, 3)`; see `read_frames`.

    What it holds in memory does not grow with the length of the video.
    """
    match _kind(path):
        case "folder":
            return frame_folders.iter_folder(path, frame_template, short_side=short_side)
        case "packed":
            return _iter_packed(path, short_side=short_side)
        case "file" if decoder != "pyav":
            device = torchcodec_files.device_of(decoder)
            return torchcodec_files.iter_file(path, short_side=short_side, device=device)
        case "file":
            return video_files.iter_file(path, short_side=short_side)


def _iter_packed(path: str | Path, *, short_side: int | None, num_frames: int = 32) -> Iterator[np.ndarray]:
    """Frames of a packed video, read `num_frames` at a time."""
    for start in range(0, probe_video(path).num_frames, num_frames):

        def piece(num_video_frames: int, _: float, start: int = start) -> range:
            return range(start, min(start + num_frames, num_video_frames))

        yield from read_frames(path, piece, short_side=short_side)


def _kind(path: str | Path) -> Literal["file", "folder", "packed"]:
    text = os.fspath(path)
    if os.path.splitext(os.path.dirname(text))[1] == ".vsnpack":
        return "packed"
    return "folder" if os.path.isdir(text) else "file"
