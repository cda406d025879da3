"""Record which videos a run is trained and validated on, in RUN/videos.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vsn.config.errors import quote_first
from vsn.data.records import REVERSED, VideoRecord
from vsn.runs.run import Run, RunError
from vsn.system.files import write_text

VIDEOS_FILE = "videos.json"
Videos = dict[str, dict[str, str]]
"""For "train" and "val": the id of each video -> the names of its classes, separated by "|". "before" has the training
videos of the runs whose weights the run started from."""


def list_videos_of_run(train: Sequence[VideoRecord], val: Sequence[VideoRecord], classes: Sequence[str]) -> Videos:
    """Return what `RUN/videos.json` holds for these records."""
    return {
        name: {record.video_id: "|".join(classes[label] for label in record.labels) for record in records}
        for name, records in (("train", train), ("val", val))
    }


def read_videos(path: Path) -> Videos | None:
    """Return the videos of the run in a folder; None for a run of a version that did not record them."""
    file = path / VIDEOS_FILE
    if not file.is_file():
        return None
    try:
        videos = json.loads(file.read_text(encoding="utf-8"))
        return {name: dict(videos[name]) for name in ("train", "val")} | {"before": dict(videos.get("before", {}))}
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
    trained = _sources([*videos["train"], *videos["before"]])
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
        of_start = (read_videos(start) if start else None) or {"train": {}, "before": {}}
        known = of_start["before"] | of_start["train"]
        # Escaped: names of files need not be UTF-8.
        text = json.dumps(videos | {"before": known} if known else videos, indent=1)
        write_text(path / VIDEOS_FILE, text + "\n")
        shared = sorted(_sources(videos["val"]) & _sources(known))
        if not shared:
            return []
        return [
            f"The weights to start from ({start}) were trained on {len(shared)} of the {len(_sources(videos['val']))} "
            f"validation videos ({quote_first(shared, 2)}): accuracy on them says little about others."
        ]
    changes = [
        f"{kind} videos: {', '.join(parts)}"
        for name, kind in (("train", "training"), ("val", "validation"))
        if (parts := _describe_change(before[name], videos[name]))
    ]
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
