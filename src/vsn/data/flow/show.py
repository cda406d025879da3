"""Optical flow as pictures: frames beside the colors of their motion, with a legend.

The colors are those of Baker et al., "A Database and Evaluation Methodology for Optical Flow" (IJCV 2011):
direction is hue, on a wheel with more steps where the eye sees more, and length is saturation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vsn.config import ConfigError
from vsn.data.flow.compute import ComputeFlow, compute_fields, iter_fields
from vsn.data.flow.values import ZERO, bytes_to_flow
from vsn.data.video import open_video, write_video
from vsn.system.files import atomic_write

# Hues at the corners of the wheel and the steps between them: red to yellow 15, to green 6, ...
_STEPS = np.cumsum([0, 15, 6, 4, 11, 13, 6])
_HUES = np.array([
    (255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255), (255, 0, 0),
])  # fmt: skip
_LEGEND_HEIGHT = 56
_LEAST_SCALE = 1.0
"""Pixels: what is stiller than this is noise, and shown pale."""


def flow_colors(flow: np.ndarray, scale: float) -> np.ndarray:
    """Motions, pixels `(..., 2)`, as RGB, uint8 `(..., 3)`: none is white, `scale` pixels full color, more darker.

    Right is red, down yellow, left cyan, up violet.

    >>> flow_colors(np.array([[0.0, 0.0], [4.0, 0.0], [8.0, 0.0]]), 4.0).tolist()
    [[255, 255, 255], [255, 0, 0], [191, 0, 0]]
    """
    if not scale > 0:
        raise ValueError(f"scale is {scale}; the motion of full color is above 0 pixels.")
    turn = np.arctan2(flow[..., 1], flow[..., 0]) / (2 * math.pi) % 1.0 * _STEPS[-1]
    hue = np.stack([np.interp(turn, _STEPS, _HUES[:, channel]) for channel in range(3)], axis=-1)
    length = np.linalg.norm(flow, axis=-1, keepdims=True) / scale
    inside = 255 - np.minimum(length, 1) * (255 - hue)
    return np.where(length > 1, 0.75 * hue, inside).astype(np.uint8)


def show_flow(
    video: str | Path,
    out: str | Path,
    compute: ComputeFlow,
    *,
    bound: float,
    short_side: int | None,
    num_pairs: int = 4,
) -> float:
    """Draw the flow of a video into `out`, and return the scale: the motion, pixels, of full color.

    A `.png` shows `num_pairs` frames, at the middles of as many equal parts of the video, above their flow; an
    `.mp4` every frame beside its flow. The flow is what `vsn flow extract` stores. Raises `VideoError`, and `ConfigError`
    for another suffix.
    """
    out = Path(out)
    if out.suffix not in (".png", ".mp4"):
        raise ConfigError(f"--out is {out}; flow is drawn as .png or .mp4.")
    if num_pairs < 1:
        raise ConfigError(f"the number of pairs is {num_pairs}; it must be 1 or more.")
    if out.suffix == ".mp4":
        return _show_film(video, out, compute, bound=bound, short_side=short_side)
    taken: list[int] = []

    def choose(num_fields: int, _: float) -> list[int]:
        count = min(num_pairs, num_fields)
        taken[:] = [int((i + 0.5) * num_fields / count) for i in range(count)]
        return taken

    stored = compute_fields(video, choose, compute, bound=bound, short_side=short_side)
    frames = open_video(video, short_side=short_side).frames_at(taken)
    flow = _motions(stored, bound)
    scale = _scale(flow)
    rows = [np.concatenate(list(frames), 1), np.concatenate(list(flow_colors(flow, scale)), 1)]
    picture = np.concatenate([*rows, _legend(rows[0].shape[1], scale)])
    with atomic_write(out) as part:
        Image.fromarray(picture).save(part)
    return scale


def _show_film(video: str | Path, out: Path, compute: ComputeFlow, *, bound: float, short_side: int | None) -> float:
    frames = open_video(video, short_side=short_side)
    # Bytes, for the scale is known when all are there.
    fields = list(iter_fields(video, frames, compute, bound=bound))
    scale = _scale(_motions(np.stack(fields), bound))
    height, width = (side // 2 * 2 for side in fields[0].shape[:2])
    legend = _legend(2 * width, scale)

    def pictures() -> Iterator[np.ndarray]:
        for frame, field in zip(frames, fields, strict=False):  # the last frame has no flow
            pair = [frame, flow_colors(_motions(field, bound), scale)]
            yield np.concatenate([np.concatenate([one[:height, :width] for one in pair], 1), legend])

    write_video(out, pictures(), frames_per_second=frames.frames_per_second or 25.0)
    return scale


def _motions(stored: np.ndarray, bound: float) -> np.ndarray:
    """Pixels of motion; the two bytes beside no motion, which JPEG mixes with it, are none, not specks of color."""
    still = np.abs(stored.astype(int) - ZERO + 0.5) < 2
    return np.where(still, np.float32(0), bytes_to_flow(stored, bound))


def _scale(flow: np.ndarray) -> float:
    """Motion that 99 of 100 pixels do not exceed, to half a pixel upwards."""
    length = float(np.percentile(np.linalg.norm(flow, axis=-1), 99))
    return max(_LEAST_SCALE, math.ceil(2 * length) / 2)


def _legend(width: int, scale: float) -> np.ndarray:
    """The wheel, and what it says, uint8 `(56, width, 3)`."""
    side = _LEGEND_HEIGHT - 8
    y, x = (np.mgrid[:side, :side] - (side - 1) / 2) / ((side - 1) / 2) * scale
    wheel = flow_colors(np.stack([x, y], 2), scale)
    wheel[np.hypot(x, y) > scale] = 255
    legend = np.full((_LEGEND_HEIGHT, width, 3), 255, np.uint8)
    room = min(side, width - 4)
    legend[4 : 4 + side, 4 : 4 + room] = wheel[:, :room]
    image = Image.fromarray(legend)
    draw = ImageDraw.Draw(image)
    draw.text((side + 12, 8), "where the pixels move to", fill="black")
    draw.text((side + 12, 26), f"full color: {scale:g} px a frame", fill="black")
    return np.asarray(image)
