"""Pack a data set for sparse reading: few files, frames resized once, every frame a JPEG.

Eight of 300 frames then cost eight small decodes. The folder holds `shard-*.vsnpack` (format: see
`vsn.data.video.packed_files`), `videos.csv` (path, label, split, id, and group where the data has groups), `bad.csv` if
videos could not be read, and `pack.json` (settings, class names, source), which is written last. `data.source = "csv"`
reads it, with the ids, labels, groups, classes and order of the original.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NotRequired, TypedDict

from rich.filesize import decimal

from vsn.config import ConfigError, DataConfig
from vsn.data.packing.plan import PackDescription, PackPlan, make_plan
from vsn.data.packing.shards import ShardContent, UnreadVideo, reusable_content, shard_faults, write_shard
from vsn.data.part import VideoPart
from vsn.data.readers import read_records
from vsn.data.video import VideoError
from vsn.system.files import check_output_folder, file_sha256, remove_temporary_files, write_csv, write_json
from vsn.system.interrupt import stop_requests
from vsn.system.lock import lock_folder
from vsn.system.pool import check_num_workers, run_in_processes
from vsn.system.progress import progress_bar
from vsn.system.terminal import shell_quote

MARKER = "pack.json"
UNFINISHED = "pack.unfinished.json"
VIDEOS = "videos.csv"
BAD = "bad.csv"


class PackList(TypedDict):
    """What `pack.json` states about `videos.csv`."""

    rows: int
    sha256: str


class PackMarker(PackDescription):
    """The whole of `pack.json`."""

    classes: list[str]
    multi_label: bool
    num_videos: int
    num_frames: int
    num_bad: int
    bytes_in: int
    bytes_out: int
    shards: dict[str, dict[str, int]]
    """File name -> number of videos, frames and bytes."""
    list: NotRequired[PackList]
    """Of `videos.csv`; packs of earlier versions lack it."""
    versions: dict[str, str]


@dataclass(frozen=True)
class PackSummary:
    """What a pack holds and how long it took. `str()` gives a few lines for users."""

    out: Path
    task: str
    """`data.task` of the settings: whether labels are kept, and whether a video may have several."""
    splits: dict[str, int]
    """Records of each split; a video may be in several."""
    missing_splits: dict[str, str]
    """Splits that the data set does not have -> the reader's error message."""
    num_missing: int
    """Records whose videos are not on disk; the data set's reader skips them."""
    num_videos: int
    num_frames: int
    num_shards: int
    num_written: int
    """Shards that this call wrote; the others existed."""
    bad: tuple[UnreadVideo, ...]
    """Videos that could not be read and are not packed."""
    bytes_in: int
    """Size of the packed videos before packing."""
    bytes_out: int
    """Size of the shards."""
    seconds: float

    def __str__(self) -> str:
        splits = ", ".join(f"{name} {count}" for name, count in self.splits.items())
        growth = f" ({self.bytes_out / self.bytes_in:.1f} times)" if self.bytes_in else ""
        lines = [
            f"{self.out}: {self.num_videos} videos, {self.num_frames} frames, {self.num_shards} packed files "
            f"({self.num_shards - self.num_written} existed).",
            f"Records: {splits}." + "".join(f" No split {name!r}." for name in self.missing_splits),
            f"Size: {decimal(self.bytes_in)} of videos, {decimal(self.bytes_out)} packed{growth}. "
            f"Time: {self.seconds:.0f} s.",
        ]
        if self.num_missing:
            lines.append(f"Listed but not on disk: {self.num_missing}.")
        if self.bad:
            lines.append(f"Unreadable, not packed: {len(self.bad)}, listed in {self.out / BAD}.")
        if self.task == "arrow":
            lines.append("Labels are not stored: data.task = 'arrow' does not use them.")
        task = "" if self.task == "classify" else f" --data.task {self.task}"
        lines.append(f"Read it with --data.source csv --data.root {shell_quote(self.out)}{task}")
        return "\n".join(lines)


def pack_dataset(
    config: DataConfig,
    out: str | Path,
    *,
    splits: Sequence[str] | None = None,
    short_side: int = 256,
    quality: int = 90,
    num_workers: int | None = None,
    max_bad: float = 0.0,
    progress: bool = True,
) -> PackSummary:
    """Pack the data set that `config` describes into the folder `out`.

    Shards are written atomically and read back. An interrupted pack continues when called again with the same
    settings. Videos that cannot be read are listed in `bad.csv`.

    Args:
        config: The data set.
        out: New or empty folder, or one of a pack of the same source with the same settings.
        splits: Splits to pack; None for the train, val and test split of `config` as far as they exist.
        short_side: Pixels of the shorter side; smaller frames keep their size.
        quality: JPEG quality, 1 to 100.
        num_workers: Processes; None for one per CPU, 0 or 1 for the calling process. The files do not depend on it.
            A script keeps the call under `if __name__ == "__main__":`.
        max_bad: Largest allowed share of unreadable videos, 0 to 1.
        progress: Show a progress bar.

    Raises:
        ConfigError: Settings out of range, or a folder that holds something else.
        VideoError: More than `max_bad` of the videos cannot be read. The others are packed and kept.
    """
    start, out = time.perf_counter(), Path(out)
    num_workers = check_num_workers(num_workers)
    if not 0.0 <= max_bad <= 1.0:
        raise ConfigError(f"max_bad is {max_bad}; it must be between 0 and 1.")
    plan = make_plan(config, out, splits=splits, short_side=short_side, quality=quality)
    check_output_folder(out, plan.description, names=(MARKER, UNFINISHED))
    with lock_folder(out):
        # Continue: shards that exist and would come out the same are kept.
        contents = {job.path: content for job in plan.jobs if (content := reusable_content(job)) is not None}
        todo = [job for job in plan.jobs if job.path not in contents]
        if todo or not (out / MARKER).is_file():
            write_json(out / UNFINISHED, plan.description)
            # A finished pack that lost shards may get other rows, so it must not be readable meanwhile.
            for name in (MARKER, VIDEOS):
                (out / name).unlink(missing_ok=True)
        try:
            with stop_requests(raises=True) as stop, progress_bar("videos", disable=not progress) as bar:
                task = bar.add_task("packing", total=sum(len(job.videos) for job in todo), note="")
                for job, content in run_in_processes(write_shard, todo, num_workers=num_workers):
                    contents[job.path] = content
                    bar.advance(task, len(job.videos))
                    stop.check()
        finally:
            # Workers are killed on Ctrl-C, and then cannot remove their own.
            remove_temporary_files(job.path for job in todo)
        places = _places_in_pack(plan, contents)
        # A cell of the column must not be empty, so that it stands for all videos or for none.
        has_groups = all(record.group for records in plan.splits.values() for record in records.records)
        rows = [
            (
                places[record.shown],
                "|".join(plan.classes[label] for label in plan.labels(record)),
                split,
                record.video_id,
                *((record.group,) if has_groups else ()),
            )
            for split, records in plan.splits.items()
            for record in records.records
            if record.shown in places and not record.reverse
        ]
        parts = [contents[job.path] for job in plan.jobs]
        summary = PackSummary(
            out=out,
            task=config.task,
            splits={split: sum(row[2] == split for row in rows) for split in plan.splits},
            missing_splits=plan.missing_splits,
            num_missing=sum(records.num_missing for records in plan.splits.values()),
            num_videos=len(places),
            num_frames=sum(part.num_frames for part in parts),
            num_shards=len(parts),
            num_written=len(todo),
            bad=tuple(video for part in parts for video in part.bad),
            bytes_in=sum(part.bytes_in for part in parts),
            bytes_out=sum(part.bytes_out for part in parts),
            seconds=time.perf_counter() - start,
        )
        # The marker comes last but one: without it the folder is not a pack, and the same command continues.
        _report_bad(summary, plan, max_bad)
        write_csv(out / VIDEOS, [("path", "label", "split", "id", *(("group",) if has_groups else ())), *rows])
        file_list: PackList = {"rows": len(rows), "sha256": file_sha256(out / VIDEOS)}
        write_json(out / MARKER, _marker(plan, summary, contents, file_list))
        _check_records(plan, places)
        (out / UNFINISHED).unlink(missing_ok=True)
        return summary


def _places_in_pack(plan: PackPlan, contents: Mapping[Path, ShardContent]) -> dict[VideoPart, str]:
    """Map source videos to paths in the pack, such as "shard-00003.vsnpack/17", without unreadable videos."""
    # The number of a video in its shard counts readable videos only: with ids a, b, c and b unreadable, c is 1.
    places = {}
    for job in plan.jobs:
        numbers = {video_id: number for number, video_id in enumerate(contents[job.path].ids)}
        for video in job.videos:
            if video.video_id in numbers:
                places[video.shown] = f"{job.path.name}/{numbers[video.video_id]}"
    return places


def _report_bad(summary: PackSummary, plan: PackPlan, max_bad: float) -> None:
    """Write `bad.csv`; raise `VideoError` for more unreadable videos than allowed, or for a pack without videos."""
    path, bad = summary.out / BAD, summary.bad
    if not bad:
        path.unlink(missing_ok=True)
        return
    sources = {video.video_id: video.shown.path for job in plan.jobs for video in job.videos}
    write_csv(
        path, [("id", "path", "reason"), *((video.video_id, sources[video.video_id], video.reason) for video in bad)]
    )
    # The list is written before this may raise: the user needs it then.
    num_all = len(bad) + summary.num_videos
    if len(bad) > max_bad * num_all or not summary.num_videos:
        raise VideoError(
            path,
            f"{len(bad)} of {num_all} videos cannot be read (the first: {bad[0].video_id!r}, {bad[0].reason}), more than "
            f"max_bad={max_bad:g} allows. The others are packed. Fix the listed videos, or set max_bad to "
            f"{len(bad) / num_all:.4f}, and run the same command again.",
        )


def _check_records(plan: PackPlan, places: Mapping[VideoPart, str]) -> None:
    """Read the records as training will; raise `ConfigError` unless they are those of the source."""
    # A pack is read for years. Reading it back once is cheap, and finds what CSV cannot represent.
    config = plan.packed_config
    for split, records in plan.splits.items():
        expected = [(record.video_id, record.labels) for record in records.records if record.shown in places]
        if not expected:  # every video of the split is unreadable
            continue
        packed = read_records(config, split)
        if packed.classes != records.classes or [(r.video_id, r.labels) for r in packed.records] != expected:
            (Path(config.root) / MARKER).unlink()
            raise ConfigError(
                f"{config.root}/{VIDEOS}: split {split!r} reads back with other ids, labels or classes than the source. "
                "This is a bug; please report it with the annotation files."
            )


def _marker(
    plan: PackPlan, summary: PackSummary, contents: Mapping[Path, ShardContent], file_list: PackList
) -> PackMarker:
    return {
        **plan.description,
        "classes": list(plan.classes),
        "multi_label": plan.config.task == "multilabel",
        "num_videos": summary.num_videos,
        "num_frames": summary.num_frames,
        "num_bad": len(summary.bad),
        "bytes_in": summary.bytes_in,
        "bytes_out": summary.bytes_out,
        "shards": {path.name: _shard_sizes(content) for path, content in sorted(contents.items())},
        "list": file_list,
        "versions": {name: version(name) for name in ("av", "numpy", "pillow")},
    }


def _shard_sizes(content: ShardContent) -> dict[str, int]:
    return {"videos": len(content.ids), "frames": content.num_frames, "bytes": content.bytes_out}


def verify_pack(root: str | Path, *, num_workers: int | None = None, progress: bool = True) -> tuple[VideoError, ...]:
    """Read a whole pack, its frames and its list, and compare it with its checksums; return what is damaged or missing.

    Args:
        root: Folder of the pack.
        num_workers: Threads that read; None for one per CPU.
        progress: Show a progress bar.

    Raises:
        ConfigError: There is no finished pack.
    """
    root = Path(root)
    marker = _read_marker(root / MARKER)
    shards = marker["shards"]
    faults: list[VideoError] = []
    with (
        stop_requests(raises=True) as stop,
        progress_bar("files", disable=not progress) as bar,
        # Threads, not processes: reading and CRC-32 release the interpreter lock.
        ThreadPoolExecutor(check_num_workers(num_workers) or 1) as pool,
    ):
        task = bar.add_task("checking", total=len(shards), note="")
        for shard in pool.map(shard_faults, [root / name for name in shards]):
            faults += shard
            bar.advance(task)
            stop.check()
    # A shard can be intact and still be another one, copied or packed again elsewhere.
    damaged = {fault.path for fault in faults}
    for name, sizes in shards.items():
        path = root / name
        if not any(fault.startswith(str(path)) for fault in damaged) and _shard_sizes(ShardContent.of(path)) != sizes:
            faults.append(VideoError(path, f"it holds other videos than {MARKER} lists; delete it and pack again."))
    return (*faults, *_list_faults(root / VIDEOS, marker))


def _list_faults(path: Path, marker: PackMarker) -> Iterator[VideoError]:
    """Yield what is wrong with the list of videos: a row that is lost or changed is a video lost or learned wrongly."""
    if not path.is_file():
        yield VideoError(path, "it is missing; pack again.")
        return
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = [row for row in csv.reader(file) if row][1:]
    if "list" not in marker:
        # Of an earlier version: all that is known is how many videos it listed.
        if (num_videos := len({row[0] for row in rows})) != marker["num_videos"]:
            yield VideoError(path, f"it lists {num_videos} videos, and {marker['num_videos']} were packed; pack again.")
    elif len(rows) != marker["list"]["rows"]:
        yield VideoError(
            path, f"it has {len(rows)} rows; it was written with {marker['list']['rows']} rows. Pack again."
        )
    elif file_sha256(path) != marker["list"]["sha256"]:
        yield VideoError(path, "a label, a split, an id or the order has changed since it was written; pack again.")


def _read_marker(path: Path) -> PackMarker:
    try:
        marker: PackMarker = json.loads(path.read_text(encoding="utf-8"))
        if marker["kind"] != "vsn pack":
            raise KeyError
    except FileNotFoundError:
        raise ConfigError(
            f"{path.parent} has no {MARKER}: it is not a pack, or not a finished one. Pack first."
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} does not describe a pack. Choose another folder.") from None
    return marker
