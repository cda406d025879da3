"""Read Something-Something V1 and V2, and Jester, from all usual places; errors for what is missing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.laid_out import Files, below, ids, labels, lay
from vsn.config import ConfigError, DataConfig
from vsn.data.readers import read_records

# --- Something-Something V1, Jester ----------------------------------------------------------------

V1_LABELS = "Zipping, not unzipping something\nAttaching something to something\n"
V1: Files = {
    "something-something-v1-labels.csv": V1_LABELS,
    "something-something-v1-train.csv": "7;Attaching something to something\n12;Zipping, not unzipping something\n",
    "something-something-v1-validation.csv": "3;Attaching something to something\n",
    "something-something-v1-test.csv": "5\n",
}
V1_FRAMES = [f"{id_}/00001.jpg" for id_ in (7, 12, 3, 5)]


@pytest.mark.parametrize("annotations", ["", "annotations", "labels", "something-something-v1", "elsewhere"])
@pytest.mark.parametrize("videos", ["", "20bn-something-something-v1", "frames", "rawframes", "my videos"])
def test_something_v1_layouts(tmp_path: Path, annotations: str, videos: str) -> None:
    lay(tmp_path, below(annotations or ".", V1), *(f"{videos or '.'}/{name}" for name in V1_FRAMES))
    config = DataConfig(
        root=str(tmp_path),
        source="something-v1",
        annotations=annotations if annotations == "elsewhere" else "",
        videos=videos if videos == "my videos" else "",
    )
    train = read_records(config, "train")
    assert train.classes == ("Zipping, not unzipping something", "Attaching something to something")
    assert labels(train) == [(1,), (0,)]
    assert ids(train) == [f"{videos}/7".lstrip("/"), f"{videos}/12".lstrip("/")]
    assert labels(read_records(config, "val")) == [(1,)]
    assert labels(read_records(config, "test")) == [()]


def test_frames_and_videos_side_by_side(tmp_path: Path) -> None:
    """A V1 set of which some videos are files, in another folder."""
    lay(tmp_path, V1, "frames/7/00001.jpg", "videos/12.webm")
    config = DataConfig(root=str(tmp_path), source="something-v1")
    assert ids(read_records(config, "train")) == ["frames/7", "videos/12.webm"]


def test_jester_of_the_redistribution(tmp_path: Path) -> None:
    files = {
        "labels/labels.csv": "Swiping Left\nStop Sign\n",
        "labels/train.csv": "1;Stop Sign\n2;Swiping Left\n",
        "labels/test.csv": "3\n4\n",
        "labels/test-answers.csv": "4;Stop Sign\n3;Swiping Left\n",
    }
    lay(tmp_path, files, *(f"20bn-jester-v1/{i}/00001.jpg" for i in (1, 2, 3, 4)))
    config = DataConfig(root=str(tmp_path), source="jester")
    assert labels(read_records(config, "train")) == [(1,), (0,)]
    assert labels(read_records(config, "test")) == [(0,), (1,)]


@pytest.mark.parametrize(
    ("changes", "split", "message"),
    [
        ({"something-something-v1-train.csv": "7;Attaching something\n"}, "train",
         "train.csv: line 1: .*'Attaching something', .*v1-labels.csv; did you mean 'Attaching something to something'"),
        ({"something-something-v1-train.csv": "\n\n"}, "train", "v1-train.csv: the file is empty"),
        ({"something-something-v1-train.csv": "7\n12;Attaching something to something\n"}, "train",
         "1 of the 2 training videos have no label, for example 'frames/7'..*data.train_split"),
        ({"something-something-v1-labels.csv": None}, "train",
         "no something-something-v1-labels.csv or labels.csv was found for source 'something-v1'; looked in .*"
         "Set data.annotations to the folder"),
        ({"something-something-v1-labels.csv": "a\nb\na\n"}, "train", "the class 'a' is listed twice"),
        ({"something-something-v1-validation.csv": None}, "dev", "no split 'dev'; present: 'train', 'test'"),
        ({name: None for name in V1 if "labels" not in name}, "train", "no something-something-v1-train.csv or train"),
        ({"something-something-v1-train.csv": "7;Attaching something to something\n8;Attaching something to something\n"},
         "train", r"1 of 2 videos are missing: '8' \(line 2\). Looked in .*frames, .*; set data.videos to the folder"),
    ],
)  # fmt: skip
def test_something_v1_errors(tmp_path: Path, changes: dict[str, str | None], split: str, message: str) -> None:
    files = {name: text for name, text in (V1 | changes).items() if text is not None}
    lay(tmp_path, files, *(f"frames/{name}" for name in V1_FRAMES))
    with pytest.raises(ConfigError, match=message):
        read_records(DataConfig(root=str(tmp_path), source="something-v1"), split)


def test_training_on_a_split_without_labels(tmp_path: Path) -> None:
    lay(tmp_path, V1, *(f"frames/{name}" for name in V1_FRAMES))
    config = DataConfig(root=str(tmp_path), source="something-v1", train_split="test")
    with pytest.raises(ConfigError, match="1 of the 1 training videos have no label"):
        read_records(config, "test")
    assert labels(read_records(config, "train")) == [(1,), (0,)]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            {"annotations": "nowhere"},
            "data.annotations is 'nowhere', and there is no folder ",
        ),
        (
            {"annotations": "something-something-v1-train.csv"},
            "train.csv', a file. Source 'something-v1' reads several",
        ),
        ({"videos": "nowhere"}, "data.videos is 'nowhere', and there is no folder"),
    ],
)
def test_folders_that_are_not_there(tmp_path: Path, setting: dict[str, str], message: str) -> None:
    lay(tmp_path, V1, *(f"frames/{name}" for name in V1_FRAMES))
    config = DataConfig(root=str(tmp_path), source="something-v1")
    with pytest.raises(ConfigError, match=message):
        read_records(replace(config, **setting), "train")


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(tmp_path, V1, *(f"frames/{name}" for name in V1_FRAMES))

    def scandir(folder: str) -> None:
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr("vsn.data.readers.files.os.scandir", scandir)
    with pytest.raises(ConfigError, match=r"frames: the folder cannot be listed \(Permission denied\)"):
        read_records(DataConfig(root=str(tmp_path), source="something-v1"), "train")


def test_a_link_to_itself_hides_no_other_video(tmp_path: Path) -> None:
    lay(tmp_path, V1, *(f"frames/{name}" for name in V1_FRAMES))
    (tmp_path / "frames/loop").symlink_to("loop")
    assert len(read_records(DataConfig(root=str(tmp_path), source="something-v1"), "train").records) == 2


# --- Something-Something V2 ------------------------------------------------------------------------


def v2_entry(video: int, template: str) -> dict[str, object]:
    return {"id": str(video), "label": "a text", "template": template, "placeholders": ["a box"]}


V2_LABELS = {"Stacking number of something": "1", "Something falling like a rock": "0"}
V2_TRAIN = [v2_entry(7, "[Something] falling like a rock"), v2_entry(2, "Stacking [number of] [something]")]


def lay_v2(root: Path, *, prefix: str = "something-something-v2-", folder: str = ".", **changes: object) -> DataConfig:
    files = {
        "labels": V2_LABELS,
        "train": V2_TRAIN,
        "validation": V2_TRAIN[:1],
        "test": [{"id": "5"}],
    } | changes
    lay(root, {f"{folder}/{prefix}{name}.json": json.dumps(value) for name, value in files.items()})
    lay(root, {}, *(f"20bn-something-something-v2/{video}.webm" for video in (2, 5, 7)))
    return DataConfig(root=str(root), source="something-v2")


@pytest.mark.parametrize(("prefix", "folder"), [("something-something-v2-", "."), ("", "labels"), ("", "annotations")])
def test_something_v2_layouts(tmp_path: Path, prefix: str, folder: str) -> None:
    config = lay_v2(tmp_path, prefix=prefix, folder=folder)
    train = read_records(config, "train")
    assert train.classes == ("Something falling like a rock", "Stacking number of something")
    assert labels(train) == [(0,), (1,)]
    assert ids(train) == ["20bn-something-something-v2/7.webm", "20bn-something-something-v2/2.webm"]
    assert labels(read_records(config, "validation")) == [(0,)]
    assert labels(read_records(config, "test")) == [()]


def test_something_v2_answers_give_the_test_split_its_labels(tmp_path: Path) -> None:
    config = lay_v2(tmp_path, prefix="", folder="labels", test=[{"id": "5"}, {"id": "2"}])
    lay(tmp_path, {"labels/test-answers.csv": "5;Stacking number of something\n"})
    assert labels(read_records(config, "test")) == [(1,), ()]
    lay(tmp_path, {"labels/test-answers.csv": "5;Stacking\n"})
    with pytest.raises(ConfigError, match=r"test-answers.csv: line 1: .*'Stacking'"):
        read_records(config, "test")


@pytest.mark.parametrize(
    "places", [("videos", ".mp4"), ("frames", "/00001.jpg"), ("rawframes", "/1.png"), ("", ".webm")]
)
def test_something_v2_in_another_container(tmp_path: Path, places: tuple[str, str]) -> None:
    config = lay_v2(tmp_path)
    for video in tmp_path.glob("*/*.webm"):
        video.unlink()
    lay(tmp_path, {}, *(f"{places[0] or '.'}/{video}{places[1]}" for video in (2, 5, 7)))
    found = read_records(config, "train").records[0]
    assert found.path == tmp_path / places[0] / f"7{places[1].partition('/')[0]}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": [{"id": "7", "label": "a text"}]}, "entry 1: .*label but no template"),
        ({"train": [{"template": "Stacking [number of] [something]"}]}, "entry 1: id is missing"),
        ({"train": [V2_TRAIN[0], v2_entry(2, "Stacking [something]")]},
         r"entry 2: .*'Stacking something', .*v2-labels.json"),
        ({"train": {}}, r"got \{\}"),
        ({"train": {"7": "x"}}, "expected a list of objects"),
        ({"train": [7]}, "expected a list of objects"),
        ({"labels": {"a": "0", "b": "2"}}, "labels must be 0 to 1, each once; 'b' has 2"),
        ({"labels": {"a": "0", "b": "0"}}, "labels must be 0 to 1, each once; 'b' has 0"),
        ({"labels": {"a": "first"}}, "the label of 'a' is 'first'; it must be a whole number"),
        ({"labels": {"Something falling like a rock": "0"}}, "entry 2: unknown class"),
        ({"train": [{"id": "5"}]}, "have no label, for example .*data.train_split"),
    ],
)  # fmt: skip
def test_something_v2_errors(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_records(lay_v2(tmp_path, **changes), "train")


@pytest.mark.parametrize("content", [b"[{", b"\xff\xfe\x00"])
def test_json_that_is_none(tmp_path: Path, content: bytes) -> None:
    config = lay_v2(tmp_path)
    (tmp_path / "something-something-v2-train.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"v2-train.json: (not JSON|its byte order mark)"):
        read_records(config, "train")


@pytest.mark.parametrize(
    ("there", "found"),
    [
        (("7.avi", "7.webm", "7/1.jpg"), "7.webm"),
        (("7.webm.txt", "7.mp4", "7.mkv", "7/1.jpg"), "7.mkv"),
        (("7.txt", "7/1.jpg"), "7"),
        (("7.WEBM",), "7.WEBM"),
    ],
)
def test_the_official_name_counts_before_its_likes(tmp_path: Path, there: tuple[str, ...], found: str) -> None:
    config = lay_v2(tmp_path, train=V2_TRAIN[:1])
    (tmp_path / "20bn-something-something-v2/7.webm").unlink()
    lay(tmp_path, {}, *(f"20bn-something-something-v2/{name}" for name in there))
    assert ids(read_records(config, "train")) == [f"20bn-something-something-v2/{found}"]
