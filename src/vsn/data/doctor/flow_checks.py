"""Checks of stored flow beside its videos: what cannot be read, has another length, or another size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vsn.data.doctor.evidence import Evidence, Finding, bad_effect, counted, make_finding
from vsn.data.doctor.flow import FlowReport, StoredFlow

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
        severity, effect = bad_effect(
            evidence, bad, {video: report.problem for video, report in flow.reports.items()}
        )
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
