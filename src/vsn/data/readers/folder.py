"""Read class folders: split/class/video or class/video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vsn.config import ConfigError, DataConfig
from vsn.config.errors import quote_first
from vsn.data.readers.class_names import unify_classes
from vsn.data.readers.entries import Entry, record_set, video_id
from vsn.data.readers.splits import choose_split, is_used, means, near_split, no_splits
from vsn.data.records import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, RecordSet, is_video, walk_folders


def read_folder(config: DataConfig, split: str) -> RecordSet:
    """Read `root/split/class/video` when split folders exist, else hold out a part of `root/class/video`.

    A video is a file with one of `VIDEO_EXTENSIONS` at any depth below its class folder; in a class
    folder without such files it is a folder that holds images and no other folders. Names of splits match
    in upper and lower case. In task "arrow", videos need no class folders.
    """
    root = Path(config.root)
    split_names = (split, config.train_split, config.val_split, config.test_split, "train", "val", "test")
    named = [folder for folder in _sub_folders(root) if any(means(folder.name, name) for name in split_names)]
    split_folders = [folder for folder in named if _is_split(folder, is_only=len(named) == 1)]
    # Without class folders a split folder looks like a class; two or more with split names are splits.
    if config.task == "arrow" and len(named) > 1:
        split_folders = named
    if not split_folders:
        entries, classes, notes = unify_classes(_entries(config, root))
        return record_set(config, split, entries, classes, choice=no_splits(config, split), notes=notes)
    # Beside the splits: another split, or none of them, such as the flow.
    others = [
        folder for folder in _sub_folders(root) if folder not in split_folders and not is_used(config, folder.name)
    ]
    for folder in others:
        near = near_split(config, folder.name)
        if near and _any_video(folder):
            raise ConfigError(
                f"{folder} holds videos and is no split. Did you mean {near!r}? Rename it, or set data.{near}_split to it."
            )
    class_names = {below.name for folder in split_folders for below in _sub_folders(folder)}
    unused = [
        folder.name
        for folder in others
        if any(below.name in class_names and _any_video(below) for below in _sub_folders(folder))
    ]
    choice = choose_split(config, split, [folder.name for folder in split_folders])
    entries = [entry for name in choice.names for entry in _entries(config, root / name)]
    # Classes of all splits: a class without videos in this split keeps its label.
    names = {name for entry in entries for name in entry.class_names}
    for other in split_folders if config.task != "arrow" else ():
        names |= {folder.name for folder in _sub_folders(other) if folder.name not in names and _any_video(folder)}
    if unused:
        note = f"Not used, though it has folders of the same classes: {quote_first(unused)} (data.val_split names a split)."
        choice = choice._replace(notes=(*choice.notes, note))
    entries, classes, notes = unify_classes(entries, names)
    return record_set(config, split, entries, classes, choice=choice, notes=notes)


def _entries(config: DataConfig, folder: Path) -> list[Entry]:
    """The videos of a folder's class folders; in the arrow of time those at any depth, without labels.

    Raises `ConfigError` when there is none.
    """
    root = Path(config.root)
    if config.task == "arrow":
        entries = [Entry(path, (), video_id(path, root)) for path in _videos(folder)]
    else:
        entries = [
            Entry(path, (class_folder.name,), video_id(path, root))
            for class_folder in _sub_folders(folder)
            for path in _videos(class_folder)
        ]
    if not entries:
        raise _no_videos(folder)
    return entries


def _videos(folder: Path) -> Iterator[Path]:
    """The video files below a folder, sorted by path; its folders of frames when there are no files."""
    # Folders may hold pictures next to video files (thumbnails): frames count only where there is no video file.
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


def _is_split(folder: Path, *, is_only: bool) -> bool:
    """Whether a folder with the name of a split is one: it holds class folders, and no videos itself.

    A class may be called "test". The only folder with such a name is a class when all its folders hold frames.
    """
    below = _sub_folders(folder)
    if not below or any(is_video(path) for path in folder.iterdir()):
        return False
    return not is_only or not all(_holds_frames(*next(walk_folders(parent))[1:]) for parent in below)


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _no_videos(folder: Path) -> ConfigError:
    # The two usual mistakes: no class folders, or the frames of all videos of a class in one folder.
    loose = sum(is_video(path) for path in folder.iterdir())
    bare = [below.name for below in _sub_folders(folder) if any(_is_image(path.name) for path in below.iterdir())]
    if loose:
        problem = f"{loose} videos are not in a class folder"
    elif bare:
        problem = f"{bare[0]!r} holds images directly; each video needs a folder in its class folder"
    else:
        problem = "no videos were found"
    return ConfigError(
        f"{folder}: {problem}. Expected split/class/video (split: train, val or test) or class/video, where a "
        f"video is a folder of images or a file ending in {' '.join(sorted(VIDEO_EXTENSIONS))}."
    )
