"""Read a video that is a folder of numbered JPEG, PNG or WebP files.

A reader lists the folder once, opens the first frame for the size, and then only the frames wanted.
Ambiguous names are an error that names the setting to use, never a guess.
"""

from __future__ import annotations

import io
import os
import re
import stat
import string
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg  # type: ignore  # it has no types
from PIL import Image, UnidentifiedImageError

from vsn.config import ConfigError
from vsn.data.video.jpeg import decode_gray_jpeg, decode_jpeg
from vsn.data.video.orientation import BY_EXIF, UPRIGHT, Orientation
from vsn.data.video.reader import MAX_PIXELS, PictureReader, VideoError, VideoMetadata
from vsn.data.video.resize import resize_rgb

_NUMBERED = re.compile(r"(.*?)([0-9]+)(\.(?:jpe?g|png|webp))", re.IGNORECASE | re.DOTALL)
# Optical flow is often stored in the folder of the frames: flow_x_00001.jpg, x_00001.jpg, 000123-y_00001.jpg.
_FLOW = re.compile(r"(?:^|[-_])[xy]_$", re.IGNORECASE)
_KINDS_SHOWN = 5
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class FrameFiles:
    """The `num_frames` frame files of a folder, numbered from `start` without a gap."""

    template: str
    """Their names, such as "img_{:05d}.jpg"."""
    start: int
    """Number of the first."""
    num_frames: int

    def name(self, index: int) -> str:
        """Return the file name of frame `index`, which counts from 0."""
        return self.template.format(self.start + index)


def describe_frames(path: str | Path, template: str = "") -> FrameFiles:
    """Find the frame files of a folder; an empty template is detected from the names.

    Hidden files, optical flow, and files that are no numbered images are ignored. Raises `VideoError` for
    no frames, a missing frame, or several kinds of names, and `ConfigError` for a template without exactly
    one number.
    """
    if template:
        return _without_gaps(path, template, _numbers_matching(path, template))
    # Group the numbered images by the text around the number: ("img_", ".jpg") -> ["00001", "00002", ...].
    kinds: dict[tuple[str, str], list[str]] = {}
    for name in _listed(path):
        if (match := _NUMBERED.fullmatch(name)) and not name.startswith("."):
            prefix, digits, suffix = match.groups()
            kinds.setdefault((prefix, suffix), []).append(digits)
    candidates = sorted(kind for kind in kinds if not _FLOW.search(kind[0]))
    if not candidates:
        reason = "it holds optical flow only" if kinds else "it holds no numbered JPEG, PNG or WebP files"
        raise VideoError(path, f"no frames: {reason}.")
    templates = [_template(path, *kind, kinds[kind]) for kind in candidates]
    if len(templates) > 1:
        counts = [f"{len(kinds[kind])} x {name}" for kind, name in zip(candidates, templates, strict=True)]
        more = ", ..." if len(counts) > _KINDS_SHOWN else ""
        kinds_shown = ", ".join(counts[:_KINDS_SHOWN])
        raise VideoError(
            path,
            f'several kinds of frame files: {kinds_shown}{more}. Set data.frame_template, such as "{templates[0]}".',
        )
    return _without_gaps(path, templates[0], [int(digits) for digits in kinds[candidates[0]]])


class FrameFolderReader(PictureReader):
    """Read a video that is a folder of frame files."""

    def __init__(self, path: str | Path, template: str = "", *, short_side: int | None = None) -> None:
        self._files = describe_frames(path, template)
        name = self._files.name(0)
        data = _content(path, name)
        size = _stored_size(path, name, data)
        orientation = _orientation(data)
        super().__init__(path, num_frames=self._files.num_frames, frames_per_second=0.0, short_side=short_side)
        self.metadata = VideoMetadata(
            self.num_frames, 0.0, *orientation.exchanged(*size), orientation.rotation, orientation.mirrored
        )

    def displayed_sizes(self) -> set[tuple[int, int]]:
        """Return the different (height, width) of all pictures; they are read at that of the first. Raises `VideoError`."""
        sizes = set()
        for index in range(self.num_frames):
            name = self._files.name(index)
            data = _content(self.path, name)
            sizes.add(_orientation(data).exchanged(*_stored_size(self.path, name, data)))
        return sizes

    def read_into(self, index: int, out: np.ndarray) -> None:
        """See `PictureReader.read_into`."""
        name = self._files.name(index)
        data = _content(self.path, name)
        size = _stored_size(self.path, name, data)
        try:
            orientation = _orientation(data)
            if orientation == UPRIGHT and size == out.shape[:2] and _is_jpeg(data):
                decode_jpeg(data, out)  # saves a copy
                return
            image = orientation.apply(decode_jpeg(data) if _is_jpeg(data) else _decode_other(data))
            out[:] = image if image.shape == out.shape else resize_rgb(image, *out.shape[:2])
        except Exception as error:  # Pillow raises many types for damaged bytes
            raise _damaged(self.path, name, error) from error


def read_picture(path: str | Path, name: str, *, gray: bool = False) -> np.ndarray:
    """Read one picture of a folder at its stored size: uint8 `(H, W, 3)`, or its luma `(H, W)`. Raises `VideoError`."""
    data = _content(path, name)
    _stored_size(path, name, data)
    try:
        if _is_jpeg(data):
            return decode_gray_jpeg(data) if gray else decode_jpeg(data)
        if gray:
            with _opened(data) as picture:
                return np.asarray(picture.convert("L"))
        return _decode_other(data)
    except Exception as error:  # Pillow raises many types for damaged bytes
        raise _damaged(path, name, error) from error


# --- names ---------------------------------------------------------------------------------------------


def _listed(path: str | Path) -> list[str]:
    try:
        return os.listdir(path)
    except FileNotFoundError:
        raise VideoError(path, "no such folder.") from None
    except OSError as error:
        raise VideoError(path, f"cannot be listed ({error.strerror}).") from None


def _template(path: str | Path, prefix: str, suffix: str, numbers: list[str]) -> str:
    """The template of these names. Raises `VideoError` when they have no common one."""
    # 0007 and 1234 are padded to 4 digits; 7 and 1234 are not padded; 0007 and 7 have no common template.
    padded = next((len(digits) for digits in numbers if digits[0] == "0" and len(digits) > 1), 0)
    odd = next((digits for digits in numbers if f"{int(digits):0{padded}d}" != digits), None)
    literal = prefix.replace("{", "{{").replace("}", "}}")
    field = f"{{:0{padded}d}}" if padded else "{:d}"
    if odd is not None:
        raise VideoError(
            path,
            f"its frame files are numbered in two ways: {prefix}{odd}{suffix} does not match "
            f"{literal}{field}{suffix}. Set data.frame_template, or rename the files.",
        )
    return f"{literal}{field}{suffix}"


def _numbers_matching(path: str | Path, template: str) -> list[int]:
    """The numbers of the files that match a template. Raises `ConfigError` for an invalid template."""
    try:
        parts = list(string.Formatter().parse(template))
        (field,) = (part for part in parts if part[1] is not None)
        if field[1] not in ("", "0") or field[3] or not re.fullmatch(r"(0[1-9][0-9]?)?d?", field[2] or ""):
            raise ValueError
    except ValueError:
        raise ConfigError(
            f'data.frame_template is "{template}"; it must be a file name with the number in braces, such as '
            '"img_{:05d}.jpg".'
        ) from None
    end = parts.index(field) + 1
    before, after = ("".join(text for text, *_ in some) for some in (parts[:end], parts[end:]))
    pattern = re.compile(f"{re.escape(before)}([0-9]+){re.escape(after)}", re.DOTALL)
    matches = [match for name in _listed(path) if (match := pattern.fullmatch(name))]
    # img_7.jpg matches the pattern of img_{:05d}.jpg, but is not the file that the template names.
    numbers = [int(match[1]) for match in matches if template.format(int(match[1])) == match[0]]
    if not numbers:
        raise VideoError(path, f'no file matches data.frame_template, "{template}".')
    return numbers


def _without_gaps(path: str | Path, template: str, numbers: list[int]) -> FrameFiles:
    # Extraction that failed halfway, or thinned frames: indices would no longer be times.
    start, num_frames = min(numbers), len(numbers)
    if max(numbers) - start + 1 != num_frames:
        # Stops at the first gap: one file named by a date, 20240101.jpg, makes the range huge.
        present = set(numbers)
        missing = next(number for number in range(start, max(numbers)) if number not in present)
        raise VideoError(
            path,
            f"frame {template.format(missing)} is missing: there are {num_frames} frames, "
            f"numbered {start} to {max(numbers)}.",
        )
    return FrameFiles(template, start, num_frames)


# --- pictures ------------------------------------------------------------------------------------------


def _content(path: str | Path, name: str) -> bytes:
    try:
        with open(os.path.join(path, name), "rb", buffering=0, opener=_open_nonblocking) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise VideoError(path, f"frame {name} is not a regular file.")
            return file.read()
    except OSError as error:
        raise VideoError(path, f"frame {name} cannot be opened ({error.strerror}).") from None


def _open_nonblocking(path: str, flags: int) -> int:
    """Open without waiting: a named pipe called img_00001.jpg would otherwise block forever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _is_jpeg(data: bytes) -> bool:
    return data.startswith(b"\xff\xd8")


def _stored_size(path: str | Path, name: str, data: bytes) -> tuple[int, int]:
    """(height, width) in the header of a picture. Raises `VideoError` for a damaged header, or too many pixels."""
    try:
        size = simplejpeg.decode_jpeg_header(data)[:2]  # 30 times as fast as Pillow
    except ValueError:
        try:
            with _opened(data) as picture:
                size = picture.height, picture.width
        except Exception as error:  # Pillow raises many types for damaged bytes
            raise _damaged(path, name, error) from error
    if size[0] * size[1] > MAX_PIXELS:
        raise VideoError(
            path, f"frame {name} announces {size[0]}x{size[1]} pixels; the limit is {MAX_PIXELS // 10**6} million."
        )
    return size


def _opened(data: bytes) -> Image.Image:
    # Only these formats: others (EPS, TIFF) run more code on files from strangers.
    return Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP"))


def _orientation(data: bytes) -> Orientation:
    """The orientation that the EXIF tags of a picture state."""
    # Searching the bytes first spares most pictures a pass through Pillow. A JPEG begins with its tags.
    has_tags = b"Exif\0\0" in data[:65536] if _is_jpeg(data) else b"eXIf" in data or b"EXIF" in data
    if not has_tags:
        return UPRIGHT
    try:
        with _opened(data) as picture:
            return BY_EXIF.get(picture.getexif().get(_ORIENTATION, 1), UPRIGHT)
    except Exception:  # the picture is readable even if its tags are not
        return UPRIGHT


def _decode_other(data: bytes) -> np.ndarray:
    """A PNG or WebP picture, uint8 `(H, W, 3)`, without transparency; 16-bit samples keep their high bytes."""
    # Pillow converts 16-bit gray by clipping at 255, which turns most pictures white.
    with _opened(data) as picture:
        if picture.mode.startswith("I"):  # 16-bit gray
            gray = (np.asarray(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
            return np.repeat(gray[..., None], 3, axis=2)
        if "transparency" in picture.info:
            picture = picture.convert("RGBA")
        return np.asarray(picture.convert("RGB"))


def _damaged(path: str | Path, name: str, error: Exception) -> VideoError:
    if isinstance(error, UnidentifiedImageError):
        return VideoError(path, f"frame {name} is not a JPEG, PNG or WebP picture.")
    return VideoError(path, f"frame {name} is damaged ({str(error) or type(error).__name__}).")
