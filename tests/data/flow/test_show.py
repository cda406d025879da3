"""Flow as pictures: colors that say where things go, and a picture that shows what it says."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.motions import moving_video
from tests.helpers.videos import overwrite_packets, timed_video
from vsn.cli import main
from vsn.data.flow.show import flow_colors
from vsn.data.video import open_video, write_video


@pytest.mark.parametrize(
    ("motion", "color"),
    [
        ((0, 0), (255, 255, 255)),
        ((5, 0), (255, 0, 0)),
        ((2.5, 0), (255, 127, 127)),
        ((0, 5), (255, 234, 0)),  # a quarter of 55 steps is 13.75: 13.75 of the 15 from red to yellow
        ((-5, 0), (0, 197, 255)),  # 27.5: cyan at 25, blue at 36
        ((0, -5), (97, 0, 255)),  # 41.25: blue at 36, magenta at 49; of 255: 103
        ((50, 0), (191, 0, 0)),
    ],
)
def test_direction_is_hue_and_length_is_saturation(motion: tuple, color: tuple) -> None:
    assert np.abs(flow_colors(np.array(motion, float), 5.0).astype(int) - color).max() <= 7


def test_hues_go_round_without_a_jump() -> None:
    angles = np.linspace(0, 2 * np.pi, 721)
    colors = flow_colors(np.stack([np.cos(angles), np.sin(angles)], 1), 1.0).astype(int)
    assert np.abs(np.diff(colors, axis=0)).max() <= 10
    assert colors[0].tolist() == [255, 0, 0]
    with pytest.raises(ValueError, match="scale is 0"):
        flow_colors(np.zeros((1, 2)), 0)


def test_a_picture_of_frames_flow_and_legend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = moving_video(tmp_path / "v.mp4", 5, right=2.0)
    main(["flow", "show", str(video), "--out", str(tmp_path / "v.png"), "--short-side", "48", "--pairs", "2"])
    assert "full color is 2 p" in capsys.readouterr().out
    picture = np.asarray(Image.open(tmp_path / "v.png"))
    assert picture.shape == (2 * 48 + 56, 2 * 64, 3)
    frames = open_video(video).all_frames()
    assert np.array_equal(picture[:48], np.concatenate([frames[1], frames[3]], 1))
    red = picture[48:96].astype(int)
    assert np.median(red.reshape(-1, 3), axis=0) == pytest.approx([255, 8, 8], abs=20)


def test_a_damaged_video_shows_the_frames_that_decode(tmp_path: Path) -> None:
    source = tmp_path / "whole.mp4"
    frames = [np.full((32, 48, 3), 8 * i, np.uint8) for i in range(10)]
    write_video(source, frames, frames_per_second=10, keyframe_every=1)
    damaged = overwrite_packets(source, tmp_path / "damaged.mp4", start=5)  # 4 fields: pairs from frames 1 and 3
    main(["flow", "show", str(damaged), "--out", str(tmp_path / "v.png"), "--short-side", "32", "--pairs", "2"])
    picture = np.asarray(Image.open(tmp_path / "v.png"))
    decoded = open_video(damaged).all_frames()
    assert np.array_equal(picture[:32], np.concatenate([decoded[1], decoded[3]], 1))


@pytest.mark.parametrize("suffix", [".png", ".mp4"])
def test_frames_unevenly_spaced_in_time(tmp_path: Path, suffix: str) -> None:
    path = timed_video(tmp_path / "v.mp4", [0, 0.8, 0.9, 1.0, 1.1], values=[20, 60, 100, 140, 180])
    main(["flow", "show", str(path), "--out", str(tmp_path / f"out{suffix}"), "--short-side", "32", "--pairs", "2"])
    if suffix == ".png":  # of 11 fields at ten frames a second the third and the ninth
        picture = np.asarray(Image.open(tmp_path / "out.png"))
        assert picture[5, [5, 37], 0].tolist() == pytest.approx([20, 60], abs=2)
    else:
        assert open_video(tmp_path / "out.mp4").num_frames == 11


def test_what_stands_still_is_white(tmp_path: Path) -> None:
    """Bytes have no exact zero, and half a step would be a tint; JPEG makes whole ones of some."""
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    for i in range(3):
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    main(["flow", "show", str(tmp_path), "--out", str(tmp_path / "v.png"), "--short-side", "48"])
    assert (np.asarray(Image.open(tmp_path / "v.png"))[48:96] == 255).all()


def test_a_film_of_all_frames(tmp_path: Path) -> None:
    video = moving_video(tmp_path / "v.mp4", 5, right=-2.0)
    main(["flow", "show", str(video), "--out", str(tmp_path / "film.mp4"), "--short-side", "48"])
    video = open_video(tmp_path / "film.mp4")
    film, rate = video.all_frames(), video.frames_per_second
    assert (film.shape, rate) == ((4, 48 + 56, 128, 3), 10.0)
    left = np.median(film[:, 8:40, 72:120].reshape(-1, 3), axis=0)
    assert left[0] < 100 < left[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "v.gif"], "--out is v.gif"),
        (["--out", "v.png", "--pairs", "0"], "--pairs is 0"),
        (["--out", "v.png"], "it has one frame"),
        (["--out", "v.mp4"], "it has one frame"),
    ],
)
def test_what_cannot_be_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    video = moving_video(tmp_path / "one.mp4", 1)
    with pytest.raises(SystemExit) as stopped:
        main(["flow", "show", str(video), *arguments])
    assert message in str(stopped.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.mp4"]
