"""`vsn fuse`, `compare`, `submit`, `calibrate`, and what `vsn eval` prints."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.helpers.made_scores import random_scores, scores_of, several, shuffled_names, sides
from tests.helpers.tiny_runs import tiny_recipe
from vsn import cli
from vsn.cli.score_tables import print_results
from vsn.runs.metadata import write_run
from vsn.runs.results import EvalResult, short_names
from vsn.runs.run import new_run
from vsn.scores.calibrate import load_calibration
from vsn.scores.fuse import fuse_scores, stratified_half
from vsn.scores.metrics import summarize
from vsn.scores.scores import Scores, load_scores
from vsn.system.numbers import percent

Run = Callable[..., str]

BOX = tuple("\u250f\u2503\u2521\u2502\u2514")
"""Characters that lines of a table begin with."""


@pytest.fixture
def vsn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the command line in an empty folder; return its output, or its error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: object) -> str:
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            if isinstance(stop.code, str):
                return stop.code
            if stop.code:
                return capsys.readouterr().err
        return capsys.readouterr().out

    run.capsys = capsys  # type: ignore[attr-defined]
    return run


def write(name: str, seed: int, **options) -> Path:
    path = Path(f"{name}.npz")
    random_scores(seed, **options).save(path)
    return path


def test_fuse(vsn: Run):
    a, b = write("a", 1, strength=1.5), Path("b.npz")
    shuffled_names(random_scores(2, strength=1.5), 7).save(b)
    out = vsn("fuse", a, b, "--out", "f.npz", "--json")
    report = json.loads(out)
    fused = load_scores("f.npz")
    expected = fuse_scores([random_scores(1, strength=1.5), random_scores(2, strength=1.5)])
    assert fused.logits.tolist() == expected.logits.tolist()
    assert report["fused"]["top1"] == summarize(expected).top1
    assert [part["file"] for part in fused.facts["fused_from"]] == ["a.npz", "b.npz"]
    page = vsn("fuse", a, b, "--weights", 1, 3)
    assert "60 videos, mean of softmax scores" in page
    assert "0.25" in page
    assert f"{percent(report['inputs'][0]['top1'])}" in page
    assert "95% interval of the paired difference" in page
    assert len(page.splitlines()) < 20
    assert json.loads(vsn("fuse", a, b, "--logits", "--json"))["fusion"] == "logits"


def test_fuse_prints_the_columns_of_table_2(vsn: Run):
    costs = {"num_frames": 8, "parameters": 24_300_000, "multiply_adds": 33_000_000_000}
    a, b = write("rgb", 1, **costs), write("flow", 2, **costs)
    report = json.loads(vsn("fuse", a, b, "--out", "both.npz", "--json"))
    assert report["inputs"][1]["frames"] == "8"
    fused = {key: report["fused"][key] for key in ("frames", "parameters", "multiply_adds")}
    assert fused == {"frames": "8+8", "parameters": 48_600_000, "multiply_adds": 66_000_000_000}
    page = vsn("fuse", a, b)
    assert [word for word in ("8+8", "48.6M", "66.0G") if word not in page] == []
    # Three networks, two of them fused before; costs that one file lacks make the sum unknown.
    three = json.loads(vsn("fuse", "both.npz", a, "--json"))["fused"]
    assert (three["frames"], three["parameters"]) == ("8+8+8", 72_900_000)
    assert json.loads(vsn("fuse", "both.npz", write("old", 3), "--json"))["fused"]["parameters"] is None


def test_the_table_of_fused_scores_fits_a_terminal(vsn: Run):
    folder = Path("runs/a-run-with-a-long-name-of-its-own/eval")
    folder.mkdir(parents=True)
    a, b = write(str(folder / "validation-fcn-forward"), 1), write("b", 2)
    lines = vsn("fuse", a, b).splitlines()
    assert lines[:2] == [f"1: {a}", f"2: {b}"]
    rows = [line for line in lines if line.startswith("│")]
    assert [row.split("│")[1].strip() for row in rows] == ["1", "2", "fused"]
    assert all("% to " in row and "…" not in row for row in rows)


def test_fuse_searches_on_one_half_and_reports_the_other(vsn: Run):
    a, b = write("a", 1), write("b", 2, strength=3)
    report = json.loads(vsn("fuse", a, b, "--search", "--seed", 3, "--out", "f.npz", "--json"))
    assert report["searched"]["num_videos"] == report["num_videos"] == 30
    assert report["searched"]["weights"] == [row["weight"] for row in report["inputs"]]
    fused = load_scores("f.npz")
    searched = stratified_half(random_scores(1), seed=3)
    assert fused.video_ids.tolist() == random_scores(1).video_ids[~searched].tolist()
    assert fused.facts["searched"] == report["searched"]
    assert "on 30 videos (seed 3)" in vsn("fuse", a, b, "--search", "--seed", 3)


def test_fuse_the_videos_in_common(vsn: Run):
    a, b = write("a", 1), write("b", 2, num_videos=40)
    assert vsn("fuse", a, b).startswith("vsn: b.npz lacks 20 videos")
    assert not Path("f.npz").exists()
    assert json.loads(vsn("fuse", a, b, "--common", "--json"))["left_out"] == 20
    assert "20 videos are not in all files and were left out." in vsn("fuse", a, b, "--common")


def test_inputs_that_were_tested_otherwise_are_said(vsn: Run, capsys: pytest.CaptureFixture[str]):
    for name, protocol in (("a", "3crop"), ("b", "fcn")):
        scores = load_scores(write(name, 1))
        replace(scores, facts={"protocol": protocol, "weights": "last"}).save(Path(f"{name}.npz"))
    cli.main(["fuse", "a.npz", "b.npz"])
    assert capsys.readouterr().err == "Note: the scores differ in their protocol: a.npz 3crop, b.npz fcn.\n"


def test_fuse_without_labels(vsn: Run):
    for name in ("a", "b"):
        scores_of([[1, 0]], [-1]).save(Path(f"{name}.npz"))
    assert "1 videos, some without a label" in vsn("fuse", "a.npz", "b.npz", "--out", "f.npz")
    assert load_scores("f.npz").labels.tolist() == [-1]


def test_fuse_several_labels(vsn: Run):
    for name, value in (("a", 3.0), ("b", -3.0)):
        several([[value, 1], [2, 1], [0, 4]], [[1, 0], [0, 1], [0, 1]]).save(Path(f"{name}.npz"))
    page = vsn("fuse", "a.npz", "b.npz")
    assert "mean of sigmoid scores" in page
    assert "mAP" in page
    assert "Mean average precision: " in page


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["fuse", "a.npz", "b.npz", "--weights", "1"], "2 weights"),
        (["fuse", "a.npz"], "1"),
        (["compare", "a.npz", "no.npz"], "no.npz"),
        (["submit", "a.npz", "--for", "something-v2"], "--labels"),
        (["calibrate", "a.npz", "--precision", "2"], "2.0"),
    ],
)
def test_errors_are_one_line_and_nothing_is_written(vsn: Run, arguments: list[str], value: str):
    write("a", 1)
    write("b", 2)
    message = vsn(*arguments)
    assert message.startswith("vsn: ")
    assert value in message
    assert len(message.splitlines()) == 1
    assert sorted(path.name for path in Path().iterdir()) == ["a.npz", "b.npz"]


def test_compare(vsn: Run):
    labels = [i % 2 for i in range(60)]
    sides([1] * 30 + [0] * 30, labels, classes=["put [x] down", "b"]).save(Path("a.npz"))
    sides([0] * 20 + [1] * 40, labels, classes=["put [x] down", "b"]).save(Path("b.npz"))
    result = json.loads(vsn("compare", "a.npz", "b.npz", "--json"))
    assert (result["a"], result["only_a"], result["only_b"], len(result["changed"])) == ("a.npz", 20, 30, 50)
    page = vsn("compare", "a.npz", "b.npz")
    row = next(line.split() for line in page.splitlines() if "b.npz" in line and "to" in line.split())
    assert row[-2] == "0.2"  # McNemar's exact test
    assert "put [x] down" in page
    flat = " ".join(page.split())
    assert re.search(r"won: 30 videos of 2 classes that only b.npz gets right, 8 shown; --all", flat)
    assert re.search(r"lost: 20 videos of 2 classes that only a.npz gets right, 8 shown", flat)
    shown = [line for line in page.splitlines() if "; a.npz predicts " in line]
    assert [": put [x] down;" in line for line in shown] == [False, True] * 8  # of every class one before the next
    assert len(page.splitlines()) <= 60
    everything = vsn("compare", "a.npz", "b.npz", "--all")
    assert sum(line.startswith("  ") and "; a.npz predicts " in line for line in everything.splitlines()) == 50


def test_a_page_of_many_classes_stays_a_page(vsn: Run):
    for name, seed in (("a", 1), ("b", 2)):
        write(name, seed, num_videos=400, num_classes=10)
    wide = [[float(i == j) for j in range(40)] for i in range(40)]
    for name, wrong in (("c", 0), ("d", 1)):
        logits = [wide[(i + (i % 2 == wrong)) % 40] for i in range(40)]
        scores_of(logits, list(range(40)), classes=[f"class {i}" for i in range(40)]).save(Path(f"{name}.npz"))
    for pair in (("a.npz", "b.npz"), ("c.npz", "d.npz")):
        assert len(vsn("compare", *pair).splitlines()) <= 60
    assert "(16 of 40)" in vsn("compare", "c.npz", "d.npz")
    assert "(40 of 40)" in vsn("compare", "c.npz", "d.npz", "--all")


def test_submit(vsn: Run):
    ids, classes = ["v/2.webm", "v/10.webm"], ["e", "d", "c", "b", "a"]
    rows = [[5, 4, 3, 2, 1], [1, 2, 3, 4, 5]]
    scores_of(rows, [-1, -1], ids=ids, classes=classes, split="test").save(Path("t.npz"))
    Path("labels.json").write_text(json.dumps({name: str(i) for i, name in enumerate("abcde")}))
    Path("test.json").write_text('[{"id": "2"}, {"id": "10"}]')
    Path("answers.csv").write_text("2;e\n10;b\n")
    page = vsn(
        "submit", "t.npz", "--for", "something-v2", "--labels", "labels.json", "--videos", "test.json",
        "--answers", "answers.csv", "--out", "s.csv",
    )  # fmt: skip
    assert Path("s.csv").read_text() == "2;4;3;2;1;0\n10;0;1;2;3;4\n"
    assert page.splitlines()[0] == "s.csv: 2 videos for something-v2"
    assert "answers.csv: top-1 50.0% (95% interval" in page
    assert "top-5 100.0%" in page
    assert "--videos" in vsn("submit", "t.npz", "--for", "something-v1", "--out", "v1.csv")
    assert Path("v1.csv").read_text() == "2;e\n10;a\n"
    Path("answers.csv").write_text("2;e\n")
    error = vsn("submit", "t.npz", "--for", "something-v1", "--answers", "answers.csv", "--out", "no.csv")
    assert "1 videos" in error
    assert not Path("no.csv").exists()


def test_calibrate(vsn: Run):
    run = Path("run")
    scores = random_scores(1, num_videos=200, strength=2, scale=5)
    save_result(run, scores, split="val", order="forward", weights_hash="1")
    test = write("test", 2, num_videos=100, strength=2, scale=5, split="test", weights_hash="1")
    page = vsn("calibrate", run, "--apply", test, "--precision", 0.8, "--out", "c.json", "--plot", "c.svg")
    found = load_calibration("c.json")
    assert found.fitted_on["file"] == "run/eval/val-fcn-forward.npz"
    assert f"Temperature {found.temperature:.3f}, fitted on 200 videos of run/eval" in page
    assert f"Threshold {found.threshold:.4f}: below it the label is 'unknown'." in page
    assert "Requested precision 80.0%, with 95% certainty." in page
    assert "Applied to: accepts " in page
    assert "Note:" not in page
    assert "test.npz" in ElementTree.fromstring(Path("c.svg").read_text()).attrib["aria-label"]
    report = json.loads(vsn("calibrate", run, "--apply", run, "--json"))
    assert report["temperature"] == found.temperature
    assert report["threshold"] is None
    assert report["applied"]["note"].startswith("both scores are of split 'val'")
    assert "--apply TEST.npz" in vsn("calibrate", run)


def test_outdated_scores_are_marked_where_they_are_named(vsn: Run):
    run = Path("run")
    old = save_result(run, random_scores(1), order="forward", weights_hash="0" * 64).scores_file
    new = write("new", 2, weights_hash="1")
    assert "outdated" not in vsn("compare", new, old)
    (run / "model.safetensors").write_bytes(b"trained on")
    assert "no scores of" in vsn("compare", new, run)
    for command in (["compare", new, old], ["fuse", new, old], ["calibrate", old]):
        cli.main([str(argument) for argument in command])
        assert "Note: run/eval/test-fcn-forward.npz is outdated" in vsn.capsys.readouterr().err


def test_runs_are_compared_on_the_split_of_the_report(vsn: Run):
    """A second split that was tested later changes nothing."""
    for number, name in enumerate(("a", "b")):
        write_run(new_run(Path(name), tiny_recipe(Path("videos")), ("a", "b", "c", "d")))
        save_result(Path(name), random_scores(number), order="forward")
    save_result(Path("b"), random_scores(5), split="val", order="forward")
    assert "a: a/eval/test-fcn-forward.npz\nb: b/eval/test-fcn-forward.npz" in vsn("compare", "a", "b")


def test_runs_are_called_by_their_names_where_these_differ():
    files = ["runs/tsm/eval/test-fcn-forward.npz", "runs/vsn/eval/test-fcn-forward.npz"]
    assert short_names(files) == ["tsm", "vsn"]
    weights = ["runs/vsn/eval/test-fcn-forward.npz", "runs/vsn/eval/test-fcn-forward-best.npz"]
    assert short_names(weights) == ["vsn/test-fcn-forward", "vsn/test-fcn-forward-best"]
    folders = ["one/vsn/eval/test-fcn-forward.npz", "two/vsn/eval/test-fcn-forward.npz"]
    assert short_names(folders) == folders
    assert short_names(["fused.npz", files[0]]) == ["fused.npz", "tsm"]


@pytest.mark.parametrize("width", [80, 120])
def test_three_models_are_compared_with_the_first(vsn: Run, width: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", str(width))
    names = ["tsn_resnet50-kinetics-seed-0", "tsm_resnet50-kinetics-seed-0", "vsn_resnet50-kinetics-seed-0"]
    right = ([1] * 20 + [0] * 40, [1] * 30 + [0] * 30, [1] * 50 + [0] * 10)
    for name, hits in zip(names, right, strict=True):
        save_result(Path(name), sides(hits, [1] * 60, classes=["a", "b"]), order="forward")
    results = json.loads(vsn("compare", *names, "--json"))
    assert [(one["b"].split("/")[0], one["only_b"]) for one in results] == [(names[1], 10), (names[2], 30)]
    page = vsn("compare", *names)
    assert max(len(line) for line in page.splitlines() if line[:1] in BOX) <= width
    rows = [line.split() for line in page.splitlines() if line.startswith(("\u2502 ts", "\u2502 vs"))]
    assert [row[1] for row in rows if "%" in row[3]][:3] == names
    assert "+50.0" in page
    assert "not corrected for 2 pairs" in page
    assert vsn("compare", names[0]).startswith("vsn: Got 1 score")


@pytest.mark.parametrize("width", [80, 120])
def test_long_names_of_two_runs_fit(vsn: Run, width: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", str(width))
    names = ["tsm_resnet50-kinetics-seed-0", "vsn_resnet50-kinetics-seed-0"]
    for name, hits in zip(names, ([1] * 20 + [0] * 40, [1] * 50 + [0] * 10), strict=True):
        save_result(Path(name), sides(hits, [1] * 60, classes=["Pushing something", "b"]), order="forward")
    page = vsn("compare", *names)
    assert max(len(line) for line in page.splitlines() if line[:1] in BOX) <= width
    assert "33.3%" in page
    assert "Pushing something" in page
    assert "vsn_resnet50-" in page  # in the heading, broken after the hyphen


def save_result(run: Path, scores: Scores, **described) -> EvalResult:
    return EvalResult.measure(scores, **({"split": "test", "protocol": "fcn"} | described)).save(run, scores)


def evaluated(run: Path, orders: dict[str, int], **options) -> list[EvalResult]:
    labels = [i % 2 for i in range(40)]
    return [
        save_result(run, sides([int(i < right) for i in range(40)], labels, **options), order=order, bad_videos=())
        for order, right in orders.items()
    ]


def test_what_eval_prints(vsn: Run, capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    run = Path("run")
    print_results(run, evaluated(run, {"forward": 36, "shuffled": 24}, classes=["pull [x]", "push"]))
    page = capsys.readouterr().out
    assert "run: 40 videos of split test, protocol fcn" in page
    assert "top-1 by order of the frames, 95% intervals" in page
    row = next(line for line in page.splitlines() if "pull [x]" in line)
    assert "90.0% (" in row
    assert "60.0% (" in row
    assert "shuffled: -30.0 points against forward (95% interval -45.4 to -18.1)" in page
    assert "75% (95% interval" in page
    assert page.splitlines()[-1].startswith("Worst class: 'pull [x]', 18 of 20 videos right; 2 taken for 'push'.")
    assert "top-1 by class" not in page
    print_results(run, evaluated(run, {"forward": 36}))
    page = capsys.readouterr().out
    assert "top-1 by class" in page
    assert "points" not in page


def test_what_eval_prints_of_several_labels_and_of_none(vsn: Run, capsys: pytest.CaptureFixture[str]):
    bad = ({"path": "x.mp4", "reason": "empty."},)
    results = [
        save_result(Path("run"), several([[1, 0], [0, 1]], [[1, 0], [0, 1]]), order=order, bad_videos=bad)
        for order in ("forward", "still")
    ]
    print_results(Path("run"), results)
    page = capsys.readouterr().out
    assert "average precision by class" in page
    assert "top-1 by order of the frames" in page
    assert "1 video could not be read, and counted as wrong; for example x.mp4: empty." in page
    unlabeled = save_result(Path("run"), scores_of([[1, 0]], [-1]), order="forward", bad_videos=bad)
    print_results(Path("run"), [unlabeled])
    assert "1 have no label" in capsys.readouterr().out
