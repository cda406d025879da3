"""Draw optical flow as colors, next to the frames, with a legend.

Colors as in Baker et al., "A Database and Evaluation Methodology for Optical Flow" (IJCV 2011): direction is hue, on a
wheel with more steps where the eye distinguishes more, and length is saturation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vsn.config import ConfigError
from vsn.data.flow.compute import ComputedFlowReader, ComputeFlow, iter_fields
from vsn.data.flow.values import ZERO, bytes_to_flow
from vsn.data.video import at_constant_rate, open_video, write_video
from vsn.system.files import atomic_write

# Hues at the corners of the wheel, and their positions on it: red to yellow are 15 steps, yellow to green 6, ...
_STEPS = np.cumsum([0, 15, 6, 4, 11, 13, 6])
_HUES = np.array([
    (255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255), (255, 0, 0),
])  # fmt: skip
_LEGEND_HEIGHT = 56
_MIN_SCALE = 1.0
"""Motion, pixels, below which full color would show noise."""


def flow_colors(flow: np.ndarray, scale: float) -> np.ndarray:
    """Convert motions, pixels `(..., 2)`, to RGB, uint8 `(..., 3)`: none is white, `scale` full color, more is darker.

    Right is red, down yellow, left cyan, up violet.

    >>> flow_colors(np.array([[0.0, 0.0], [4.0, 0.0], [8.0, 0.0]]), 4.0).tolist()
    [[255, 255, 255], [255, 0, 0], [191, 0, 0]]
    """
    if not scale > 0:
        raise ValueError(f"scale is {scale}; it must be above 0 pixels.")
    # Angle to position on the wheel of 55 steps, then to a color between its corners.
    turn = np.arctan2(flow[..., 1], flow[..., 0]) / (2 * math.pi) % 1.0 * _STEPS[-1]
    hue = np.stack([np.interp(turn, _STEPS, _HUES[:, channel]) for channel in range(3)], axis=-1)
    # From white (no motion) to the hue; beyond the scale the hue gets darker, as Baker et al. show it.
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
    """Draw the flow of a video, as `vsn flow extract` would store it, into `out`.

    Args:
        video: A video file or a folder of frames.
        out: A `.png` of `num_pairs` frames above their flow, or an `.mp4` of every frame next to its flow.
        compute: See `vsn.data.flow.compute.flow_method`.
        bound: Motion, pixels, that byte 255 stands for.
        short_side: Shorter side, pixels, that frames are resized to before; None: not resized.
        num_pairs: Frames in a picture, from the centers of as many equal segments.

    Returns:
        The scale: the motion, pixels, of full color.

    Raises:
        VideoError: The video cannot be read, or has one frame.
        ConfigError: Another suffix, or no pair.
    """
    out = Path(out)
    if out.suffix not in (".png", ".mp4"):
        raise ConfigError(f"--out is {out}; its suffix must be .png or .mp4.")
    if num_pairs < 1:
        raise ConfigError(f"--pairs is {num_pairs}; it must be 1 or more.")
    if out.suffix == ".mp4":
        return _show_film(video, out, compute, bound=bound, short_side=short_side)
    flow_reader = ComputedFlowReader(video, compute, bound=bound, computed_short_side=short_side)

    def centers(num_fields: int) -> list[int]:
        # 10 fields, 4 pairs: fields 1, 3, 6, 8.
        count = min(num_pairs, num_fields)
        return [int((i + 0.5) * num_fields / count) for i in range(count)]

    flow = _motions(flow_reader.sample(centers), bound)
    num_fields = flow_reader.num_frames
    frames = at_constant_rate(open_video(video, short_side=short_side)).sample(lambda _: centers(num_fields))
    scale = _full_color_motion(flow)
    rows = [np.concatenate(list(frames), 1), np.concatenate(list(flow_colors(flow, scale)), 1)]
    picture = np.concatenate([*rows, _legend(rows[0].shape[1], scale)])
    with atomic_write(out) as temporary:
        Image.fromarray(picture).save(temporary)
    return scale


def _show_film(video: str | Path, out: Path, compute: ComputeFlow, *, bound: float, short_side: int | None) -> float:
    frames = at_constant_rate(open_video(video, short_side=short_side))
    # The scale depends on all fields, so keep them until they are drawn: as bytes, an eighth of the motions' size.
    fields = list(iter_fields(video, frames, compute, bound=bound))
    scale = _full_color_motion(_motions(np.stack(fields), bound))
    height, width = (side // 2 * 2 for side in fields[0].shape[:2])  # H.264 needs even sides
    legend = _legend(2 * width, scale)

    def pictures() -> Iterator[np.ndarray]:
        for frame, field in zip(frames, fields, strict=False):  # the last frame has no flow
            colors = flow_colors(_motions(field, bound), scale)
            yield np.concatenate([np.concatenate([frame[:height, :width], colors[:height, :width]], 1), legend])

    write_video(out, pictures(), frames_per_second=frames.frames_per_second or 25.0)
    return scale


def _motions(stored: np.ndarray, bound: float) -> np.ndarray:
    """Convert bytes to motions, and show the two bytes around zero motion (127, 128) as none.

    No byte is exactly 0 pixels, and JPEG turns some 128 into 127: still regions would be speckled.
    """
    still = np.abs(stored.astype(int) - ZERO + 0.5) < 2
    return np.where(still, np.float32(0), bytes_to_flow(stored, bound))


def _full_color_motion(flow: np.ndarray) -> float:
    """Return the 99th percentile of motion, pixels, rounded up to half a pixel."""
    length = float(np.percentile(np.linalg.norm(flow, axis=-1), 99))
    return max(_MIN_SCALE, math.ceil(2 * length) / 2)


def _legend(width: int, scale: float) -> np.ndarray:
    """Draw the color wheel and its meaning, uint8 `(56, width, 3)`."""
    side = _LEGEND_HEIGHT - 8
    y, x = (np.mgrid[:side, :side] - (side - 1) / 2) / ((side - 1) / 2) * scale
    wheel = flow_colors(np.stack([x, y], 2), scale)
    wheel[np.hypot(x, y) > scale] = 255
    legend = np.full((_LEGEND_HEIGHT, width, 3), 255, np.uint8)
    wheel_width = min(side, width - 4)  # a narrow video cuts it off
    legend[4 : 4 + side, 4 : 4 + wheel_width] = wheel[:, :wheel_width]
    image = Image.fromarray(legend)
    draw = ImageDraw.Draw(image)
    draw.text((side + 12, 8), "where the pixels move to", fill="black")
    draw.text((side + 12, 26), f"full color: {scale:g} px a frame", fill="black")
    return np.asarray(image)
