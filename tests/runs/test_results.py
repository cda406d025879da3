"""Results of evaluations: what their files hold, which of them a run folder offers, and when they are stale."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.made_scores import scores_of
from tests.helpers.tiny_runs import tiny_recipe
from vsn.runs.results import EvalResult, ResultError, find_scores, list_results
from vsn.runs.run import Run
from vsn.scores.metrics import summarize
from vsn.scores.scores import Scores, ScoresError, load_scores

DESCRIBED = {"split": "test", "protocol": "fcn", "order": "forward"}


def save(run_dir: Path, scores: Scores | None = None, **described) -> EvalResult:
    scores = scores or scores_of([[1, 0], [1, 0]], [0, 1])
    return EvalResult.measure(scores, **(DESCRIBED | described)).save(run_dir, scores)


def test_files_of_a_result(tmp_path: Path):
    bad = ({"path": "a.mp4", "reason": "empty."},)
    result = save(tmp_path, model="vsn", weights_hash="ab", seconds=3.5, videos_per_second=2.0, bad_videos=bad)
    assert result.path == tmp_path / "eval" / "test-fcn-forward.json"
    values = json.loads(result.path.read_text())
    assert list(values) == [
        "split", "order", "model", "protocol", "bad_videos", "weights", "weights_hash", "seconds", "videos_per_second",
        "num_videos", "top1", "top1_interval", "top5", "mean_class", "per_class",
    ]  # fmt: skip
    assert values == result.to_json()
    assert (values["top1"], values["bad_videos"], values["per_class"]) == (0.5, [*bad], {"a": 1.0, "b": 0.0})
    assert EvalResult.load(result.path) == result
    scores = load_scores(result.scores_file)
    assert scores.labels.tolist() == [0, 1]
    assert scores.facts == DESCRIBED | {"model": "vsn", "weights": "last", "weights_hash": "ab"}


def test_multi_label_results_have_map(tmp_path: Path):
    scores = Scores(np.array(["1", "2"]), np.eye(2, dtype=np.float32), np.eye(2, dtype=bool), ("a", "b"))
    result = save(tmp_path, scores)
    assert (result.mean_average_precision, result.mean_class) == (summarize(scores).mean, None)
    assert json.loads(result.path.read_text())["mean_average_precision"] == 1.0


def test_without_labels_videos_are_counted_and_nothing_is_measured(tmp_path: Path):
    result = save(tmp_path, scores_of([[1, 0], [0, 1]], [-1, 1]))
    assert not result.is_measured
    assert json.loads(result.path.read_text()) == {**DESCRIBED, "weights": "last", "num_videos": 2, "num_unlabeled": 1}
    assert load_scores(result.scores_file).labels.tolist() == [-1, 1]


@pytest.mark.parametrize(("name", "weights"), [("test-fcn-forward", "last"), ("test-fcn-forward-best", "best")])
def test_without_a_weights_key_the_file_name_tells_which(tmp_path: Path, name: str, weights: str):
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(DESCRIBED | {"top1": 0.5, "num_videos": 4, "unknown_key": 1}))
    result = EvalResult.load(path)
    assert (result.weights, result.weights_hash, result.top1, result.num_videos) == (weights, None, 0.5, 4)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting"), ("[]", "list"), ('{"split": "test", "order": "still"}', "protocol"),
        (json.dumps(DESCRIBED | {"top1": "high"}), "top1.*'high'"),
        (json.dumps(DESCRIBED | {"top5": float("nan")}), "top5.*nan"),
    ],
)  # fmt: skip
def test_damaged_files_are_raised_or_collected(tmp_path: Path, content: str, reason: str):
    good = save(tmp_path)
    bad = tmp_path / "eval" / "test-center-forward.json"
    bad.write_text(content)
    with pytest.raises(ResultError, match=reason) as caught:
        list_results(tmp_path)
    assert str(bad) in str(caught.value)
    damaged: list[ResultError] = []
    assert list_results(tmp_path, damaged=damaged) == [good]
    assert [error.path for error in damaged] == [bad]


def test_results_of_a_run_folder_in_order(tmp_path: Path):
    assert list_results(tmp_path) == []
    for split, protocol, order, weights in (
        ("test", "fcn", "shuffled", "last"),
        ("a", "center", "forward", "last"),
        ("val", "fcn", "forward", "last"),
        ("test", "fcn", "forward", "best"),
    ):
        save(tmp_path, split=split, protocol=protocol, order=order, weights=weights)
    (tmp_path / "eval" / "calibration.json").write_text("{}")  # other JSON in the folder is no result

    def names(**filters) -> list[str]:
        return [result.path.stem for result in list_results(tmp_path, **filters)]

    assert names() == ["a-center-forward", "test-fcn-forward-best", "val-fcn-forward", "test-fcn-shuffled"]
    recipe = tiny_recipe(Path())
    recipe = replace(recipe, data=replace(recipe.data, test_split="val"), eval=replace(recipe.eval, protocol="fcn"))
    assert names(recipe=recipe)[:2] == ["val-fcn-forward", "test-fcn-forward-best"]
    assert names(weights="best") == ["test-fcn-forward-best"]
    assert names(order="shuffled", split="test", protocol="fcn") == ["test-fcn-shuffled"]


def test_a_result_is_stale_once_its_weights_change(tmp_path: Path):
    run = Run(tmp_path, tiny_recipe(Path()), ("a", "b"))
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    result, unknown = save(tmp_path, weights_hash=sha256), save(tmp_path)
    assert not result.is_stale(run)
    (tmp_path / "model.safetensors").write_bytes(b"abcd")
    assert result.is_stale(run)
    assert not unknown.is_stale(run)


def test_last_and_best_weights_have_their_own_scores(tmp_path: Path):
    for weights in ("last", "best"):
        save(tmp_path, weights=weights)
    assert find_scores(tmp_path).name == "test-fcn-forward.npz"
    assert find_scores(tmp_path, weights="best").name == "test-fcn-forward-best.npz"
    with pytest.raises(ScoresError, match=r"`vsn eval .* --protocol center --order still --weights best`"):
        find_scores(tmp_path, protocol="center", order="still", weights="best")


def test_scores_of_a_run_folder(tmp_path: Path):
    def write(split: str, protocol: str, order: str) -> str:
        return save(tmp_path, split=split, protocol=protocol, order=order).scores_file.name

    with pytest.raises(ScoresError, match=r"order 'forward'.*vsn eval"):
        find_scores(tmp_path)
    first = write("test", "fcn", "forward")
    write("test", "fcn", "shuffled")
    assert find_scores(tmp_path).name == first
    assert find_scores(tmp_path / "eval" / first) == tmp_path / "eval" / first
    assert find_scores(tmp_path, order="shuffled").name == "test-fcn-shuffled.npz"
    other = write("val", "fcn", "forward")
    with pytest.raises(ScoresError, match=rf"order 'forward': {first}, {other}\..*--split"):
        find_scores(tmp_path)
    assert find_scores(tmp_path, split="val").name == other
    third = write("val", "center", "forward")
    assert find_scores(tmp_path, split="val", protocol="center").name == third
    with pytest.raises(ScoresError, match="split 'train', order 'forward'"):
        find_scores(tmp_path, split="train")
    for file in (tmp_path / "eval").glob("*.json"):
        file.write_bytes(b"")
    with pytest.raises(ScoresError, match=r"order 'forward' .*json cannot be read"):
        find_scores(tmp_path)
