from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.made_scores import random_scores, scores_of, several, shuffled_names
from vsn.scores.compare import compare_scores
from vsn.scores.match import match_scores
from vsn.scores.scores import Scores, ScoresError

NAMES = ("a.npz", "b.npz")


def by_name(scores: Scores) -> dict[tuple[str, str], float]:
    return {
        (video, name): float(scores.logits[row, column])
        for row, video in enumerate(scores.video_ids.tolist())
        for column, name in enumerate(scores.classes)
    }


@given(st.integers(0, 1000), st.booleans())
def test_matches_any_order_of_videos_and_classes(seed: int, multi_label: bool):
    first = random_scores(seed, num_videos=8, num_classes=3)
    if multi_label:
        first = several(first.logits.tolist(), (first.logits > 0).astype(int).tolist())
    other = shuffled_names(first, seed)
    (same, matched), left_out = match_scores([first, other], NAMES)
    assert left_out == 0
    assert same.video_ids.tolist() == matched.video_ids.tolist() == first.video_ids.tolist()
    assert same.classes == matched.classes == first.classes
    np.testing.assert_array_equal(matched.logits, first.logits)
    np.testing.assert_array_equal(matched.labels, first.labels)
    assert by_name(matched) == by_name(other)


def test_groups_are_the_same_in_any_order_of_the_inputs():
    scores = random_scores(0, num_videos=6, num_classes=2)
    people = replace(scores, stated_groups=np.array(["ann", "ann", "bob", "bob", "cy", "dee"]))
    rooms = replace(scores, stated_groups=np.array(["1", "2", "3", "3", "4", "4"]))
    for inputs in ([people, scores], [scores, people]):
        assert [part.groups for part in match_scores(inputs, NAMES)[0]] == [people.groups] * 2
    for inputs in ([people, rooms], [rooms, people]):
        for part in match_scores(inputs, NAMES)[0]:
            of_video = part.groups
            assert len(set(of_video)) == 3
            assert all(of_video[a] == of_video[b] for a, b in ((0, 1), (2, 3), (4, 5)))
    alone, _ = match_scores([scores, scores], NAMES)
    assert alone[0].stated_groups is None


def test_intervals_do_not_depend_on_which_of_two_is_first():
    first = random_scores(0, num_videos=40, num_classes=3)
    other = replace(random_scores(1, num_videos=40, num_classes=3), labels=first.labels)
    grouped = replace(first, stated_groups=np.array([f"person {row // 8}" for row in range(40)]))
    forward = compare_scores(*match_scores([grouped, other], NAMES)[0])
    backward = compare_scores(*match_scores([other, grouped], NAMES)[0])
    assert forward.top1.interval is not None
    assert backward.top1.interval == pytest.approx([-bound for bound in forward.top1.interval[::-1]])
    assert forward.mcnemar_p == backward.mcnemar_p


def test_unknown_labels_stay_unknown():
    first = scores_of([[1, 0], [0, 1]], [-1, 1])
    _, matched = match_scores([first, shuffled_names_of_two(first)], NAMES)[0]
    assert matched.labels.tolist() == [-1, 1]


def shuffled_names_of_two(scores: Scores) -> Scores:
    labels = np.where(scores.labels < 0, -1, 1 - scores.labels)
    return Scores(scores.video_ids, scores.logits[:, ::-1], labels, scores.classes[::-1])


def test_missing_videos():
    first, other = (scores_of([[1, 0]] * 3, [0] * 3, ids=ids) for ids in (["x", "y", "z"], ["y", "q", "x"]))
    with pytest.raises(ScoresError, match=r"a\.npz lacks 1 videos.*: 'q'\..*--common"):
        match_scores([first, other], NAMES)
    few, many = (scores_of([[1, 0]] * n, [0] * n, ids="xyzuv"[:n]) for n in (1, 4))
    with pytest.raises(ScoresError, match=r"lacks 3 videos.*: 'u', 'y', 'z'\. "):
        match_scores([few, many], NAMES)
    more = scores_of([[1, 0]] * 5, [0] * 5, ids="xyzuv")
    with pytest.raises(ScoresError, match=r"lacks 4 videos.*: 'u', 'v', 'y', \.\.\.\. "):
        match_scores([few, more], NAMES)
    matched, left_out = match_scores([first, other], NAMES, common=True)
    assert [one.video_ids.tolist() for one in matched] == [["x", "y"]] * 2
    assert left_out == 2
    apart = scores_of([[1, 0]], [0], ids=["r"])
    with pytest.raises(ScoresError, match=r"a\.npz and b\.npz"):
        match_scores([first, apart], NAMES, common=True)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            scores_of([[1, 0]], [0], classes=["a", "c"]),
            r"b\.npz has 2; .* 2: 'b', 'c'",
        ),
        (scores_of([[1, 0, 2]], [0]), r"a\.npz has 2 classes and b\.npz has 3; .* 1: "),
        (scores_of([[1, 0]], [1]), r"^a\.npz and b\.npz .* 1 videos: '0\.mp4'"),
        (several([[1, 0]], [[1, 0]]), "multi-label"),
    ],
)
def test_different_classes_or_labels(other: Scores, message: str):
    with pytest.raises(ScoresError, match=message):
        match_scores([scores_of([[1, 0]], [0]), other], NAMES)


def test_different_multi_labels():
    first, other = (several([[1, 0]] * 3, [[1, 0], [1, last], [0, 1]]) for last in (0, 1))
    with pytest.raises(ScoresError, match=r"1 videos: '1\.mp4'\."):
        match_scores([first, other], NAMES)


def test_kind_and_facts_of_each_are_kept():
    first = scores_of([[1, 0]], [0], split="val")
    other = scores_of([[1, 0]], [0], kind="log_probabilities", split="val", parameters=7)
    _, matched = match_scores([first, other], NAMES)[0]
    assert (matched.kind, matched.facts) == ("log_probabilities", {"split": "val", "parameters": 7})


def test_one_name_per_input():
    with pytest.raises(ValueError, match="shorter"):
        match_scores([scores_of([[1, 0]], [0])] * 2, ["a.npz"])


def test_single_input():
    with pytest.raises(ScoresError, match="2 or more models, got 1"):
        match_scores([scores_of([[1, 0]], [0])], ["a.npz"])
