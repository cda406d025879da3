"""Annotation files of tools that label segments: read as documented, and written as they are read."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.laid_out import Files, lay
from tests.helpers.videos import timed_video
from vsn.config import ConfigError, DataConfig
from vsn.data.part import Part, VideoPart
from vsn.data.readers import read_records
from vsn.data.readers.cvat import write_cvat
from vsn.data.readers.label_studio import write_label_studio
from vsn.data.readers.segments import TimedLabel, VideoLabels
from vsn.data.readers.write import write_pre_labels


def task(number: int, video: str, *results: dict[str, Any], **more: Any) -> dict[str, Any]:
    annotation = {"id": number, "was_cancelled": False, "updated_at": "2026-01-01T00:00:00Z", "result": list(results)}
    return {"id": number, "data": {"video": video}, "annotations": [annotation], "predictions": [], **more}


def timeline(label: str, start: int, end: int) -> dict[str, Any]:
    value = {"ranges": [{"start": start, "end": end}], "timelinelabels": [label]}
    return {
        "id": "x",
        "from_name": "label",
        "to_name": "video",
        "type": "timelinelabels",
        "origin": "manual",
        "value": value,
    }


def audio(label: str, start: float, end: float) -> dict[str, Any]:
    value = {"start": start, "end": end, "channel": 0, "labels": [label]}
    return {
        "id": "y",
        "from_name": "tricks",
        "to_name": "audio",
        "original_length": 60.5,
        "type": "labels",
        "value": value,
    }


LABEL_STUDIO = [
    task(1, "/data/upload/1/0a1b2c3d-day1.mp4", timeline("wave", 1, 50), timeline("clap", 51, 75)),
    task(2, "/data/local-files/?d=recordings/day%202.mp4", audio("wave", 0.5, 1.25), audio("clap", 2, 3)),
    task(3, "https://example.org/x/day3.mp4?token=1", timeline("wave", 26, 50)),
    {"id": 4, "data": {"video": "/data/upload/1/0a1b2c3d-day4.mp4"}, "annotations": []},
]
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><id>7</id><name>monday</name><size>100</size><mode>interpolation</mode><start_frame>0</start_frame>
<stop_frame>99</stop_frame><frame_filter></frame_filter><subset>Train</subset>
<labels><label><name>wave</name></label><label><name>clap</name></label></labels><source>day1.mp4</source></task></meta>
<track id="0" label="wave" source="manual">
  <box frame="10" outside="0" occluded="0" keyframe="1" xtl="1" ytl="1" xbr="9" ybr="9" z_order="0"></box>
  <box frame="11" outside="0" occluded="0" keyframe="0" xtl="1" ytl="1" xbr="9" ybr="9" z_order="0"></box>
  <box frame="30" outside="1" occluded="0" keyframe="1" xtl="1" ytl="1" xbr="9" ybr="9" z_order="0"></box>
  <box frame="50" outside="0" occluded="0" keyframe="1" xtl="1" ytl="1" xbr="9" ybr="9" z_order="0"></box>
  <box frame="60" outside="1" occluded="0" keyframe="1" xtl="1" ytl="1" xbr="9" ybr="9" z_order="0"></box>
</track>
<track id="1" label="clap" source="manual"><points frame="75" outside="0" keyframe="1" points="1,1"></points>
<points frame="99" outside="0" keyframe="0" points="1,1"></points></track>
</annotations>
"""
CVAT_TAGS = """<annotations><version>1.1</version><meta><job><id>1</id><size>40</size><start_frame>5</start_frame>
<frame_filter>step=2</frame_filter><labels><label><name>wave</name></label><label><name>clap</name></label></labels></job>
<source>day2.mp4</source></meta>
<image id="3" name="frame_000003"><tag label="wave" source="manual"></tag></image>
<image id="4" name="frame_000004"><tag label="wave"></tag><tag label="clap"></tag></image>
<image id="5" name="frame_000005"></image>
<image id="7" name="frame_000007"><tag label="wave"></tag></image>
</annotations>
"""
ACTIVITYNET = {
    "version": "VERSION 1.3",
    "taxonomy": [{"nodeId": 1, "nodeName": "wave", "parentId": 0, "parentName": "Root"}],
    "database": {
        "sJbpMP20v50": {
            "duration": 4.0, "subset": "training", "resolution": "32x32", "url": "https://www.youtube.com/watch?v=s",
            "annotations": [{"label": "wave", "segment": [0.5, 1.5]}, {"label": "clap", "segment": [2, 3.25]}],
        },
        "--gone": {"duration": 9.0, "subset": "training", "annotations": [{"label": "wave", "segment": [1, 2]}]},
        "other": {"duration": 4.0, "subset": "validation", "annotations": [{"label": "wave", "segment": [0, 4]}]},
        "withheld": {"duration": 4.0, "subset": "testing", "annotations": []},
    },
}  # fmt: skip
CHARADES = {
    "Charades_v1_classes.txt": "c000 Holding some clothes\nc001 Putting clothes somewhere\nc002 Taking a shoe\n",
    "Charades_v1_train.csv": "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
    'A1,HR43,Kitchen,6,7,Yes,"A person, cooking",food,"He cooks.",c002 2.50 3.75;c000 0.00 2.00,4.00\n'
    "B2,HR43,Kitchen,6,7,Yes,x,food,x,,4.00\n",
    "Charades_v1_test.csv": "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
    "C3,HR44,Kitchen,6,7,Yes,x,food,x,c001 1.00 2.00,4.00\n",
}
CREATE_ML = "video,label,start,end\nday1.mp4,wave,0.5,1.25\nday1.mp4,clap,0:02,3\nclips/day2.mp4,wave,,\n"
PLAIN = [
    {"path": "day1.mp4", "split": "train", "segments": [
        {"start": 0.5, "end": 1.25, "label": "wave"}, {"start": "0:02", "end": 3, "label": "clap"}]},
    {"path": "day2.mp4", "split": "val", "segments": [{"start": 0, "end": 2, "label": "wave"}]},
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Videos of 4 seconds, 25 frames a second."""
    timed = [i / 25 for i in range(100)]
    first = timed_video(tmp_path / "videos/day1.mp4", timed)
    for name in ("recordings/day 2", "clips/day2", "day2", "day3", "v_sJbpMP20v50", "other", "A1", "B2", "C3"):
        (tmp_path / f"videos/{name}.mp4").parent.mkdir(exist_ok=True)
        (tmp_path / f"videos/{name}.mp4").write_bytes(first.read_bytes())
    return tmp_path


def read(root: Path, source: str, files: Files, split: str = "train", **settings: Any) -> dict[str, Any]:
    """Segment -> label, of a split."""
    lay(root, files)
    records = read_records(DataConfig(root=str(root), source=source, val_split="none", **settings), split)  # type: ignore[arg-type]
    return {record.video_id.removeprefix("videos/"): "|".join(records.classes_of(record)) for record in records.records}


def test_label_studio(root: Path) -> None:
    # All of one split: without splits a part would be held out.
    tasks = [{**one, "data": {**one["data"], "split": "train"}} for one in LABEL_STUDIO]
    assert read(root, "label-studio", {"export.json": json.dumps(tasks)}, annotation_rate=25.0) == {
        "day1.mp4#t=0,2": "wave",
        "day1.mp4#t=2,3": "clap",
        "recordings/day 2.mp4#t=0.5,1.25": "wave",
        "recordings/day 2.mp4#t=2,3": "clap",
        "day3.mp4#t=1,2": "wave",
    }
    records = read_records(
        DataConfig(root=str(root), source="label-studio", annotation_rate=25.0, val_split="none"), "train"
    )
    assert records.records[0].shown == VideoPart(root / "videos/day1.mp4", Part(0, 2))
    assert records.records[0].place == "export.json, task 1"
    assert any("1 tasks without an annotation" in note for note in records.notes)


def test_of_several_annotations_of_a_task_the_latest_counts(root: Path) -> None:
    one = task(1, "day1.mp4", timeline("wave", 1, 50), data={"video": "day1.mp4", "split": "train"})
    later = {"updated_at": "2026-02-01T00:00:00Z", "result": [timeline("clap", 51, 75), timeline("wave", 76, 100)]}
    cancelled = {"updated_at": "2026-03-01T00:00:00Z", "was_cancelled": True, "result": [timeline("no", 1, 9)]}
    one["annotations"] += [later, cancelled]
    found = read(root, "label-studio", {"export.json": json.dumps([one])}, annotation_rate=25.0)
    assert found == {"day1.mp4#t=2,3": "clap", "day1.mp4#t=3,4": "wave"}


def test_choices_are_labels_of_whole_videos(root: Path) -> None:
    chosen = {"type": "choices", "from_name": "choice", "to_name": "video", "value": {"choices": ["wave"]}}
    tasks = [
        {**task(number, video, {**chosen, "value": {"choices": [label]}}), "data": {"video": video, "split": "train"}}
        for number, (video, label) in enumerate([("day1.mp4", "wave"), ("day2.mp4", "clap")])
    ]
    found = read(root, "label-studio", {"export.json": json.dumps(tasks)})
    assert found == {"day1.mp4": "wave", "day2.mp4": "clap"}


def test_cvat(root: Path) -> None:
    assert read(root, "cvat", {"annotations/monday.xml": CVAT}) == {
        "day1.mp4#t=0.4,1.2": "wave",
        "day1.mp4#t=2,2.4": "wave",
        "day1.mp4#t=3,4": "clap",
    }


def test_cvat_tags_of_every_second_frame(root: Path) -> None:
    other = CVAT_TAGS.replace("<size>", "<subset>Train</subset><size>")
    assert read(root, "cvat", {"a.xml": other}, allow_overlap=True, task="multilabel") == {
        "day2.mp4#t=0.44,0.56": "wave",  # frames 11 and 13
        "day2.mp4#t=0.52,0.56": "clap",
        "day2.mp4#t=0.76,0.8": "wave",
    }


def test_activitynet(root: Path) -> None:
    files = {"activity_net.v1-3.min.json": json.dumps(ACTIVITYNET)}
    assert read(root, "activitynet", files) == {
        "v_sJbpMP20v50.mp4#t=0.5,1.5": "wave",
        "v_sJbpMP20v50.mp4#t=2,3.25": "clap",
    }
    assert read(root, "activitynet", files, "validation") == {"other.mp4#t=0,4": "wave"}
    config = DataConfig(root=str(root), source="activitynet")
    assert read_records(config, "train").num_missing == 1


def test_charades(root: Path) -> None:
    assert read(root, "charades", CHARADES) == {
        "A1.mp4#t=2.5,3.75": "Taking a shoe",
        "A1.mp4#t=0,2": "Holding some clothes",
    }
    assert read(root, "charades", CHARADES, "test") == {"C3.mp4#t=1,2": "Putting clothes somewhere"}
    whole = read(root, "charades", CHARADES, task="multilabel")
    assert whole == {"A1.mp4": "Taking a shoe|Holding some clothes", "B2.mp4": ""}


def test_create_ml(root: Path) -> None:
    files = {"labels.csv": CREATE_ML.replace("end\n", "end,split\n").replace("1.25\n", "1.25,train\n")}
    files["labels.csv"] = files["labels.csv"].replace("3\n", "3,train\n").replace(",,\n", ",,,train\n")
    assert read(root, "create-ml", files) == {
        "day1.mp4#t=0.5,1.25": "wave", "day1.mp4#t=2,3": "clap", "clips/day2.mp4": "wave"
    }  # fmt: skip


def test_plain_json(root: Path) -> None:
    files = {"segments.json": json.dumps(PLAIN)}
    assert read(root, "json", files) == {"day1.mp4#t=0.5,1.25": "wave", "day1.mp4#t=2,3": "clap"}
    assert read(root, "json", files, "val") == {"day2.mp4#t=0,2": "wave"}


def test_mmaction2_lists_with_offsets(root: Path) -> None:
    lines = "day1.mp4 0 25 0\nday1.mp4 50 50 1\n"
    assert read(root, "mmaction2-list", {"train.txt": lines}, with_offset=True) == {
        "day1.mp4#t=0,1": "0", "day1.mp4#t=2,4": "1"
    }  # fmt: skip
    folders = {f"rawframes/x/img_{i:05d}.jpg": "" for i in range(1, 10)}
    found = read(root, "mmaction2-list", {"train.txt": "x 0 4 0\nx 4 5 1\n", **folders}, with_offset=True)
    assert found == {"rawframes/x#t=0,4": "0", "rawframes/x#t=4,9": "1"}


@pytest.mark.parametrize(
    ("source", "files", "settings", "message"),
    [
        ("label-studio", {"e.json": json.dumps(LABEL_STUDIO)}, {}, "task 1: .*set data.annotation_rate"),
        ("label-studio", {"e.json": json.dumps([{"id": 1, "video": "a.mp4"}])}, {}, "task 1: .*export as JSON"),
        ("label-studio", {"e.json": json.dumps([task(9, "a", audio("x", 0, 1))])}, {}, "task 9: its data names 0 videos"),
        ("label-studio", {"e.json": json.dumps([task(9, "day1.mp4", audio("x", 3, 1))])}, {}, "task 9: .*starts at 3"),
        ("label-studio", {"e.json": json.dumps([task(9, "day1.mp4", timeline("x", 9, 3))])}, {"annotation_rate": 25.0},
         "a range is 9 to 3"),
        ("label-studio", {"e.json": json.dumps([task(9, "gone.mp4", audio("x", 0, 1))])}, {}, "'gone.mp4' .task 9"),
        ("cvat", {"a.xml": "<annotations>"}, {}, "not XML"),
        ("cvat", {"a.xml": "<annotations><meta><project/></meta></annotations>"}, {}, "export each task"),
        ("cvat", {"a.xml": CVAT.replace('label="clap"', 'label="clop"')}, {}, "track 1: unknown label 'clop'"),
        ("cvat", {"a.xml": CVAT.replace("<source>day1.mp4</source>", "")}, {}, "no <source>"),
        ("activitynet", {"a.json": '{"videos": {}}'}, {}, '"database"'),
        ("activitynet", {"a.json": json.dumps({"database": {"other": {"annotations": [{"label": "x", "segment": [1]}]}}})},
         {}, r"segment is \[1\]"),
        ("activitynet", {"a.json": json.dumps({"database": {"other": {"annotations": [{"segment": [1, 2]}]}}})},
         {}, "label is None"),
        ("charades", {**CHARADES, "Charades_v1_test.csv": "id,actions\nC3,c009 1 2\n"}, {}, "action is 'c009 1 2'"),
        ("create-ml", {"l.csv": "video,label,start,end\nday1.mp4,,1,2\n"}, {}, "line 2"),
        ("create-ml", {"l.csv": "video,label,start,end\nday1.mp4,x,3,2\n"}, {}, "line 2.*end must be after"),
        ("create-ml", {"l.csv": CREATE_ML, "m.csv": CREATE_ML}, {}, "expected one .csv .* got 2"),
        ("json", {"s.json": "{}"}, {}, "not empty"),
        ("json", {"s.json": '[{"path": "day1.mp4", "segments": [{"start": 0, "end": 1}]}]'}, {}, "entry 1: label is None"),
        ("json", {"s.json": '[{"path": "day1.mp4", "segments": []}]'}, {}, "no labeled segment"),
        ("json", {"s.json": json.dumps([PLAIN[0], {**PLAIN[1], "split": ""}])}, {}, "entry 2 states no split"),
        ("mmaction2-list", {"train.txt": "day1.mp4 90 11 0\n"}, {"with_offset": True}, "90 to 100, and .* has 100"),
        ("cvat", {"a.xml": CVAT.replace('"99"', '"120"')}, {}, "track 1: .*75 to 120, and .* has 100"),
        ("mmaction2-list", {"train.txt": "day1.mp4 0 25\n"}, {"with_offset": True}, "an offset, a number of frames"),
    ],
)  # fmt: skip
def test_refused(root: Path, source: str, files: Files, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(root, source, files, **settings)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_frames_of_a_video_of_uneven_frames_have_its_times(root: Path, suffix: str) -> None:
    times = [0, 0.04, 0.08, 1.5, 1.54, 1.58, *(3 + i / 25 for i in range(100))]
    timed_video(root / f"videos/uneven.{suffix}", times)
    lines = f"uneven.{suffix} 0 3 0\nuneven.{suffix} 3 4 1\n"
    found = read(root, "mmaction2-list", {"train.txt": lines}, with_offset=True)
    assert found == {f"uneven.{suffix}#t=0,1.5": "0", f"uneven.{suffix}#t=1.5,3.04": "1"}
    found = read(root, "mmaction2-list", {"train.txt": lines}, with_offset=True, annotation_rate=10.0)
    assert found == {f"uneven.{suffix}#t=0,0.3": "0", f"uneven.{suffix}#t=0.3,0.7": "1"}


# --- written ---------------------------------------------------------------------------------------

SEGMENTS = [TimedLabel(0.4, 1.2, "wave", 0.75), TimedLabel(1.2, 2.0, "clap", 0.5), TimedLabel(3.2, 4.0, "wave", 0.25)]
EXPECTED = {"day1.mp4#t=0.4,1.2": "wave", "day1.mp4#t=1.2,2": "clap", "day1.mp4#t=3.2,4": "wave"}


def labels(path: Path) -> VideoLabels:
    return VideoLabels(path, 4.0, 25.0, 100, 32, 32, SEGMENTS)


@pytest.mark.parametrize("source", ["cvat", "activitynet", "charades", "create-ml", "json", "mmaction2-list"])
def test_what_is_written_is_read(root: Path, source: str) -> None:
    names = {"cvat": "a.xml", "charades": "Charades_v1_train.csv", "create-ml": "c.csv", "mmaction2-list": "all.txt"}
    file = names.get(source, "a.json")
    lay(root, {"classes.txt": "clap\nwave\n"} if source == "mmaction2-list" else {})
    if source == "charades":
        lay(root, {**CHARADES, "Charades_v1_classes.txt": "c000 clap\nc001 wave\n"})
    write_pre_labels(root / file, source, [labels(Path("day1.mp4"))], ("clap", "wave"))  # type: ignore[arg-type]
    annotations = "all.txt" if source == "mmaction2-list" else ""
    config = DataConfig(root=str(root), source=source, annotations=annotations, with_offset=bool(annotations))  # type: ignore[arg-type]
    found = {}
    for split in ("train", "val"):
        records = read_records(config, split)
        found |= {r.video_id.removeprefix("videos/"): "|".join(records.classes_of(r)) for r in records.records}
    assert found == EXPECTED


def test_pre_labels_of_label_studio_become_annotations(root: Path) -> None:
    (written,) = json.loads(write_label_studio([labels(Path("videos/day1.mp4"))]))
    assert written["data"] == {"video": "/data/local-files/?d=videos/day1.mp4"}
    results = written["predictions"][0]["result"]
    assert results[0]["value"] == {"ranges": [{"start": 11, "end": 30}], "timelinelabels": ["wave"]}
    assert results[0]["score"] == 0.75
    # As the server exports them, once a person has accepted them.
    accepted = [{"id": 1, "data": {**written["data"], "split": "train"}, "annotations": [{"result": results}]}]
    assert read(root, "label-studio", {"e.json": json.dumps(accepted)}, annotation_rate=25.0) == EXPECTED


def test_a_file_of_cvat_is_for_one_video() -> None:
    with pytest.raises(ConfigError, match="got 2 videos"):
        write_cvat([labels(Path("a.mp4")), labels(Path("b.mp4"))])
