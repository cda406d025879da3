"""Draw the objects of the embedded data set: soft-edged shapes with a texture, one patch per frame.

A shape is a signed distance in its own coordinates, negative inside: p along its heading, q across, both in units of its
radius. Only arithmetic and square roots touch pixels, so a state gives the same bytes at any place in a video.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Frames = NDArray[np.uint8]

SHAPES = ("disc", "square", "triangle", "pentagon", "star", "cross", "ring")
"""Shapes of any target; "bar", "hand" and "arrow" belong to some groups only."""
PATTERNS = ("plain", "stripes", "checks", "core")
"""Textures of any target; "tip" is for turning objects, "glow" for lamps."""

_REACH = 1.2
"""Largest distance of a shape's points from its center, in radii."""


@dataclass(frozen=True)
class Sprite:
    """An object: its appearance, and a list of N states."""

    shape: str
    pattern: str
    colors: Floats
    """(2, 3): RGB 0 to 255 of the body and of the pattern on it."""
    place: Floats
    """(N, 2): x and y of the center in pixels."""
    radius: Floats
    """(N,): pixels."""
    heading: Floats
    """(N, 2): cosine and sine of the angle, clockwise on the screen."""
    visible: NDArray[np.bool_]
    """(N,): whether it is drawn."""

    def reordered(self, order: Ints) -> Sprite:
        """Return the same object with its states in another order, int64 `(N,)`."""
        return replace(
            self,
            place=self.place[order],
            radius=self.radius[order],
            heading=self.heading[order],
            visible=self.visible[order],
        )


def draw_sprite(frames: Frames, sprite: Sprite, shake: Floats) -> None:
    """Draw an object into frames `(N, H, W, 3)`, in place, moved by -shake `(N, 2)` pixels."""
    for index, (rows, columns), patch, uncovered in _place_patches(sprite, shake, frames.shape[1:3]):
        window = frames[index, rows, columns]
        window[:] = window * uncovered + patch


def sprite_boxes(sprite: Sprite, shake: Floats, size: tuple[int, int]) -> Floats:
    """Return left, top, right and bottom of what is seen of an object, pixels `(N, 4)`; NaN in frames without it."""
    boxes = np.full((len(sprite.place), 4), np.nan)
    for index, (rows, columns), _, uncovered in _place_patches(sprite, shake, size):
        seen = uncovered[..., 0] < 0.5
        if seen.any():
            across, down = np.flatnonzero(seen.any(axis=0)), np.flatnonzero(seen.any(axis=1))
            left, top = columns.start + across[0], rows.start + down[0]
            boxes[index] = left, top, columns.start + across[-1] + 1, rows.start + down[-1] + 1
    return boxes


def draw_motion(motion: Floats, sprite: Sprite, shake: Floats, *, backward: bool) -> None:
    """Draw the motion of an object to the next frame, or the one before, into fields `(N - 1, H, W, 2)`, in place."""
    step = -1 if backward else 1
    center, heading = sprite.place - shake, sprite.heading @ np.array([1, 1j])
    for index, (rows, columns), _, uncovered in _place_patches(sprite, shake, motion.shape[1:3]):
        other, field = index + step, index - 1 if backward else index
        if not (0 <= field < len(motion) and sprite.visible[other]):
            continue
        height, width = uncovered.shape[:2]
        x, y = columns.start + np.arange(width), rows.start + np.arange(height)[:, None]
        # Turned and resized about its center, as complex numbers.
        points = (x - center[index, 0]) + 1j * (y - center[index, 1])
        moved = points * (heading[other] / heading[index]) * (sprite.radius[other] / sprite.radius[index]) - points
        way = np.stack([moved.real, moved.imag], axis=-1) + (center[other] - center[index])
        window = motion[field, rows, columns]
        window[:] = np.where(uncovered[..., :1] < 0.5, way, window)


def _place_patches(
    sprite: Sprite, shake: Floats, size: tuple[int, int]
) -> Iterator[tuple[int, tuple[slice, slice], Floats, Floats]]:
    """Yield each frame that shows an object, its rows and columns there, and what `_render_patches` returns for them."""
    height, width = size
    center = sprite.place - shake
    # Skip the frames in which the object is invisible or wholly outside.
    reach = _REACH * sprite.radius + 1
    inside = ((center > -reach[:, None]) & (center < np.array([width, height]) + reach[:, None])).all(axis=1)
    shown = np.flatnonzero(sprite.visible & inside)
    if not len(shown):
        return
    # All patches have the side of the largest, so that they are computed in one array operation.
    side = 2 * math.ceil(float(reach[shown].max())) + 1
    corner = np.rint(center[shown]).astype(np.int64) - side // 2
    patch, uncovered = _render_patches(sprite, shown, corner - center[shown], side)
    for i, index in enumerate(shown.tolist()):
        # Clip the patch to the frame: slices of both, of equal size.
        x, y = corner[i]
        across, down = slice(max(0, -x), max(0, width - x)), slice(max(0, -y), max(0, height - y))
        window = slice(max(0, y), max(0, y + side)), slice(max(0, x), max(0, x + side))
        yield index, window, patch[i, down, across], uncovered[i, down, across]


def _render_patches(sprite: Sprite, shown: Ints, offset: Floats, side: int) -> tuple[Floats, Floats]:
    """Return color times coverage plus 0.5 for rounding, and 1 - coverage per channel; both `(n, side, side, 3)`."""
    steps = np.arange(side, dtype=np.float32)
    radius = sprite.radius[shown, None, None]
    cosine, sine = (sprite.heading[shown, axis, None, None] / radius for axis in (0, 1))
    x = offset[:, 0].astype(np.float32)[:, None, None] + steps
    y = offset[:, 1].astype(np.float32)[:, None, None] + steps[:, None]
    # Rotate into the coordinates of the shape; cosine and sine are divided by the radius already.
    p, q = x * cosine + y * sine, y * cosine - x * sine
    distance = _DISTANCES[sprite.shape](p, q) * radius
    # One pixel wide soft edge: half covered where the distance is 0.
    cover = np.clip(0.5 - distance, 0, 1)
    body, accent = sprite.colors
    share = _PATTERN_SHARES[sprite.pattern](p, q)
    # A dark rim makes the object visible on any background.
    shade = cover if sprite.pattern == "glow" else cover * (1 - 0.45 * np.clip(distance + 2.2, 0, 1))
    patch, uncovered = np.empty((2, *cover.shape, 3), np.float32)
    for channel in range(3):  # much faster than broadcasting over a last axis of three
        uncovered[..., channel] = 1 - cover
        color = body[channel] + share * (accent[channel] - body[channel])
        patch[..., channel] = color * shade + np.float32(0.5)
    return patch, uncovered


def _box(p: Floats, q: Floats, half_length: float, half_width: float) -> Floats:
    return np.maximum(np.abs(p) - half_length, np.abs(q) - half_width)


def _polygon(p: Floats, q: Floats, corners: int, inner_radius: float) -> Floats:
    """Return the largest signed distance from the lines through the sides."""
    distance: Floats = p - inner_radius
    for side in range(1, corners):
        angle = 2 * math.pi * side / corners
        distance = np.maximum(distance, p * math.cos(angle) + q * math.sin(angle) - inner_radius)
    return distance


def _hand(p: Floats, q: Floats) -> Floats:
    """A clock hand: a bar that begins a little behind the center, with a knob at its far end."""
    knob = np.sqrt((p - 0.72) * (p - 0.72) + q * q) - 0.3
    return np.minimum(_box(p - 0.2, q, 0.6, 0.17), knob)


# The union of two shapes is the minimum of their distances.
_DISTANCES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "disc": lambda p, q: np.sqrt(p * p + q * q) - 1,
    "ring": lambda p, q: np.abs(np.sqrt(p * p + q * q) - 0.72) - 0.28,
    "square": lambda p, q: _box(p, q, 0.82, 0.82),
    "triangle": lambda p, q: _polygon(p, q, 3, 0.59),
    "pentagon": lambda p, q: _polygon(p, q, 5, 0.86),
    "star": lambda p, q: np.minimum(_polygon(p, q, 3, 0.57), _polygon(-p, q, 3, 0.57)),
    "cross": lambda p, q: np.minimum(_box(p, q, 1.05, 0.38), _box(p, q, 0.38, 1.05)),
    "bar": lambda p, q: _box(p, q, 1.0, 0.2),
    "hand": _hand,
    "arrow": lambda p, q: np.minimum(_box(p + 0.15, q, 0.7, 0.18), _polygon(0.55 - p, q, 3, 0.27)),
}


def _waves(u: Floats) -> Floats:
    """Return a square wave of 0 and 1 with period 1 and soft edges."""
    share: Floats = np.clip(3.5 - 12 * np.abs(u - np.floor(u) - 0.5), 0, 1)
    return share


def _checks(p: Floats, q: Floats) -> Floats:
    across, down = _waves(p), _waves(q)
    return across + down - 2 * across * down


_PATTERN_SHARES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "plain": lambda p, q: np.zeros_like(p),
    "stripes": lambda p, q: _waves(1.5 * p),
    "checks": _checks,
    "core": lambda p, q: np.clip(6 * (0.5 - np.sqrt(p * p + q * q)) + 0.5, 0, 1),
    "tip": lambda p, q: np.clip(12 * (p - 0.38) + 0.5, 0, 1),
    "glow": lambda p, q: np.clip(1 - 2 * (p * p + q * q), 0, 1),
}
