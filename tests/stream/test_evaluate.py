"""Timelines of a split against its segments: `vsn eval --windows`."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.laid_out import lay
from vsn.cli import main
from vsn.config import ConfigError, DataConfig, WindowConfig
from vsn.data.video import write_video
from vsn.inference.predictor import Predictor
from vsn.scores.segments import LabeledVideo, Segment, score_segments
from vsn.stream.evaluate import evaluate_timelines
from vsn.stream.timeline import make_timeline

WINDOWS = WindowConfig(seconds=2.0, enter=0.0, leave=0.0)


@pytest.fixture(scope="module")
def long_data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """Three files of 8 seconds of noise."""
    root = tmp_path_factory.mktemp("long")
    for number in range(3):
        frames = np.random.default_rng(number).integers(0, 255, (80, 36, 48, 3), np.uint8)
        write_video(root / f"{number}.mp4", frames, frames_per_second=10)
    rows = (
        "0.mp4,wave,1,3,test\n0.mp4,swipe_left,4,,test\n1.mp4,wave,0,5,test\n1.mp4,wave,6,7,val\n"
        "2.mp4,wave,0,5,test\n2.mp4,swipe_right,6,7,train\n2.mp4,swipe_left,7,7.9,train\n"
    )
    lay(root, {"clips.csv": "path,label,start,end,split\n" + rows})
    return DataConfig(root=str(root), source="csv")


def test_timelines_are_compared_with_all_segments_of_their_files(finished_run: Path, long_data: DataConfig) -> None:
    predictor = Predictor.from_run(finished_run, device="cpu")
    result = evaluate_timelines(predictor, long_data, "test", windows=WINDOWS)
    assert result.truth == (
        (Segment(1.0, 3.0, "wave"), Segment(4.0, 8.0, "swipe_left")),
        (Segment(0.0, 5.0, "wave"), Segment(6.0, 7.0, "wave")),
    )
    assert result.num_skipped == 1  # the file of which segments are trained on
    timelines = [make_timeline(predictor, Path(long_data.root, f"{n}.mp4"), windows=WINDOWS) for n in range(2)]
    assert [one.segments for one in result.timelines] == [one.segments for one in timelines]
    videos = [LabeledVideo(one.segments, truth, 8.0) for one, truth in zip(timelines, result.truth, strict=True)]
    assert result.scores == score_segments(videos)


def test_splits_without_files_to_compare(finished_run: Path, long_data: DataConfig, tmp_path: Path) -> None:
    predictor = Predictor.from_run(finished_run, device="cpu")
    lay(tmp_path, {"clips.csv": "path,label,split\na.mp4,wave,test\nb.mp4,swipe_left,test\n"}, "a.mp4", "b.mp4")
    with pytest.raises(ConfigError, match=r"split 'test' has no segments \(start and end\)"):
        evaluate_timelines(predictor, DataConfig(root=str(tmp_path), source="csv"), "test", windows=WINDOWS)
    rows = "a.mp4,wave,0,1,test\na.mp4,wave,2,3,train\na.mp4,swipe_left,1,2,train\n"
    lay(tmp_path, {"clips.csv": "path,label,start,end,split\n" + rows})
    with pytest.raises(ConfigError, match="each of the 1 files of split 'test' has training segments too"):
        evaluate_timelines(predictor, DataConfig(root=str(tmp_path), source="csv"), "test", windows=WINDOWS)


def test_the_command(finished_run: Path, long_data: DataConfig, tmp_path: Path, capsys: Any) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    recipe = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(recipe.replace('source = "folder"', 'source = "csv"'))
    arguments = [
        "eval",
        str(run),
        "--windows",
        "--root",
        long_data.root,
        "--seconds",
        "2",
        "--enter",
        "0",
        "--leave",
        "0",
    ]
    main(arguments)
    text = capsys.readouterr().out
    assert "2 files, 16 seconds. Segment mAP" in text
    assert "1 files have training segments too" in text
    saved = json.loads((run / "timelines/test.json").read_text())
    main([*arguments, "--json"])
    assert json.loads(capsys.readouterr().out) == saved
    assert saved["measures"]["num_true"] == 4
    assert [len(file["truth"]) for file in saved["files"]] == [2, 2]


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--windows", "--order", "still"], "--order"), (["--seconds", "2"], "add --windows")]
)
def test_options_that_do_not_fit(finished_run: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        main(["eval", str(finished_run), *arguments])
