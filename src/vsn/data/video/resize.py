"""Resize pictures as PyTorch does, bilinear and antialiased, with PyTorch or without it; the bytes are the same."""

from __future__ import annotations

import functools
import math

import numpy as np
from numpy.typing import NDArray

_WEIGHT_BITS = 15
"""PyTorch's weights are 16-bit integers with sign."""


def resize_rgb(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a picture, uint8 `(H, W, C)`, to `(height, width, C)` (bilinear, antialiased)."""
    if image.shape[:2] == (height, width):
        return image
    try:
        import torch
    except ModuleNotFoundError:
        return resize_with_numpy(image, height, width)
    # torch takes neither read-only pictures, such as Pillow's, nor negative strides.
    stored = torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(stored, (height, width), mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def resize_with_numpy(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Compute what PyTorch computes for uint8 `(H, W, C)`: rows, then columns, with weights in fixed point.

    15 times as slow (13 ms for a frame of 480x640 on one core), for environments without PyTorch.
    """
    for axis, size in ((1, width), (0, height)):
        if image.shape[axis] != size:
            image = _resize_axis(image, size, axis)
    return image


def _resize_axis(image: np.ndarray, size: int, axis: int) -> np.ndarray:
    indices, weights, num_bits = _taps(image.shape[axis], size)
    sums: NDArray[np.int32] = np.array(1 << (num_bits - 1), np.int32)  # one half: shifting then rounds
    for tap in range(weights.shape[1]):
        weight = weights[:, tap].reshape((-1,) + (1,) * (image.ndim - axis - 1))
        sums = sums + image.take(indices[:, tap], axis).astype(np.int32) * weight
    return np.clip(sums >> num_bits, 0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=64)  # the frames of a video have one size
def _taps(size: int, new_size: int) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
    """Return indices and weights of the pixels that each new pixel averages, `(new_size, taps)`, and the weights' unit.

    Weights are multiples of 2 ** -unit. A triangle that is two old pixels wide, or two new ones where these are larger.
    """
    scale = size / new_size
    reach = max(scale, 1.0)
    center = scale * (np.arange(new_size) + 0.5)
    first = np.maximum((center - reach + 0.5).astype(np.int64), 0)
    count = np.minimum((center + reach + 0.5).astype(np.int64), size) - first
    taps = np.arange(2 * math.ceil(reach) + 1)
    weights = np.maximum(0.0, 1 - np.abs((taps + first[:, None] - center[:, None] + 0.5) * min(1.0, 1 / scale)))
    weights[taps >= count[:, None]] = 0
    # One after the other: the sum of an array rounds in another order, and a weight would differ in its last bit.
    total = np.zeros(new_size)
    for tap in taps:
        total += weights[:, tap]
    weights /= total[:, None]
    # As many bits as the largest weight leaves.
    num_bits = 0
    while num_bits < 22 and int(0.5 + weights.max() * (1 << (num_bits + 1))) < 1 << _WEIGHT_BITS:
        num_bits += 1
    indices = np.minimum(first[:, None] + taps, size - 1)
    return indices, np.floor(weights * (1 << num_bits) + 0.5).astype(np.int32), num_bits
