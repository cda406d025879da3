"""Find classes whose mirrored videos look like another class, such as turns to the left and to the right.

The features are cheap: where the picture changes, from each frame of a clip to the next, on a coarse grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

_ROWS, _COLUMNS = 6, 8
MIN_VIDEOS = 10
"""A class with fewer videos is not compared."""
MIN_SHARE = 0.75
"""Share of the videos of both classes that must look like their own class, and mirrored like the other. On 15 gestures of
24 videos each, left and right reach 0.83, and no other pair more than 0.58."""


def motion_of(frames: NDArray[np.uint8]) -> bytes:
    """Return where a clip changes, as float16 `(T - 1, 6, 8)` in bytes; b"" for a clip without motion.

    Args:
        frames: uint8 `(T, H, W, 3)`.
    """
    gray = frames.mean(axis=3, dtype=np.float32)
    height, width = gray.shape[1:]
    if len(gray) < 2 or height < _ROWS or width < _COLUMNS:
        return b""
    changes = np.abs(np.diff(gray, axis=0))
    # Means of blocks whose borders are the same from the left and from the right, up to a pixel.
    rows = np.linspace(0, height, _ROWS, endpoint=False).astype(int)
    columns = np.linspace(0, width, _COLUMNS, endpoint=False).astype(int)
    grid = np.add.reduceat(np.add.reduceat(changes, rows, axis=1), columns, axis=2)
    total = grid.sum()
    return (grid / total).astype(np.float16).tobytes() if total > 0 else b""


def mirrored_pairs(motions: Mapping[str, Sequence[bytes]]) -> list[tuple[str, str]]:
    """Return pairs of classes of which each looks like the other in a mirror.

    Of two classes a video looks like that whose mean motion is nearer; its own class has the mean of its other videos.

    Args:
        motions: class -> `motion_of` of its videos, all of one T.
    """
    maps = {name: _maps([value for value in values if value]) for name, values in motions.items()}
    names = [name for name, values in maps.items() if len(values) >= MIN_VIDEOS]
    if len(names) < 2:
        return []
    means = np.stack([maps[name].mean(axis=0) for name in names])
    # own[a, b]: share of the videos of a that are nearer to a than to b; mirrored[a, b]: mirrored, nearer to b.
    own, mirrored = np.empty((2, len(names), len(names)))
    for index, name in enumerate(names):
        videos = maps[name]
        rest = (means[index] * len(videos) - videos) / (len(videos) - 1)
        flipped = videos[..., ::-1]
        own[index] = (_distances(videos, rest)[:, None] < _distances_to_all(videos, means)).mean(axis=0)
        mirrored[index] = (_distances_to_all(flipped, means) < _distances(flipped, rest)[:, None]).mean(axis=0)
    share = np.minimum(own, mirrored)
    share = np.triu(np.minimum(share, share.T), k=1)
    return [(names[a], names[b]) for a, b in np.argwhere(share >= MIN_SHARE)]


def _maps(values: Sequence[bytes]) -> NDArray[np.float32]:
    """Return float32 `(N, T - 1, 6, 8)`."""
    if not values:
        return np.empty((0, 0, _ROWS, _COLUMNS), np.float32)
    return np.stack([np.frombuffer(value, np.float16).reshape(-1, _ROWS, _COLUMNS) for value in values]).astype(
        np.float32
    )


def _distances(videos: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = ((videos - others) ** 2).sum(axis=(1, 2, 3))
    return result


def _distances_to_all(videos: NDArray[np.float32], means: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([_distances(videos, mean) for mean in means], axis=1)
