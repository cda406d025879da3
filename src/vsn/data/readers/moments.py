"""Moments in Time, and Multi-Moments in Time."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from vsn.config import ConfigError, DataConfig
from vsn.data.readers.class_names import read_class_names
from vsn.data.readers.entries import record_set
from vsn.data.readers.files import (
    Line,
    annotation_folders,
    find_file,
    find_videos,
    no_file,
    read_lines,
    require_file,
    require_known,
    video_folders,
)
from vsn.data.readers.splits import find_split, same_split
from vsn.data.records import RecordSet

_FILES = {"training": "trainingSet", "validation": "validationSet"}


def read_moments(config: DataConfig, split: str) -> RecordSet:
    """Moments in Time: `trainingSet.csv`, `validationSet.csv` and `moments_categories.txt`.

    A line is `class/file.mp4,label,votes,votes`, without a header; in Multi-Moments (`.txt` or `.csv`)
    it is `file.mp4,label,label,...`, labels by name or number. The classes keep the order of
    `moments_categories.txt` (`label,index`). These files lie in root, root/annotations or root/labels.

    Videos lie in the folder of their split (root/training, root/validation), below root/videos, in a
    folder of the split there, or in root. Links rot: videos that are not there are left out and
    counted in `num_missing`.
    """
    folders = annotation_folders(config)
    labels_file = require_file(config, folders, "moments_categories.txt", "mmit_categories.txt")
    classes = read_class_names(labels_file)
    files = {name: file for name, stem in _FILES.items() if (file := find_file(folders, f"{stem}.csv", f"{stem}.txt"))}
    if not files:
        no_file(config, folders, "trainingSet.csv", "validationSet.csv")
    asked = find_split(config, split, list(files))
    lines = _read_lines(files[asked], classes, labels_file)
    below = video_folders(config, "videos")
    places = [place for folder in below for name in same_split(asked) if (place := folder / name).is_dir()]
    entries, num_missing = find_videos(config, files[asked], lines, (*places, *below), may_miss=True)
    return record_set(config, split, entries, classes, num_missing=num_missing)


def _read_lines(file: Path, classes: Sequence[str], labels_file: Path) -> list[Line]:
    known = set(classes)
    lines = []
    for number, text in read_lines(file):
        video, *cells = (cell.strip() for cell in next(csv.reader([text])))
        where = f"line {number}"
        names = [cell for cell in cells if not cell.isdecimal()]
        if not names:  # numbers alone: labels; after a name they are votes
            names = [_name(file, where, int(cell), classes) for cell in cells]
        for name in names:
            require_known(file, where, name, known, labels_file.name)
        lines.append(Line(video, tuple(dict.fromkeys(names)), where))
    return lines


def _name(file: Path, where: str, label: int, classes: Sequence[str]) -> str:
    if label >= len(classes):
        raise ConfigError(f"{file}: the label on {where} is {label}; the classes are 0 to {len(classes) - 1}.")
    return classes[label]
