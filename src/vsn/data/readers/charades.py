"""Read and write the CSV files of Charades."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from vsn.config import ConfigError, DataConfig
from vsn.data.readers.class_names import ClassList
from vsn.data.readers.files import annotation_folders, errors_at, read_lines, require_file, require_split_file
from vsn.data.readers.segments import Annotation, VideoLabels, read_annotations, seconds_between
from vsn.data.readers.table import read_table
from vsn.data.records import RecordSet

_ACTION = re.compile(r"(c\d+)\s+(\S+)\s+(\S+)")


def read_charades(config: DataConfig, split: str) -> RecordSet:
    """Read `Charades_v1_train.csv`, `Charades_v1_test.csv` and `Charades_v1_classes.txt`.

    The column `actions` holds "c092 11.90 21.20;c147 0.00 12.60": class, start and end in seconds. With task "multilabel"
    a record is a whole video with all its classes, as the data set is evaluated; with "classify" each action is a segment,
    and those of different classes must not overlap. The files are in root, root/annotations or root/Charades; videos are
    `id.mp4` (or another container, or a folder of frames) in root/Charades_v1, root/Charades_v1_480, root/Charades_v1_rgb,
    root/videos or root.
    """
    folders = annotation_folders(config, "Charades")
    class_file = require_file(config, folders, "Charades_v1_classes.txt")
    codes = dict(line.split(None, 1) for _, line in read_lines(class_file) if " " in line)
    names = {name: (f"Charades_v1_{name}.csv",) for name in ("train", "test")}
    rows = []
    for name, files in names.items():
        _, file = require_split_file(config, name, folders, {name: files})
        for line, cells in read_table(file, ("id", "actions"), official=True).rows:
            with errors_at(file, where := f"line {line}"):
                actions = []
                for text in filter(None, map(str.strip, cells["actions"].split(";"))):
                    match = _ACTION.fullmatch(text)
                    if not match or match[1] not in codes:
                        raise ValueError(
                            f"the action is {text!r}; expected a class of {class_file.name}, start and end."
                        )
                    actions.append((codes[match[1]], seconds_between(match[2], match[3])))
            videos = (f"{cells['id']}.mp4",)
            if config.task == "multilabel":
                labels = tuple(dict.fromkeys(label for label, _ in actions))
                rows.append(Annotation(file, where, videos, labels, split=name))
            else:
                rows += [Annotation(file, where, videos, (label,), part, split=name) for label, part in actions]
    usual = ("Charades_v1", "Charades_v1_480", "Charades_v1_rgb", "videos")
    return read_annotations(config, split, rows, usual=usual, classes=ClassList(list(codes.values()), class_file))


def write_charades(videos: Sequence[VideoLabels], classes: Sequence[str]) -> str:
    """Return a CSV file as `read_charades` reads it; a class has the code of its place in `classes`: c000, c001, ...

    Raises `ConfigError` for a label that is no class.
    """
    code_of = {name: f"c{number:03d}" for number, name in enumerate(classes)}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "actions", "length"))
    for video in videos:
        for one in video.segments:
            if one.label not in code_of:
                raise ConfigError(f"{video.path}: the label {one.label!r} is no class.")
        actions = ";".join(f"{code_of[one.label]} {one.start:.2f} {one.end:.2f}" for one in video.segments)
        writer.writerow((video.path.stem, actions, f"{video.seconds:.2f}"))
    return text.getvalue()
