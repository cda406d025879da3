"""A label and its probability drawn on a picture."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vsn.engine.calibrate import UNKNOWN

_LABEL, _NO_LABEL = (255, 200, 60), (150, 150, 150)


def draw_label(picture: np.ndarray, label: str, probability: float | None) -> np.ndarray:
    """The picture with a dark band at its foot: the label, and a bar as long as it is probable.

    Args:
        picture: uint8 ``(H, W, 3)``, RGB; it is left as it is.
        label: a class name, "unknown", or whatever is to be said.
        probability: a share of 1; None draws no bar.

    Returns:
        uint8 ``(H', W', 3)``: H and W, less one pixel where they are odd, as H.264 wants them.
    """
    height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
    image = Image.fromarray(np.ascontiguousarray(picture[:height, :width]))
    band = max(16, height // 9)
    draw = ImageDraw.Draw(image, "RGBA")
    top = max(0, height - band)
    draw.rectangle((0, top, width, height), fill=(0, 0, 0, 170))
    font = ImageFont.load_default(size=max(8, round(band * 0.52)))
    colour = _NO_LABEL if label == UNKNOWN or probability is None else _LABEL
    said = label if probability is None else f"{probability:.0%}  {label}"
    margin = max(2, band // 6)
    draw.text(
        (margin, top + margin // 2), _fitting(draw, said, font, width - 2 * margin), font=font, fill=colour
    )
    if probability is not None:
        bar = max(2, band // 8)
        right = margin + round((width - 2 * margin) * min(1.0, max(0.0, probability)))
        draw.rectangle((margin, height - bar - margin // 2, right, height - margin // 2), fill=colour)
    return np.asarray(image)


def _fitting(
    draw: ImageDraw.ImageDraw, said: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int
) -> str:
    """As much of a text as there is room for."""
    if draw.textlength(said, font=font) <= room:
        return said
    while said and draw.textlength(f"{said}\u2026", font=font) > room:
        said = said[:-1]
    return f"{said}\u2026"
