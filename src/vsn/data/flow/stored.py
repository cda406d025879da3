"""Read and write the stored optical flow of a video: one `.vsnflow` file, or a folder of pictures.

A `.vsnflow` file (layout "file") is a packed file of one video (`vsn.data.video.packed_files`), with checksums. A field
is one gray JPEG, x above y:

- One file per video needs no index, and is either complete or absent when an extraction stops or several machines
  share it. As pictures, a video of 300 frames takes 600 files.
- Gray, because a color JPEG mixes channels and stores colors at half the resolution, so x and y leak into each other
  (layout "rg").
- x above y, because a field then takes one read and one decode, and each half is a contiguous block of rows.
"""

from __future__ import annotations

import json
import os
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from vsn.config import FlowLayout
from vsn.data.flow.values import ZERO
from vsn.data.packing.shards import ShardWriter
from vsn.data.video import VideoError, VideoReader
from vsn.data.video.frame_folders import describe_frames, read_picture
from vsn.data.video.jpeg import MAX_SIDE, decode_gray_jpeg, encode_jpeg
from vsn.data.video.packed_files import Shard
from vsn.data.video.reader import checked_indices, frame_size
from vsn.data.video.resize import resize_rgb
from vsn.system.files import atomic_write

SUFFIX = ".vsnflow"
QUALITY = 95
"""JPEG quality of stored flow."""

# flow_x_00001.jpg, x_00001.jpg, 000123-y_00001.jpg: the part before the axis distinguishes kinds of flow in a folder.
_FIELD = re.compile(r"(?P<kind>(?:.*[-_])?)(?P<axis>[xyXY])_(?P<number>[0-9]+)(?P<suffix>\.(?:jpe?g|png|webp))", re.I)
_ONE_FRAME = "A video of one frame has no flow; leave it out of the lists."


class FlowReader(VideoReader):
    """Read the flow of one video. Its frames are fields, uint8 `(H, W, 2)`: x and y; `num_frames` counts them.

    Fields have the size of the first one read, or that size with the shorter side at `short_side`. As in TSN, resizing
    keeps the values: they stay motions in pixels of the frames that the flow was computed from.
    """

    @abstractmethod
    def _read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield the fields at these distinct indices, uint8 `(H, W, 2)`, at their stored size."""

    def frames_at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the fields at these indices, uint8 `(n, H, W, 2)`. See `VideoReader.frames_at`."""
        indices = checked_indices(indices, self.num_frames)
        distinct = list(dict.fromkeys(indices))
        # Stacks of neighboring segments overlap in short videos, so indices repeat: decode each field once.
        fields: dict[int, np.ndarray] = {}
        size: tuple[int, int] | None = None
        for index, field in zip(distinct, self._read(distinct), strict=True):
            size = size or frame_size(self.path, field.shape[0], field.shape[1], self.short_side)
            fields[index] = field if field.shape[:2] == size else resize_rgb(field, *size)
        return np.stack([fields[index] for index in indices])

    def all_frames(self) -> np.ndarray:
        """Return every field, uint8 `(num_frames, H, W, 2)`. Raises `VideoError`."""
        return self.frames_at(range(self.num_frames))

    def __iter__(self) -> Iterator[np.ndarray]:
        yield from self.all_frames()


def open_flow(path: str | Path, *, layout: FlowLayout = "auto", short_side: int | None = None) -> StoredFlowReader:
    """Open the stored flow of a video: a `.vsnflow` file or a folder of pictures.

    Raises `VideoError` when it is absent, damaged, or not stored in `layout`.
    """
    if is_flow_file(path):
        return FlowFileReader(path, short_side=short_side)
    if layout == "file":
        raise VideoError(path, f"not a {SUFFIX} file, and data.flow_layout is 'file'.")
    return FlowFolderReader(path, layout, short_side=short_side)


def is_flow_file(path: str | Path) -> bool:
    """Return whether a path names a `.vsnflow` file, by its suffix."""
    return os.path.splitext(os.fspath(path))[1] == SUFFIX


class FlowFileReader(FlowReader):
    """Read a `.vsnflow` file."""

    def __init__(self, path: str | Path, *, short_side: int | None = None) -> None:
        # A packed set of frames has the same format, so the suffix could lie.
        self._shard = Shard(path)
        if self._shard.description.get("kind") != "vsn flow" or len(self._shard.videos) != 1:
            raise VideoError(path, "it holds frames, not flow.")
        video = self._shard.videos[0]
        rate = float(video["frames_per_second"])
        super().__init__(path, num_frames=int(video["num_frames"]), frames_per_second=rate, short_side=short_side)

    @property
    def storage(self) -> str:
        """How the flow is stored, as a phrase for users."""
        return f"{SUFFIX} files, {self.num_frames} fields in the first"

    def _read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        for index in indices:
            data = self._shard.jpeg(0, index)
            try:
                yield decode_field(data)
            except ValueError as error:
                raise self._shard.damaged(0, index, f"({error})") from None


class FlowFolderReader(FlowReader):
    """Read a folder of pictures of flow: layout "xy", or "rg" with x in red and y in green.

    With layout "auto", pictures named after x and y are read if there are any, else numbered ones.

    Attributes:
        layout: "xy" or "rg".
        names: The files of each field: one of x and one of y, or one of both.
        start: Number of the first field.
    """

    def __init__(
        self, path: str | Path, layout: Literal["auto", "xy", "rg"] = "auto", *, short_side: int | None = None
    ) -> None:
        # TSN keeps frames and flow in one folder, so with "auto" named pictures win over numbered ones.
        kinds = _list_axes(path)
        if layout == "rg" or (layout == "auto" and not kinds):
            self.layout = "rg"
            try:
                files = describe_frames(path)
            except VideoError as error:
                raise VideoError(path, f"no flow: {error.reason} {_ONE_FRAME}") from None
            self.names: list[tuple[str, ...]] = [(files.name(index),) for index in range(files.num_frames)]
            self.start = files.start
        else:
            self.layout = "xy"
            self.names, self.start = _pair_axes(path, kinds)
        super().__init__(path, num_frames=len(self.names), frames_per_second=0.0, short_side=short_side)

    @property
    def storage(self) -> str:
        """How the flow is stored, as a phrase for users."""
        suffix = ", red for x and green for y" if self.layout == "rg" else ""
        return f"pictures from {' and '.join(self.names[0])} on{suffix}"

    def _read(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        for index in indices:
            names = self.names[index]
            # Blue is dropped: it is empty.
            if self.layout == "rg":
                yield np.ascontiguousarray(read_picture(self.path, names[0])[..., :2])
                continue
            x, y = (read_picture(self.path, name, gray=True) for name in names)
            if x.shape != y.shape:
                raise VideoError(
                    self.path,
                    f"{names[0]} has {x.shape[0]}x{x.shape[1]} pixels, {names[1]} has {y.shape[0]}x{y.shape[1]}.",
                )
            yield np.stack([x, y], axis=2)


StoredFlowReader = FlowFileReader | FlowFolderReader


def _list_axes(path: str | Path) -> dict[str, dict[str, dict[int, str]]]:
    """Map each kind of names to axis -> field number -> file name."""
    try:
        names = os.listdir(path)
    except OSError as error:
        raise VideoError(path, f"the folder of flow cannot be listed ({error.strerror}).") from None
    # TSN keeps img_00001.jpg next to flow_x_00001.jpg; other names are skipped.
    kinds: dict[str, dict[str, dict[int, str]]] = {}
    for name in sorted(names):
        if (match := _FIELD.fullmatch(name)) and not name.startswith("."):
            axes = kinds.setdefault(match["kind"], {"x": {}, "y": {}})
            numbered = axes[match["axis"].lower()]
            if (number := int(match["number"])) in numbered:
                raise VideoError(path, f"{numbered[number]} and {name} are the same field; keep one.")
            numbered[number] = name
    return kinds


def _pair_axes(path: str | Path, kinds: dict[str, dict[str, dict[int, str]]]) -> tuple[list[tuple[str, ...]], int]:
    """Return the files (x, y) of each field, and the number of the first. Raises `VideoError` for gaps."""
    if not kinds:
        raise VideoError(path, f"no flow: no pictures such as flow_x_00001.jpg and flow_y_00001.jpg. {_ONE_FRAME}")
    if len(kinds) > 1:
        raise VideoError(
            path, f"several kinds of flow: {', '.join(f'{kind}x_...' for kind in sorted(kinds))}; keep one."
        )
    (axes,) = kinds.values()
    # A gap would shift all later motions against their frames, so it is an error.
    numbers = sorted(axes["x"].keys() | axes["y"].keys())
    for number in range(numbers[0], numbers[-1] + 1):
        for axis in ("x", "y"):
            if number not in axes[axis]:
                raise VideoError(
                    path,
                    f"the {axis} of flow field {number} is missing: there are {len(axes['x'])} pictures of x and "
                    f"{len(axes['y'])} of y, numbered {numbers[0]} to {numbers[-1]}.",
                )
    return [(axes["x"][number], axes["y"][number]) for number in numbers], numbers[0]


def write_flow_file(
    path: str | Path,
    fields: Iterable[np.ndarray],
    *,
    video_id: str,
    frames_per_second: float = 0.0,
    quality: int = QUALITY,
) -> int:
    """Write fields, uint8 `(H, W, 2)` of one size, to a `.vsnflow` file atomically; return their number.

    Fields are consumed one at a time. `frames_per_second` is the video's, 0.0 when unknown. The folder of a data set's
    flow also needs `flow.json`: `write_flow_metadata`. Raises `ValueError` for no field, a field of another shape or
    type, or another suffix.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(f"{path}: expected a name that ends in {SUFFIX}.")
    num_fields, shape = 0, None
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        writer = ShardWriter(file)
        for field in fields:
            _check_field(path, field, shape)
            shape = field.shape
            writer.add_frame(encode_field(field, quality=quality))
            num_fields += 1
        if shape is None:
            raise ValueError(f"{path}: no field to write; a video of one frame has no flow.")
        writer.end_video(frames_per_second=frames_per_second, height=2 * shape[0], width=shape[1])
        writer.finish(json.dumps({"kind": "vsn flow", "ids": [video_id]}, ensure_ascii=False).encode())
    return num_fields


def encode_field(field: np.ndarray, *, quality: int = QUALITY) -> bytes:
    """Encode a field, uint8 `(H, W, 2)`, as a gray JPEG of `(2H, W)`: x above y."""
    return encode_jpeg(np.concatenate([field[..., 0], field[..., 1]]), quality=quality)


def decode_field(data: bytes) -> np.ndarray:
    """Decode a field encoded by `encode_field`. Raises `ValueError`."""
    return np.stack(np.split(decode_gray_jpeg(data), 2), axis=2)


def write_flow_folder(path: str | Path, fields: Iterable[np.ndarray], *, layout: Literal["xy", "rg"] = "xy") -> int:
    """Write fields, uint8 `(H, W, 2)`, as a folder of pictures atomically; return their number.

    Layout "xy" writes `flow_x_00001.jpg`, `flow_y_00001.jpg`, ...; "rg" writes `000001.jpg`, ..., with blue at `ZERO`.

    Raises:
        ValueError: No field.
        FileExistsError: `path` exists.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists. Remove it first.")
    number = 0
    with atomic_write(path, folder=True) as folder:
        for number, field in enumerate(fields, 1):
            if layout == "rg":
                picture = np.dstack([field, np.full_like(field[..., 0], ZERO)])
                # 4:4:4, because JPEG's default halves the resolution of colors, which here are motions.
                Image.fromarray(picture).save(folder / f"{number:06d}.jpg", quality=QUALITY, subsampling="4:4:4")
                continue
            for axis, values in zip("xy", np.moveaxis(field, 2, 0), strict=True):
                data = encode_jpeg(np.ascontiguousarray(values), quality=QUALITY)
                (folder / f"flow_{axis}_{number:05d}.jpg").write_bytes(data)
        if not number:
            raise ValueError(f"{path}: no field to write; a video of one frame has no flow.")
    return number


def _check_field(path: Path, field: np.ndarray, shape: tuple[int, ...] | None) -> None:
    valid = field.dtype == np.uint8 and field.ndim == 3 and field.shape[2] == 2
    if not valid or (shape is not None and field.shape != shape):
        expected = "(H, W, 2)" if shape is None else f"{shape}, as the first,"
        raise ValueError(f"{path}: expected fields of uint8 {expected} got {field.dtype} {field.shape}.")
    if max(2 * field.shape[0], field.shape[1]) > MAX_SIDE:
        raise ValueError(f"{path}: a field of {field.shape[0]}x{field.shape[1]} pixels is too large for a JPEG.")
