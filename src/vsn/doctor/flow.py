"""Locate the stored flow of the videos, and inspect the flow of one video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vsn.config import ConfigError, FlowLayout, Recipe
from vsn.data.flow.find import describe_located, locate_flow, stored_metadata
from vsn.data.flow.stored import open_flow
from vsn.data.flow.values import ZERO, FlowMetadata, differing_metadata, expected_flow, other_zero
from vsn.data.records import RecordSet
from vsn.data.sampling import segment_indices, stack_indices
from vsn.data.video import VideoError
from vsn.doctor.findings import Finding, make_finding
from vsn.doctor.splits import Place, Split
from vsn.doctor.videos import Problem, classify_problem

_FIELDS_PER_READ = 64
_EFFECT = "A run on flow stops with this error."


@dataclass(frozen=True)
class FlowReport:
    """Properties of the flow of a video; with a `problem` the numbers are 0."""

    path: Path
    """Of the video."""
    problem: Problem = ""
    reason: str = ""
    num_fields: int = 0
    height: int = 0
    width: int = 0
    """Pixels of the first field that was read."""


@dataclass(frozen=True)
class DatasetFlow:
    """Stored flow of the videos of all splits."""

    folder: Path
    layout: FlowLayout
    paths: dict[Path, Path] = field(default_factory=dict)
    """Video -> its flow; without the videos that have none."""
    reports: dict[Path, FlowReport] = field(default_factory=dict)
    """Video -> report, of the videos inspected."""
    facts: FlowMetadata = field(default_factory=FlowMetadata)
    """As in `flow.json`, or the defaults if there is none."""
    description: str = ""
    """How the flow is stored, for the user; "" if unknown."""
    short_side: int | None = None
    """Shorter side of the fields in pixels, by `flow.json` or else the model; None: unknown."""


def find_flow(splits: Sequence[Split], recipe: Recipe) -> tuple[DatasetFlow | None, list[Finding]]:
    """Locate the flow of every video, None without any; return findings that stop a run before it reads flow."""
    wanted = expected_flow(recipe)
    errors: dict[str, str] = {}
    flow: DatasetFlow | None = None
    missing: list[str] = []
    # Flow -> the videos that would use it. More than one is an error: videos "a/1" and "b/1" both match flow "1".
    owners: dict[Path, dict[Path, Place]] = {}
    for split in splits:
        try:
            located = locate_flow(RecordSet(split.videos, split.records.classes), recipe.data)
        except ConfigError as error:
            errors.setdefault("no-flow", str(error))
            continue
        flow = flow or DatasetFlow(located.folder, located.layout)
        for record, path in zip(split.videos, located.places, strict=True):
            place = Place(split, record.video_id, ())
            if path is None:
                missing.append(str(place))
            else:
                flow.paths[record.path] = path
                owners.setdefault(path, {}).setdefault(record.path, place)
        # The first split with flow tells how all of it is stored.
        if not flow.description and any(located.places):
            try:
                stated = stored_metadata(located)
                # Assigned before describe_located, which may fail: the values are known even if the files are not.
                flow = replace(flow, facts=stated or FlowMetadata())
                flow = replace(flow, description=describe_located(located, stated))
            except ConfigError as error:
                errors.setdefault("flow-files", str(error))
    findings = [make_finding(code, effect=_EFFECT, error=message.rstrip(".")) for code, message in errors.items()]
    if flow is None:
        return None, findings
    if missing:
        num_videos = sum(len(split.videos) for split in splits)
        findings.append(
            make_finding("flow-missing/located", missing, effect=_EFFECT, num_videos=num_videos, folder=flow.folder)
        )
    if shared := [" and ".join(map(str, places.values())) for places in owners.values() if len(places) > 1]:
        findings.append(make_finding("flow-shared", shared))
    differing = [
        f"{key} is {stored!r} there, {setting} is {required!r}"
        for key, setting, stored, required in differing_metadata(flow.facts, wanted)
    ]
    if flow.facts.zero != ZERO:
        differing.append(other_zero(flow.facts).rstrip("."))
    if differing:
        findings.append(make_finding("flow-otherwise", differing, effect=_EFFECT, folder=flow.folder))
    return replace(flow, short_side=flow.facts.short_side or wanted.short_side), findings


@dataclass(frozen=True)
class FlowJob:
    """The flow of a video to inspect, and how training would read it."""

    path: Path
    """Of the video."""
    flow: Path
    layout: FlowLayout
    num_frames: int
    """T, frames of a clip."""
    length: int
    """L, consecutive fields of each segment."""
    thorough: bool = False
    """Read every field, not only those of a clip and the last."""


def inspect_flow(job: FlowJob) -> FlowReport:
    """Read the fields of a test clip and the last field, or all. Never raises for the content of the flow."""
    try:
        return _inspect(job)
    except VideoError as error:
        return FlowReport(job.path, classify_problem(job.flow), error.reason)
    except Exception as error:  # a bug of ours with this flow must not end the check of the others
        return FlowReport(job.path, "unreadable", f"{type(error).__name__}: {error}")


def _inspect(job: FlowJob) -> FlowReport:
    flow = open_flow(job.flow, layout=job.layout)
    num_fields = flow.num_frames
    starts = segment_indices(num_fields, job.num_frames, None, num_consecutive=job.length)
    fields = flow.frames_at([*stack_indices(starts, num_fields, job.length).ravel().tolist(), num_fields - 1])
    # In parts, because all fields of a long video may not fit in memory.
    for start in range(0, num_fields if job.thorough else 0, _FIELDS_PER_READ):
        flow.frames_at(range(start, min(start + _FIELDS_PER_READ, num_fields)))
    return FlowReport(job.path, num_fields=num_fields, height=fields.shape[1], width=fields.shape[2])
