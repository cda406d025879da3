"""Compute confidence intervals over videos (percentile bootstrap, Wilson) and McNemar's exact test."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]

_MAX_DRAWN = 1_000_000
"""Drawn indices held in memory at a time: 2000 draws of a large test set would take gigabytes."""


def bootstrap_interval(
    hits: NDArray[np.bool_],
    *,
    groups: Sequence[str] | None = None,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of the mean of ``(N,)`` bool.

    Videos of one of ``groups`` (``(N,)``, default one group per video) are drawn together: a clip and its
    reversed copy are not independent.
    """
    means, num_groups = _drawn_means(hits.astype(float), groups, draws, seed)
    # All right or all wrong: every draw has the same mean, so take the exact binomial bound instead.
    if hits.all() or not hits.any():
        bound = ((1 - confidence) / 2) ** (1 / num_groups)
        return (float(bound), 1.0) if hits.all() else (0.0, float(1 - bound))
    # No spread otherwise, say each group half right: an interval of width 0 would claim certainty.
    if np.ptp(means) == 0:
        return wilson_interval(float(hits.mean()), num_groups, confidence)
    return percentiles(means, confidence)


def paired_interval(
    changes: NDArray[np.floating],
    *,
    groups: Sequence[str] | None = None,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of the mean of ``(N,)`` differences of two models, each -1 to 1.

    Both models keep their videos in every draw, so that what is hard for both cancels. Without spread, as when no
    video changed, see `no_spread_interval`.
    """
    means, num_groups = _drawn_means(np.asarray(changes, np.float64), groups, draws, seed)
    if np.ptp(means) > 0:
        return percentiles(means, confidence)
    return no_spread_interval(float(means[0]), num_groups, confidence)


def bootstrap_draws(
    statistic: Callable[[NDArray[np.int64]], float],
    num_videos: int,
    *,
    groups: Sequence[str] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return ``(draws,)`` values of a statistic of resampled videos.

    ``statistic`` takes ``(N,)`` int64 counts: how often each video was drawn, equal within a group.
    """
    group_index, num_groups = _group_index(groups, num_videos)
    generator = np.random.default_rng(seed)
    # One seeded generator, and groups in the order of their names: equal scores give equal intervals.
    values = np.empty(draws)
    for draw in range(draws):
        drawn = generator.integers(num_groups, size=num_groups)
        values[draw] = statistic(np.bincount(drawn, minlength=num_groups)[group_index])
    return values


def percentiles(values: NDArray[np.float64], confidence: float = 0.95) -> Interval:
    """Return the bounds of the central share ``confidence`` of bootstrap values."""
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def no_spread_interval(difference: float, num_groups: int, confidence: float = 0.95) -> Interval:
    """Return the interval of a difference of two shares whose bootstrap draws are all equal.

    If a share u of all groups differs from those seen, n groups miss it with probability (1-u)^n. The largest u that
    is missed with probability (1-confidence)/2 moves the difference by at most u * (1 + its size).
    """
    missed = 1 - ((1 - confidence) / 2) ** (1 / num_groups)
    half = missed * (1 + abs(difference))
    return max(difference - half, -1.0), min(difference + half, 1.0)


def wilson_interval(share: float, count: int, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval of a share of ``count`` independent draws."""
    # Unlike share +- z * standard error, it stays within 0 to 1 and has a width at 0 and 1.
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return middle - half, middle + half


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (1947): a binomial test of the discordant pairs.

    Args:
        only_a: videos that only the first model gets right.
        only_b: videos that only the second model gets right.
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"Expected counts of 0 or more, got {only_a} and {only_b} videos.")
    total = only_a + only_b
    # By logarithms: the binomial coefficients of ten thousand videos have thousands of digits.
    tail = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - total * math.log(2)
        for k in range(min(only_a, only_b) + 1)
    ]
    return min(1.0, 2 * math.fsum(map(math.exp, tail)))


def _drawn_means(
    values: NDArray[np.float64], groups: Sequence[str] | None, draws: int, seed: int
) -> tuple[NDArray[np.float64], int]:
    """Return bootstrap means of ``(N,)`` values, and the number of groups."""
    group_index, num_groups = _group_index(groups, len(values))
    # A group contributes the sum and the number of its videos, so that draws of groups need no videos.
    total, size = np.bincount(group_index, values), np.bincount(group_index)
    generator, means = np.random.default_rng(seed), np.empty(draws)
    rows = max(1, _MAX_DRAWN // num_groups)
    for start in range(0, draws, rows):
        drawn = generator.integers(num_groups, size=(min(rows, draws - start), num_groups))
        means[start : start + rows] = total[drawn].sum(axis=1) / size[drawn].sum(axis=1)
    return means, num_groups


def _group_index(groups: Sequence[str] | None, num_videos: int) -> tuple[NDArray[np.intp], int]:
    if num_videos == 0:
        raise ValueError("Expected one or more videos, got 0.")
    if groups is None:
        return np.arange(num_videos), num_videos
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    return index, len(names)
