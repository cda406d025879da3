"""Measure how often each interval contains the true value, in simulated test sets.

    python benchmarks/interval_coverage.py results/interval-coverage-cpu.json [--draws 2000] [--seed 0]

Each row is one kind of interval in one case: `coverage` is the share of simulated test sets whose interval contains the
true value. Shares of independent videos are summed exactly over all numbers of right videos ("exact"). 2,000 draws know
a coverage of 95% within 1 point. `methods` compares intervals of a share over a grid of test sets.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common import describe_run
from vsn.scores.calibrate import choose_threshold
from vsn.scores.intervals import (
    Interval,
    difference_interval,
    loss_share_interval,
    median_interval,
    share_interval,
)
from vsn.scores.metrics import average_precisions
from vsn.scores.scores import Scores, ScoresError
from vsn.system.files import write_json

Z = 1.959963984540054
GRID_VIDEOS = (20, 30, 50, 60, 100, 200, 400, 1000, 2000)
GRID_SHARES = tuple(p / 200 for p in range(100, 200))

Case = tuple[str, dict[str, Any], Callable[[np.random.Generator], bool | None]]
"""Kind of interval, its parameters, and a function that simulates a test set: whether the interval contains the true
value; None where there is no interval."""


def contains(interval: Interval, value: float) -> bool:
    """Return whether a value is in an interval, up to rounding."""
    return interval[0] - 1e-9 <= value <= interval[1] + 1e-9


@cache
def share_of(num_right: int, num_videos: int) -> Interval:
    """Return the interval of a share of independent videos."""
    return share_interval(np.arange(num_videos) < num_right)


@cache
def difference_of(won: int, lost: int, num_videos: int) -> Interval:
    """Return the interval of the difference of two models, of independent videos."""
    videos = np.arange(num_videos)
    return difference_interval((videos < won).astype(int) - ((videos >= won) & (videos < won + lost)))


def wilson_of(num_right: int, num_videos: int) -> Interval:
    """Return Wilson's score interval, for comparison."""
    share, n = num_right / num_videos, num_videos
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + (Z / (2 * n)) ** 2)
    return middle - half, middle + half


def bootstrap_of(num_right: int, num_videos: int) -> Interval:
    """Return the percentile bootstrap interval with infinitely many draws; all or none right: the exact bound."""
    n, share = num_videos, num_right / num_videos
    if num_right in (0, n):
        bound = 0.025 ** (1 / n)
        return (bound, 1.0) if num_right else (0.0, 1 - bound)
    reached = np.cumsum(binomial(n, share))
    return int(np.searchsorted(reached, 0.025)) / n, int(np.searchsorted(reached, 0.975)) / n


def binomial(n: int, p: float) -> NDArray[np.float64]:
    """Return ``(n + 1,)`` probabilities of 0 to n right videos."""
    k = np.arange(n + 1)
    factorials = np.array([math.lgamma(i + 1) for i in range(n + 1)])
    log = factorials[n] - factorials - factorials[::-1] + k * math.log(p) + (n - k) * math.log1p(-p)
    return np.exp(log)


def exact_coverage(method: Callable[[int, int], Interval], n: int, p: float) -> float:
    """Return the probability that the interval of a share of ``n`` independent videos contains ``p``."""
    return math.fsum(chance for k, chance in enumerate(binomial(n, p)) if chance > 1e-12 and contains(method(k, n), p))


def compare_methods() -> dict[str, dict[str, float]]:
    """Return, of each method, the least and mean coverage over the grid, and the share of the grid in 94 to 96%."""
    methods = {"mid-P": share_of, "Wilson": wilson_of, "percentile bootstrap": bootstrap_of}
    found = {}
    for name, method in methods.items():
        cached = cache(method)
        values = np.array([[exact_coverage(cached, n, p) for p in GRID_SHARES] for n in GRID_VIDEOS])
        found[name] = {
            "least": round(float(values.min()), 4),
            "mean": round(float(values.mean()), 4),
            "in_94_to_96": round(float(((values >= 0.94) & (values <= 0.96)).mean()), 4),
            "below_93": round(float((values < 0.93).mean()), 4),
        }
    return found


def pairs(generator: np.random.Generator, num_pairs: int, p: float, correlation: float) -> NDArray[np.bool_]:
    """Return ``(2 * num_pairs,)`` bool, neighbors of one source video, right with probability p each."""
    both = p * p + correlation * p * (1 - p)
    u = generator.random(num_pairs)
    first = u < p
    second = (u < both) | ((u >= p) & (u < 2 * p - both))
    return np.stack([first, second], axis=1).reshape(-1)


def changes_of(
    generator: np.random.Generator, changed: NDArray[np.float64], gain: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return 1, -1 or 0 a video: won or lost with these probabilities of a change and expected gains."""
    u = generator.random(len(changed))
    return (u < (changed + gain) / 2).astype(np.int64) - ((u >= (changed + gain) / 2) & (u < changed))


def pair_cases() -> Iterator[Case]:
    for num_pairs in (25, 100, 400):
        groups = np.repeat(np.arange(num_pairs), 2).astype(str).tolist()
        for p, correlation in ((0.5, 0.0), (0.8, 0.5), (0.95, 0.5), (0.5, -0.4), (0.5, -0.9)):

            def draw(generator, groups=groups, p=p, correlation=correlation, n=num_pairs):
                return contains(share_interval(pairs(generator, n, p, correlation), groups=groups), p)

            yield "share, reversed copies", {"num_videos": 2 * num_pairs, "p": p, "correlation": correlation}, draw


def group_cases() -> Iterator[Case]:
    """Shares of 45 videos of each of a few people, whose accuracies differ; also by a bootstrap of the people."""
    for num_groups in (5, 10, 25):
        groups = np.arange(num_groups).repeat(45)
        for p, deviation in ((0.45, 0.12), (0.8, 0.12), (0.9, 0.08), (0.6, 0.0)):

            def hits_of(generator, n=num_groups, p=p, deviation=deviation):
                spread = p * (1 - p) / deviation**2 - 1 if deviation else 1e9
                return generator.random((n, 45)) < generator.beta(p * spread, (1 - p) * spread, (n, 1))

            def draw(generator, hits_of=hits_of, groups=groups, p=p):
                return contains(share_interval(hits_of(generator).ravel(), groups=groups), p)

            def bootstrap(generator, hits_of=hits_of, n=num_groups, p=p):
                means = hits_of(generator).mean(axis=1)
                low, high = np.percentile(means[generator.integers(n, size=(1000, n))].mean(axis=1), [2.5, 97.5])
                return contains((low, high), p)

            case = {"groups": num_groups, "num_videos": 45 * num_groups, "p": p, "deviation": deviation}
            yield "share, groups", case, draw
            yield "share, percentile bootstrap of groups (not printed)", case, bootstrap
    for sizes in ((100, 5, 5, 5, 5), (300, *[10] * 9), (150, 30, 20, 10, 5, 5, 3, 2), (50, 50, *[2] * 8), (60, 50, 40)):
        groups = np.arange(len(sizes)).repeat(sizes)
        for p, deviation in ((0.45, 0.12), (0.8, 0.12), (0.9, 0.08), (0.6, 0.0)):

            def right_of(generator, p=p, deviation=deviation, groups=groups):
                spread = p * (1 - p) / deviation**2 - 1 if deviation else 1e9
                shares = generator.beta(p * spread, (1 - p) * spread, (2, groups[-1] + 1))
                return generator.random((2, len(groups))) < shares[:, groups]

            def draw_share(generator, right_of=right_of, groups=groups, p=p):
                return contains(share_interval(right_of(generator)[0], groups=groups), p)

            def draw_difference(generator, right_of=right_of, groups=groups):
                first, second = right_of(generator).astype(int)
                return contains(difference_interval(second - first, groups=groups), 0.0)

            case = {"sizes": list(sizes), "num_videos": sum(sizes), "p": p, "deviation": deviation}
            yield "share, groups of unequal sizes", case, draw_share
            yield "difference, groups of unequal sizes", case, draw_difference


def difference_cases() -> Iterator[Case]:
    for n in (20, 60, 400, 2000):
        for changed, gain in ((0.05, 0.0), (0.05, 0.035), (0.2, 0.0), (0.2, 0.1), (0.6, 0.2)):

            def draw(generator, n=n, changed=changed, gain=gain):
                won, lost, _ = generator.multinomial(n, [(changed + gain) / 2, (changed - gain) / 2, 1 - changed])
                return contains(difference_of(int(won), int(lost), n), gain)

            yield "difference", {"num_videos": n, "changed": changed, "difference": gain}, draw
    for num_pairs in (50, 400):
        groups = np.repeat(np.arange(num_pairs), 2).astype(str).tolist()

        def draw_pairs(generator, groups=groups, n=num_pairs):
            source = changes_of(generator, np.full(n, 0.3), np.full(n, 0.1)).repeat(2)
            own = changes_of(generator, np.full(2 * n, 0.3), np.full(2 * n, 0.1))
            values = np.where(generator.random(2 * n) < 0.7, source, own)
            return contains(difference_interval(values, groups=groups), 0.1)

        yield (
            "difference, reversed copies",
            {"num_videos": 2 * num_pairs, "changed": 0.3, "difference": 0.1},
            draw_pairs,
        )


def fusion_cases() -> Iterator[Case]:
    # Two inputs with the same true accuracy. The best is selected on the same videos, as `vsn fuse` does.
    for n in (60, 400, 2000):

        def draw(generator, n=n):
            hard = generator.random(n) < 0.7
            inputs = [np.where(hard, hard, generator.random(n) < 1 / 3) for _ in range(2)]
            fused = np.where(hard, hard, generator.random(n) < 0.5)
            best = max(inputs, key=np.sum)
            changes = fused.astype(int) - best
            return contains(difference_of(int((changes > 0).sum()), int((changes < 0).sum()), n), 0.05)

        yield "gain of a fusion over the best of two", {"num_videos": n, "difference": 0.05}, draw


def mean_class_cases() -> Iterator[Case]:
    ranks = np.arange(1, 51)
    sizes = {
        "50 of 1 video": np.full(50, 1),
        "50 of 2 videos": np.full(50, 2),
        "20 of 1, 20 of 2": np.repeat([1, 2], 20),
        "50 of 2 to 222": np.maximum(2, np.round(1000 / ranks / np.sum(1 / ranks))).astype(int),
        "10 of 1, 10 of 50": np.repeat([1, 50], 10),
        "1 of 1, 9 of 40": np.array([1, *[40] * 9]),
    }
    for name, counts in sizes.items():
        num_classes = len(counts)
        classes = np.repeat(np.arange(num_classes), counts)
        sign = np.where(np.arange(num_classes) % 2, 1.0, -1.0)
        rare = counts <= np.median(counts)
        effects = {
            "no difference": (np.full(num_classes, 0.3), np.zeros(num_classes)),
            "gain": (np.full(num_classes, 0.3), np.full(num_classes, 0.1)),
            "gain in rare classes": (np.where(rare, 0.5, 0.1), np.where(rare, 0.3, 0.0)),
            "gains and losses by class": (np.full(num_classes, 0.4), 0.35 * sign),
        }
        for effect, (changed, gain) in effects.items():

            def draw(generator, classes=classes, changed=changed, gain=gain):
                changes = changes_of(generator, changed[classes], gain[classes])
                return contains(difference_interval(changes, classes=classes), float(gain.mean()))

            yield "mean-class difference", {"classes": name, "num_videos": len(classes), "effect": effect}, draw


def order_cases() -> Iterator[Case]:
    for n in (40, 160, 400):
        for chance, forward, other in ((0.5, 0.95, 0.5), (0.5, 0.9, 0.88), (1 / 15, 0.9, 0.7), (1 / 15, 0.99, 0.95)):

            def draw(generator, n=n, chance=chance, forward=forward, other=other):
                u, v = generator.random((2, n))
                hits = [u < forward, np.where(v < 0.5, u, generator.random(n)) < other]
                interval = loss_share_interval(*hits, chance=chance)
                return None if interval is None else contains(interval, (forward - other) / (forward - chance))

            yield (
                "share that depends on order",
                {"num_videos": n, "chance": round(chance, 3), "forward": forward, "other": other},
                draw,
            )


def simulated_scores(generator: np.random.Generator, n: int, mean: float) -> Scores:
    """Return scores of two classes whose probabilities are right as often as they say."""
    logits = generator.normal(mean, 2, n)
    right = generator.random(n) < 1 / (1 + np.exp(-logits))
    return Scores(
        np.arange(n).astype(str),
        np.stack([np.abs(logits), np.zeros(n)], axis=1).astype(np.float32),
        (right != (logits > 0)).astype(np.int64),
        ("a", "b"),
        "logits",
        {},
    )


@cache
def true_precision(mean: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return confidences, increasing, and the precision of accepting all at or above each."""
    logits = np.random.default_rng(1).normal(mean, 2, 1_000_000)
    # Calibrated: the confidence is the chance to be right.
    confidence = np.sort(1 / (1 + np.exp(-np.abs(logits))))
    return confidence, np.cumsum(confidence[::-1])[::-1] / np.arange(len(confidence), 0, -1)


def threshold_cases() -> Iterator[Case]:
    for n, mean, precision in ((200, 3.0, 0.9), (400, 3.0, 0.95), (400, 2.0, 0.9), (2000, 2.0, 0.95)):

        def draw(generator, n=n, mean=mean, precision=precision):
            try:
                threshold = choose_threshold(simulated_scores(generator, n, mean), precision)
            except ScoresError:
                return None
            confidence, values = true_precision(mean)
            return bool(values[min(np.searchsorted(confidence, threshold - 1e-7), len(values) - 1)] >= precision)

        yield "precision of the threshold holds", {"num_videos": n, "mean_logit": mean, "precision": precision}, draw


def median_cases() -> Iterator[Case]:
    for rounds in (3, 5, 6, 8, 10, 20, 50):
        yield (
            "median ratio of times",
            {"rounds": rounds},
            lambda generator, n=rounds: contains(median_interval(np.exp(generator.normal(size=n)).tolist()), 1.0),
        )


def average_precision_cases() -> Iterator[Case]:
    """Percentile bootstrap of a mean average precision, which is why none is printed."""
    for n in (60, 300):

        def several(generator, n=n):
            labels = generator.random((n, 5)) < 0.15
            logits = generator.normal(size=(n, 5)) + 2.0 * labels
            return Scores(np.arange(n).astype(str), logits.astype(np.float32), labels, tuple("abcde"), "logits", {})

        def mean_precision(scores):
            return float(np.mean(list(average_precisions(scores).values())))

        expected = float(np.mean([mean_precision(several(np.random.default_rng(i))) for i in range(2000)]))

        def draw(generator, several=several, mean_precision=mean_precision, expected=expected, n=n):
            scores = several(generator)
            drawn = (generator.integers(n, size=n) for _ in range(200))
            means = [mean_precision(replace(scores, logits=scores.logits[d], labels=scores.labels[d])) for d in drawn]
            low, high = np.percentile(means, [2.5, 97.5])
            return contains((low, high), expected)

        yield "mean average precision, percentile bootstrap (not printed)", {"num_videos": n, "classes": 5}, draw


SLOW = ("precision of the threshold holds", "mean average precision, percentile bootstrap (not printed)")
"""Kinds simulated a quarter as often."""


def simulate(cases: Iterator[Case], draws: int, seed: int) -> list[dict[str, Any]]:
    """Return a row for each case, with the share of draws whose interval contains the true value."""
    rows = []
    for number, (kind, parameters, draw) in enumerate(cases):
        generator = np.random.default_rng([seed, number])
        results = [draw(generator) for _ in range(draws // 4 if kind in SLOW else draws)]
        given = [inside for inside in results if inside is not None]
        row = {"interval": kind, **parameters, "draws": len(results), "coverage": round(float(np.mean(given)), 4)}
        rows.append(row | ({"without": len(results) - len(given)} if len(given) < len(results) else {}))
        print(row, flush=True)
    return rows


def all_cases() -> Iterator[Case]:
    """Return every simulated case of every interval that the project prints."""
    yield from pair_cases()
    yield from group_cases()
    yield from difference_cases()
    yield from fusion_cases()
    yield from mean_class_cases()
    yield from order_cases()
    yield from threshold_cases()
    yield from median_cases()
    yield from average_precision_cases()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(given)
    exact = [
        {
            "interval": "share",
            "num_videos": n,
            "p": p,
            "draws": "exact",
            "coverage": round(exact_coverage(share_of, n, p), 4),
        }
        for n in (20, 60, 100, 400, 2000)
        for p in (0.5, 0.8, 0.9, 0.95, 0.99)
    ]
    facts = {
        **describe_run(__file__, [f"results/{options.out.name}", *given[1:]]),
        "seed": options.seed,
        "grid": {"num_videos": GRID_VIDEOS, "p": [GRID_SHARES[0], GRID_SHARES[-1]], "step": 0.005},
        "methods": compare_methods(),
        "rows": [*exact, *simulate(all_cases(), options.draws, options.seed)],
    }
    write_json(options.out, facts)


if __name__ == "__main__":
    main()
