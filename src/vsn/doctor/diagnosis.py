"""Summarize an examined data set: findings and statistics, as data."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from vsn.data.flips import propose_flip_rule
from vsn.doctor.evidence import Evidence, Loading
from vsn.doctor.findings import SEVERITIES, Finding
from vsn.doctor.splits import Split


@dataclass(frozen=True)
class Spread:
    """Minimum, median and maximum."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Return the spread of the values; None without values."""
        return cls(min(values), median(values), max(values)) if values else None


@dataclass(frozen=True)
class SplitSummary:
    """Statistics of one split; frames, rate and sizes are those of its readable inspected videos."""

    name: str
    roles: tuple[str, ...]
    num_videos: int
    num_missing: int
    """Annotated, but not on disk and left out by the reader."""
    num_checked: int
    num_bad: int
    num_classes: int
    """Classes with a video."""
    frames: Spread | None
    frames_per_second: Spread | None
    """Without the videos whose rate is unknown."""
    short_side: Spread | None
    """Pixels."""


@dataclass(frozen=True)
class ClassSummary:
    """Distribution of the training videos over the classes."""

    num_classes: int
    videos: Spread
    """Of a class."""
    smallest: str
    largest: str
    effective: float
    """Number of equally large classes with the same entropy."""


@dataclass(frozen=True)
class Diagnosis:
    """Findings, errors first, and the statistics behind them."""

    findings: tuple[Finding, ...]
    root: str
    source: str
    task: str
    num_frames: int
    """T, frames of a clip."""
    sample: int | None
    """Videos inspected of each split; None: all."""
    thorough: bool
    splits: tuple[SplitSummary, ...]
    classes: ClassSummary | None
    frame_names: dict[str, int]
    """Naming scheme -> number of frame folders."""
    flip: str
    """data.flip."""
    proposed_flip: str
    """The flip rule that fits the class names; "" without labels."""
    flip_reason: str
    loading: Loading | None
    gpu_videos_per_second: float | None
    """As given by the user."""
    flow: str
    """How the flow is stored; "" if not needed or unknown."""
    seconds: float
    """Duration of the examination."""

    @property
    def healthy(self) -> bool:
        """Whether there is no error."""
        return not any(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, object]:
        """Return plain dicts, lists, numbers and text, for JSON."""
        plain: dict[str, object] = json.loads(json.dumps(asdict(self)))
        return {"healthy": self.healthy} | plain


def summarize_evidence(
    evidence: Evidence, findings: Iterable[Finding], *, sample: int | None, thorough: bool, seconds: float
) -> Diagnosis:
    """Sort the findings by severity and compute the statistics."""
    data, train = evidence.recipe.data, evidence.split_of("train")
    labeled = train is not None and train.records.per_video == 1
    rule, reason = propose_flip_rule(train.records.classes) if train is not None and labeled else ("", "")
    names = Counter(report.frame_names for report in evidence.reports.values() if report.frame_names)
    return Diagnosis(
        findings=tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        root=data.root,
        source=data.source,
        task=data.task,
        num_frames=evidence.recipe.model.num_frames,
        sample=sample,
        thorough=thorough,
        splits=tuple(_summarize_split(evidence, split) for split in evidence.splits),
        classes=_summarize_classes(train.class_counts() if train else Counter()),
        frame_names=dict(names.most_common()),
        flip=data.flip,
        proposed_flip=rule,
        flip_reason=reason,
        loading=evidence.loading,
        gpu_videos_per_second=evidence.gpu_videos_per_second,
        flow=evidence.flow.description if evidence.flow else "",
        seconds=seconds,
    )


def _summarize_split(evidence: Evidence, split: Split) -> SplitSummary:
    reports = evidence.checked(split)
    readable = [report for report in reports if not report.problem]
    return SplitSummary(
        name=split.name,
        roles=split.roles,
        num_videos=len(split.videos),
        num_missing=split.records.num_missing,
        num_checked=len(reports),
        num_bad=len(reports) - len(readable),
        num_classes=sum(number > 0 for number in split.class_counts().values()),
        frames=Spread.of([report.num_frames for report in readable]),
        # Folders of frames have no rate.
        frames_per_second=Spread.of([r.frames_per_second for r in readable if r.frames_per_second]),
        short_side=Spread.of([min(report.height, report.width) for report in readable]),
    )


def _summarize_classes(counts: Counter[str]) -> ClassSummary | None:
    spread = Spread.of(list(counts.values()))
    if spread is None or not spread.max:
        return None
    return ClassSummary(
        num_classes=len(counts),
        videos=spread,
        smallest=min(counts, key=counts.__getitem__),
        largest=max(counts, key=counts.__getitem__),
        effective=effective_classes(counts),
    )


def effective_classes(counts: Counter[str]) -> float:
    """Return the number of equally large classes with the same entropy: 2 to the entropy of `counts`.

    >>> effective_classes(Counter(a=5, b=5, c=5))
    3.0
    """
    total = sum(counts.values())
    # Of 100 classes where one has half of the videos, entropy counts about 20.
    shares = [number / total for number in counts.values() if number]
    return round(2 ** -sum(share * math.log2(share) for share in shares), 6) if total else 0.0
