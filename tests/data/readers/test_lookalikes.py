"""Each data set as it lies on disk, whole: annotation files and videos that decode."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.helpers.lookalikes import HEIGHT, LOOKALIKES, NUM_FRAMES, NUM_TRAIN, NUM_VAL, SOMETHING_CLASSES, WIDTH
from vsn.config import DataConfig
from vsn.data.flips import propose_flip_rule
from vsn.data.readers import NoSplitError, read_records
from vsn.data.records import VideoRecord

Lookalike = Callable[[str], DataConfig]


@pytest.fixture(scope="session")
def lookalike(tmp_path_factory: pytest.TempPathFactory) -> Lookalike:
    """The settings of a look-alike, made on first use."""
    made: dict[str, DataConfig] = {}

    def make(name: str) -> DataConfig:
        if name not in made:
            made[name] = LOOKALIKES[name](tmp_path_factory.mktemp(name))
        return made[name]

    return make


def frames_of(record: VideoRecord) -> list[np.ndarray]:
    if record.path.is_dir():
        return [np.asarray(Image.open(path)) for path in sorted(record.path.iterdir())]
    with av.open(str(record.path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("name", LOOKALIKES)
def test_every_split_is_whole(lookalike: Lookalike, name: str) -> None:
    config = lookalike(name)
    seen: set[Path] = set()
    for split, count in ((config.train_split, NUM_TRAIN), (config.val_split, NUM_VAL)):
        records = read_records(config, split)
        assert len(records.records) == 3 * count
        assert Counter(record.labels[0] for record in records.records) == {0: count, 1: count, 2: count}
        assert records.classes == read_records(config, config.train_split).classes
        assert records.multi_label == (config.task == "multilabel")
        assert records.num_missing == (1 if name in ("kinetics", "moments") and split == config.train_split else 0)
        paths = {record.path for record in records.records}
        assert len(paths) == len(records.records)
        assert not paths & seen
        seen |= paths


@pytest.mark.parametrize("name", LOOKALIKES)
def test_videos_are_those_of_their_label(lookalike: Lookalike, name: str) -> None:
    """The bright square moves right, left or down: what is at a label is that class."""
    config = lookalike(name)
    for record in read_records(config, config.val_split).records:
        frames = frames_of(record)
        assert (len(frames), frames[0].shape) == (NUM_FRAMES, (HEIGHT, WIDTH, 3))
        first, last = (np.argwhere(frames[i][..., 0] > 150).mean(axis=0) for i in (0, -1))
        down, right = last - first
        assert (2 if down > 8 else 0 if right > 8 else 1) == record.labels[0]


@pytest.mark.parametrize("name", LOOKALIKES)
def test_arrow_of_time_reads_every_source(lookalike: Lookalike, name: str) -> None:
    config = replace(lookalike(name), task="arrow")
    records = read_records(config, config.train_split)
    assert (records.classes, records.per_video, records.multi_label) == (("forward", "reversed"), 2, False)
    assert [record.label for record in records.records] == [0, 1] * 3 * NUM_TRAIN
    assert records.num_missing == read_records(lookalike(name), config.train_split).num_missing
    assert records.records[0].path == records.records[1].path
    assert records.records[1].video_id == f"{records.records[0].video_id}#reversed"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("something-v1", [(), ()]),
        ("something-v2", [(), ()]),
        ("something-v2-redistribution", [(2,), (0,)]),
        ("jester", [(), ()]),
    ],
)
def test_test_splits(lookalike: Lookalike, name: str, expected: list[tuple[int, ...]]) -> None:
    config = lookalike(name)
    assert [record.labels for record in read_records(config, "test").records] == expected
    arrow = replace(config, task="arrow", train_split="test")
    assert len(read_records(arrow, "test").records) == 4


@pytest.mark.parametrize("name", ["kinetics", "moments", "tsn-list", "frame-folders"])
def test_no_test_split(lookalike: Lookalike, name: str) -> None:
    with pytest.raises(NoSplitError, match="no split 'test'; present: 'train"):
        read_records(lookalike(name), "test")


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "diving48"])
def test_no_validation_split(lookalike: Lookalike, name: str) -> None:
    whole, config = lookalike(name), replace(lookalike(name), val_split="val")
    train, val = read_records(config, "train"), read_records(config, "val")
    assert sorted(train.records + val.records, key=str) == sorted(read_records(whole, "train").records, key=str)
    assert len(val.records) == 3
    assert read_records(config, "test") == read_records(whole, "test")


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("something-v1", SOMETHING_CLASSES),
        ("something-v2", SOMETHING_CLASSES),
        ("jester", ("Swiping Left", "Swiping Right", "Doing other things")),
        ("kinetics", ("air drumming", "pushing car", "sword fighting")),
        ("moments", ("pushing", "pulling", "falling")),
        ("diving48", ("Back 15som 05Twis FREE", "Back 15som 15Twis FREE", "Inward Dive NoTwis PIKE")),
        ("tsn-list", ("right", "left", "down")),
        ("mmaction2-list", ("0", "1", "2")),
    ],
)
def test_class_names(lookalike: Lookalike, name: str, classes: tuple[str, ...]) -> None:
    assert read_records(lookalike(name), "train").classes == classes


@pytest.mark.parametrize(("name", "rule"), [("something-v2", "swap"), ("jester", "swap"), ("ucf101", "random")])
def test_flip_rules_of_data_sets(lookalike: Lookalike, name: str, rule: str) -> None:
    assert propose_flip_rule(read_records(lookalike(name), "train").classes)[0] == rule


def test_ids_are_paths_below_root(lookalike: Lookalike) -> None:
    config = lookalike("something-v2")
    record = read_records(config, "train").records[0]
    assert record.video_id == "20bn-something-something-v2/1.webm"
    assert record.path == Path(config.root) / record.video_id
