"""Read class folders: split/class/video or class/video."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vsn.config import ConfigError, DataConfig
from vsn.config.errors import quote_first
from vsn.data.readers.class_names import unify_classes
from vsn.data.readers.entries import Entry, record_set, video_id
from vsn.data.readers.splits import (
    canonical,
    choose_split,
    is_split_name,
    is_used,
    means,
    near_split,
    no_splits,
)
from vsn.data.readers.table import has_columns
from vsn.data.records import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, RecordSet, is_hidden, is_video, walk_folders


@dataclass
class _Unread:
    """What class folders hold that is not read or has no class of its own, for notes to the user.

    The lists hold paths relative to the root.
    """

    loose: list[str] = field(default_factory=list)
    """Videos outside class folders."""
    empty: list[str] = field(default_factory=list)
    """Class folders without videos."""
    frame_folders: list[str] = field(default_factory=list)
    """Folders of frames of classes that have video files."""
    broken_links: list[str] = field(default_factory=list)
    """Videos by their extension, of which only a link is there."""
    extensions: Counter[str] = field(default_factory=Counter)
    """Of files that are neither videos nor images."""
    below: list[tuple[str, str]] = field(default_factory=list)
    """Videos in folders of a class folder, and their class: these folders may be meant as classes."""
    lists: list[str] = field(default_factory=list)
    """CSV lists of videos and labels in the root."""

    def notes(self) -> list[str]:
        notes = []
        if self.lists:
            notes.append(
                f"Classes are those of the folders; {quote_first(self.lists)}, which lists videos and labels, is not read. "
                "--data.source csv reads it instead, with its splits and groups."
            )
        if self.loose:
            notes.append(
                f"Videos that are not in a class folder are not read: {len(self.loose)}, for example {self.loose[0]!r}."
            )
        if self.empty:
            notes.append(f"Folders without videos are no classes: {quote_first(self.empty)}.")
        if self.frame_folders:
            notes.append(
                "Folders of frames in a class folder that has video files are not read: "
                f"{len(self.frame_folders)}, for example {self.frame_folders[0]!r}."
            )
        if self.broken_links:
            notes.append(
                f"Links to files that do not exist are not read: {len(self.broken_links)}, for example "
                f"{self.broken_links[0]!r}."
            )
        if self.extensions:
            counts = ", ".join(f"{extension} ({number})" for extension, number in self.extensions.most_common(8))
            notes.append(f"Files in class folders that are not videos by their extension are not read: {counts}.")
        if self.below:
            path, name = self.below[0]
            notes.append(
                f"Videos in folders of a class folder: {len(self.below)}, for example {path!r} has the class {name!r}."
            )
        return notes


def read_folder(config: DataConfig, split: str) -> RecordSet:
    """Read `root/split/class/video` when split folders exist, else hold out a part of `root/class/video`.

    A video is a file with one of `VIDEO_EXTENSIONS` at any depth below its class folder; in a class
    folder without such files it is a folder that holds images and no other folders. Names of splits match
    in upper and lower case. In task "arrow", videos need no class folders.
    """
    root = Path(config.root)
    split_names = (split, config.train_split, config.val_split, config.test_split, "train", "val", "test")
    named = [folder for folder in _sub_folders(root) if any(means(folder.name, name) for name in split_names)]
    split_folders = [folder for folder in named if _is_split(config, folder, is_only=len(named) == 1)]
    # Without class folders a split folder looks like a class; two or more with split names are splits.
    if config.task == "arrow" and len(named) > 1:
        split_folders = named
    unread = _Unread(lists=_csv_lists(root))
    if not split_folders:
        if config.task != "arrow":
            _check_no_splits(config, root)
        entries, classes, notes = unify_classes(_entries(config, root, unread))
        notes = (*notes, *unread.notes())
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
        if _has_videos(folder)
        or any(below.name in class_names and _any_video(below) for below in _sub_folders(folder))
        or any(map(_has_videos, _first_folders(folder)))
    ]
    choice = choose_split(config, split, [folder.name for folder in split_folders])
    if config.task != "arrow":
        for folder in (root, *(folder for folder in named if folder not in split_folders)):
            unread.loose += [video_id(path, root) for path in sorted(folder.iterdir()) if is_video(path)]
    entries = [entry for name in choice.names for entry in _entries(config, root / name, unread)]
    # Classes of all splits: a class without videos in this split keeps its label.
    names = {name for entry in entries for name in entry.class_names}
    for other in split_folders if config.task != "arrow" else ():
        names |= {folder.name for folder in _sub_folders(other) if folder.name not in names and _any_video(folder)}
    if unused:
        note = (
            f"Not used, though beside the splits and with videos: {quote_first(unused)} (data.val_split names a split)."
        )
        choice = choice._replace(notes=(*choice.notes, note))
    entries, classes, notes = unify_classes(entries, names)
    notes = (*notes, *unread.notes())
    return record_set(config, split, entries, classes, choice=choice, notes=notes)


def _csv_lists(root: Path) -> list[str]:
    files = (path for path in sorted(root.iterdir()) if path.suffix.lower() == ".csv" and path.is_file())
    return [path.name for path in files if not is_hidden(path.name) and has_columns(path, ("path", "label"))]


def _check_no_splits(config: DataConfig, root: Path) -> None:
    """Raise `ConfigError` for folders in the place of classes that are splits, or that hold splits or all the data."""
    folders = _sub_folders(root)
    inner = [
        below for folder in folders for below in _sub_folders(folder) if is_split_name(below.name) and _any_video(below)
    ]
    holders = {below.parent for below in inner}
    if len({canonical(below.name) for below in inner}) > 1 and len(folders) > 1 and len(holders) > 1:
        raise ConfigError(
            f"{root}: {video_id(inner[0], root)!r} is a split in a class folder. Move it to split/class/video, or rename "
            "the folders if they are no splits."
        )
    # A folder of frames is a video: "train_arrives/clip1/1.jpg" is in a class.
    of_classes = [
        folder for folder in folders if not _has_videos(folder) and any(map(_any_video, _first_folders(folder)))
    ]
    splits = {folder.name: name for folder in of_classes if (name := _split_in(folder.name))}
    if len(set(splits.values())) > 1:
        first = next(iter(splits))
        raise ConfigError(
            f"{root}: {first!r} would be a class, and is a split by its name. Rename it to {splits[first]!r}, or set "
            f"data.{splits[first]}_split to it."
        )
    if len(of_classes) == 1 and not any(map(_any_video, set(folders) - set(of_classes))):
        raise ConfigError(
            f"{root}: {of_classes[0].name!r} is the only class, and a classifier needs two or more. If the folders in it "
            f"are the classes or the splits, set data.root to {str(of_classes[0])!r}."
        )


def _split_in(name: str) -> str | None:
    """Return the split that a part of a name means.

    >>> _split_in("train60"), _split_in("my_testset"), _split_in("trainer")
    ('train', 'test', None)
    """
    parts = (part.removesuffix("set").removesuffix("data") for part in re.split(r"[\W\d_]+", name.lower()))
    return next(filter(is_split_name, map(canonical, parts)), None)


def _entries(config: DataConfig, folder: Path, unread: _Unread) -> list[Entry]:
    """The videos of a folder's class folders; in the arrow of time those at any depth, without labels.

    Adds what it does not read to `unread`. Raises `ConfigError` when there is none.
    """
    root = Path(config.root)
    if config.task == "arrow":
        entries = [Entry(path, (), video_id(path, root)) for path in _videos(root, folder, unread)]
    else:
        entries = []
        for class_folder in _sub_folders(folder):
            paths = list(_videos(root, class_folder, unread))
            entries += [Entry(path, (class_folder.name,), video_id(path, root)) for path in paths]
            unread.below += [(video_id(path, root), class_folder.name) for path in paths if path.parent != class_folder]
            if not paths:
                unread.empty.append(video_id(class_folder, root))
        unread.loose += [video_id(path, root) for path in sorted(folder.iterdir()) if is_video(path)]
    if not entries:
        raise _no_videos(folder)
    return entries


def _videos(root: Path, folder: Path, unread: _Unread) -> Iterator[Path]:
    """The video files below a folder, sorted by path; its folders of frames when there are no files.

    Adds what it does not read to `unread`.
    """
    # Folders may hold pictures next to video files (thumbnails): frames count only where there is no video file.
    frame_folders = []
    any_file = False
    for parent, folders, files in walk_folders(folder):
        for name in files:
            if is_video(parent / name):
                any_file = True
                yield parent / name
            elif Path(name).suffix.lower() in VIDEO_EXTENSIONS and not is_hidden(name):
                unread.broken_links.append(video_id(parent / name, root))
            elif not is_hidden(name) and not _is_image(name):
                unread.extensions[Path(name).suffix.lower() or name] += 1
        if parent != folder and _holds_frames(folders, files):
            frame_folders.append(parent)
    if any_file:
        unread.frame_folders += [video_id(path, root) for path in sorted(frame_folders)]
    else:
        yield from sorted(frame_folders)


def _has_videos(folder: Path) -> bool:
    """Whether a folder holds video files itself."""
    return any(is_video(path) for path in folder.iterdir())


def _any_video(folder: Path) -> bool:
    return any(
        any(is_video(parent / name) for name in files) or (parent != folder and _holds_frames(folders, files))
        for parent, folders, files in walk_folders(folder)
    )


def _holds_frames(folders: Sequence[str], files: Sequence[str]) -> bool:
    return not folders and any(_is_image(name) for name in files)


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_EXTENSIONS and not is_hidden(name)


def _is_split(config: DataConfig, folder: Path, *, is_only: bool) -> bool:
    """Whether a folder with the name of a split is one: it holds class folders, and no videos itself.

    A class may be called "test". The only folder with such a name is a class when all its folders hold frames, or
    when it holds videos. Raises `ConfigError` for one of several that holds videos and class folders.
    """
    below = _sub_folders(folder)
    loose = sorted(path for path in folder.iterdir() if is_video(path))
    if loose and not is_only and config.task != "arrow" and any(map(_any_video, below)):
        raise ConfigError(
            f"{config.root}: the split {folder.name!r} holds class folders, and videos that are not in one: {len(loose)}, "
            f"for example {video_id(loose[0], Path(config.root))!r}. Move them into class folders."
        )
    if not below or loose:
        return False
    return not is_only or not all(_holds_frames(*next(walk_folders(parent))[1:]) for parent in below)


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def _first_folders(folder: Path) -> list[Path]:
    # Enough to tell a layout; a class of folders of frames has thousands.
    return _sub_folders(folder)[:20]


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
