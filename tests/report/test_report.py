"""The report page, over three made-up runs on twenty classes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.fake_runs import CLASSES, MODELS, write_eval, write_run, write_runs, write_strips
from tests.helpers.html_pages import Page
from vsn.report import read_runs, write_report
from vsn.report.charts import nice_ticks
from vsn.report.confusion import confused_pairs
from vsn.report.differences import compare_with_best, named_scores
from vsn.report.render import points
from vsn.report.results import summary_sentence
from vsn.scores.metrics import softmax
from vsn.system.numbers import percent, percent_range

HOSTILE = ('<b>bold</b> & "quoted"', "it's <script>alert(1)</script>", "a' onload='x")


@pytest.fixture(scope="module")
def run_dirs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs, for tests that only read them."""
    return write_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def source(run_dirs: list[Path]) -> str:
    """The page over the three runs, with strips."""
    folder = run_dirs[0].parent
    strips = write_strips(folder / "strips.npz", CLASSES, [0, 6, 11])
    output = folder / "pages" / "report.html"
    assert write_report(run_dirs, output, title="Three runs", strips=strips) == output
    assert os.listdir(output.parent) == ["report.html"]  # no temporary file is left
    return output.read_text(encoding="utf-8")


def test_page_is_whole_and_self_contained(source: str) -> None:
    page = Page(source)
    assert [text for tag, text in page.headings if tag == "h1"] == ["Three runs"]
    assert [text for tag, text in page.headings if tag == "h2"] == [
        "Results",
        "Differences",
        "Labels to look at",
        "Learning curves",
        "Temporal reliance",
        "Accuracy by class",
        "Confusion",
        "Calibration",
        "Best and worst videos",
        "Videos",
        "Versions",
        "Commands",
    ]
    assert page.links
    assert [link for link in page.links if not link.startswith(("#", "data:"))] == []
    assert not re.search(r"https?:|@import|url\(", source)
    assert page.tags.count("img") == 3 * 8
    assert page.unnamed_images == 0
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_every_class_and_run_is_shown(source: str) -> None:
    words = Page(source).words
    for name in CLASSES:
        # one row of bars, and one row in the matrix of each of three runs, at least
        assert words.count(name) >= 4, name
    for name in MODELS:
        assert words.count(name) >= 4, name


def test_numbers_are_those_of_the_files(source: str, run_dirs: list[Path]) -> None:
    words = Page(source).words
    for run_dir in run_dirs:
        for order in ("forward", "reversed", "shuffled", "still"):
            values = json.loads((run_dir / "eval" / f"test-fcn-{order}.json").read_text())
            assert percent(values["top1"]) in words
            if order == "forward":
                low, high = values["top1_interval"]
                assert percent_range((low, high), dash="\N{EN DASH}") in words
                assert percent(values["mean_class"]) in words
                assert percent(values["top5"]) in words
        with np.load(run_dir / "eval" / "test-fcn-forward.npz") as arrays:
            scores, labels = arrays["scores"], arrays["labels"]
        predicted = scores.argmax(axis=1)
        count = int(((labels == 0) & (predicted == 1)).sum())
        tip = f"moving something up → moving something down: {count} of 20 ({percent(count / 20)})"
        assert (tip in words) == (count > 0)
        right = int((labels == predicted).sum())
        assert f"{right} of 400 videos on the diagonal" in source
        # the first strip is the first video
        assert percent(softmax(scores[0]).max()) in words


def test_summary_names_best_run_interval_and_doubt(tmp_path: Path) -> None:
    classes = ("a", "b")
    labels = np.repeat([0, 1], 50)
    for name, wrong in (("poor", 40), ("good", 10), ("near", 12)):
        run_dir = write_run(tmp_path / name, "tsn_resnet18", 0.5, classes=classes, per_class=50)
        predicted = labels.copy()
        predicted[:wrong] ^= 1
        write_eval(run_dir, "forward", np.eye(2, dtype=np.float32)[predicted], labels, classes)
    dirs = [tmp_path / name for name in ("poor", "good", "near")]
    runs = read_runs(dirs, "test")
    pairs = compare_with_best(named_scores(runs))
    low, high = (points(end).removesuffix(" points") for end in pairs[0].comparison.top1.interval)
    assert low.startswith("\N{MINUS SIGN}")
    text = summary_sentence(runs, pairs)
    assert "good is best by top-1 on 100 videos of split test: 90.0% (95% interval 82.9\N{EN DASH}94.8%)" in text
    # Two videos of a hundred are no proof, thirty are.
    assert f"2.0 points above near ({low} to {high}, may be chance) and 30.0 points above poor (" in text
    assert text.count("may be chance") == 1
    assert summary_sentence(read_runs(dirs[:1], "test"), []) == (
        "poor has a top-1 accuracy of 60.0% (95% interval 50.2\N{EN DASH}69.3%) on 100 videos of split test."
    )


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    dirs = write_runs(tmp_path, HOSTILE)
    (dirs[0] / "versions.json").write_text('{"torch": "<i>2</i>"}')
    strips = write_strips(tmp_path / "strips.npz", HOSTILE, [0, 1, 2])
    output = write_report(dirs, tmp_path / "out.html", title="<h1> & co", strips=strips)
    source = output.read_text(encoding="utf-8")
    page = Page(source)  # also: no attribute that starts with "on", no tag left open
    assert page.tags.count("script") == 2  # the videos of the cells, and what shows them
    assert "<b>bold" not in source
    assert "<i>2" not in source
    for name in HOSTILE:
        assert page.words.count(name) >= 4, name
    assert ("h1", "<h1> & co") in page.headings


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    """A run that numbers its classes otherwise gives the same matrix."""
    first = write_run(tmp_path / "first", "tsm_resnet18", 0.6)
    other = write_run(tmp_path / "other", "tsm_resnet18", 0.6)
    order = np.random.default_rng(0).permutation(len(CLASSES))
    path = other / "eval" / "test-fcn-forward.npz"
    with np.load(path) as arrays:
        kept = dict(arrays)
    kept["classes"] = kept["classes"][order]
    kept["scores"] = kept["scores"][:, order]
    kept["labels"] = np.argsort(order)[kept["labels"]]
    np.savez(path, **kept)
    (other / "classes.json").write_text(json.dumps([CLASSES[i] for i in order]))
    one, two = read_runs([first, other], "test")
    assert two.classes == CLASSES
    np.testing.assert_array_equal(one.confusion, two.confusion)
    np.testing.assert_array_equal(one.scores.logits, two.scores.logits)
    np.testing.assert_array_equal(one.scores.labels, two.scores.labels)


def test_given_table_is_shown(tmp_path: Path, run_dirs: list[Path]) -> None:
    table = tmp_path / "bench.json"
    rows = [
        {
            "model": "TSN <8>",
            "params": 23_862_000,
            "multiply_adds": 33.1e9,
            "top1": 0.31,
            "top1_interval": [0.27, 0.352],
            "top1_shuffled": 0.304,
            "latency_ratio": 1.0,
        },
        {
            "model": "VSN", "params": 512, "multiply_adds": None, "top1": 0.784, "top1_interval": 0.02,
            "latency_ratio": 1.047, "gain_interval": [0.1, 0.204],
        },
    ]  # fmt: skip
    columns = [*rows[0], "gain_interval"]
    table.write_text(json.dumps({"columns": columns, "rows": rows}))
    words = Page(write_report(run_dirs, tmp_path / "x.html", title="t", table=table).read_text("utf-8")).words
    for shown in (
        "TSN <8>",
        "23.9M",
        "33.1G",
        "31.0%",
        "27.0\N{EN DASH}35.2%",
        "10.0\N{EN DASH}20.4%",
        "30.4%",
        "78.4%",
        "512",
        "1.05\N{MULTIPLICATION SIGN}",
        "Top-1, shuffled",
        "Multiply-adds",
    ):
        assert shown in words, shown


def test_unvalidated_epochs_and_missing_orders(tmp_path: Path) -> None:
    run_dir = write_run(tmp_path / "run", "tsn_resnet18", 0.4, epochs=1)
    for order in ("reversed", "shuffled", "still"):
        (run_dir / "eval" / f"test-fcn-{order}.json").unlink()
    (run_dir / "metrics.jsonl").write_text('{"epoch": 1, "train_loss": NaN, "train_top1": 0.1}\n')
    page = Page(write_report([run_dir], tmp_path / "x.html", title="t").read_text("utf-8"))
    assert "No values recorded." in page.words  # the loss was not a number
    assert "reversed" not in page.words


def test_scores_of_a_split_without_labels_are_passed_over(tmp_path: Path) -> None:
    """`vsn submit` wants them; there is nothing to report of them."""
    run_dir = write_run(tmp_path / "run", "tsn_resnet18", 0.4, epochs=1)

    def page(name: str) -> str:
        source = write_report([run_dir], tmp_path / name, title="t").read_text("utf-8")
        return re.sub(r"<time.*</time>", "", source)  # another minute may have begun

    before = page("a.html")
    facts = {"split": "hidden", "order": "forward", "protocol": "fcn", "num_videos": 12, "num_unlabeled": 12}
    (run_dir / "eval" / "hidden-fcn-forward.json").write_text(json.dumps(facts))
    assert page("b.html") == before


def test_protocol_is_the_one_that_most_runs_have(tmp_path: Path) -> None:
    dirs = write_runs(tmp_path)
    labels = np.repeat(np.arange(20), 20)
    for run_dir in dirs:
        scores = np.eye(20, dtype=np.float32)[labels]
        write_eval(run_dir, "forward", scores, labels, CLASSES, protocol="center")
    assert read_runs(dirs, "test")[0].top1 < 1  # both are there: the recipes' own, fcn
    (dirs[1] / "eval" / "test-fcn-forward.json").unlink()
    assert read_runs(dirs, "test")[0].top1 == 1
    (dirs[0] / "eval" / "test-center-forward.json").unlink()
    # Two runs have each: again the recipes' own, and TSM counts as not tested.
    runs = read_runs(dirs, "test")
    assert [run.protocol for run in runs] == ["fcn"] * 3
    assert [bool(run.results) for run in runs] == [True, False, True]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def relabel(run_dir: Path, **changes: object) -> None:
    path = run_dir / "eval" / "test-fcn-forward.npz"
    with np.load(path) as arrays:
        np.savez(path, **(dict(arrays) | changes))


BROKEN = {
    "no folder": (lambda d: d.rename(d.with_name("gone")), r"VSN .*vsn train"),
    "no recipe": (lambda d: (d / "recipe.toml").unlink(), r"VSN .*recipe.toml"),
    "no classes": (lambda d: (d / "classes.json").unlink(), r"VSN .*classes.json"),
    "bad metrics": (lambda d: truncate(d / "metrics.jsonl"), r"metrics.jsonl, line 1, is .*expected a JSON object"),
    "no epoch": (lambda d: (d / "metrics.jsonl").write_text('{"step": 1}'), r"metrics.jsonl, line 1, .*step"),
    "no scores": (lambda d: (d / "eval/test-fcn-forward.npz").unlink(), r"forward.npz"),
    "half scores": (
        lambda d: truncate(d / "eval/test-fcn-forward.npz"),
        r"forward.npz is damaged.*`vsn eval`",
    ),
    "half json": (lambda d: truncate(d / "eval/test-fcn-still.json"), r"still.json cannot be read"),
    "lacking json": (
        lambda d: (d / "eval/test-fcn-still.json").write_text('{"top1": 1}'),
        r"still.json .*split",
    ),
    "lacking measures": (
        lambda d: (d / "eval/test-fcn-still.json").write_text(
            '{"split": "test", "protocol": "fcn", "order": "still", "top1": 1}'
        ),
        r"still.json lacks num_videos, top1_interval, top5, per_class, mean_class\.",
    ),
    "list, not names": (lambda d: (d / "classes.json").write_text("{}"), r"VSN .*classes.json holds {}"),
    "twice a class": (
        lambda d: (d / "classes.json").write_text('["a", "a"]'),
        r"VSN .*classes.json holds \['a', 'a'\]",
    ),
    "other classes": (
        lambda d: (d / "classes.json").write_text(json.dumps([*CLASSES[:-1], "juggling"])),
        r"VSN/classes.json has 20 classes.* differ in \['juggling', 'showing something'\]",
    ),
    "stale": (
        lambda d: relabel(d, scores=np.eye(20)[np.repeat(np.arange(20), 20)]),
        r"gives top-1 1.0000",
    ),
    "label out of range": (
        lambda d: relabel(d, labels=np.full(400, 20)),
        r"0 to 19.* 20 to 20",
    ),
    "other shape": (lambda d: relabel(d, labels=np.zeros(3)), r"400 videos .*int64 \(3,\)"),
    "other videos": (
        lambda d: relabel(d, video_ids=[f"v{i}" for i in range(400)]),
        r"lacks 400 videos",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_runs_are_named(tmp_path: Path, case: str) -> None:
    dirs = [write_run(tmp_path / n, *MODELS[n], epochs=2) for n in ("TSN", "VSN")]
    spoil, match = BROKEN[case]
    spoil(dirs[1])
    output = tmp_path / "pages" / "report.html"
    with pytest.raises(ValueError, match=match):
        write_report(dirs, output, title="t")
    assert not output.parent.exists()


def test_refused_arguments(tmp_path: Path, run_dirs: list[Path]) -> None:
    output = tmp_path / "x.html"
    with pytest.raises(ValueError, match="run folder"):
        write_report([], output, title="t")
    with pytest.raises(ValueError, match="given twice"):
        write_report([run_dirs[0], run_dirs[0]], output, title="t")
    table = tmp_path / "table.json"
    with pytest.raises(ValueError, match=r"table.json cannot be read"):
        write_report(run_dirs, output, title="t", table=table)
    table.write_text('{"rows": [1]}')
    with pytest.raises(ValueError, match=r'must be \{"columns".*it has \[\'rows\'\]'):
        write_report(run_dirs, output, title="t", table=table)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"frames": np.zeros((1, 8, 4, 4, 3))}, r"frames are float64 \(1, 8, 4, 4, 3\)"),
        ({"frames": np.zeros((2, 8, 4, 4, 3), np.uint8)}, "for 1 videos"),
        ({"video_ids": ["nobody.mp4"]}, "TSN has no scores for 'nobody.mp4'"),
        ({"labels": [3]}, r"label 3 of .* is not the 0 \('moving something up'\) of TSN"),
        ({"labels": [99], "classes": list(CLASSES)}, "labels run to 99; allowed: 0 to 19"),
        ({"classes": ["a"]}, "has 1 classes, the first run 20"),
    ],
)
def test_refused_strips(tmp_path: Path, run_dirs: list[Path], changes: dict[str, object], match: str) -> None:
    path = write_strips(tmp_path / "strips.npz", CLASSES, [0])
    with np.load(path) as arrays:
        np.savez(path, **(dict(arrays) | changes))
    with pytest.raises(ValueError, match=match):
        write_report(run_dirs, tmp_path / "x.html", title="t", strips=path)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (0, 3, [0, 1, 2, 3]), (0, 0.37, [0, 0.1, 0.2, 0.3, 0.4]), (2, 2, None)],
)
def test_ticks_are_round_and_cover(low: float, high: float, ticks: list[float] | None) -> None:
    found = nice_ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert len(found) >= 2
    assert ticks is None or found == ticks


def test_confused_pairs_by_count_then_share() -> None:
    matrix = np.array([[5, 2, 0], [2, 2, 0], [0, 3, 9]])
    assert confused_pairs(matrix) == [(2, 1), (1, 0), (0, 1)]
    assert confused_pairs(np.eye(3, dtype=int)) == []


def test_softmax_of_large_logits() -> None:
    np.testing.assert_allclose(softmax(np.array([1000.0, 1000.0, -1000.0])), [0.5, 0.5, 0.0])


def test_a_report_needs_no_torch() -> None:
    code = "import sys, vsn.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unreadable_videos_are_not_in_the_confusion_matrix(tmp_path: Path) -> None:
    (run,) = read_runs(write_runs(tmp_path)[:1], "test")
    logits = run.scores.logits.copy()
    logits[run.scores.labels == 0] = np.nan
    confusion = replace(run, scores=replace(run.scores, logits=logits)).confusion
    assert confusion[0].sum() == 0
    np.testing.assert_array_equal(confusion[1:], run.confusion[1:])
