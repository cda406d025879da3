"""Describe a part of a video in seconds: check it, parse the times that people write, name it, find parts that overlap."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")

_CLOCK = re.compile(r"(?:(?P<hours>\d+):(?P<minutes>[0-5]\d)|(?P<long_minutes>\d+)):(?P<seconds>[0-5]\d(?:\.\d+)?)")
_SHORTEST_OVERLAP = 1e-3
"""Seconds that two parts must share to overlap: times are rounded to a millisecond."""


@dataclass(frozen=True)
class Part:
    """A part of a video, in seconds. Raises `ValueError` unless 0 <= start < end."""

    start: float = 0.0
    end: float | None = None
    """None: to the end of the video."""

    def __post_init__(self) -> None:
        if not 0 <= self.start < self._stop:
            end = "its end" if self.end is None else f"{self.end:g}"
            raise ValueError(
                f"The part of the video is {self.start:g} to {end} seconds; the start must be 0 or more, and the end "
                "after it."
            )

    @property
    def _stop(self) -> float:
        return math.inf if self.end is None else self.end

    def __str__(self) -> str:
        """Return the times as a web address of the part has them (W3C Media Fragments).

        >>> str(Part(12.5, 20)), str(Part(3))
        ('t=12.5,20', 't=3')
        """
        return f"t={format_seconds(self.start)}" + ("" if self.end is None else f",{format_seconds(self.end)}")


WHOLE = Part()


class VideoPart(NamedTuple):
    """What a record shows: a video, or a part of it. Equal for records of the same frames."""

    path: Path
    part: Part | None = None
    """None: the whole video."""

    def __str__(self) -> str:
        return str(self.path) if self.part is None else f"{self.path}#{self.part}"


def format_seconds(seconds: float) -> str:
    """Return seconds rounded to a millisecond, without zeros at the end.

    >>> format_seconds(12.5), format_seconds(20.0), format_seconds(0.0334)
    ('12.5', '20', '0.033')
    """
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def parse_seconds(text: str) -> float:
    """Return a time in seconds, rounded to a millisecond, from seconds, m:ss or h:mm:ss, as video players show it.

    >>> parse_seconds("12.5"), parse_seconds("1:02.25"), parse_seconds("1:00:03")
    (12.5, 62.25, 3603.0)

    Raises `ValueError` for anything else: a decimal comma, a number of frames after the seconds, 75 seconds in a minute.
    """
    if match := _CLOCK.fullmatch(text):
        hours, minutes = int(match["hours"] or 0), int(match["minutes"] or match["long_minutes"])
        return round(3600 * hours + 60 * minutes + float(match["seconds"]), 3)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if math.isfinite(seconds) and seconds >= 0:
        return round(seconds, 3)
    hint = ""
    if re.fullmatch(r"\d+,\d+", text):
        hint = " Write a decimal point, not a comma."
    elif re.fullmatch(r"\d+:\d+:\d+[:;]\d+", text):
        hint = " This is a time code, whose last number counts frames: convert it to seconds."
    raise ValueError(f"the time is {text!r}; expected seconds such as 62.5, or 1:02.5, or 1:00:03.{hint}")


def parse_part(start: str, end: str) -> Part | None:
    """Return the segment between two times as `parse_seconds` reads them, empty for those of the video; None: all of it.

    >>> parse_part("1:02.5", "70"), parse_part("", "3"), parse_part("", "")
    (Part(start=62.5, end=70.0), Part(start=0.0, end=3.0), None)

    Raises `ValueError` for a time that cannot be read, and an end that is not after its start.
    """
    first, last = (parse_seconds(text) if text else None for text in (start, end))
    if first is None and last is None:
        return None
    if last is not None and last <= (first or 0.0):
        raise ValueError(
            f"the segment starts at {start or '0'!r} and ends at {end!r}; the end must be after the start."
        )
    return Part(first or 0.0, last)


def overlap_seconds(a: Part | None, b: Part | None) -> float:
    """Return how many seconds two parts of one video share, infinite for two that last to its end; None is all of it.

    >>> overlap_seconds(Part(1, 4), Part(3, 6)), overlap_seconds(Part(1, 2), Part(2, 3)), overlap_seconds(None, Part(1, 2))
    (1, 0.0, 1)
    """
    a, b = a or WHOLE, b or WHOLE
    return max(0.0, min(a._stop, b._stop) - max(a.start, b.start))


def shared_fraction(a: Part | None, b: Part | None) -> float:
    """Return which share of the shorter of two parts of one video the other covers, 0 to 1.

    >>> shared_fraction(Part(1, 4), Part(3, 13)), shared_fraction(Part(1), None)
    (0.3333333333333333, 1.0)
    """
    shared, lengths = overlap_seconds(a, b), [part._stop - part.start for part in (a or WHOLE, b or WHOLE)]
    return 1.0 if shared == math.inf else shared / min(lengths)


def overlapping_pairs(items: Iterable[T], part_of: Callable[[T], Part | None]) -> Iterator[tuple[T, T]]:
    """Yield the pairs of items of one video whose parts overlap; the time grows with the pairs, not with all pairs."""
    active: list[tuple[T, Part]] = []
    for item, part in sorted(((item, part_of(item) or WHOLE) for item in items), key=lambda pair: pair[1].start):
        active = [(other, its_part) for other, its_part in active if its_part._stop > part.start + _SHORTEST_OVERLAP]
        for other, _ in active:
            yield other, item
        active.append((item, part))
