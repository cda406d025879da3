"""Decode and encode JPEG in memory, for packed files, folders of frames and stored flow.

simplejpeg decodes most files; Pillow decodes those that it rejects (CMYK, suspicious headers). Both use
libjpeg-turbo and give the same pixels, simplejpeg in half the time.
"""

from __future__ import annotations

import io

import numpy as np
import simplejpeg  # type: ignore  # it has no types
from PIL import Image

MAX_SIDE = 65500
"""Largest side, in pixels, that libjpeg can encode."""


def decode_jpeg(data: bytes, out: np.ndarray | None = None) -> np.ndarray:
    """Decode to uint8 `(H, W, 3)`, RGB, also from gray; write into `out` if given, which must have that shape.

    Raises `ValueError` for bytes that are no complete JPEG.
    """
    # Decoding in place saves a copy of every frame.
    try:
        image: np.ndarray = simplejpeg.decode_jpeg(data, buffer=out)
        if out is not None and image.shape == out.shape:  # decoded in place
            return out
    except ValueError:
        image = _decode_with_pillow(data, "RGB")
    if out is None:
        return image
    if image.shape != out.shape:
        raise ValueError(f"Expected {out.shape[0]}x{out.shape[1]} pixels, got {image.shape[0]}x{image.shape[1]}.")
    out[:] = image
    return out


def decode_gray_jpeg(data: bytes) -> np.ndarray:
    """Decode to the luma plane, uint8 `(H, W)`. Raises `ValueError` for bytes that are no complete JPEG."""
    try:
        image: np.ndarray = simplejpeg.decode_jpeg(data, colorspace="GRAY")[..., 0]
    except ValueError:
        image = _decode_with_pillow(data, "L")
    return image


def encode_jpeg(image: np.ndarray, *, quality: int) -> bytes:
    """Encode RGB, uint8 `(H, W, 3)`, as JPEG 4:2:0, or gray, uint8 `(H, W)`; sides up to `MAX_SIDE`, quality 1 to 100."""
    # Pillow would give gray pictures other bytes with a subsampling.
    stream = io.BytesIO()
    options = {"subsampling": "4:2:0"} if image.ndim == 3 else {}
    Image.fromarray(image).save(stream, "JPEG", quality=quality, **options)
    return stream.getvalue()


def _decode_with_pillow(data: bytes, mode: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            return np.array(picture.convert(mode))
    except Exception as error:  # Pillow raises many types for damaged bytes
        raise ValueError(f"not a complete JPEG ({type(error).__name__}: {error})") from error
