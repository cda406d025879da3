"""Optical flow of a data set, computed and stored: what `vsn flow extract` does.

The folder holds `flow.json`, which says what the values mean and how they were made, the flow of each video under
the name of the video, and `failed.csv` where videos could not be done. The flow of a video is there whole or
not at all, so that what stopped at any moment goes on from there, and several machines may share a folder.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vsn.config import ConfigError
from vsn.data.flow.compute import CPU_PIXELS, QUALITY, flow_method, iter_fields
from vsn.data.flow.extract_plan import FlowSettings, FlowVideo, place_of, require_own_names
from vsn.data.flow.file import write_flow_file
from vsn.data.flow.folder import write_flow_folder
from vsn.data.flow.values import FACTS, FlowFacts
from vsn.data.video import VideoError, open_video
from vsn.system.files import check_output_folder, remove_temporary_files, write_csv, write_json
from vsn.system.pool import check_num_workers, num_cpus, run_in_processes
from vsn.system.progress import progress_bar

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
    if num_workers is None and device != "cpu":
        num_workers = min(_GPU_WORKERS, num_cpus())
    num_workers = check_num_workers(num_workers)
    wanted = sorted(videos, key=lambda video: video.name)
    require_own_names(wanted)
    wanted = wanted[index::count]
    check_output_folder(out, settings.described(), names=(FACTS,))
    out.mkdir(parents=True, exist_ok=True)
    if not (out / FACTS).is_file():
        write_json(out / FACTS, settings.described())
    todo = [video for video in wanted if not place_of(out, video, settings.layout).exists()]
    done: list[DoneVideo] = []
    try:
        with progress_bar("videos", disable=not progress) as bar:
            task = bar.add_task("computing flow", total=len(wanted), completed=len(wanted) - len(todo), note="")
            extract = partial(_extract, out=out, settings=settings, device=device)
            for _, result in run_in_processes(extract, todo, num_workers=num_workers):
                done.append(result)
                num_failed = sum(bool(video.reason) for video in done)
                bar.update(task, advance=1, note=f"{num_failed} failed" if num_failed else "")
    finally:
        remove_temporary_files(place_of(out, video, settings.layout) for video in todo)
    failed = tuple(sorted((one for one in done if one.reason), key=lambda one: one.video.name))
    report = out / ("failed.csv" if count == 1 else f"failed-{index}-of-{count}.csv")
    if failed:
        write_csv(report, [("path", "reason"), *((result.video.path, result.reason) for result in failed)])
    else:
        report.unlink(missing_ok=True)
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


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread of PyTorch: on frames this small, threads wait for each other more than they help."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def _extract(video: FlowVideo, *, out: Path, settings: FlowSettings, device: str) -> DoneVideo:
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
