"""Pairs of frames whose motion is known exactly: a texture given at every point, moved by a formula."""

from pathlib import Path

import numpy as np

from vsn.data.video import write_video

Affine = tuple[float, float, float, float, float, float]
"""a, b, c, d, e, f: the point (x, y), counted from the middle, goes to (a x + b y + c, d x + e y + f)."""


def texture(x: np.ndarray, y: np.ndarray, seed: int = 0) -> np.ndarray:
    """Values in 0 to 255 at points: waves 6 to 60 pixels long, in all directions."""
    generator = np.random.default_rng(seed)
    lengths, angles = np.geomspace(6, 60, 24), generator.uniform(0, 2 * np.pi, 24)
    phases, heights = generator.uniform(0, 2 * np.pi, 24), lengths**0.5
    value = np.zeros_like(x)
    for length, angle, phase, height in zip(lengths, angles, phases, heights, strict=True):
        value += height * np.sin(2 * np.pi / length * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    return np.clip(128 + 40 * value / np.sqrt((heights**2).sum() / 2), 0, 255)


def moved_pair(motion: Affine, *, height: int = 64, width: int = 80, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Two frames, uint8 `(H, W)`, and the motion from the first to the second, float `(H, W, 2)`."""
    a, b, c, d, e, f = motion
    y, x = np.mgrid[:height, :width] - np.array([height / 2, width / 2])[:, None, None]
    back = np.linalg.inv([[a, b], [d, e]]) @ np.stack([x - c, y - f]).reshape(2, -1)
    second = texture(back[0].reshape(x.shape), back[1].reshape(x.shape), seed)
    flow = np.stack([a * x + b * y + c - x, d * x + e * y + f - y], axis=2)
    return np.round(texture(x, y, seed)).astype(np.uint8), np.round(second).astype(np.uint8), flow


def translation(right: float, down: float) -> Affine:
    return (1, 0, right, 0, 1, down)


def end_point_error(flow: np.ndarray, truth: np.ndarray, *, border: int = 0) -> float:
    """Mean distance of the tips of two fields `(H, W, 2)`, pixels, without a border of so many pixels."""
    inner = slice(border, -border or None)
    return float(np.linalg.norm(flow - truth, axis=2)[inner, inner].mean())


def moving_video(
    path: Path, num_frames: int, *, right: float = 2.0, size: tuple[int, int] = (48, 64), seed: int = 0
) -> Path:
    """A video file of the texture that moves by `right` pixels a frame."""
    y, x = np.mgrid[: size[0], : size[1]].astype(float)
    frames = [
        np.repeat(np.round(texture(x - right * i, y, seed)).astype(np.uint8)[..., None], 3, axis=2)
        for i in range(num_frames)
    ]
    write_video(path, frames, frames_per_second=10, crf=12)
    return path
