"""A data set packed for sparse reading: few files, the short side resized once, every frame a JPEG.

Eight of 300 frames then cost eight small decodes. Folder: `shard-*.vsnpack` (`vsn.data.video.packed_files`
tells their layout), `videos.csv` (path, label, split, id), `bad.csv` where videos could not be read,
and `pack.json` (settings, class names, what was packed), which is written last. The set is read with
`data.source = "csv"`, with the ids, labels, classes and order of the original.
"""

from __future__ import annotations

import contextlib
import csv
import io
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vsn.config import ConfigError, DataConfig
from vsn.data.packing.plan import (
    MARKER,
    UNFINISHED,
    PackPlan,
    check_folder,
    make_plan,
    packed_config,
    read_marker,
)
from vsn.data.packing.shards import (
    ShardContent,
    ShardJob,
    UnreadVideo,
    content_of,
    kept_content,
    shard_faults,
    write_shard,
)
from vsn.data.readers import read_records
from vsn.data.video import VideoError
from vsn.data.video.packed_files import SUFFIX
from vsn.system.files import write_json, write_text
from vsn.system.interrupt import interrupts_blocked
from vsn.system.progress import progress_bar

VIDEOS = "videos.csv"
BAD = "bad.csv"


@dataclass(frozen=True)
class PackSummary:
    """What a pack holds, and what it took. `str()` is a few lines for people."""

    out: Path
    task: str
    """`data.task` of the settings: whether labels are kept, and whether a video may have several."""
    splits: dict[str, int]
    """Records of each split; a video may be in several."""
    left_out: dict[str, str]
    """Splits that the data set does not have -> what its reader says."""
    num_missing: int
    """Records whose videos are not on disk, which the reader of the data set leaves out."""
    num_videos: int
    num_frames: int
    num_shards: int
    num_written: int
    """Shards that this call wrote; the others were there."""
    bad: tuple[UnreadVideo, ...]
    """Videos that could not be read, and are not packed."""
    bytes_in: int
    """Size of the packed videos as they were."""
    bytes_out: int
    """Size of the shards."""
    seconds: float

    def __str__(self) -> str:
        splits = ", ".join(f"{name} {count}" for name, count in self.splits.items())
        growth = f" ({self.bytes_out / self.bytes_in:.1f} times)" if self.bytes_in else ""
        lines = [
            f"{self.out}: {self.num_videos} videos, {self.num_frames} frames, in {self.num_shards} packed files "
            f"({self.num_shards - self.num_written} of them were there).",
            f"Records: {splits}." + "".join(f" No split {name!r}." for name in self.left_out),
            f"Size: {_size(self.bytes_in)} of videos became {_size(self.bytes_out)}{growth}. "
            f"Time: {self.seconds:.0f} s.",
        ]
        if self.num_missing:
            lines.append(f"Not there, though listed: {self.num_missing}.")
        if self.bad:
            lines.append(f"Not packed, for they cannot be read: {len(self.bad)}, listed in {self.out / BAD}.")
        if self.task == "arrow":
            lines.append("Labels are left out, for the arrow of time (data.task) has no use for them.")
        task = "" if self.task == "classify" else f" --data.task {self.task}"
        lines.append(f"Read it with --data.source csv --data.root {self.out}{task}")
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

    Frames have their shorter side at `short_side` pixels (smaller ones stay) and are JPEG of
    `quality` 1 to 100. `splits`: which (None: those of the train, val and test split of the settings
    that there are). `num_workers` processes work (None: one a CPU; 0 or 1: the calling one); their
    number does not change the files. As with any spawned processes, a script that calls this keeps
    the call under `if __name__ == "__main__":`.

    A packed file is there whole, read back and compared, or not at all: stopped at any moment, the
    pack goes on from there when called again. Videos that cannot be read are listed in `bad.csv`.

    Raises `VideoError` at the end, when their share is above `max_bad`; nothing is lost, and a call
    with a higher `max_bad`, or with these videos mended, finishes the rest. Raises `ConfigError` for
    settings, and for a folder that holds other files or a pack of another source or other settings.
    """
    start, out = time.perf_counter(), Path(out)
    if num_workers is not None and num_workers < 0:
        raise ConfigError(f"num_workers is {num_workers}; it must be 0 or more, or None for one a CPU.")
    if not 0.0 <= max_bad <= 1.0:
        raise ConfigError(f"max_bad is {max_bad}; it is a share between 0 and 1.")
    plan = make_plan(config, out, splits=splits, short_side=short_side, quality=quality)
    check_folder(out, plan.description)
    out.mkdir(parents=True, exist_ok=True)
    _remove_parts(out)
    contents = {job.path: content for job in plan.jobs if (content := kept_content(job)) is not None}
    todo = [job for job in plan.jobs if job.path not in contents]
    if todo or not (out / MARKER).is_file():
        write_json(out / UNFINISHED, plan.description)
        for name in (MARKER, VIDEOS):  # of a finished pack whose shards have gone: rows may change
            (out / name).unlink(missing_ok=True)
    try:
        contents |= _write_shards(todo, num_workers=num_workers, progress=progress)
    finally:
        _remove_parts(out)
    summary = _summary(plan, out, contents, num_written=len(todo), seconds=time.perf_counter() - start)
    _write_bad(out, plan, summary.bad)
    _check_bad(summary, max_bad)
    _write_videos(out, plan, contents)
    write_json(out / MARKER, _marker(plan, summary, contents))
    _check_records(out, plan, summary.bad)
    (out / UNFINISHED).unlink(missing_ok=True)
    return summary


def verify_pack(root: str | Path, *, num_workers: int | None = None, progress: bool = True) -> tuple[VideoError, ...]:
    """Read a whole pack and compare it with its checksums; what is damaged or missing, each named.

    `num_workers` threads read (None: one a CPU). Raises `ConfigError` where there is no finished pack.
    """
    root = Path(root)
    marker = read_marker(root / MARKER)
    shards: dict[str, Any] = marker["shards"]
    faults: list[VideoError] = []
    with (
        progress_bar("files", disable=not progress) as bar,
        ThreadPoolExecutor(num_workers or _num_cpus()) as pool,
    ):
        task = bar.add_task("checking", total=len(shards), note="")
        for found in pool.map(shard_faults, [root / name for name in shards]):
            faults += found
            bar.advance(task)
    damaged = {fault.path for fault in faults}
    for name, facts in shards.items():
        path = root / name
        if not any(fault.startswith(str(path)) for fault in damaged) and _shard_facts(content_of(path)) != facts:
            faults.append(VideoError(path, f"it holds other videos than {MARKER} says; delete it and pack again."))
    return tuple(faults)


# --- the work --------------------------------------------------------------------------------------


def _write_shards(jobs: Sequence[ShardJob], *, num_workers: int | None, progress: bool) -> dict[Path, ShardContent]:
    num_workers = min(_num_cpus() if num_workers is None else num_workers, len(jobs))
    contents: dict[Path, ShardContent] = {}
    with progress_bar("videos", disable=not progress) as bar:
        task = bar.add_task("packing", total=sum(len(job.videos) for job in jobs), note="")
        with _shard_writers(jobs, num_workers) as written:
            for job, content in written:
                contents[job.path] = content
                bar.advance(task, len(job.videos))
    return contents


@contextlib.contextmanager
def _shard_writers(jobs: Sequence[ShardJob], num_workers: int) -> Iterator[Iterator[tuple[ShardJob, ShardContent]]]:
    """Shards as they get ready, from processes or, for fewer than two of these, from this one.

    When the block ends early, by Ctrl-C or an error, the processes end at once; what they had in hand
    is no shard yet.
    """
    if num_workers <= 1:
        yield ((job, write_shard(job)) for job in jobs)
        return
    # Spawned, not forked: safe beside threads, and the same on every system.
    context = multiprocessing.get_context("spawn")
    most = 61 if sys.platform == "win32" else num_workers  # Windows waits for no more processes at once
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(num_workers, most), mp_context=context, initializer=_ignore_interrupt)
    try:
        with interrupts_blocked():
            futures = {pool.submit(write_shard, job): job for job in jobs}
            workers = set(multiprocessing.active_children()) - others
        yield ((futures[future], future.result()) for future in as_completed(futures))
    except BrokenProcessPool:
        raise VideoError(
            jobs[0].path.parent,
            "a process that packs has died: out of memory, or a video that crashes the decoder. What is packed "
            "stays. Pack again with fewer workers; `vsn data doctor` finds such a video.",
        ) from None
    except BaseException:
        for worker in workers:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ignore_interrupt() -> None:
    """Leave Ctrl-C, which reaches every process of the terminal, to the one that called `pack_dataset`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _num_cpus() -> int:
    """CPUs this process may use: containers and schedulers may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _remove_parts(out: Path) -> None:
    """Remove what processes that were ended had in hand."""
    for part in out.glob(f".shard-*{SUFFIX}"):
        part.unlink(missing_ok=True)


# --- what is written beside the shards -------------------------------------------------------------


def _summary(
    plan: PackPlan, out: Path, contents: dict[Path, ShardContent], *, num_written: int, seconds: float
) -> PackSummary:
    parts = [contents[job.path] for job in plan.jobs]
    bad = tuple(video for part in parts for video in part.bad)
    absent = {video.video_id for video in bad}
    paths = {video.path for job in plan.jobs for video in job.videos if video.video_id in absent}
    splits = {
        name: sum(record.path not in paths and not record.reverse for record in records.records)
        for name, records in plan.splits.items()
    }
    return PackSummary(
        out=out,
        task=plan.config.task,
        splits=splits,
        left_out=plan.left_out,
        num_missing=sum(records.num_missing for records in plan.splits.values()),
        num_videos=sum(len(part.ids) for part in parts),
        num_frames=sum(part.num_frames for part in parts),
        num_shards=len(parts),
        num_written=num_written,
        bad=bad,
        bytes_in=sum(part.bytes_in for part in parts),
        bytes_out=sum(part.bytes_out for part in parts),
        seconds=seconds,
    )


def _write_bad(out: Path, plan: PackPlan, bad: Sequence[UnreadVideo]) -> None:
    if not bad:
        (out / BAD).unlink(missing_ok=True)
        return
    paths = {video.video_id: video.path for job in plan.jobs for video in job.videos}
    rows = [(video.video_id, paths[video.video_id], video.reason) for video in bad]
    write_text(out / BAD, _csv([("id", "path", "reason"), *rows]))


def _check_bad(summary: PackSummary, max_bad: float) -> None:
    """Raise `VideoError` for more unreadable videos than allowed, or for a pack without any video."""
    num_bad, num_all = len(summary.bad), len(summary.bad) + summary.num_videos
    if num_bad <= max_bad * num_all and summary.num_videos:
        return
    first = summary.bad[0]
    raise VideoError(
        summary.out / BAD,
        f"{num_bad} of {num_all} videos cannot be read (the first: {first.video_id!r}, {first.reason}), and "
        f"max_bad allows a share of {max_bad:g}. The others are packed. Mend the videos listed, or allow a share of "
        f"{num_bad / num_all:.4f}, and pack again: it goes on from here.",
    )


def _write_videos(out: Path, plan: PackPlan, contents: dict[Path, ShardContent]) -> None:
    places = {
        (job.path, video_id): f"{job.path.name}/{number}"
        for job in plan.jobs
        for number, video_id in enumerate(contents[job.path].ids)
    }
    where = {
        video.path: places[job.path, video.video_id]
        for job in plan.jobs
        for video in job.videos
        if (job.path, video.video_id) in places
    }
    rows = [
        (
            where[record.path],
            "|".join(plan.classes[label] for label in plan.labels(record)),
            split,
            record.video_id,
        )
        for split, records in plan.splits.items()
        for record in records.records
        if record.path in where and not record.reverse
    ]
    write_text(out / VIDEOS, _csv([("path", "label", "split", "id"), *rows]))


def _check_records(out: Path, plan: PackPlan, bad: Sequence[UnreadVideo]) -> None:
    """Read the pack's records as training will; raise `ConfigError` unless they are those of the source."""
    absent = {video.video_id for video in bad}
    paths = {video.path for job in plan.jobs for video in job.videos if video.video_id in absent}
    config = packed_config(plan.config, out)
    for split, records in plan.splits.items():
        expected = [(r.video_id, r.labels) for r in records.records if r.path not in paths]
        if not expected:
            continue
        read = read_records(config, split)
        if read.classes != records.classes or [(r.video_id, r.labels) for r in read.records] != expected:
            (out / MARKER).unlink()
            raise ConfigError(
                f"{out / VIDEOS}: split {split!r} reads back with other ids, labels or classes than the "
                "source has. This should not happen; please report it with the annotation files."
            )


def _marker(plan: PackPlan, summary: PackSummary, contents: dict[Path, ShardContent]) -> dict[str, Any]:
    return {
        **plan.description,
        "classes": list(plan.classes),
        "multi_label": plan.config.task == "multilabel",
        "num_videos": summary.num_videos,
        "num_frames": summary.num_frames,
        "num_bad": len(summary.bad),
        "bytes_in": summary.bytes_in,
        "bytes_out": summary.bytes_out,
        "shards": {path.name: _shard_facts(content) for path, content in sorted(contents.items())},
        "versions": {name: version(name) for name in ("av", "numpy", "pillow")},
    }


def _shard_facts(content: ShardContent) -> dict[str, int]:
    return {"videos": len(content.ids), "frames": content.num_frames, "bytes": content.bytes_out}


def _csv(rows: Iterable[Sequence[str | Path]]) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def _size(num_bytes: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"
