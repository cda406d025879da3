"""Extraction of flow: what is stored and under which name, what goes on after a stop, and what fails."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.lookalikes import make_csv, make_something_v1
from tests.helpers.motions import end_point_error, moving_video
from tests.helpers.videos import overwrite_packets, timed_video
from vsn.cli import main
from vsn.config import ConfigError, DataConfig, SampledBy
from vsn.data.flow.compute import ComputedFlowReader, flow_method, iter_fields, method_named, to_gray
from vsn.data.flow.extract import (
    ExtractSummary,
    FlowSettings,
    extract_flow,
)
from vsn.data.flow.find import with_flow
from vsn.data.flow.stored import open_flow
from vsn.data.flow.values import ZERO, FlowMetadata, bytes_to_flow
from vsn.data.per_video import NamedVideo, stored_name, videos_of_data_set, videos_of_folder
from vsn.data.readers import read_records
from vsn.data.video import FewerFramesError, VideoError, open_video, write_video

SMALL = FlowSettings(short_side=32)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a/1 .. a/3 and b/1 .. b/3: 4 to 6 frames of 48x64 pixels that move right (a) or left (b) by 2 pixels a frame."""
    root = tmp_path_factory.mktemp("moving")
    for right, name in ((2.0, "a"), (-2.0, "b")):
        for number in (1, 2, 3):
            moving_video(root / name / f"{number}.mp4", 3 + number, right=right, seed=number)
    return root


def run(videos: Path, out: Path, settings: FlowSettings = SMALL, **options) -> ExtractSummary:
    options = {"num_workers": 0, "progress": False} | options
    return extract_flow(videos_of_folder(videos), out, settings, **options)


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- what is stored --------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["file", "xy", "rg"])
def test_the_motion_is_stored_in_each_layout(videos: Path, tmp_path: Path, layout: str) -> None:
    summary = run(videos, tmp_path / "flow", FlowSettings(layout=layout, short_side=None))
    assert (summary.num_videos, summary.num_kept, summary.count, summary.failed) == (6, 0, 24, ())
    for name, right in (("a/2", 2.0), ("b/3", -2.0)):
        place = tmp_path / "flow" / (name + ".vsnflow" if layout == "file" else name)
        flow = open_flow(place)
        fields, rate = flow.all_frames(), flow.frames_per_second
        assert fields.shape == (2 + int(name[-1]), 48, 64, 2)
        assert rate == (10.0 if layout == "file" else 0.0)
        truth = np.broadcast_to([right, 0.0], fields.shape[1:])
        for field in bytes_to_flow(fields, 20.0):
            assert end_point_error(field, truth, border=10) < 0.3


def test_the_shorter_side_is_resized_first(videos: Path, tmp_path: Path) -> None:
    """At half the size, half the motion in pixels."""
    run(videos, tmp_path, FlowSettings(short_side=24))
    fields = open_flow(tmp_path / "a" / "3.vsnflow").all_frames()
    assert fields.shape == (5, 24, 32, 2)
    assert bytes_to_flow(fields, 20.0)[:, 6:-6, 6:-6, 0].mean() == pytest.approx(1.0, abs=0.1)


def test_the_folder_says_what_the_values_mean(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path)
    said = json.loads((tmp_path / "flow.json").read_text())
    assert (said["bound"], said["method"], said["zero"], said["short_side"]) == (20.0, "tv-l1", 128, 32)
    made = said["extraction"]
    assert (made["method"], made["layout"], made["quality"]) == ("tvl1", "file", 95)
    assert made["parameters"]["lambda_"] == 0.15


def test_training_finds_it(tmp_path: Path) -> None:
    """Frame folders of every split of Something-Something V1, under the names that `data.flow` looks for."""
    config = make_something_v1(tmp_path / "data")
    videos = videos_of_data_set(config, tmp_path / "flow")
    summary = extract_flow(videos, tmp_path / "flow", SMALL, num_workers=0, progress=False)
    assert summary.failed == ()
    config = replace(config, flow=str(tmp_path / "flow"))
    for split in ("train", "val", "test"):
        records = read_records(config, split)
        stored = with_flow(records, config, FlowMetadata())
        assert "tv-l1, bound 20 pixels, zero 128." in stored.summary
        assert [open_flow(r.path).num_frames for r in stored.records.records] == [
            len(list(r.path.glob("*.jpg"))) - 1 for r in records.records
        ]


def test_each_video_once_whatever_its_splits(tmp_path: Path) -> None:
    """The arrow of time lists videos twice, and a hold-out is validated and tested on."""
    config = make_csv(tmp_path)
    plain = videos_of_data_set(config, tmp_path / "flow")
    assert len({video.path for video in plain}) == len(plain) > 6
    assert videos_of_data_set(replace(config, task="arrow"), tmp_path / "flow") == plain


@pytest.mark.parametrize(
    ("video_id", "name"),
    [("a/b.mp4", "a/b"), ("/data/b.MP4", "data/b"), ("../x/../y/b.avi", "y/b"), ("./000012", "000012"), ("v.1", "v.1")],
)  # fmt: skip
def test_names(video_id: str, name: str) -> None:
    assert stored_name(video_id) == name


def test_two_videos_of_one_name_are_refused(videos: Path, tmp_path: Path) -> None:
    twin = [NamedVideo(videos / "a/1.mp4", "a/1"), NamedVideo(videos / "b/1.mp4", "a/1")]
    with pytest.raises(ConfigError, match=r"a/1\.mp4 and .*b/1\.mp4 .*'a/1'"):
        extract_flow(twin, tmp_path, SMALL)
    assert list(tmp_path.iterdir()) == []


# --- sharing the work, and going on ----------------------------------------------------------------


@pytest.mark.parametrize("layout", ["file", "xy"])
def test_shards_together_are_the_whole(videos: Path, tmp_path: Path, layout: str) -> None:
    settings = replace(SMALL, layout=layout)
    run(videos, tmp_path / "whole", settings)
    parts = [run(videos, tmp_path / "parts", settings, shard=(i, 4)) for i in range(4)]
    assert [part.num_videos for part in parts] == [2, 2, 1, 1]
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_processes_write_the_same_bytes(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path / "one")
    run(videos, tmp_path / "two", num_workers=2)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_what_is_there_is_kept(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path)
    before = files(tmp_path)
    (tmp_path / "b" / "2.vsnflow").unlink()
    stamp = (tmp_path / "a" / "1.vsnflow").stat().st_mtime_ns
    summary = run(videos, tmp_path)
    assert (summary.num_kept, summary.count) == (5, 4)
    assert files(tmp_path) == before
    assert (tmp_path / "a" / "1.vsnflow").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"short_side": 40}, r"short_side is 32 there, 40 here"),
        ({"bound": 15.0}, r"bound is 20\.0 there, 15\.0 here"),
        ({"layout": "xy"}, r"extraction\.layout is 'file' there, 'xy' here"),
        ({"method": "tvl1-opencv"}, r"extraction\.method is 'tvl1' there, 'tvl1-opencv' here"),
    ],
)
def test_flow_made_otherwise_is_not_mixed_in(videos: Path, tmp_path: Path, changed: dict, message: str) -> None:
    run(videos, tmp_path, shard=(0, 6))
    before = files(tmp_path)
    with pytest.raises(ConfigError, match=message):
        run(videos, tmp_path, replace(SMALL, **changed))
    assert files(tmp_path) == before


def test_a_folder_of_something_else_is_refused(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"no flow\.json"):
        run(videos, tmp_path)
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        run(videos, tmp_path / "notes.txt")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_stopped_at_any_moment_it_goes_on(videos: Path, tmp_path: Path, how: int) -> None:
    """No file is half-written, what was done stays, and the second call gives what one call would have."""
    many = tmp_path / "videos"
    for i in range(200):  # more than is done before the signal arrives, however busy the machine is
        for video in videos.rglob("*.mp4"):
            place = many / f"{i:03d}" / video.relative_to(videos)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.hardlink_to(video)
    options = ["--videos", str(many), "--out", str(tmp_path / "flow"), "--short-side", "24", "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vsn", "flow", "extract", *options], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "flow").rglob("[!.]*.vsnflow"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert process.returncode == (130 if how == signal.SIGINT else -how)
    assert ("vsn: stopped" in said) == (how == signal.SIGINT)
    done = list((tmp_path / "flow").rglob("[!.]*.vsnflow"))
    assert 3 <= len(done) < 1200
    assert all(open_flow(path).num_frames >= 3 for path in done)
    (tmp_path / "flow" / "000" / "a" / ".1-abcd_123.vsnflow").touch()  # what a killed writer may leave
    (tmp_path / "flow" / "000" / "a" / "1.vsnflow").unlink()
    for folder in many.iterdir():  # the rest of the work, made short
        if folder.name > "001":
            shutil.rmtree(folder)
    run(many, tmp_path / "flow", FlowSettings(short_side=24))
    assert not list((tmp_path / "flow" / "000").rglob(".*"))
    run(many, tmp_path / "whole", FlowSettings(short_side=24))
    assert files(tmp_path / "whole").items() <= files(tmp_path / "flow").items()


# --- what fails ------------------------------------------------------------------------------------


def test_videos_that_fail_are_listed_and_the_others_done(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "videos"
    shutil.copytree(videos / "a", folder / "a")
    (folder / "a" / "2.mp4").write_bytes(b"no video")
    moving_video(folder / "a" / "short.mp4", 1)
    arguments = ["flow", "extract", "--videos", str(folder), "--out", str(tmp_path / "flow"), "--workers", "0",
                 "--short-side", "32"]  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    said = capsys.readouterr()
    assert stopped.value.code == 1
    assert "flow of 2 of 4 videos (0 existed); 8 fields computed" in said.out
    assert "short.mp4: it has one frame" in said.err
    with (tmp_path / "flow" / "failed.csv").open(newline="") as file:
        rows = {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}
    assert rows.keys() == {"2.mp4", "short.mp4"}
    assert sorted(path.name for path in (tmp_path / "flow" / "a").iterdir()) == ["1.vsnflow", "3.vsnflow"]
    shutil.copy(videos / "a" / "2.mp4", folder / "a" / "2.mp4")
    (folder / "a" / "short.mp4").unlink()
    main(arguments)
    assert "flow of 3 of 3 videos (2 existed); 4 fields" in capsys.readouterr().out
    assert not (tmp_path / "flow" / "failed.csv").exists()


def test_a_shard_lists_its_own_failures(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for name in "ab":
        (tmp_path / "videos" / f"{name}.mp4").write_bytes(b"no video")
    parts = [run(tmp_path / "videos", tmp_path / "flow", shard=(i, 2)) for i in range(2)]
    assert [part.report.name for part in parts] == ["failed-0-of-2.csv", "failed-1-of-2.csv"]
    assert all(len(part.report.read_text().splitlines()) == 2 for part in parts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--videos", "."], "vsn flow extract needs --out"),
        (["--videos", "absent", "--out", "x"], "absent: no such folder of videos"),
        (["--out", "x"], "data.root is empty"),
        (["--videos", ".", "--out", "x", "--shard", "1"], "--shard is '1'"),
        (["--videos", "{videos}", "--out", "x", "--shard", "4/4"], "shard is 4/4; it must be from 0/4 to 3/4"),
        (["--videos", ".", "--out", "x", "--short-side", "4"], "short_side is 4"),
    ],
)  # fmt: skip
def test_command_lines_that_are_refused(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["flow", "extract", *(argument.format(videos=videos) for argument in arguments)])
    assert message in str(stopped.value)
    assert os.listdir(tmp_path) == []


def test_the_command_takes_a_data_set(videos: Path, tmp_path: Path, capsys) -> None:
    main(["flow", "extract", "--data.root", str(videos), "--clip.short-side", "32", "--clip.crop-size", "32",
          "--out", str(tmp_path / "flow"), "--workers", "0", "--layout", "xy"])  # fmt: skip
    said = capsys.readouterr().out
    assert "flow of 6 of 6 videos" in said
    assert f"Train on it with --model.modality flow --data.flow {tmp_path / 'flow'}\n" in said
    assert "TrajectoryNet takes --data.flow without --model.modality" in said  # its frames are RGB
    assert open_flow(tmp_path / "flow" / "a" / "1").all_frames().shape == (3, 32, 42, 2)


# --- frames to fields ------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_fields_do_not_depend_on_the_batch(videos: Path, batch: int) -> None:
    frames = open_video(videos / "a" / "3.mp4", short_side=32).all_frames()
    seen = []

    def differences(gray: np.ndarray) -> np.ndarray:
        seen.append(len(gray) - 1)
        return np.stack([gray[1:].astype(float) - gray[:-1]] * 2, 3) / 10

    pixels = batch * frames[0][..., 0].size + 5
    fields = list(iter_fields("v", iter(frames), differences, bound=20, pixels_at_once=pixels))
    assert sum(seen) == len(fields) == 5
    assert max(seen) == min(batch, 5)
    for former, latter, field in zip(frames[:-1], frames[1:], fields, strict=True):
        motion = (to_gray(latter).astype(float) - to_gray(former)) / 10
        assert np.abs(bytes_to_flow(field, 20.0)[..., 0] - np.clip(motion, -20, 20)).max() <= 20 / 255 + 1e-5


def test_a_pair_larger_than_what_is_computed_at_once(videos: Path) -> None:
    frames = open_video(videos / "a" / "3.mp4", short_side=32).all_frames()
    still = lambda gray: np.zeros((len(gray) - 1, 32, 42, 2))  # noqa: E731
    assert len(list(iter_fields("v", iter(frames), still, bound=20, pixels_at_once=10))) == 5


def test_computed_fields_are_those_stored(videos: Path, tmp_path: Path) -> None:
    run(videos, tmp_path)
    stored = open_flow(tmp_path / "a" / "3.vsnflow")
    video = videos / "a" / "3.mp4"
    computed = ComputedFlowReader(video, flow_method("tvl1"), bound=20, computed_short_side=32)
    assert (computed.num_frames, computed.frames_per_second) == (5, 10.0)
    assert np.array_equal(computed.frames_at([3, 0, 0, 1]), stored.frames_at([3, 0, 0, 1]))
    resized = ComputedFlowReader(video, flow_method("tvl1"), bound=20, computed_short_side=32, short_side=16)
    smaller = open_flow(tmp_path / "a" / "3.vsnflow", short_side=16)
    assert np.array_equal(resized.frames_at([4]), smaller.frames_at([4]))


@pytest.mark.parametrize("by", ["time", "index"])
def test_flow_of_unevenly_spaced_frames(tmp_path: Path, by: SampledBy) -> None:
    """By time there is a field for each step of the constant rate: no motion while a frame lasts."""
    times = [0, 0.4, 0.5, 0.6, 1.0]
    path = timed_video(tmp_path / "videos" / "v.mp4", times, values=[20, 60, 120, 60, 20])
    run(tmp_path / "videos", tmp_path / "flow", replace(SMALL, method="farneback", by=by))
    stored = open_flow(tmp_path / "flow" / "v.vsnflow")
    computed = ComputedFlowReader(
        path, flow_method("farneback"), bound=20, computed_short_side=32, short_side=32, by=by
    )
    assert stored.num_frames == computed.num_frames == (10 if by == "time" else 4)
    every = range(stored.num_frames)
    assert np.array_equal(stored.frames_at(every), computed.frames_at(every))
    if by == "time":
        assert (stored.frames_at([0, 1, 2, 6, 7, 8]) == ZERO).all()


def test_flow_of_a_damaged_video_counts_the_frames_that_decode(tmp_path: Path) -> None:
    source = tmp_path / "whole.mp4"
    write_video(
        source, [np.full((32, 48, 3), 8 * i, np.uint8) for i in range(6)], frames_per_second=10, keyframe_every=1
    )
    flow = ComputedFlowReader(
        overwrite_packets(source, tmp_path / "damaged.mp4", start=4),
        lambda gray: np.zeros((len(gray) - 1, *gray.shape[1:], 2)),
        bound=20,
        computed_short_side=None,
    )
    assert flow.num_frames == 5
    with pytest.raises(FewerFramesError, match=r"6 frames.* 4 "):
        flow.frames_at([0, 4])
    assert flow.num_frames == 3
    assert flow.frames_at([2, 0]).shape == (2, 32, 48, 2)


def test_one_frame_has_no_motion(tmp_path: Path) -> None:
    video = moving_video(tmp_path / "v.mp4", 1)
    with pytest.raises(VideoError, match=r"v\.mp4: it has one frame"):
        ComputedFlowReader(video, flow_method("tvl1"), bound=20, computed_short_side=32)


def test_stated_methods() -> None:
    assert (method_named("tv-l1"), method_named("dis")) == ("tvl1", "dis")
    with pytest.raises(ConfigError, match=r"raft.*tv-l1, dis, farneback"):
        method_named("raft")


def test_data_set_without_videos_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no videos were found"):
        videos_of_folder(tmp_path)
    with pytest.raises(ConfigError, match="no videos were found"):
        videos_of_data_set(DataConfig(root=str(tmp_path)), tmp_path / "flow")
