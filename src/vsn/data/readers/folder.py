"""Class folders: split/class/video or class/video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vsn.config import ConfigError, DataConfig
from vsn.data.readers.entries import Entry, hold_out, record_set, video_id
from vsn.data.readers.splits import find_split, means
from vsn.data.records import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, RecordSet, is_video, walk_folders


def read_folder(config: DataConfig, split: str) -> RecordSet:
    """`root/split/class/video` when a split's folder is there, else `root/class/video`, held out.

    A video is a file with one of `VIDEO_EXTENSIONS` at any depth below its class folder; in a class
    folder without such files it is a folder that holds images and no other folders. Capitals in the
    names of splits do not count. In task "arrow", videos need no class folders.
    """
    root = Path(config.root)
    asked_for = (split, config.train_split, config.val_split, config.test_split, "train", "val", "test")
    named = [folder for folder in _sub_folders(root) if any(means(folder.name, name) for name in asked_for)]
    split_folders = [folder for folder in named if _is_split(folder, alone=len(named) == 1)]
    if config.task == "arrow" and len(named) > 1:
        split_folders = named
    if not split_folders:
        entries = _entries(config, root)
        _require_videos(entries, root)
        classes = sorted({name for entry in entries for name in entry.class_names})
        return record_set(config, split, hold_out(config, split, entries), classes)
    asked = find_split(config, split, [folder.name for folder in split_folders])
    entries = _entries(config, root / asked)
    _require_videos(entries, root / asked)
    names = {name for entry in entries for name in entry.class_names}
    for other in split_folders if config.task != "arrow" else ():
        names |= {folder.name for folder in _sub_folders(other) if folder.name not in names and _any_video(folder)}
    return record_set(config, split, entries, sorted(names))


def _entries(config: DataConfig, folder: Path) -> list[Entry]:
    """The videos of a folder's class folders; in the arrow of time those at any depth, without labels."""
    root = Path(config.root)
    if config.task == "arrow":
        return [Entry(path, (), video_id(path, root)) for path in _videos(folder)]
    return [
        Entry(path, (class_folder.name,), video_id(path, root))
        for class_folder in _sub_folders(folder)
        for path in _videos(class_folder)
    ]


def _videos(folder: Path) -> Iterator[Path]:
    """The video files below a folder, in the order of their paths; without any, its folders of frames."""
    frame_folders = []
    any_file = False
    for parent, folders, files in walk_folders(folder):
        for name in files:
            if is_video(parent / name):
                any_file = True
                yield parent / name
        if parent != folder and not any_file and _holds_frames(folders, files):
            frame_folders.append(parent)
    if not any_file:
        yield from sorted(frame_folders)


def _any_video(folder: Path) -> bool:
    return any(
        any(is_video(parent / name) for name in files) or (parent != folder and _holds_frames(folders, files))
        for parent, folders, files in walk_folders(folder)
    )


def _holds_frames(folders: Sequence[str], files: Sequence[str]) -> bool:
    return not folders and any(_is_image(name) for name in files)


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_EXTENSIONS and not name.startswith(".")


def _is_split(folder: Path, *, alone: bool) -> bool:
    """A split's folder holds class folders; one that holds videos itself is a class of that name.

    Where it is the only one with a split's name, it is a class too when its folders are all frames.
    """
    below = _sub_folders(folder)
    if not below or any(is_video(path) for path in folder.iterdir()):
        return False
    return not alone or not all(_holds_frames(*next(walk_folders(parent))[1:]) for parent in below)


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _require_videos(entries: Sequence[Entry], folder: Path) -> None:
    if entries:
        return
    loose = sum(is_video(path) for path in folder.iterdir())
    bare = [below.name for below in _sub_folders(folder) if any(_is_image(path.name) for path in below.iterdir())]
    if loose:
        found = f"{loose} videos lie in it without a class folder"
    elif bare:
        found = f"{bare[0]!r} holds images, and is no class: a video's frames lie in a folder of their own in it"
    else:
        found = "no videos were found"
    raise ConfigError(
        f"{folder}: {found}. Looked for split/class/video (split: train, val or test) and class/video, "
        f"a video being a folder of images or a file with one of the extensions "
        f"{' '.join(sorted(VIDEO_EXTENSIONS))}."
    )
