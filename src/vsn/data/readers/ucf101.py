"""UCF101."""

from __future__ import annotations

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
from vsn.data.readers.splits import find_split
from vsn.data.records import RecordSet


def read_ucf101(config: DataConfig, split: str) -> RecordSet:
    """UCF101: `classInd.txt`, `trainlist0N.txt` and `testlist0N.txt`, N being `data.fold`.

    A line is `Class/v_x.avi`, and its number in `classInd.txt` where it has one. These files lie in
    root/ucfTrainTestlist, the same below root/UCF101TrainTestSplits-RecognitionTask, root,
    root/annotations, root/labels or root/splits. Videos (another container, or a folder of frames
    `v_x`, will do) lie, in class folders or without, in root/UCF-101, root/UCF101, root/videos, root/frames,
    root/rawframes or root.
    """
    official = "ucfTrainTestlist"
    folders = annotation_folders(config, official, f"UCF101TrainTestSplits-RecognitionTask/{official}", "splits")
    labels_file = require_file(config, folders, "classInd.txt")
    classes = read_class_names(labels_file)
    names = {name: f"{name}list{config.fold:02d}.txt" for name in ("train", "test")}
    files = {name: file for name, file_name in names.items() if (file := find_file(folders, file_name))}
    if not files:
        no_file(config, folders, *names.values())
    asked = find_split(config, split, list(files))
    usual = ("UCF-101", "UCF101", "videos", "frames", "rawframes")
    lines = _read_lines(files[asked], classes, labels_file)
    entries, _ = find_videos(config, files[asked], lines, video_folders(config, *usual), flat=True)
    return record_set(config, split, entries, classes)


def _read_lines(file: Path, classes: Sequence[str], labels_file: Path) -> list[Line]:
    numbers = {name: label + 1 for label, name in enumerate(classes)}
    lines = []
    for line, text in read_lines(file):
        video, _, number = text.partition(" ")
        name = video.partition("/")[0]
        require_known(file, f"line {line}", name, numbers, labels_file.name)
        if number and number.strip() != str(numbers[name]):
            raise ConfigError(
                f"{file}: line {line} calls {name!r} number {number.strip()}; "
                f"in {labels_file.name} it is {numbers[name]}."
            )
        lines.append(Line(video, (name,), f"line {line}"))
    return lines
