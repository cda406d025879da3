"""benchmarks/joined.py and timelines.py: one long file of a data set's clips, and how much of it a run says right."""

import csv
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.fake_runs import write_eval
from tests.helpers.tiny_runs import tiny_recipe
from tests.test_benchmarks import script
from vsn.data.video import open_video, write_video
from vsn.models import build_model
from vsn.runs.checkpoint import save_weights
from vsn.runs.metadata import write_run
from vsn.runs.run import new_run


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two seconds of dark `a` at 10 frames a second and one of bright `b` at 20, of another size."""
    root = tmp_path / "clips"
    root.mkdir()
    for name, value, count, rate, size in (("a", 60, 20, 10, (36, 48)), ("b", 200, 20, 20, (48, 36))):
        write_video(root / f"{name}.mp4", [np.full((*size, 3), value, np.uint8)] * count, frames_per_second=rate)
    (root / "clips.csv").write_text("path,label,split\na.mp4,a,test\nb.mp4,b,test\na.mp4,a,train\nb.mp4,b,train\n")
    return root


@pytest.mark.parametrize("modality", ["rgb", "rgbdiff"])
def test_a_file_of_joined_clips_and_what_is_right_of_its_timeline(
    clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    modality: str,
):
    joined, timelines = script(monkeypatch, "joined"), script(monkeypatch, "timelines")
    video, truth = tmp_path / "joined.mp4", tmp_path / "joined.csv"
    monkeypatch.setattr(sys, "argv", ["", str(clips), str(video), str(truth), "--source", "csv"])
    joined.main()
    rows = list(csv.DictReader(truth.read_text().splitlines()))
    lasts = {row["label"]: float(row["end"]) - float(row["start"]) for row in rows}
    assert lasts == {"a": pytest.approx(2.0), "b": pytest.approx(1.0)}
    reader = open_video(video)
    assert (reader.num_frames, reader.frames_per_second) == (60, 20)
    images = reader.all_frames()
    for row in rows:
        shown = images[round(float(row["start"]) * 20) : round(float(row["end"]) * 20)]
        assert np.abs(shown.mean(axis=(1, 2, 3)) - {"a": 60, "b": 200}[row["label"]]).max() < 6

    recipe = tiny_recipe(clips)
    recipe = replace(
        recipe,
        data=replace(recipe.data, source="csv"),
        model=replace(recipe.model, modality=modality, flow_length=2, num_classes=2),
    )
    run = new_run(tmp_path / "run", recipe, ("a", "b"))
    write_run(run)
    model = build_model(run.recipe.model)
    torch.nn.init.zeros_(model.head.weight)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([1.0, 0.8]))  # 55% of a, always
    save_weights(run, model)
    write_eval(run.path, "forward", np.eye(2), np.arange(2), ("a", "b"))
    out = tmp_path / "timelines.json"
    arguments = [
        "",
        str(run.path),
        str(out),
        "--video",
        str(video),
        str(truth),
        "--seconds",
        "1",
        "--smooth",
        "0",
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    timelines.main()
    facts = json.loads(out.read_text())
    assert facts["command"].endswith("RUN timelines.json --video joined.mp4 joined.csv --seconds 1 --smooth 0")
    assert facts["modality"] == modality
    assert [(row["protocol"], row["top1"]) for row in facts["clips"]] == [("fcn", 1.0)]
    assert [(row["window"], row["thresholds"]) for row in facts["rows"]] == [
        ("as in training", "default"), ("as in training", "none"), ("stated", "default"), ("stated", "none"),
    ]  # fmt: skip
    for row in facts["rows"]:
        assert (row["right"], row["unknown"]) == (pytest.approx(2 / 3), pytest.approx(0.0))
        assert row["most_frequent_class"] == pytest.approx(2 / 3)
    monkeypatch.setitem(timelines.THRESHOLDS, "default", (0.6, 0.6))
    timelines.main()
    found = {row["thresholds"]: row["right"] for row in json.loads(out.read_text())["rows"]}
    assert found == {"default": 0.0, "none": pytest.approx(2 / 3)}
    rows = json.loads(out.read_text())["rows"]
    lines = script(monkeypatch, "tables").timelines_table(rows).splitlines()
    assert len(lines) == 4
    assert lines[2].endswith("| 0 | 0.0% | 100.0% | 66.7% |")


def test_long_files_with_pauses(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long_files = script(monkeypatch, "long_files")
    out = tmp_path / "long"
    monkeypatch.setattr(sys, "argv", ["", str(clips), str(out), "--group-pattern", "^(.)", "--pauses", "0.5", "1"])
    long_files.main()
    rows = list(csv.DictReader((out / "clips.csv").read_text().splitlines()))
    assert [(row["path"], row["label"], row["split"]) for row in rows] == [
        ("a.mp4", "a", "train"), ("a.mp4", "a", "test"), ("b.mp4", "b", "train"), ("b.mp4", "b", "test")
    ]  # fmt: skip
    for name, rate, seconds in (("a", 10, 2.0), ("b", 20, 1.0)):
        video = open_video(out / f"{name}.mp4")
        assert video.frames_per_second == rate
        ends = [0.0, *(float(row[key]) for row in rows if row["path"] == f"{name}.mp4" for key in ("start", "end"))]
        assert [b - a for a, b in itertools.pairwise(ends)][1::2] == pytest.approx([seconds] * 2)
        pauses = [b - a for a, b in itertools.pairwise([*ends, video.seconds])][::2]
        assert all(0.2 <= pause <= 1.1 for pause in pauses)


def test_results_of_timelines_are_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long_files = script(monkeypatch, "long_files")
    recipe = tiny_recipe(tmp_path)
    run = new_run(tmp_path / "run", recipe, ("a", "b"))
    write_run(run)
    (run.path / "timelines").mkdir()
    saved = {
        "split": "test", "measures": {"edit": 0.5}, "windows": {"seconds": None}, "weights": "last",
        "files": [{"seconds": 9.0, "window_seconds": 2.0, "segments": []}],
    }  # fmt: skip
    (run.path / "timelines/test.json").write_text(json.dumps(saved))
    out = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["", "--collect", str(out), f"plain={run.path}"])
    long_files.main()
    facts = json.loads(out.read_text())
    assert str(tmp_path) not in out.read_text()
    assert facts["rows"][0]["measures"] == {"edit": 0.5}
    assert facts["rows"][0]["files"] == [{"seconds": 9.0, "window_seconds": 2.0}]
