import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsn.scores.intervals import (
    bootstrap_draws,
    bootstrap_interval,
    mcnemar,
    paired_interval,
    percentiles,
    wilson_interval,
)


def interval_by_loop(values: list[float], groups: list[int], draws: int, seed: int) -> tuple[float, float]:
    """Groups drawn with replacement, one draw at a time, one video at a time."""
    names = sorted(set(groups))
    generator, means = np.random.default_rng(seed), []
    for _ in range(draws):
        drawn = [names[i] for i in generator.integers(len(names), size=len(names))]
        found = [v for name in drawn for v, group in zip(values, groups, strict=True) if group == name]
        means.append(sum(found) / len(found))
    return tuple(np.percentile(means, [2.5, 97.5]).tolist())


@given(st.integers(4, 25), st.integers(1, 8), st.integers(0, 1000))
def test_bootstrap_by_loop(num_videos: int, num_groups: int, seed: int):
    generator = np.random.default_rng(seed)
    hits = generator.random(num_videos) < 0.5
    hits[:2] = True, False
    groups = (np.arange(num_videos) % (num_groups + 2)).tolist()
    expected = interval_by_loop(hits.astype(float).tolist(), groups, 20, seed)
    if expected[0] < expected[1]:
        assert bootstrap_interval(hits, groups=groups, draws=20, seed=seed) == pytest.approx(expected)
        assert paired_interval(hits.astype(float), groups=groups, draws=20, seed=seed) == pytest.approx(expected)


def test_draws_do_not_depend_on_block_size(monkeypatch):
    hits = np.arange(40) < 30
    whole = bootstrap_interval(hits)
    monkeypatch.setattr("vsn.scores.intervals._MAX_DRAWN", 70)
    assert bootstrap_interval(hits) == whole


def test_bootstrap_draws_of_the_mean_equal_the_interval():
    values = np.arange(30) % 3 == 0
    drawn = bootstrap_draws(lambda weights: float(weights @ values / weights.sum()), 30)
    assert percentiles(drawn) == pytest.approx(bootstrap_interval(values))


def test_confidence_sets_the_width():
    values = np.arange(30) % 3 == 0
    drawn = bootstrap_draws(lambda weights: float(weights @ values / weights.sum()), 30)
    half = percentiles(drawn, 0.5)
    assert bootstrap_interval(values, confidence=0.5) == pytest.approx(half)
    assert paired_interval(values.astype(float), confidence=0.5) == pytest.approx(half)
    assert half == pytest.approx(tuple(np.percentile(drawn, [25, 75]).tolist()))
    missed = 1 - 0.25 ** (1 / 20)
    assert paired_interval(np.zeros(20), confidence=0.5) == pytest.approx((-missed, missed))
    assert bootstrap_interval(np.ones(20, bool), confidence=0.5) == pytest.approx((1 - missed, 1))
    pairs, groups = np.tile([True, False], 50), np.repeat(np.arange(50), 2).tolist()
    assert bootstrap_interval(pairs, groups=groups, confidence=0.5) == wilson_interval(0.5, 50, 0.5)


def test_defaults_are_2000_draws_and_seed_0():
    changes = np.random.default_rng(1).normal(scale=0.2, size=25)
    assert paired_interval(changes) == paired_interval(changes, draws=2000, seed=0, confidence=0.95)
    drawn = [
        bootstrap_draws(lambda counts: float(counts @ changes), 25, **stated)
        for stated in ({}, {"draws": 2000, "seed": 0})
    ]
    np.testing.assert_array_equal(*drawn)


def test_paired_interval_cancels_common_difficulty():
    """Two models alike on 398 of 400 videos: each is uncertain by 5 points, their difference by less than 1."""
    first = np.arange(400) < 200
    second = first.copy()
    second[[200, 201]] = True
    low, high = paired_interval(second.astype(float) - first)
    assert 0 <= low <= 0.005 <= high <= 0.0125
    assert np.ptp(bootstrap_interval(first)) > 0.08


@pytest.mark.parametrize(
    ("changes", "interval"),
    [
        (np.zeros(20), (-0.1684, 0.1684)),  # 1 - 0.025 ** (1/20) of the videos may yet change
        (np.ones(20), (1 - 2 * 0.1684, 1.0)),
        (-np.ones(20), (-1.0, -1 + 2 * 0.1684)),
    ],
)
def test_differences_without_spread_have_an_interval(changes, interval):
    assert paired_interval(changes) == pytest.approx(interval, abs=1e-4)


def test_groups_are_drawn_together():
    changes = np.repeat((np.arange(50) < 10).astype(float), 2)
    separate = paired_interval(changes)
    together = paired_interval(changes, groups=[str(i // 2) for i in range(100)])
    assert np.ptp(together) > 1.2 * np.ptp(separate)


def test_no_videos():
    with pytest.raises(ValueError, match="videos, got 0"):
        bootstrap_interval(np.zeros(0, bool))


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (0, 0, 1.0),
        (0, 1, 1.0),
        (0, 5, 2 / 32),
        (5, 0, 2 / 32),
        (1, 9, 2 * 11 / 1024),
        (2, 10, 2 * (1 + 12 + 66) / 4096),
        (7, 7, 1.0),
    ],
)
def test_mcnemar_by_hand(only_a: int, only_b: int, p: float):
    assert mcnemar(only_a, only_b) == pytest.approx(p)


@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_the_exact_binomial_tail(only_a: int, only_b: int):
    n = only_a + only_b
    tail = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1))
    assert mcnemar(only_a, only_b) == pytest.approx(min(1.0, 2 * tail / 2**n), rel=1e-9)


def test_mcnemar_of_a_large_test_set():
    # The normal approximation with continuity: z = (|12000 - 12400| - 1) / sqrt(24400) = 2.554.
    assert mcnemar(12000, 12400) == pytest.approx(0.01064, rel=0.01)
    with pytest.raises(ValueError, match="-1 and 2"):
        mcnemar(-1, 2)


def test_wilson_by_hand():
    assert wilson_interval(0.5, 100) == pytest.approx((0.40383, 0.59617), abs=1e-5)


@pytest.mark.parametrize(("num_hits", "n"), [(0, 50), (10, 50), (25, 50), (49, 50), (50, 50), (1, 1)])
def test_interval_contains_the_mean(num_hits: int, n: int):
    hits = np.arange(n) < num_hits
    low, high = bootstrap_interval(hits)
    assert 0 <= low <= hits.mean() <= high <= 1
    assert bootstrap_interval(hits) == (low, high)
    assert bootstrap_interval(hits, confidence=0.5)[0] >= low


def test_interval_is_about_two_standard_errors():
    low, high = bootstrap_interval(np.arange(400) < 200)
    assert low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.005)
    assert high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.005)


def test_interval_counts_a_group_once():
    hits = np.repeat(np.arange(50) < 40, 2)
    separate, together = (bootstrap_interval(hits, groups=g) for g in (None, np.repeat(np.arange(50), 2)))
    assert together[1] - together[0] > 1.2 * (separate[1] - separate[0])


@pytest.mark.parametrize(("hits", "interval"), [(np.ones(20, bool), (0.8316, 1)), (np.zeros(20, bool), (0, 0.1684))])
def test_interval_without_spread_is_the_exact_bound(hits, interval):
    assert bootstrap_interval(hits) == pytest.approx(interval, abs=1e-4)


def test_interval_of_half_right_pairs_has_a_width():
    hits, pairs = np.tile([True, False], 50), np.repeat(np.arange(50), 2)
    low, high = bootstrap_interval(hits, groups=pairs)
    assert (low, high) == pytest.approx((0.3664, 0.6336), abs=1e-3)
