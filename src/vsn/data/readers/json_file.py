"""Read and write a plain JSON file of segments, as `vsn predict --windows --json` prints them."""

from __future__ import annotations

from collections.abc import Sequence

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


def read_json_segments(config: DataConfig, split: str) -> RecordSet:
    """Read `[{"path": ..., "split": ..., "segments": [{"start": ..., "end": ..., "label": ...}]}]`, times in seconds.

    A label may be a list (task "multilabel"); `split` may be left out for all. Other keys are ignored. The file is
    `data.annotations`, or the only `.json` in root, root/annotations or root/labels; paths are relative to root/videos or
    root.
    """
    (file,) = annotation_files(config, ".json")
    videos = read_json(file)
    if not isinstance(videos, list):
        raise ConfigError(f"{file}: expected a list of objects, one for each video.")
    rows = []
    for number, video in enumerate(videos, 1):
        with errors_at(file, where := f"entry {number}"):
            path, subset = require(video, "path", str), split_name(video.get("split"))
            for one in require(video, "segments", list):
                part = seconds_between(one.get("start"), one.get("end"))
                label = one.get("label")
                labels = tuple(label) if isinstance(label, list) else (require(one, "label", str),)
                rows.append(Annotation(file, where, (path,), labels, part, split=subset))
    return read_annotations(config, split, rows)


def write_json_segments(videos: Sequence[VideoLabels]) -> str:
    """Return the JSON of `read_json_segments`; each segment has its score too."""
    return to_text([
        {
            "path": video.path.as_posix(),
            "segments": [
                {"start": round(one.start, 3), "end": round(one.end, 3), "label": one.label, "score": one.score}
                for one in video.segments
            ],
        }
        for video in videos
    ])  # fmt: skip
