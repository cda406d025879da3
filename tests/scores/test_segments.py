"""Measures of timelines: cases worked out by hand, and references written as loops."""

import itertools
from functools import cache

import numpy as np
import pytest

from vsn.scores.segments import (
    LabeledVideo,
    Segment,
    edit_score,
    mean_average_precision,
    score_segments,
    share_right,
)


def video(predicted: str, truth: str, seconds: float = 10) -> LabeledVideo:
    """Segments as "label start end [score]", separated by commas."""

    def segments(text: str) -> list[Segment]:
        rows = [row.split() for row in text.split(",") if row]
        return [Segment(float(row[1]), float(row[2]), row[0], float(row[3]) if len(row) > 3 else None) for row in rows]

    return LabeledVideo(segments(predicted), segments(truth), seconds)


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        ("a 0 2 .9", "a 0 2", 1.0),
        ("", "a 0 2", 0.0),
        ("b 0 2 .9", "a 0 2", 0.0),
        ("a 0 2 .9", "a 0 2,a 4 6", 0.5),
        ("a 0 2 .9,a 0 2 .8", "a 0 2", 1.0),  # the second is wrong, after all are found
        ("a 8 9 .9,a 0 2 .8", "a 0 2", 0.5),  # the first is wrong
        ("a 0 2 .9,a 8 9 .8,a 4 6 .7", "a 0 2,a 4 6", (1 + 2 / 3) / 2),
        ("a 8 9 .9,a 0 2 .8,a 4 6 .7", "a 0 2,a 4 6", 2 / 3),  # interpolated: 2/3 at recall 1/2 too
        ("a 0 2 .9,b 8 9 .9", "a 0 2,b 4 6", 0.5),  # the mean of 1 and 0
        ("a 0 2 .9,c 8 9 .9", "a 0 2", 1.0),  # a class that is never true does not count
        ("a 0 3 .9", "a 0 2", 1.0),  # IoU 2/3
        ("a 0 5 .9", "a 0 2", 0.0),  # IoU 2/5
        ("a 0 4 .9", "a 0 2", 1.0),  # IoU 1/2, the threshold
        ("a 0 2 .5,a 0 2.2 .9", "a 0 2,a 6 7", 0.5),  # the better scored takes it
    ],
)
def test_mean_average_precision_by_hand(predicted: str, truth: str, expected: float) -> None:
    assert mean_average_precision([video(predicted, truth)], 0.5) == pytest.approx(expected)


def test_scores_are_ranked_over_all_videos() -> None:
    videos = [video("a 0 2 .5", "a 0 2"), video("a 5 7 .9", "a 0 2")]
    assert mean_average_precision(videos, 0.5) == pytest.approx(0.25)  # wrong, right: precision 1/2 at recall 1/2


def interpolated(is_right: list[bool], num_true: int) -> float:
    """The area under the curve by its definition: of each true segment the highest precision at its recall or above."""
    points = [(sum(is_right[:n]) / num_true, sum(is_right[:n]) / n) for n in range(1, len(is_right) + 1)]
    return (
        sum(max((p for r, p in points if r >= k / num_true - 1e-9), default=0) for k in range(1, num_true + 1))
        / num_true
    )


@pytest.mark.parametrize("seed", range(20))
def test_mean_average_precision_of_drawn_segments(seed: int) -> None:
    draws = np.random.default_rng(seed)
    truth = [Segment(10 * i, 10 * i + 4, "a") for i in range(8)]
    predicted, order = [], []
    scores = draws.permutation(12) / 12
    places = draws.permutation(12)
    for score, place in zip(scores, places, strict=True):
        start = 10 * place + float(draws.uniform(-3, 3))
        predicted.append(Segment(start, start + 4, "a", float(score)))
        # Two segments of 4 seconds that are d apart have an IoU of (4 - d) / (4 + d).
        shift = abs(start - 10 * place)
        order.append((-float(score), bool(place < 8 and (4 - shift) / (4 + shift) >= 0.5)))
    expected = interpolated([is_right for _, is_right in sorted(order)], 8)
    assert mean_average_precision([LabeledVideo(predicted, truth, 130.0)], 0.5) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        ("", "", 1.0),
        ("a 0 1", "a 5 6", 1.0),  # the order counts, not the time
        ("a 0 1,a 2 3", "a 5 6", 1.0),
        ("", "a 0 1", 0.0),
        ("a 0 1,b 1 2,c 2 3", "a 0 1,c 2 3", 2 / 3),
        ("b 1 2,a 0 1", "a 0 1,b 1 2", 1.0),
        ("b 0 1,a 1 2", "a 0 1,b 1 2", 0.0),
    ],
)
def test_edit_score_by_hand(predicted: str, truth: str, expected: float) -> None:
    assert edit_score(video(predicted, truth)) == pytest.approx(expected)


def test_edit_score_of_drawn_sequences() -> None:
    @cache
    def distance(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))

    draws = np.random.default_rng(0)
    for _ in range(50):
        words = [
            "".join(k for k, _ in itertools.groupby(draws.choice(list("abc"), n))) for n in draws.integers(1, 9, 2)
        ]
        rows = [",".join(f"{label} {i} {i + 1}" for i, label in enumerate(word)) for word in words]
        expected = 1 - distance(*words) / max(map(len, words))
        assert edit_score(video(*rows)) == pytest.approx(expected)


def test_accuracy_over_time_is_that_of_many_frames() -> None:
    draws = np.random.default_rng(1)
    videos = []
    for _ in range(5):
        parts = []
        for _ in range(2):
            edges = np.sort(draws.uniform(0, 11, 8))  # some end after the video
            parts.append(
                [Segment(a, b, str(draws.integers(3)), 0.5) for a, b in zip(edges[::2], edges[1::2], strict=True)]
            )
        videos.append(LabeledVideo(*parts, 10.0))
    right = total = 0
    for one in videos:
        for time in (np.arange(20_000) + 0.5) / 2000:
            labels = [next((s.label for s in part if s.start <= time < s.end), None) for part in one[:2]]
            right += labels[0] == labels[1]
            total += 1
    assert score_segments(videos).time_accuracy == pytest.approx(right / total, abs=2e-3)


def test_shares_of_time_by_hand() -> None:
    one = video("a 1 3 .9", "a 2 4,b 6 7")
    scores = score_segments([one], ious=(0.3, 0.5))
    assert scores.share_right == share_right([one]) == pytest.approx(1 / 3)
    assert scores.time_accuracy == pytest.approx((1 + 1 + 2 + 3) / 10)  # 0-1, 2-3, 4-6, 7-10
    assert scores.mean_average_precision == {"0.3": 0.5, "0.5": 0.0}
    assert scores.mean == 0.25
    assert (scores.num_true, scores.num_predicted) == (2, 1)
    assert "25.0%" in str(scores)


@pytest.mark.parametrize(
    ("truth", "ious", "message"),
    [("", (0.5,), "no true segment"), ("a 0 1", (0.0,), r"\[0.0\]"), ("a 0 1", (), r"\[\]")],
)
def test_nothing_to_measure(truth: str, ious: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_segments([video("a 0 1 .5", truth)], ious)
