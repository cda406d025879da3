"""Where the stored flow of a data set lies, and which flow belongs to which video."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vsn.config import ConfigError, DataConfig, FlowLayout
from vsn.data.flow.file import SUFFIX
from vsn.data.flow.folder import describe_fields
from vsn.data.flow.read import describe_flow, is_flow_file
from vsn.data.flow.values import FACTS, FlowFacts, check_flow_facts, read_flow_facts
from vsn.data.readers.files import Listing
from vsn.data.records import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, RecordSet, VideoRecord, walk_folders
from vsn.data.video import VideoError
from vsn.data.video.frame_folders import read_picture

_USUAL = (
    "flow",
    "flows",
    "optical_flow",
    "tvl1",
    "tvl1_flow",
    "20bn-something-something-v1-flow",
    "20bn-something-something-v2-flow",
    "20bn-jester-v1-flow",
)
_LEVELS = 4
"""Folders above a video's flow in which its `flow.json` is looked for: split, class, and one to spare."""
_STILL_SPREAD = 5.0
"""Standard deviation up to which a gray picture may be flow without motion."""
_PICTURE_SPREAD = 25.0
"""Standard deviation of the third channel above which pictures are taken for photographs, not for flow."""


@dataclass(frozen=True)
class StoredFlow:
    """Records whose paths are the flow of their videos, and one sentence about it for the user."""

    records: RecordSet
    layout: FlowLayout
    """Layout to read it by."""
    said: str


@dataclass(frozen=True)
class LocatedFlow:
    """Where the flow of each record lies, whether or not it can be read."""

    folder: Path
    layout: FlowLayout
    """Layout to read it by."""
    places: tuple[Path | None, ...]
    """Of each record; None where a video has none."""


def with_flow(records: RecordSet, config: DataConfig, wanted: FlowFacts) -> StoredFlow:
    """The records with the flow of their videos in the place of the videos; ids and labels stay.

    The flow lies in `data.flow`, or in a folder of a usual name in root (flow, tvl1, ...), or in
    `<root>-flow` beside it, or with the frames in the folder of each video (as "xy"). In it a video's flow has the
    video's id or path, whole or without its first folders, without the extension: of `videos/a/1.mp4`
    it is `videos/a/1`, `a/1` or `1`, a folder or a `.vsnflow` file. A number may be padded to six digits.

    Raises:
        ConfigError: no flow, videos without flow, two videos of the same flow, or flow that is stored
            otherwise than `wanted`.
    """
    located = locate_flow(records, config)
    pairs = list(zip(records.records, located.places, strict=True))
    missing = [record.video_id for record, place in pairs if place is None]
    if missing:
        some = ", ".join(map(repr, missing[:3])) + (", ..." if len(missing) > 3 else "")
        raise ConfigError(
            f"{located.folder}: {len(missing)} of {len(pairs)} videos have no flow there, for example {some}. It "
            f"would have the name of the video, as a folder or a {SUFFIX} file. Extract it (vsn flow extract "
            "takes the splits that data.train_split, val_split and test_split name: --data.test-split test for a test split "
            "that the recipe does not), or leave these videos out."
        )
    require_own(records.records, located)
    facts = stated_facts(located)
    check_flow_facts(located.folder, facts or FlowFacts(), wanted)
    found = tuple(replace(record, path=place) for record, place in pairs if place is not None)
    return StoredFlow(replace(records, records=found), located.layout, describe_located(located, facts))


def locate_flow(records: RecordSet, config: DataConfig) -> LocatedFlow:
    """Where the flow of the records lies; see `with_flow`.

    Raises:
        ConfigError: no flow at all, or its folder was taken for a class.
    """
    folder = _flow_folder(config)
    if folder is None:
        return _beside_frames(records, config)
    _require_apart(records.records, folder)
    listing = Listing()
    places = (_place(record, config, folder, listing) for record in records.records)
    return LocatedFlow(folder, config.flow_layout, tuple(None if place is None else Path(place) for place in places))


def flow_of_video(path: str | Path, wanted: FlowFacts) -> Path | None:
    """The stored flow that a path given for prediction means: a `.vsnflow` file, or a folder of pictures of flow.

    None for a video file or a folder of frames, whose flow is to be computed. Raises `VideoError` for a folder
    without pictures, and `ConfigError` when a `flow.json` in the folders above says that the flow is stored
    otherwise than `wanted`.
    """
    path = Path(path)
    if not is_flow_file(path) and (not path.is_dir() or _doubt(path)):
        return None
    for folder in path.absolute().parents[:_LEVELS]:
        if stated := read_flow_facts(folder):
            check_flow_facts(folder, stated, wanted)
            break
    return path


def list_flow(folder: Path) -> list[Path]:
    """The stored flow at any depth below a folder, or the folder itself when it holds one video's."""
    found = []
    for parent, folders, files in walk_folders(folder):
        found += [parent / name for name in files if is_flow_file(name)]
        if not folders and any(Path(name).suffix.lower() in IMAGE_EXTENSIONS for name in files):
            found.append(parent)
    return found


def _flow_folder(config: DataConfig) -> Path | None:
    """The folder of the data set's flow; None when it may lie with the frames of each video."""
    root = Path(config.root)
    if config.flow:
        folder = root / config.flow
        if not folder.is_dir():
            raise ConfigError(f"data.flow is {config.flow!r}, and there is no folder {str(folder)!r}.")
        return folder
    return next((place for place in _usual_folders(root) if place.is_dir()), None)


def _usual_folders(root: Path) -> list[Path]:
    absolute = root.absolute()
    return [*(root / name for name in _USUAL), absolute.with_name(f"{absolute.name}-flow")]


def _beside_frames(records: RecordSet, config: DataConfig) -> LocatedFlow:
    """Flow in the folders of the frames, as "xy": numbered pictures there are the frames.

    The folders are looked into until one holds flow; those without are errors when they are read.
    """
    if not any(_holds_fields(record.path) for record in records.records):
        looked = ", ".join(str(place) for place in _usual_folders(Path(config.root)))
        raise ConfigError(
            f"{config.root}: model.modality is 'flow', and no stored flow was found. Looked in {looked}, and in the "
            f"folders of the videos, such as {records.records[0].path}, for pictures such as flow_x_00001.jpg. "
            "Extract the flow first (vsn flow extract), and set data.flow to its folder."
        )
    return LocatedFlow(Path(config.root), "xy", tuple(record.path for record in records.records))


def _holds_fields(folder: Path) -> bool:
    try:
        describe_fields(folder, "xy")
    except VideoError:
        return False
    return True


def stated_facts(located: LocatedFlow) -> FlowFacts | None:
    """What `flow.json` beside the flow says; None where others' flow has none.

    Raises:
        ConfigError: it cannot be read, or is not there beside `.vsnflow` files.
    """
    stated = read_flow_facts(located.folder)
    if stated is None and any(place is not None and is_flow_file(place) for place in located.places):
        raise ConfigError(
            f"{located.folder}: there is no {FACTS} beside the {SUFFIX} files; it says what their values mean. "
            f"Restore it, or write it with vsn.data.flow.values.write_flow_facts."
        )
    return stated


def describe_located(located: LocatedFlow, stated: FlowFacts | None) -> str:
    """One sentence for the user: how the flow is stored, and what its values mean.

    Raises:
        ConfigError: none of it can be read, or there are frames in the place of flow.
    """
    facts = stated or FlowFacts()
    assumed = "" if stated else f" (taken for granted: there is no {located.folder / FACTS})"
    return f"Flow: {_described(located)}; {facts.method}, bound {facts.bound:g} pixels, zero {facts.zero}{assumed}."


def _place(record: VideoRecord, config: DataConfig, folder: Path, listing: Listing) -> str | None:
    """The flow of a video in the folder of the flow; None when there is none."""
    for name in _names(record, config):
        place = os.path.join(folder, name)
        if listing.is_folder(place) and config.flow_layout != "file":
            return place
        if listing.is_folder(place + SUFFIX) is False and config.flow_layout in ("auto", "file"):
            return place + SUFFIX
    return None


def _names(record: VideoRecord, config: DataConfig) -> Iterator[str]:
    """Names the flow of a video may have, the longest first: those of its id, then those of its path."""
    root = Path(config.root).as_posix().rstrip("/") + "/"
    for text in dict.fromkeys((record.video_id, record.path.as_posix().removeprefix(root))):
        stem, extension = os.path.splitext(text)
        parts = (stem if extension.lower() in VIDEO_EXTENSIONS else text).strip("/").split("/")
        for first in range(len(parts)):
            yield "/".join(parts[first:])
            if parts[-1].isdecimal():
                yield "/".join([*parts[first:-1], f"{int(parts[-1]):06d}"])


def _require_apart(records: Sequence[VideoRecord], folder: Path) -> None:
    """Raise `ConfigError` when the folder of the flow was taken for a class beside the others."""
    within = [record.video_id for record in records if record.path.is_relative_to(folder)]
    if within and len(within) < len(records):
        raise ConfigError(
            f"{folder}: {len(within)} of the {len(records)} videos lie in the folder of the flow, for example "
            f"{within[0]!r}. Keep the flow apart, beside {folder.parent}, and set data.flow to its folder."
        )


def require_own(records: Sequence[VideoRecord], located: LocatedFlow) -> None:
    """Raise `ConfigError` when two videos would be shown the same flow."""
    owners: dict[Path, VideoRecord] = {}
    for record, place in zip(records, located.places, strict=True):
        if place is None:
            continue
        owner = owners.setdefault(place, record)
        if owner.path != record.path:
            raise ConfigError(
                f"{place} is the flow of {owner.video_id!r} and of {record.video_id!r} alike; keep the folders of "
                "the videos in the folder of the flow."
            )


def _described(located: LocatedFlow) -> str:
    """How the first flow that can be read is stored. Raises `ConfigError` for frames in the place of flow."""
    places = [place for place in located.places if place is not None]
    for place in places:
        doubt = ""
        try:
            described = describe_flow(place, located.layout)
            if located.layout == "auto" and not is_flow_file(place):
                doubt = _doubt(place)
        except VideoError:  # its turn comes when it is asked for, within the limit of bad videos
            continue
        if doubt:
            raise ConfigError(
                f"{place}: {doubt}. Set data.flow to the folder of the flow, or data.flow_layout to 'rg' if this "
                "is flow."
            )
        return described
    raise ConfigError(f"{places[0]}: neither this nor any other flow of the data set can be read.")


def _doubt(path: Path) -> str:
    """Why the pictures of a folder look like frames and not like x and y in one picture; or ""."""
    files = describe_fields(path)
    if files.layout == "xy":
        return ""
    picture = read_picture(path, files.names[0][0]).astype(float)
    gray = (picture == picture[..., :1]).all()
    if gray and picture.std() > _STILL_SPREAD:
        why = "they are gray"
    elif picture[..., 2].std() > _PICTURE_SPREAD:
        why = "their blue varies"
    else:
        return ""
    return f"its pictures look like frames, not like flow: {why}, and flow has x as red, y as green, blue empty"
