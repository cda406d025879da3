import re
from pathlib import Path

import pytest

from vsn.config import ConfigError, DataConfig
from vsn.data.flips import has_side, opposite_labels
from vsn.data.readers import read_records
from vsn.data.records import RecordSet, VideoRecord


def touch(root: Path, *names: str) -> Path:
    """Readers look at names, not into files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def ids(records: RecordSet) -> list[str]:
    return [record.video_id for record in records.records]


def write_csv(root: Path, text: str, *videos: str, name: str = "clips.csv") -> DataConfig:
    touch(root, *videos)
    (root / name).write_text(text, encoding="utf-8")
    return DataConfig(root=str(root), source="csv")


# --- names with a side -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("left", True),
        ("Pushing something from left to right", True),
        ("left-to-right", True),
        ("swipe_left", True),
        ("swipeLeft", True),
        ("TurnRIGHT", True),
        ("LEFTHand", True),
        ("turn left2", True),
        ("Turning Hand Clockwise", True),
        ("turning_hand_counterclockwise", True),
        ("CounterClockwise", True),
        ("leftover", False),
        ("eating leftovers", False),
        ("bright", False),
        ("upright", False),
        ("righteous", False),
        ("clock", False),
        ("up", False),
        ("", False),
    ],
)
def test_has_side(name: str, expected: bool) -> None:
    assert has_side(name) is expected


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("left", "right"), {0: 1, 1: 0}),
        (("left", "up"), {}),
        (("left to right", "right to left"), {0: 1, 1: 0}),
        (("Swiping Left", "wave", "Swiping Right", "Sliding Left"), {0: 2, 2: 0}),
        (("swipe_left", "swipe-right"), {0: 1, 1: 0}),
        (("turnLeft", "turnRight"), {0: 1, 1: 0}),
        (("Turning Hand Clockwise", "Turning Hand Counterclockwise"), {0: 1, 1: 0}),
        (("clockwise", "anti-clockwise"), {0: 1, 1: 0}),
        (("bright", "bleft"), {}),
        (("left", "Left", "right"), {}),  # which of the two would right become?
        ((), {}),
    ],
)
def test_opposite_labels(classes: tuple[str, ...], expected: dict[int, int]) -> None:
    assert opposite_labels(classes) == expected


# --- folders ---------------------------------------------------------------------------------------


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
    assert {name[2:] for name in held[0] if name[0] == "b"} != {
        name[2:] for name in held[0] if name[0] == "c"
    }
    touch(root, *(f"a/{i:02}.mp4" for i in range(7)))
    more = ids(read_records(DataConfig(root=str(root)), "val"))
    assert [name for name in more if name[0] != "a"] == held[0]


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
        (("1.mp4", "2.mp4"), "train", "2 videos lie in it without a class folder"),
        (("a/1.mp4", "a/2.mp4"), "train", "the only class is 'a'; a classifier needs two or more"),
        (("train/a/1.mp4", "train/b/1.mp4", "test/a/2.mp4"), "val",
         "no split 'val'; present: 'test', 'train'. Set data.val_split .* \"test\""),
        (("train/a/1.mp4", "train/b/1.mp4", "val/a/2.mp4"), "test", 'Set data.test_split .* "val"'),
        (("train/a/1.mp4", "train/b/1.mp4"), "dev", "no split 'dev'; present: 'train'. Ask for one of them"),
        (("a/1.mp4", "b/1.mp4"), "dev", "states no splits, so 'dev' means nothing"),
        (("a/1.mp4", "b/1.mp4"), "val", "every class has a single video"),
        (("train/a/1.mp4", "val/a/notes.txt"), "val", "no videos were found"),
    ],
)  # fmt: skip
def test_folders_that_cannot_be_read(
    tmp_path: Path, files: tuple[str, ...], split: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_records(DataConfig(root=str(touch(tmp_path, *files))), split)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DataConfig(), "data.root is empty"),
        (DataConfig(root="nowhere"), "data.root is 'nowhere', and there is no such folder.$"),
        (DataConfig(root="nowhere", source="csv"), "no such folder.$"),
        (DataConfig(root="nowhere", source="synthetic"), "no such folder; `vsn data synth nowhere` writes"),
    ],
)
def test_no_folder(config: DataConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_records(config, "train")


# --- CSV -------------------------------------------------------------------------------------------


def test_csv_with_splits(tmp_path: Path) -> None:
    config = write_csv(
        tmp_path,
        "path,label,subject,split\n"
        'x/1.mp4,wave,S1,train\ny/2.mp4,"clap, hands",S2,train\n3.mp4,jump,S3,test\n',
        "x/1.mp4", "y/2.mp4", "3.mp4",
    )  # fmt: skip
    train = read_records(config, "train")
    assert train.classes == ("clap, hands", "jump", "wave")
    assert train.records == (
        VideoRecord(tmp_path / "x/1.mp4", (2,), "x/1.mp4"),
        VideoRecord(tmp_path / "y/2.mp4", (0,), "y/2.mp4"),
    )
    assert ids(read_records(config, "test")) == ["3.mp4"]


def test_csv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    text = "\ufeffpath, label \r\n1.mp4, wave\r\n\r\n2.mp4,clap \r\n"
    config = write_csv(tmp_path, text, "1.mp4", "2.mp4")
    train = read_records(config, "train")
    assert train.classes == ("clap", "wave")
    assert ids(train) == ["2.mp4", "1.mp4"]


def test_csv_without_splits_is_held_out(tmp_path: Path) -> None:
    names = [f"{i}.mp4" for i in range(20)]
    text = "path,label\n" + "".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(names))
    config = write_csv(tmp_path, text, *names)
    train, val = read_records(config, "train"), read_records(config, "val")
    assert [sum(record.label == label for record in val.records) for label in (0, 1)] == [2, 2]
    assert sorted(ids(train) + ids(val)) == sorted(names)
    assert read_records(config, "test") == val


def test_csv_paths_count_from_its_folder_then_from_root(tmp_path: Path) -> None:
    outside = touch(tmp_path / "outside", "3.mp4") / "3.mp4"
    root = touch(tmp_path / "root", "lists/1.mp4", "1.mp4", "2.mp4")
    (root / "lists/clips.csv").write_text(
        f"path,label,split\n1.mp4,a,train\n2.mp4,b,train\n{outside},b,train\n"
    )
    config = DataConfig(root=str(root), source="csv", annotations="lists/clips.csv")
    assert ids(read_records(config, "train")) == ["lists/1.mp4", "2.mp4", outside.as_posix()]


def test_csv_split_aliases(tmp_path: Path) -> None:
    config = write_csv(tmp_path, "path,label,split\n1.mp4,a,train\n2.mp4,b,validation\n", "1.mp4", "2.mp4")
    assert ids(read_records(config, "val")) == ["2.mp4"]


@pytest.mark.parametrize(
    ("text", "split", "message"),
    [
        ("file,label\n1.mp4,a\n", "train", "the header is 'file,label'; it needs the columns path and label"),
        ("1.mp4;a\n", "train", "the header is '1.mp4;a'"),
        ("", "train", "the header is 'empty'"),
        ("path,label\n", "train", "no line follows the header"),
        ("path,label\n1.mp4,a\n2.mp4,\n", "train", "the label on line 3 is empty"),
        ("path,label\n1.mp4,a\n2.mp4\n", "train", "the label on line 3 is empty"),
        ("path,label\n,a\n", "train", "the path on line 2 is empty"),
        ("path,label,split\n1.mp4,a,train\n2.mp4,b,\n", "train", "the split on line 3 is empty"),
        ("path,label\n1.mp4,a\n2.mp4,a\n", "train", "the only class is 'a'"),
        ("path,label,split\n1.mp4,a,train\n2.mp4,b,test\n", "val",
         "no split 'val'; present: 'test', 'train'. Set data.val_split .* \"test\""),
        ("path,label\n1.mp4,a\nm1.mp4,a\n2.mp4,b\nm2.mp4,b\nm3.mp4,b\nm4.mp4,b\n", "train",
         r"4 of 6 videos are missing: 'm1.mp4' \(line 3\), 'm2.mp4' \(line 5\), 'm3.mp4' \(line 6\), \.\.\."),
        ("path,label\n1.mp4,a\nm1.mp4,b\n", "train", r"1 of 2 videos are missing: 'm1.mp4' \(line 3\)\. "),
    ],
)  # fmt: skip
def test_csv_that_cannot_be_read(tmp_path: Path, text: str, split: str, message: str) -> None:
    config = write_csv(tmp_path, text, "1.mp4", "2.mp4")
    with pytest.raises(ConfigError, match=message):
        read_records(config, split)


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_bytes("path,label\n1.mp4,Übung\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="not a CSV file in UTF-8"):
        read_records(DataConfig(root=str(tmp_path), source="csv"), "train")


def test_which_csv(tmp_path: Path) -> None:
    config = DataConfig(root=str(tmp_path), source="csv")
    with pytest.raises(
        ConfigError, match=re.escape("holds 0 (none); name the one to read in data.annotations")
    ):
        read_records(config, "train")
    write_csv(tmp_path, "path,label,split\n1.mp4,a,train\n2.mp4,b,train\n", "1.mp4", "2.mp4", name="a.csv")
    assert len(read_records(config, "train").records) == 2
    touch(tmp_path, "b.csv")
    with pytest.raises(ConfigError, match=re.escape("holds 2 (a.csv, b.csv)")):
        read_records(config, "train")
    with pytest.raises(ConfigError, match=r"data.annotations is 'c.csv'; there is no file"):
        read_records(DataConfig(root=str(tmp_path), source="csv", annotations="c.csv"), "train")


def test_gestures(shared_data: Path) -> None:
    root = shared_data / "data/gestures"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    config = DataConfig(root=str(root), source="csv")
    train, test = read_records(config, "train"), read_records(config, "test")
    assert (len(train.records), len(test.records), len(train.classes)) == (360, 90, 15)
    assert {record.path.name.split("_")[0] for record in test.records} == {"S2", "S9"}
    names = {train.classes[a]: train.classes[b] for a, b in opposite_labels(train.classes).items()}
    assert names == {"left": "right", "right": "left"}


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


def test_misspelt_split_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,label,Split\nx.mp4,a,train\n")
    with pytest.raises(ConfigError, match="unknown column 'Split'; did you mean 'split'"):
        read_records(DataConfig(root=str(tmp_path), source="csv"), "train")
