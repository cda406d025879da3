"""How sure a figure over videos is: percentile bootstrap of one model and of two, McNemar's exact test."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 1_000_000
"""Draws of a video held in memory at a time: all at once would take gigabytes for a large test set."""


def bootstrap_interval(
    hits: NDArray[np.bool_],
    *,
    groups: Sequence[str] | None = None,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean over videos.

    Videos of one of ``groups`` (``(N,)``, default each its own) are drawn together: a clip and its
    reversed copy are not two independent facts. With all right or all wrong, where the bootstrap has
    no spread, the exact binomial bound is given.
    """
    means, num_groups = _drawn_means(hits.astype(float), groups, draws, seed)
    if hits.all() or not hits.any():
        bound = ((1 - confidence) / 2) ** (1 / num_groups)
        return (float(bound), 1.0) if hits.all() else (0.0, float(1 - bound))
    if np.ptp(means) == 0:  # each group half right, say: nothing to resample, but no certainty either
        return wilson_interval(float(hits.mean()), num_groups, confidence)
    return percentiles(means, confidence)


def paired_interval(
    changes: NDArray[np.floating],
    *,
    groups: Sequence[str] | None = None,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``(N,)`` differences between two models, -1 to 1 a video.

    Both models keep their videos in every draw, so that what is hard for both cancels. Without a spread
    (no video changed sides, say) the interval is as wide as the share of changes that so many groups
    could have missed at that confidence.
    """
    means, num_groups = _drawn_means(np.asarray(changes, np.float64), groups, draws, seed)
    if np.ptp(means) > 0:
        return percentiles(means, confidence)
    return widened(float(means[0]), num_groups, confidence)


def bootstrap_draws(
    statistic: Callable[[NDArray[np.int64]], float],
    num_videos: int,
    *,
    groups: Sequence[str] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """``(draws,)`` values of any statistic of resampled videos.

    ``statistic`` takes ``(N,)`` int64: how often each video was drawn, the same for all of one group.
    """
    inverse, num_groups = _group_numbers(groups, num_videos)
    generator = np.random.default_rng(seed)
    found = np.empty(draws)
    for draw in range(draws):
        drawn = generator.integers(num_groups, size=num_groups)
        found[draw] = statistic(np.bincount(drawn, minlength=num_groups)[inverse])
    return found


def percentiles(values: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """The central share ``confidence`` of bootstrap values."""
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def widened(difference: float, num_groups: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a difference of two shares whose bootstrap has no spread.

    At most a share u of all groups behaves otherwise than those seen, where (1-u)^n = (1-confidence)/2;
    one that does moves the difference by no more than 1 + its size.
    """
    missed = 1 - ((1 - confidence) / 2) ** (1 / num_groups)
    half = missed * (1 + abs(difference))
    return max(difference - half, -1.0), min(difference + half, 1.0)


def wilson_interval(share: float, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share of ``count`` independent draws."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return middle - half, middle + half


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact two-sided p of two models tested on the same videos.

    Args:
        only_a: videos that the first alone gets right, 0 or more.
        only_b: videos that the second alone gets right, 0 or more.

    Returns:
        The probability, were each such video a fair coin, of a split at least as uneven; 1.0 when there
        are none. Source: McNemar (1947), in its exact form a binomial test of the discordant pairs.
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"McNemar's test got {only_a} and {only_b} videos; counts are 0 or more.")
    total = only_a + only_b
    # By logarithms: the coefficients of ten thousand videos have thousands of digits.
    tail = [
        math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) - total * math.log(2)
        for k in range(min(only_a, only_b) + 1)
    ]
    return min(1.0, 2 * math.fsum(map(math.exp, tail)))


def _drawn_means(
    values: NDArray[np.float64], groups: Sequence[str] | None, draws: int, seed: int
) -> tuple[NDArray[np.float64], int]:
    """Bootstrap means of ``(N,)`` values, and the number of groups."""
    inverse, num_groups = _group_numbers(groups, len(values))
    total, size = np.bincount(inverse, values), np.bincount(inverse)
    generator, means = np.random.default_rng(seed), np.empty(draws)
    rows = max(1, _AT_ONCE // num_groups)
    for start in range(0, draws, rows):
        drawn = generator.integers(num_groups, size=(min(rows, draws - start), num_groups))
        means[start : start + rows] = total[drawn].sum(axis=1) / size[drawn].sum(axis=1)
    return means, num_groups


def _group_numbers(groups: Sequence[str] | None, num_videos: int) -> tuple[NDArray[np.intp], int]:
    if num_videos == 0:
        raise ValueError("There are no videos to draw from; an interval needs one or more.")
    if groups is None:
        return np.arange(num_videos), num_videos
    names, inverse = np.unique(np.asarray(groups), return_inverse=True)
    return inverse, len(names)
