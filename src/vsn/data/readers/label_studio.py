"""Read and write the JSON of Label Studio: timelines of videos, and regions of audio that is played with a video."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

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
from vsn.data.records import VIDEO_EXTENSIONS, RecordSet

DEFAULT_RATE = 24.0
"""Frames per second by which the tag <Video> counts where its `framerate` states none."""
_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")


def read_label_studio(config: DataConfig, split: str) -> RecordSet:
    """Read a JSON export: annotations of the tag TimelineLabels, of Labels on audio, in seconds, or Choices of whole videos.

    The file is `data.annotations`, or the only `.json` in root, root/annotations or root/labels. The video of a task is the
    value of its data that names one, by its path in a local storage or its name, also without the eight letters that an
    upload puts before it, below root/videos or root. `split` in the data of all tasks states their splits. Of several
    annotations of a task the one updated last counts; tasks without one are left out.

    Timelines count frames from 1 at the `framerate` of the tag <Video> (24 unless stated), which an export does not state:
    `data.annotation_rate` does.
    """
    (file,) = annotation_files(config, ".json")
    tasks = read_json(file)
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise ConfigError(f"{file}: expected a list of tasks: export as JSON, not JSON-MIN or CSV.")
    rows: list[Annotation] = []
    num_left_out = num_several = 0
    for number, task in enumerate(tasks, 1):
        with errors_at(file, where := f"task {task.get('id', number)}"):
            if "annotations" not in task:
                raise ValueError("it has no annotations: export as JSON, not JSON-MIN or CSV.")
            done = [one for one in require(task, "annotations", list) if not one.get("was_cancelled")]
            num_left_out += not done
            num_several += len(done) > 1
            if not done:
                continue
            latest = max(done, key=lambda one: str(one.get("updated_at", "")))
            data = require(task, "data", dict)
            videos, subset = _video_names(data), split_name(data.get("split"))
            for labels, part, frames in _labels(latest, config.annotation_rate):
                rows.append(Annotation(file, where, videos, labels, part, frames, subset))
    notes = [f"{file.name}: {num_left_out} tasks without an annotation are left out."] * bool(num_left_out)
    if num_several:
        notes.append(
            f"{file.name}: of the annotations of {num_several} tasks with several, those updated last are read."
        )
    return read_annotations(config, split, rows, notes=notes)


def _labels(
    annotation: Mapping[str, Any], rate: float
) -> Iterator[tuple[tuple[str, ...], Any, tuple[int, int] | None]]:
    """Yield class names, and the segment or its frames, of each region."""
    for result in require(annotation, "result", list):
        value, kind = result.get("value", {}), result.get("type")
        if kind == "timelinelabels":
            if not rate:
                raise ValueError(
                    "a timeline counts frames at the framerate of the tag <Video>, which an export does not state: set "
                    f"data.annotation_rate to it; it is {DEFAULT_RATE:g} where the tag states none."
                )
            labels = tuple(require(value, "timelinelabels", list))
            for one in require(value, "ranges", list):
                first, last = one.get("start"), one.get("end")
                if not isinstance(first, int) or not isinstance(last, int) or not 1 <= first <= last:
                    raise ValueError(f"a range is {first!r} to {last!r}; expected numbers of frames from 1.")
                yield labels, None, (first - 1, last)
        elif kind == "labels" and "start" in value and "end" in value:
            yield tuple(require(value, "labels", list)), seconds_between(value["start"], value["end"]), None
        elif kind == "choices":
            yield tuple(require(value, "choices", list)), None, None
        elif kind in ("timelinelabels", "labels", "videorectangle"):
            raise ValueError(
                f"the region {result.get('id')!r} of type {kind!r} has no times of a label; draw a timeline."
            )


def _video_names(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names that the video of a task may have. Raises `ValueError` where the data names none, or several."""
    found = {}
    for key, value in data.items():
        if isinstance(value, str):
            address = urlsplit(value)
            # A local storage is addressed as /data/local-files/?d=path.
            path = unquote(address.path) if "d" not in parse_qs(address.query) else parse_qs(address.query)["d"][0]
            if Path(path).suffix.lower() in VIDEO_EXTENSIONS:
                found[key] = path.lstrip("/")
    if len(set(found.values())) != 1:
        raise ValueError(f"its data names {len(found)} videos ({', '.join(found) or ', '.join(data)}); expected one.")
    (path,) = set(found.values())
    name = posixpath.basename(path)
    parts = path.split("/")
    # "data/upload/1/0a1b2c3d-day1.mp4" -> that, its ends, and day1.mp4
    return tuple(dict.fromkeys(["/".join(parts[i:]) for i in range(len(parts))] + [_UPLOAD.sub("", name, count=1)]))


def write_label_studio(videos: Sequence[VideoLabels], *, rate: float = 0.0) -> str:
    """Return tasks with predictions, which people correct, for a project with this labeling interface:

        <View><TimelineLabels name="label" toName="video"><Label value="..."/></TimelineLabels>
        <Video name="video" value="$video" framerate="25"/></View>

    `rate` is the framerate of the tag, 0 for that of each video. Videos are addressed as Label Studio's local files.
    """
    tasks = []
    for video in videos:
        by = rate or video.frames_per_second
        results = [
            {
                "id": f"vsn{number}",
                "from_name": "label",
                "to_name": "video",
                "type": "timelinelabels",
                "score": one.score,
                "value": {
                    "ranges": [
                        {"start": round(one.start * by) + 1, "end": max(round(one.end * by), round(one.start * by) + 1)}
                    ],
                    "timelinelabels": [one.label],
                },
            }
            for number, one in enumerate(video.segments)
        ]
        address = "/data/local-files/?d=" + quote(video.path.as_posix())
        tasks.append({"data": {"video": address}, "predictions": [{"model_version": "vsn", "result": results}]})
    return to_text(tasks)
