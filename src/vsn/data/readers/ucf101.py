"""Read UCF101."""

from __future__ import annotations

import posixpath
import re

from vsn.config import DataConfig
from vsn.data.readers.class_names import read_class_list
from vsn.data.readers.entries import record_set
from vsn.data.readers.files import Line, annotation_folders, find_videos, parse_lines, require_file, require_split_file
from vsn.data.records import RecordSet


def read_ucf101(config: DataConfig, split: str) -> RecordSet:
    """Read `classInd.txt`, `trainlist0N.txt` and `testlist0N.txt`, N being `data.fold`.

    A line is `Class/v_x.avi`, in training lists followed by the number of the class in `classInd.txt`.
    These files are in root/ucfTrainTestlist, the same below root/UCF101TrainTestSplits-RecognitionTask,
    root, root/annotations, root/labels or root/splits. Videos (or another container, or a folder of frames
    `v_x`) are, in class folders or without, in root/UCF-101, root/UCF101, root/videos, root/frames,
    root/rawframes or root. The clips of a class that were cut from one recording are a group (g01 to g25 in their
    names): "v_YoYo_g01".
    """
    official = "ucfTrainTestlist"
    # The archive of the splits unpacks to either of two levels.
    folders = annotation_folders(config, official, f"UCF101TrainTestSplits-RecognitionTask/{official}", "splits")
    classes = read_class_list(require_file(config, folders, "classInd.txt"))
    names = {name: (f"{name}list{config.fold:02d}.txt",) for name in ("train", "test")}
    choice, file = require_split_file(config, split, folders, names)

    def parse(line: str) -> Line:
        video, _, stated = line.partition(" ")
        name = video.partition("/")[0]
        number = classes.label_of(name) + 1
        # A list of another release, or edited by hand, would silently permute the classes.
        if stated and stated.strip() != str(number):
            raise ValueError(f"the number of {name!r} is {stated.strip()}; in {classes.file.name} it is {number}.")
        recording = re.match(r"v_.+_g\d+(?=_c\d+)", posixpath.basename(video))
        return Line(video, (name,), group=recording[0] if recording else "")

    usual = ("UCF-101", "UCF101", "videos", "frames", "rawframes")
    entries, _ = find_videos(config, file, parse_lines(file, parse), usual, flat=True)
    return record_set(config, split, entries, classes.names, choice=choice)
