"""Lists of other code bases: TSN and TSM, MMAction2, SlowFast."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.laid_out import Files, ids, labels, lay
from vsn.config import ConfigError, DataConfig, Source
from vsn.data.readers import NoSplitError, read_records


def tsn(root: Path, **settings: str | int) -> DataConfig:
    return replace(DataConfig(root=str(root), source="tsn-list"), **settings)  # type: ignore[arg-type]


# --- TSN -------------------------------------------------------------------------------------------

TSN: Files = {
    "train_videofolder.txt": "v one 30 2\nwave/v2 41 0\n",
    "val_videofolder.txt": "v3 8 3\n",
}
TSN_FRAMES = ("v one/img_00001.jpg", "wave/v2/img_00001.jpg", "v3/img_00001.jpg")


@pytest.mark.parametrize("folder", [".", "annotations", "labels", "lists", "mine"])
@pytest.mark.parametrize("frames", [".", "frames", "rawframes", "videos", "20bn-something-something-v1", "jpg"])
def test_tsn_layouts(tmp_path: Path, folder: str, frames: str) -> None:
    lay(
        tmp_path,
        {f"{folder}/{name}": text for name, text in TSN.items()},
        *(f"{frames}/{name}" for name in TSN_FRAMES),
    )
    config = tsn(tmp_path, annotations="mine" if folder == "mine" else "", videos="jpg" if frames == "jpg" else "")
    train = read_records(config, "train")
    assert train.classes == ("0", "1", "2", "3")  # of both lists
    assert labels(train) == [(2,), (0,)]
    assert [record.listed_frames for record in train.records] == [30, 41]
    assert [record.path for record in train.records] == [
        tmp_path / frames / "v one",
        tmp_path / frames / "wave/v2",
    ]
    assert labels(read_records(config, "val")) == [(3,)]
    with pytest.raises(NoSplitError, match="no split 'test'; present: 'train', 'val'"):
        read_records(config, "test")


def test_paths_that_are_absolute_or_count_from_the_list(tmp_path: Path) -> None:
    lay(tmp_path / "elsewhere", {}, "v1/1.jpg")
    lay(tmp_path / "root", {"lists/train.txt": f"{tmp_path}/elsewhere/v1 5 0\n./v2 5 1\n"}, "lists/v2/1.jpg")
    records = read_records(tsn(tmp_path / "root"), "train").records
    assert [record.path for record in records] == [tmp_path / "elsewhere/v1", tmp_path / "root/lists/v2"]
    assert [record.video_id for record in records] == [f"{tmp_path.as_posix()}/elsewhere/v1", "lists/v2"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("category.txt", "a\nb\nc\nd\n"),
        ("classes.txt", "a\r\nb\r\nc\r\nd\r\n\r\n"),
        ("label_map.txt", "a\nb\nc\nd\n"),
        ("label_map_k400.txt", "a\nb\nc\nd\n"),
        ("classInd.txt", "1 a\n2 b\n3 c\n4 d\n"),
        ("kinetics_classnames.json", '{"\\"b\\"": 1, "a": 0, "d": 3, "c": 2}'),
    ],
)
@pytest.mark.parametrize("folder", [".", "lists"])
def test_class_names_from_a_file(tmp_path: Path, name: str, text: str, folder: str) -> None:
    lists = {f"lists/{list_name}": content for list_name, content in TSN.items()}
    lay(tmp_path, lists | {f"{folder}/{name}": text}, *TSN_FRAMES)
    assert read_records(tsn(tmp_path), "train").classes == ("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("names", "fold", "expected"),
    [
        (("ucf101_rgb_train_split_1.txt", "ucf101_rgb_train_split_2.txt"), 1, "ucf101_rgb_train_split_1.txt"),
        (("ucf101_rgb_train_split_1.txt", "ucf101_rgb_train_split_2.txt"), 2, "ucf101_rgb_train_split_2.txt"),
        (("hmdb51_train_split1_rawframes.txt", "val.txt"), 1, "hmdb51_train_split1_rawframes.txt"),
        (("training.lst", "readme.md", "constraints.txt"), 1, "training.lst"),
        (("train_and_val.txt", "Train.csv"), 1, "Train.csv"),
    ],
)
def test_which_list(tmp_path: Path, names: tuple[str, ...], fold: int, expected: str) -> None:
    files = {name: f"v{i} 3 {i}\nw 3 1\n" for i, name in enumerate(names)}
    lay(tmp_path, files, *(f"v{i}/1.jpg" for i in range(len(names))), "w/1.jpg")
    assert ids(read_records(tsn(tmp_path, fold=fold, val_split="none"), "train"))[0] == f"v{names.index(expected)}"


def test_lists_named_by_a_pattern(tmp_path: Path) -> None:
    files = {
        "l/rgb_train_2.txt": "v1 3 0\n",
        "l/rgb_validation_2.txt": "v2 3 1\n",
        "l/rgb_train_1.txt": "v3 3 1\n",
    }
    lay(tmp_path, files, "v1/1.jpg", "v2/1.jpg", "v3/1.jpg")
    config = tsn(tmp_path, annotations="l/rgb_{split}_{fold}.txt", fold=2)
    assert ids(read_records(config, "train")) == ["v1"]
    assert ids(read_records(config, "val")) == ["v2"]
    lay(tmp_path, {"l/rgb_holdout_2.txt": "v3 3 0\n"})
    assert ids(read_records(replace(config, test_split="holdout"), "holdout")) == ["v3"]


def test_a_single_list_is_held_out(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {"all.txt": "".join(f"v{i} 3 {i % 2}\n" for i in range(10))},
        *(f"v{i}/1.jpg" for i in range(10)),
    )
    config = tsn(tmp_path, annotations="all.txt")
    train, val = read_records(config, "train"), read_records(config, "val")
    assert sorted(ids(train) + ids(val)) == [f"v{i}" for i in range(10)]
    assert sorted(labels(val)) == [(0,), (1,)]


@pytest.mark.parametrize(
    ("files", "changed", "message"),
    [
        ({}, {}, "no list was found for source 'tsn-list', such as train_videofolder.txt; looked in .*/lists"),
        ({"train_and_val.txt": "v1 3 0\n"}, {}, "no list was found"),
        ({"train.txt": "v1 3 0\n", "labels/train.csv": "v1 3 0\n"}, {}, "2 lists of split 'train': .*train.csv"),
        ({"train_a.txt": "", "train_b.txt": ""}, {}, r'with {split} for the split, as in "{split}_videos.txt"'),
        ({}, {"annotations": "x.txt"}, "data.annotations is 'x.txt', and there is no file '.*x.txt'.$"),
        ({}, {"annotations": "{split}.txt"}, r"there is no file for any {split}, '.*{split}.txt'"),
        ({"train.txt": "v1 0\n"}, {}, "line 1: expected a path, a number of frames and a label.*'v1 0'"),
        ({"train.txt": "v1 3 0\n\nv1 3 wave\n"}, {}, "line 3: expected.*'v1 3 wave'"),
        ({"train.txt": "v1 3 -1\n"}, {}, "line 1: .*'v1 3 -1'"),
        ({"train.txt": "v1 3 0\nv8 3 1\nv9 3 1\n"}, {},
         r"2 of 3 videos are missing: 'v8' \(line 2\), 'v9' \(line 3\). Looked in .*; set data.videos"),
        ({"train.txt": "v1 3 0\nv8 3 1\n"}, {"videos": "frames"}, "data.videos is 'frames', and there is no folder"),
        ({"train.txt": "v1 3 2\n", "category.txt": "a\nb\n"}, {},
         "the largest label of the lists is 2, and .*category.txt states 2 classes, 0 to 1"),
        ({"train.txt": "v1 3 0\n"}, {}, "the only class is '0'"),
        ({"train.txt": "\n"}, {}, "train.txt: the file is empty"),
        ({"val.txt": "v1 3 1\n"}, {}, "no split 'train'; present: 'val'"),
    ],
)  # fmt: skip
def test_tsn_errors(tmp_path: Path, files: Files, changed: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_records(tsn(lay(tmp_path, files, "v1/1.jpg"), **changed), "train")


def test_text_in_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes("Übung 3 1\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"train.txt: not text in UTF-8"):
        read_records(tsn(tmp_path), "train")


# --- MMAction2 -------------------------------------------------------------------------------------


def mmaction2(root: Path, **settings: str) -> DataConfig:
    return replace(DataConfig(root=str(root), source="mmaction2-list"), **settings)  # type: ignore[arg-type]


def test_mmaction2_videos(tmp_path: Path) -> None:
    files = {"k_train_list_videos.txt": "a/x 1.mp4 1\nb/y.webm 0\n", "k_val_list_videos.txt": "a/x 1.mp4 0\n"}
    lay(tmp_path, files, "videos_train/a/x 1.mp4", "videos_train/b/y.webm", "videos_val/a/x 1.mp4")
    train = read_records(mmaction2(tmp_path), "train")
    assert (ids(train), labels(train)) == (["videos_train/a/x 1.mp4", "videos_train/b/y.webm"], [(1,), (0,)])
    assert ids(read_records(mmaction2(tmp_path), "val")) == ["videos_val/a/x 1.mp4"]


def test_mmaction2_takes_no_video_of_another_split(tmp_path: Path) -> None:
    lay(tmp_path, {"train.txt": "y.mp4 1\n", "val.txt": "x.mp4 1\n"}, "videos_train/x.mp4", "videos_val/y.mp4")
    with pytest.raises(ConfigError, match=r"1 of 1 videos are missing: 'x.mp4'"):
        read_records(mmaction2(tmp_path), "val")


def test_mmaction2_frame_folders(tmp_path: Path) -> None:
    lay(tmp_path, {"train_rawframes.txt": "a/x 163 1\n100218 3 0\nz.mp4 12 1\n"})
    lay(tmp_path, {}, "rawframes/a/x/1.jpg", "rawframes/100218/1.jpg", "rawframes/z.mp4/1.jpg")
    train = read_records(mmaction2(tmp_path, val_split="none"), "train")
    assert train.classes == ("0", "1")
    assert labels(train) == [(1,), (0,), (1,)]
    assert [record.listed_frames for record in train.records] == [163, 3, 12]


@pytest.mark.parametrize("task", ["classify", "multilabel", "arrow"])
@pytest.mark.parametrize(
    "lines",
    [
        "a/x 0 163 1\nb 0 3 0\n",
        "b 0 2 0\nmissing 0 163 1\n",
        "b 1 1 0\na/x 80 83 0\n",  # one part of each folder
        "a/x 0 80 1\na/x 80 83 0\n",
        "v.mp4 0 60 1\nv.mp4 60 40 0\n",
        "v.mp4 0 60 1\nw.mp4 12 48 0\n",
        "v.mp4 163 1\nw.mp4 41 0\n",  # the numbers of frames of rawframes
    ],
)
def test_mmaction2_lists_of_parts_are_refused(tmp_path: Path, task: str, lines: str) -> None:
    lay(
        tmp_path,
        {"train.txt": lines},
        "v.mp4",
        "w.mp4",
        *(f"rawframes/{v}/{i}.jpg" for v in ("a/x", "b") for i in range(9)),
    )
    with pytest.raises(ConfigError, match=r"set data\.with_offset = true"):
        read_records(mmaction2(tmp_path, task=task), "train")


@pytest.mark.parametrize("source", ["tsn-list", "slowfast-list"])
def test_other_lists_of_parts_name_the_cause(tmp_path: Path, source: Source) -> None:
    lay(tmp_path, {"train.txt": "v 0 163 1\n"}, "v/1.jpg")
    with pytest.raises(ConfigError, match=r"missing: 'v 0.*more numbers than this format"):
        read_records(DataConfig(root=str(tmp_path), source=source), "train")


def test_as_many_labels_of_every_video_are_labels_where_the_classes_are_named(tmp_path: Path) -> None:
    lay(tmp_path, {"train.txt": "v.mp4 0 2 1\nw.mp4 1 2 0\n", "classes.txt": "a\nb\nc\n"}, "v.mp4", "w.mp4")
    train = read_records(mmaction2(tmp_path, task="multilabel", val_split="none"), "train")
    assert labels(train) == [(0, 2, 1), (1, 2, 0)]


def test_folders_with_two_labels_each(tmp_path: Path) -> None:
    files = (f"{v}/{i}.jpg" for v in "vw" for i in range(100))
    lay(tmp_path, {"train.txt": "v 100 2 1\nw 99 2 0\n"}, *files)
    train = read_records(mmaction2(tmp_path, task="multilabel", val_split="none"), "train")
    assert labels(train) == [(2, 1), (2, 0)]


def test_mmaction2_several_labels(tmp_path: Path) -> None:
    """Two numbers or more after a path: of a folder, the first counts frames; of a video, all are labels."""
    lines = "x.mp4 0 3\ny 1 1 2\nz.mp4 2\nw.mp4 3 0 3\n"
    lay(tmp_path, {"train.txt": lines}, "w.mp4", "x.mp4", "y/1.jpg", "z.mp4")
    train = read_records(mmaction2(tmp_path, task="multilabel", val_split="none"), "train")
    assert labels(train) == [(0, 3), (1, 2), (2,), (3, 0)]
    assert (train.classes, train.multi_label) == (("0", "1", "2", "3"), True)
    lay(tmp_path, {"train.txt": lines.replace("y 1 1 2\n", "y 1 1\n")})
    with pytest.raises(ConfigError, match=r"one label, got 'x.mp4 0 3'.*set data.task = \"multilabel\""):
        read_records(mmaction2(tmp_path), "train")


def test_mmaction2_frame_folders_that_are_missing_count_no_frames_as_labels(tmp_path: Path) -> None:
    lay(tmp_path, {"train.txt": "x 900 1\ny 900 0\n", "category.txt": "a\nb\n"})
    with pytest.raises(ConfigError, match="2 of 2 videos are missing: 'x'"):
        read_records(mmaction2(tmp_path), "train")


def test_mmaction2_without_labels(tmp_path: Path) -> None:
    lay(tmp_path, {"train.txt": "x.mp4 0\ny.mp4 1\n", "test.txt": "z 1.mp4\n"}, "x.mp4", "y.mp4", "z 1.mp4")
    assert labels(read_records(mmaction2(tmp_path), "test")) == [()]
    with pytest.raises(ConfigError, match="1 of the 1 training videos have no label"):
        read_records(mmaction2(tmp_path, train_split="test"), "test")


@settings(max_examples=25)
@given(
    path=st.from_regex(r"[a-z]+( [a-z]+)?/[a-z0-9]+\.mp4", fullmatch=True),
    numbers=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
)
def test_mmaction2_lines_read_back(tmp_path_factory: pytest.TempPathFactory, path: str, numbers: list[int]) -> None:
    root = lay(tmp_path_factory.mktemp("lists"), {}, path)
    lay(root, {"train.txt": f"{path} {' '.join(map(str, numbers))}\n", "classes.txt": "\n".join("abcdefghij")})
    train = read_records(mmaction2(root, task="multilabel"), "train")
    assert (ids(train), labels(train)) == ([path], [tuple(numbers)])


# --- SlowFast --------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [" ", ",", "\t", ";"])
def test_slowfast(tmp_path: Path, separator: str) -> None:
    files = {"train.csv": f"a b/x.mp4{separator}1\ny.mp4{separator}0\n", "test.csv": "z.mp4\n"}
    lay(tmp_path, files, "a b/x.mp4", "y.mp4", "z.mp4")
    config = DataConfig(root=str(tmp_path), source="slowfast-list", separator=separator, val_split="test")
    assert labels(read_records(config, "train")) == [(1,), (0,)]
    assert ids(read_records(config, "train")) == ["a b/x.mp4", "y.mp4"]
    assert labels(read_records(config, "test")) == [()]


def test_slowfast_without_its_separator_names_the_setting(tmp_path: Path) -> None:
    lay(tmp_path, {"train.csv": "x.mp4,1\ny.mp4,0\n"}, "x.mp4", "y.mp4")
    with pytest.raises(ConfigError, match=r"set data.separator"):
        read_records(DataConfig(root=str(tmp_path), source="slowfast-list"), "train")


def test_slowfast_with_another_separator(tmp_path: Path) -> None:
    lay(tmp_path, {"train.csv": "x 1.mp4,1\n"}, "x 1.mp4")
    with pytest.raises(ConfigError, match=r"line 1: expected a path, ' ' \(data.separator\).*'x 1.mp4,1'"):
        read_records(DataConfig(root=str(tmp_path), source="slowfast-list"), "train")


@pytest.mark.parametrize("source", ["tsn-list", "mmaction2-list", "slowfast-list"])
def test_arrow_of_time_of_lists(tmp_path: Path, source: Source) -> None:
    line = "x 3 0\n" if source == "tsn-list" else "x 0\n"
    lay(tmp_path, {"train.txt": line}, "x/1.jpg")
    records = read_records(DataConfig(root=str(tmp_path), source=source, task="arrow"), "train")
    assert (records.classes, labels(records)) == (("forward", "reversed"), [(0,), (1,)])
