"""JPEG in memory: bytes in, RGB out, and the way back.

Packed files and folders of frames share it. simplejpeg decodes what it can, Pillow what it declines
(CMYK, doubtful files): both are libjpeg-turbo and give the same pixels, the former in half the time.
"""

from __future__ import annotations

import io

import numpy as np
import simplejpeg  # type: ignore  # it has no types
from PIL import Image

MAX_SIDE = 65500
"""Pixels a side that libjpeg can hold."""


def decode_jpeg(data: bytes, out: np.ndarray | None = None) -> np.ndarray:
    """The picture, uint8 `(H, W, 3)`, RGB; written into `out` when given, which must have its shape.

    Gray pictures come out as RGB. Raises `ValueError` for bytes that are no whole JPEG.
    """
    image = _decode_turbo(data, out)
    if image is None:
        image = _decode_pillow(data)
    if out is None or image is out:
        return image
    if image.shape != out.shape:
        raise ValueError(f"a picture of {image.shape[0]}x{image.shape[1]} pixels, not {_size(out)}")
    out[:] = image
    return out


def encode_jpeg(image: np.ndarray, *, quality: int) -> bytes:
    """A picture, uint8 `(H, W, 3)` RGB with sides up to `MAX_SIDE`, as JPEG 4:2:0; quality 1 to 100."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality, subsampling="4:2:0")
    return stream.getvalue()


def decode_gray_jpeg(data: bytes) -> np.ndarray:
    """The brightness of a picture, uint8 `(H, W)`; of a gray one its bytes. Raises `ValueError`."""
    try:
        image: np.ndarray = simplejpeg.decode_jpeg(data, colorspace="GRAY")[..., 0]
        return image
    except ValueError:
        pass
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            return np.array(picture.convert("L"))
    except Exception as error:  # Pillow raises anything for damaged bytes
        raise ValueError(f"not a whole JPEG ({type(error).__name__}: {error})") from error


def encode_gray_jpeg(image: np.ndarray, *, quality: int) -> bytes:
    """A picture, uint8 `(H, W)` with sides up to `MAX_SIDE`, as a gray JPEG; quality 1 to 100."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def _decode_turbo(data: bytes, out: np.ndarray | None) -> np.ndarray | None:
    """None for what simplejpeg declines."""
    try:
        image: np.ndarray = simplejpeg.decode_jpeg(data, buffer=out)
    except ValueError:
        return None
    if out is None:
        return image
    return out if image.shape == out.shape else None


def _decode_pillow(data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            return np.array(picture.convert("RGB"))
    except Exception as error:  # Pillow raises anything for damaged bytes
        raise ValueError(f"not a whole JPEG ({type(error).__name__}: {error})") from error


def _size(image: np.ndarray) -> str:
    return f"{image.shape[0]}x{image.shape[1]}"
