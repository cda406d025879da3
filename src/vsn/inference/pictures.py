"""Draw what was predicted: a contact sheet of a video's frames with its labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vsn.data.video import Part, open_video
from vsn.inference.prediction import Prediction
from vsn.system.files import atomic_write
from vsn.system.numbers import decimal, percent

NUM_FRAMES = 8
_COLUMNS, _WIDTH, _GAP = 4, 240, 8
"""Frames in a row, pixels of a frame's width, pixels between frames."""
INK, SOFT, PAPER, FAINT, BAR = "#1b2330", "#5a6575", "#ffffff", "#e6eaf0", "#2368cf"
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def font(size: int) -> Font:
    """Return DejaVu Sans where the system has it, which knows most scripts, else Pillow's own font, which is Latin."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def write_contact_sheet(
    path: Path, prediction: Prediction, *, frame_template: str = "", part: Part | None = None
) -> Path:
    """Write a .jpg of `NUM_FRAMES` frames, evenly spaced over the video, with the labels of a prediction below.

    Args:
        path: the file, written atomically.
        prediction: of the video, or of a part of it.
        frame_template: names of the frame files, for a folder of frames; empty: detected.
        part: the part of the video that was predicted.

    Raises:
        VideoError: the video cannot be read.
    """
    sheet = _draw(*_read_frames(prediction.path, frame_template, part), prediction)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        sheet.save(temporary, quality=88)
    return path


def _read_frames(path: Path, frame_template: str, part: Part | None) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Frames (N, h, w, 3) and their times in seconds."""
    with open_video(path, frame_template=frame_template) as video:

        def spread(count: int) -> NDArray[np.int64]:
            shown = range(count) if part is None else video.indices_between(part.start, part.end)
            # The middles of equal parts: a first frame is often black.
            return np.array(shown)[((np.arange(NUM_FRAMES) + 0.5) * len(shown) / NUM_FRAMES).astype(np.int64)]

        frames = video.sample(spread)
        return frames, video.begins + video.times[spread(video.num_frames)]


def _draw(frames: NDArray[np.uint8], times: NDArray[np.float64], prediction: Prediction) -> Image.Image:
    height = max(1, round(_WIDTH * frames.shape[1] / frames.shape[2]))
    text, small, line = font(18), font(13), 30
    cell = height + 22
    rows = -(-len(frames) // _COLUMNS)
    width = _COLUMNS * (_WIDTH + _GAP) + _GAP
    top = rows * cell + 2 * _GAP
    sheet = Image.new("RGB", (width, top + line * (len(prediction.labels) + 1) + 2 * _GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (frame, seconds) in enumerate(zip(frames, times.tolist(), strict=True)):
        x, y = _GAP + (number % _COLUMNS) * (_WIDTH + _GAP), _GAP + (number // _COLUMNS) * cell
        sheet.paste(Image.fromarray(frame).resize((_WIDTH, height)), (x, y))
        draw.text((x, y + height + 3), f"{decimal(seconds)} s", SOFT, small)
    unknown = "" if prediction.accepted else ": unknown, below the threshold"
    draw.text((_GAP, top), fitted(f"{prediction.path.name}{unknown}", text, width - 2 * _GAP), INK, text)
    left = width - 340
    for place, (label, probability) in enumerate(zip(prediction.labels, prediction.probabilities, strict=True)):
        y = top + line * (place + 1)
        draw.text((_GAP, y), fitted(label, text, left - 2 * _GAP), INK if place == 0 else SOFT, text)
        draw.rounded_rectangle((left, y + 5, left + 240, y + 17), 6, FAINT)
        if probability > 0.02:  # a rounded bar has a least width
            draw.rounded_rectangle((left, y + 5, left + 240 * probability, y + 17), 6, BAR)
        draw.text((width - _GAP, y), percent(probability), INK, text, anchor="ra")
    return sheet


def fitted(label: str, text: Font, width: float) -> str:
    """Return a label, cut where it is wider than ``width`` pixels."""
    if text.getlength(label) <= width:
        return label
    while label and text.getlength(f"{label}\u2026") > width:
        label = label[:-1]
    return f"{label}\u2026"
