from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tests.helpers.laid_out import ids, touch
from vsn.config import ConfigError, DataConfig, ModelConfig, Recipe
from vsn.data.flips import opposite_labels
from vsn.data.open import label_array, open_datasets
from vsn.data.readers import read_records
from vsn.data.records import VideoRecord


def write_csv(root: Path, text: str, *videos: str, name: str = "clips.csv") -> DataConfig:
    touch(root, *videos)
    (root / name).write_text(text, encoding="utf-8")
    return DataConfig(root=str(root), source="csv")


def test_csv_with_splits(tmp_path: Path) -> None:
    config = write_csv(
        tmp_path,
        "path,label,subject,split\n"
        'x/1.mp4,wave,S1,train\ny/2.mp4,"clap, hands",S2,train\n3.mp4,jump,S3,val\n',
        "x/1.mp4", "y/2.mp4", "3.mp4",
    )  # fmt: skip
    train = read_records(config, "train")
    assert train.classes == ("clap, hands", "jump", "wave")
    assert train.records == (
        VideoRecord(tmp_path / "x/1.mp4", (2,), "x/1.mp4"),
        VideoRecord(tmp_path / "y/2.mp4", (0,), "y/2.mp4"),
    )
    assert ids(read_records(config, "val")) == ["3.mp4"]


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
    (root / "lists/clips.csv").write_text(f"path,label,split\n1.mp4,a,train\n2.mp4,b,train\n{outside},b,train\n")
    config = DataConfig(root=str(root), source="csv", annotations="lists/clips.csv", val_split="none")
    assert ids(read_records(config, "train")) == ["lists/1.mp4", "2.mp4", outside.as_posix()]


def test_csv_split_aliases(tmp_path: Path) -> None:
    config = write_csv(tmp_path, "path,label,split\n1.mp4,a,train\n2.mp4,b,validation\n", "1.mp4", "2.mp4")
    assert ids(read_records(config, "val")) == ["2.mp4"]


@pytest.mark.parametrize(
    ("text", "split", "message"),
    [
        ("scene,label\n1.mp4,a\n", "train", "'scene,label'.* path,label"),
        ("1.mp4;a\n", "train", "the header is '1.mp4;a'"),
        ("", "train", "the header is 'empty'"),
        ("path,label\n", "train", "no line follows the header"),
        ("path,label\n1.mp4,a\n2.mp4,\n", "train", "line 3: the label is empty"),
        ("path,label\n1.mp4,a\n2.mp4\n", "train", "line 3: the label is empty"),
        ("path,label\n,a\n", "train", "line 2: the path is empty"),
        ("path,label,split\n1.mp4,a,train\n2.mp4,b,\n", "train", "line 3: the split is empty"),
        ("path,label\n1.mp4,a|\n", "train", r"line 2: .*'a\|'"),
        ("path,label\n1.mp4,a\n2.mp4,a\n", "train", "the only class is 'a'"),
        ("path,label,split\n1.mp4,a,train\n2.mp4,b,test\n", "dev", "no split 'dev'; present: 'test', 'train'"),
        ("path,label\n1.mp4,a\nm1.mp4,a\n2.mp4,b\nm2.mp4,b\nm3.mp4,b\nm4.mp4,b\n", "train",
         r"4 of 6 videos are missing: 'm1.mp4' \(line 3\), 'm2.mp4' \(line 5\), 'm3.mp4' \(line 6\), \.\.\."),
        ("path,label\n1.mp4,a\nm1.mp4,b\n", "train", r"1 of 2 videos are missing: 'm1.mp4' \(line 3\)\. "),
    ],
)  # fmt: skip
def test_csv_that_cannot_be_read(tmp_path: Path, text: str, split: str, message: str) -> None:
    config = write_csv(tmp_path, text, "1.mp4", "2.mp4")
    with pytest.raises(ConfigError, match=message):
        read_records(config, split)


def test_csv_of_several_labels(tmp_path: Path) -> None:
    text = "path,label,split\n1.mp4,b | a|b,train\n2.mp4,c,train\n3.mp4,a,test\n"
    config = replace(write_csv(tmp_path, text, "1.mp4", "2.mp4", "3.mp4"), val_split="test")
    train = read_records(replace(config, task="multilabel"), "train")
    assert (train.classes, train.multi_label) == (("a", "b", "c"), True)
    assert [record.labels for record in train.records] == [(1, 0), (2,)]
    with pytest.raises(ConfigError, match=r"'1.mp4' has 2 labels \('b', 'a'\).*Set data.task = \"multilabel\""):
        read_records(config, "train")
    test = read_records(config, "test")
    assert (test.classes, test.multi_label) == (("a", "b", "c"), False)


def test_csv_of_several_labels_is_held_out_as_one_class(tmp_path: Path) -> None:
    names = [f"{i}.mp4" for i in range(10)]
    text = "path,label\n" + "".join(f"{name},{'ab'[i % 2]}|c{i}\n" for i, name in enumerate(names))
    config = replace(write_csv(tmp_path, text, *names), task="multilabel")
    train, val = read_records(config, "train"), read_records(config, "val")
    assert (len(train.records), len(val.records)) == (8, 2)
    assert sorted(ids(train) + ids(val)) == names


def test_one_video_of_each_class_is_held_out_in_the_arrow_of_time(tmp_path: Path) -> None:
    """The labels to learn are forward and reversed, not the classes."""
    names = [f"{i}.mp4" for i in range(10)]
    config = write_csv(tmp_path, "path,label\n" + "".join(f"{name},c{name}\n" for name in names), *names)
    train, val = (read_records(replace(config, task="arrow"), split) for split in ("train", "val"))
    assert (len(train.videos), len(val.videos)) == (8, 2)
    with pytest.raises(ConfigError, match="every class has one video, so none is left for split 'val'"):
        read_records(config, "val")
    single = write_csv(tmp_path, "path,label\n0.mp4,c0\n", *names)
    with pytest.raises(ConfigError, match="there is one video, so none is left"):
        read_records(replace(single, task="arrow"), "val")


def test_csv_paths_of_every_kind(tmp_path: Path) -> None:
    touch(tmp_path, "shards/0.vsnpack", "frames/7/00001.jpg", "media/2.mp4")
    text = "path,label,split,id\nshards/0.vsnpack/3,a,train,seven\nframes/7,b,train,\n2.mp4,b,train,the second\n"
    config = replace(write_csv(tmp_path, text), videos="media", val_split="none")
    assert read_records(config, "train").records == (
        VideoRecord(tmp_path / "shards/0.vsnpack/3", (0,), "seven"),
        VideoRecord(tmp_path / "frames/7", (1,), "frames/7"),
        VideoRecord(tmp_path / "media/2.mp4", (1,), "the second"),
    )
    (tmp_path / "shards/0.vsnpack").unlink()
    with pytest.raises(
        ConfigError,
        match=r"1 of 3 videos are missing: 'shards/0.vsnpack/3' \(line 2\).*data.videos and data.root",
    ):
        read_records(config, "train")


def test_csv_ids_that_are_not_ids(tmp_path: Path) -> None:
    config = write_csv(tmp_path, "path,label,id\n1.mp4,a,S1\n2.mp4,b,S1\n", "1.mp4", "2.mp4")
    with pytest.raises(ConfigError, match=r"lines 2 and 3 have the id 'S1'"):
        read_records(config, "train")


def test_csv_of_a_test_split_without_labels(tmp_path: Path) -> None:
    text = "path,label,split\n1.mp4,a,train\n2.mp4,b,train\n3.mp4,,Test\n"
    config = write_csv(tmp_path, text, "1.mp4", "2.mp4", "3.mp4")
    assert read_records(config, "test").records == (VideoRecord(tmp_path / "3.mp4", (), "3.mp4"),)
    assert read_records(config, "train").classes == ("a", "b")
    with pytest.raises(ConfigError, match=r"1 of the 1 training videos have no label, for example '3.mp4'"):
        read_records(replace(config, train_split="test"), "test")


def test_a_multi_label_video_may_show_none_of_the_classes(tmp_path: Path) -> None:
    text = "path,label,split\n1.mp4,a|b,train\n2.mp4,,train\n3.mp4,b,val\n4.mp4,,val\n5.mp4,,none\n"
    config = replace(write_csv(tmp_path, text, *(f"{i}.mp4" for i in range(1, 6))), task="multilabel")
    assert [record.labels for record in read_records(config, "train").records] == [(0, 1), ()]
    recipe = Recipe(model=ModelConfig(name="tsn_resnet14_tiny"), data=config)
    datasets = open_datasets(recipe, Console(quiet=True))
    labels = [label_array(dataset).tolist() for dataset in datasets]
    assert labels == [[[True, True], [False, False]], [[False, True], [False, False]]]
    with pytest.raises(ConfigError, match="1 of the 1 training videos have no label"):
        read_records(replace(config, train_split="none"), "none")
    with pytest.raises(ConfigError, match="line 3: the label is empty"):
        read_records(replace(config, task="classify"), "train")


def test_csv_for_the_arrow_of_time_needs_no_label(tmp_path: Path) -> None:
    names = [f"{i}.mp4" for i in range(5)]
    config = write_csv(tmp_path, "path\n" + "".join(f"{name}\n" for name in names), *names)
    train = read_records(replace(config, task="arrow"), "train")
    assert (train.classes, len(train.records), train.per_video) == (("forward", "reversed"), 8, 2)
    with pytest.raises(ConfigError, match=r"'path'.* path,label"):
        read_records(config, "train")
    (tmp_path / "clips.csv").write_text("path,label,split\n0.mp4,,train\n1.mp4,b,val\n")
    assert ids(read_records(replace(config, task="arrow"), "train")) == ["0.mp4", "0.mp4#reversed"]


def test_csv_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_bytes("path,label\n1.mp4,Übung\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"not text in UTF-8.*Übung"):
        read_records(DataConfig(root=str(tmp_path), source="csv"), "train")


def test_which_csv(tmp_path: Path) -> None:
    config = DataConfig(root=str(tmp_path), source="csv")
    with pytest.raises(ConfigError, match=r"0 \(none\).*data\.annotations"):
        read_records(config, "train")
    write_csv(tmp_path, "path,label,split\n1.mp4,a,train\n2.mp4,b,train\n", "1.mp4", "2.mp4", name="a.csv")
    assert read_records(config, "train").classes == ("a", "b")
    touch(tmp_path, "b.csv")
    with pytest.raises(ConfigError, match=r"2 \(a\.csv, b\.csv\)"):
        read_records(config, "train")
    with pytest.raises(ConfigError, match=r"data.annotations is 'c.csv', and there is no file"):
        read_records(DataConfig(root=str(tmp_path), source="csv", annotations="c.csv"), "train")


def test_gestures(shared_data: Path) -> None:
    root = shared_data / "data/gestures"
    if not root.is_dir():
        pytest.skip(f"no {root}")
    config = DataConfig(root=str(root), source="csv", val_split="test")
    train, test = read_records(config, "train"), read_records(config, "test")
    assert (len(train.records), len(test.records), len(train.classes)) == (360, 90, 15)
    assert {record.path.name.split("_")[0] for record in test.records} == {"S2", "S9"}
    names = {train.classes[a]: train.classes[b] for a, b in opposite_labels(train.classes).items()}
    assert names == {"left": "right", "right": "left"}
