"""What the doctor says: findings and facts, as data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from vsn.data.flips import propose_flip_rule
from vsn.doctor.evidence import SEVERITIES, Evidence, Finding, Split
from vsn.doctor.labels import effective_classes


@dataclass(frozen=True)
class Spread:
    """Least, middle and largest of some numbers."""

    least: float
    middle: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """The spread of the values; None when there are none."""
        return cls(min(values), median(values), max(values)) if values else None


@dataclass(frozen=True)
class SplitFacts:
    """Numbers of one split; frames, rate and sizes are those of its readable checked videos."""

    name: str
    roles: tuple[str, ...]
    num_videos: int
    num_missing: int
    """Annotated, not on disk, left out by the reader."""
    num_checked: int
    num_bad: int
    num_classes: int
    """Classes with a video."""
    frames: Spread | None
    frames_per_second: Spread | None
    """Without the videos that do not say."""
    short_side: Spread | None
    """Pixels."""


@dataclass(frozen=True)
class ClassFacts:
    """How evenly the training videos spread over the classes."""

    num_classes: int
    videos: Spread
    """Of a class."""
    smallest: str
    largest: str
    effective: float
    """As many equally large classes would be as uncertain (2 to the entropy)."""


@dataclass(frozen=True)
class Loading:
    """Speed of the training loader: decoding, resizing, random crops, flips, batches."""

    clips_per_second: float
    num_clips: int
    """Clips it was measured on, without those of the start."""
    num_workers: int
    """Worker processes; 0: loaded in the calling process."""
    epoch_clips: int
    epoch_seconds: float
    """Time to load an epoch."""


@dataclass(frozen=True)
class Diagnosis:
    """Findings, errors first, and the facts behind them."""

    findings: tuple[Finding, ...]
    root: str
    source: str
    task: str
    num_frames: int
    """T, frames of a clip."""
    sample: int | None
    """Videos of each split looked into; None: all."""
    thorough: bool
    splits: tuple[SplitFacts, ...]
    classes: ClassFacts | None
    frame_names: dict[str, int]
    """How frame folders name their frames -> how many do."""
    flip: str
    """data.flip."""
    proposed_flip: str
    """The flip rule that fits the class names; empty where classes play no part."""
    flip_reason: str
    loading: Loading | None
    gpu_videos_per_second: float | None
    """As asked."""
    flow: str
    """How the flow is stored, in words; "" where none was asked for, or it cannot be told."""
    seconds: float
    """Time it all took."""

    @property
    def healthy(self) -> bool:
        """Whether nothing breaks or biases a run."""
        return not any(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, numbers and text, for JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {"healthy": self.healthy} | plain


def summed_up(
    evidence: Evidence,
    findings: Iterable[Finding],
    *,
    sample: int | None,
    thorough: bool,
    loading: Loading | None,
    gpu_videos_per_second: float | None,
    flow: str,
    seconds: float,
) -> Diagnosis:
    """The findings in the order of their severity, with the facts of the evidence."""
    train = evidence.split_of("train")
    labeled = train is not None and train.records.per_video == 1
    rule, reason = propose_flip_rule(train.records.classes) if train is not None and labeled else ("", "")
    names = Counter(report.frame_names for report in evidence.reports.values() if report.frame_names)
    return Diagnosis(
        findings=tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        root=evidence.config.root,
        source=evidence.config.source,
        task=evidence.config.task,
        num_frames=evidence.num_frames,
        sample=sample,
        thorough=thorough,
        splits=tuple(split_facts(evidence, split) for split in evidence.splits),
        classes=class_facts(evidence),
        frame_names=dict(names.most_common()),
        flip=evidence.config.flip,
        proposed_flip=rule,
        flip_reason=reason,
        loading=loading,
        gpu_videos_per_second=gpu_videos_per_second,
        flow=flow,
        seconds=seconds,
    )


def split_facts(evidence: Evidence, split: Split) -> SplitFacts:
    """The numbers of one split."""
    reports = evidence.checked(split)
    good = [report for report in reports if not report.problem]
    return SplitFacts(
        name=split.name,
        roles=split.roles,
        num_videos=len(split.videos),
        num_missing=split.records.num_missing,
        num_checked=len(reports),
        num_bad=len(reports) - len(good),
        num_classes=sum(number > 0 for number in split.class_counts().values()),
        frames=Spread.of([report.num_frames for report in good]),
        frames_per_second=Spread.of([r.frames_per_second for r in good if r.frames_per_second]),
        short_side=Spread.of([min(report.height, report.width) for report in good]),
    )


def class_facts(evidence: Evidence) -> ClassFacts | None:
    """How even the training classes are; None without labels to train on."""
    train = evidence.split_of("train")
    counts = train.class_counts() if train else Counter()
    spread = Spread.of(list(counts.values()))
    if spread is None or not spread.most:
        return None
    return ClassFacts(
        num_classes=len(counts),
        videos=spread,
        smallest=min(counts, key=lambda name: counts[name]),
        largest=max(counts, key=lambda name: counts[name]),
        effective=effective_classes(counts),
    )
