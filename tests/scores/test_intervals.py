import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from vsn.scores import intervals
from vsn.scores.intervals import (
    difference_interval,
    loss_share_interval,
    mcnemar,
    median_interval,
    share_interval,
    share_p_value,
)


def chance_of_more(num_hits: int, n: int, p: Fraction) -> Fraction:
    """P(X > num_hits) + P(X = num_hits) / 2 of X binomial (n, p), without rounding."""
    chances = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(num_hits, n + 1)]
    return sum(chances[1:], chances[0] / 2)


@pytest.mark.parametrize(("num_hits", "n"), [(1, 1), (1, 2), (3, 20), (19, 20), (57, 60), (99, 100), (200, 400)])
@pytest.mark.parametrize("confidence", [0.95, 0.9])
def test_bounds_of_a_share_are_where_the_binomial_tails_say(num_hits: int, n: int, confidence: float):
    low, high = share_interval(np.arange(n) < num_hits, confidence=confidence)
    tail = (1 - confidence) / 2
    assert float(chance_of_more(num_hits, n, Fraction(low))) == pytest.approx(tail, rel=1e-6)
    if num_hits < n:
        assert float(chance_of_more(num_hits, n, Fraction(high))) == pytest.approx(1 - tail, rel=1e-6)
    else:
        assert high == 1
    mirrored = share_interval(np.arange(n) >= num_hits, confidence=confidence)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-9)


@given(st.integers(0, 30), st.integers(1, 30), st.floats(0.05, 0.95))
@example(1, 1, 0.1)
def test_p_value_says_whether_the_lower_bound_is_above(num_hits: int, n: int, share: float):
    hits = np.arange(n) < num_hits
    p_value, lower = share_p_value(hits, share), share_interval(hits, confidence=0.9)[0]
    if p_value == pytest.approx(0.05, rel=1e-12):  # the bound itself: one right of one, and a share of 0.1
        assert lower == pytest.approx(share, rel=1e-9)
    else:
        assert (p_value <= 0.05) == (lower >= share)


def test_all_right_leaves_the_share_that_half_the_chance_excludes():
    """P(20 of 20) / 2 = p^20 / 2 = 0.025 at p = 0.861."""
    assert share_interval(np.ones(20, bool)) == pytest.approx((0.05 ** (1 / 20), 1))
    assert share_interval(np.zeros(20, bool)) == pytest.approx((0, 1 - 0.05 ** (1 / 20)))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000))
def test_intervals_contain_the_value_seen(num_videos: int, num_groups: int, seed: int):
    generator = np.random.default_rng(seed)
    hits = generator.random(num_videos) < generator.random()
    groups = generator.integers(num_groups, size=num_videos).astype(str).tolist()
    low, high = share_interval(hits, groups=groups)
    assert 0 <= low <= hits.mean() + 1e-9
    assert hits.mean() - 1e-9 <= high <= 1
    changes, classes = generator.integers(-1, 2, num_videos), generator.integers(4, size=num_videos)
    mean = np.mean([changes[classes == c].mean() for c in set(classes.tolist())])
    low, high = difference_interval(changes, groups=groups, classes=classes)
    assert -1 <= low <= mean + 1e-9
    assert mean - 1e-9 <= high <= 1


def test_a_share_of_25000_videos():
    # 1.96 * sqrt(0.8 * 0.2 / 25000) = 0.00496
    assert share_interval(np.arange(25_000) < 20_000) == pytest.approx((0.79501, 0.80492), abs=1e-5)


def test_pairs_that_are_always_equal_count_once():
    hits, groups = np.repeat(np.arange(50) < 40, 2), np.repeat(np.arange(50), 2).astype(str).tolist()
    # Student's t of 50 groups is wider by a fortieth.
    assert share_interval(hits, groups=groups) == pytest.approx(share_interval(np.arange(50) < 40), abs=0.005)
    changes = np.repeat(np.arange(50) < 10, 2).astype(int)
    alone = difference_interval((np.arange(50) < 10).astype(int))
    assert difference_interval(changes, groups=groups) == pytest.approx(alone, abs=0.005)


def test_all_right_pairs_count_once():
    pairs = np.repeat(np.arange(20), 2).astype(str).tolist()
    assert share_interval(np.ones(40, bool), groups=pairs) == pytest.approx(share_interval(np.ones(20, bool)))
    assert difference_interval(np.zeros(40), groups=pairs) == pytest.approx(difference_interval(np.zeros(20)))


def test_pairs_of_which_one_is_right_count_twice_at_most():
    """Nothing varies between pairs; an interval of width 0 would claim certainty."""
    hits, pairs = np.tile([True, False], 50), np.repeat(np.arange(50), 2).astype(str).tolist()
    assert share_interval(hits, groups=pairs) == pytest.approx(share_interval(np.tile([True, False], 100)), abs=0.005)


@pytest.mark.parametrize("num_groups", [3, 5, 10])
def test_few_groups_have_the_t_interval_of_their_means(num_groups: int):
    """With large groups of middling accuracy it nears the textbook's interval of a mean of so many values."""
    shares = np.linspace(0.45, 0.55, num_groups)
    hits = (np.arange(1000) < 1000 * shares[:, None] - 1e-6).ravel()
    low, high = share_interval(hits, groups=np.arange(num_groups).repeat(1000))
    means = hits.reshape(num_groups, -1).mean(axis=1)
    expected = stats.t.interval(0.95, num_groups - 1, means.mean(), means.std(ddof=1) / math.sqrt(num_groups))
    assert (low, high) == pytest.approx(expected, abs=0.012)


def test_the_degrees_of_freedom_are_those_of_bell_and_mccaffrey():
    """By matrices: (tr SK)^2 / tr (SK)^2 of the square form K of independent group means with variances S."""
    sizes = np.array([9, 5, 4, 2, 1])
    index, w = np.arange(5).repeat(sizes), sizes / sizes.sum()
    for alike in (0.0, 0.3, 1.0):
        means = np.diag(alike + (1 - alike) / sizes)
        residuals = np.diag(w / np.sqrt(1 - w)) @ (np.eye(5) - np.outer(np.ones(5), w))
        form = means @ residuals.T @ residuals
        freedom = np.trace(form) ** 2 / np.trace(form @ form)
        variance = alike * np.sum(w**2) + (1 - alike) / sizes.sum()
        quantile = intervals._group_quantile(np.full(21, 1 / 21), index, variance)
        assert quantile == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-5)


def test_a_group_with_nearly_all_videos_has_one_degree_of_freedom():
    for sizes in ((100_000, 1, 1), (20_000, 1, 1), (400_000, *[1] * 40)):
        groups = np.arange(len(sizes)).repeat(sizes)
        weights = np.full(len(groups), 1 / len(groups))
        for variance in (0.0, 1e-6, 1.0):
            assert intervals._group_quantile(weights, groups, variance) == pytest.approx(12.7062, rel=1e-3)
        low, high = difference_interval(np.where(groups == 1, 1, 0), groups=groups)
        assert -1 <= low <= high <= 1


@pytest.mark.parametrize("sizes", [(100, 5, 5, 5, 5), (300, *[10] * 9), (50, 50, *[2] * 8), (20, 20, 20, 20, 20)])
def test_most_videos_of_one_person_are_one_person(sizes: tuple[int, ...]):
    """Of 400 test sets of people whose accuracies differ the intervals of at most a few miss the true one."""
    generator, groups = np.random.default_rng(0), np.arange(len(sizes)).repeat(sizes)
    missed = {"share": 0, "difference": 0}
    for _ in range(400):
        right = generator.random((2, len(groups))) < generator.beta(2.8, 1.2, (2, len(sizes)))[:, groups]
        low, high = share_interval(right[0], groups=groups)
        missed["share"] += not low <= 0.7 <= high
        low, high = difference_interval(right[1].astype(int) - right[0], groups=groups)
        missed["difference"] += not low <= 0 <= high
    assert max(missed.values()) <= 32  # 20 are expected, at most


def test_the_order_of_videos_and_the_names_of_groups_do_not_matter():
    generator = np.random.default_rng(3)
    hits, groups = generator.random(60) < 0.7, generator.integers(25, size=60)
    order = generator.permutation(60)
    first = share_interval(hits, groups=groups.astype(str).tolist())
    assert share_interval(hits[order], groups=[f"v{99 - g}" for g in groups[order]]) == pytest.approx(first)


def score_by_grid(won: int, lost: int, n: int, difference: float) -> float:
    """Tango's statistic: the shares of most likelihood with this difference, found by trying 200,000 of them."""
    shares = np.linspace(max(0.0, -difference), (1 - difference) / 2, 200_001)[1:-1]  # of videos lost
    same = 1 - difference - 2 * shares
    likelihood = won * np.log(shares + difference) + lost * np.log(shares) + (n - won - lost) * np.log(same)
    share = shares[likelihood.argmax()]
    return (won - lost - n * difference) / math.sqrt(n * (2 * share + difference * (1 - difference)))


@pytest.mark.parametrize(("won", "lost", "n"), [(7, 3, 100), (1, 2, 30), (12, 1, 40), (200, 150, 1000), (5, 9, 14)])
def test_bounds_of_a_difference_are_where_the_score_is_1_96(won: int, lost: int, n: int):
    low, high = difference_interval(np.repeat([1, -1, 0], [won, lost, n - won - lost]))
    assert score_by_grid(won, lost, n, low) == pytest.approx(1.96, abs=2e-3)
    assert score_by_grid(won, lost, n, high) == pytest.approx(-1.96, abs=2e-3)
    back = difference_interval(np.repeat([-1, 1, 0], [won, lost, n - won - lost]))
    assert back == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize(
    ("changes", "interval"),
    [
        (np.zeros(20), (-0.16113, 0.16113)),  # z^2 / (n + z^2)
        (np.ones(20), (1 - 2 * 0.16113, 1.0)),
        (-np.ones(20), (-1.0, -1 + 2 * 0.16113)),
    ],
)
def test_differences_without_spread_have_an_interval(changes, interval):
    assert difference_interval(changes) == pytest.approx(interval, abs=1e-4)


def test_common_difficulty_cancels():
    """Two models alike on 398 of 400 videos: each is uncertain by 5 points, their difference by less than 1.5."""
    first = np.arange(400) < 200
    second = first.copy()
    second[[200, 201]] = True
    low, high = difference_interval(second.astype(int) - first)
    assert low < 0.005 < high
    assert high - low < 0.025
    assert np.ptp(share_interval(first)) > 0.08


def test_classes_of_equal_size_have_the_mean_over_videos():
    changes, classes = np.tile([1, 0, 0, -1, 0, 0, 1, 0], 10), np.repeat(np.arange(10), 8)
    assert difference_interval(changes, classes=classes) == pytest.approx(difference_interval(changes), abs=0.01)


def test_rare_classes_make_the_mean_over_classes_uncertain():
    """Of 10 classes, one has 2 videos and a tenth of the weight."""
    changes = np.concatenate([np.tile([1, 0, 0, 0, -1, 0], 60), [1, 0]])
    classes = np.concatenate([np.repeat(np.arange(9), 40), [9, 9]])
    by_class, by_video = difference_interval(changes, classes=classes), difference_interval(changes)
    assert np.ptp(by_class) > 1.5 * np.ptp(by_video)
    assert by_class[0] < 0.05 < by_class[1]


def test_a_class_of_one_video_is_counted():
    """Left out, the one gain would not be seen; weighed by a tenth, it widens the interval to both sides."""
    changes, classes = np.zeros(91, int), np.repeat(np.arange(10), [10] * 9 + [1])
    without = difference_interval(changes, classes=classes)
    changes[-1] = 1
    low, high = difference_interval(changes, classes=classes)
    assert low < 0.1 < high
    assert high > without[1] + 0.1


def test_share_that_depends_on_order_by_loop():
    """The share r is inside where the mean of loss - r * above is within 1.96 standard errors of 0."""
    forward, shuffled = np.arange(40) < 36, np.arange(40) < 24
    pairs = [*zip(forward.tolist(), shuffled.tolist(), [1.0] * 40, strict=True)]
    pairs += [(a, b, 0.5) for a in (True, False) for b in (True, False)]
    low, high = loss_share_interval(forward, shuffled, chance=0.5)
    assert low < 0.75 < high
    for share, inside in ((low - 1e-4, False), (low + 1e-4, True), (high - 1e-4, True), (high + 1e-4, False)):
        total = sum(weight for *_, weight in pairs)
        rests = [((a - b) - share * (a - 0.5), weight) for a, b, weight in pairs]
        mean = sum(rest * weight for rest, weight in rests) / total
        # Each pulls the mean to itself by its share of the weight.
        squares = [weight * (rest - mean) ** 2 / (1 - weight / total) for rest, weight in rests]
        assert (abs(mean) <= 1.959964 * math.sqrt(sum(squares)) / total) == inside


def test_share_of_a_model_at_chance_has_no_interval():
    assert loss_share_interval(np.arange(40) < 22, np.arange(40) < 20, chance=0.5) is None
    assert loss_share_interval(np.arange(40) < 2, np.arange(40) < 1, chance=0.5) is None


def test_share_of_copies_counts_once():
    forward, other = (np.repeat(np.arange(40) < n, 2) for n in (36, 24))
    groups = np.repeat(np.arange(40), 2).astype(str).tolist()
    together = loss_share_interval(forward, other, chance=0.5, groups=groups)
    apart = loss_share_interval(forward, other, chance=0.5)
    assert np.ptp(together) > 1.2 * np.ptp(apart)


@pytest.mark.parametrize(
    ("values", "interval"),
    [
        ([3.0], (3, 3)),
        ([1, 2, 3, 4, 5], (1, 5)),  # 93.75%
        # Of 6, the range has 96.875% and the second to the fifth 78.125%: 0.1 of the way by chance, and by
        # Hettmansperger and Sheather 5 * 0.1 / (1 + 4 * 0.1) of the gap.
        ([10, 20, 30, 40, 50, 60], (10 + 10 * 0.5 / 1.4, 60 - 10 * 0.5 / 1.4)),
    ],
)
def test_interval_of_a_median_by_hand(values, interval):
    assert median_interval(values) == pytest.approx(interval)
    assert median_interval(values[::-1]) == pytest.approx(interval)


def test_no_videos():
    for call in (share_interval, difference_interval):
        with pytest.raises(ValueError, match="videos, got 0"):
            call(np.zeros(0, bool))


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
