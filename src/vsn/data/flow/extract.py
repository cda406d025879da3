"""Optical flow of a data set, computed and stored: what `vsn flow extract` does.

The folder holds `flow.json`, which says what the values mean and how they were made, the flow of each video under
the name of the video, and `failed.csv` where videos could not be done. The flow of a video is there whole or
not at all, so that what stopped at any moment goes on from there, and several machines may share a folder.
"""

from __future__ import annotations

import contextlib
import csv
import io
import multiprocessing
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsn.config import ConfigError
from vsn.data.flow.compute import CPU_PIXELS, QUALITY, flow_method, iter_fields
from vsn.data.flow.extract_plan import FlowSettings, FlowVideo, check_folder, place_of, require_own_names
from vsn.data.flow.file import write_flow_file
from vsn.data.flow.folder import write_flow_folder
from vsn.data.flow.values import FACTS, FlowFacts
from vsn.data.video import VideoError, open_video
from vsn.system.files import write_json, write_text
from vsn.system.interrupt import interrupts_blocked
from vsn.system.progress import progress_bar

_LEFT_BEHIND = re.compile(r"\.(?P<name>.+)-[a-z0-9_]{8}(?:\.vsnflow)?", re.DOTALL)
"""Names of what a writer had in hand when it was killed (`vsn.system.files`, `write_flow_folder`)."""
_GPU_PIXELS, _GPU_WORKERS = 32 * 256 * 340, 4


@dataclass(frozen=True)
class DoneVideo:
    """What came of a video."""

    video: FlowVideo
    num_fields: int
    reason: str = ""
    """Why it has no flow; empty when it has."""


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction holds, and what it took. `str()` is a few lines for people."""

    out: Path
    settings: FlowSettings
    num_videos: int
    num_kept: int
    """Videos whose flow was there."""
    num_fields: int
    """Fields that this call computed."""
    failed: tuple[DoneVideo, ...]
    report: Path
    """The file that lists those that failed."""
    seconds: float

    def __str__(self) -> str:
        done = self.num_videos - len(self.failed)
        rate = f", {self.num_fields / self.seconds:.1f} a second" if self.num_fields else ""
        lines = [
            f"{self.out}: flow of {done} of {self.num_videos} videos ({self.num_kept} of them were there); "
            f"{self.num_fields} fields computed in {self.seconds:.0f} s{rate}."
        ]
        if self.failed:
            lines.append(f"{len(self.failed)} failed, listed in {self.report}; those mended are done by a second call.")
        facts = self.settings.facts()
        stated = "" if facts.method == "tv-l1" else f" --model.flow-method {facts.method}"
        stated += "" if facts.bound == FlowFacts.bound else f" --model.flow-bound {facts.bound:g}"
        lines.append(f"Train on it with --model.modality flow --data.flow {self.out.absolute()}{stated}")
        return "\n".join(lines)


def extract_flow(
    videos: Iterable[FlowVideo],
    out: str | Path,
    settings: FlowSettings | None = None,
    *,
    shard: tuple[int, int] = (0, 1),
    device: str = "cpu",
    num_workers: int | None = None,
    progress: bool = True,
) -> ExtractSummary:
    """Store the flow of videos in the folder `out`; what is there is kept.

    Args:
        videos: whose flow is wanted; see `vsn.data.flow.extract_plan`.
        out: the folder; new, empty, or of an extraction with the same settings.
        settings: default `FlowSettings()`.
        shard: `(i, n)`: every n-th video from the i-th on, where n machines share the work; i counts from 0.
        device: what method "tvl1" computes on: cpu or cuda.
        num_workers: processes, each of one thread (None: one a CPU, on a GPU at most 4; 0 or 1: the calling one).
            As with any spawned processes, a script keeps the call under `if __name__ == "__main__":`.
        progress: show a bar.

    Returns:
        The summary; videos that failed are in it and in `failed.csv`, and do not raise.

    Raises:
        ConfigError: for settings, two videos of one name, and a folder that holds something else.
    """
    start, out, settings = time.perf_counter(), Path(out), settings or FlowSettings()
    flow_method(settings.method, device)  # refuses what cannot run
    index, count = shard
    if not 0 <= index < count:
        raise ConfigError(f"the shard is {index}/{count}; of {count} they are 0/{count} to {count - 1}/{count}.")
    if num_workers is not None and num_workers < 0:
        raise ConfigError(f"num_workers is {num_workers}; it must be 0 or more, or None for one a CPU.")
    wanted = sorted(videos, key=lambda video: video.name)
    require_own_names(wanted)
    wanted = wanted[index::count]
    check_folder(out, settings)
    out.mkdir(parents=True, exist_ok=True)
    if not (out / FACTS).is_file():
        write_json(out / FACTS, settings.described())
    todo = [video for video in wanted if not place_of(out, video, settings.layout).exists()]
    if num_workers is None:
        num_workers = _num_cpus() if device == "cpu" else min(_GPU_WORKERS, _num_cpus())
    done: list[DoneVideo] = []
    try:
        with (
            progress_bar("videos", disable=not progress) as bar,
            _done_videos(todo, out, settings, device, min(num_workers, len(todo))) as coming,
        ):
            task = bar.add_task("computing flow", total=len(wanted), completed=len(wanted) - len(todo), note="")
            for one in coming:
                done.append(one)
                num_failed = sum(bool(former.reason) for former in done)
                bar.update(task, advance=1, note=f"{num_failed} failed" if num_failed else "")
    finally:
        _remove_left_behind(out, todo)
    failed = tuple(sorted((one for one in done if one.reason), key=lambda one: one.video.name))
    report = out / ("failed.csv" if count == 1 else f"failed-{index}-of-{count}.csv")
    _write_failed(report, failed)
    return ExtractSummary(
        out=out,
        settings=settings,
        num_videos=len(wanted),
        num_kept=len(wanted) - len(todo),
        num_fields=sum(one.num_fields for one in done),
        failed=failed,
        report=report,
        seconds=time.perf_counter() - start,
    )


# --- one video -------------------------------------------------------------------------------------


def _extract(video: FlowVideo, out: Path, settings: FlowSettings, device: str) -> DoneVideo:
    place = place_of(out, video, settings.layout)
    compute = flow_method(settings.method, device)
    try:
        frames = open_video(
            video.path,
            short_side=settings.short_side,
            frame_template=video.frame_template,
            decoder=video.decoder,
        )
        rate = frames.frames_per_second
        pixels = CPU_PIXELS if device == "cpu" else _GPU_PIXELS
        fields = iter_fields(video.path, frames, compute, bound=settings.bound, pixels_at_once=pixels)
        if settings.layout == "file":
            number = write_flow_file(place, fields, video_id=video.name, frames_per_second=rate, quality=QUALITY)
        else:
            number = write_flow_folder(place, fields, layout=settings.layout, quality=QUALITY)
    except VideoError as error:
        return DoneVideo(video, 0, error.reason)
    except ConfigError:  # the settings, not the video
        raise
    except ValueError as error:
        return DoneVideo(video, 0, " ".join(str(error).split()))
    return DoneVideo(video, number)


@contextlib.contextmanager
def _done_videos(
    videos: Sequence[FlowVideo], out: Path, settings: FlowSettings, device: str, num_workers: int
) -> Iterator[Iterator[DoneVideo]]:
    """Videos as they get ready, from processes or, for fewer than two of these, from this one.

    When the block ends early, by Ctrl-C or an error, the processes end at once.
    """
    if num_workers <= 1:
        with _one_thread():
            yield (_extract(video, out, settings, device) for video in videos)
        return
    context = multiprocessing.get_context("spawn")
    most = 61 if sys.platform == "win32" else num_workers  # Windows waits for no more processes at once
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(num_workers, most), mp_context=context, initializer=_start_worker)
    workers: set[Any] = set()
    try:
        with interrupts_blocked():
            futures = [pool.submit(_extract, video, out, settings, device) for video in videos]
            workers = set(multiprocessing.active_children()) - others
        yield (future.result() for future in as_completed(futures))
    except BrokenProcessPool:
        raise VideoError(
            out,
            "a process that computes flow has died: out of memory, or a video that crashes the decoder. What is "
            "done stays. Go on with fewer workers; `vsn data doctor` finds such a video.",
        ) from None
    except BaseException:
        for worker in workers:
            worker.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """On pictures as small as flow is computed on, threads wait for one another more than they help."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _start_worker() -> None:
    """One thread each; and Ctrl-C, which reaches every process of the terminal, is for the one that called."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


# --- the folder ------------------------------------------------------------------------------------


def _remove_left_behind(out: Path, videos: Sequence[FlowVideo]) -> None:
    """Remove what was in hand of these videos when their writer was killed."""
    names: dict[Path, set[str]] = {}
    for video in videos:
        place = out / video.name
        names.setdefault(place.parent, set()).add(place.name)
    for folder, own in names.items():
        if not folder.is_dir():
            continue
        for entry in list(os.scandir(folder)):
            match = _LEFT_BEHIND.fullmatch(entry.name)
            if match and match["name"] in own:
                if entry.is_dir():
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    Path(entry.path).unlink(missing_ok=True)


def _write_failed(report: Path, failed: Sequence[DoneVideo]) -> None:
    if not failed:
        report.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("path", "reason"), *((one.video.path, one.reason) for one in failed)])
    write_text(report, text.getvalue())


def _num_cpus() -> int:
    """CPUs this process may use: containers and schedulers may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
