"""What the doctor read and measured before judging, and the form its findings take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vsn.config import ClipSpec, DataConfig
from vsn.data.records import RecordSet, VideoRecord
from vsn.doctor.files import FileReport, Problem

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
ROLES = ("train", "val", "test")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing."""

    code: str
    """A name that stays the same from version to version, such as "unreadable"."""
    severity: Severity
    """error: breaks or biases a run; warning: may; note: worth knowing."""
    message: str
    """What is so, of how many videos or classes, naming the first."""
    items: tuple[str, ...]
    """Every video or class concerned, with what is wrong with it."""
    advice: str
    """What to do."""


@dataclass(frozen=True)
class Split:
    """A split as it was read, and what it is used for."""

    name: str
    """As the data calls it; "val and test" where both are the same videos."""
    roles: tuple[str, ...]
    """Which of "train", "val", "test" it serves as."""
    records: RecordSet

    @property
    def videos(self) -> tuple[VideoRecord, ...]:
        """One record a video: a clip and its reversed copy (task "arrow") count once."""
        return self.records.records[:: self.records.per_video]

    def class_counts(self) -> Counter[str]:
        """Videos of each class, 0 for those without; empty for the arrow of time, which has no labels."""
        if self.records.per_video > 1:
            return Counter()
        counts = Counter(dict.fromkeys(self.records.classes, 0))
        for record in self.videos:
            counts.update(self.records.classes[label] for label in record.labels)
        return counts


@dataclass(frozen=True)
class Place:
    """Where a video is listed: in which split, under which name and class names."""

    split: Split
    video_id: str
    classes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.video_id} ({self.split.name})"


@dataclass(frozen=True)
class Evidence:
    """Everything the checks look at."""

    config: DataConfig
    clip: ClipSpec
    num_frames: int
    splits: tuple[Split, ...]
    reports: dict[Path, FileReport]
    """Of the videos looked into."""
    copies: tuple[tuple[Path, ...], ...] = ()
    """Groups of different paths with the same content."""
    reads_frames: bool = True
    """Whether a run reads the videos; one on flow reads that alone."""
    places: dict[Path, list[Place]] = field(init=False)
    """Where each path is listed."""

    def __post_init__(self) -> None:
        places: dict[Path, list[Place]] = {}
        for split in self.splits:
            names = () if split.records.per_video > 1 else split.records.classes
            for record in split.videos:
                classes = tuple(names[label] for label in record.labels) if names else ()
                places.setdefault(record.path, []).append(Place(split, record.video_id, classes))
        object.__setattr__(self, "places", places)

    def split_of(self, role: str) -> Split | None:
        """The split that serves as "train", "val" or "test"."""
        return next((split for split in self.splits if role in split.roles), None)

    def named(self, path: Path) -> str:
        """`id (split)` of a video; both splits where it is in two."""
        places = self.places[path]
        splits = dict.fromkeys(place.split.name for place in places)
        return f"{places[0].video_id} ({', '.join(splits)})"

    def checked(self, split: Split) -> list[FileReport]:
        """Reports of the split's videos, each once."""
        paths = dict.fromkeys(record.path for record in split.videos)
        return [self.reports[path] for path in paths if path in self.reports]


def bad_effect(evidence: Evidence, bad: Collection[Path], problems: Mapping[Path, Problem]) -> tuple[Severity, str]:
    """How severe it is that `bad` videos, or their flow, cannot be read, and what they do to a run.

    `problems` is that of every one looked into, "" where there is none.
    """
    if any(problems[path] in ("crashed", "too-slow") for path in bad):
        return "error", "A run would die or hang there."
    train = evidence.split_of("train")
    trained = {record.path for record in train.videos if record.path in problems} if train else set()
    # Whether more of them fail than `data.bad_videos` allows.
    limit = evidence.config.bad_videos
    over_limit = sum(bool(problems[path]) for path in trained) > limit * len(trained)
    roles = {role for path in bad for place in evidence.places[path] for role in place.split.roles}
    effects = []
    if "train" in roles:
        effects.append(
            f"Training would stop: more of its videos are bad than data.bad_videos = {limit:g} allows."
            if over_limit
            else f"Training would skip them, as data.bad_videos = {limit:g} allows."
        )
    stopped = [name for role, name in (("val", "validation"), ("test", "testing")) if role in roles]
    if stopped:
        effects.append(f"{' and '.join(stopped).capitalize()} would stop.")
    return "error" if stopped or over_limit else "warning", " ".join(effects)


def make_finding(
    code: str, severity: Severity, what: str, items: Sequence[str], advice: str, *, effect: str = ""
) -> Finding:
    """A finding that says `what`, names the first item, and says what comes of it.

    >>> make_finding("empty", "error", "1 video is empty", ["a.mp4"], "Delete it.", effect="Testing stops.").message
    '1 video is empty: a.mp4. Testing stops.'
    """
    link = "" if not items else ": " if len(items) == 1 else ", the first of them "
    said = f"{what}{link}{items[0] if items else ''}.{' ' if effect else ''}{effect}"
    return Finding(code, severity, said, tuple(items), advice)


def counted(number: int, noun: str, verb: tuple[str, str] = ("", "")) -> str:
    """A count with its noun, and a verb that agrees: `1 video is`, `2 videos are`.

    >>> counted(1, "class", ("has", "have")), counted(2, "class", ("has", "have"))
    ('1 class has', '2 classes have')
    """
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural} {verb[number != 1]}".rstrip()
