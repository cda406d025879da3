import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.laid_out import ids, touch
from vsn.config import ConfigError, DataConfig
from vsn.data.readers import NoSplitError, read_records
from vsn.data.records import VideoRecord


def test_split_folders(tmp_path: Path) -> None:
    root = touch(
        tmp_path,
        "train/wave/b.mp4", "train/wave/a.MP4", "train/clap/deep/er/c.webm", "train/clap/.hidden.mp4",
        "train/clap/notes.txt", "train/.cache/x.mp4", "val/wave/d.mp4", "test/jump/e.avi", "dataset.json",
    )  # fmt: skip
    config = DataConfig(root=str(root))
    train = read_records(config, "train")
    assert train.classes == ("clap", "jump", "wave")  # of all splits
    assert train.records == (
        VideoRecord(root / "train/clap/deep/er/c.webm", (0,), "train/clap/deep/er/c.webm"),
        VideoRecord(root / "train/wave/a.MP4", (2,), "train/wave/a.MP4"),
        VideoRecord(root / "train/wave/b.mp4", (2,), "train/wave/b.mp4"),
    )
    assert ids(read_records(config, "val")) == ["val/wave/d.mp4"]
    assert ids(read_records(config, "test")) == ["test/jump/e.avi"]
    synthetic = DataConfig(root=str(root), source="synthetic")
    assert read_records(synthetic, "train") == train


@pytest.mark.parametrize("folder", ["validation", "valid", "val"])
def test_split_names_that_mean_the_same(tmp_path: Path, folder: str) -> None:
    root = touch(tmp_path, "training/a/1.mp4", "training/b/1.mp4", f"{folder}/a/2.mp4")
    config = DataConfig(root=str(root))
    assert ids(read_records(config, "val")) == [f"{folder}/a/2.mp4"]
    assert ids(read_records(config, "train")) == ["training/a/1.mp4", "training/b/1.mp4"]


def test_split_with_a_name_of_its_own(tmp_path: Path) -> None:
    root = touch(tmp_path, "fold1/a/1.mp4", "fold1/b/1.mp4", "fold2/a/2.mp4")
    config = DataConfig(root=str(root), train_split="fold1", val_split="fold2")
    assert ids(read_records(config, "fold2")) == ["fold2/a/2.mp4"]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"{name}/{i}.mp4" for name in ("bus", "train") for i in range(5)))
    assert read_records(DataConfig(root=str(root)), "train").classes == ("bus", "train")


@pytest.mark.parametrize(
    ("fraction", "num_videos", "num_held"),
    [
        (0.2, 10, 2),
        (0.2, 5, 1),
        (0.2, 2, 1),
        (0.2, 1, 0),
        (0.9, 2, 1),
        (0.99, 10, 9),
        (0.01, 10, 1),
        (0.25, 6, 2),
    ],
)
def test_hold_out_sizes(tmp_path: Path, fraction: float, num_videos: int, num_held: int) -> None:
    names = [f"many/{i}.mp4" for i in range(20)] + [f"some/{i}.mp4" for i in range(num_videos)]
    config = DataConfig(root=str(touch(tmp_path, *names)), val_fraction=fraction)
    train, val = read_records(config, "train"), read_records(config, "val")
    assert sum(record.label == 1 for record in val.records) == num_held
    assert sum(record.label == 1 for record in train.records) == num_videos - num_held
    assert sorted(ids(train) + ids(val)) == sorted(names)
    assert read_records(config, "test") == val
    assert train == read_records(config, "train")
    assert train.classes == val.classes == ("many", "some")


def test_hold_out_depends_on_its_seed_and_on_no_other_class(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"{name}/{i:02}.mp4" for name in ("b", "c") for i in range(30)))
    held = [ids(read_records(DataConfig(root=str(root), split_seed=seed), "val")) for seed in (0, 0, 1)]
    assert held[0] == held[1] != held[2]
    assert {name[2:] for name in held[0] if name[0] == "b"} != {name[2:] for name in held[0] if name[0] == "c"}
    touch(root, *(f"a/{i:02}.mp4" for i in range(7)))
    more = ids(read_records(DataConfig(root=str(root)), "val"))
    assert [name for name in more if name[0] != "a"] == held[0]


@pytest.mark.parametrize(
    ("name", "text", "is_list"),
    [
        ("clips.csv", "path,label,group,split\n", True),
        ("Clips.CSV", '"Label";"Path"\r\n', True),
        ("clips.csv", "\ufeffpath\tlabel\n", True),
        ("bad.csv", "path,reason\n", False),
        ("clips.csv", "", False),
        ("._clips.csv", "path,label\n", False),
        ("clips.txt", "path,label\n", False),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("splits", [("",), ("train/", "val/")])
def test_a_list_beside_the_folders_is_not_left_out_silently(
    tmp_path: Path, name: str, text: str, is_list: bool, encoding: str, splits: tuple[str, ...]
) -> None:
    touch(tmp_path, *(f"{split}{label}/{i}.mp4" for split in splits for label in "ab" for i in (1, 2)))
    (tmp_path / name).write_bytes(text.encode(encoding))
    (tmp_path / "folder.csv").mkdir()
    notes = [note for note in read_records(DataConfig(root=str(tmp_path)), "train").notes if "data.source csv" in note]
    assert len(notes) == is_list
    assert all(repr(name) in note for note in notes)


def test_links_to_class_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "1.mp4", "2.mp4")
    root = touch(tmp_path / "data", "b/1.mp4", "b/2.mp4")
    (root / "a").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "b/again").symlink_to(root / "b", target_is_directory=True)
    train, val = (ids(read_records(DataConfig(root=str(root)), split)) for split in ("train", "val"))
    assert sorted(train + val) == ["a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4"]


def test_arrow_gives_every_video_both_ways(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "val/a/3.mp4")
    config = DataConfig(root=str(root), task="arrow")
    path = root / "train/a/1.mp4"
    train = read_records(config, "train")
    assert train.classes == ("forward", "reversed")
    assert train.records[:2] == (
        VideoRecord(path, (0,), "train/a/1.mp4", reverse=False),
        VideoRecord(path, (1,), "train/a/1.mp4#reversed", reverse=True),
    )
    assert ids(train)[2:] == ["train/b/2.mp4", "train/b/2.mp4#reversed"]
    assert len(read_records(config, "val").records) == 2


def test_arrow_needs_one_class_only(tmp_path: Path) -> None:
    root = touch(tmp_path, "all/1.mp4", "all/2.mp4")
    assert len(read_records(DataConfig(root=str(root), task="arrow"), "train").records) == 2


@pytest.mark.parametrize(
    ("files", "split", "message"),
    [
        ((), "train", r"no videos were found.*split/class/video.*class/video.*\.mp4"),
        (("a/notes.txt",), "train", "no videos were found"),
        (("a/1.jpg", "b/1.jpg"), "train", "'a' holds images"),
        (("train/a/1.jpg", "val/a/1.jpg"), "train", "train: 'a' holds images"),
        (("1.mp4", "2.mp4"), "train", "2 videos are not in a class folder"),
        (("a/1.mp4", "a/2.mp4"), "train", "the only class is 'a'; a classifier needs two or more"),
        (("train/a/1.mp4", "train/b/1.mp4", "test/a/2.mp4"), "val", "every class has one video"),
        (("train/a/1.mp4", "train/b/1.mp4", "val/a/2.mp4"), "test", 'Set data.test_split .* "val"'),
        (("train/a/1.mp4", "train/b/1.mp4"), "dev", "no split 'dev'; present: 'train'"),
        (("a/1.mp4", "b/1.mp4"), "dev", "states no splits.*'dev'"),
        (("a/1.mp4", "b/1.mp4"), "val", "every class has one video"),
        (("train/a/1.mp4", "val/a/notes.txt"), "val", "no videos were found"),
    ],
)  # fmt: skip
def test_folders_that_cannot_be_read(tmp_path: Path, files: tuple[str, ...], split: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_records(DataConfig(root=str(touch(tmp_path, *files))), split)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DataConfig(), "data.root is empty"),
        (
            DataConfig(root="nowhere"),
            "data.root is 'nowhere'.*working directory, /",
        ),
        (DataConfig(root="nowhere", source="csv"), "working directory, /"),
        (DataConfig(root="nowhere", source="synthetic"), "no such folder; `vsn data synth nowhere` writes"),
    ],
)
def test_no_folder(config: DataConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_records(config, "train")


@pytest.mark.parametrize("names", [("Train", "Validation"), ("TRAINING", "Val"), ("train", "Valid")])
def test_capitals_in_split_folders(tmp_path: Path, names: tuple[str, str]) -> None:
    root = touch(tmp_path, f"{names[0]}/a/1.mp4", f"{names[0]}/b/1.mp4", f"{names[1]}/a/2.mp4")
    config = DataConfig(root=str(root))
    assert ids(read_records(config, "train")) == [f"{names[0]}/a/1.mp4", f"{names[0]}/b/1.mp4"]
    assert ids(read_records(config, "val")) == [f"{names[1]}/a/2.mp4"]


def test_folders_of_frames_are_videos(tmp_path: Path) -> None:
    root = touch(
        tmp_path,
        "train/wave/v2/00001.jpg", "train/wave/v2/00002.jpg", "train/wave/v1/frame_1.PNG", "train/wave/notes/a.txt",
        "train/wave/.thumbs/1.jpg", "train/wave/day 2/v3/1.jpeg", "train/wave/day 2/sheet.jpg",
        "train/clap/c.mp4", "train/clap/thumbs/c.jpg", "train/jog/a thumbs/1.jpg", "train/jog/b/d.mp4", "val/jump/v4/1.webp",
    )  # fmt: skip
    config = DataConfig(root=str(root))
    train = read_records(config, "train")
    assert train.classes == ("clap", "jog", "jump", "wave")
    assert ids(train) == [
        "train/clap/c.mp4",
        "train/jog/b/d.mp4",
        "train/wave/day 2/v3",
        "train/wave/v1",
        "train/wave/v2",
    ]
    assert train.records[-1] == VideoRecord(root / "train/wave/v2", (3,), "train/wave/v2")
    assert ids(read_records(config, "val")) == ["val/jump/v4"]


def test_folders_of_frames_without_splits(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"{name}/v{i}/{j}.jpg" for name in "ab" for i in range(5) for j in range(3)))
    config = DataConfig(root=str(root))
    train, val = read_records(config, "train"), read_records(config, "val")
    assert sorted(ids(train) + ids(val)) == [f"{name}/v{i}" for name in "ab" for i in range(5)]
    assert len(val.records) == 2


def test_a_class_of_frame_folders_may_be_called_train(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"{name}/v{i}/1.jpg" for name in ("bus", "train") for i in range(5)))
    assert read_records(DataConfig(root=str(root)), "train").classes == ("bus", "train")


def test_arrow_keeps_splits_of_loose_videos(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/1.mp4", "train/deep/2.mp4", "val/3.mp4")
    config = DataConfig(root=str(root), task="arrow")
    assert ids(read_records(config, "train"))[::2] == ["train/1.mp4", "train/deep/2.mp4"]
    assert ids(read_records(config, "val"))[::2] == ["val/3.mp4"]


def test_arrow_of_loose_folders_of_frames(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"v{i}/{j}.jpg" for i in range(5) for j in range(2)))
    train = read_records(DataConfig(root=str(root), task="arrow"), "train")
    assert (len(train.records), train.records[0].path.parent) == (8, root)


@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=4),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 5),
)
def test_hold_out_is_a_partition(sizes: list[int], fraction: float, seed: int) -> None:
    from vsn.data.readers.entries import Entry, hold_out

    config = DataConfig(root="r", val_fraction=fraction, split_seed=seed)
    entries = [
        Entry(Path(f"{name}/{i}"), (str(name),), f"{name}/{i}") for name, size in enumerate(sizes) for i in range(size)
    ]
    train = hold_out(config, "train", entries)
    held = hold_out(config, "val", entries) if max(sizes) > 1 else []
    assert sorted(train + held) == sorted(entries)
    for name, size in enumerate(sizes):
        num_held = sum(entry.class_names == (str(name),) for entry in held)
        assert num_held == min(size - 1, max(1, int(size * fraction + 0.5)))


def test_a_video_that_leaves_moves_no_other_between_the_parts(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(10):
            path = tmp_path / name / f"{number}.mp4"
            path.parent.mkdir(exist_ok=True)
            path.touch()
    config = DataConfig(root=str(tmp_path), val_fraction=0.3)
    before = {record.video_id for record in read_records(config, "train").records}
    gone = sorted(before)[0]
    (tmp_path / gone).unlink()
    after = {record.video_id for record in read_records(config, "val").records}
    assert len(before & after) == 0


def test_arrow_of_time_needs_no_class_folders(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.mp4").touch()
    records = read_records(DataConfig(root=str(tmp_path), task="arrow"), "train")
    assert records.classes == ("forward", "reversed")
    assert len(records.records) == 8
    assert sum(record.reverse for record in records.records) == 4


def test_a_split_that_is_not_there_is_an_error_of_its_own(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/a/1.mp4", "train/b/1.mp4")
    with pytest.raises(NoSplitError, match="no split 'test'"):
        read_records(DataConfig(root=str(root)), "test")
    with pytest.raises(NoSplitError, match="states no splits"):
        read_records(DataConfig(root=str(root / "train")), "dev")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("train/a/1.mp4", "train/b/1.mp4", "train/x.mp4", "val/a/2.mp4", "val/y.mp4"), "'train/x.mp4'"),
        (("train/a/1.mp4", "train/b/1.mp4", "val/a/2.mp4", "val/y.mp4"), "'val/y.mp4'"),
        (("a/train/1.mp4", "a/val/2.mp4", "b/train/1.mp4"), "'a/train'.*split/class/video"),
        (("a/Training/1.mp4", "b/test/2.mp4"), "'a/Training'.*split/class/video"),
        (("a/train/v1/1.jpg", "a/val/v2/1.jpg", "b/train/v3/1.jpg"), "'a/train'.*split/class/video"),
        (("train60/a/1.mp4", "train60/b/1.mp4", "val20/a/2.mp4"), "'train60'.*data.train_split"),
        (("my_train/a/1.mp4", "my_test/a/2.mp4"), "'my_test'.*data.test_split"),
        (("train set/a/v1/1.jpg", "test set/a/v2/1.jpg"), "'test set'.*data.test_split"),
        (("dataset/a/1.mp4", "dataset/b/2.mp4"), "set data.root to .*dataset"),
        (("dataset/train/a/1.mp4", "dataset/val/b/2.mp4"), "set data.root to .*dataset"),
    ],
)  # fmt: skip
def test_splits_are_not_taken_for_classes(tmp_path: Path, files: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_records(DataConfig(root=str(touch(tmp_path, *files))), "train")


@pytest.mark.parametrize(
    "files",
    [
        ("train_arrives/1.mp4", "train_arrives/2.mp4", "test_tube/1.mp4", "test_tube/2.mp4"),
        ("train_arrives/v1/1.jpg", "train_arrives/v2/1.jpg", "test_tube/v1/1.jpg", "test_tube/v2/1.jpg"),
        ("bus/train/1.mp4", "bus/2.mp4", "tram/train/1.mp4", "tram/2.mp4"),
        ("bus/1.mp4", "bus/2.mp4", "train/1.mp4", "train/deep/2.mp4"),
    ],
)
def test_classes_are_not_taken_for_splits(tmp_path: Path, files: tuple[str, ...]) -> None:
    names = {file.split("/")[0] for file in files}
    assert read_records(DataConfig(root=str(touch(tmp_path, *files))), "train").classes == tuple(sorted(names))


CLIPS = ("a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4")
SPLITS = ("train/a/1.mp4", "train/b/1.mp4", "val/a/2.mp4", "val/b/2.mp4")


@pytest.mark.parametrize(
    ("files", "note"),
    [
        ((*CLIPS, "x.mp4", "y.mov"), "not in a class folder are not read: 2, for example 'x.mp4'"),
        ((*SPLITS, "x.mp4"), "not in a class folder are not read: 1, for example 'x.mp4'"),
        ((*CLIPS, "c/x.zip", "d/.keep"), "without videos are no classes: 'c', 'd'"),
        ((*SPLITS, "train/c/x.txt"), "without videos are no classes: 'train/c'"),
        ((*CLIPS, "b/1.gif", "b/2.GIF", "b/3.vob"), r"not read: \.gif \(2\), \.vob \(1\)"),
        ((*CLIPS, "b/v1/1.jpg", "b/v1/2.jpg", "b/v2/1.jpg"), "frames .* are not read: 2, for example 'b/v1'"),
        (("kitchen/cut/1.mp4", "kitchen/2.mp4", "sport/golf/1.mp4"), "'kitchen/cut/1.mp4' has the class 'kitchen'"),
        (("ann/wave/v1/1.jpg", "ann/clap/v1/1.jpg", "bob/wave/v1/1.jpg"), "'ann/clap/v1' has the class 'ann'"),
        ((*SPLITS, "c/c/1.mp4"), "Not used.*'c'"),
        ((*SPLITS, "test/1.mp4"), "not in a class folder are not read: 1, for example 'test/1.mp4'"),
        ((*SPLITS[:2], "train/a/3.mp4", "Val/1.mp4", "Val/2.mp4"), "not read: 2, for example 'Val/1.mp4'"),
        ((*SPLITS, "a/1.mp4", "dev/a/3.mp4"), "Not used.*'a', 'dev'"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_noted(tmp_path: Path, files: tuple[str, ...], note: str) -> None:
    notes = read_records(DataConfig(root=str(touch(tmp_path, *files))), "train").notes
    assert any(re.search(note, text) for text in notes), notes


@pytest.mark.parametrize("target", ["gone.mp4", "b.mp4"])
def test_links_to_files_that_are_gone_are_noted(tmp_path: Path, target: str) -> None:
    root = touch(tmp_path, *CLIPS)
    (root / "b" / "b.mp4").symlink_to(root / "b" / target)  # gone, or a link to itself
    notes = read_records(DataConfig(root=str(root)), "train").notes
    assert any(re.search("[Ll]inks .* 1, for example 'b/b.mp4'", note) for note in notes), notes


@pytest.mark.parametrize(
    "extra",
    [
        ("a/.DS_Store", "a/Thumbs.db", "a/1.jpg", "a/desktop.ini", "list.csv", "README.md", ".cache/1.mp4"),
        ("@eaDir/1.mp4/x.jpg", "a/@eaDir/1.mp4", "#recycle/1.mp4", "$RECYCLE.BIN/1.mp4"),
        ("__MACOSX/a/1.mp4", "System Volume Information/1.mp4", "lost+found/1.mp4"),
    ],
)
@pytest.mark.parametrize("files", [CLIPS, SPLITS])
def test_what_systems_leave_in_folders_changes_nothing(
    tmp_path: Path, files: tuple[str, ...], extra: tuple[str, ...]
) -> None:
    plain = read_records(DataConfig(root=str(touch(tmp_path / "clips", *files))), "train")
    read = read_records(DataConfig(root=str(touch(tmp_path / "clips", *extra))), "train")
    assert read == plain
    assert read.notes == plain.notes
