"""Map high dynamic range (HDR: PQ or HLG) to the standard range, as FFmpeg's filters zscale and tonemap do.

The steps of `zscale=t=linear:npl=100, zscale=p=bt709, tonemap=hable:desat=0:peak=10, zscale=t=bt709`: light of 100 cd/m2
is 1, BT.2020 colors become BT.709, and Hable's curve brings 1000 cd/m2 to white.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from av.video.reformatter import ColorTrc

HDR_TRANSFERS = frozenset({ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67})
"""PQ and HLG."""
_PEAK = 10.0
_BT2020_LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)
_BT709_FROM_BT2020 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]], np.float32
)


def tone_mapped(picture: np.ndarray, transfer: int) -> np.ndarray:
    """Map a picture, uint16 `(H, W, 3)`, R'G'B' of BT.2020 with one of `HDR_TRANSFERS`, to uint8 `(H, W, 3)`."""
    height, width, _ = picture.shape
    # Planes: numpy reduces over three rows many times as fast as over three columns.
    light = _light_table(transfer)[picture.reshape(-1, 3).T]
    if transfer == ColorTrc.ARIB_STD_B67:  # light of the scene; a display of 1000 cd/m2 shows it with a gamma of 1.2
        light *= _PEAK * _weighted(_BT2020_LUMA, light) ** 0.2
    light = np.maximum([_weighted(weights, light) for weights in _BT709_FROM_BT2020], 0)
    # One factor for the three colors keeps the hue.
    brightest = np.maximum(light.max(axis=0), 1e-6)
    light *= _hable(brightest) / (_hable(_PEAK) * brightest)
    # The table is of the square root, which is quick to compute and has enough steps in the dark.
    mapped = _gamma_table()[(np.sqrt(np.minimum(light, 1)) * 65535).astype(np.uint16)]
    return np.ascontiguousarray(mapped.T).reshape(height, width, 3)


def _weighted(weights: np.ndarray, light: np.ndarray) -> np.ndarray:
    # Not by matrix multiplication, which starts threads.
    return weights[0] * light[0] + weights[1] * light[1] + weights[2] * light[2]


@cache
def _light_table(transfer: int) -> np.ndarray:
    """Light for every 16-bit value, float32: PQ in units of 100 cd/m2, HLG of the scene from 0 to 1 (BT.2100)."""
    signal = np.linspace(0, 1, 65536)
    if transfer == ColorTrc.SMPTE2084:
        root = signal ** (32 / 2523)
        light = 100 * (np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)) ** (16384 / 2610)
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return light.astype(np.float32)


@cache
def _gamma_table() -> np.ndarray:
    """The uint8 of a display with a gamma of 2.4 (BT.1886) for the square root of the light, in 65536 steps."""
    return (np.linspace(0, 1, 65536) ** (2 / 2.4) * 255 + 0.5).astype(np.uint8)


def _hable(light: np.ndarray | float) -> np.ndarray | float:
    a, b, c, d, e, f = 0.15, 0.50, 0.10, 0.20, 0.02, 0.30
    return (light * (light * a + b * c) + d * e) / (light * (light * a + b) + d * f) - e / f
