import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.clips import clip_dataset
from tests.helpers.packs import SIDE, damage, packed_config, packed_paths
from tests.helpers.videos import READERS
from vsn.config import ClipSpec, ConfigError, DataConfig
from vsn.data.loader import make_loader
from vsn.data.packing.pack import verify_pack
from vsn.data.readers import read_records
from vsn.data.video import VideoError, open_video
from vsn.data.video.packed_files import Shard
from vsn.data.video.reader import scaled_size

# From Python 3.12 on, a fork in a process with threads warns; PyTorch's threads are always there.
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


# --- reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("indices", [[0], [39], [39, 0], [5, 5, 5], [3, 17, 11, 17], list(range(40))])
def test_indices_are_exact_in_any_order(textured: tuple[Path, Path], indices: list[int]) -> None:
    video = open_video(textured[1])
    assert (video.num_frames, video.frames_per_second) == (40, 12.5)
    frames = video.frames_at(indices)
    assert np.array_equal(frames, open_video(textured[1]).all_frames()[indices])


@pytest.mark.parametrize("short_side", [16, 64, 100])
def test_another_short_side(textured: tuple[Path, Path], short_side: int) -> None:
    frames = open_video(textured[1], short_side=short_side).frames_at([2, 9])
    original = open_video(textured[0], short_side=short_side).frames_at([2, 9])
    assert frames.shape == original.shape == (2, *scaled_size(64, 96, short_side), 3)
    assert np.abs(frames.astype(int) - original.astype(int)).mean() < 3
    assert open_video(textured[1], short_side=short_side).all_frames().shape[1:] == frames.shape[1:]


@pytest.mark.parametrize("indices", [[], [-1], [40]])
def test_frames_outside_the_video(textured: tuple[Path, Path], indices: list[int]) -> None:
    with pytest.raises(ValueError, match="0 to 39"):
        open_video(textured[1]).frames_at(indices)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("shard-00099.vsnpack/0", "packed file cannot be opened"),
        ("shard-00000.vsnpack/1", "has no video '1'; it holds videos 0 to 0"),
        ("shard-00000.vsnpack/-1", "has no video '-1'"),
        ("shard-00000.vsnpack/x.mp4", "has no video 'x.mp4'"),
    ],
)
def test_places_that_are_not_there(packed: Path, place: str, reason: str) -> None:
    for read in READERS.values():
        with pytest.raises(VideoError, match=reason) as caught:
            read(packed / place)
        assert caught.value.path == str(packed / place)


def test_few_files_stay_open(packed: Path, tmp_path: Path) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("open files are counted in /proc")
    before = len(os.listdir("/proc/self/fd"))
    source = packed_paths(packed)[0].parent
    for i in range(60):
        open_video(Path(shutil.copy(source, tmp_path / f"{i}.vsnpack")) / "0").frames_at([0])
    assert len(os.listdir("/proc/self/fd")) <= before + 32


def test_a_replaced_file_is_read_anew(packed: Path, tmp_path: Path) -> None:
    first, second = packed_paths(packed)[:2]
    for path in (first, second):
        shutil.copy(path.parent, tmp_path / "new.vsnpack")
        shutil.move(tmp_path / "new.vsnpack", tmp_path / "x.vsnpack")
        assert np.array_equal(open_video(tmp_path / "x.vsnpack/0").all_frames(), open_video(path).all_frames())
    assert first.name == second.name == "0"
    assert open_video(first).metadata != open_video(second).metadata


@forks
def test_loaders_read_it_with_any_number_of_workers(packed: Path) -> None:
    spec = ClipSpec(short_side=SIDE, crop_size=16)
    records = read_records(packed_config(packed), "train")
    dataset = clip_dataset(records, clip=spec, num_frames=4, train=True, flip="random")
    alone, with_workers = (
        [
            (batch.clips, batch.targets)
            for batches in make_loader(dataset, batch_size=5, num_workers=num_workers, shuffle=True)
            for batch in batches
        ]
        for num_workers in (0, 2)
    )
    assert [len(clips) for clips, _ in alone] == [5, 5, 2]
    for (clips, targets), (same_clips, same_targets) in zip(alone, with_workers, strict=True):
        assert torch.equal(clips, same_clips)
        assert torch.equal(targets, same_targets)


def test_clips_are_those_of_the_source(tiny_data: Path, packed: Path) -> None:
    spec = ClipSpec(short_side=SIDE, crop_size=16)
    source, copy = (
        clip_dataset(read_records(config, "train"), clip=spec, num_frames=4, train=True, flip="random")
        for config in (DataConfig(root=str(tiny_data)), packed_config(packed))
    )
    for key in [(0, 0), (1, 3), (2, 11)]:
        mine, its = copy[key], source[key]
        assert torch.equal(mine.target, its.target)
        assert (mine.clip.int() - its.clip.int()).abs().float().mean() < 3


# --- damage ----------------------------------------------------------------------------------------


def test_a_damaged_frame_is_named_and_the_others_are_read(copy: Path) -> None:
    path = packed_paths(copy)[3]
    whole = open_video(path).all_frames()
    shard = Shard(path.parent)
    video_id = shard.description["ids"][int(path.name)]
    first = int(shard.videos[int(path.name)]["start"])
    second = first + int(shard.frame_table(int(path.name))[0]["size"][0])
    damage(path.parent, second + 100)
    with pytest.raises(VideoError, match=f"frame 1 is damaged .*{video_id}.*vsn data pack") as caught:
        open_video(path).all_frames()
    assert caught.value.path == str(path)
    assert np.array_equal(open_video(path).frames_at([0, 2]), whole[[0, 2]])
    assert [(fault.path, fault.reason) for fault in verify_pack(copy, progress=False)] == [
        (str(path), caught.value.reason)
    ]


def test_any_damaged_byte_is_found(copy: Path) -> None:
    path = packed_paths(copy)[0]
    content, whole = path.parent.read_bytes(), open_video(path).all_frames()
    positions = np.random.default_rng(0).integers(len(content), size=25).tolist()
    for position in [0, 7, *positions, *range(len(content) - 28, len(content), 3)]:
        path.parent.write_bytes(content)
        damage(path.parent, position)
        assert verify_pack(copy, num_workers=1, progress=False), position
        try:
            frames = open_video(path).all_frames()
        except VideoError as error:
            assert str(path.parent) in error.path  # noqa: PT017
        else:
            assert np.array_equal(frames, whole), position


@pytest.mark.parametrize("keep", [0, 4, 30, 0.5, -1])
def test_a_cut_file_is_found(copy: Path, keep: float) -> None:
    path = packed_paths(copy)[0]
    content = path.parent.read_bytes()
    size = int(keep * len(content)) if isinstance(keep, float) else keep
    path.parent.write_bytes(content[:size])
    with pytest.raises(VideoError, match=r"truncated|missing or damaged") as caught:
        open_video(path).all_frames()
    assert str(path.parent) in caught.value.path
    assert [fault.path for fault in verify_pack(copy, progress=False)] == [str(path.parent)]


def test_verification_finds_nothing_in_a_good_pack_and_a_shard_that_is_gone(copy: Path) -> None:
    assert verify_pack(copy, progress=False) == ()
    gone = packed_paths(copy)[0].parent
    gone.unlink()
    assert [fault.path for fault in verify_pack(copy, progress=False)] == [str(gone)]
    with pytest.raises(ConfigError, match=r"no pack\.json"):
        verify_pack(copy.parent)


def test_verification_finds_a_shard_of_other_videos(copy: Path) -> None:
    first, second = sorted(copy.glob("*.vsnpack"))[:2]
    shutil.copy(first, second)
    (fault,) = verify_pack(copy, progress=False)
    assert fault.path == str(second)
    assert "other videos than pack.json" in fault.reason


def edited(text: str, fault: str) -> str:
    header, *rows = text.splitlines(keepends=True)
    path, label, *rest = rows[3].split(",")
    relabeled = ",".join([path, "wave" if label != "wave" else "swipe_left", *rest])
    return {
        "cut": "".join([header, *rows[:-1]]),
        "a row twice": text + rows[0],
        "empty": "",
        "cut within a line": text[:-20],
        "another label": text.replace(rows[3], relabeled),
        "two rows exchanged": "".join([header, *rows[:3], rows[4], rows[3], *rows[5:]]),
        "another split": text.replace(",train,", ",val,", 1),
    }[fault]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("cut", "it has 17 rows; it was written with 18 rows"), ("a row twice", "19 rows"), ("empty", "0 rows"),
        *((fault, "has changed") for fault in ("cut within a line", "another label", "two rows exchanged", "another split")),
    ],
)  # fmt: skip
def test_verification_finds_another_list_of_videos(copy: Path, fault: str, reason: str) -> None:
    file = copy / "videos.csv"
    file.write_text(edited(file.read_text(), fault))
    (error,) = verify_pack(copy, progress=False)
    assert error.path == str(file)
    assert reason in error.reason


def test_verification_finds_a_list_that_is_gone(copy: Path) -> None:
    (copy / "videos.csv").unlink()
    assert [error.path for error in verify_pack(copy, progress=False)] == [str(copy / "videos.csv")]


def test_a_pack_without_a_checksum_of_its_list_is_read(copy: Path) -> None:
    """As earlier versions wrote it: only the number of videos is known."""
    marker = json.loads((copy / "pack.json").read_text())
    del marker["list"]
    (copy / "pack.json").write_text(json.dumps(marker))
    assert verify_pack(copy, progress=False) == ()
    assert read_records(packed_config(copy), "train").records
    text = (copy / "videos.csv").read_text()
    (copy / "videos.csv").write_text("\n".join(text.splitlines()[:5]) + "\n")
    assert "4 videos" in verify_pack(copy, progress=False)[0].reason
