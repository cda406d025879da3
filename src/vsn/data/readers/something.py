"""Read Something-Something V1 and V2, and Jester: the data sets of 20BN, now Qualcomm's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vsn.config import DataConfig
from vsn.data.readers.class_names import ClassList, read_class_list
from vsn.data.readers.entries import record_set
from vsn.data.readers.files import (
    Line,
    annotation_folders,
    find_videos,
    parse_entries,
    parse_lines,
    require_file,
    require_split_file,
)
from vsn.data.records import RecordSet


def read_something_v1(config: DataConfig, split: str) -> RecordSet:
    """Read `something-something-v1-{train,validation,test}.csv` and `-labels.csv`.

    A line is `id;label text`, in the test file only `id`; the classes keep the order of the label file.
    Annotations are in root, root/annotations, root/labels, root/something-something-v1 or
    root/20bn-something-something-v1. Frame folders (or videos) `id` are in
    root/20bn-something-something-v1, root/frames, root/rawframes, root/videos or root.
    """
    name = "something-something-v1"
    return _read(config, split, name, "csv", (f"20bn-{name}", "frames", "rawframes", "videos"))


def read_jester(config: DataConfig, split: str) -> RecordSet:
    """Read `jester-v1-{train,validation,test}.csv` and `jester-v1-labels.csv`, as Something-Something V1.

    The redistribution's names `labels/{train,validation,test,labels,test-answers}.csv` are read too.
    Annotations are in root, root/annotations, root/labels, root/jester-v1 or root/20bn-jester-v1; frame
    folders `id` in root/20bn-jester-v1, root/frames, root/rawframes, root/videos or root.
    """
    return _read(config, split, "jester-v1", "csv", ("20bn-jester-v1", "frames", "rawframes", "videos"))


def read_something_v2(config: DataConfig, split: str) -> RecordSet:
    """Read `something-something-v2-{train,validation,test}.json` and `-labels.json`.

    The redistribution's names `{train,validation,test,labels}.json` are read too, and its
    `test-answers.csv` gives the test split its labels. A video's class is its template without `[`
    and `]`. Annotations are in root, root/annotations, root/labels, root/something-something-v2 or
    root/20bn-something-something-v2. Videos `id.webm` (or another container, or a folder of frames `id`)
    are in root/20bn-something-something-v2, the same below root/videos, root/videos, root/frames,
    root/rawframes or root.
    """
    official = "20bn-something-something-v2"
    usual = (official, f"videos/{official}", "videos", "frames", "rawframes")
    return _read(config, split, "something-something-v2", "json", usual)


def _read(config: DataConfig, split: str, name: str, suffix: str, usual: Sequence[str]) -> RecordSet:
    folders = annotation_folders(config, name, f"20bn-{name}")
    classes = read_class_list(require_file(config, folders, f"{name}-labels.{suffix}", f"labels.{suffix}"))
    names = {each: (f"{name}-{each}.{suffix}", f"{each}.{suffix}") for each in ("train", "validation", "test")}
    choice, file = require_split_file(config, split, folders, names)
    # The authors withhold the test labels; Qualcomm's redistribution includes them.
    answers = _test_answers(file, classes) if choice.names == ("test",) else {}

    def parse_csv(line: str) -> Line:
        video, _, label = (part.strip() for part in line.partition(";"))
        return labeled(video, video, label)

    def parse_json(entry: dict[str, Any]) -> Line:
        video, template = str(entry.get("id", "")), entry.get("template", "")
        if not video:
            raise ValueError("id is missing; every video needs one.")
        if "label" in entry and not template:  # the label fills the template's gaps with objects
            raise ValueError("there is a label but no template; the template states the class.")
        return labeled(f"{video}.webm", video, str(template).replace("[", "").replace("]", "").strip())

    def labeled(path: str, video: str, label: str) -> Line:
        label = label or answers.get(video, "")
        if label:
            classes.label_of(label)
        return Line(path, (label,) if label else ())

    lines = parse_lines(file, parse_csv) if suffix == "csv" else parse_entries(file, parse_json)
    entries, _ = find_videos(config, file, lines, usual)
    return record_set(config, split, entries, classes.names, choice=choice)


def _test_answers(file: Path, classes: ClassList) -> dict[str, str]:
    """Labels of the test videos by id, from `test-answers.csv` (`id;label text`) in the same folder."""
    answers_file = file.with_name("test-answers.csv")
    if not answers_file.is_file():
        return {}

    def parse(line: str) -> Line:
        video, _, label = (part.strip() for part in line.partition(";"))
        classes.label_of(label)
        return Line(video, (label,))

    return {line.name: line.class_names[0] for line in parse_lines(answers_file, parse)}
