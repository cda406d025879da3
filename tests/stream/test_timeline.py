"""Timelines: the answers of a stream, merged, compared with what is true, drawn."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from vsn.cli import main
from vsn.config import ConfigError
from vsn.data.video import write_video
from vsn.scores.segments import Segment
from vsn.stream.labels import WindowPrediction
from vsn.stream.timeline import Timeline, check_plot, merge, read_truth, write_plot

CLASSES = ("swipe_left", "swipe_right", "wave")


def answer(start: float, label: str, probability: float = 0.5) -> WindowPrediction:
    return WindowPrediction(start, start + 4.0, label, probability, np.array([probability, 1 - probability, 0.0]), 1.0)


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 seconds of noise that gets brighter, 10 frames a second."""
    generator = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    frames = [
        np.full((36, 48, 3), 2 * i, np.uint8) + generator.integers(0, 40, (36, 48, 1), np.uint8) for i in range(100)
    ]
    write_video(path, frames, frames_per_second=10)
    return path


def test_consecutive_predictions_merge_into_a_segment():
    answers = [
        answer(0.0, "a", 0.6), answer(1.0, "a", 0.8), answer(2.0, "unknown", 0.2),
        answer(3.0, "b", 0.9), answer(4.0, "a", 0.5),
    ]  # fmt: skip
    assert merge(answers, [(0.0, 8.5)]) == (
        Segment(0.0, 3.5, "a", pytest.approx(0.7)),
        Segment(4.5, 5.5, "b", 0.9),
        Segment(5.5, 8.5, "a", 0.5),
    )
    assert merge(answers[:1], [(0.0, 4.2)]) == (Segment(0.0, 4.2, "a", 0.6),)
    assert merge(answers[2:3], [(0.0, 6.0)]) == ()


def test_no_segment_spans_a_break():
    answers = [answer(0.0, "a"), answer(1.0, "a"), answer(20.0, "a"), answer(30.0, "b")]
    assert merge(answers, [(0.0, 5.5), (20.0, 24.5), (29.5, 40.0)]) == (
        Segment(0.0, 5.5, "a", 0.5),
        Segment(20.0, 24.5, "a", 0.5),
        Segment(29.5, 40.0, "b", 0.5),
    )


def test_windows_of_the_background_are_no_segment():
    answers = [answer(0.0, "a"), answer(1.0, "background"), answer(2.0, "background"), answer(3.0, "a")]
    assert merge(answers, [(0.0, 7.0)]) == (Segment(0.0, 2.5, "a", 0.5), Segment(4.5, 7.0, "a", 0.5))


def test_the_truth_is_read(tmp_path: Path):
    path = tmp_path / "truth.csv"
    text = "\ufeffstart,end,label\n0,1.5,wave\n0:01.5,3, something else\n3,4,background\n"
    path.write_text(text, encoding="utf-8")
    assert read_truth(path, CLASSES) == (Segment(0.0, 1.5, "wave"), Segment(1.5, 3.0, "something else"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("a,b\n", r"\['end', 'label', 'start'\]"),
        ("start,end,label\n0,x,wave\n", r"line 2: the time is 'x'"),
        ("start,end,label\n0\n", "line 2"),
        ("start,end,label\n3,2,wave\n", "start 3.0 and end 2.0"),
        ("start,end,label\n0,1,jump\n", "swipe_left"),
    ],
)
def test_invalid_truth_is_refused(tmp_path: Path, text: str | None, message: str):
    path = tmp_path / "truth.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_truth(path, CLASSES)


def windows_of(path: Path) -> list[dict[str, Any]]:
    keys = ("start", "end", "label", "probability", "top")
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        lines = json.loads(path.read_text())["predictions"]
    return [{key: line[key] for key in keys} for line in lines]


def test_the_timeline_has_the_predictions_of_the_stream(
    finished_run: Path, long_video: Path, tmp_path: Path, capsys: Any
):
    settings = ["--seconds", "2", "--every", "0.7", "--enter", "0.34", "--leave", "0.3", "--top-k", "3"]
    main(["stream", str(finished_run), str(long_video), "--fast", "--out", str(tmp_path / "a.jsonl"), *settings])
    main(["predict", str(finished_run), str(long_video), "--windows", "--out", str(tmp_path / "b.json"), *settings])
    streamed = windows_of(tmp_path / "a.jsonl")
    assert len(streamed) == 17
    assert streamed == windows_of(tmp_path / "b.json")
    facts = json.loads((tmp_path / "b.json").read_text())
    assert (facts["seconds"], facts["window_seconds"], facts["every"], facts["num_predictions"]) == (10.0, 2.0, 0.5, 17)
    output = capsys.readouterr()
    assert f"{long_video}: 10.0 seconds, " in output.out
    assert facts["segments"]
    assert all(one["label"] in output.out for one in facts["segments"])


def test_truth_json_and_plot(finished_run: Path, long_video: Path, tmp_path: Path, capsys: Any):
    (tmp_path / "truth.csv").write_text("start,end,label\n0,10,wave\n")
    main([
        "predict", str(finished_run), str(long_video), "--windows", "--seconds", "2", "--enter", "0", "--leave", "0",
        "--truth", str(tmp_path / "truth.csv"), "--plot", str(tmp_path / "a.png"), "--json",
    ])  # fmt: skip
    facts = json.loads(capsys.readouterr().out)
    waving = sum(one["end"] - one["start"] for one in facts["segments"] if one["label"] == "wave")
    assert facts["measures"]["share_right"] == pytest.approx(waving / 10)
    assert facts["measures"]["mean_average_precision"].keys() == {"0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7"}
    assert sum(one["end"] - one["start"] for one in facts["segments"]) == pytest.approx(10)  # nothing is unknown
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_the_plot_shows_predictions_and_truth(tmp_path: Path):
    answers = tuple(answer(float(i), "swipe_left", 0.9) for i in range(6))
    parts = ((0.0, 10.0),)
    timeline = Timeline("a/long.mp4", 10.0, parts, 4.0, 1.0, answers, merge(answers, parts))
    truth = [Segment(0.0, 5.0, "swipe_right"), Segment(5.0, 9.0, "cost $1, _x")]
    for name in ("a.svg", "b.svg"):
        write_plot(timeline, CLASSES, tmp_path / name, truth=truth)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    page = ElementTree.fromstring(text)
    texts = ["".join(one.itertext()).strip() for one in page.iter("{http://www.w3.org/2000/svg}text")]
    # One lane a label, named beside it; text is text.
    for label in ("long.mp4: windows of 4.0 s", "predicted", "truth", "time in seconds", "swipe_left", "cost $1, _x"):
        assert texts.count(label) == 1, texts
    assert "Lanes: swipe_left, swipe_right, cost $1, _x." in page[0].text
    assert "prefers-color-scheme: dark" in text
    with pytest.raises(ConfigError, match=r"--plot.*a\.pdf"):
        check_plot(Path("a.pdf"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "a.svg"], "add --windows"),
        (["--every-frames", "3"], "--every-frames"),
        (["--windows", "--plot", "a.pdf"], "a.pdf"),
        (["--windows", "--flow-run", "run"], "--flow-run"),
        (["--windows", "--seconds", "60"], "60.00 seconds"),
    ],
)
def test_errors_of_the_command(finished_run: Path, long_video: Path, arguments: list[str], message: str, capsys: Any):
    with pytest.raises(SystemExit) as stopped:
        main(["predict", str(finished_run), str(long_video), *arguments])
    assert message in str(stopped.value) + capsys.readouterr().err


def test_what_a_plot_needs_is_checked_before_the_run_is_opened(tmp_path: Path, long_video: Path):
    with pytest.raises(SystemExit, match=r"a\.pdf"):
        main(["predict", str(tmp_path / "none"), str(long_video), "--windows", "--plot", "a.pdf"])


def test_json_of_an_unreadable_file_goes_to_stdout_also_in_a_terminal(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    (tmp_path / "text.mp4").write_text("no video")
    monkeypatch.setenv("FORCE_COLOR", "1")  # for rich a terminal, in which it draws progress bars
    with pytest.raises(SystemExit):
        main(["predict", str(finished_run), str(tmp_path / "text.mp4"), "--windows", "--json"])
    assert json.loads(capsys.readouterr().out)["path"] == str(tmp_path / "text.mp4")


def test_a_plot_of_two_videos_is_refused(finished_run: Path, long_video: Path):
    with pytest.raises(SystemExit, match=r"--plot.*2"):
        main(["predict", str(finished_run), str(long_video), str(long_video), "--windows", "--plot", "a.svg"])


def test_pre_labels_are_written_and_read(finished_run: Path, long_video: Path, tmp_path: Path, capsys: Any):
    settings = ["--seconds", "2", "--every", "0.7", "--enter", "0", "--leave", "0", "--json"]
    out = tmp_path / "segments.json"
    files = ["--pre-labels", str(out), "--pre-label-format", "json"]
    main(["predict", str(finished_run), str(long_video), "--windows", *files, *settings])
    facts = json.loads(capsys.readouterr().out)
    (written,) = json.loads(out.read_text())
    assert written["path"] == str(long_video)
    assert [one["label"] for one in written["segments"]] == [one["label"] for one in facts["segments"]]
    assert [(one["start"], one["end"]) for one in written["segments"]] == [
        (round(one["start"], 3), round(one["end"], 3)) for one in facts["segments"]
    ]
    with pytest.raises(SystemExit, match="cvat is for one video, got 2"):
        main(["predict", str(finished_run), *[str(long_video)] * 2, "--windows", *files[:3], "cvat"])


def test_a_plot_of_many_labels_and_minutes(tmp_path: Path):
    """The lanes of the labels that last longest; the axis counts minutes."""
    classes = tuple(f"label {i}" for i in range(25))
    answers = tuple(WindowPrediction(20.0 * i, 20.0 * i + 10, classes[i], 0.9, np.eye(25)[i], 1.0) for i in range(25))
    parts = ((0.0, 250.0), (250.0, 500.0))
    timeline = Timeline("long.mp4", 500.0, parts, 10.0, 20.0, answers, merge(answers, parts))
    text = write_plot(timeline, classes, tmp_path / "a.svg").read_text()
    assert "windows of 10.0 s, and 5 labels more" in text
    for shown in ("time in minutes and seconds", "1:40", ">label 7<"):
        assert shown in text
    assert text.count(">label ") == 20
