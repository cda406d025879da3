"""Find the stored flow of a data set, and match it to the videos by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from vsn.config import ConfigError, DataConfig, FlowLayout
from vsn.config.errors import quote_first
from vsn.data.flow.stored import SUFFIX, FlowFolderReader, is_flow_file, open_flow
from vsn.data.flow.values import METADATA_FILE, FlowMetadata, check_flow_metadata, read_flow_metadata
from vsn.data.readers.listing import Listing
from vsn.data.records import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, RecordSet, VideoRecord, missing_path, walk_folders
from vsn.data.video import VideoError
from vsn.data.video.frame_folders import read_picture

_USUAL_NAMES = (
    "flow",
    "flows",
    "optical_flow",
    "tvl1",
    "tvl1_flow",
    "20bn-something-something-v1-flow",
    "20bn-something-something-v2-flow",
    "20bn-jester-v1-flow",
)
_MAX_PARENTS = 4
"""Folders above a video's flow in which `flow.json` is looked for: split, class, and two more."""
_MAX_STILL_DEVIATION = 5.0
"""Standard deviation up to which a gray picture can be flow without motion."""
_MIN_PHOTO_DEVIATION = 25.0
"""Standard deviation of the third channel above which pictures are photographs, not flow."""


@dataclass(frozen=True)
class FlowRecords:
    """Records whose paths are the flow of their videos."""

    records: RecordSet
    folder: Path
    layout: FlowLayout
    """Layout to read it by."""
    summary: str
    """How the flow is stored, one sentence for the user."""


@dataclass(frozen=True)
class LocatedFlow:
    """Where the flow of each record is, readable or not."""

    folder: Path
    layout: FlowLayout
    """Layout to read it by."""
    places: tuple[Path | None, ...]
    """One per record; None for a video without flow."""


def with_flow(records: RecordSet, config: DataConfig, expected: FlowMetadata) -> FlowRecords:
    """Replace the videos of records by their stored flow; ids and labels stay.

    The flow is in `data.flow`, or in a folder with a usual name in root (flow, tvl1, ...), or in `<root>-flow` next to
    root, or in each video's folder of frames (as "xy"). There it has the video's id or path, all of it or without the
    first folders, without the extension. A number may be padded to six digits. For `videos/a/1.mp4`:

        videos/a/1, a/1, 1, 000001        a folder, or a file with the suffix .vsnflow

    Raises:
        ConfigError: No flow, videos without flow, two videos with the same flow, or flow that is not stored as `expected`.
    """
    located = locate_flow(records, config)
    pairs = list(zip(records.records, located.places, strict=True))
    missing = [record.video_id for record, place in pairs if place is None]
    if missing:
        raise ConfigError(
            f"{located.folder}: {len(missing)} of {len(pairs)} videos have no flow there, for example "
            f"{quote_first(missing)}. Expected a folder or {SUFFIX} file with the name of the video. Leave these videos "
            "out, or run `vsn flow extract`, with --data.test-split test if the recipe does not name the test split."
        )
    owners: dict[Path, VideoRecord] = {}
    for record, place in pairs:
        if place is not None and (owner := owners.setdefault(place, record)).shown != record.shown:
            raise ConfigError(
                f"{place} would be the flow of both {owner.video_id!r} and {record.video_id!r}. Keep the folders of the "
                "videos in the folder of the flow."
            )
    metadata = stored_metadata(located)
    check_flow_metadata(located.folder, metadata or FlowMetadata(), expected)
    # The flow of a segment is stored on its own, so it is all of what is there.
    flow = tuple(replace(record, path=place, start=0.0, end=None) for record, place in pairs if place is not None)
    summary = describe_located(located, metadata)
    return FlowRecords(replace(records, records=flow), located.folder, located.layout, summary)


def locate_flow(records: RecordSet, config: DataConfig) -> LocatedFlow:
    """Find the flow of each record; see `with_flow`.

    Raises `ConfigError` when there is none, or the data set's reader took its folder for a class.
    """
    root = Path(config.root)
    absolute = root.absolute()
    usual = [*(root / name for name in _USUAL_NAMES), absolute.with_name(f"{absolute.name}-flow")]
    if config.flow and not (root / config.flow).is_dir():
        raise missing_path("data.flow", config.flow, root / config.flow)
    folder = root / config.flow if config.flow else next((place for place in usual if place.is_dir()), None)
    if folder is not None:
        # A reader of class folders takes <root>/flow for one more class.
        inside = [record.video_id for record in records.records if record.path.is_relative_to(folder)]
        if inside and len(inside) < len(records.records):
            raise ConfigError(
                f"{folder}: {len(inside)} of the {len(records.records)} videos are in the folder of the flow, for example "
                f"{inside[0]!r}. Move the flow to a folder outside of {folder.parent}, and set data.flow to it."
            )
        listing = Listing()
        return LocatedFlow(
            folder,
            config.flow_layout,
            tuple(_find_place(record, config, folder, listing) for record in records.records),
        )
    # Without a separate folder, flow can only be in the folders of the frames, where numbered pictures are the frames:
    # layout "xy". One folder with flow is enough here; a folder without is an error when it is read.
    if not any(_has_named_fields(record.path) for record in records.records):
        raise ConfigError(
            f"{config.root}: the model reads flow, and no stored flow was found. Looked in {', '.join(map(str, usual))} "
            f"and in the folders of the videos, such as {records.records[0].path}, for pictures such as flow_x_00001.jpg. "
            "Extract the flow first (vsn flow extract), and set data.flow to its folder."
        )
    if segment := next((record for record in records.records if record.part), None):
        raise ConfigError(
            f"{config.root}: flow in the folders of the frames has no times, and {segment.video_id!r} is a segment. Extract "
            "the flow of the segments (vsn flow extract), and set data.flow to its folder."
        )
    return LocatedFlow(root, "xy", tuple(record.path for record in records.records))


def _has_named_fields(folder: Path) -> bool:
    try:
        FlowFolderReader(folder, "xy")
    except VideoError:
        return False
    return True


def _find_place(record: VideoRecord, config: DataConfig, folder: Path, listing: Listing) -> Path | None:
    """Return the flow of a video in the folder of the flow, None if there is none."""
    # The longest name first: of flow/a/1 and flow/1, the video a/1 takes flow/a/1.
    for name in possible_names(record, config.root):
        place = os.path.join(folder, name)
        if listing.is_folder(place) and config.flow_layout != "file":
            return Path(place)
        if listing.is_folder(place + SUFFIX) is False and config.flow_layout in ("auto", "file"):
            return Path(place + SUFFIX)
    return None


def possible_names(record: VideoRecord, data_root: str) -> Iterator[str]:
    """Yield the names that what is stored of a video may have, the longest first: from its id, then from its path.

    A segment has its id's only: what has the name of the file would be that of the whole file.
    """
    # video_id "videos/a/1.mp4" gives videos/a/1, videos/a/000001, a/1, a/000001, 1, 000001.
    root = Path(data_root).as_posix().rstrip("/") + "/"
    path = record.path.as_posix().removeprefix(root)
    for text in dict.fromkeys((record.video_id, path if record.part is None else record.video_id)):
        stem, extension = os.path.splitext(text)
        parts = (stem if extension.lower() in VIDEO_EXTENSIONS else text).strip("/").split("/")
        for first in range(len(parts)):
            yield "/".join(parts[first:])
            if parts[-1].isdecimal():  # Something-Something V1: video 7, flow 000007
                yield "/".join([*parts[first:-1], f"{int(parts[-1]):06d}"])


def stored_metadata(located: LocatedFlow) -> FlowMetadata | None:
    """Read `flow.json` of located flow; None if other software stored the flow and wrote none.

    Raises `ConfigError` when it is invalid, or missing next to `.vsnflow` files.
    """
    metadata = read_flow_metadata(located.folder)
    if metadata is None and any(place is not None and is_flow_file(place) for place in located.places):
        raise ConfigError(
            f"{located.folder}: {METADATA_FILE} is missing, which describes the values of the {SUFFIX} files. Restore it, "
            "or write it with vsn.data.flow.values.write_flow_metadata."
        )
    return metadata


def describe_located(located: LocatedFlow, metadata: FlowMetadata | None) -> str:
    """Return one sentence for the user: how the flow is stored, and what its values mean.

    Raises `ConfigError` when none of the flow can be read, or the pictures are frames.
    """
    assumed = "" if metadata else f" (assumed: there is no {located.folder / METADATA_FILE})"
    metadata = metadata or FlowMetadata()
    places = [place for place in located.places if place is not None]
    # The first readable flow stands for all: extraction writes one layout.
    for place in places:
        try:
            flow = open_flow(place, layout=located.layout)
            reason = _frames_not_flow(flow) if located.layout == "auto" and isinstance(flow, FlowFolderReader) else ""
        except VideoError:  # reported when it is read, within the limit of bad videos
            continue
        if reason:
            raise ConfigError(
                f"{place}: {reason}. Set data.flow to the folder of the flow, or data.flow_layout to 'rg' if this is flow."
            )
        values = f"{metadata.method}, bound {metadata.bound:g} pixels, zero {metadata.zero}{assumed}"
        return f"Flow: {flow.storage}; {values}."
    raise ConfigError(f"{places[0]}: neither this nor any other flow of the data set can be read.")


def _frames_not_flow(flow: FlowFolderReader) -> str:
    """Return why pictures of layout "rg" look like frames of a video and not like flow; or ""."""
    if flow.layout == "xy":
        return ""
    # One picture is enough: frames and flow differ in every one.
    picture = read_picture(flow.path, flow.names[0][0]).astype(float)
    is_gray = (picture == picture[..., :1]).all()
    if is_gray and picture.std() > _MAX_STILL_DEVIATION:
        reason = "they are gray"
    elif picture[..., 2].std() > _MIN_PHOTO_DEVIATION:
        reason = "their blue varies"
    else:
        return ""
    return f"its pictures look like frames: {reason}, and flow has x in red, y in green and a constant blue"


def flow_of_video(path: str | Path, expected: FlowMetadata) -> Path | None:
    """Return `path` if it is stored flow, a `.vsnflow` file or a folder of pictures of flow; None for a video.

    Raises:
        VideoError: A folder without pictures.
        ConfigError: A `flow.json` in the folders above shows that the flow is not stored as `expected`.
    """
    path = Path(path)
    if not is_flow_file(path) and (not path.is_dir() or _frames_not_flow(FlowFolderReader(path))):
        return None
    # The nearest flow.json counts: path may be one video of a data set's flow.
    for folder in path.absolute().parents[:_MAX_PARENTS]:
        if metadata := read_flow_metadata(folder):
            check_flow_metadata(folder, metadata, expected)
            break
    return path


def list_flow(folder: Path) -> list[Path]:
    """Return the stored flow at any depth below a folder, or the folder itself if it holds one video's."""
    places = []
    for parent, folders, files in walk_folders(folder):
        places += [parent / name for name in files if is_flow_file(name)]
        if not folders and any(Path(name).suffix.lower() in IMAGE_EXTENSIONS for name in files):
            places.append(parent)
    return places
