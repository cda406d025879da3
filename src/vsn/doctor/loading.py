"""How fast the training loader gives clips on this machine: the one room of the doctor that needs torch."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from vsn.config import ClipSpec, DataConfig, ModelConfig, Recipe, TrainConfig
from vsn.data.dataset import BadVideo, VideoDataset
from vsn.data.loader import make_loader
from vsn.data.records import RecordSet
from vsn.doctor.diagnosis import Loading
from vsn.doctor.flow import FlowEvidence

_MOST_CLIPS = 2048


def measure_loading(
    records: RecordSet,
    readable: Collection[Path],
    config: DataConfig,
    clip: ClipSpec,
    num_frames: int,
    *,
    num_workers: int,
    batch_size: int,
    seconds_limit: float,
    seed: int,
    flow: FlowEvidence | None = None,
) -> tuple[Loading | None, dict[Path, str]]:
    """Load training clips of the `readable` videos for about `seconds_limit` at most.

    Returns the speed, None where there is nothing to measure on, and the videos that failed after all,
    with the reason. Files are dropped from the system's cache first, where it lets us, so that the
    disk counts too. With `flow` it is the flow of the videos that is loaded.
    """
    step = records.per_video
    firsts = [i for i in range(0, len(records.records), step) if records.records[i].path in readable]
    chosen = np.random.default_rng(seed).permutation(firsts)[: _MOST_CLIPS // step].tolist()
    if not chosen:
        return None, {}
    some = replace(records, records=tuple(r for i in chosen for r in records.records[i : i + step]))
    videos = [record.path for record in some.records]
    if flow is not None:
        places = flow.stored.places
        some = replace(some, records=tuple(replace(r, path=places[r.path]) for r in some.records))
    layout = flow.stored.layout if flow else config.flow_layout
    model = ModelConfig(
        num_frames=num_frames, modality="flow" if flow else "rgb", flow_length=flow.length if flow else 1
    )
    recipe = Recipe(
        clip=clip,
        data=replace(config, cache="none", flow_layout=layout),
        model=model,
        train=TrainConfig(seed=seed),
    )
    dataset = VideoDataset(some, recipe, train=True)
    for path in {record.path for record in some.records}:
        _forget(path)
    # Small batches for small sets: the first round of the workers includes their start and does not count.
    batch_size = max(step, min(batch_size, len(some.records) // (6 * max(1, num_workers))))
    bad: list[BadVideo] = []
    loader = make_loader(dataset, batch_size=batch_size, num_workers=num_workers, shuffle=False, seed=seed, bad=bad)
    arrivals = [(time.perf_counter(), 0)]
    batches = iter(loader)
    try:
        for groups in batches:
            arrivals.append((time.perf_counter(), sum(len(group.indices) for group in groups)))
            if arrivals[-1][0] - arrivals[0][0] > seconds_limit:
                break
    finally:
        del batches, loader  # ends the workers
    warm = min(max(1, num_workers), max(0, len(arrivals) - 2))
    num_clips = sum(count for _, count in arrivals[warm + 1 :])
    elapsed = arrivals[-1][0] - arrivals[warm][0]
    failed = {videos[video.index]: video.reason for video in bad}
    if not num_clips or elapsed <= 0:
        return None, failed
    speed = num_clips / elapsed
    epoch_clips = len(records.records)
    return Loading(speed, num_clips, num_workers, epoch_clips, epoch_clips / speed), failed


def _forget(path: Path) -> None:
    """Drop a file, or the files of a folder, from the system's file cache (Linux)."""
    if not hasattr(os, "posix_fadvise"):
        return
    for file in _files(path):
        try:
            descriptor = os.open(file, os.O_RDONLY)
        except OSError:
            continue
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from path.iterdir()
    elif path.is_file():
        yield path
    # A packed file holds many other videos: it stays as it is.
