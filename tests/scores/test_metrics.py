import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.made_scores import scores_of, several
from vsn.scores.metrics import (
    UNREADABLE,
    average_precisions,
    log_softmax,
    per_class_accuracy,
    predicted_classes,
    probabilities,
    sigmoid,
    softmax,
    summarize,
    top_k_hits,
)
from vsn.scores.scores import ScoresError

NAN = float("nan")


@pytest.mark.parametrize(
    ("logits", "label", "k", "hit"),
    [
        ([3, 2, 1], 0, 1, True),
        ([3, 2, 1], 1, 1, False),
        ([3, 2, 1], 1, 2, True),
        ([3, 2, 1], 2, 2, False),
        ([3, 2, 1], 2, 3, True),
        ([3, 3, 1], 0, 1, False),  # ties count as wrong
        ([3, 3, 1], 1, 1, False),
        ([3, 3, 1], 0, 2, True),
        ([0, 0, 0], 0, 1, False),
        ([0, 0, 0], 0, 2, False),
        ([0, 0, 0], 0, 3, True),
        ([NAN, NAN, NAN], 0, 1, False),  # NaN counts as wrong
        ([NAN, 1, 0], 0, 1, False),
        ([NAN, 1, 0], 1, 1, False),
    ],
)
def test_top_k(logits: list[float], label: int, k: int, hit: bool):
    assert top_k_hits(scores_of([logits], [label]), k).tolist() == [hit]


def test_per_class_and_summary():
    scores = scores_of([[2, 1, 0], [1, 2, 0], [0, 1, 2], [2, 1, 0]], [0, 0, 2, 2])
    assert per_class_accuracy(scores) == {"a": 0.5, "c": 0.5}  # class b has no videos
    scores = scores_of([[2, 1, 0], [2, 1, 0], [2, 1, 0], [0, 2, 1]], [0, 0, 0, 2])
    result = summarize(scores)
    assert per_class_accuracy(scores) == result.per_class == {"a": 1.0, "c": 0.0}
    assert (result.num_videos, result.top1, result.top5, result.mean_name, result.mean) == (
        4,
        0.75,
        None,
        "mean_class",
        0.5,
    )
    low, high = result.top1_interval
    assert 0 <= low <= 0.75 <= high <= 1


def test_top_k_multi_label():
    scores = several([[3, 2, 1], [3, 2, 1], [3, 2, 1], [NAN] * 3], [[0, 1, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1]])
    assert top_k_hits(scores, 1).tolist() == [False, True, False, False]
    assert top_k_hits(scores, 2).tolist() == [True, True, False, False]


def average_precision_by_loop(values: list[float], true: list[bool]) -> float:
    ranks = [-np.inf if np.isnan(value) else value for value in values]
    precisions = []
    for own, is_true in zip(ranks, true, strict=True):
        if is_true:
            above = [t for value, t in zip(ranks, true, strict=True) if value >= own]
            precisions.append(sum(above) / len(above))
    return float(np.mean(precisions))


@given(st.integers(1, 30), st.integers(0, 2**32))
def test_average_precision_by_loop(num_videos: int, seed: int):
    generator = np.random.default_rng(seed)
    logits = generator.integers(0, 6, (num_videos, 3)).astype(float)  # many ties
    logits[generator.random(num_videos) < 0.1] = NAN
    labels = generator.random((num_videos, 3)) < 0.4
    found = average_precisions(several(logits.tolist(), labels.tolist()))
    assert set(found) == {name for name, column in zip("abc", labels.T, strict=True) if column.any()}
    for name, value in found.items():
        column = "abc".index(name)
        assert value == pytest.approx(average_precision_by_loop(logits[:, column].tolist(), labels[:, column].tolist()))


def test_average_precision_by_hand():
    # Ranked: true, false, true: (1/1 + 2/3) / 2.
    scores = several([[3, 0], [2, 1], [1, 0]], [[1, 0], [0, 1], [1, 0]])
    assert average_precisions(scores) == {"a": pytest.approx(5 / 6), "b": 1.0}
    result = summarize(scores)
    assert (result.mean_name, result.mean) == ("mean_average_precision", pytest.approx(11 / 12))
    assert result.per_class == average_precisions(scores)
    assert "mean_class" not in result.to_dict()
    with pytest.raises(ValueError, match="multi-label"):
        average_precisions(scores_of([[1, 0]], [0]))


def test_softmax():
    values = softmax(np.array([[0, np.log(3)], [1000, 1000]]))
    np.testing.assert_allclose(values, [[0.25, 0.75], [0.5, 0.5]], atol=1e-12)
    assert values.dtype == np.float64
    deep = np.log([[[1.0, 3.0], [3.0, 1.0]], [[1.0, 1.0], [1.0, 4.0]]])  # more than one leading axis
    shares = [[[0.25, 0.75], [0.75, 0.25]], [[0.5, 0.5], [0.2, 0.8]]]
    np.testing.assert_allclose(softmax(deep), shares, atol=1e-12)
    np.testing.assert_allclose(log_softmax(deep), np.log(shares), atol=1e-12)
    far = np.array([[0.0, np.log(3)], [2000.0, 2000.0]])  # each row by its own maximum
    np.testing.assert_allclose(log_softmax(far), np.log([[0.25, 0.75], [0.5, 0.5]]), atol=1e-12)


def test_sigmoid():
    values = sigmoid(np.array([0, np.log(3), -np.log(3), 1000, -1000], np.float32))
    np.testing.assert_allclose(values, [0.5, 0.75, 0.25, 1, 0], atol=1e-7)
    assert values.dtype == np.float64


def test_predictions_and_probabilities():
    scores = scores_of([[1, 3, 2], [NAN, NAN, NAN], [3, 1, 2]], [1, 0, 0])
    assert predicted_classes(scores) == ["b", UNREADABLE, "a"]
    np.testing.assert_array_equal(probabilities(scores), softmax(scores.logits))
    labels = several([[1, 3]], [[0, 1]])
    np.testing.assert_array_equal(probabilities(labels), sigmoid(labels.logits))
    np.testing.assert_allclose(log_softmax(np.array([[0.0, np.log(3)]])), np.log([[0.25, 0.75]]))
    assert log_softmax(np.array([[0.0, 5000.0]])).tolist() == [[-5000.0, 0.0]]


def test_measures_need_the_labels_of_all_videos():
    scores = scores_of([[1, 0], [0, 1]], [-1, 1])
    for measure in (lambda: top_k_hits(scores, 1), lambda: summarize(scores)):
        with pytest.raises(ScoresError, match=r"1 of 2 videos .*0\.mp4"):
            measure()


@pytest.mark.parametrize(("num_classes", "expected"), [(5, None), (6, 0.5)])
def test_top5_of_five_classes_says_nothing(num_classes: int, expected: float | None):
    # The label is the last choice of the first video, and the first of the second.
    logits = [list(range(num_classes)), list(range(num_classes, 0, -1))]
    found = summarize(scores_of(logits, [0, 0], classes=[f"c{i}" for i in range(num_classes)]))
    assert found.top5 == expected
    assert ("top5" in found.to_dict()) == (expected is not None)
