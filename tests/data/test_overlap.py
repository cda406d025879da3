"""What training finds when it compares the splits: videos in two of them, copies, classes that nothing teaches."""

import functools
import io
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.conftest import gray_frames
from tests.helpers.laid_out import Files, lay
from vsn.config import ConfigError, DataConfig, ModelConfig, Recipe
from vsn.data import overlap
from vsn.data.dataset import VideoDataset
from vsn.data.open import open_datasets
from vsn.data.video import write_video

HEADER = "path,label,split\n"
ROWS = "a1.mp4,a,train\na2.mp4,a,train\nb1.mp4,b,train\nb2.mp4,b,train\na3.mp4,a,val\nb3.mp4,b,val\n"
VIDEOS = ("a1", "a2", "b1", "b2", "a3", "b3")


@functools.cache
def video_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_video(f"{folder}/x.mp4", gray_frames(4), frames_per_second=4)
        return Path(folder, "x.mp4").read_bytes()


def write_videos(root: Path, contents: Files) -> None:
    """Videos whose bytes differ where their contents do; "page" is none."""
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        box = b"" if content == "page" else video_bytes() + b"\0\0\0\x18free"
        (root / name).write_bytes(box + content.encode().ljust(16))


def lay_videos(root: Path, text: str = ROWS, videos: Files | None = None) -> DataConfig:
    write_videos(root, {f"{name}.mp4": f"video {name}" for name in VIDEOS} | (videos or {}))
    lay(root, {"clips.csv": HEADER + text})
    return DataConfig(root=str(root), source="csv")


def open_sets(config: DataConfig) -> tuple[VideoDataset, VideoDataset, str]:
    console = Console(record=True, width=500, file=io.StringIO())
    train, val = open_datasets(Recipe(data=config, model=ModelConfig(num_frames=4)), console)
    return train, val, console.export_text()


def test_splits_without_a_common_video(tmp_path: Path) -> None:
    train, val, text = open_sets(lay_videos(tmp_path))
    assert (len(train), len(val)) == (4, 2)
    assert text.strip() == "4 training videos of 2 classes (2 each), 2 validation videos (split 'val')."


@pytest.mark.parametrize(
    ("rows", "videos", "message"),
    [
        ("a1.mp4,a,val\n", {},
         r"1 video is in two splits.* 'a1.mp4' \(clips.csv, line 2\) in 'train' and 'a1.mp4' .*line 8\) in 'val'"),
        ("./a1.mp4,a,val\na2.mp4,a,val\n", {}, r"2 videos are in two splits.*data.allow_overlap"),
        ("a1.mp4,a,test\n", {}, r"line 2\) in 'train' and .*line 8\) in 'test'"),
        ("a3.mp4,a,test\n", {}, r"line 6\) in 'val' and .*line 8\) in 'test'"),
        ("copy.mp4,a,val\n", {"copy.mp4": "video a1"},
         r"'a1.mp4' \(clips.csv, line 2\) in 'train' and 'copy.mp4' \(clips.csv, line 8\) in 'val'"),
        ("copy.mp4,a,test\n", {"copy.mp4": "video a1"}, r"in 'train' and 'copy.mp4' .* in 'test'"),
    ],
)  # fmt: skip
def test_a_video_in_two_splits(tmp_path: Path, rows: str, videos: Files, message: str) -> None:
    config = lay_videos(tmp_path, ROWS + rows, videos)
    with pytest.raises(ConfigError, match=message):
        open_sets(config)
    train, val, text = open_sets(replace(config, allow_overlap=True))
    assert len(train) == 4
    assert len(val) == 2 + rows.count(",val")
    assert "data.allow_overlap permits it" in text


@pytest.mark.parametrize(
    ("rows", "videos"),
    [
        ("a1.mp4,b,train\n", {}),
        ("a1.mp4,b,val\n", {}),
        ("a1.mp4,b,test\n", {}),
        ("copy.mp4,b,train\n", {"copy.mp4": "video a1"}),
        ("copy.mp4,b,val\n", {"copy.mp4": "video a3"}),
        ("copy.mp4,b,test\n", {"copy.mp4": "video a1"}),
    ],
)
def test_a_video_with_two_labels(tmp_path: Path, rows: str, videos: Files) -> None:
    config = replace(lay_videos(tmp_path, ROWS + rows, videos), allow_overlap=True)
    with pytest.raises(ConfigError, match=r"(line 2|line 6).*line 8.*[Kk]eep the right one"):
        open_sets(config)


def test_labels_of_the_arrow_of_time_do_not_conflict(tmp_path: Path) -> None:
    config = lay_videos(tmp_path, ROWS + "copy.mp4,b,train\n", {"copy.mp4": "video a1"})
    train, _, text = open_sets(replace(config, task="arrow"))
    assert "copy.mp4" not in {record.path.name for record in train.records}
    assert len(train) == 8  # forward and reversed
    assert "1, for example 'copy.mp4' (clips.csv, line 8)" in text


@pytest.mark.parametrize("make", ["copy", "symlink", "hardlink"])
def test_copies_in_one_split(tmp_path: Path, make: str) -> None:
    rows = "again.mp4,a,train\ntwin.mp4,b,val\n"
    config = lay_videos(tmp_path, ROWS + rows, {"again.mp4": "video a1", "twin.mp4": "video b3"})
    for name, of in (("again", "a1"), ("twin", "b3")):
        if make != "copy":
            (tmp_path / f"{name}.mp4").unlink()
            link = Path.symlink_to if make == "symlink" else Path.hardlink_to
            link(tmp_path / f"{name}.mp4", tmp_path / f"{of}.mp4")
    train, val, text = open_sets(config)
    assert [record.video_id for record in train.records] == ["a1.mp4", "a2.mp4", "b1.mp4", "b2.mp4"]
    assert len(val) == 3  # as `vsn eval` counts them
    assert "Left out of training as copies of other videos: 1, for example 'again.mp4' (clips.csv, line 8)" in text
    assert "Copies in 'val' that count too: 1, for example 'twin.mp4' (clips.csv, line 9)" in text


@pytest.mark.parametrize("layout", ["class folders", "list without splits", "train and test"])
def test_copies_across_a_held_out_part_are_left_out_of_training(tmp_path: Path, layout: str) -> None:
    """The list does not say that the copy is for training and the original for validation."""
    names = [f"{c}/{i}.mp4" for c in "ab" for i in range(10)]
    content = {name: f"video {name}" for name in names} | {f"a/copy{i}.mp4": f"video a/{i}.mp4" for i in range(10)}
    prefix = "train/" if layout == "train and test" else ""
    write_videos(tmp_path, {prefix + name: text for name, text in content.items()})
    config = DataConfig(root=str(tmp_path))
    if layout == "train and test":
        write_videos(tmp_path, {"test/a/t.mp4": "video test"})
    elif layout == "list without splits":
        lay(tmp_path, {"l.csv": "path,label\n" + "".join(f"{name},{name[0]}\n" for name in content)})
        config = replace(config, source="csv")
    train, val, text = open_sets(config)
    seen = [[content[str(r.path.relative_to(tmp_path / prefix))] for r in part.records] for part in (train, val)]
    assert not set(seen[0]) & set(seen[1])
    assert len(set(seen[0])) == len(seen[0])
    assert set(seen[0]) | set(seen[1]) == set(content.values())
    assert "Left out of training" in text


def test_a_copy_of_a_test_video_is_no_part_of_training(tmp_path: Path) -> None:
    names = {f"train/{c}/{i}.mp4": f"video {c}{i}" for c in "ab" for i in range(5)}
    write_videos(tmp_path, names | {"test/a/t.mp4": "video a0"})
    with pytest.raises(ConfigError, match=r"in two splits.*'test/a/t.mp4' in 'test'"):
        open_sets(DataConfig(root=str(tmp_path)))


def test_validating_on_the_training_split(tmp_path: Path) -> None:
    config = replace(lay_videos(tmp_path), val_split="train")
    with pytest.raises(ConfigError, match="4 videos are in two splits"):
        open_sets(config)
    train, val, _ = open_sets(replace(config, allow_overlap=True))
    assert len(train) == len(val) == 4


def test_validation_and_test_may_be_one_split(tmp_path: Path) -> None:
    rows = ROWS + "a3.mp4,a,test\nb3.mp4,b,test\n"  # as `vsn data pack` writes a held-out part
    assert len(open_sets(lay_videos(tmp_path, rows))[1]) == 2


def test_a_test_split_that_cannot_be_read_does_not_stop_training(tmp_path: Path) -> None:
    assert len(open_sets(lay_videos(tmp_path, ROWS + "missing.mp4,a,test\n"))[0]) == 4


def test_failed_downloads_are_no_copies(tmp_path: Path) -> None:
    """One error page under two names, of two classes and splits: unreadable, which training counts."""
    rows = ROWS + "x.mp4,a,train\ny.mp4,b,train\nz.mp4,b,val\n"
    train, val, _ = open_sets(lay_videos(tmp_path, rows, dict.fromkeys(("x.mp4", "y.mp4", "z.mp4"), "page")))
    assert (len(train), len(val)) == (6, 3)


def test_copies_are_not_looked_for_in_large_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = lay_videos(tmp_path, ROWS + "copy.mp4,a,train\n", {"copy.mp4": "video a1"})
    monkeypatch.setattr(overlap, "MAX_COMPARED", 6)
    train, _, text = open_sets(config)
    assert len(train) == 5
    assert "`vsn data doctor` looks in all" in text


# --- classes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_without_training_videos(tmp_path: Path, split: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"'hold' cannot be learned without videos in 'train'; in '{split}' .*line 8"
    ):
        open_sets(lay_videos(tmp_path, ROWS + f"c.mp4,hold,{split}\n", {"c.mp4": "video c"}))


def test_a_class_without_any_video_is_named(tmp_path: Path) -> None:
    """The class list of a data set of which a part was downloaded."""
    lay(tmp_path, {"x/1.mp4": "x", "y/1.mp4": "y", "z/1.mp4": "z", "classes.txt": "a\nb\nnever\n"})
    lay(tmp_path, {"train.txt": "x/1.mp4 0\ny/1.mp4 1\n", "val.txt": "z/1.mp4 0\n"})
    _, _, text = open_sets(DataConfig(root=str(tmp_path), source="slowfast-list"))
    assert "'never'" in text


def test_a_group_in_two_splits_is_a_note(tmp_path: Path) -> None:
    rows = ROWS.splitlines()
    people = {"a1": "p1", "a2": "p2", "b1": "p3", "b2": "p2", "a3": "p3", "b3": "p4"}
    write_videos(tmp_path, {f"{name}.mp4": f"video {name}" for name in VIDEOS})
    lay(tmp_path, {"clips.csv": "path,label,split,group\n" + "".join(f"{r},{people[r[:2]]}\n" for r in rows)})
    text = open_sets(DataConfig(root=str(tmp_path), source="csv"))[2]
    assert "1 group is in 'train' and in another split, for example 'p3' in 'val'" in text
