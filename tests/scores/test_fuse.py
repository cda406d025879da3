import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.made_scores import random_scores, scores_of, several, sides
from vsn.scores.fuse import ModelCosts, fuse_scores, fusion_report, model_costs, search_weights, stratified_half
from vsn.scores.intervals import difference_interval
from vsn.scores.metrics import probabilities, softmax, top_k_hits
from vsn.scores.scores import Scores, ScoresError, load_scores


def mean_by_loop(inputs: list[Scores], weights: list[float]) -> list[list[float]]:
    """Weighted mean of the softmax of each, video by video and class by class."""
    rows = []
    for video in range(len(inputs[0].video_ids)):
        row = [0.0] * len(inputs[0].classes)
        for one, weight in zip(inputs, weights, strict=True):
            powers = [math.exp(value) for value in one.logits[video].tolist()]
            for index, power in enumerate(powers):
                row[index] += weight / sum(weights) * power / sum(powers)
        rows.append(row)
    return rows


@given(st.integers(2, 4), st.integers(0, 1000), st.lists(st.floats(0.1, 5), min_size=4, max_size=4))
def test_mean_of_softmax_by_loop(num_inputs: int, seed: int, weights: list[float]):
    inputs = [random_scores(seed + i, num_videos=6, scale=3) for i in range(num_inputs)]
    fused = fuse_scores(inputs, weights=weights[:num_inputs])
    np.testing.assert_allclose(softmax(fused.logits), mean_by_loop(inputs, weights[:num_inputs]), rtol=1e-5, atol=1e-7)
    assert (fused.kind, fused.logits.dtype) == ("log_probabilities", np.float32)
    np.testing.assert_allclose(np.exp(fused.logits.astype(float)).sum(axis=1), 1, rtol=1e-5)


def test_two_rows_of_the_papers_table_2():
    """VSN-R50 and VSN-R101 made one, then RGB and flow: softmax averaged one to one, which is the default.

    Three videos of two classes; probabilities .6 and .1 of the same class give .35, for logits of any size.
    """

    def model(shares: list[float], shift: float) -> Scores:
        return scores_of([[math.log(p) + shift, math.log(1 - p) + shift] for p in shares], [0, 0, 1])

    r50, r101, flow = model([0.6, 0.2, 0.4], 0), model([0.1, 0.9, 0.3], 7), model([0.9, 0.4, 0.6], -3)
    ensemble = fuse_scores([r50, r101])
    np.testing.assert_allclose(softmax(ensemble.logits)[:, 0], [0.35, 0.55, 0.35], rtol=1e-5)
    two_stream = fuse_scores([r101, flow])
    np.testing.assert_allclose(softmax(two_stream.logits)[:, 0], [0.5, 0.65, 0.45], rtol=1e-5)
    np.testing.assert_allclose(softmax(two_stream.logits), mean_by_loop([r101, flow], [1, 1]), rtol=1e-5)
    assert top_k_hits(ensemble, 1).tolist() == [False, True, True]
    # Fused scores can be fused again: log-probabilities are logits of the same softmax.
    three = fuse_scores([ensemble, flow], weights=[2, 1])
    np.testing.assert_allclose(softmax(three.logits), mean_by_loop([r50, r101, flow], [1, 1, 1]), rtol=1e-5)


def test_confident_models_do_not_underflow():
    fused = fuse_scores([scores_of([[2000, 0, -1]], [0]), scores_of([[0, 2000, 1]], [0])])
    assert np.isfinite(fused.logits).all()
    assert fused.logits[0, :2] == pytest.approx([math.log(0.5)] * 2)


def test_average_logits():
    fused = fuse_scores([scores_of([[1, 5]], [0]), scores_of([[3, -3]], [0])], weights=[1, 3], logits=True)
    assert fused.logits.tolist() == [[2.5, -1.0]]
    assert (fused.kind, fused.facts["fusion"]) == ("logits", "logits")
    with pytest.raises(ScoresError, match=r"\['log_probabilities', 'logits'\].*--logits"):
        fuse_scores([fuse_scores([fused, fused]), fused], logits=True)


@given(st.integers(0, 1000))
def test_multi_label_is_the_mean_of_sigmoids(seed: int):
    values = np.random.default_rng(seed).normal(scale=4, size=(2, 5, 3))
    inputs = [several(one.tolist(), [[1, 0, 1]] * 5) for one in values]
    fused = fuse_scores(inputs, weights=[1, 2])
    for video in range(5):
        for index in range(3):
            first, second = (1 / (1 + math.exp(-one.logits[video, index])) for one in inputs)
            assert probabilities(fused)[video, index] == pytest.approx((first + 2 * second) / 3, rel=1e-4)
    assert (fused.kind, fused.facts["fusion"]) == ("logits", "sigmoid")


def test_confident_sigmoids_keep_their_rank():
    inputs = [several([[100, 0], [101, 0]], [[1, 0], [1, 1]])] * 2
    assert fuse_scores(inputs).logits[:, 0].tolist() == pytest.approx([100, 101])


def test_shared_metadata_is_kept(tmp_path: Path):
    a = random_scores(1, split="val", protocol="fcn", order="forward", weights_hash="11")
    b = random_scores(2, split="val", protocol="center", order="forward", weights_hash="22")
    fuse_scores([a, b], weights=[1, 3]).save(tmp_path / "f.npz")
    facts = load_scores(tmp_path / "f.npz").facts
    assert {key: facts[key] for key in ("split", "order", "fusion")} == {
        "split": "val",
        "order": "forward",
        "fusion": "softmax",
    }
    assert "protocol" not in facts
    assert "weights_hash" not in facts
    assert [(p["weight"], p["protocol"], p["weights_hash"]) for p in facts["fused_from"]] == [
        (0.25, "fcn", "11"),
        (0.75, "center", "22"),
    ]


def test_video_unreadable_by_one_model_counts_as_wrong():
    fused = fuse_scores([scores_of([[1, 0], [math.nan] * 2], [0, 0]), scores_of([[1, 0], [1, 0]], [0, 0])])
    assert top_k_hits(fused, 1).tolist() == [True, False]
    both = fuse_scores([several([[math.nan] * 2, [1, 2]], [[1, 0]] * 2), several([[1, 2]] * 2, [[1, 0]] * 2)])
    assert both.unreadable.tolist() == [True, False]
    # A model of weight 0 does not count, not even by its unreadable videos.
    single = fuse_scores([scores_of([[math.nan] * 2], [0]), scores_of([[1, 0]], [0])], weights=[0, 1])
    assert top_k_hits(single, 1).tolist() == [True]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "2 weights.* got 1"),
        ([1.0, -1.0], r"0 or more.*\[1\.0, -1\.0\]"),
        ([0.0, 0.0], "not all 0"),
        ([1.0, math.inf], "0 or more.*inf"),
    ],
)
def test_invalid_weights(weights: list[float], message: str):
    with pytest.raises(ScoresError, match=message):
        fuse_scores([random_scores(1), random_scores(2)], weights=weights)


def test_halves_are_stratified_and_keep_reversed_copies_together():
    ids = [f"{i}.mp4{end}" for i in range(20) for end in ("", "#reversed")]
    scores = scores_of([[1, 0]] * 40, [0, 1] * 20, ids=ids)
    half = stratified_half(scores, seed=3)
    assert half.sum() == 20
    assert (half[::2] == half[1::2]).all()
    plain = random_scores(1, num_videos=39, num_classes=4)
    half = stratified_half(plain, seed=3)
    sizes = [(int(half[plain.labels == c].sum()), int((plain.labels == c).sum())) for c in range(4)]
    assert all(abs(2 * part - whole) <= 1 for part, whole in sizes)
    assert abs(2 * half.sum() - 39) <= 1
    assert (half == stratified_half(plain, seed=3)).all()
    assert (half != stratified_half(plain, seed=4)).any()


def test_classes_of_one_video_alternate_between_halves():
    single = scores_of(np.eye(8).tolist(), list(range(8)))
    assert stratified_half(single).tolist() == [False, True] * 4
    threes = random_scores(1, num_videos=12, num_classes=4)
    half = stratified_half(threes)
    assert [int(half[threes.labels == c].sum()) for c in range(4)] == [1, 2, 1, 2]


def test_halves_use_the_first_of_several_labels():
    labels = [[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 1, 0]] * 3
    plain = scores_of([[0, 0, 0]] * 12, [0, 1, 0, 1] * 3)
    for seed in range(3):
        half = stratified_half(several([[0, 0, 0]] * 12, labels), seed=seed)
        assert half.tolist() == stratified_half(plain, seed=seed).tolist()


def test_search_without_labels_is_refused():
    with pytest.raises(ScoresError, match="4 of 4 videos have no label"):
        search_weights([several([[1, 0], [0, 1]] * 2, [[0, 0]] * 4)] * 2)


@pytest.mark.parametrize("logits", [False, True])
def test_search_optimizes_the_fused_top1(logits: bool):
    for seed in range(0, 20, 2):
        inputs = [random_scores(seed, num_videos=24), random_scores(seed + 1, num_videos=24, scale=10)]
        found = search_weights(inputs, logits=logits)
        part = [one.take(found.searched) for one in inputs]
        tried = {
            step / 20: top_k_hits(fuse_scores(part, weights=[step, 20 - step], logits=logits), 1).mean()
            for step in range(21)
        }
        assert found.score == pytest.approx(max(tried.values()))
        assert tried[found.weights[0]] == pytest.approx(found.score)


def test_search_finds_the_better_model():
    labels = [i % 2 for i in range(40)]
    knows, lies = sides([1] * 40, labels), sides([0] * 40, labels)
    found = search_weights([lies, knows])
    assert found.score == 1.0
    # Any weight above one half does; among equals the nearest to equal weights.
    assert found.weights == pytest.approx((0.45, 0.55))
    assert search_weights([knows, lies]).weights == pytest.approx((0.55, 0.45))
    assert found.searched.sum() == 20


def test_search_uses_one_half_only():
    """The scores of the other half do not change the weights."""
    first, second = random_scores(1), random_scores(2)
    half = stratified_half(first, seed=5)
    noise = second.logits.copy()
    noise[~half] = np.random.default_rng(9).normal(size=noise[~half].shape)
    found = [search_weights([first, one], seed=5) for one in (second, replace(second, logits=noise))]
    assert found[0].weights == found[1].weights
    assert (found[0].searched == half).all()


def test_search_by_loop():
    inputs = [random_scores(i, num_videos=24, strength=1) for i in range(3)]
    found = search_weights(inputs)
    part = [one.take(found.searched) for one in inputs]
    best = max(
        top_k_hits(fuse_scores(part, weights=[i, j, 10 - i - j]), 1).mean() for i in range(11) for j in range(11 - i)
    )
    assert found.score == pytest.approx(best)
    assert sum(found.weights) == pytest.approx(1)


def test_invalid_searches():
    with pytest.raises(ScoresError, match=r"2 to 4 .* 5"):
        search_weights([random_scores(i) for i in range(5)])
    with pytest.raises(ScoresError, match="2 of 2 videos"):
        search_weights([scores_of([[1, 0]] * 2, [-1, -1])] * 2)
    with pytest.raises(ScoresError, match="1 videos"):
        search_weights([scores_of([[1, 0]], [0])] * 2)


def test_costs_sum_over_networks_with_a_weight():
    own = {"num_frames": 8, "parameters": 24, "multiply_adds": 33}
    assert model_costs(own) == ModelCosts("8", 24, 33)
    assert model_costs({}) == ModelCosts(None, None, None)
    parts = [{"weight": 0.5, **own}, {"weight": 0.5, **own, "num_frames": 16}, {"weight": 0.0}]
    assert model_costs({"fused_from": parts}) == ModelCosts("8+16", 48, 66)
    parts[2]["weight"] = 0.1
    assert model_costs({"fused_from": parts}) == ModelCosts(None, None, None)


def test_gain_counts_a_clip_and_its_reversed_copy_once():
    ids = [f"{i}.mp4{end}" for i in range(20) for end in ("", "#reversed")]
    a, b = sides([1] * 30 + [0] * 10, ids=ids), sides([0] * 4 + [1] * 36, ids=ids)
    report = fusion_report([a, b], ["a", "b"], fuse_scores([a, b], weights=[3, 1]))
    changes = np.array([1.0] * 30 + [0.0] * 10) - ([0.0] * 4 + [1.0] * 36)
    assert report.best_single == "b"
    assert report.gain_interval == difference_interval(changes, groups=a.groups)
    assert report.gain_interval != difference_interval(changes)


def test_fusion_report():
    labels = [0] * 10
    a, b = sides([1] * 6 + [0] * 4, labels), sides([1] * 2 + [0] * 4 + [1] * 4, labels)
    report = fusion_report([a, b], ["a", "b"], fuse_scores([a, b], weights=[3, 1]))
    assert [(row.name, row.weight, row.summary.top1) for row in report.inputs] == [
        ("a", 0.75, 0.6),
        ("b", 0.25, 0.6),
    ]
    assert (report.fused.summary.top1, report.best_single, report.gain) == (0.6, "a", 0.0)
    with pytest.raises(ValueError, match="shorter"):
        fusion_report([a, b], ["a"], fuse_scores([a, b]))
    better = replace(a, logits=np.where(a.logits > 0, 9, 0).astype(np.float32))
    report = fusion_report([better, b], ["a", "b"], fuse_scores([better, b], weights=[1, 4]))
    assert report.gain == pytest.approx(0.0)
    low, high = report.gain_interval
    assert low <= report.gain <= high
    worse = sides([1] + [0] * 9, labels)
    report = fusion_report([worse, a], ["worse", "a"], fuse_scores([worse, a], weights=[1, 9]))
    assert (report.best_single, report.fused.summary.top1, report.gain) == ("a", 0.6, 0.0)
    multi = [several([[3, 0], [2, 1]], [[1, 0], [0, 1]]), several([[1, 0], [2, 5]], [[1, 0], [0, 1]])]
    report = fusion_report(multi, ["a", "b"], fuse_scores(multi))
    assert report.map_gain == pytest.approx(report.fused.summary.mean - max(row.summary.mean for row in report.inputs))
