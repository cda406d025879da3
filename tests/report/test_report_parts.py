"""What a report shows of runs that are half there, of several labels, of hundreds of classes, of best and worst."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.fake_runs import CLASSES, fake_scores, write_eval, write_run, write_runs
from tests.helpers.html_pages import Page
from vsn.config import DataConfig
from vsn.config.recipes import dump_recipe, load_recipe
from vsn.report import read_runs, write_page, write_report
from vsn.report.confusion import order_alike
from vsn.report.differences import compare_with_best, named_scores
from vsn.report.page import check_output
from vsn.report.render import points
from vsn.report.results import summary_sentence
from vsn.report.runs import ReportError
from vsn.report.videos import Example, Examples, choose_examples
from vsn.scores.calibrate import calibrate
from vsn.scores.metrics import average_precisions
from vsn.scores.reliance import temporal_reliance
from vsn.scores.scores import Scores, load_scores
from vsn.system.numbers import percent, percent_range


def commands(page: Page) -> list[list[str]]:
    """The commands a page tells to run."""
    lines = [line for word in page.words for line in word.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("vsn ")]


def written(run_dirs: list[Path], output: Path, **settings: object) -> Page:
    return Page(write_report(run_dirs, output, title="t", **settings).read_text("utf-8"))


def test_a_run_before_its_first_epoch(tmp_path: Path) -> None:
    run_dir = tmp_path / "new run"
    write_run(run_dir, "vsn_resnet18", 0.5, epochs=1)
    for path in [*(run_dir / "eval").iterdir(), run_dir / "metrics.jsonl", run_dir / "versions.json"]:
        path.unlink()
    page = written([run_dir], tmp_path / "x.html")
    assert "The run is not tested yet." in page.words
    assert ["vsn", "train", "--resume", str(run_dir)] in commands(page)
    assert ["vsn", "eval", str(run_dir), "--split", "test", "--protocol", "fcn"] in commands(page)
    assert "no versions recorded" in page.words


def test_one_of_two_runs_is_not_tested(tmp_path: Path) -> None:
    first, second = (write_run(tmp_path / name, "tsm_resnet18", 0.5) for name in ("first", "second"))
    for path in (second / "eval").iterdir():
        path.unlink()
    page = written([first, second], tmp_path / "x.html")
    assert "Not tested on split test with protocol fcn: second." in page.words
    assert [c for c in commands(page) if c[1] == "eval" and "--order" not in c] == [
        ["vsn", "eval", str(second), "--split", "test", "--protocol", "fcn"],
        ["vsn", "eval", str(first), "--split", "val", "--protocol", "fcn"],  # to calibrate on
    ]


def test_missing_orders_are_named(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", "tsm_resnet18", 0.5)
    for order in ("reversed", "still"):
        for suffix in ("json", "npz"):
            (run_dir / "eval" / f"test-fcn-{order}.{suffix}").unlink()
    shown = commands(written([run_dir], tmp_path / "x.html"))
    command = ["vsn", "eval", str(run_dir), "--split", "test", "--protocol", "fcn"]
    assert [*command, "--order", "reversed", "still"] in shown


def test_the_split_is_found(tmp_path: Path) -> None:
    """Data without a test split is tested on its validation split; a stated split is kept to."""
    run_dir = write_run(tmp_path / "run", "tsm_resnet18", 0.5)
    labels = np.repeat(np.arange(20), 20)
    write_eval(run_dir, "forward", np.eye(20, dtype=np.float32)[labels], labels, CLASSES, split="val")
    assert [run.split for run in read_runs([run_dir])] == ["test"]
    assert read_runs([run_dir], "val")[0].top1 == 1
    for path in (run_dir / "eval").glob("test-*"):
        path.unlink()
    assert [run.split for run in read_runs([run_dir])] == ["val"]
    assert not read_runs([run_dir], "test")[0].results


def test_best_and_last_weights(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", "tsm_resnet18", 0.5)
    (run_dir / "best.safetensors").touch()
    command = ["vsn", "eval", str(run_dir), "--split", "test", "--protocol", "fcn", "--weights", "best"]
    assert command in commands(written([run_dir], tmp_path / "x.html"))
    labels = np.repeat(np.arange(20), 20)
    logits = np.eye(20, dtype=np.float32)[np.where(np.arange(400) < 37, (labels + 1) % 20, labels)]
    write_eval(run_dir, "forward", logits, labels, CLASSES, weights="best")
    page = written([run_dir], tmp_path / "x.html")
    assert "Top-1, best weights" in page.words
    assert "90.8%" in page.words
    assert command not in commands(page)
    (file,) = (run_dir / "eval").glob("test-*-best.json")
    content = file.read_text()
    file.write_text(json.dumps(json.loads(content) | {"videos_hash": "0" * 64}))
    with pytest.raises(ReportError, match=r"best\.json is of other videos or labels than .*forward\.json"):
        written([run_dir], tmp_path / "x.html")
    file.write_text(content)
    for path in (run_dir / "eval").glob("test-*"):
        if "-best" not in path.name:
            path.unlink()
    (run,) = read_runs([run_dir])
    assert (run.weights, run.top1, run.best) == ("best", 1 - 37 / 400, None)


def test_validation_within_an_epoch(tmp_path: Path) -> None:
    """Its line has a broken epoch and no training loss; the run's length counts whole epochs."""
    run_dir = write_run(tmp_path / "run", "tsm_resnet18", 0.5, epochs=2)
    with (run_dir / "metrics.jsonl").open("a") as stream:
        line = {"epoch": 2.5, "step": 60, "lr": 0.001, "val_loss": 1.25, "val_top1": 0.625}
        stream.write(json.dumps(line) + "\n")
    page = written([run_dir], tmp_path / "x.html")
    assert any("for 2 of 50 epochs in 82 s" in word for word in page.words)
    assert "run, validation, epoch 2.5: 62.5%" in page.words
    assert "run, epoch 2.5: 0.001" in page.words  # the learning rate
    assert "Waiting for data, share of the time" not in page.words


def test_time_spent_waiting_is_drawn(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", "tsm_resnet18", 0.5, epochs=1)
    line = {"epoch": 1, "train_loss": 2.0, "train_top1": 0.1, "data_wait": 0.31, "seconds": 3.0}
    (run_dir / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    page = written([run_dir], tmp_path / "x.html")
    assert "run, validation, epoch 1: 31%" not in page.words  # it is no matter of validation
    assert "run, epoch 1: 31%" in page.words


def multi_label_run(run_dir: Path) -> Path:
    write_run(run_dir, "vsn_resnet18", 0.5, epochs=2)
    for path in (run_dir / "eval").iterdir():
        path.unlink()
    recipe = load_recipe(run_dir / "recipe.toml")
    (run_dir / "recipe.toml").write_text(dump_recipe(replace(recipe, data=DataConfig(task="multilabel"))))
    generator = np.random.default_rng(0)
    labels = generator.random((60, 20)) < 0.15
    labels[:, 0] |= ~labels.any(axis=1)
    labels[:, 3] = False  # a class without a video
    logits = (generator.normal(size=(60, 20)) + 2 * labels).astype(np.float32)
    for order in ("forward", "shuffled"):
        write_eval(run_dir, order, logits, labels, CLASSES)
    return run_dir


def test_several_labels_a_video(tmp_path: Path) -> None:
    run_dir = multi_label_run(tmp_path / "run")
    page = written([run_dir], tmp_path / "x.html")
    found = average_precisions(load_scores(run_dir / "eval" / "test-fcn-forward.npz"))
    assert "mAP" in page.words
    assert percent(np.mean(list(found.values()))) in page.words
    for name in CLASSES:
        assert name in page.words
        if name in found:
            assert percent(found[name]) in page.words
    assert CLASSES[3] not in found
    counts = load_scores(run_dir / "eval" / "test-fcn-forward.npz").labels.sum(axis=0)
    assert sorted(counts) == sorted(int(word.split()[0]) for word in page.words if re.fullmatch(r"\d+ videos?", word))
    assert "A video with several labels has no single true class, so there is no matrix." in page.words
    assert any(word.startswith("run has a mean average precision on 60 videos of split test: ") for word in page.words)
    assert not any("chance" in word or "above chance" in word for word in page.words)
    assert any(word.startswith("Calibration is for one label") for word in page.words)


@pytest.mark.parametrize("orders", [("forward", "shuffled"), ("forward", "reversed", "shuffled", "still")])
def test_reliance_by_class_is_that_of_the_scores(tmp_path: Path, orders: tuple[str, ...]) -> None:
    run_dir = write_run(tmp_path / "run", "tsm_resnet18", 0.7)
    for path in (run_dir / "eval").iterdir():
        if not path.stem.endswith(orders):
            path.unlink()
    found = temporal_reliance({order: load_scores(run_dir / "eval" / f"test-fcn-{order}.npz") for order in orders})
    words = written([run_dir], tmp_path / "x.html").words
    for order in orders:
        low, high = found.orders[order].interval
        assert percent_range((low, high), dash="\N{EN DASH}") in words
    assert not [text for text in words if re.search(r"(?<![\w-])-\d", text)]  # minus signs are no hyphens
    for name in CLASSES:
        one = found.classes[name]
        change = 100 * (one["shuffled"].top1 - one["forward"].top1)
        assert f"{change:+.1f} points".replace("-", "\N{MINUS SIGN}") in words


def test_calibration_is_applied_where_there_is_one(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", "tsm_resnet18", 0.7)
    page = written([run_dir], tmp_path / "x.html")
    validation, path = run_dir / "eval" / "val-fcn-forward.npz", run_dir / "calibration.json"
    assert ["vsn", "calibrate", str(validation), "--out", str(path)] in commands(page)
    assert ["vsn", "eval", str(run_dir), "--split", "val", "--protocol", "fcn"] in commands(page)
    labels = np.repeat(np.arange(20), 20)
    write_eval(run_dir, "forward", np.eye(20)[labels], labels, CLASSES, split="val")
    assert "eval" not in [command[1] for command in commands(written([run_dir], tmp_path / "x.html"))]
    validation.unlink()  # a published run has results without scores
    assert ["vsn", "eval", str(run_dir), "--split", "val", "--protocol", "fcn"] in commands(
        written([run_dir], tmp_path / "x.html")
    )
    calibration = calibrate(load_scores(run_dir / "eval" / "test-fcn-forward.npz"))
    calibration.save(path)
    page = written([run_dir], tmp_path / "x.html")
    assert f"run, temperature {calibration.temperature:.3g}" in page.words
    for error in (calibration.ece_before, calibration.ece_after):
        assert f"ECE {100 * error:.1f}%" in page.words
    assert not [command for command in commands(page) if command[1] == "calibrate"]


def test_a_calibration_of_other_weights_is_not_drawn(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", "tsm_resnet18", 0.7)
    file = run_dir / "eval" / "test-fcn-forward.npz"
    scores = load_scores(file)
    replace(scores, facts={**scores.facts, "weights_hash": "1"}).save(file)
    other = calibrate(replace(scores, facts={**scores.facts, "weights_hash": "2"}))
    other.save(run_dir / "calibration.json")
    page = written([run_dir], tmp_path / "x.html")
    assert f"run, temperature {other.temperature:.3g}" not in page.words
    assert [command for command in commands(page) if command[1] == "calibrate"]


def test_results_of_earlier_weights_are_left_out(tmp_path: Path) -> None:
    """A run that was resumed after its test has curves of its new weights and results of its old ones."""
    first, second = write_runs(tmp_path)[:2]
    for path in second.glob("eval/test-fcn-*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"weights_hash": "0" * 64}))
    assert "share the best" in summary_of(first, second) or "above TSN" in summary_of(first, second)
    (second / "model.safetensors").write_bytes(b"trained on")
    page = written([first, second], tmp_path / "x.html")
    assert "Results of TSM are left out: the weights have changed since they were tested." in page.words
    assert ["vsn", "eval", str(second), "--split", "test", "--protocol", "fcn"] in commands(page)
    assert summary_of(first, second).startswith("TSN has a top-1 accuracy")


def test_results_of_the_recipes_data_and_average_are_shown(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", "tsm_resnet18", 0.7)
    own = read_runs([run_dir])[0].top1
    for path in run_dir.glob("eval/test-fcn-forward.*"):
        path.rename(path.with_stem(f"{path.stem}@darker-1a2b3c"))
    other = run_dir / "eval" / "test-fcn-forward@darker-1a2b3c.json"
    described = {"variant": "@darker-1a2b3c", "root": "/data/darker", "average": "logits"}
    other.write_text(json.dumps(json.loads(other.read_text()) | described))
    page = written([run_dir], tmp_path / "x.html")
    assert "logits averaged, data in /data/darker" in page.words
    labels = np.repeat(np.arange(20), 20)
    write_eval(run_dir, "forward", np.eye(20)[labels], labels, CLASSES)
    assert read_runs([run_dir])[0].top1 == 1.0 != own


def summary_of(*run_dirs: Path) -> str:
    runs = read_runs(run_dirs)
    return summary_sentence(runs, compare_with_best(named_scores(runs)))


def embedded(source: str, key: str) -> object:
    found = re.search(rf'<script type="application/json" id="{key}">(.*?)</script>', source)
    assert found
    return json.loads(found[1])


def test_hundreds_of_classes_are_data_for_a_canvas(tmp_path: Path) -> None:
    classes = tuple(f"class {i} </script><b>&" for i in range(174))
    run_dir = write_run(tmp_path / "run", "tsm_resnet18", 0.7, classes=classes, epochs=1, per_class=3)
    for path in (run_dir / "eval").iterdir():
        if "forward" not in path.name:
            path.unlink()
    source = write_report([run_dir], tmp_path / "x.html", title="t").read_text("utf-8")
    page = Page(source)
    assert "</script><b>" not in source
    assert page.tags.count("script") == 4  # names, counts, videos, and what draws them
    assert tuple(embedded(source, "class-names")) == classes  # type: ignore[arg-type]
    data = embedded(source, "map-0")
    (run,) = read_runs([run_dir])
    counts = np.zeros((174, 174), int)
    for truth, row in enumerate(data["rows"]):  # type: ignore[index]
        for predicted, count in zip(row[::2], row[1::2], strict=True):
            counts[truth, predicted] = count
    np.testing.assert_array_equal(counts, run.confusion)
    orders = data["orders"]  # type: ignore[index]
    assert sorted(orders["alike"]) == sorted(orders["accuracy"]) == list(range(174))
    right = (counts.diagonal() / counts.sum(axis=1))[orders["accuracy"]]
    assert (np.diff(right) <= 0).all()
    # Mistakes go to the neighbor 2k <-> 2k+1; ordered, each pair that was confused is side by side.
    place = np.argsort(orders["alike"])
    for low in range(0, 174, 2):
        if counts[low, low + 1] + counts[low + 1, low] > 0:
            assert abs(place[low] - place[low + 1]) == 1


def test_confused_classes_are_side_by_side() -> None:
    counts = np.diag([9, 9, 9, 9, 9])
    counts[0, 3] = counts[3, 0] = 6
    counts[3, 1] = 3
    order = order_alike(counts)
    assert sorted(order) == [0, 1, 2, 3, 4]
    text = "".join(map(str, order))
    assert "031" in text or "130" in text
    assert order_alike(np.ones((1, 1), int)) == [0]


def scores_of(logits: list[list[float]], labels: list[int]) -> Scores:
    ids = np.array([f"v{i}" for i in range(len(labels))])
    return Scores(ids, np.array(logits, np.float32), np.array(labels), ("a", "b"))


def test_best_and_worst_are_the_most_certain_of_each_class() -> None:
    nan = float("nan")
    scores = scores_of(
        [[5, 0], [4, 0], [0, 1], [9, 0], [0, 3], [nan, nan], [3, 0]],
        [0, 0, 1, 1, 0, 0, 0],
    )
    # Chosen are class a's v0, class b's v2, then v1, and shown as certain as they are; v5 could not be read.
    assert choose_examples(scores, 3) == {"best": [0, 1, 2], "worst": [3, 4]}
    assert choose_examples(scores, 2) == {"best": [0, 2], "worst": [3, 4]}
    assert choose_examples(scores, 1) == {"best": [0], "worst": [3]}


def test_best_and_worst_of_several_labels() -> None:
    labels = np.array([[1, 1], [1, 0], [0, 0], [0, 1]], bool)
    logits = np.array([[2, 2], [4, 0], [9, 9], [1, -1]], np.float32)
    scores = Scores(np.array(["v0", "v1", "v2", "v3"]), logits, labels, ("a", "b"))
    assert choose_examples(scores, 2) == {"best": [1, 0], "worst": [3]}  # v2 has no label


def test_examples_are_shown_with_three_choices_and_heat(tmp_path: Path) -> None:
    runs = read_runs(write_runs(tmp_path))
    best = max(runs, key=lambda run: run.top1)
    assert best.scores is not None
    rows = choose_examples(best.scores, 1)
    frames = np.zeros((8, 6, 8, 3), np.uint8)
    shown = Examples(
        run=best.name,
        stage="res5",
        examples=(
            Example(video_id=str(best.scores.video_ids[rows["best"][0]]), kind="best", frames=frames, heat=frames),
            Example(
                video_id=str(best.scores.video_ids[rows["worst"][0]]),
                kind="worst",
                frames=None,
                problem="gone",
            ),
        ),
    )
    costs = {run.name: (11_200_000, 14_600_000_000) for run in runs}
    page = Page(write_page(runs, tmp_path / "x.html", title="t", examples=shown, costs=costs).read_text("utf-8"))
    assert page.tags.count("img") == 2 * 8
    assert {"gone", "Most certain when right", "Most certain when wrong", "11.2M", "14.6G"} <= set(page.words)
    for choice in np.argsort(-best.scores.logits[rows["worst"][0]], kind="stable")[:3]:
        assert CLASSES[choice] in page.words


@pytest.mark.parametrize(
    ("examples", "sentence"),
    [
        (None, "This page was written from the run folders only, without opening videos."),
        (Examples(problem="The videos are gone."), "The videos are gone."),
    ],
)
def test_why_there_are_no_videos(tmp_path: Path, examples: Examples | None, sentence: str) -> None:
    runs = read_runs([write_run(tmp_path / "run", "tsm_resnet18", 0.5, epochs=1)])
    page = Page(write_page(runs, tmp_path / "x.html", title="t", examples=examples).read_text("utf-8"))
    assert sentence in page.words
    assert [command[:3] for command in commands(page) if command[1] == "report"] == [
        ["vsn", "report", str(tmp_path / "run")]
    ]


def test_five_runs(tmp_path: Path) -> None:
    labels = np.repeat([0, 1], 10)
    dirs = []
    for number in range(5):
        dirs.append(write_run(tmp_path / f"r{number}", "tsn_resnet18", 0.5, classes=("a", "b"), epochs=1, per_class=10))
        logits = fake_scores(labels, 2, 0.2 * number, np.random.default_rng(number))
        write_eval(dirs[-1], "forward", logits, labels, ("a", "b"))
    page = written(dirs, tmp_path / "x.html")
    assert [f"r{n}" in page.words for n in range(5)] == [True] * 5


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (0.125, "+12.5 points"),
        (-0.125, "\N{MINUS SIGN}12.5 points"),
        (-0.0, "+0.0 points"),
        (-1e-9, "+0.0 points"),
    ],
)
def test_differences_are_points(difference: float, expected: str) -> None:
    assert points(difference) == expected


def test_a_page_replaces_no_other(tmp_path: Path) -> None:
    first, second = (write_run(tmp_path / name, "tsn_resnet18", 0.5) for name in ("a", "b"))
    page = tmp_path / "report.html"
    check_output(page, [first])  # nothing is there
    write_report([first], page)
    check_output(page, [first])
    check_output(page, [first, second])
    with pytest.raises(ReportError, match="report of other runs"):
        check_output(page, [second])
    (tmp_path / "notes.html").write_text("<p>mine</p>")
    with pytest.raises(ReportError, match=r"notes\.html exists"):
        check_output(tmp_path / "notes.html", [first])
    head = page.read_text(encoding="utf-8").partition("<body")[0]
    assert str(tmp_path) not in head  # the page tells nobody where the run is


def planted(run_dir: Path, share: float, **described: Any) -> Path:
    """A run whose video 7, of the class "up", looks to it as clearly like "down" as those of "down" do."""
    write_run(run_dir, "tsn_resnet18", share)
    labels = np.repeat(np.arange(len(CLASSES)), 20)
    generator = np.random.default_rng(0)
    scores = generator.normal(0, 0.5, (len(labels), len(CLASSES)))
    right = generator.random(len(labels)) < share
    scores[np.arange(len(labels)), np.where(right, labels, generator.integers(0, len(CLASSES), len(labels)))] += 4
    scores[7] = 0
    scores[7, 1] = 9
    write_eval(run_dir, "forward", scores, labels, CLASSES)
    file = run_dir / "eval" / "test-fcn-forward.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | described))
    return run_dir


def test_labels_that_a_run_contradicts_come_first(tmp_path: Path) -> None:
    pytest.importorskip("cleanlab")
    page = written([planted(tmp_path / "run", 0.95)], tmp_path / "x.html")
    headings = [text for tag, text in page.headings if tag == "h2"]
    assert headings.index("Labels to look at") == headings.index("Results") + 1
    first = page.words.index("Most probable class") + 1
    assert [word for word in page.words[first:] if word][:4] == [
        f"{CLASSES[0]}/0007.mp4",
        CLASSES[0],
        "0.0%",
        CLASSES[1],
    ]


@pytest.mark.parametrize(("share", "described"), [(0.2, {}), (0.95, {"num_trained": 400})])
def test_runs_that_cannot_judge_labels(tmp_path: Path, share: float, described: dict[str, Any]) -> None:
    """One that is mostly wrong, and one that was trained on these videos."""
    page = written([planted(tmp_path / "run", share, **described)], tmp_path / "x.html")
    assert "Labels to look at" not in [text for tag, text in page.headings if tag == "h2"]
