"""Times of rounds in figures: medians, spread, and ratios between models that took turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vsn.scores.intervals import percentiles


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 10th and 90th percentile, in the unit of the values."""
    low, middle, high = np.percentile(np.asarray(values, np.float64), [10, 50, 90])
    return {"median": float(middle), "p10": float(low), "p90": float(high)}


def paired_ratio(
    times: Sequence[float],
    base: Sequence[float],
    *,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """The median over rounds of ``times[i] / base[i]``, with its percentile bootstrap interval.

    Both were measured in each round one soon after the other, so that what slows the machine for a while
    cancels. Rounds are drawn whole.

    Returns:
        ``{"ratio", "interval": [low, high]}``.

    Raises:
        ValueError: there are no rounds, or not the same number of both.
    """
    if len(times) != len(base) or not times:
        raise ValueError(
            f"A ratio of rounds needs the same rounds of both, one or more; these are {len(times)} and {len(base)}."
        )
    ratios = np.asarray(times, np.float64) / np.asarray(base, np.float64)
    drawn = np.random.default_rng(seed).integers(len(ratios), size=(draws, len(ratios)))
    low, high = percentiles(np.median(ratios[drawn], axis=1), confidence)
    return {"ratio": float(np.median(ratios)), "interval": [low, high]}
