"""Contact sheets and labeled videos, by `vsn predict --save`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vsn.cli import main
from vsn.data.video import Part, open_video, write_video
from vsn.inference.pictures import write_contact_sheet
from vsn.inference.prediction import Prediction
from vsn.scores.segments import Segment
from vsn.stream.labeled_video import write_labeled_video
from vsn.stream.timeline import Timeline

GREEN = (40, 200, 60)


def make(path: Path, num_frames: int = 20, rate: float = 10.0) -> Path:
    """Black, and green from the middle on."""
    frames = np.zeros((num_frames, 48, 64, 3), np.uint8)
    frames[num_frames // 2 :] = GREEN
    path.parent.mkdir(exist_ok=True)
    write_video(path, frames, frames_per_second=rate)
    return path


def is_green(picture: np.ndarray, x: int, y: int) -> bool:
    return bool(np.abs(picture[y, x].astype(int) - GREEN).max() < 30)


def test_a_sheet_shows_frames_in_their_order_and_bars(tmp_path: Path) -> None:
    video = make(tmp_path / "a.mp4")
    prediction = Prediction(video, ("wave", 60 * "long "), (0.75, 0.25))
    sheet = np.asarray(Image.open(write_contact_sheet(tmp_path / "out" / "a.jpg", prediction)))
    # Four frames a row: the first row is black, the second green.
    assert [is_green(sheet, 100 + 248 * (i % 4), 90 + (i // 4) * 210) for i in range(8)] == 4 * [False] + 4 * [True]
    blue = (np.abs(sheet.astype(int) - (35, 104, 207)).max(axis=2) < 40).sum(axis=1)
    bars = sorted(set(blue[blue > 40].tolist()))
    assert bars[-1] == pytest.approx(180, abs=4)
    assert bars[0] <= 62
    part = np.asarray(Image.open(write_contact_sheet(tmp_path / "b.jpg", prediction, part=Part(1.0, None))))
    assert all(is_green(part, 100 + 248 * (i % 4), 90 + (i // 4) * 210) for i in range(8))


def test_a_labeled_video_has_its_length_and_shows_each_frame_at_its_time(tmp_path: Path) -> None:
    video = make(tmp_path / "a.mp4", num_frames=90, rate=60.0)
    segments = (Segment(0.0, 0.7, "wave", 0.9), Segment(0.9, 1.5, "jump", 0.8))
    timeline = Timeline(str(video), 1.5, ((0.0, 1.5),), 0.5, 0.1, (), segments)
    with open_video(write_labeled_video(tmp_path / "b.mp4", timeline)) as written:
        assert (written.frames_per_second, written.num_frames) == (30.0, 45)
        frames = written.all_frames()
    assert frames.shape[1:] == (48 + 56, 160, 3)
    assert [is_green(frame, 80, 24) for frame in frames] == 23 * [False] + 22 * [True]  # from 0.75 s on
    # The label is written below the picture: it changes where the segments do.
    bands = frames[:, 50:76].astype(int)
    changes = np.flatnonzero(np.abs(np.diff(bands, axis=0)).max(axis=(1, 2, 3)) > 120) + 1
    assert changes.tolist() == [21, 27]


def test_videos_of_one_name_are_saved_under_two(finished_run: Path, tmp_path: Path) -> None:
    videos = [make(tmp_path / folder / "a.mp4") for folder in ("x", "y")]
    main(["predict", str(finished_run), *map(str, videos), "--save", str(tmp_path / "out"), "--device", "cpu"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-2.jpg", "a.jpg"]
    # Into the folder of the video itself: it is not overwritten.
    before = videos[0].read_bytes()
    main([
        "predict", str(finished_run), str(videos[0]), "--windows", "--seconds", "0.5", "--save", str(tmp_path / "x"),
        "--device", "cpu",
    ])  # fmt: skip
    assert videos[0].read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["a-2.mp4", "a.mp4"]
