"""Results of evaluations: what their files hold, which of them a run folder offers, and when they are stale."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.made_scores import scores_of
from tests.helpers.tiny_runs import tiny_recipe
from vsn.runs.metadata import write_run
from vsn.runs.results import EvalResult, ResultError, find_scores, list_results, variant_of
from vsn.runs.run import Run, new_run
from vsn.scores.facts import hash_videos
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
        "split", "order", "model", "protocol", "bad_videos", "weights", "weights_hash", "videos_hash", "seconds",
        "videos_per_second",
        "num_videos", "top1", "top1_interval", "mean_class", "per_class",
    ]  # fmt: skip
    assert values == result.to_json()
    assert (values["top1"], values["bad_videos"], values["per_class"]) == (0.5, [*bad], {"a": 1.0, "b": 0.0})
    assert EvalResult.load(result.path) == result
    scores = load_scores(result.scores_file)
    assert scores.labels.tolist() == [0, 1]
    assert scores.facts == DESCRIBED | {"model": "vsn", "weights": "last", "weights_hash": "ab"}
    assert result.videos_hash == hash_videos(scores)


def test_multi_label_results_have_map(tmp_path: Path):
    scores = Scores(np.array(["1", "2"]), np.eye(2, dtype=np.float32), np.eye(2, dtype=bool), ("a", "b"))
    result = save(tmp_path, scores)
    assert (result.mean_average_precision, result.mean_class) == (summarize(scores).mean, None)
    assert json.loads(result.path.read_text())["mean_average_precision"] == 1.0


def test_without_labels_videos_are_counted_and_nothing_is_measured(tmp_path: Path):
    result = save(tmp_path, scores_of([[1, 0], [0, 1]], [-1, 1]))
    assert not result.is_measured
    assert json.loads(result.path.read_text()) == {
        **DESCRIBED, "weights": "last", "videos_hash": result.videos_hash, "num_videos": 2, "num_unlabeled": 1,
    }  # fmt: skip
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


SHA256_OF_ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_result_is_stale_once_its_weights_change(tmp_path: Path):
    result, unknown = save(tmp_path, weights_hash=SHA256_OF_ABC), save(tmp_path)
    assert not result.is_stale  # the weights were deleted, so nothing is known
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    assert not result.is_stale
    (tmp_path / "model.safetensors").write_bytes(b"abcd")
    assert result.is_stale
    assert not unknown.is_stale


def test_scores_of_weights_that_have_changed_are_not_chosen(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"abc")
    stale = save(tmp_path, weights_hash=SHA256_OF_ABC)
    assert find_scores([tmp_path]) == [stale.scores_file]
    (tmp_path / "model.safetensors").write_bytes(b"abd")
    with pytest.raises(ScoresError, match=r"test-fcn-forward\.npz is of other weights.*`vsn eval .* --split test"):
        find_scores([tmp_path])
    assert find_scores([stale.scores_file]) == [stale.scores_file]  # named


def variant(run: Run, root: Path, **options) -> str:
    values = {"split": "test", "protocol": "fcn", "order": "forward", "average": "logits", "videos_hash": "1"}
    return variant_of(run, EvalResult(root=str(root), **(values | options)))


def test_the_name_says_what_is_not_as_the_recipe_states(tmp_path: Path):
    own, other, same_name = (tmp_path / name for name in ("own", "x/other", "y/other"))
    for folder in (own, other, same_name):
        folder.mkdir(parents=True)
    run = Run(tmp_path / "run", tiny_recipe(own), ("a", "b"))
    assert variant(run, own) == variant(run, tmp_path / "x" / ".." / "own") == ""
    assert variant(run, own, average="softmax") == "-softmax"
    names = {
        variant(run, folder, average=average) for folder in (other, same_name) for average in ("logits", "softmax")
    }
    assert len(names) == 4
    assert sorted(name.partition("@")[0] for name in names) == ["", "", "-softmax", "-softmax"]
    assert all("@other-" in name for name in names)
    softmax = replace(run.recipe, eval=replace(run.recipe.eval, average="softmax"))
    assert variant(replace(run, recipe=softmax), own, average="softmax") == ""
    saved = {save(run.path, variant=name, order="still").path for name in ("", *names)}
    assert len(saved) == 5
    assert {result.path for result in list_results(run.path)} == saved
    assert list_results(run.path)[0].is_own


def test_data_that_moved_is_still_the_data_of_the_recipe(tmp_path: Path):
    """Unless other videos were tested before: then the folder holds another data set."""
    moved = tmp_path / "moved"
    moved.mkdir()
    run = Run(tmp_path / "run", tiny_recipe(tmp_path / "gone"), ("a", "b"))
    tested = save(run.path)
    assert variant(run, moved, videos_hash=tested.videos_hash) == ""
    assert variant(run, moved, videos_hash="2").startswith("@moved-")
    assert variant(run, moved, videos_hash="2", split="val") == ""


def test_a_second_folder_with_the_same_videos_is_another_data_set(tmp_path: Path):
    """Blurred copies, say, tested where the recipe's folder does not exist."""
    first, second = tmp_path / "plain", tmp_path / "blurred"
    first.mkdir()
    second.mkdir()
    run = Run(tmp_path / "run", tiny_recipe(tmp_path / "gone"), ("a", "b"))
    tested = save(run.path, root=str(first))
    assert variant(run, first, videos_hash=tested.videos_hash) == ""
    assert variant(run, second, videos_hash=tested.videos_hash).startswith("@blurred-")
    first.rmdir()
    assert variant(run, second, videos_hash=tested.videos_hash) == ""  # moved again


def test_own_data_and_average_come_first(tmp_path: Path):
    others = [save(tmp_path, variant=name) for name in ("-softmax", "@other-1a2b3c")]
    with pytest.raises(ScoresError, match=r"several .*forward-softmax\.npz, test-fcn-forward@other.*file"):
        find_scores([tmp_path])
    own = save(tmp_path)
    assert find_scores([tmp_path]) == [own.scores_file]
    own.path.unlink()
    others[0].path.unlink()
    assert find_scores([tmp_path]) == [others[1].scores_file]


def test_runs_take_the_split_that_most_were_tested_on(tmp_path: Path):
    """As a report does: then the recipes' own split, whatever was tested last."""
    first, second = tmp_path / "1", tmp_path / "2"
    for folder in (first, second):
        write_run(new_run(folder, tiny_recipe(Path("videos")), ("a", "b")))
    tests = [save(folder, split="test").scores_file for folder in (first, second)]
    validation = save(first, split="val").scores_file
    assert find_scores([first, second]) == tests
    assert find_scores([first]) == [tests[0]]
    assert find_scores([first], split="val") == [validation]
    tests[1].with_suffix(".json").unlink()
    both = [validation, save(second, split="val").scores_file]
    assert find_scores([first, second]) == both
    assert find_scores([first, tests[1]]) == [tests[0], tests[1]]


def test_last_and_best_weights_have_their_own_scores(tmp_path: Path):
    for weights in ("last", "best"):
        save(tmp_path, weights=weights)
    assert find_scores([tmp_path])[0].name == "test-fcn-forward.npz"
    assert find_scores([tmp_path], weights="best")[0].name == "test-fcn-forward-best.npz"
    with pytest.raises(ScoresError, match=r"`vsn eval .* --protocol center --order still --weights best`"):
        find_scores([tmp_path], protocol="center", order="still", weights="best")


def test_scores_of_a_run_folder(tmp_path: Path):
    def write(split: str, protocol: str, order: str) -> str:
        return save(tmp_path, split=split, protocol=protocol, order=order).scores_file.name

    def found(**wanted) -> str:
        return find_scores([tmp_path], **wanted)[0].name

    with pytest.raises(ScoresError, match=r"order 'forward'.*vsn eval"):
        found()
    first = write("test", "fcn", "forward")
    write("test", "fcn", "shuffled")
    assert found() == first
    assert find_scores([tmp_path / "eval" / first]) == [tmp_path / "eval" / first]
    assert found(order="shuffled") == "test-fcn-shuffled.npz"
    other = write("val", "fcn", "forward")
    assert found(split="val") == other
    third = write("val", "center", "forward")
    assert found(split="val", protocol="center") == third
    with pytest.raises(ScoresError, match="split 'train', order 'forward'"):
        found(split="train")
    for file in (tmp_path / "eval").glob("*.json"):
        file.write_bytes(b"")
    with pytest.raises(ScoresError, match=r"order 'forward' .*json cannot be read"):
        found()
