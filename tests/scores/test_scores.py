from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.made_scores import random_scores
from vsn.scores.intervals import bootstrap_interval
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
from vsn.scores.scores import Scores, ScoresError, load_scores

NAN = float("nan")


def scores_of(logits: list[list[float]], labels: list[int]) -> Scores:
    table = np.array(logits, np.float32)
    names = tuple("abcdefgh"[: table.shape[1]])
    return Scores(np.array([f"{i}.mp4" for i in range(len(table))]), table, np.array(labels), names)


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
        ([NAN, NAN, NAN], 0, 1, False),  # and so does what is no number
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
        1.0,
        "mean_class",
        0.5,
    )
    low, high = result.top1_interval
    assert 0 <= low <= 0.75 <= high <= 1


def several(logits: list[list[float]], labels: list[list[int]]) -> Scores:
    plain = scores_of(logits, [0] * len(logits))
    return replace(plain, labels=np.array(labels, dtype=bool))


def test_top_k_of_several_labels():
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
def test_average_precision_is_its_definition(num_videos: int, seed: int):
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


def test_several_labels_saved_and_loaded(tmp_path: Path):
    scores = several([[3, 0], [2, 1]], [[1, 0], [1, 1]])
    scores.save(tmp_path / "scores.npz")
    loaded = load_scores(tmp_path / "scores.npz")
    assert loaded.multi_label
    assert loaded.labels.tolist() == [[True, False], [True, True]]
    with pytest.raises(ValueError, match=r"labels bool \(1, 2\)"):
        replace(scores, labels=scores.labels[:1])


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


def test_video_twice_is_refused():
    with pytest.raises(ValueError, match="a video more than once"):
        Scores(np.array(["a", "a"]), np.zeros((2, 2), np.float32), np.zeros(2, np.int64), ("x", "y"))


@pytest.mark.parametrize(("shape", "num_labels"), [((2, 3), 2), ((1, 2), 2), ((2, 2), 3)])
def test_shapes_that_do_not_fit(shape: tuple[int, int], num_labels: int):
    with pytest.raises(ValueError, match=r"\(2, 2\).*2 videos and 2 classes.*logits"):
        Scores(np.array(["a", "b"]), np.zeros(shape, np.float32), np.zeros(num_labels, np.int64), ("x", "y"))


def test_saved_and_loaded(tmp_path: Path):
    scores = scores_of([[2.5, 1], [1, -2]], [0, 1])
    scores.save(tmp_path / "deep" / "scores.npz")
    loaded = load_scores(tmp_path / "deep" / "scores.npz")
    np.testing.assert_array_equal(loaded.logits, scores.logits)
    assert loaded.logits.dtype == np.float32
    assert loaded.video_ids.tolist() == ["0.mp4", "1.mp4"]
    assert (loaded.labels.tolist(), loaded.classes) == ([0, 1], ("a", "b"))


def test_interval_counts_a_clip_and_its_copy_once():
    hits = np.repeat(np.arange(50) < 40, 2)
    alone, together = (bootstrap_interval(hits, groups=g) for g in (None, np.repeat(np.arange(50), 2)))
    assert together[1] - together[0] > 1.2 * (alone[1] - alone[0])


@pytest.mark.parametrize(("hits", "interval"), [(np.ones(20, bool), (0.8316, 1)), (np.zeros(20, bool), (0, 0.1684))])
def test_interval_without_a_spread_is_the_exact_bound(hits, interval):
    assert bootstrap_interval(hits) == pytest.approx(interval, abs=1e-4)


def test_interval_of_pairs_each_half_right_is_not_a_point():
    hits, pairs = np.tile([True, False], 50), np.repeat(np.arange(50), 2)
    low, high = bootstrap_interval(hits, groups=pairs)
    assert (low, high) == pytest.approx((0.3664, 0.6336), abs=1e-3)


def test_a_file_says_what_it_holds(tmp_path: Path):
    facts = {"split": "val", "protocol": "fcn", "order": "forward", "weights_hash": "ab12"}
    scores = replace(scores_of([[-0.1, -2.4]], [1]), kind="log_probabilities", facts=facts)
    scores.save(tmp_path / "s.npz")
    loaded = load_scores(tmp_path / "s.npz")
    assert (loaded.kind, loaded.facts) == ("log_probabilities", facts)
    with np.load(tmp_path / "s.npz") as arrays:
        assert int(arrays["format_version"]) == 1
        assert (arrays["scores"].dtype, arrays["labels"].dtype) == (np.float32, np.int64)


def test_measures_need_the_labels_of_all_videos():
    scores = scores_of([[1, 0], [0, 1]], [-1, 1])
    for measure in (lambda: top_k_hits(scores, 1), lambda: summarize(scores)):
        with pytest.raises(ScoresError, match=r"1 of 2 videos .*0\.mp4"):
            measure()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": None, "kind": None, "facts": None}, "old format"),
        ({"labels": None}, r"no \['labels'\]"),
        ({"format_version": np.array(9)}, "format version 1 .* 9"),
        ({"kind": np.array("odds")}, "damaged.*'odds'"),
        ({"facts": np.array("{")}, "damaged"),
        ({"labels": np.array([0, 7])}, "damaged.*0 to 1.*got 0 to 7"),
        ({"labels": np.array([0])}, r"damaged.*2 videos"),
        ({"scores": np.zeros(3)}, r"damaged.*2 videos"),
        ({"classes": np.array(["a", "a"])}, "damaged.*class more than once"),
    ],
)
def test_files_of_scores_that_cannot_be_used(tmp_path: Path, change: dict, message: str):
    path = tmp_path / "s.npz"
    scores_of([[1, 0], [0, 1]], [0, 1]).save(path)
    with np.load(path) as stored:
        arrays = {key: stored[key] for key in stored.files}
    np.savez(path, **{key: value for key, value in (arrays | change).items() if value is not None})
    with pytest.raises(ScoresError, match=message) as caught:
        load_scores(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "damaged"), (b"no archive at all", "damaged"), (None, "does not exist")],
)
def test_files_that_hold_no_scores(tmp_path: Path, content: bytes | None, message: str):
    path = tmp_path / "s.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ScoresError, match=message):
        load_scores(path)
    with pytest.raises(ScoresError, match="is a folder"):
        load_scores(tmp_path)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_half_a_file(tmp_path: Path, share: float):
    path = tmp_path / "s.npz"
    random_scores(1).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ScoresError, match="damaged"):
        load_scores(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ScoresError, match="holds a single array"):
        load_scores(tmp_path / "one.npy")


def test_an_archive_of_other_things_is_told_by_eight_of_its_arrays(tmp_path: Path):
    np.savez(tmp_path / "other.npz", **{f"x{i}": np.zeros(1) for i in range(9)})
    with pytest.raises(ScoresError, match=r"'x6', 'x7'\], but no "):
        load_scores(tmp_path / "other.npz")


def test_what_the_scores_say():
    scores = scores_of([[1, 3, 2], [NAN, NAN, NAN], [3, 1, 2]], [1, 0, 0])
    assert predicted_classes(scores) == ["b", UNREADABLE, "a"]
    np.testing.assert_array_equal(probabilities(scores), softmax(scores.logits))
    labels = several([[1, 3]], [[0, 1]])
    np.testing.assert_array_equal(probabilities(labels), sigmoid(labels.logits))
    np.testing.assert_allclose(log_softmax(np.array([[0.0, np.log(3)]])), np.log([[0.25, 0.75]]))
    assert log_softmax(np.array([[0.0, 5000.0]])).tolist() == [[-5000.0, 0.0]]


def test_some_of_the_videos_keep_kind_and_facts():
    scores = replace(scores_of([[1, 3], [2, 0]], [1, 0]), kind="log_probabilities", facts={"split": "val"})
    part = scores.take(np.array([1]))
    assert (part.video_ids.tolist(), part.logits.tolist(), part.labels.tolist()) == (["1.mp4"], [[2, 0]], [0])
    assert (part.classes, part.kind, part.facts) == (scores.classes, scores.kind, scores.facts)


def test_labels_outside_the_classes():
    with pytest.raises(ValueError, match=r"0 to 1, or -1.* got 0 to 2"):
        scores_of([[1, 0], [1, 0]], [0, 2])
    with pytest.raises(ScoresError, match="0 videos"):
        top_k_hits(scores_of([[1, 0]], [0]).take(np.array([], int)), 1)
    with pytest.raises(ScoresError, match="No video has a label of any class"):
        summarize(several([[1, 0]], [[0, 0]]))
