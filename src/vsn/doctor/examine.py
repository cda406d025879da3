"""Examining a data set: read the splits, look into the videos, measure the loader, judge."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from vsn.config import ClipSpec, ConfigError, DataConfig
from vsn.data.readers import NoSplitError, read_records
from vsn.data.video.packed_files import packed_place
from vsn.data.video.torchcodec_files import device_of
from vsn.doctor.checks import check_all, check_loading
from vsn.doctor.copies import find_copies
from vsn.doctor.diagnosis import Diagnosis, Loading, summed_up
from vsn.doctor.evidence import ROLES, Evidence, Finding, Split, make_finding
from vsn.doctor.files import FileJob, FileReport, Problem, inspect_video
from vsn.doctor.flow import FlowEvidence, FlowJob, FlowReport, FlowWanted, check_flow, find_flow, inspect_flow
from vsn.system.pool import WorkerFailure, num_cpus, run_guarded
from vsn.system.progress import progress_bar

Job = TypeVar("Job")
Report = TypeVar("Report")


def examine(
    config: DataConfig,
    clip: ClipSpec,
    num_frames: int,
    *,
    sample: int | None = None,
    thorough: bool = False,
    num_workers: int | None = None,
    seconds_a_video: float = 60.0,
    seed: int = 0,
    gpu_videos_per_second: float | None = None,
    batch_size: int = 64,
    loading_seconds: float = 8.0,
    progress: bool = True,
    flow: FlowWanted | None = None,
) -> Diagnosis:
    """Look for what would break or bias a training run on this data set.

    Videos are decoded in spawned processes, so that one that kills its process or hangs is a finding; a
    script that calls this keeps the call under `if __name__ == "__main__":`.

    Args:
        config: the data set.
        clip: the clips to be trained on.
        num_frames: T, frames of a clip.
        sample: look into that many videos of each split, drawn by `seed`; None: into all. Labels and
            copies are always those of all.
        thorough: decode every frame, not only those of a clip and the last.
        num_workers: processes, for checking and for the measurement of loading; None: one a CPU to
            check, `config.num_workers` to load. 0: this process, without protection.
        seconds_a_video: time limit for looking into one video.
        seed: of the sample and of the measured clips.
        gpu_videos_per_second: what the GPU trains on; a finding where loading is slower.
        batch_size: of the measured loader.
        loading_seconds: how long to measure loading; 0: not at all.
        progress: draw a progress bar.
        flow: what the model wants of stored flow, which is then looked into beside the videos, and loaded; None:
            it looks at frames.

    Raises:
        ValueError: an argument out of range.
        RuntimeError: processes cannot be started.
    """
    start = time.perf_counter()
    _check_arguments(num_frames, sample, num_workers, seconds_a_video, gpu_videos_per_second, batch_size)
    if config.decoder != "pyav":
        device_of(config.decoder)  # that it is missing is no fault of the videos
    splits, findings = read_splits(config)
    jobs = [
        FileJob(path, num_frames, clip.short_side, config.frame_template, config.decoder, thorough)
        for path in choose_videos(splits, sample, seed)
    ]
    lookers = _Lookers(num_cpus() if num_workers is None else num_workers, seconds_a_video, progress)
    reports = _look_into_videos(jobs, lookers)
    flow_evidence, flow_findings = _look_into_flow(splits, config, flow, jobs, lookers)
    findings += flow_findings
    measure = partial(
        _measure_loading, splits, config=config, clip=clip, num_frames=num_frames, num_workers=num_workers,
        batch_size=batch_size, seconds_limit=loading_seconds, seed=seed, flow=flow_evidence,
    )  # fmt: skip
    with _phase("measuring loading", progress):
        loading = _note_unloaded(measure, reports, flow_evidence, wants_flow=flow is not None)
    with _phase("looking for copies", progress):
        copies = _all_copies(splits, reports)
    evidence = Evidence(config, clip, num_frames, splits, reports, copies, reads_frames=flow is None)
    findings += check_all(evidence)
    findings += check_flow(evidence, flow_evidence) if flow_evidence else []
    findings += check_loading(loading, gpu_videos_per_second)
    return summed_up(
        evidence, findings, sample=sample, thorough=thorough, loading=loading,
        gpu_videos_per_second=gpu_videos_per_second, flow=flow_evidence.stored.said if flow_evidence else "",
        seconds=time.perf_counter() - start,
    )  # fmt: skip


def _note_unloaded(
    measure: Callable[[set[Path]], tuple[Loading | None, dict[Path, str]]],
    reports: dict[Path, FileReport],
    flow: FlowEvidence | None,
    *,
    wants_flow: bool,
) -> Loading | None:
    """Measure loading what is readable; what failed there is noted in the reports of what was loaded."""
    loading, failed = measure(_readable(flow.reports if flow else {} if wants_flow else reports))
    for path, reason in failed.items():
        if flow is not None:
            flow.reports[path] = FlowReport("unreadable", reason)
        else:
            reports[path] = FileReport(path, "unreadable", reason)
    return loading


_AGAIN = "Do what it says, then run the doctor again."


@contextlib.contextmanager
def _phase(name: str, progress: bool) -> Iterator[None]:
    """Say what takes time while it does."""
    with progress_bar("videos", disable=not progress) as bar:
        bar.add_task(name, total=None, note="")
        yield


def _check_arguments(
    num_frames: int,
    sample: int | None,
    num_workers: int | None,
    seconds_a_video: float,
    gpu_videos_per_second: float | None,
    batch_size: int,
) -> None:
    for name, value, least in (
        ("num_frames", num_frames, 1),
        ("sample", sample, 1),
        ("num_workers", num_workers, 0),
        ("batch_size", batch_size, 1),
    ):
        if value is not None and value < least:
            raise ValueError(f"{name} is {value}; it must be {least} or more.")
    for name, number in (
        ("seconds_a_video", seconds_a_video),
        ("gpu_videos_per_second", gpu_videos_per_second),
    ):
        if number is not None and not number > 0:
            raise ValueError(f"{name} is {number}; it must be above 0.")


# --- splits ----------------------------------------------------------------------------------------


def read_splits(config: DataConfig) -> tuple[tuple[Split, ...], list[Finding]]:
    """The splits that can be read, those of the same videos as one, and a finding for each that cannot."""
    splits: list[Split] = []
    errors: dict[str, ConfigError] = {}
    for role in ROLES:
        name = getattr(config, f"{role}_split")
        try:
            records = read_records(config, name)
        except ConfigError as error:
            errors[role] = error
            continue
        paths = [record.path for record in records.records]
        same = next((split for split in splits if [r.path for r in split.records.records] == paths), None)
        if same is None:
            splits.append(Split(name, (role,), records))
        else:
            names = dict.fromkeys((*same.name.split(" and "), name))
            splits[splits.index(same)] = replace(same, name=" and ".join(names), roles=(*same.roles, role))
    return tuple(splits), [*_split_findings(errors)]


def _split_findings(errors: dict[str, ConfigError]) -> Iterator[Finding]:
    messages = {role: str(error).rstrip(".") for role, error in errors.items()}
    if len(errors) == len(ROLES) and len(set(messages.values())) == 1:
        effect = "Nothing else could be checked."
        yield make_finding("unreadable-data", "error", messages["train"], [], _AGAIN, effect=effect)
        return
    effects = {
        "train": "`vsn train` stops at this.",
        "val": "`vsn train` stops at this: it validates after each epoch.",
        "test": "`vsn eval` stops at this.",
    }
    for role, error in errors.items():
        if not isinstance(error, NoSplitError):
            yield make_finding("unreadable-split", "error", messages[role], [], _AGAIN, effect=effects[role])
        elif role == "test":
            advice = "Training does without; `vsn eval` then tests on the split that training validates on."
            yield make_finding("no-split", "note", error.what.rstrip("."), [], advice)
        else:
            what = error.what.rstrip(".")
            yield make_finding("no-split", "error", what, [], error.advice, effect=effects[role])


def choose_videos(splits: Sequence[Split], sample: int | None, seed: int) -> list[Path]:
    """Videos to look into, each once: all, or `sample` of each split."""
    chosen: dict[Path, None] = {}
    for number, split in enumerate(splits):
        paths = list(dict.fromkeys(record.path for record in split.videos))
        if sample is not None and sample < len(paths):
            drawn = np.random.default_rng([seed, number]).choice(len(paths), sample, replace=False)
            paths = [paths[index] for index in sorted(drawn)]
        chosen |= dict.fromkeys(paths)
    return list(chosen)


# --- videos ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lookers:
    """The processes that look into files, and their limits."""

    num_workers: int
    seconds_a_video: float
    progress: bool

    def run(self, work: Callable[[Job], Report], jobs: Sequence[Job], what: str) -> list[Report | WorkerFailure]:
        """What `work` makes of each job, in their order."""
        found: dict[int, Report | WorkerFailure] = {}
        with progress_bar("videos", disable=not self.progress) as bar:
            task = bar.add_task(what, total=len(jobs), note="")
            with contextlib.closing(
                run_guarded(work, jobs, num_workers=self.num_workers, seconds_limit=self.seconds_a_video)
            ) as results:
                for index, result in results:
                    found[index] = result
                    bar.advance(task)
        return [found[index] for index in range(len(jobs))]


def _problem_of_lost(lost: WorkerFailure) -> Problem:
    return "too-slow" if lost.timed_out else "crashed"


def _look_into_videos(jobs: Sequence[FileJob], lookers: _Lookers) -> dict[Path, FileReport]:
    """A report of each video, in the order of the jobs."""
    return {
        job.path: FileReport(job.path, _problem_of_lost(found), found.reason)
        if isinstance(found, WorkerFailure)
        else found
        for job, found in zip(jobs, lookers.run(inspect_video, jobs, "checking"), strict=True)
    }


def _readable(reports: Mapping[Path, FileReport] | Mapping[Path, FlowReport]) -> set[Path]:
    return {path for path, report in reports.items() if not report.problem}


def _look_into_flow(
    splits: Sequence[Split],
    config: DataConfig,
    wanted: FlowWanted | None,
    videos: Sequence[FileJob],
    lookers: _Lookers,
) -> tuple[FlowEvidence | None, list[Finding]]:
    """The flow of these videos, None where there is none or none is wanted, and what training would stop at at once."""
    if wanted is None:
        return None, []
    stored, findings = find_flow(splits, config, wanted.facts)
    if stored is None:
        return None, findings
    places, layout = stored.places, stored.layout
    videos = [video for video in videos if video.path in places]
    jobs = [FlowJob(places[v.path], layout, v.num_frames, wanted.length, v.thorough) for v in videos]
    reports = {
        video.path: FlowReport(_problem_of_lost(found), found.reason) if isinstance(found, WorkerFailure) else found
        for video, found in zip(videos, lookers.run(inspect_flow, jobs, "checking flow"), strict=True)
    }
    side = stored.facts.short_side or wanted.facts.short_side
    return FlowEvidence(stored, wanted.length, side, reports), findings


def _measure_loading(
    splits: Sequence[Split],
    readable: set[Path],
    config: DataConfig,
    clip: ClipSpec,
    num_frames: int,
    *,
    num_workers: int | None,
    batch_size: int,
    seconds_limit: float,
    seed: int,
    flow: FlowEvidence | None,
) -> tuple[Loading | None, dict[Path, str]]:
    """Speed of the training loader, None without training videos, and why videos fail in it."""
    train = next((split for split in splits if "train" in split.roles), None)
    if train is None or seconds_limit <= 0:
        return None, {}
    from vsn.doctor.loading import measure_loading  # torch, which the processes for checking do without

    return measure_loading(
        train.records,
        readable,
        config,
        clip,
        num_frames,
        num_workers=config.num_workers if num_workers is None else num_workers,
        batch_size=batch_size,
        seconds_limit=seconds_limit,
        seed=seed,
        flow=flow,
    )


def _all_copies(splits: Sequence[Split], reports: dict[Path, FileReport]) -> tuple[tuple[Path, ...], ...]:
    """Groups of videos with the same content; packed ones among those looked into, by their pixels."""
    paths = dict.fromkeys(record.path for split in splits for record in split.videos)
    packed = [path for path in paths if packed_place(path) is not None]
    by_pixels: dict[str, list[Path]] = {}
    for path in packed:
        if path in reports and reports[path].pixels:
            by_pixels.setdefault(reports[path].pixels, []).append(path)
    same_pixels = tuple(tuple(group) for group in by_pixels.values() if len(group) > 1)
    return find_copies(paths.keys() - set(packed) if packed else paths) + same_pixels
