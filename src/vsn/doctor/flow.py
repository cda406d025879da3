"""Stored flow as the doctor sees it: which video has which, what its values mean, and whether it can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vsn.config import ConfigError, DataConfig, FlowLayout
from vsn.data.flow.find import LocatedFlow, describe_located, locate_flow, stated_facts
from vsn.data.flow.read import read_flow
from vsn.data.flow.values import ZERO, FlowFacts, differing_facts, other_zero
from vsn.data.records import RecordSet
from vsn.data.sampling import segment_indices, stack_indices
from vsn.data.video import VideoError
from vsn.doctor.evidence import Evidence, Finding, Place, Split, bad_effect, counted, make_finding
from vsn.doctor.files import Problem, problem_of

_FIELDS_AT_ONCE = 64
_STOPS = "A run on flow stops at this."


@dataclass(frozen=True)
class FlowWanted:
    """What a recipe's model wants of stored flow."""

    facts: FlowFacts
    length: int
    """L, fields in a row of each segment."""


# --- where it lies, and what it means ----------------------------------------------------------------


@dataclass(frozen=True)
class StoredFlow:
    """The flow of the videos of all splits."""

    folder: Path
    layout: FlowLayout
    facts: FlowFacts
    """What `flow.json` says, or what is taken for granted without it."""
    said: str
    """How it is stored, in words; "" where that cannot be told."""
    places: dict[Path, Path] = field(default_factory=dict)
    """The flow of each video that has some."""


def find_flow(
    splits: Sequence[Split], config: DataConfig, wanted: FlowFacts
) -> tuple[StoredFlow | None, list[Finding]]:
    """The flow of every video, None where there is none, and what a run would stop at before it reads any."""
    errors: dict[str, str] = {}
    flow: StoredFlow | None = None
    missing: list[str] = []
    owners: dict[Path, dict[Path, Place]] = {}
    for split in splits:
        records = RecordSet(split.videos, split.records.classes)
        try:
            located = locate_flow(records, config)
        except ConfigError as error:
            errors.setdefault("no-flow", str(error))
            continue
        flow = flow or StoredFlow(located.folder, located.layout, FlowFacts(), "")
        for record, place in zip(split.videos, located.places, strict=True):
            if place is None:
                missing.append(f"{record.video_id} ({split.name})")
                continue
            flow.places[record.path] = place
            owners.setdefault(place, {}).setdefault(record.path, Place(split, record.video_id, ()))
        try:
            flow = _with_meaning(flow, located)
        except ConfigError as error:
            errors.setdefault("flow-files", str(error))
    num_videos = sum(len(split.videos) for split in splits)
    findings = [
        make_finding(code, "error", said.rstrip("."), [], "Do what it says, then run the doctor again.", effect=_STOPS)
        for code, said in errors.items()
    ]
    if flow is not None:
        shared = [list(one.values()) for one in owners.values() if len(one) > 1]
        findings += _findings(flow, wanted, missing, num_videos, shared)
    return flow, findings


def _with_meaning(flow: StoredFlow, located: LocatedFlow) -> StoredFlow:
    if flow.said or not any(located.places):
        return flow
    stated = stated_facts(located)
    flow = replace(flow, facts=stated or FlowFacts())
    return replace(flow, said=describe_located(located, stated))


def _findings(
    flow: StoredFlow, wanted: FlowFacts, missing: list[str], num_videos: int, shared: list[list[Place]]
) -> Iterator[Finding]:
    if missing:
        yield make_finding(
            "flow-missing",
            "error",
            f"{len(missing):,} of {num_videos:,} videos have no flow in {flow.folder}",
            missing,
            "Extract it with `vsn flow extract`, or leave these videos out; a video of one frame has none.",
            effect=_STOPS,
        )
    if shared:
        yield make_finding(
            "flow-shared",
            "error",
            f"{len(shared):,} files or folders of flow are taken for that of several videos",
            [" and ".join(map(str, places)) for places in shared],
            "Keep the folders of the videos in the folder of the flow, as `vsn flow extract` does.",
        )
    differing = [
        f"{key} is {there!r} there, {setting} is {asked!r}"
        for key, setting, there, asked in differing_facts(flow.facts, wanted)
    ]
    if flow.facts.zero != ZERO:
        differing.append(other_zero(flow.facts).rstrip("."))
    if differing:
        yield make_finding(
            "flow-otherwise",
            "error",
            f"The flow in {flow.folder} is stored otherwise than the model wants it",
            differing,
            "Extract it anew with `vsn flow extract`, or set the model's settings to what is stored.",
            effect=_STOPS,
        )


# --- whether it can be read ----------------------------------------------------------------------------


@dataclass(frozen=True)
class FlowJob:
    """Flow of a video to look into, and how training would read it."""

    path: Path
    layout: FlowLayout
    num_frames: int
    """T of the clip."""
    length: int
    """L, fields in a row of each segment."""
    thorough: bool = False
    """Read every field, not only those of a clip and the last."""


@dataclass(frozen=True)
class FlowReport:
    """What was found. With a `problem` the numbers stay 0."""

    problem: Problem = ""
    reason: str = ""
    num_fields: int = 0
    height: int = 0
    width: int = 0
    """Pixels of the first field that was read."""


def inspect_flow(job: FlowJob) -> FlowReport:
    """Read the fields of a test clip and the last one, or all. Bad content raises nothing."""
    try:
        return _inspect(job)
    except VideoError as error:
        return FlowReport(problem_of(job.path), error.reason)
    except Exception as error:  # a fault of ours on this flow: the others are looked into all the same
        return FlowReport("unreadable", f"{type(error).__name__}: {error}")


def _inspect(job: FlowJob) -> FlowReport:
    total = 0

    def choose(num_fields: int, _: float) -> list[int]:
        nonlocal total
        total = num_fields
        starts = segment_indices(num_fields, job.num_frames, None, num_consecutive=job.length)
        return [*stack_indices(starts, num_fields, job.length).ravel().tolist(), num_fields - 1]

    fields = read_flow(job.path, choose, layout=job.layout)
    for start in range(0, total if job.thorough else 0, _FIELDS_AT_ONCE):
        some = range(start, min(start + _FIELDS_AT_ONCE, total))
        read_flow(job.path, lambda num_fields, rate, some=some: some, layout=job.layout)  # type: ignore[misc]
    return FlowReport(num_fields=total, height=fields.shape[1], width=fields.shape[2])


_HOW = {
    "missing": "is not there",
    "empty": "is empty",
    "unreadable": "cannot be read",
    "crashed": "kills the process that reads it",
    "too-slow": "takes too long to read",
}


@dataclass(frozen=True)
class FlowEvidence:
    """The flow of the videos looked into."""

    stored: StoredFlow
    length: int
    """L, fields in a row of each segment."""
    short_side: int | None
    """Pixels that fields have: what `flow.json` says, else what the model wants; None: not known."""
    reports: dict[Path, FlowReport]
    """By video."""


def check_flow(evidence: Evidence, flow: FlowEvidence) -> list[Finding]:
    """Every finding on flow that was looked into."""
    return [finding for check in _CHECKS for finding in check(evidence, flow)]


def check_readable(evidence: Evidence, flow: FlowEvidence) -> Iterator[Finding]:
    """One finding for each way of being unreadable."""
    for problem, verb in _HOW.items():
        bad = {video: report for video, report in flow.reports.items() if report.problem == problem}
        if not bad:
            continue
        severity, effect = bad_effect(evidence, bad, {video: report.problem for video, report in flow.reports.items()})
        yield make_finding(
            f"flow-{problem}",
            severity,
            f"The flow of {counted(len(bad), 'video')} {verb}",
            [f"{evidence.named(video)}: {report.reason.rstrip('.')}" for video, report in bad.items()],
            "Delete it and run `vsn flow extract` again, which writes what is not there.",
            effect=effect,
        )


def check_length(evidence: Evidence, flow: FlowEvidence) -> Iterator[Finding]:
    """Videos whose flow has another number of fields than their frames make."""
    odd = []
    for video, report in flow.reports.items():
        frames = evidence.reports.get(video)
        if report.problem or frames is None or frames.problem:
            continue
        if report.num_fields not in (frames.num_frames - 1, frames.num_frames):
            odd.append(
                f"{evidence.named(video)}: {counted(report.num_fields, 'field')} for {counted(frames.num_frames, 'frame')}"
            )
    if odd:
        yield make_finding(
            "flow-length",
            "warning",
            f"The flow of {counted(len(odd), 'video')} does not fit the number of frames, N - 1 fields or N for N frames",
            odd,
            "Look whether it was computed of another version of the video, or whether fields are missing; extract it anew.",
        )


def check_size(evidence: Evidence, flow: FlowEvidence) -> Iterator[Finding]:
    """Videos whose flow is of another size than its motions are counted in."""
    side = flow.short_side
    odd = [
        f"{evidence.named(video)}: {report.width}x{report.height}"
        for video, report in flow.reports.items()
        if not report.problem and side and min(report.height, report.width) != side
    ]
    if odd:
        yield make_finding(
            "flow-size",
            "warning",
            f"The flow of {counted(len(odd), 'video')} has another shorter side than {side} pixels",
            odd,
            "Motions are in pixels of the frames that the flow was computed of, so that those of one size are not those "
            "of another; extract it anew with one --short-side.",
        )


_CHECKS: tuple[Callable[[Evidence, FlowEvidence], Iterator[Finding]], ...] = (
    check_readable,
    check_length,
    check_size,
)
