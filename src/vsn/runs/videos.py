"""Record which videos a run is trained and validated on, in RUN/videos.json."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

from vsn.config.errors import quote_first
from vsn.data.records import REVERSED, RecordSet, VideoRecord
from vsn.runs.run import Run, RunError
from vsn.system.files import write_text

VIDEOS_FILE = "videos.json"
MAX_SIZES = 1000
"""Videos, evenly spaced by id, whose sizes are recorded: asking a network disk for 200,000 would take minutes."""


class Videos(TypedDict):
    """Content of `RUN/videos.json`."""

    train: dict[str, str]
    """The id of each video -> the names of its classes, separated by "|"."""
    val: dict[str, str]
    before: NotRequired[dict[str, str]]
    """Training videos of the runs whose weights the run started from."""
    sizes: NotRequired[dict[str, int]]
    """The bytes of up to `MAX_SIZES` videos on disk: other videos under the same names are told by them."""
    times: NotRequired[dict[str, str]]
    """The times of those that are segments, such as "t=12.5,20"."""


def list_videos_of_run(train: Sequence[VideoRecord], val: Sequence[VideoRecord], classes: Sequence[str]) -> Videos:
    """Return what `RUN/videos.json` holds for these records."""
    from vsn.data.video import stored_bytes  # with the decoder, which reports do not need

    records = {record.video_id: record for record in (*train, *val)}
    sampled = sorted(records)[:: max(1, math.ceil(len(records) / MAX_SIZES))]
    videos: Videos = {
        "train": _names_of(train, classes),
        "val": _names_of(val, classes),
        "sizes": {video: stored_bytes(records[video].path) for video in sampled},
    }
    if times := {video: str(part) for video in sampled if (part := records[video].part)}:
        videos["times"] = times
    return videos


def hash_data(*splits: RecordSet) -> str:
    """Return a hash of the videos of some splits: names, classes, and sizes and times as `list_videos_of_run` has them."""
    videos = [list_videos_of_run(split.records, (), split.classes) for split in splits]
    return hashlib.sha256(json.dumps(videos, sort_keys=True).encode()).hexdigest()


def _names_of(records: Sequence[VideoRecord], classes: Sequence[str]) -> dict[str, str]:
    return {record.video_id: "|".join(classes[label] for label in record.labels) for record in records}


def read_videos(path: Path) -> Videos | None:
    """Return the videos of the run in a folder; None for a run of a version that did not record them."""
    file = path / VIDEOS_FILE
    if not file.is_file():
        return None
    try:
        videos = json.loads(file.read_text(encoding="utf-8"))
        return {
            "train": dict(videos["train"]),
            "val": dict(videos["val"]),
            "before": dict(videos.get("before", {})),
            "sizes": dict(videos.get("sizes", {})),
            "times": dict(videos.get("times", {})),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"{file} cannot be read: {error!r}. Delete it: only changes of the data are found by it."
        ) from error


def count_validated(run: Run, split: str, ids: Sequence[str]) -> int | None:
    """Return how many of the videos `ids` of a split the run was validated on; None where that is unknown."""
    videos = read_videos(run.path)
    if videos is not None:
        return len(videos["val"].keys() & set(ids))
    return len(ids) if split == run.recipe.data.val_split else None


def count_trained(run: Run, ids: Sequence[str]) -> int | None:
    """Return how many of the videos `ids` the run, or one that it started from, was trained on; None for none or unknown.

    There are some where a data set is split otherwise now than it was. A reversed copy (task "arrow") is its video.
    """
    videos = read_videos(run.path)
    if videos is None:
        return None
    trained = _sources([*videos["train"], *videos.get("before", {})])
    return sum(video.removesuffix(REVERSED) in trained for video in ids) or None


def record_videos(path: Path, videos: Videos, *, start: Path | None = None) -> list[str]:
    """Write `RUN/videos.json` for a new run; for a resumed one, describe how its data has changed since it began.

    Args:
        path: the run folder.
        videos: those of `list_videos_of_run`.
        start: the run folder whose weights a new run starts from; returned is also a note on validation videos that these
            were trained on.
    """
    before = read_videos(path)
    if before is None:
        of_start = read_videos(start) if start else None
        known = of_start.get("before", {}) | of_start["train"] if of_start else {}
        if known:
            videos["before"] = known
        # Escaped: names of files need not be UTF-8.
        write_text(path / VIDEOS_FILE, json.dumps(videos, indent=1) + "\n")
        shared = sorted(_sources(videos["val"]) & _sources(known))
        if not shared:
            return []
        return [
            f"The weights to start from ({start}) were trained on {len(shared)} of the {len(_sources(videos['val']))} "
            f"validation videos ({quote_first(shared, 2)}): accuracy on them says little about others."
        ]
    if changes := describe_changes(before, videos):
        return [
            f"The data has changed since this run began; {changes}. The run continues on the videos that are there now: its "
            "results are of both, and its learning rate counts steps of the new epochs."
        ]
    return []


def describe_changes(before: Videos, now: Videos) -> str:
    """Say how the videos of a run have changed; "" if they are the same as far as is recorded."""
    changes = [
        f"{kind} videos: {', '.join(parts)}"
        for kind, parts in (
            ("training", _describe_change(before["train"], now["train"])),
            ("validation", _describe_change(before["val"], now["val"])),
        )
        if parts
    ]
    recorded: list[tuple[str, Mapping[str, object], Mapping[str, object]]] = [
        # Early versions recorded 0 for each video of a packed set.
        ("files", sizes if any((sizes := before.get("sizes", {})).values()) else {}, now.get("sizes", {})),
        ("times", before.get("times", {}), now.get("times", {})),
    ]
    for what, was, values in recorded:
        compared = values.keys() & was.keys()
        if other := sorted(video for video in compared if was[video] != values[video]):
            compared_of = "" if len(compared) == len(now["train"] | now["val"]) else f" of {len(compared)} compared"
            changes.append(f"other {what} under the same names: {len(other)}{compared_of} ({quote_first(other, 2)})")
    return "; ".join(changes)


def _sources(ids: Iterable[str]) -> set[str]:
    return {video.removesuffix(REVERSED) for video in ids}


def _describe_change(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    removed = [video for video in before if video not in now]
    added = [video for video in now if video not in before]
    relabeled = [video for video, label in now.items() if before.get(video, label) != label]
    parts = [
        f"{len(videos)} {change} ({quote_first(videos, 2)})"
        for videos, change in ((removed, "removed"), (added, "added"), (relabeled, "with another label"))
        if videos
    ]
    gone = sorted(set(before.values()) - set(now.values()))
    return [*parts, f"none left of {quote_first(gone)}"] if gone else parts
