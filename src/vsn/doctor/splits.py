"""Read the splits of a data set, and choose the videos to inspect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vsn.config import ConfigError, DataConfig
from vsn.data.background import read_labeled
from vsn.data.part import VideoPart
from vsn.data.readers import NoSplitError
from vsn.data.records import RecordSet, VideoRecord
from vsn.doctor.findings import Finding, make_finding

ROLES = ("train", "val", "test")
# Role -> effect on a run if that split cannot be read.
_EFFECTS = {
    "train": "`vsn train` stops with this error.",
    "val": "`vsn train` stops with this error: it validates after each epoch.",
    "test": "`vsn eval` stops with this error.",
}


@dataclass(frozen=True)
class Split:
    """The records of a split, and its roles in a run."""

    name: str
    """As in the data set; "val and test" if both have the same videos."""
    roles: tuple[str, ...]
    """One or more of "train", "val", "test"."""
    records: RecordSet

    @property
    def videos(self) -> tuple[VideoRecord, ...]:
        """See `RecordSet.videos`."""
        return self.records.videos

    @property
    def shown(self) -> list[VideoPart]:
        """Each video or segment, once."""
        return list(dict.fromkeys(record.shown for record in self.videos))

    def class_counts(self) -> Counter[str]:
        """Return the number of videos of each class; empty for task "arrow", which has no labels."""
        if self.records.per_video > 1:
            return Counter()
        counts = Counter(dict.fromkeys(self.records.classes, 0))
        for record in self.videos:
            counts.update(self.records.classes_of(record))
        return counts


@dataclass(frozen=True)
class Place:
    """An entry of a video in a split."""

    split: Split
    record: VideoRecord
    classes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.record.video_id} ({self.split.name})"


def read_splits(config: DataConfig) -> tuple[tuple[Split, ...], list[Finding]]:
    """Read the splits, merging those with the same videos; return a finding for each that cannot be read."""
    splits: list[Split] = []
    errors: dict[str, ConfigError] = {}
    for role in ROLES:
        name = getattr(config, f"{role}_split")
        try:
            records = read_labeled(config, name)
        except ConfigError as error:
            errors[role] = error
            continue
        # Held-out data often has one list for validation and test: inspect and count its videos once.
        shown = [record.shown for record in records.records]
        same = next((split for split in splits if [r.shown for r in split.records.records] == shown), None)
        if same is None:
            splits.append(Split(name, (role,), records))
        else:
            names = dict.fromkeys((*same.name.split(" and "), name))
            splits[splits.index(same)] = replace(same, name=" and ".join(names), roles=(*same.roles, role))
    messages = {role: str(error).rstrip(".") for role, error in errors.items()}
    # One cause, such as a missing root, fails all splits alike: report it once.
    if len(errors) == len(ROLES) and len(set(messages.values())) == 1:
        return (), [make_finding("unreadable-data", effect="Nothing else could be checked.", error=messages["train"])]
    findings = []
    for role, failure in errors.items():
        if not isinstance(failure, NoSplitError):
            findings.append(make_finding("unreadable-split", effect=_EFFECTS[role], error=messages[role]))
        elif role == "test":
            findings.append(make_finding("no-split/test", error=failure.reason.rstrip(".")))
        else:
            reason, advice = failure.reason.rstrip("."), failure.advice
            findings.append(make_finding("no-split", effect=_EFFECTS[role], error=reason, advice=advice))
    return tuple(splits), findings


def choose_videos(splits: Sequence[Split], sample: int | None, seed: int) -> list[VideoPart]:
    """Return the videos to inspect, each once: all, or `sample` of each split."""
    # A dict keeps the order and drops videos that two splits share.
    chosen: dict[VideoPart, None] = {}
    for number, split in enumerate(splits):
        videos = split.shown
        if sample is not None and sample < len(videos):
            # One generator per split: the sample of a split does not depend on the size of the others.
            drawn = np.random.default_rng([seed, number]).choice(len(videos), sample, replace=False)
            videos = [videos[index] for index in sorted(drawn)]
        chosen |= dict.fromkeys(videos)
    return list(chosen)
