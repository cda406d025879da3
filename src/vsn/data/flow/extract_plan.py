"""What an extraction of flow is to hold, fixed before the first video is read: videos, names, settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from vsn.config import ConfigError, DataConfig, Decoder, FlowMethod, StoredLayout, Tvl1Config
from vsn.data.flow.compute import QUALITY, STATED
from vsn.data.flow.file import SUFFIX
from vsn.data.flow.values import FlowFacts
from vsn.data.readers import NoSplitError, read_records
from vsn.data.records import VIDEO_EXTENSIONS, list_videos


@dataclass(frozen=True)
class FlowSettings:
    """How flow is computed and stored; the same for all videos of a folder."""

    method: FlowMethod = "tvl1"
    layout: StoredLayout = "file"
    short_side: int | None = 256
    """Shorter side of the frames it is computed on, pixels; None: as they are."""
    bound: float = FlowFacts.bound
    """Pixels of motion that byte 255 stands for."""

    def __post_init__(self) -> None:
        for key, allowed in (("method", FlowMethod), ("layout", StoredLayout)):
            value = getattr(self, key)
            if value not in get_args(allowed):
                raise ConfigError(f"the {key} of flow is {value!r}; it is one of {', '.join(get_args(allowed))}.")
        if self.short_side is not None and self.short_side < 8:
            raise ConfigError(
                f"the shorter side is {self.short_side}; it must be 8 pixels or more, or none to keep sizes."
            )
        if not self.bound > 0:
            raise ConfigError(f"the bound of flow is {self.bound}; it must be above 0 pixels.")

    def facts(self) -> FlowFacts:
        """What `flow.json` tells readers."""
        return FlowFacts(self.bound, STATED[self.method], short_side=self.short_side)

    def described(self) -> dict[str, Any]:
        """The whole of `flow.json`: what readers need, and how the flow was made."""
        made: dict[str, Any] = {
            "method": self.method,
            "layout": self.layout,
            "quality": QUALITY,
        }
        if self.method == "tvl1":
            made["parameters"] = asdict(Tvl1Config())
        return {**asdict(self.facts()), "extraction": made}


@dataclass(frozen=True)
class FlowVideo:
    """A video whose flow is wanted."""

    path: Path
    name: str
    """What its flow is called in the folder, with folders, without extension."""
    frame_template: str = ""
    decoder: Decoder = "pyav"


def videos_of_data_set(config: DataConfig, out: Path) -> list[FlowVideo]:
    """Every video of the train, val and test split of a data set, once; none of what lies in `out`.

    Raises `ConfigError` for what the reader cannot read, and for a data set without any of these splits.
    """
    found: dict[Path, FlowVideo] = {}
    without: NoSplitError | None = None
    for split in dict.fromkeys((config.train_split, config.val_split, config.test_split)):
        try:
            records = read_records(config, split).records
        except NoSplitError as error:
            without = error
            continue
        for record in records:
            if not record.reverse and not record.path.absolute().is_relative_to(out.absolute()):
                name = _name(record.video_id)
                video = FlowVideo(record.path, name, config.frame_template, config.decoder)
                found.setdefault(record.path, video)
    if not found and without is not None:
        raise without
    return list(found.values())


def videos_of_folder(folder: Path) -> list[FlowVideo]:
    """The video files at any depth below a folder. Raises `ConfigError` when there are none."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder of videos.")
    return [FlowVideo(path, _name(path.relative_to(folder).as_posix())) for path in list_videos(folder)]


def place_of(out: Path, video: FlowVideo, layout: StoredLayout) -> Path:
    """Where the flow of a video lies: a file or a folder."""
    return out / (video.name + SUFFIX if layout == "file" else video.name)


def require_own_names(videos: Sequence[FlowVideo]) -> None:
    """Raise `ConfigError` when two videos would have the same flow."""
    owners: dict[str, FlowVideo] = {}
    for video in videos:
        if (owner := owners.setdefault(video.name, video)) is not video:
            raise ConfigError(
                f"{owner.path} and {video.path} would share the flow {video.name!r}: a video's flow has its name "
                "without the extension. Rename one, or leave it out."
            )


def _name(video_id: str) -> str:
    """The name of a video's flow: its id without extension, and without what leads out of the folder."""
    stem, extension = os.path.splitext(video_id)
    parts = (stem if extension.lower() in VIDEO_EXTENSIONS else video_id).split("/")
    if ".." in parts:
        parts = parts[len(parts) - parts[::-1].index("..") :]
    return "/".join(part for part in parts if part not in ("", "."))
