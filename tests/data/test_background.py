"""The class of what no segment covers."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.laid_out import ids, lay
from tests.helpers.packs import packed_config
from tests.helpers.videos import timed_video
from vsn.config import ConfigError, DataConfig
from vsn.data.background import read_labeled, segments_of_files
from vsn.data.packing.pack import pack_dataset
from vsn.data.part import overlap_seconds
from vsn.data.records import RecordSet

# Two files of 20 seconds and one of 5; the second is in two splits.
ROWS = (
    "a.mkv,x,2,4,train\na.mkv,y,8,9,train\na.mkv,x,9,11,train\n"
    "b.mkv,y,3,5,train\nb.mkv,x,10,12,val\nb.mkv,y,16,,val\n"
    "c.mkv,x,0,1,val\nc.mkv,y,2,5,test\n"
)


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    for name, seconds in (("a", 20), ("b", 20), ("c", 5)):
        timed_video(tmp_path / f"{name}.mkv", [i / 5 for i in range(5 * seconds)])
    lay(tmp_path, {"clips.csv": "path,label,start,end,split\n" + ROWS})
    return DataConfig(root=str(tmp_path), source="csv", background=20.0)


def background(records: RecordSet) -> list[tuple[str, float, float]]:
    chosen = [record for record in records.records if records.classes_of(record) == ("background",)]
    return [(record.path.stem, record.start, record.end or 0.0) for record in chosen]


def test_the_background_is_what_no_segment_covers(config: DataConfig) -> None:
    plain = replace(config, background=0.0)
    for split, gaps in {
        "train": {("a", 0, 2), ("a", 4, 8), ("a", 11, 20), ("b", 0, 3)},
        "val": {("b", 12, 16)},  # none from 5 to 10, between segments of two splits
        "test": set(),
    }.items():
        labeled = read_labeled(plain, split)
        records = read_labeled(config, split)
        assert records.classes == (*labeled.classes, "background")
        assert records.records[: len(labeled.records)] == labeled.records
        drawn = background(records)
        assert len(drawn) == pytest.approx(20 * len(labeled.records) if gaps else 0, rel=0.1)  # fewer: some drawn twice
        within = {
            next((gap for gap in gaps if gap[0] == file and gap[1] <= start and end <= gap[2] + 0.01), None)
            for file, start, end in drawn
        }
        assert within == gaps  # each gap is drawn from, and nothing else
        seconds = {"train": {2.0, 1.0}, "val": {2.0, 1.0, 3.8}, "test": set()}[split]
        assert {round(end - start, 1) for _, start, end in drawn} <= seconds


def test_no_background_overlaps_a_labeled_segment_of_any_split(config: DataConfig) -> None:
    labeled = [one.record for split in ("train", "val") for s in segments_of_files(config, split).values() for one in s]
    for split in ("train", "val"):
        records = read_labeled(config, split)
        for record in records.records[len(read_labeled(replace(config, background=0.0), split).records) :]:
            shared = [overlap_seconds(record.part, other.part) for other in labeled if other.path == record.path]
            assert max(shared) <= 1e-3


def test_the_same_seed_draws_the_same(config: DataConfig) -> None:
    few = replace(config, background=1.5)
    assert read_labeled(few, "train") == read_labeled(few, "train")
    assert len(background(read_labeled(few, "train"))) == 6
    assert read_labeled(few, "train") != read_labeled(replace(few, split_seed=1), "train")
    assert "Background: 6 segments drawn from 17.8 seconds" in read_labeled(few, "train").notes[-1]


def test_a_pack_holds_the_background(config: DataConfig, tmp_path: Path) -> None:
    few = replace(config, background=1.0, allow_overlap=True)
    pack_dataset(few, tmp_path / "pack", short_side=32, num_workers=0, progress=False)
    packed = read_labeled(packed_config(tmp_path / "pack"), "train")
    assert ids(packed) == ids(read_labeled(few, "train"))
    assert packed.classes == ("x", "y", "background")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.mkv,background,2,4,train\na.mkv,y,8,9,train\n", "a labeled class is named 'background'"),
        ("a.mkv,x,,,train\nb.mkv,y,,,train\nc.mkv,x,,,val\n", "no segment can be drawn: of 0 segments"),
        ("a.mkv,x,1,10,train\na.mkv,y,10,19.5,train\n", r"the shortest lasts 9 s, and the longest .* covers 1 s"),
    ],
)
def test_refused(config: DataConfig, rows: str, message: str) -> None:
    lay(Path(config.root), {"clips.csv": "path,label,start,end,split\n" + rows})
    with pytest.raises(ConfigError, match=message):
        read_labeled(config, "train")


@pytest.mark.parametrize("settings", [{"task": "arrow"}, {"task": "multilabel"}, {"background": -1}])
def test_settings_that_do_not_fit(settings: dict) -> None:
    with pytest.raises(ConfigError, match=r"data\.background"):
        DataConfig(**{"background": 1.0, **settings})
