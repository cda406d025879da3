"""Compute 95% confidence intervals over videos, without random draws, and McNemar's exact test.

`results/interval-coverage-cpu.json` holds how often each interval contains the true value in simulations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
Groups = Sequence[str] | NDArray[Any] | None

CONFIDENCE = 0.95


def share_interval(hits: NDArray[np.bool_], *, groups: Groups = None, confidence: float = CONFIDENCE) -> Interval:
    """Return the mid-P interval of the mean of ``(N,)`` bool.

    The values of p at which the binomial chance of more hits than seen, plus half the chance of as many, is between
    the two tails (Lancaster, 1961). Videos of one of ``groups`` (``(N,)``, default one group per video), such as a
    clip and its reversed copy, count as fewer independent videos, and those of few groups as fewer still (Student's t).
    """
    share, _, count = _independent_videos(hits.astype(np.float64), groups)
    tail = (1 - confidence) / 2
    low = 0.0 if not hits.any() else _mid_p_bound(share * count, count, tail)
    high = 1.0 if hits.all() else _mid_p_bound(share * count, count, 1 - tail)
    return low, high


@lru_cache(maxsize=10_000)
def _mid_p_bound(hits: float, count: float, chance: float) -> float:
    """Return the share at which more hits than seen have this chance; many classes of a report have equal counts."""
    return _root(lambda p: _chance_of_more(hits, count, p) - chance, 0.0, 1.0)


def share_p_value(hits: NDArray[np.bool_], share: float, *, groups: Groups = None) -> float:
    """Return the one-sided mid-P value of a mean of ``(N,)`` bool above ``share``: small if it is surely above.

    It is at most 0.05 where the lower bound of the 90% interval is at least ``share``.
    """
    mean, _, count = _independent_videos(hits.astype(np.float64), groups)
    return _chance_of_more(mean * count, count, share)


def difference_interval(
    changes: NDArray[Any], *, groups: Groups = None, classes: NDArray[Any] | None = None
) -> Interval:
    """Return Tango's score interval (1998) of the mean difference of two models on the same videos.

    Args:
        changes: ``(N,)``; 1 where only the second model is right, -1 where only the first is, else 0. What is hard
            for both cancels.
        groups: as for `share_interval`.
        classes: ``(N,)`` class of each video: the mean over classes of the mean of each, instead of the mean over
            videos.
    """
    mean, square, count = _independent_videos(np.asarray(changes, np.float64), groups, classes)
    z, lost = _quantile(), count * (square - mean) / 2

    def score(difference: float) -> float:
        # Standardized distance of the mean from a true difference, under the most likely shares that have it.
        b = (2 - mean) * count * difference - square * count
        share = (math.sqrt(max(b * b + 8 * count * lost * difference * (1 - difference), 0.0)) - b) / (4 * count)
        variance = (2 * share + difference * (1 - difference)) / count
        return (mean - difference) / math.sqrt(max(variance, 1e-300))

    return _root(lambda d: z - score(d), -1.0, mean), _root(lambda d: -z - score(d), mean, 1.0)


def loss_share_interval(
    forward: NDArray[np.bool_], other: NDArray[np.bool_], *, chance: float, groups: Groups = None
) -> Interval | None:
    """Return Fieller's interval (1954) of (a - b) / (a - chance), of the means a and b of two ``(N,)`` bool.

    None if a is not above ``chance`` by its interval: then no share of the distance can be excluded.
    """
    index, num_groups = _group_index(groups, len(forward))
    # Half a video of each of the four outcomes, as Agresti and Min (2005): otherwise a few changes, or none, would
    # give an interval that is too narrow.
    loss = np.concatenate([forward.astype(np.float64) - other, [0, 1, -1, 0]])
    above = np.concatenate([forward.astype(np.float64), [1, 1, 0, 0]]) - chance
    weights = np.concatenate([np.ones(len(forward)), np.full(4, 0.5)])
    index = np.concatenate([index, num_groups + np.arange(4)])
    total = weights.sum()
    a, b = weights @ loss / total, weights @ above / total
    sums = np.array([np.bincount(index, np.sqrt(weights) * part) for part in (loss - a, above - b)])
    sums /= np.sqrt(1 - np.bincount(index, weights) / total)  # as in `_independent_videos`
    ratio = float(sums[0] @ sums[0]) / total**2 / max(float(weights @ (loss - a) ** 2 / total), 1e-12)
    quantile = _group_quantile(np.full(len(forward), 1 / len(forward)), index[:-4], ratio)
    covariance = sums @ sums.T * (quantile / total) ** 2
    # The ratios r with (a - r b)^2 <= z^2 var(a - r b): between the two roots of a square in r.
    square, middle, constant = b * b - covariance[1, 1], a * b - covariance[0, 1], a * a - covariance[0, 0]
    if b <= 0 or square <= 0:
        return None
    half = math.sqrt(max(middle * middle - square * constant, 0.0))
    return float((middle - half) / square), float((middle + half) / square)


def median_interval(values: Sequence[float]) -> Interval:
    """Return the interval of the median between two ordered values (Hettmansperger and Sheather, 1986).

    The interval between the k-th lowest and the k-th highest of n values contains the median unless fewer than k lie
    on one side of it, a binomial chance; between two k it is interpolated. Fewer than 6 values cannot reach 95%: they
    give their range, which contains the median in 1 - 2^(1-n) of cases (5 values: 93.75%).
    """
    ordered, n = sorted(values), len(values)

    def contains(k: int) -> float:
        return 1 - 2 * sum(math.comb(n, i) for i in range(k)) / 2**n

    k = max((k for k in range(1, n // 2 + 1) if contains(k) >= CONFIDENCE), default=0)
    if k == 0:
        return ordered[0], ordered[-1]
    excess = (contains(k) - CONFIDENCE) / (contains(k) - contains(k + 1))
    inward = (n - k) * excess / (k + (n - 2 * k) * excess)
    low, high = ((1 - inward) * ordered[i] + inward * ordered[j] for i, j in ((k - 1, k), (n - k, n - k - 1)))
    return low, high


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


def _independent_videos(
    values: NDArray[np.float64], groups: Groups, classes: NDArray[Any] | None = None
) -> tuple[float, float, float]:
    """Return the mean of ``(N,)`` values, the mean of their squares, and a number of independent videos.

    So many videos without groups and classes would know the mean equally well: N without both, N / 2 for pairs that
    are always equal. With ``classes`` the means are over classes.
    """
    group_index, num_groups = _group_index(groups, len(values))
    _, class_index = np.unique(np.zeros(len(values)) if classes is None else classes, return_inverse=True)
    sizes, sums = np.bincount(class_index), np.bincount(class_index, values)
    weights = 1 / (len(sizes) * sizes[class_index])
    mean, square = float(weights @ values), float(weights @ values**2)
    spread = square - mean * mean
    group_weights = np.bincount(group_index, weights)
    # Without spread nothing says how much groups are alike, so they count as fully alike.
    if spread < 1e-12 or num_groups == 1:
        return mean, square, float(1 / np.sum(group_weights**2))
    # Classes are not drawn, so that only what varies within a class is uncertain. One group does not show it:
    # such classes are taken as draws of one kind.
    pairs, pair_index = np.unique(class_index * num_groups + group_index, return_inverse=True)
    share = (np.bincount(pair_index) / sizes[pairs // num_groups])[pair_index]  # that a group has of its class
    single = share == 1
    deviations = values - np.where(single, mean, (sums / sizes)[class_index])
    # A large group pulls the mean to itself, and is nearer to it than to the true one.
    pulled = np.sqrt(1 - np.where(single, group_weights[group_index], share))
    variance = float(np.sum(np.bincount(group_index, weights * deviations / pulled) ** 2))
    few = (_quantile() / _group_quantile(weights, group_index, variance / spread)) ** 2
    # Videos of a group that differ more than chance (one right, its copy wrong) at most double the number.
    most = 2 / float(np.sum(weights**2))
    return mean, square, few * (min(spread / variance + 1, most) if variance > 0 else most)


def _chance_of_more(hits: float, count: float, p: float) -> float:
    """Return P(X > hits) + P(X = hits) / 2 of X binomial (count, p); continuous in hits and count."""
    at_least = _incomplete_beta(hits, count - hits + 1, p) if hits > 0 else 1.0
    more = _incomplete_beta(hits + 1, count - hits, p) if hits < count else 0.0
    return (at_least + more) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularized incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast on the other side
        return 1 - _incomplete_beta(b, a, 1 - x)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    # Lentz's method: the value as a product of ratios of successive numerators and denominators.
    value = numerator = 1.0
    denominator = 0.0
    for step in range(100_000):
        m = step // 2
        if step == 0:
            term = 1.0
        elif step % 2 == 0:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        denominator = 1 / (1 + term * denominator)
        numerator = 1 + term / numerator
        value *= numerator * denominator
        if abs(numerator * denominator - 1) < 1e-13:
            break
    return math.exp(logarithm) / a * (value - 1)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where an increasing function is 0, or the end nearest to it."""
    for _ in range(45):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < 0 else (low, middle)
    return (low + high) / 2


def _quantile() -> float:
    return NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)


def _group_quantile(weights: NDArray[np.float64], group_index: NDArray[np.intp], variance: float) -> float:
    """Return the distance of a bound in standard deviations: Student's t where these are known from few groups.

    Its degrees of freedom are those of Bell and McCaffrey (2002): of groups of one size their number less one, and about
    one where a single group has most of the videos.

    Args:
        weights: ``(N,)`` of the videos in the mean; their sum is 1.
        group_index: ``(N,)``.
        variance: of the mean, in variances of a video; it tells how much the videos of a group are alike.
    """
    w = np.bincount(group_index, weights)
    if not 1 < len(w) < len(weights):
        return _quantile()
    if w.max() > 0.999:  # as exact as needed; below, the differences would lose their digits
        return _t_quantile(1.0)
    squares = np.bincount(group_index, weights**2)
    alike = min(max((variance - squares.sum()) / (np.sum(w**2) - squares.sum()), 0.0), 1.0)
    # The estimate is a square form of independent group means, K = (I - w 1') D (I - 1 w') with variances S:
    # (tr SK)^2 / tr (SK)^2, without a matrix of all groups.
    s, d = alike + (1 - alike) * squares / w**2, w**2 / (1 - w)
    both, inner = np.array([w, d]), np.array([[d.sum(), -1.0], [-1.0, 0.0]])  # K = D + both' inner both
    core, cross = (inner @ (both * scale @ both.T) for scale in (s, s * s * d))
    trace = np.sum(s * d) + np.trace(core)
    of_square = np.sum((s * d) ** 2) + 2 * np.trace(cross) + np.trace(core @ core)
    return _t_quantile(round(max(1.0, float(trace**2 / of_square)), 6))


@lru_cache(maxsize=10_000)
def _t_quantile(freedom: float) -> float:
    """Return the upper quantile of Student's t distribution that leaves (1 - CONFIDENCE) / 2 above it."""
    # P(|T| > t) = I_x(freedom / 2, 1 / 2) with x = freedom / (freedom + t^2); t = 13 of one degree of freedom.
    return _root(lambda t: 1 - CONFIDENCE - _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t)), 0.0, 20.0)


def _group_index(groups: Groups, num_videos: int) -> tuple[NDArray[np.intp], int]:
    if num_videos == 0:
        raise ValueError("Expected one or more videos, got 0.")
    if groups is None:
        return np.arange(num_videos), num_videos
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    return index, len(names)
