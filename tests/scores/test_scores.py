from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.made_scores import random_scores, scores_of, several
from vsn.scores.match import match_scores
from vsn.scores.metrics import (
    summarize,
    top_k_hits,
)
from vsn.scores.scores import Scores, ScoresError, load_scores


def test_multi_label_videos_without_labels_are_unknown_only_if_all_are():
    """A video may show none of the classes; where no video has a label, the labels are withheld."""
    some, none = several([[1, 0], [0, 1]], [[1, 0], [0, 0]]), several([[1, 0], [0, 1]], [[0, 0], [0, 0]])
    assert (some.num_unlabeled, none.num_unlabeled) == (0, 2)
    assert top_k_hits(some, 1).tolist() == [True, False]
    with pytest.raises(ScoresError, match=r"2 of 2 videos have no label, for example '0\.mp4'"):
        top_k_hits(none, 1)


def test_multi_label_round_trip(tmp_path: Path):
    scores = several([[3, 0], [2, 1]], [[1, 0], [1, 1]])
    scores.save(tmp_path / "scores.npz")
    loaded = load_scores(tmp_path / "scores.npz")
    assert loaded.multi_label
    assert loaded.labels.tolist() == [[True, False], [True, True]]
    with pytest.raises(ValueError, match=r"labels bool \(1, 2\)"):
        replace(scores, labels=scores.labels[:1])


def test_duplicate_video():
    with pytest.raises(ValueError, match="a video more than once"):
        Scores(np.array(["a", "a"]), np.zeros((2, 2), np.float32), np.zeros(2, np.int64), ("x", "y"))


@pytest.mark.parametrize(("shape", "num_labels"), [((2, 3), 2), ((1, 2), 2), ((2, 2), 3)])
def test_mismatched_shapes(shape: tuple[int, int], num_labels: int):
    with pytest.raises(ValueError, match=r"\(2, 2\).*2 videos and 2 classes.*logits"):
        Scores(np.array(["a", "b"]), np.zeros(shape, np.float32), np.zeros(num_labels, np.int64), ("x", "y"))


def test_round_trip(tmp_path: Path):
    scores = scores_of([[2.5, 1], [1, -2]], [0, 1])
    scores.save(tmp_path / "deep" / "scores.npz")
    loaded = load_scores(tmp_path / "deep" / "scores.npz")
    np.testing.assert_array_equal(loaded.logits, scores.logits)
    assert loaded.logits.dtype == np.float32
    assert loaded.video_ids.tolist() == ["0.mp4", "1.mp4"]
    assert (loaded.labels.tolist(), loaded.classes) == ([0, 1], ("a", "b"))


def test_file_has_kind_and_metadata(tmp_path: Path):
    facts = {"split": "val", "protocol": "fcn", "order": "forward", "weights_hash": "ab12"}
    scores = replace(scores_of([[-0.1, -2.4]], [1]), kind="log_probabilities", facts=facts)
    scores.save(tmp_path / "s.npz")
    loaded = load_scores(tmp_path / "s.npz")
    assert (loaded.kind, loaded.facts) == ("log_probabilities", facts)
    with np.load(tmp_path / "s.npz") as arrays:
        assert int(arrays["format_version"]) == 1
        assert (arrays["scores"].dtype, arrays["labels"].dtype) == (np.float32, np.int64)


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
def test_unusable_files(tmp_path: Path, change: dict, message: str):
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
def test_files_without_scores(tmp_path: Path, content: bytes | None, message: str):
    path = tmp_path / "s.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ScoresError, match=message):
        load_scores(path)
    with pytest.raises(ScoresError, match="is a folder"):
        load_scores(tmp_path)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_truncated_file(tmp_path: Path, share: float):
    path = tmp_path / "s.npz"
    random_scores(1).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ScoresError, match="damaged"):
        load_scores(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ScoresError, match="holds a single array"):
        load_scores(tmp_path / "one.npy")


def test_archive_of_other_arrays_is_named_by_eight(tmp_path: Path):
    np.savez(tmp_path / "other.npz", **{f"x{i}": np.zeros(1) for i in range(9)})
    with pytest.raises(ScoresError, match=r"'x6', 'x7'\], but no "):
        load_scores(tmp_path / "other.npz")


def test_take_keeps_kind_and_metadata():
    scores = replace(scores_of([[1, 3], [2, 0]], [1, 0]), kind="log_probabilities", facts={"split": "val"})
    part = scores.take(np.array([1]))
    assert (part.video_ids.tolist(), part.logits.tolist(), part.labels.tolist()) == (["1.mp4"], [[2, 0]], [0])
    assert (part.classes, part.kind, part.facts) == (scores.classes, scores.kind, scores.facts)


def test_labels_out_of_range():
    with pytest.raises(ValueError, match=r"0 to 1, or -1.* got 0 to 2"):
        scores_of([[1, 0], [1, 0]], [0, 2])
    with pytest.raises(ScoresError, match="0 videos"):
        top_k_hits(scores_of([[1, 0]], [0]).take(np.array([], int)), 1)
    with pytest.raises(ScoresError, match="1 of 1 videos have no label"):
        summarize(several([[1, 0]], [[0, 0]]))


def test_stated_groups_stay_with_their_videos(tmp_path: Path):
    """In files, selections and other orders; intervals are over them."""
    scores = replace(random_scores(0, num_videos=40), stated_groups=np.repeat(["p", "q", "r", "s"], 10))
    scores.save(tmp_path / "s.npz")
    loaded = load_scores(tmp_path / "s.npz")
    assert loaded.groups == scores.groups
    assert loaded.take(np.array([35, 2])).groups == ["s", "p"]
    other = loaded.take(np.arange(40)[::-1])
    (first, second), _ = match_scores([loaded, other], ["a", "b"])
    assert first.groups == second.groups == scores.groups
    low, high = summarize(scores).top1_interval
    alone_low, alone_high = summarize(replace(scores, stated_groups=None)).top1_interval
    assert high - low != pytest.approx(alone_high - alone_low)
    with pytest.raises(ValueError, match=r"groups of 40 videos.*\(3,\)"):
        replace(scores, stated_groups=np.array(["p", "q", "r"]))
