import csv
import multiprocessing
import shutil
import weakref
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.context import SpawnProcess
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.packs import SIDE, damage, facts, moving_texture, pack, packed_config, packed_paths, same_folders
from vsn.config import ConfigError, DataConfig
from vsn.data.packing import pack as pack_module
from vsn.data.packing import shards as pack_shards
from vsn.data.packing.pack import pack_dataset, verify_pack
from vsn.data.readers import read_records
from vsn.data.video import VideoError, VideoMetadata, open_video, write_video
from vsn.data.video.jpeg import encode_jpeg
from vsn.data.video.packed_files import Shard
from vsn.data.video.pyav_reader import PyAVReader
from vsn.system.pool import run_in_processes

SPLITS = ("train", "val", "test")


# --- the same data set -----------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_records_are_those_of_the_source(tiny_data: Path, packed: Path, split: str) -> None:
    source, copy = (read_records(config, split) for config in (DataConfig(root=str(tiny_data)), packed_config(packed)))
    assert copy.classes == source.classes
    assert [(r.video_id, r.labels) for r in copy.records] == [(r.video_id, r.labels) for r in source.records]
    assert len(copy.records) == {"train": 12, "val": 3, "test": 3}[split]
    for mine, its in zip(copy.records, source.records, strict=True):
        video, its_video = open_video(mine.path), open_video(its.path, short_side=SIDE)
        frames, rate = video.all_frames(), video.frames_per_second
        original, original_rate = its_video.all_frames(), its_video.frames_per_second
        assert (frames.shape, rate) == (original.shape, original_rate)
        assert np.abs(frames.astype(int) - original.astype(int)).mean() < 3


def test_a_video_of_several_splits_is_packed_once(packed: Path) -> None:
    assert len(packed_paths(packed)) == 15  # of 18 records: what is held out is validation and test
    assert sum(len(Shard(path).videos) for path in packed.glob("*.vsnpack")) == 15


def test_frames_differ_by_the_encoding_only(textured: tuple[Path, Path]) -> None:
    source, packed = (open_video(path) for path in textured)
    original, frames = source.all_frames(), packed.all_frames()
    assert frames.dtype == np.uint8
    assert frames.shape == original.shape == (40, 64, 96, 3)  # smaller than 256: not enlarged
    error = np.abs(frames.astype(int) - original.astype(int)).mean(axis=(1, 2, 3))
    others = np.abs(frames[1:].astype(int) - original[:-1].astype(int)).mean(axis=(1, 2, 3))
    assert error.max() < 2
    assert others.min() > 2 * error.max()  # this frame, and not its neighbor
    assert packed.metadata == source.metadata == VideoMetadata(40, 12.5, 64, 96, 0)


def test_several_labels_no_label_and_classes_in_their_order(tmp_path: Path, gray_video: Path) -> None:
    shutil.copy(gray_video, tmp_path / "gray video, 1.mp4")
    for i in range(2):
        shutil.copy(gray_video, tmp_path / f"{i}.mp4")
    (tmp_path / "list.csv").write_text(
        'path,label,split\n0.mp4,wave|point,train\n1.mp4,point,train\n"gray video, 1.mp4",,test\n'
    )
    config = DataConfig(root=str(tmp_path), source="csv", task="multilabel")
    pack_dataset(config, tmp_path / "out", num_workers=0, progress=False)
    again = packed_config(tmp_path / "out", task="multilabel")
    for split in ("train", "test"):
        assert facts(again, split) == facts(config, split)
    assert read_records(again, "train").classes == ("point", "wave")
    assert facts(again, "test") == [("gray video, 1.mp4", ())]


def test_classes_without_videos_and_their_order_are_kept(tmp_path: Path, gray_video: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for i in (1, 2):
        shutil.copy(gray_video, videos / f"{i}.webm")
    (tmp_path / "something-something-v2-train.json").write_text(
        '[{"id": "1", "label": "x", "template": "Zooming"}, {"id": "2", "label": "x", "template": "Asking"}]'
    )
    (tmp_path / "something-something-v2-labels.json").write_text('{"Zooming": "0", "Never": "1", "Asking": "2"}')
    config = DataConfig(root=str(tmp_path), source="something-v2", annotations="", videos="videos")
    source = read_records(config, "train")
    assert set(source.classes) == {"Zooming", "Never", "Asking"}
    pack_dataset(config, tmp_path / "out", splits=["train"], num_workers=0, progress=False)
    again = packed_config(tmp_path / "out")
    assert read_records(again, "train").classes == source.classes
    assert facts(again, "train") == facts(config, "train")


def test_the_arrow_of_time_needs_no_labels(tmp_path: Path, gray_video: Path) -> None:
    (tmp_path / "set").mkdir()
    for i in range(5):
        shutil.copy(gray_video, tmp_path / "set" / f"{i}.mp4")
    config = DataConfig(root=str(tmp_path / "set"), task="arrow")
    summary = pack_dataset(config, tmp_path / "out", num_workers=0, progress=False)
    assert (summary.num_videos, summary.splits) == (5, {"train": 4, "val": 1, "test": 1})
    assert "Labels" in str(summary)
    assert str(summary).endswith(f"--data.root {tmp_path / 'out'} --data.task arrow")
    assert facts(packed_config(tmp_path / "out", task="arrow"), "train") == facts(config, "train")


def test_folders_of_frames(tmp_path: Path) -> None:
    for name in ("a/x", "b/y"):
        folder = tmp_path / "set" / name
        folder.mkdir(parents=True)
        for i, image in enumerate(moving_texture(5), 1):
            (folder / f"img_{i:04d}.jpg").write_bytes(encode_jpeg(image, quality=95))
            (folder / f"old_{i:04d}.jpg").write_bytes(encode_jpeg(image // 2, quality=95))
    config = DataConfig(root=str(tmp_path / "set"), frame_template="img_{:04d}.jpg")
    pack_dataset(config, tmp_path / "out", splits=["train"], num_workers=0, progress=False)
    assert facts(packed_config(tmp_path / "out"), "train") == facts(config, "train")
    for place in packed_paths(tmp_path / "out"):
        video = open_video(place)
        frames, rate = video.all_frames(), video.frames_per_second
        assert rate == 0.0
        assert frames.shape == (5, 64, 96, 3)
        assert np.abs(frames.astype(int) - np.stack(moving_texture(5))).mean() < 3


def test_a_packed_set_is_packed_again(packed: Path, tmp_path: Path) -> None:
    summary = pack_dataset(packed_config(packed), tmp_path / "out", short_side=16, num_workers=0, progress=False)
    assert facts(packed_config(tmp_path / "out"), "train") == facts(packed_config(packed), "train")
    assert open_video(packed_paths(tmp_path / "out")[0]).metadata.height == 16
    assert summary.bytes_in > 0


# --- going on --------------------------------------------------------------------------------------


def stop_after(monkeypatch: pytest.MonkeyPatch, num_videos: int) -> None:
    """Ctrl-C in the middle of a video."""
    left = [num_videos]
    original = PyAVReader.__iter__

    def frames(self: PyAVReader) -> Iterator[np.ndarray]:
        left[0] -= 1
        for i, frame in enumerate(original(self)):
            if left[0] < 0 and i == 3:
                raise KeyboardInterrupt
            yield frame

    monkeypatch.setattr(PyAVReader, "__iter__", frames)


def test_a_stopped_pack_goes_on(tiny_data: Path, packed: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        with pytest.raises(KeyboardInterrupt):
            pack(tiny_data, out)
    shards = sorted(out.glob("*.vsnpack"))
    assert len(shards) == 6
    assert sorted(path.name for path in out.iterdir()) == ["pack.unfinished.json", *(p.name for p in shards)]
    with pytest.raises(ConfigError, match=r"no pack\.json"):
        verify_pack(out)
    (out / ".shard-00006-killed00.vsnpack").write_bytes(b"half")
    times = [path.stat().st_mtime_ns for path in shards]
    assert "15 packed files (6 existed)" in pack(tiny_data, out)
    assert [path.stat().st_mtime_ns for path in shards] == times
    assert same_folders(out, packed)


def test_an_interrupt_stops_the_processes_and_leaves_whole_shards(
    tiny_data: Path, packed: Path, tmp_path: Path, monkeypatch
) -> None:
    out = tmp_path / "out"

    def interrupted(*args, **options) -> Iterator[object]:
        jobs = run_in_processes(*args, **options)
        yield next(jobs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pack_module, "run_in_processes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pack(tiny_data, out, num_workers=2)
    assert multiprocessing.active_children() == []
    names = sorted(path.name for path in out.iterdir())
    assert names[0] == "pack.unfinished.json"
    assert all(name.startswith("shard-") for name in names[1:])  # no temporary files
    pack(tiny_data, out)
    assert same_folders(out, packed)


def test_the_error_of_a_process_that_does_not_start(tiny_data: Path, tmp_path: Path, monkeypatch) -> None:
    def refuse(process) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(SpawnProcess, "start", refuse)
    with pytest.raises(OSError, match="Resource temporarily unavailable"):
        pack(tiny_data, tmp_path / "out", num_workers=2)


@pytest.mark.parametrize("fault", ["deleted", "another", "damaged at its end"])
def test_a_finished_pack_mends_its_shards(tiny_data: Path, packed: Path, copy: Path, fault: str) -> None:
    shard = copy / "shard-00004.vsnpack"
    if fault == "deleted":
        shard.unlink()
    elif fault == "another":
        shutil.copy(copy / "shard-00005.vsnpack", shard)
    else:
        damage(shard, shard.stat().st_size - 50)
    assert "(14 existed)" in pack(tiny_data, copy)
    assert same_folders(copy, packed)
    assert "(15 existed)" in pack(tiny_data, copy)


def test_parallel_and_serial_give_the_same_bytes(tiny_data: Path, packed: Path, tmp_path: Path) -> None:
    pack(tiny_data, tmp_path / "out", num_workers=2)
    assert same_folders(tmp_path / "out", packed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short_side": 32}, "settings.short_side is 24 there, 32 here"),
        ({"quality": 80}, "settings.quality is 90 there, 80 here"),
        ({"splits": ["train"]}, "source.splits.val is 3 there, None here"),
    ],
)
def test_other_settings_are_refused(tiny_data: Path, copy: Path, packed: Path, options, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pack(tiny_data, copy, **options)
    assert same_folders(copy, packed)


def test_another_source_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(tiny_data, tmp_path / "set"))
    pack(root, tmp_path / "out")
    shutil.copy(root / "wave/0.mp4", root / "wave/new.mp4")
    with pytest.raises(ConfigError, match=r"source\.splits\.train is 12 there, 13 here.*source\.records"):
        pack(root, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"source\.root is .*set' there, .* here"):
        pack(tiny_data, tmp_path / "out")


def test_folders_of_other_files_are_refused(tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"no pack\.json"):
        pack(tiny_data, tmp_path)
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        pack(tiny_data, tmp_path / "notes.txt")
    (tmp_path / "pack.json").write_text("{}")
    with pytest.raises(ConfigError, match="kind is None there"):
        pack(tiny_data, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short_side": 4}, r"short_side.*4"),
        ({"quality": 0}, r"quality.*0"),
        ({"num_workers": -1}, r"num_workers.*-1"),
        ({"max_bad": 1.5}, r"max_bad.*1\.5"),
    ],
)
def test_settings_out_of_range(tiny_data: Path, tmp_path: Path, options, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pack(tiny_data, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_shard_that_does_not_read_back_is_not_kept(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_shards, "encode_jpeg", lambda image, quality: b"not a picture")
    with pytest.raises(VideoError, match="does not read back"):
        pack(tiny_data, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["pack.unfinished.json"]


# --- splits, bad videos, long videos ---------------------------------------------------------------


def test_splits_that_are_not_there(tmp_path: Path, tiny_data: Path) -> None:
    for split in ("train", "val"):
        shutil.copytree(tiny_data, tmp_path / "set" / split)
    text = pack(tmp_path / "set", tmp_path / "out")
    assert "Records: train 15, val 15. No split 'test'." in text
    with pytest.raises(ConfigError, match="there is no split 'test'"):
        pack(tmp_path / "set", tmp_path / "other", splits=["train", "test"])
    with pytest.raises(ConfigError, match="there is no split 'learn'"):
        pack_dataset(DataConfig(root=str(tmp_path / "set"), train_split="learn"), tmp_path / "other")


def test_bad_videos_are_listed_and_the_rest_is_packed(tiny_data: Path, packed: Path, tmp_path: Path) -> None:
    root, out = Path(shutil.copytree(tiny_data, tmp_path / "set")), tmp_path / "out"
    bad = root / "wave/2.mp4"
    good = bad.read_bytes()
    bad.write_bytes(b"not a video")
    with pytest.raises(VideoError, match=r"1 of 15 .*'wave/2.mp4', not a video .*max_bad.*0\.0667") as caught:
        pack(root, out)
    assert caught.value.path == str(out / "bad.csv")
    with (out / "bad.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["id"], row["path"]) == ("wave/2.mp4", str(bad))
    assert "not a video" in row["reason"]
    assert not (out / "pack.json").exists()

    text = pack(root, out, max_bad=0.07)
    assert "(15 existed)" in text
    assert "not packed: 1" in text
    source = [video for video in facts(DataConfig(root=str(root)), "train") if video[0] != "wave/2.mp4"]
    assert len(source) in (11, 12)
    assert facts(packed_config(out), "train") == source
    assert verify_pack(out, progress=False) == ()

    bad.write_bytes(good)
    assert "(14 existed)" in pack(root, out)
    assert not (out / "bad.csv").exists()
    for path in packed.glob("*.vsnpack"):
        assert np.array_equal(Shard(path).videos, Shard(out / path.name).videos)


def test_a_finished_pack_that_is_written_anew_is_not_read_halfway(tiny_data: Path, tmp_path: Path) -> None:
    root, out = Path(shutil.copytree(tiny_data, tmp_path / "set")), tmp_path / "out"
    pack(root, out)
    for path in root.rglob("2.mp4"):
        path.write_bytes(b"")
    for path in list(out.glob("*.vsnpack")):
        path.unlink()
    with pytest.raises(VideoError, match="3 of 15 videos cannot be read"):
        pack(root, out)
    assert not (out / "pack.json").exists()
    with pytest.raises(ConfigError, match="unfinished pack"):
        read_records(packed_config(out), "train")


def test_nothing_that_can_be_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for i in range(2):
            (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / name / f"{i}.mp4").write_bytes(b"")
    with pytest.raises(VideoError, match=r"4 of 4"):
        pack(tmp_path / "set", tmp_path / "out", max_bad=1.0)


def test_memory_does_not_depend_on_how_long_a_video_is(tmp_path: Path, monkeypatch) -> None:
    for name, num_frames in (("a", 40), ("b", 2)):
        write_video(tmp_path / "set" / name / "0.mp4", moving_texture(num_frames), frames_per_second=25)
    original = PyAVReader.__iter__
    most = 0

    def watched(self: PyAVReader) -> Iterator[np.ndarray]:
        nonlocal most
        handed: list[weakref.ref[np.ndarray]] = []
        for frame in original(self):
            handed.append(weakref.ref(frame))
            most = max(most, sum(one() is not None for one in handed))
            yield frame

    monkeypatch.setattr(PyAVReader, "__iter__", watched)
    pack(tmp_path / "set", tmp_path / "out", splits=["train"])
    assert 1 <= most <= 2


def test_summary(tiny_data: Path, tmp_path: Path) -> None:
    summary = pack_dataset(replace(DataConfig(), root=str(tiny_data)), tmp_path / "out", num_workers=0, progress=False)
    assert (summary.num_videos, summary.num_frames, summary.num_shards) == (15, 180, 15)
    assert summary.bytes_in == sum(path.stat().st_size for path in tiny_data.rglob("*.mp4"))
    assert summary.bytes_out == sum(path.stat().st_size for path in (tmp_path / "out").glob("*.vsnpack"))
    lines = str(summary).splitlines()
    assert lines[0].endswith("15 videos, 180 frames, 15 packed files (0 existed).")
    assert lines[1] == "Records: train 12, val 3, test 3."
    assert lines[-1] == f"Read it with --data.source csv --data.root {tmp_path / 'out'}"
