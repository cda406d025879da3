"""Write labeled intervals of videos in the formats that the readers of segments read, for people to correct."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

from vsn.config import ConfigError, PreLabelFormat
from vsn.data.readers.activitynet import write_activitynet
from vsn.data.readers.charades import write_charades
from vsn.data.readers.create_ml import write_create_ml
from vsn.data.readers.cvat import write_cvat
from vsn.data.readers.json_file import write_json_segments
from vsn.data.readers.label_studio import write_label_studio
from vsn.data.readers.lists import write_mmaction2_list
from vsn.data.readers.segments import VideoLabels
from vsn.system.files import write_text

_WRITERS: dict[PreLabelFormat, Callable[[Sequence[VideoLabels]], str]] = {
    "cvat": write_cvat,
    "activitynet": write_activitynet,
    "create-ml": write_create_ml,
    "json": write_json_segments,
}


def write_pre_labels(
    path: Path, kind: PreLabelFormat, videos: Sequence[VideoLabels], classes: Sequence[str], *, rate: float = 0.0
) -> None:
    """Write the intervals of videos to a file that `data.source = kind` reads.

    `classes` are those that Charades and MMAction2 number; `rate` is the framerate by which a project of Label Studio counts
    frames, 0 for that of each video. Raises `ConfigError` for another format, and as the writer.
    """
    match kind:
        case "label-studio":
            text = write_label_studio(videos, rate=rate)
        case "charades":
            text = write_charades(videos, classes)
        case "mmaction2-list":
            text = write_mmaction2_list(videos, classes)
        case _ if kind in _WRITERS:
            text = _WRITERS[kind](videos)
        case _:
            raise ConfigError(f"The format is {kind!r}; allowed are {', '.join(get_args(PreLabelFormat))}.")
    write_text(path, text)
