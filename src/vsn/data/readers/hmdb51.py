"""Read HMDB51."""

from __future__ import annotations

from functools import partial

from vsn.config import DataConfig
from vsn.data.readers.entries import record_set
from vsn.data.readers.files import Line, annotation_folders, find_videos, no_file, parse_lines
from vsn.data.readers.splits import choose_split
from vsn.data.records import RecordSet

_MARKS = {"train": "1", "test": "2"}


def read_hmdb51(config: DataConfig, split: str) -> RecordSet:
    """Read a file `<class>_test_split<N>.txt` for each class, N being `data.fold`.

    A line is `x.avi` and 1 (train), 2 (test) or 0 (in neither). These files are in
    root/testTrainMulti_7030_splits, the same below root/test_train_splits, root/test_train_splits,
    root/splits, root/metafile, root, root/annotations or root/labels. Classes are sorted. Videos (or
    another container, or a folder of frames `x`) are, in class folders or without, in root/hmdb51_org,
    root/hmdb51, root/videos, root/frames, root/rawframes or root.
    """
    official = "testTrainMulti_7030_splits"
    folders = annotation_folders(
        config, official, f"test_train_splits/{official}", "test_train_splits", "splits", "metafile"
    )
    ending = f"_test_split{config.fold}.txt"
    # Each class has its file, so the folder is found rather than a file.
    folder = next((folder for folder in folders if any(folder.glob(f"*{ending}"))), None)
    if folder is None:
        no_file(config, folders, f"<class>{ending}")
    choice = choose_split(config, split, _MARKS)
    wanted = _MARKS[choice.names[0]]
    classes = sorted(path.name.removesuffix(ending) for path in folder.glob(f"*{ending}"))

    def parse(class_name: str, line: str) -> Line | None:
        video, _, mark = line.rpartition(" ")
        if mark not in ("0", "1", "2") or not video:
            raise ValueError(f"expected a file and 0, 1 (train) or 2 (test), got {line!r}.")
        return Line(f"{class_name}/{video.strip()}", (class_name,)) if mark == wanted else None

    lines = [line for name in classes for line in parse_lines(folder / f"{name}{ending}", partial(parse, name))]
    usual = ("hmdb51_org", "hmdb51", "videos", "frames", "rawframes")
    entries, _ = find_videos(config, folder, lines, usual, flat=True)
    return record_set(config, split, entries, classes, choice=choice)
