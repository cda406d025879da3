"""Read and write the JSON of ActivityNet, which THUMOS, HACS and FineAction have too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vsn.config import ConfigError, DataConfig
from vsn.data.readers.files import errors_at, read_json
from vsn.data.readers.segments import (
    Annotation,
    VideoLabels,
    annotation_files,
    read_annotations,
    require,
    seconds_between,
    split_name,
    to_text,
)
from vsn.data.records import RecordSet


def read_activitynet(config: DataConfig, split: str) -> RecordSet:
    """Read `{"database": {id: {"subset": ..., "annotations": [{"label": ..., "segment": [start, end]}]}}}`, in seconds.

    The file is `data.annotations`, or the only `.json` in root, root/annotations or root/labels. Videos are `id` or `v_id`,
    `.mp4`, another container or a folder of frames, in root/videos or root. Links rot: missing videos are left out and
    counted.
    """
    (file,) = annotation_files(config, ".json")
    database = read_json(file)
    if not isinstance(database, dict) or not isinstance(database.get("database"), dict):
        raise ConfigError(f'{file}: expected an object with "database", the videos by their id.')
    rows = []
    for name, video in database["database"].items():
        with errors_at(file, f"video {name!r}"):
            names = (f"{name}.mp4", f"v_{name}.mp4")
            for one in require(video, "annotations", list):
                times = require(one, "segment", list)
                if len(times) != 2:
                    raise ValueError(f"segment is {times!r}; expected [start, end].")
                label = require(one, "label", str)
                part, subset = seconds_between(*times), split_name(video.get("subset"))
                rows.append(Annotation(file, f"video {name!r}", names, (label,), part, split=subset))
    return read_annotations(config, split, rows, may_miss=True)


def write_activitynet(videos: Sequence[VideoLabels]) -> str:
    """Return the JSON of `read_activitynet`; each segment has its score too."""
    database: dict[str, Any] = {}
    for video in videos:
        segments = [
            {"label": one.label, "segment": [round(one.start, 3), round(one.end, 3)], "score": one.score}
            for one in video.segments
        ]
        database[video.path.stem] = {"duration": round(video.seconds, 3), "annotations": segments}
    return to_text({"version": "vsn", "database": database})
