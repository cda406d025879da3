"""Diving48."""

from __future__ import annotations

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
    require_file,
    video_folders,
)
from vsn.data.readers.splits import find_split
from vsn.data.records import RecordSet


def read_diving48(config: DataConfig, split: str) -> RecordSet:
    """Diving48: `Diving48_V2_train.json`, `Diving48_V2_test.json` and `Diving48_vocab.json`.

    A list of {vid_name, label, ...}; a label is a place in the vocabulary, whose entry's four parts
    make the class name ("Back 15som 05Twis FREE"). These files lie in root, root/annotations or
    root/labels. Videos `vid_name.mp4` (another container, or a folder of frames, will do) lie in
    root/rgb, root/Diving48_rgb/rgb, root/Diving48_rgb, root/videos, root/frames, root/rawframes or root.
    """
    folders = annotation_folders(config)
    classes = read_class_names(require_file(config, folders, "Diving48_vocab.json"))
    names = {name: f"Diving48_V2_{name}.json" for name in ("train", "test")}
    files = {name: file for name, file_name in names.items() if (file := find_file(folders, file_name))}
    if not files:
        no_file(config, folders, *names.values())
    file = files[find_split(config, split, list(files))]
    lines = []
    for number, entry in enumerate(read_json_entries(file), 1):
        where = f"entry {number}"
        video, label = entry.get("vid_name"), entry.get("label")
        if not isinstance(video, str) or not video:
            raise ConfigError(f"{file}: {where} has no vid_name; every video needs one.")
        if not isinstance(label, int) or not 0 <= label < len(classes):
            raise ConfigError(f"{file}: the label of {where} is {label!r}; the classes are 0 to {len(classes) - 1}.")
        lines.append(Line(f"{video}.mp4", (classes[label],), where))
    usual = ("rgb", "Diving48_rgb/rgb", "Diving48_rgb", "videos", "frames", "rawframes")
    entries, _ = find_videos(config, file, lines, video_folders(config, *usual))
    return record_set(config, split, entries, classes)
