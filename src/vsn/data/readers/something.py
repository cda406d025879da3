"""Something-Something V1 and V2, and Jester: the data sets of 20BN, now Qualcomm's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vsn.config import ConfigError, DataConfig
from vsn.data.readers.class_names import read_class_names
from vsn.data.readers.entries import record_set
from vsn.data.readers.files import (
    Line,
    annotation_folders,
    find_file,
    find_videos,
    no_file,
    read_json_entries,
    read_lines,
    require_file,
    require_known,
    video_folders,
)
from vsn.data.readers.splits import find_split
from vsn.data.records import RecordSet

_SPLITS = ("train", "validation", "test")


def read_something_v1(config: DataConfig, split: str) -> RecordSet:
    """Something-Something V1: `something-something-v1-{train,validation,test}.csv` and `-labels.csv`.

    A line is `id;label text`, in the test file `id` alone; the classes keep the order of the label
    file. Annotations lie in root, root/annotations, root/labels, root/something-something-v1 or
    root/20bn-something-something-v1. Frame folders (or videos) `id` lie in root/20bn-something-something-v1,
    root/frames, root/rawframes, root/videos or root.
    """
    name = "something-something-v1"
    usual = (f"20bn-{name}", "frames", "rawframes", "videos")
    return _read_csv_files(config, split, name, (name, f"20bn-{name}"), usual)


def read_jester(config: DataConfig, split: str) -> RecordSet:
    """Jester: `jester-v1-{train,validation,test}.csv` and `jester-v1-labels.csv`, as Something-Something V1.

    The redistribution's names `labels/{train,validation,test,labels,test-answers}.csv` are read too.
    Frame folders `id` lie in root/20bn-jester-v1, root/frames, root/rawframes, root/videos or root;
    annotations in root, root/annotations, root/labels, root/jester-v1 or root/20bn-jester-v1.
    """
    usual = ("20bn-jester-v1", "frames", "rawframes", "videos")
    return _read_csv_files(config, split, "jester-v1", ("jester-v1", "20bn-jester-v1"), usual)


def _read_csv_files(
    config: DataConfig, split: str, name: str, official: Sequence[str], usual: Sequence[str]
) -> RecordSet:
    folders = annotation_folders(config, *official)
    labels_file = require_file(config, folders, f"{name}-labels.csv", "labels.csv")
    classes = read_class_names(labels_file)
    file = _split_file(config, folders, split, name, "csv")
    answers = _answers(file, classes)
    known = set(classes)
    lines = []
    for number, line in read_lines(file):
        video, _, label = (part.strip() for part in line.partition(";"))
        label = label or answers.get(video, "")
        if label:
            require_known(file, f"line {number}", label, known, labels_file.name)
        lines.append(Line(video, (label,) if label else (), f"line {number}"))
    entries, _ = find_videos(config, file, lines, video_folders(config, *usual))
    return record_set(config, split, entries, classes)


def read_something_v2(config: DataConfig, split: str) -> RecordSet:
    """Something-Something V2: `something-something-v2-{train,validation,test}.json` and `-labels.json`.

    The redistribution's names `{train,validation,test,labels}.json` are read too, and its
    `test-answers.csv` gives the test split its labels. A video's class is its template without `[`
    and `]`. Annotations lie in root, root/annotations, root/labels, root/something-something-v2 or
    root/20bn-something-something-v2. Videos `id.webm` (another container, or a folder of frames `id`,
    will do) lie in root/20bn-something-something-v2, the same below root/videos, root/videos,
    root/frames, root/rawframes or root.
    """
    name = "something-something-v2"
    official = f"20bn-{name}"
    folders = annotation_folders(config, name, official)
    labels_file = require_file(config, folders, f"{name}-labels.json", "labels.json")
    classes = read_class_names(labels_file)
    file = _split_file(config, folders, split, name, "json")
    answers = _answers(file, classes)
    known = set(classes)
    lines = []
    for number, entry in enumerate(read_json_entries(file), 1):
        where = f"entry {number}"
        video = str(entry.get("id", ""))
        if not video:
            raise ConfigError(f"{file}: {where} has no id; every video needs one.")
        label = _template(file, where, entry) or answers.get(video, "")
        if label:
            require_known(file, where, label, known, labels_file.name)
        lines.append(Line(f"{video}.webm", (label,) if label else (), where))
    usual = (official, f"videos/{official}", "videos", "frames", "rawframes")
    entries, _ = find_videos(config, file, lines, video_folders(config, *usual))
    advice = f"The labels of the test split come with the redistribution, as test-answers.csv beside {file.name}."
    return record_set(config, split, entries, classes, advice=advice)


def _template(file: Path, where: str, entry: dict[str, Any]) -> str:
    template = entry.get("template", "")
    if "label" in entry and not template:
        raise ConfigError(f"{file}: {where} has a label but no template; the template states the class.")
    return str(template).replace("[", "").replace("]", "").strip()


def _split_file(config: DataConfig, folders: Sequence[Path], split: str, name: str, suffix: str) -> Path:
    files = {
        known: file
        for known in _SPLITS
        if (file := find_file(folders, f"{name}-{known}.{suffix}", f"{known}.{suffix}"))
    }
    if not files:
        no_file(config, folders, f"{name}-train.{suffix}", f"train.{suffix}")
    return files[find_split(config, split, list(files))]


def _answers(file: Path, classes: Sequence[str]) -> dict[str, str]:
    """Labels of the test split by id, from `test-answers.csv` (`id;label text`) where it is beside."""
    answers_file = file.with_name("test-answers.csv")
    if "test" not in file.stem or not answers_file.is_file():
        return {}
    known = set(classes)
    answers = {}
    for number, line in read_lines(answers_file):
        video, _, label = (part.strip() for part in line.partition(";"))
        require_known(answers_file, f"line {number}", label, known, "the label file")
        answers[video] = label
    return answers
