"""Files whose picture begins after their sound, as what is cut out of a recording without coding it again.

Players and FFmpeg's tools count from the sound: times that people write down, and times that we give them, do too.
"""

import io
import itertools
import json
import subprocess
import threading
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
from rich.console import Console

from tests.helpers.external import program
from tests.helpers.laid_out import lay
from tests.helpers.packs import packed_config
from tests.helpers.videos import timed_video
from tests.stream.test_breaks import predictor_logits
from tests.stream.test_stream import CLASSES, make_predictor
from vsn.cli import main
from vsn.config import ConfigError, DataConfig, LiveConfig, ModelConfig, Recipe, WindowConfig
from vsn.data.background import read_labeled
from vsn.data.open import open_datasets
from vsn.data.packing.pack import pack_dataset
from vsn.data.part import Part
from vsn.data.readers import read_records
from vsn.data.readers.cvat import write_cvat
from vsn.data.readers.label_studio import write_label_studio
from vsn.data.readers.segments import TimedLabel, VideoLabels
from vsn.data.video import OutsideVideoError, VideoError, VideoReader, open_video, part_reader
from vsn.data.video.constant_rate import ConstantRateReader
from vsn.inference.pictures import _read_frames
from vsn.scores.segments import LabeledVideo, Segment, score_segments
from vsn.stream.file_windows import read_windows
from vsn.stream.labeled_video import write_labeled_video
from vsn.stream.source import Source
from vsn.stream.stream import Stream
from vsn.stream.timeline import Timeline, make_timeline, scored_timeline

LATE = 3.0
"""Seconds of sound before the first of 50 pictures, 25 a second: they are shown from 3 to 5 seconds."""
SUFFIXES = (".mp4", ".mkv", ".mov", ".ts", ".webm")


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files whose picture k has the gray value 4 k."""
    root = tmp_path_factory.mktemp("late")
    return {suffix: write_late_video(root / f"late{suffix}") for suffix in SUFFIXES}


def write_late_video(path: Path, late: float = LATE) -> Path:
    codecs = ("libvpx", "libopus") if path.suffix == ".webm" else ("libx264", "aac")
    with av.open(str(path), "w") as container:
        video = container.add_stream(codecs[0], rate=25)
        sound = container.add_stream(codecs[1], rate=48000, layout="mono")
        video.bit_rate = 2_000_000
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 4 * number, np.uint8))
            frame.pts = number + round(25 * late)
            container.mux(video.encode(frame))
        for number in range(round(50 * (late + 2))):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 48000, 960 * number
            container.mux(sound.encode(samples))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    return path


def numbers(frames: np.ndarray) -> list[int]:
    return np.round(frames.mean(axis=(1, 2, 3)) / 4).astype(int).tolist()


def shown(video: VideoReader, start: float, end: float | None = None) -> list[int]:
    with part_reader(video, Part(start, end)) as part:
        return numbers(part.all_frames())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_segment_is_what_a_player_shows_in_it(late: dict[str, Path], suffix: str) -> None:
    video = open_video(late[suffix])
    assert (video.begins, video.ends) == (pytest.approx(LATE, abs=0.04), pytest.approx(LATE + 2, abs=0.04))
    assert video.times[0] == 0
    # The sound may begin up to 23 milliseconds before 0, where encoders need that: times shortly before a frame.
    for start, end, first, stop in ((3.39, 4.19, 10, 30), (0.0, 3.39, 0, 10), (4.19, None, 30, 50), (2.5, 3.07, 0, 2)):
        assert shown(open_video(late[suffix]), start, end) == list(range(first, stop))
        assert shown(ConstantRateReader(open_video(late[suffix])), start, end) == list(range(first, stop))
    with part_reader(open_video(late[suffix]), Part(3.39, 4.19)) as part:
        assert (part.begins, part.times[0], part.times[-1]) == (0, 0, pytest.approx(0.76, abs=0.002))
        assert part.seconds == pytest.approx(0.8, abs=0.002)
    with part_reader(open_video(late[suffix]), Part(4.51)) as part:
        assert part.seconds == pytest.approx(0.48, abs=0.03)
    # In the time of the last frame, and after the video without sound would end.
    assert shown(open_video(late[suffix]), 4.97 + open_video(late[suffix]).begins - LATE) == [49]
    # The whole video is what it was.
    assert numbers(open_video(late[suffix]).all_frames()) == list(range(50))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(("start", "end"), [(3.39, 4.19), (3.11, 3.27), (4.51, 4.75)])
def test_a_segment_is_what_ffmpeg_cuts(late: dict[str, Path], suffix: str, start: float, end: float) -> None:
    cut = ["-v", "error", "-ss", str(start), "-to", str(end), "-i", str(late[suffix])]
    raw = ["-an", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    output = subprocess.run([program("ffmpeg"), *cut, *raw], check=True, capture_output=True).stdout
    frames = np.frombuffer(output, np.uint8).reshape(-1, 32, 48, 3)
    assert shown(open_video(late[suffix]), start, end) == numbers(frames)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (0.0, 2.9, r"it lasts 5\.\d\d s, its picture from 3\.\d\d s on; the part begins at 0 s and ends at 2\.9 s"),
        (0.0, 2.0, r"begins at 0 s and ends at 2 s\.$"),
        (0.0, 30.0, r"ends at 30 s\. It has 50 frames: if the times are numbers of frames"),
        (5.1, None, r"it lasts 5\.\d\d s, its picture from .* begins at 5\.1 s"),
        (4.0, 5.7, r"it lasts 5\.\d\d s, .* ends at 5\.7 s"),
    ],
)
def test_segments_without_a_picture_are_refused(late: dict[str, Path], start: float, end: float, message: str) -> None:
    with pytest.raises(OutsideVideoError, match=message):
        shown(open_video(late[".mkv"]), start, end)


def test_a_list_with_segments_before_the_picture_is_refused_before_training(late: dict[str, Path]) -> None:
    root = late[".mkv"].parent
    rows = "late.mkv,x,3,4,train\nlate.mkv,y,1,2.5,train\nlate.mp4,x,3,4,val\nlate.mp4,y,4,5,val\n"
    lay(root, {"before/clips.csv": "path,label,start,end,split\n" + rows.replace("late.", "../late.")})
    recipe = Recipe(data=DataConfig(root=str(root / "before"), source="csv"), model=ModelConfig(num_frames=4))
    message = r"1 files have segments outside of them, .*late\.mkv#t=1,2\.5'.*its picture from 3\.\d\d s on"
    with pytest.raises(ConfigError, match=message):
        open_datasets(recipe, Console(file=io.StringIO()))


def test_segments_of_a_packed_video_are_those_of_its_file(late: dict[str, Path], tmp_path: Path) -> None:
    root = late[".mkv"].parent
    lay(root, {"whole/clips.csv": "path,label,split\n../late.mkv,x,train\n../late.ts,y,train\n"})
    config = DataConfig(root=str(root / "whole"), source="csv")
    pack_dataset(config, tmp_path / "pack", short_side=32, num_workers=0, progress=False)
    for record in read_records(packed_config(tmp_path / "pack"), "train").videos:
        video = open_video(record.path)
        assert video.begins == pytest.approx(LATE, abs=0.04)
        assert shown(video, 3.39, 4.19) == list(range(10, 30))


def test_the_background_lies_where_there_is_a_picture(late: dict[str, Path]) -> None:
    root = late[".mkv"].parent
    lay(root, {"clips.csv": "path,label,start,end,split\n" + "late.mkv,x,4.5,4.7,train\nlate.mkv,y,4.7,4.9,train\n"})
    records = read_labeled(DataConfig(root=str(root), source="csv", background=50.0), "train")
    drawn = [record for record in records.videos if records.classes_of(record) == ("background",)]
    assert len(drawn) > 40
    assert LATE - 0.04 <= min(record.start for record in drawn) < LATE + 0.2
    assert all(record.end is not None and record.end <= 5.03 for record in drawn)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_timeline_has_the_times_of_players(late: dict[str, Path], suffix: str) -> None:
    predictor, path = make_predictor(), late[suffix]
    config = WindowConfig(seconds=0.8, enter=0.0, leave=0.0)
    timeline = make_timeline(predictor, path, windows=config)
    ((begin, end),) = timeline.parts
    assert (begin, end, timeline.seconds) == pytest.approx((LATE, LATE + 2, LATE + 2), abs=0.04)
    assert timeline.predictions[0].start == begin
    assert timeline.predictions[-1].end <= end + 1e-6
    assert (timeline.segments[0].start, timeline.segments[-1].end) == (begin, end)
    for one, after in itertools.pairwise(timeline.predictions):
        assert after.start - one.start == pytest.approx(timeline.every)
    # As the service makes it.
    scored = read_windows(path, predictor.recipe, seconds=0.8, max_windows=1000, video_seconds=2.0)
    logits = [predictor_logits(predictor, clip) for clip in scored.clips]
    there = scored_timeline(path, scored, logits, classes=CLASSES, config=config)
    assert (there.parts, there.seconds, there.segments[0].start) == (timeline.parts, timeline.seconds, begin)
    assert [one.start for one in there.predictions] == [one.start for one in timeline.predictions]


def test_what_a_window_saw_is_the_segment_of_its_times(late: dict[str, Path]) -> None:
    """The way of a label from a timeline to a list of segments: the same frames."""
    recipe = make_predictor().recipe
    scored = read_windows(late[".mkv"], recipe, seconds=0.8, max_windows=1000, video_seconds=2.0)
    assert len(scored.numbers) >= 6
    for number, clip in zip(scored.numbers, scored.clips, strict=True):
        start, end = scored.grid.interval(number)
        first, *_, last = shown(open_video(late[".mkv"]), max(start, 0.0), end)
        seen = clip.reshape(4, -1).mean(axis=1) / 4
        assert first <= round(float(seen[0])) <= round(float(seen[-1])) <= last


def test_frames_are_shown_when_players_show_them(late: dict[str, Path], tmp_path: Path) -> None:
    timeline = make_timeline(make_predictor(), late[".mkv"], windows=WindowConfig(seconds=0.8, enter=0.0, leave=0.0))
    with open_video(write_labeled_video(tmp_path / "labeled.mp4", timeline)) as video:
        assert video.seconds == pytest.approx(5, abs=0.1)
        frames = video.all_frames()[:, :32, 56:104].mean(axis=(1, 2, 3)) / 4
    assert len(frames) == 125
    # Until the picture begins its first frame is shown.
    assert frames[:70].max() < 2
    assert frames[4 * 25] == pytest.approx(25 * frames[-1] / 49, abs=3)


def test_a_contact_sheet_says_when_players_show_a_frame(late: dict[str, Path]) -> None:
    for part, first, last in ((None, 3.12, 4.84), (Part(3.39, 4.19), 3.44, 4.12)):
        frames, times = _read_frames(late[".mkv"], "", part)
        assert (times[0], times[-1]) == pytest.approx((first, last), abs=0.03)
        assert 25 * (times - LATE) == pytest.approx(numbers(frames), abs=0.6)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_picture_after_what_ffmpeg_reads_first(tmp_path: Path, suffix: str) -> None:
    """It looks for streams in the first 5 seconds; and a step of 10 seconds of a clock is a restart."""
    path = write_late_video(tmp_path / f"late{suffix}", late=12.0)
    with open_video(path) as video:
        assert (video.begins, video.ends) == pytest.approx((12, 14), abs=0.04)
    source = Source(path, LiveConfig(fast=True))
    frames = list(source.frames(threading.Event()))
    assert {frame.part for frame in frames} == {0}
    assert (frames[0].seconds, frames[-1].end) == pytest.approx((12, 14), abs=0.04)


def test_pre_labels_are_numbers_of_shown_frames(finished_run: Path, late: dict[str, Path], tmp_path: Path) -> None:
    windows = ["--windows", "--seconds", "0.8", "--enter", "0", "--leave", "0"]
    for form, out in (
        ("cvat", tmp_path / "a.xml"),
        ("json", tmp_path / "a.json"),
        ("activitynet", tmp_path / "net.json"),
    ):
        files = ["--pre-labels", str(out), "--pre-label-format", form]
        main(["predict", str(finished_run), str(late[".mkv"]), *windows, *files])
    boxes = [box for box in ElementTree.parse(tmp_path / "a.xml").iter("box") if box.get("outside") == "0"]
    assert {int(box.get("frame", "")) for box in boxes} == set(range(50))
    (net,) = json.loads((tmp_path / "net.json").read_text())["database"].values()
    assert net["duration"] == pytest.approx(5, abs=0.04)
    (video,) = json.loads((tmp_path / "a.json").read_text())
    assert (video["segments"][0]["start"], video["segments"][-1]["end"]) == pytest.approx((3, 5), abs=0.04)


def test_measures_count_the_time_with_a_picture(
    finished_run: Path, late: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    windows = ["--windows", "--seconds", "0.8", "--enter", "0", "--leave", "0"]
    main(["predict", str(finished_run), str(late[".mp4"]), *windows])
    assert "2.0 seconds, 100% of them with a label" in capsys.readouterr().out
    # Predicted everywhere, true for a moment: the seconds before the picture are not right ones.
    label = json.loads((finished_run / "classes.json").read_text())[0]
    (tmp_path / "truth.csv").write_text(f"start,end,label\n{LATE},{LATE + 0.01},{label}\n")
    main(["predict", str(finished_run), str(late[".mp4"]), *windows, "--truth", str(tmp_path / "truth.csv"), "--json"])
    assert json.loads(capsys.readouterr().out)["measures"]["time_accuracy"] < 0.01
    video = LabeledVideo((), (Segment(LATE, LATE + 2, "x"),), LATE + 2, LATE)
    assert score_segments([video]).time_accuracy == 0
    one = (Segment(1.0, LATE + 1, "x"),)
    assert score_segments([LabeledVideo(one, one, LATE + 2, LATE)]).time_accuracy == 1


def test_a_limit_counts_from_the_first_picture(late: dict[str, Path]) -> None:
    out: list[float] = []
    live = LiveConfig(fast=True, stop_after=1.2)
    stream = Stream(make_predictor(), str(late[".mkv"]), windows=WindowConfig(seconds=0.8), live=live)
    summary = stream.run(lambda answer: out.append(answer.start))
    assert summary.num_frames == 30
    assert len(out) >= 2
    stream = Stream(make_predictor(), str(late[".mkv"]), windows=WindowConfig(seconds=5.0), live=LiveConfig(fast=True))
    with pytest.raises(VideoError, match=r"it ended after 50 frames, 2\.00 seconds, before a window of 5\.00"):
        stream.run(lambda answer: None)


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_numbers_of_frames_are_those_of_the_reader_in_avi_too(tmp_path: Path, suffix: str) -> None:
    """Which stores times of decoding only; frames of H.264 are shown in another order."""
    timed_video(tmp_path / f"a{suffix}", [i / 25 for i in range(60)], values=[4 * i for i in range(60)])
    lay(tmp_path, {"all.txt": f"a{suffix} 20 20 0\na{suffix} 45 10 1\n", "classes.txt": "wave\nclap\n"})
    config = DataConfig(root=str(tmp_path), source="mmaction2-list", annotations="all.txt", with_offset=True)
    record = min(read_records(config, "train").videos, key=lambda one: one.start)
    assert record.part is not None
    assert shown(open_video(record.path), record.part.start, record.part.end) == list(range(20, 40))


def test_a_short_segment_of_a_long_video_is_drawn(late: dict[str, Path], tmp_path: Path) -> None:
    segments = (Segment(3.5, 3.51, "wave", 0.9),)
    timeline = Timeline(str(late[".mkv"]), 5.0, ((LATE, 5.0),), 0.8, 0.2, (), segments)
    assert write_labeled_video(tmp_path / "b.mp4", timeline).stat().st_size


@pytest.mark.parametrize("source", ["cvat", "mmaction2-list"])
def test_numbers_of_frames_count_from_the_first_picture(late: dict[str, Path], source: str) -> None:
    root = late[".mkv"].parent
    if source == "cvat":
        lay(root, {"c/a.xml": write_cvat([late_labels()])})
        config = DataConfig(root=str(root), source="cvat", annotations="c/a.xml")
    else:
        lay(root, {"c/all.txt": "late.mkv 10 20 0\n", "classes.txt": "wave\nclap\n"})
        config = DataConfig(root=str(root), source="mmaction2-list", annotations="c/all.txt", with_offset=True)
    record = min(read_records(config, "train").videos, key=lambda one: one.start)
    assert record.part is not None
    assert shown(open_video(record.path), record.part.start, record.part.end) == list(range(10, 30))


def test_label_studio_counts_by_the_clock_of_players() -> None:
    (task,) = json.loads(write_label_studio([late_labels()]))
    ranges = [result["value"]["ranges"] for result in task["predictions"][0]["result"]]
    assert ranges == [[{"start": 86, "end": 105}], [{"start": 106, "end": 125}]]


def late_labels() -> VideoLabels:
    """The file with labels of its frames 10 to 29 and 30 to 49."""
    labels = [TimedLabel(LATE + start, LATE + start + 0.8, name, 0.5) for name, start in (("wave", 0.4), ("clap", 1.2))]
    return VideoLabels(Path("late.mkv"), 5.0, 25.0, 50, 32, 48, labels, LATE)
