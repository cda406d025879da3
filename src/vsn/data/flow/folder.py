"""Flow stored as pictures in a folder a video: layouts "xy" and "rg"."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from vsn.data.flow.values import ZERO
from vsn.data.video import VideoError
from vsn.data.video.frame_folders import describe_frames, read_picture
from vsn.data.video.jpeg import encode_gray_jpeg
from vsn.data.video.reader import Choose, chosen, frame_size, resize_rgb
from vsn.system.files import atomic_write

# flow_x_00001.jpg, x_00001.jpg, 000123-y_00001.jpg: what comes before the axis names the kind.
_FIELD = re.compile(r"(?P<kind>(?:.*[-_])?)(?P<axis>[xyXY])_(?P<number>[0-9]+)(?P<suffix>\.(?:jpe?g|png|webp))", re.I)


@dataclass(frozen=True)
class FieldFiles:
    """The files of a video's flow, in the order of its fields."""

    layout: Literal["xy", "rg"]
    names: tuple[tuple[str, ...], ...]
    """Of each field: the pictures of x and y, or the one of both."""
    start: int
    """Number of the first field."""


def describe_fields(path: str | Path, layout: Literal["auto", "xy", "rg"] = "auto") -> FieldFiles:
    """Which files of a folder hold its flow.

    auto: pictures named x and y where there are such, else the numbered ones. Raises `VideoError` for a
    folder without flow, with a field missing, or with several kinds of names.
    """
    kinds = _named_fields(path)
    if layout == "rg" or (layout == "auto" and not kinds):
        return _both_in_one(path)
    if not kinds:
        raise VideoError(
            path, f"no flow: it holds no pictures such as flow_x_00001.jpg and flow_y_00001.jpg. {_ADVICE}"
        )
    if len(kinds) > 1:
        raise VideoError(
            path, f"several kinds of flow: {', '.join(f'{kind}x_...' for kind in sorted(kinds))}; keep one."
        )
    ((_, axes),) = kinds.items()
    numbers = sorted(axes["x"].keys() | axes["y"].keys())
    for number in range(numbers[0], numbers[-1] + 1):
        for axis in ("x", "y"):
            if number not in axes[axis]:
                raise VideoError(
                    path,
                    f"the {axis} of flow field {number} is missing: there are {len(axes['x'])} pictures of x and "
                    f"{len(axes['y'])} of y, numbered {numbers[0]} to {numbers[-1]}.",
                )
    return FieldFiles("xy", tuple((axes["x"][n], axes["y"][n]) for n in numbers), numbers[0])


_ADVICE = "A video of one frame has none; leave it out of the lists."


def read_flow_folder(
    path: str | Path,
    choose: Choose,
    layout: Literal["auto", "xy", "rg"] = "auto",
    *,
    short_side: int | None = None,
) -> np.ndarray:
    """Chosen fields, uint8 `(n, H, W, 2)`; see `vsn.data.flow.read.read_flow`."""
    files = describe_fields(path, layout)
    indices = chosen(choose, len(files.names), 0.0)
    first = _read_field(path, files.names[indices[0]])
    size = frame_size(path, first.shape[0], first.shape[1], short_side)
    read: dict[int, np.ndarray] = {}
    for index in indices:
        if index not in read:
            field = first if index == indices[0] else _read_field(path, files.names[index])
            read[index] = field if field.shape[:2] == size else resize_rgb(field, *size)
    return np.stack([read[index] for index in indices])


def write_flow_folder(
    path: str | Path,
    fields: Iterable[np.ndarray],
    *,
    layout: Literal["xy", "rg"] = "xy",
    quality: int = 95,
) -> int:
    """Write fields, uint8 `(H, W, 2)`, as `flow_x_00001.jpg`, `flow_y_00001.jpg` and on; return their number.

    Of layout "rg" they are `000001.jpg` and on, colors at full resolution, blue at the zero of flow.

    The folder is there whole or not at all. Raises `ValueError` without a field, and `FileExistsError`
    when there is something at `path` already.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} is there already; remove it to write it anew.")
    number = 0
    with atomic_write(path, folder=True) as part:
        for number, field in enumerate(fields, 1):
            if layout == "rg":
                both = np.dstack([field, np.full_like(field[..., 0], ZERO)])
                # Half the resolution, as JPEG has it for colors by default, would blur the motions.
                Image.fromarray(both).save(part / f"{number:06d}.jpg", quality=quality, subsampling="4:4:4")
                continue
            for axis, values in zip("xy", np.moveaxis(field, 2, 0), strict=True):
                data = encode_gray_jpeg(np.ascontiguousarray(values), quality=quality)
                (part / f"flow_{axis}_{number:05d}.jpg").write_bytes(data)
        if not number:
            raise ValueError(f"{path}: no field to write; a video of one frame has no flow.")
    return number


def _named_fields(path: str | Path) -> dict[str, dict[str, dict[int, str]]]:
    """Kind of names -> axis -> number of the field -> name of the file."""
    try:
        names = os.listdir(path)
    except OSError as error:
        raise VideoError(path, f"the folder of flow cannot be listed ({error.strerror}).") from None
    kinds: dict[str, dict[str, dict[int, str]]] = {}
    for name in sorted(names):
        if (match := _FIELD.fullmatch(name)) and not name.startswith("."):
            axes = kinds.setdefault(match["kind"], {"x": {}, "y": {}})
            numbered = axes[match["axis"].lower()]
            if (number := int(match["number"])) in numbered:
                raise VideoError(path, f"{numbered[number]} and {name} are the same field; keep one.")
            numbered[number] = name
    return kinds


def _both_in_one(path: str | Path) -> FieldFiles:
    try:
        files = describe_frames(path)
    except VideoError as error:
        raise VideoError(path, f"no flow: {error.reason} {_ADVICE}") from None
    names = tuple((files.name(index),) for index in range(files.num_frames))
    return FieldFiles("rg", names, files.start)


def _read_field(path: str | Path, names: tuple[str, ...]) -> np.ndarray:
    """One field, uint8 `(H, W, 2)`, at its stored size."""
    if len(names) == 1:
        return np.ascontiguousarray(read_picture(path, names[0])[..., :2])
    x, y = (read_picture(path, name, gray=True) for name in names)
    if x.shape != y.shape:
        raise VideoError(
            path, f"{names[0]} has {x.shape[0]}x{x.shape[1]} pixels, {names[1]} {y.shape[0]}x{y.shape[1]}."
        )
    return np.stack([x, y], axis=2)
