"""What scores are of, and whether two scores are of the same."""

from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.made_scores import random_scores, scores_of, several, shuffled_names
from vsn.scores.facts import different_facts, hash_videos, same_weights, weight_shares
from vsn.scores.fuse import fuse_scores


def test_the_hash_is_of_videos_and_labels_and_nothing_else():
    scores = random_scores(1)
    same = [shuffled_names(scores, 3), replace(scores, logits=scores.logits + 1), replace(scores, facts={"split": "x"})]
    assert {hash_videos(one) for one in same} == {hash_videos(scores)}
    labels = scores.labels.copy()
    labels[7] = (labels[7] + 1) % 4
    renamed = scores.video_ids.copy()
    renamed[0] = "other"
    others = [
        replace(scores, labels=labels), replace(scores, video_ids=renamed), scores.take(np.arange(59)),
        replace(scores, classes=("a", "b", "c", "z")), replace(scores, labels=np.full(60, -1)),
    ]  # fmt: skip
    assert len({hash_videos(one) for one in (scores, *others)}) == 6


def test_the_hash_of_several_labels():
    one, two = several([[1, 0]] * 2, [[1, 1], [0, 1]]), several([[1, 0]] * 2, [[1, 1], [1, 0]])
    assert hash_videos(one) != hash_videos(two)
    assert hash_videos(several([[1, 0]], [[1, 0]])) == hash_videos(scores_of([[1, 0]], [0]))


def test_weights_of_a_fusion_of_fusions():
    a, b, c = (random_scores(seed, weights_hash=str(seed)) for seed in (1, 2, 3))
    inner = fuse_scores([a, b], weights=[1, 3])
    assert weight_shares(a.facts) == {"1": 1.0}
    assert weight_shares(inner.facts) == {"1": 0.25, "2": 0.75}
    assert weight_shares(fuse_scores([inner, c]).facts) == {"1": 0.125, "2": 0.375, "3": 0.5}
    assert weight_shares(fuse_scores([inner, a]).facts) == {"1": 0.625, "2": 0.375}
    assert weight_shares(fuse_scores([a, b], weights=[1, 0]).facts) == {"1": 1.0}
    assert weight_shares(fuse_scores([a, random_scores(2)]).facts) is None
    assert weight_shares({}) is None


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ({"1": 1.0}, {"1": 1.0}, True), ({"1": 1.0}, {"2": 1.0}, False), (None, {"2": 1.0}, True),
        ({"1": 0.5, "2": 0.5}, {"2": 0.5, "1": 0.5}, True), ({"1": 0.4, "2": 0.6}, {"1": 0.5, "2": 0.5}, False),
        ({"1": 1.0}, {"1": 0.5, "2": 0.5}, False), ({"1": 1 / 3, "2": 2 / 3}, {"1": 0.3333333333, "2": 0.6666666667}, True),
    ],
)  # fmt: skip
def test_same_weights(first: dict[str, float] | None, second: dict[str, float] | None, same: bool):
    assert same_weights(first, second) == same_weights(second, first) == same


def test_facts_that_are_not_stated_are_not_compared():
    facts = [
        {"split": "val", "order": "still", "root": "/a"},
        {"split": "test", "order": "still", "average": "softmax"},
    ]
    assert different_facts(facts) == {"split": ["val", "test"]}
