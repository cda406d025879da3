"""Measure how fast the training loader reads clips on this machine. The only module of the doctor that imports torch."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from vsn.data.dataset import BadVideo, VideoDataset
from vsn.data.extra import open_extra
from vsn.data.loader import make_loader
from vsn.data.part import VideoPart
from vsn.doctor.evidence import Evidence, Loading

_MAX_CLIPS = 2048


def measure_loading(
    evidence: Evidence, *, num_workers: int, max_seconds: float
) -> tuple[Loading | None, dict[VideoPart, str]]:
    """Load random training clips of the readable videos, or their flow, for about `max_seconds`.

    Returns the speed, None without clips to measure, and the reason of each video that failed to load.
    """
    train, flow, recipe = evidence.split_of("train"), evidence.flow, evidence.recipe
    if train is None or (flow is None and not evidence.reads_frames):
        return None, {}
    records = train.records
    reports = evidence.reports if flow is None else flow.reports
    readable = {video for video, report in reports.items() if not report.problem}
    step, seed = records.per_video, recipe.train.seed
    starts = [i for i in range(0, len(records.records), step) if records.records[i].shown in readable]
    chosen = np.random.default_rng(seed).permutation(starts)[: _MAX_CLIPS // step].tolist()
    if not chosen:
        return None, {}
    # A clip and its reversed copy are neighbors and stay together.
    subset = replace(records, records=tuple(r for i in chosen for r in records.records[i : i + step]))
    videos = [record.shown for record in subset.records]
    if flow is not None:
        paths = [flow.paths[video] for video in videos]
        # The flow of a segment is stored on its own.
        of_flow = (replace(r, path=p, start=0.0, end=None) for r, p in zip(subset.records, paths, strict=True))
        subset = replace(subset, records=tuple(of_flow))
    # Without a cache, whose second epoch would be faster than the first.
    data = replace(recipe.data, cache="none", flow_layout=flow.layout if flow else recipe.data.flow_layout)
    extra, _ = open_extra(recipe, subset)
    dataset = VideoDataset(subset, replace(recipe, data=data), train=True, extra=extra)
    for path in {record.path for record in subset.records}:
        _drop_from_cache(path)
    # Small batches for small sets, so that more than one round of batches remains after the warm-up.
    batch_size = max(step, min(recipe.train.batch_size, len(videos) // (6 * max(1, num_workers))))
    bad: list[BadVideo] = []
    loader = make_loader(dataset, batch_size=batch_size, num_workers=num_workers, shuffle=False, seed=seed, bad=bad)
    # Time of each batch, and its number of clips.
    arrivals = [(time.perf_counter(), 0)]
    batches = iter(loader)
    try:
        for groups in batches:
            arrivals.append((time.perf_counter(), sum(len(group.indices) for group in groups)))
            if arrivals[-1][0] - arrivals[0][0] > max_seconds:
                break
    finally:
        del batches, loader  # ends the workers
    # The first batch of each worker includes its start, so the clock starts after them.
    warm_up = min(max(1, num_workers), max(0, len(arrivals) - 2))
    num_clips = sum(count for _, count in arrivals[warm_up + 1 :])
    elapsed = arrivals[-1][0] - arrivals[warm_up][0]
    failed = {videos[video.index]: video.reason for video in bad}
    if not num_clips or elapsed <= 0:
        return None, failed
    speed = num_clips / elapsed
    epoch_clips = len(records.records)
    return Loading(speed, num_clips, num_workers, epoch_clips, epoch_clips / speed), failed


def _drop_from_cache(path: Path) -> None:
    """Drop a file, or the files of a folder, from the page cache (Linux), so that reading from disk is measured too.

    A packed file stays cached: it also holds videos that are not measured.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    for file in path.iterdir() if path.is_dir() else [path] if path.is_file() else []:
        try:
            descriptor = os.open(file, os.O_RDONLY)
        except OSError:
            continue
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
