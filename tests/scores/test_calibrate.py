import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.made_scores import random_scores, scores_of, several, sides
from vsn.scores.calibrate import (
    accepted_labels,
    calibrate,
    calibrated_probabilities,
    check_calibration,
    choose_threshold,
    evaluate_calibration,
    expected_calibration_error,
    fit_temperature,
    load_calibration,
    measure_calibration,
    negative_log_likelihood,
    reliability_curve,
)
from vsn.scores.facts import hash_videos
from vsn.scores.fuse import fuse_scores
from vsn.scores.intervals import share_interval
from vsn.scores.scores import ScoresError


def two_sided(shares: list[float], right: list[int]):
    """Two classes; the model gives the class it says this share, and is right or wrong."""
    return scores_of([[math.log(p / (1 - p)), 0] for p in shares], [1 - hit for hit in right])


def test_temperature_by_hand():
    """Always sure by a logit of 4, and right 3 times in 4: T makes that 75%, so 4 / T = log 3."""
    scores = scores_of([[4, 0]] * 4, [0, 0, 0, 1])
    assert fit_temperature(scores) == pytest.approx(4 / math.log(3), rel=1e-5)
    assert calibrated_probabilities(scores.logits, fit_temperature(scores))[0, 0] == pytest.approx(0.75, abs=1e-6)


@given(st.floats(0.2, 5), st.integers(0, 100))
def test_scaled_logits_scale_the_temperature(scale: float, seed: int):
    plain = fit_temperature(random_scores(seed, strength=1.5))
    assert fit_temperature(random_scores(seed, strength=1.5, scale=scale)) == pytest.approx(scale * plain, rel=1e-4)


def test_temperature_is_optimal_on_a_fine_grid():
    scores = random_scores(3, scale=4)
    best = negative_log_likelihood(scores, fit_temperature(scores))
    assert best <= min(negative_log_likelihood(scores, t) for t in np.geomspace(0.02, 50, 2000))


def test_likelihood_by_loop():
    scores = random_scores(2, num_videos=5)
    loss = 0.0
    for row, label in zip(scores.logits.tolist(), scores.labels.tolist(), strict=True):
        powers = [math.exp(value / 1.7) for value in row]
        loss -= math.log(powers[label] / sum(powers))
    assert negative_log_likelihood(scores, 1.7) == pytest.approx(loss / 5)


@pytest.mark.parametrize("right", [[1] * 5, [0] * 5])
def test_no_optimal_temperature(right: list[int]):
    with pytest.raises(ScoresError, match=r"between 0\.01 and 100"):
        fit_temperature(sides(right))


def test_bins_and_error_by_hand():
    # Confidences .6, .6, .8, .95 in five bins: (.4, .6] twice, one right; (.6, .8] right; (.8, 1] wrong.
    scores = two_sided([0.6 - 1e-6, 0.6 - 1e-6, 0.8 - 1e-6, 0.95], [1, 0, 1, 0])
    bins = reliability_curve(scores, num_bins=5)
    assert [(one.count, one.accuracy) for one in bins] == [(0, None), (0, None), (2, 0.5), (1, 1.0), (1, 0.0)]
    assert [(one.low, one.high) for one in bins][2] == (0.4, 0.6)
    assert bins[2].confidence == pytest.approx(0.6, abs=1e-5)
    assert expected_calibration_error(bins) == pytest.approx((2 * 0.1 + 0.2 + 0.95) / 4, abs=1e-5)


def error_by_loop(confidence: list[float], right: list[bool], num_bins: int) -> float:
    total = 0.0
    for index in range(num_bins):
        own = [i for i, value in enumerate(confidence) if index / num_bins < value <= (index + 1) / num_bins]
        if own:
            gap = sum(right[i] for i in own) / len(own) - sum(confidence[i] for i in own) / len(own)
            total += len(own) / len(confidence) * abs(gap)
    return total


@given(st.integers(0, 1000), st.floats(0.1, 4))
def test_calibration_error_by_loop(seed: int, scale: float):
    scores = random_scores(seed, scale=scale)
    values = calibrated_probabilities(scores.logits, 1.3)
    expected = error_by_loop(values.max(axis=1).tolist(), (values.argmax(axis=1) == scores.labels).tolist(), 15)
    bins = reliability_curve(scores, temperature=1.3)
    assert len(bins) == 15
    assert sum(one.count for one in bins) == 60
    assert expected_calibration_error(bins) == pytest.approx(expected)


def test_a_confidence_on_an_edge_is_in_the_lower_bin():
    bins = reliability_curve(scores_of([[0, 0]], [0]), num_bins=2)
    assert [one.count for one in bins] == [1, 0]


def test_a_confidence_of_one_is_in_the_last_bin():
    bins = reliability_curve(scores_of([[1000, 0]], [0]))
    assert (bins[-1].count, bins[-1].confidence) == (1, 1.0)


def levels(*parts: tuple[float, int, int]):
    """Scores of so many videos (right, wrong) at each confidence."""
    shares = [p for p, right, wrong in parts for _ in range(right + wrong)]
    return two_sided(shares, [hit for _, right, wrong in parts for hit in [1] * right + [0] * wrong])


def test_threshold_by_hand():
    """60 of 60 are right at .9, 114 of 120 at .8 or above, 150 of 200 at .6 or above.

    With 95% certainty 60 of 60 means more than 96.2% (half of 0.962^60 is 0.05), 114 of 120 more than 90.7%.
    """
    scores = levels((0.6, 36, 44), (0.9, 60, 0), (0.8, 54, 6))
    assert choose_threshold(scores, 0.96) == pytest.approx(0.9)
    assert choose_threshold(scores, 0.91) == pytest.approx(0.9)
    assert choose_threshold(scores, 0.90) == pytest.approx(0.8)
    assert choose_threshold(scores, 0.69) == pytest.approx(0.6)
    quality = measure_calibration(scores, 1.0, choose_threshold(scores, 0.9))
    assert (quality.coverage, quality.precision) == (pytest.approx(0.6), pytest.approx(0.95))
    low, high = quality.precision_interval
    assert low < 0.9 < 0.95 < high
    nobody = measure_calibration(scores, 1.0, 0.99)
    assert (nobody.coverage, nobody.precision, nobody.precision_interval) == (0.0, None, None)


def test_a_clip_and_its_reversed_copy_are_no_two_witnesses():
    scores = levels((0.9, 60, 0))
    copies = replace(scores, video_ids=np.array([f"{i // 2}.mp4{'#reversed' * (i % 2)}" for i in range(60)]))
    assert choose_threshold(scores, 0.94) == pytest.approx(0.9)
    with pytest.raises(ScoresError, match=r"94\.0%.* 60 of 60 .*92\.6%"):
        choose_threshold(copies, 0.94)


@given(st.integers(0, 1000), st.floats(0.3, 0.95))
def test_threshold_is_the_lowest(seed: int, precision: float):
    scores = random_scores(seed, num_videos=40, strength=2)
    values = calibrated_probabilities(scores.logits, 1.0)
    confidence, right = values.max(axis=1), values.argmax(axis=1) == scores.labels
    bounds = {t: share_interval(right[confidence >= t], confidence=0.9)[0] for t in confidence.tolist()}
    good = [t for t, bound in bounds.items() if bound >= precision]
    if good:
        assert choose_threshold(scores, precision) == min(good)
    else:
        with pytest.raises(ScoresError, match="precision"):
            choose_threshold(scores, precision)


def test_many_videos_take_a_thousand_thresholds(monkeypatch: pytest.MonkeyPatch):
    """The share is just above the precision at every threshold, so that all of them are tested: 20,000 took minutes."""
    tested = []
    monkeypatch.setattr("vsn.scores.calibrate.share_p_value", lambda *_, **__: tested.append(1) or 1.0)
    shares = np.linspace(0.99, 0.51, 4000)
    with pytest.raises(ScoresError, match=r"90\.0%"):
        choose_threshold(two_sided(shares.tolist(), ([1] * 10 + [0]) * 363 + [1] * 7), 0.9)
    assert 500 < len(tested) <= 1000


def test_the_precision_holds_on_other_videos():
    """Before, the lowest threshold at which the videos seen have the precision held it in half of the draws."""
    generator, held = np.random.default_rng(0), []
    for _ in range(40):
        confidence = 1 / (1 + np.exp(-np.abs(generator.normal(3, 2, 200))))
        right = generator.random(200) < confidence
        threshold = choose_threshold(two_sided(confidence.tolist(), right.astype(int).tolist()), 0.9)
        held.append(confidence[confidence >= threshold - 1e-6].mean() >= 0.9)  # the confidence is the true chance
    assert np.mean(held) >= 0.85


def test_equal_confidences_are_accepted_together():
    scores = levels((0.9, 60, 60), (0.8, 60, 0))
    assert choose_threshold(scores, 0.6) == pytest.approx(0.8)
    with pytest.raises(ScoresError, match=r"90\.0%.* 180 of 180 .* 66\.7%"):
        choose_threshold(scores, 0.9)
    for precision in (0, 1, 1.2, math.nan):
        with pytest.raises(ScoresError, match="precision above 0 and below 1"):
            choose_threshold(scores, precision)


def test_labels_below_the_threshold_are_unknown():
    values = np.array([[0.7, 0.3], [0.45, 0.55], [math.nan, math.nan]])
    assert accepted_labels(values, ("a", "b"), 0.7) == ["a", "unknown", "unknown"]
    assert accepted_labels(values, ("a", "b"), None) == ["a", "b", "unknown"]
    with pytest.raises(ScoresError, match=r"\(videos, 3\), got \(3, 2\)"):
        accepted_labels(values, ("a", "b", "c"), 0.5)


def test_calibration_round_trip(tmp_path: Path):
    scores = random_scores(1, num_videos=200, strength=2, scale=5, split="val", weights_hash="1")
    found = calibrate(scores, precision=0.8, file="val.npz")
    found.save(tmp_path / "c.json")
    assert load_calibration(tmp_path / "c.json") == found
    value = json.loads((tmp_path / "c.json").read_text())
    assert {"temperature", "threshold", "ece_before", "ece_after", "fitted_on"} <= value.keys()
    assert value["fitted_on"] == {
        "file": "val.npz",
        "num_videos": 200,
        "num_unreadable": 0,
        "videos_hash": hash_videos(scores),
        "split": "val",
        "weights_hash": "1",
    }
    assert found.temperature > 1.5
    assert found.nll_after < found.nll_before
    assert found.ece_after < found.ece_before
    # The labels a predictor gives by it are the ones that were counted.
    values = calibrated_probabilities(scores.logits, found.temperature)
    given_labels = accepted_labels(values, found.classes, found.threshold)
    assert found.coverage == pytest.approx(np.mean([label != "unknown" for label in given_labels]))
    plain = calibrate(scores)
    assert (plain.threshold, plain.coverage, plain.precision) == (None, None, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("{", "not a calibration"),
        ("[]", "not a calibration"),
        ("{}", "not a calibration"),
        ('{"format_version": 2}', "format version 1 .* 2"),
        ('{"format_version": 1, "classes": [], "odd": 1}', "not a calibration"),
    ],
)
def test_invalid_calibration_files(tmp_path: Path, content: str | None, message: str):
    path = tmp_path / "c.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ScoresError, match=message):
        load_calibration(path)


def test_calibration_on_other_scores():
    fitted = calibrate(random_scores(1, scale=3, split="val", weights_hash="1"), precision=0.5)
    other = random_scores(2, num_videos=80, scale=3, split="test", weights_hash="1")
    report = evaluate_calibration(fitted, other)
    assert report.num_videos == 80
    assert report.nll_after == negative_log_likelihood(other, fitted.temperature) < report.nll_before
    assert report.note == ""
    assert 0 < report.coverage <= 1
    same_split = random_scores(2, scale=3, split="val", weights_hash="1")
    assert evaluate_calibration(fitted, same_split).note.startswith("both scores are of split 'val'")
    other_weights = random_scores(2, scale=3, split="test", weights_hash="2")
    assert evaluate_calibration(fitted, other_weights).note.startswith("the scores are of other weights")
    # The same videos under another split, and scores of other views.
    same_videos = random_scores(1, scale=3, split="test", weights_hash="1")
    assert evaluate_calibration(fitted, same_videos).note.startswith("both scores are of the same videos")
    shown = calibrate(random_scores(1, scale=3, split="val", protocol="fcn"))
    other_views = random_scores(2, num_videos=80, scale=3, split="test", protocol="center")
    assert evaluate_calibration(shown, other_views).note.endswith("in protocol.")
    with pytest.raises(ScoresError, match=r"4 classes .* 3; .*\['d'\]"):
        evaluate_calibration(fitted, random_scores(2, num_classes=3))


def test_a_calibration_of_other_weights_is_refused():
    described = {"split": "val", "protocol": "fcn", "order": "forward", "average": "logits"}
    scores = [random_scores(seed, scale=3, weights_hash=f"{seed}" * 64, **described) for seed in (1, 2)]
    fitted = calibrate(scores[0], file="a/eval/val.npz")
    view = {"protocol": "fcn", "average": "logits"}
    assert check_calibration(fitted, weights={"1" * 64: 1.0}, **view) == ""
    assert check_calibration(fitted, weights=None, **view) == ""
    assert check_calibration(calibrate(random_scores(1, scale=3)), weights={"2" * 64: 1.0}, **view) == ""  # an old file
    with pytest.raises(
        ScoresError, match=r"a/eval/val\.npz, of other weights .*11111111 1; here 22222222 1.*vsn calibrate"
    ):
        check_calibration(fitted, weights={"2" * 64: 1.0}, **view)
    note = check_calibration(fitted, weights={"1" * 64: 1.0}, protocol="3crop", average="softmax")
    assert (
        note
        == "the calibration was fitted on scores of protocol 'fcn' (here '3crop'), average 'logits' (here 'softmax')."
    )
    fused = calibrate(fuse_scores(scores, weights=[1, 3]))
    assert check_calibration(fused, weights={"1" * 64: 0.25, "2" * 64: 0.75}, **view) == ""
    with pytest.raises(ScoresError, match=r"the same runs with other weights of the fusion .*0\.25.*here .*0\.5"):
        check_calibration(fused, weights={"1" * 64: 0.5, "2" * 64: 0.5}, **view)
    logits = calibrate(fuse_scores(scores, logits=True))
    note = check_calibration(logits, weights={"1" * 64: 0.5, "2" * 64: 0.5}, **view)
    assert note == "the calibration was fitted on scores of fusion 'logits' (here 'softmax')."
    with pytest.raises(ScoresError, match="of other weights"):
        check_calibration(fused, weights={"1" * 64: 1.0}, **view)


def test_unreadable_videos_are_left_out_and_not_accepted():
    plain = random_scores(1, num_videos=40)
    logits = np.vstack([plain.logits, np.full((10, 4), math.nan)])
    more = scores_of(logits.tolist(), [*plain.labels.tolist(), *[0] * 10])
    assert fit_temperature(more) == fit_temperature(plain)
    assert measure_calibration(more, 1.0, 0.0).coverage == pytest.approx(0.8)
    assert calibrate(more).fitted_on["num_unreadable"] == 10
    with pytest.raises(ScoresError, match="all 1 are unreadable"):
        fit_temperature(scores_of([[math.nan] * 2], [0]))


def test_unsupported_scores_and_arguments():
    with pytest.raises(ScoresError, match="multi-label"):
        calibrate(several([[1, 0]], [[1, 0]]))
    with pytest.raises(ScoresError, match=r"1 of 1 videos"):
        calibrate(scores_of([[1, 0]], [-1]))
    for temperature in (0, -1, math.inf):
        with pytest.raises(ScoresError, match="temperature above 0"):
            calibrated_probabilities(np.zeros((1, 2)), temperature)
    with pytest.raises(ScoresError, match=r"num_bins.* 0"):
        reliability_curve(random_scores(1), num_bins=0)
