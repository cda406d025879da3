"""HMDB51."""

from __future__ import annotations

from pathlib import Path

from vsn.config import ConfigError, DataConfig
from vsn.data.readers.entries import record_set
from vsn.data.readers.files import (
    Line,
    annotation_folders,
    find_videos,
    no_file,
    read_lines,
    video_folders,
)
from vsn.data.readers.splits import find_split
from vsn.data.records import RecordSet

_MARKS = {"0": "", "1": "train", "2": "test"}


def read_hmdb51(config: DataConfig, split: str) -> RecordSet:
    """HMDB51: a file `<class>_test_split<N>.txt` a class, N being `data.fold`.

    A line is `x.avi` and 1 (train), 2 (test) or 0 (in neither). These files lie in
    root/testTrainMulti_7030_splits, the same below root/test_train_splits, root/test_train_splits,
    root/splits, root/metafile, root, root/annotations or root/labels. Classes are sorted. Videos
    (another container, or a folder of frames `x`, will do) lie, in class folders or without, in
    root/hmdb51_org, root/hmdb51, root/videos, root/frames, root/rawframes or root.
    """
    official = "testTrainMulti_7030_splits"
    folders = annotation_folders(
        config, official, f"test_train_splits/{official}", "test_train_splits", "splits", "metafile"
    )
    ending = f"_test_split{config.fold}.txt"
    folder = next((folder for folder in folders if any(folder.glob(f"*{ending}"))), None)
    if folder is None:
        no_file(config, folders, f"<class>{ending}")
    files = {path.name.removesuffix(ending): path for path in folder.glob(f"*{ending}")}
    classes = sorted(files)
    lines = {name: _read_lines(path, name) for name, path in sorted(files.items())}
    asked = find_split(config, split, ("train", "test"))
    chosen = [line for name in classes for mark, line in lines[name] if mark == asked]
    usual = ("hmdb51_org", "hmdb51", "videos", "frames", "rawframes")
    entries, _ = find_videos(config, folder, chosen, video_folders(config, *usual), flat=True)
    return record_set(config, split, entries, classes)


def _read_lines(file: Path, name: str) -> list[tuple[str, Line]]:
    lines = []
    for number, text in read_lines(file):
        video, _, mark = text.rpartition(" ")
        if mark not in _MARKS or not video:
            raise ConfigError(f"{file}: line {number} is {text!r}; it should be a file and 0, 1 (train) or 2 (test).")
        lines.append((_MARKS[mark], Line(f"{name}/{video.strip()}", (name,), f"line {number}")))
    return lines
