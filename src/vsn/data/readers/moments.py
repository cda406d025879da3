"""Read Moments in Time, and Multi-Moments in Time."""

from __future__ import annotations

import csv

from vsn.config import DataConfig
from vsn.data.readers.class_names import read_class_list
from vsn.data.readers.entries import record_set
from vsn.data.readers.files import (
    Line,
    annotation_folders,
    find_videos,
    parse_lines,
    require_file,
    require_split_file,
    video_folders,
)
from vsn.data.readers.splits import same_split
from vsn.data.records import RecordSet

_FILES = {
    "training": ("trainingSet.csv", "trainingSet.txt"),
    "validation": ("validationSet.csv", "validationSet.txt"),
}


def read_moments(config: DataConfig, split: str) -> RecordSet:
    """Read `trainingSet.csv`, `validationSet.csv` and `moments_categories.txt`.

    A line is `class/file.mp4,label,votes,votes`, without a header; in Multi-Moments (`.txt` or `.csv`)
    it is `file.mp4,label,label,...`, labels by name or number. The classes keep the order of
    `moments_categories.txt` (`label,index`). These files are in root, root/annotations or root/labels.

    Videos are in the folder of their split (root/training, root/validation), below root/videos, in a
    folder of the split there, or in root. Links rot: videos that are missing are left out and counted in
    `num_missing`.
    """
    folders = annotation_folders(config)
    classes = read_class_list(require_file(config, folders, "moments_categories.txt", "mmit_categories.txt"))
    choice, file = require_split_file(config, split, folders, _FILES)

    def parse(line: str) -> Line:
        video, *cells = (cell.strip() for cell in next(csv.reader([line])))
        names = [cell for cell in cells if not cell.isdecimal()]
        for name in names:  # raises for unknown classes
            classes.label_of(name)
        # Numbers behind a name are votes; a line of numbers only is labels.
        labels = names or [classes.name_of(int(cell)) for cell in cells]
        return Line(video, tuple(dict.fromkeys(labels)))

    # The official archive has a folder for each split.
    below = video_folders(config, "videos")
    of_split = [place for folder in below for name in same_split(choice.names[0]) if (place := folder / name).is_dir()]
    lines = parse_lines(file, parse)
    entries, num_missing = find_videos(config, file, lines, folders=(*of_split, *below), may_miss=True)
    return record_set(config, split, entries, classes.names, choice=choice, num_missing=num_missing)
