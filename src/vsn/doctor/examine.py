"""Examine a data set: read the splits, inspect the videos, measure the loader, run the checks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TypeVar

from vsn.config import Recipe
from vsn.data.copies import find_copies
from vsn.data.part import VideoPart
from vsn.data.video import VideoError
from vsn.data.video.packed_files import packed_place
from vsn.data.video.torchcodec_reader import device_of
from vsn.doctor.checks import check_all
from vsn.doctor.diagnosis import Diagnosis, summarize_evidence
from vsn.doctor.evidence import Evidence
from vsn.doctor.flow import DatasetFlow, find_flow
from vsn.doctor.near_copies import FINE, Likeness, Signature, find_near_copies
from vsn.doctor.splits import Split, choose_videos, read_splits
from vsn.doctor.videos import Problem, VideoReport, inspect_flow, inspect_video, sign
from vsn.system.interrupt import stop_requests
from vsn.system.limits import num_cpus
from vsn.system.pool import WorkerFailure, run_guarded
from vsn.system.progress import progress_bar

T = TypeVar("T")


def examine(
    recipe: Recipe,
    *,
    sample: int | None = None,
    thorough: bool = False,
    num_workers: int | None = None,
    seconds_per_video: float = 60.0,
    gpu_videos_per_second: float | None = None,
    loading_seconds: float = 8.0,
    progress: bool = True,
) -> Diagnosis:
    """Look for problems that would break or bias a training run on a data set.

    Videos are decoded in spawned processes, so that one that crashes or hangs its process is a finding. A script
    that calls this needs `if __name__ == "__main__":`.

    Args:
        recipe: the data set, and how a run reads it.
        sample: number of videos of each split to inspect, drawn by `train.seed`; None: all. Labels and copies are
            checked for all videos.
        thorough: decode every frame, not only those of a clip and the last.
        num_workers: processes. None: one per CPU to inspect, `data.num_workers` to load. 0: this process, without
            protection against crashes.
        seconds_per_video: time limit to inspect one video.
        gpu_videos_per_second: training speed of the GPU; slower loading is a finding.
        loading_seconds: duration of the measurement of loading; 0: skip it.
        progress: draw a progress bar.

    Raises:
        ValueError: an argument out of range.
        RuntimeError: processes cannot be started.
    """
    start = time.perf_counter()
    data = recipe.data
    for name, value, minimum in (("sample", sample, 1), ("num_workers", num_workers, 0)):
        if value is not None and value < minimum:
            raise ValueError(f"Expected {name} of {minimum} or more, got {value}.")
    for name, number in (("seconds_per_video", seconds_per_video), ("gpu_videos_per_second", gpu_videos_per_second)):
        if number is not None and not number > 0:
            raise ValueError(f"Expected {name} above 0, got {number}.")
    if data.decoder != "pyav":
        device_of(data.decoder)  # raises if TorchCodec is missing, which is no problem of the videos
    # The time limit and the processes are the same for videos and flow.
    inspect_all = partial(
        _inspect_all,
        num_workers=num_cpus() if num_workers is None else num_workers,
        seconds_limit=seconds_per_video,
        progress=progress,
    )

    splits, findings = read_splits(data)
    # Decode a test clip and the last frame of each video, in processes that a broken file may kill.
    videos = choose_videos(splits, sample, recipe.train.seed)
    inspect = partial(inspect_video, recipe=recipe, thorough=thorough)
    reports = inspect_all("checking", inspect, {video: video for video in videos})

    # A model on flow reads that in place of the videos, which are inspected all the same: their frames tell how many
    # fields there should be.
    dataset_flow: DatasetFlow | None = None
    if recipe.model.modality == "flow":
        dataset_flow, flow_findings = find_flow(splits, recipe)
        findings += flow_findings
    if dataset_flow is not None:
        inspect = partial(inspect_flow, recipe=recipe, layout=dataset_flow.layout, thorough=thorough)
        flow_paths = {video: dataset_flow.paths[video] for video in videos if video in dataset_flow.paths}
        dataset_flow.reports.update(inspect_all("checking flow", inspect, flow_paths))

    # Measure the loader after the inspection, on readable videos only: one that hangs would stop it.
    evidence = Evidence(recipe, splits, reports, flow=dataset_flow, gpu_videos_per_second=gpu_videos_per_second)
    if loading_seconds > 0:
        # Imports torch, which the inspecting processes must not: each would take seconds to start.
        from vsn.doctor.loading import measure_loading

        with _phase("measuring loading", progress):
            loading, failed = measure_loading(
                evidence,
                num_workers=data.num_workers if num_workers is None else num_workers,
                max_seconds=loading_seconds,
            )
        evidence = replace(evidence, loading=loading)
        # Random clips may hit damaged frames that the test clip did not.
        loaded = reports if dataset_flow is None else dataset_flow.reports
        loaded.update((video, VideoReport(video, "unreadable", reason)) for video, reason in failed.items())
    with _phase("looking for copies", progress):
        evidence = replace(evidence, copies=_all_copies(splits, reports))
        evidence = replace(evidence, near_copies=_all_near_copies(evidence))
    findings += check_all(evidence)
    seconds = time.perf_counter() - start
    return summarize_evidence(evidence, findings, sample=sample, thorough=thorough, seconds=seconds)


@contextlib.contextmanager
def _phase(name: str, progress: bool) -> Iterator[None]:
    """Show the name of a phase of unknown length."""
    with progress_bar("videos", disable=not progress) as bar:
        bar.add_task(name, total=None, note="")
        yield


def _inspect_all(
    label: str,
    work: Callable[[T], VideoReport],
    read: Mapping[VideoPart, T],
    *,
    num_workers: int,
    seconds_limit: float,
    progress: bool,
) -> dict[VideoPart, VideoReport]:
    """Run `work` on the values of `read`, what to read of each video, in guarded processes.

    Returns a report per video, in their order.
    """
    videos = list(read)
    reports: dict[VideoPart, VideoReport] = {}
    with stop_requests(raises=True) as stop, progress_bar("videos", disable=not progress) as bar:
        task = bar.add_task(label, total=len(videos), note="")
        results = run_guarded(work, list(read.values()), num_workers=num_workers, seconds_limit=seconds_limit)
        with contextlib.closing(results):
            for index, result in results:
                video = videos[index]
                if isinstance(result, WorkerFailure):
                    problem: Problem = "too-slow" if result.timed_out else "crashed"
                    reports[video] = VideoReport(video, problem, result.reason)
                else:
                    reports[video] = replace(result, video=video)
                bar.advance(task)
                stop.check()
    return {video: reports[video] for video in videos}


def _all_near_copies(evidence: Evidence) -> tuple[tuple[VideoPart, VideoPart, Likeness], ...]:
    """Find near copies across splits among the videos inspected; not those that other checks find by path or bytes."""
    same_content = {path: number for number, group in enumerate(evidence.copies) for path in group}
    found: list[tuple[VideoPart, VideoPart, Likeness]] = []
    for splits in combinations(evidence.splits, 2):
        signed = [[report for report in evidence.checked(split) if report.signature] for split in splits]
        signatures = [[report.signature for report in reports if report.signature] for reports in signed]

        def look_closer(part: int, index: int, signed: list[list[VideoReport]] = signed) -> Signature | None:
            try:
                return sign(signed[part][index].video, evidence.recipe, FINE)
            except VideoError:  # damaged where the first reading did not look
                return None

        for first, second, likeness in find_near_copies(signatures[0], signatures[1], look_closer):
            a, b = signed[0][first].video, signed[1][second].video
            contents = [same_content.get(video.path, video.path) for video in (a, b)]
            if contents[0] != contents[1]:
                found.append((a, b, likeness))
    return tuple(found)


def _all_copies(splits: Sequence[Split], reports: dict[VideoPart, VideoReport]) -> tuple[tuple[Path, ...], ...]:
    """Find copies of all videos; among those in packed files, which are no files, by pixels if they were inspected."""
    paths = dict.fromkeys(video.path for split in splits for video in split.shown)
    # A packed file holds many videos and stores JPEG frames, so bytes of files tell nothing of copies in it.
    packed = [path for path in paths if packed_place(path) is not None]
    by_pixels: dict[str, list[Path]] = {}
    for path in packed:
        if (report := reports.get(VideoPart(path))) and report.pixels:
            by_pixels.setdefault(report.pixels, []).append(path)
    same_pixels = tuple(tuple(group) for group in by_pixels.values() if len(group) > 1)
    return find_copies(paths.keys() - set(packed) if packed else paths) + same_pixels
