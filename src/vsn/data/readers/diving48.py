"""Read Diving48."""

from __future__ import annotations

from typing import Any

from vsn.config import DataConfig
from vsn.data.readers.class_names import read_class_list
from vsn.data.readers.entries import record_set
from vsn.data.readers.files import (
    Line,
    annotation_folders,
    find_videos,
    parse_entries,
    require_file,
    require_split_file,
)
from vsn.data.records import RecordSet


def read_diving48(config: DataConfig, split: str) -> RecordSet:
    """Read `Diving48_V2_train.json`, `Diving48_V2_test.json` and `Diving48_vocab.json`.

    A list of {vid_name, label, ...}; a label is an index into the vocabulary, whose entry's four parts
    make the class name ("Back 15som 05Twis FREE"). These files are in root, root/annotations or
    root/labels. Videos `vid_name.mp4` (or another container, or a folder of frames) are in root/rgb,
    root/Diving48_rgb/rgb, root/Diving48_rgb, root/videos, root/frames, root/rawframes or root.
    """
    folders = annotation_folders(config)
    classes = read_class_list(require_file(config, folders, "Diving48_vocab.json"))
    names = {name: (f"Diving48_V2_{name}.json",) for name in ("train", "test")}
    choice, file = require_split_file(config, split, folders, names)

    def parse(entry: dict[str, Any]) -> Line:
        video = entry.get("vid_name")
        if not isinstance(video, str) or not video:
            raise ValueError("vid_name is missing; every video needs one.")
        return Line(f"{video}.mp4", (classes.name_of(entry.get("label")),))

    usual = ("rgb", "Diving48_rgb/rgb", "Diving48_rgb", "videos", "frames", "rawframes")
    entries, _ = find_videos(config, file, parse_entries(file, parse), usual)
    return record_set(config, split, entries, classes.names, choice=choice)
