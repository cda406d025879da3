"""Record which videos a run is trained and validated on, in RUN/videos.json."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NotRequired, TypedDict

from vsn.config.errors import quote_first
from vsn.data.records import REVERSED, VideoRecord
from vsn.runs.run import Run, RunError
from vsn.system.files import size_on_disk, write_text

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


def list_videos_of_run(train: Sequence[VideoRecord], val: Sequence[VideoRecord], classes: Sequence[str]) -> Videos:
    """Return what `RUN/videos.json` holds for these records."""
    path_of = {record.video_id: record.path for record in (*train, *val)}
    sampled = sorted(path_of)[:: max(1, math.ceil(len(path_of) / MAX_SIZES))]
    return {
        "train": _names_of(train, classes),
        "val": _names_of(val, classes),
        "sizes": {video: size_on_disk(path_of[video]) for video in sampled},
    }


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
    compared = before.get("sizes", {}).keys() & videos.get("sizes", {}).keys()
    other = sorted(video for video in compared if before["sizes"][video] != videos["sizes"][video])
    changes = [
        f"{kind} videos: {', '.join(parts)}"
        for kind, parts in (
            ("training", _describe_change(before["train"], videos["train"])),
            ("validation", _describe_change(before["val"], videos["val"])),
        )
        if parts
    ]
    if other:
        compared_of = "" if len(compared) == len(videos["train"] | videos["val"]) else f" of {len(compared)} compared"
        changes.append(f"other files under the same names: {len(other)}{compared_of} ({quote_first(other, 2)})")
    if not changes:
        return []
    return [
        f"The data has changed since this run began; {'; '.join(changes)}. The run continues on the videos that are there "
        "now: its results are of both, and its learning rate counts steps of the new epochs."
    ]


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
