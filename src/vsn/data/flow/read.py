"""Fields of flow at indices, whatever holds them: the counterpart of `vsn.data.video.decode`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from vsn.config import FlowLayout
from vsn.data.flow.file import SUFFIX, count_fields, read_flow_file
from vsn.data.flow.folder import describe_fields, read_flow_folder
from vsn.data.video import VideoError
from vsn.data.video.reader import Choose


def read_flow(
    path: str | Path, choose: Choose, *, layout: FlowLayout = "auto", short_side: int | None = None
) -> np.ndarray:
    """The fields whose indices `choose(num_fields, frames_per_second)` returns: uint8 `(n, H, W, 2)`, x and y.

    `path` is a folder of pictures or a `.vsnflow` file; indices count from 0, repeats and any order are
    allowed; the rate is 0.0 when unknown, as for folders. Fields take the size of the first one read, or
    that size with the shorter side at `short_side`; as in TSN, resizing leaves the values as they are:
    they are motions in pixels of the picture the flow was computed on. Raises `VideoError` for flow that
    is absent or damaged, and `ValueError` when `choose` returns nothing or an index outside the video.
    """
    if is_flow_file(path):
        return read_flow_file(path, choose, short_side=short_side)
    if layout == "file":
        raise VideoError(path, f"not a {SUFFIX} file, which data.flow_layout = 'file' says flow is stored in.")
    return read_flow_folder(path, choose, layout, short_side=short_side)


def read_all_flow(
    path: str | Path, *, layout: FlowLayout = "auto", short_side: int | None = None
) -> tuple[np.ndarray, float]:
    """Every field, uint8 `(num_fields, H, W, 2)`, and frames per second (0.0: unknown); see `read_flow`."""
    frames_per_second = 0.0

    def all_fields(num_fields: int, rate: float) -> range:
        nonlocal frames_per_second
        frames_per_second = rate
        return range(num_fields)

    fields = read_flow(path, all_fields, layout=layout, short_side=short_side)
    return fields, frames_per_second


def describe_flow(path: str | Path, layout: FlowLayout = "auto") -> str:
    """One phrase about how a video's flow is stored: the names of its first field, or that it is one file.

    Raises `VideoError`.
    """
    if is_flow_file(path):
        return f"{SUFFIX} files, {count_fields(path)} fields in the first"
    files = describe_fields(path, "auto" if layout == "file" else layout)
    if files.layout == "rg":
        return f"pictures from {files.names[0][0]} on, red for x and green for y"
    return f"pictures from {' and '.join(files.names[0])} on"


def is_flow_file(path: str | Path) -> bool:
    """Whether a path names a file of flow, by its suffix."""
    return os.path.splitext(os.fspath(path))[1] == SUFFIX
