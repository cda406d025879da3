"""benchmarks/decoding_equality.py: which files of a folder are read as FFmpeg reads them."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.helpers.videos import with_matrix
from tests.test_benchmarks import script
from vsn.data.video import write_video


@pytest.fixture
def equality(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return script(monkeypatch, "decoding_equality")


@pytest.fixture(params=[pytest.param("tool", marks=pytest.mark.needs("ffmpeg")), "filters"])
def reference(equality: ModuleType, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    if request.param == "filters":
        monkeypatch.setattr(equality.shutil, "which", lambda name: None)
    return request.param


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A video, its mirror image by the display matrix, and a file that nothing reads."""
    folder = tmp_path / "videos"
    folder.mkdir()
    frames = [np.random.default_rng(i).integers(0, 256, (32, 48, 3), np.uint8) for i in range(4)]
    write_video(folder / "a.mp4", frames, frames_per_second=10)
    with_matrix(folder / "a.mp4", folder / "mirrored.mp4", (0, 1, 1, 0))
    (folder / "text.mp4").write_text("no video")
    return folder


def run(equality: ModuleType, out: Path, *arguments: str) -> dict:
    equality.main([str(out), *arguments])
    return json.loads(out.read_text(encoding="utf-8"))


def test_files_read_alike_and_otherwise(
    equality: ModuleType, reference: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equality, "installed_decoders", lambda: ["pyav"])
    facts = run(equality, tmp_path / "equal.json", str(folder))
    assert facts["command"].startswith("python benchmarks/decoding_equality.py equal.json videos")
    assert ("PyAV" in facts["ffmpeg"]) == (reference == "filters")
    assert facts["summary"] == [
        {"folder": "videos", "decoder": "pyav", "files": 3, "frames": 8, "equal": 3, "differs": 0, "only_here": 0,
         "only_ffmpeg": 0, "largest_mean": 0.0}
    ]  # fmt: skip
    assert facts["rows"] == []

    reads = equality.read_frames
    monkeypatch.setattr(
        equality, "read_frames", lambda path, decoder: (frame[::-1] for frame in list(reads(path, decoder))[:3])
    )
    facts = run(equality, tmp_path / "differing.json", str(folder))
    assert facts["summary"][0] | {"largest_mean": 0} == {
        "folder": "videos", "decoder": "pyav", "files": 3, "frames": 6, "equal": 1, "differs": 2, "only_here": 0,
        "only_ffmpeg": 0, "largest_mean": 0,
    }  # fmt: skip
    for row, size in zip(facts["rows"], ([32, 48], [48, 32]), strict=True):
        assert (row["frames"], row["ffmpeg_frames"], row["size"]) == (3, 4, size)
        assert row["mean"] > 10
        assert row["largest"] > 100

    monkeypatch.setattr(equality, "read_frames", lambda path, decoder: iter(()))
    assert run(equality, tmp_path / "none.json", str(folder))["summary"][0]["only_ffmpeg"] == 2


def test_generated_videos(
    equality: ModuleType, reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = script(monkeypatch, "decoding_videos")
    monkeypatch.setattr(equality, "installed_decoders", lambda: ["pyav"])
    monkeypatch.setattr(made, "CODECS", {"libx264": "mp4", "mjpeg": "avi"})
    monkeypatch.setattr(made, "MATRICES", (1, 9))
    monkeypatch.setattr(made, "encoded_formats", lambda codec: ["yuv420p", "yuv444p"])
    facts = run(equality, tmp_path / "made.json", "--made", str(tmp_path / "work"))
    assert facts["not_encoded"] == ["libx264 yuv420p 17x35"]
    (summary,) = facts["summary"]
    names = {path.name for path in (tmp_path / "work").iterdir()}
    assert summary["files"] == len(names) == 7 + 8 + 8 + 2 + 1
    assert {"upright.mp4", "antitranspose.mp4", "pq.mkv", "matrix9-range2-yuv444p10le.mkv"} <= names
    # Sizes that change are resized by other interpolation; the filters of PyAV do not map high dynamic range.
    assert {row["file"] for row in facts["rows"]} <= {"sizes.h264", "pq.mkv", "hlg.mkv"}
    assert all(row["ffmpeg_frames"] == row["frames"] for row in facts["rows"])


def test_folders_without_videos_are_refused(equality: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no video files"):
        equality.main([str(tmp_path / "out.json"), str(tmp_path)])
    with pytest.raises(SystemExit):
        equality.main([str(tmp_path / "out.json")])
