"""Flow of a video in one file, `video.vsnflow`: layout "file", what we write ourselves.

The file is a shard of one video as `vsn.data.video.packed_files` lays it out, checksums and all, and a field
is one gray JPEG with x above y. Why so:

- One file a video: it has the video's name, so no index is needed, and an extraction that stops, or
  that several machines share, leaves whole files that need no further look. Pictures in folders are
  600 files for a video of 300 frames.
- Gray: a color JPEG stores colors at half the resolution and mixes red with green, so that x and y
  leak into one another (layout "rg").
- x above y: one read and one decoding a field, and either is a plain block of rows.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vsn.data.packing.shards import ShardWriter
from vsn.data.video import VideoError
from vsn.data.video.jpeg import MAX_SIDE, decode_gray_jpeg, encode_gray_jpeg
from vsn.data.video.packed_files import Shard
from vsn.data.video.reader import Choose, chosen, frame_size, resize_rgb
from vsn.system.files import atomic_write

SUFFIX = ".vsnflow"


def write_flow_file(
    path: str | Path,
    fields: Iterable[np.ndarray],
    *,
    video_id: str,
    frames_per_second: float = 0.0,
    quality: int = 95,
) -> int:
    """Write the fields of a video, uint8 `(H, W, 2)` of one size, one after the other; return their number.

    `path` ends in `.vsnflow`; the file is there whole or not at all. `frames_per_second` is the video's,
    0.0 when unknown. The folder of a data set's flow also needs its `flow.json`: `write_flow_facts`.
    Raises `ValueError` for fields of another shape or type, without a field, and for another suffix.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(f"{path}: the name of a file of flow ends in {SUFFIX}.")
    with atomic_write(path) as part:
        num_fields, shape = 0, None
        with part.open("wb") as file:
            writer = ShardWriter(file)
            for field in fields:
                _check_field(path, field, shape)
                shape = field.shape
                writer.add_frame(encode_gray_jpeg(np.concatenate([field[..., 0], field[..., 1]]), quality=quality))
                num_fields += 1
            if shape is None:
                raise ValueError(f"{path}: no field to write; a video of one frame has no flow.")
            writer.end_video(frames_per_second=frames_per_second, height=2 * shape[0], width=shape[1])
            writer.finish(json.dumps({"kind": "vsn flow", "ids": [video_id]}, ensure_ascii=False).encode())
    return num_fields


def count_fields(path: str | Path) -> int:
    """How many fields a file of flow has. Raises `VideoError`."""
    return int(_open(path).videos[0]["num_frames"])


def read_flow_file(path: str | Path, choose: Choose, *, short_side: int | None = None) -> np.ndarray:
    """Chosen fields, uint8 `(n, H, W, 2)`; see `vsn.data.flow.read.read_flow`."""
    shard = _open(path)
    video, table = shard.videos[0], shard.frame_table(0)
    indices = chosen(choose, int(video["num_frames"]), float(video["frames_per_second"]))
    ends = np.cumsum(table["size"], dtype=np.uint64) + video["start"]
    stored = int(video["height"]) // 2, int(video["width"])
    size = frame_size(path, *stored, short_side)
    read: dict[int, np.ndarray] = {}
    for index in indices:
        if index in read:
            continue
        num_bytes = int(table["size"][index])
        data = shard.read(int(ends[index]) - num_bytes, num_bytes)
        if zlib.crc32(data) != table["crc"][index]:
            raise VideoError(path, f"field {index} is damaged; write the file anew.")
        try:
            picture = decode_gray_jpeg(data)
        except ValueError as error:
            raise VideoError(path, f"field {index} is damaged ({error}); write the file anew.") from None
        field = np.stack([picture[: stored[0]], picture[stored[0] :]], axis=2)
        read[index] = field if size == stored else resize_rgb(field, *size)
    return np.stack([read[index] for index in indices])


def _open(path: str | Path) -> Shard:
    shard = Shard(path)
    if shard.description.get("kind") != "vsn flow" or len(shard.videos) != 1:
        raise VideoError(path, "it holds no flow; a packed set of frames has another suffix.")
    return shard


def _check_field(path: Path, field: np.ndarray, shape: tuple[int, ...] | None) -> None:
    plain = field.dtype == np.uint8 and field.ndim == 3 and field.shape[2] == 2
    if not plain or (shape is not None and field.shape != shape):
        raise ValueError(
            f"{path}: a field of shape {field.shape}, {field.dtype}, came; fields are uint8 (H, W, 2)"
            + (f", and the first had shape {shape}." if shape is not None else ".")
        )
    if max(2 * field.shape[0], field.shape[1]) > MAX_SIDE:
        raise ValueError(f"{path}: a field of {field.shape[0]}x{field.shape[1]} pixels is too large for a JPEG.")
