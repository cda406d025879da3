"""Write numbers for people: one rounding rule for the terminal, pages, tables and documentation.

Half is rounded away from zero, in decimal: 94.25% is 94.3%. Python's own format rounds the nearest binary number, and
halves of it to the even digit, so that it has 94.2% here and a browser 94.3%. The scripts of the pages follow this rule.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def rounded(value: float, digits: int = 0) -> float:
    """Round to ``digits`` decimals, halves away from zero; never -0.0.

    >>> rounded(94.25, 1), rounded(-94.25, 1), rounded(100 * 0.145, 0), rounded(-0.04, 1)
    (94.3, -94.3, 15.0, 0.0)
    """
    if not math.isfinite(value):
        return value
    scaled = abs(value) * 10**digits
    # A share of two counts, times 100, may be off by the last binary digit: 100 * 0.145 is 14.499999999999998.
    whole = math.floor(scaled + 0.5 + 1e-9)
    return math.copysign(whole / 10**digits, value) if whole else 0.0


def decimal(value: float, digits: int = 1, *, signed: bool = False) -> str:
    """Format a number with a fixed number of decimals.

    >>> decimal(12.25), decimal(-0.04, signed=True), decimal(1234.5, 0)
    ('12.3', '+0.0', '1,235')
    """
    return f"{rounded(value, digits):{'+' * signed},.{digits}f}"


def percent(share: float | None, digits: int = 1) -> str:
    """Format a share of 1 as percent, with one decimal; None as "".

    >>> percent(0.9425), percent(1.0), percent(None)
    ('94.3%', '100.0%', '')
    """
    return "" if share is None else f"{decimal(100 * share, digits)}%"


def percent_interval(shares: Sequence[float]) -> str:
    """Format an interval of shares of 1.

    >>> percent_interval((0.2, 0.3))
    '20.0% to 30.0%'
    """
    low, high = shares
    return f"{percent(low)} to {percent(high)}"


def percent_range(shares: Sequence[float], dash: str = "-") -> str:
    """Format an interval of shares of 1 where there is little space.

    >>> percent_range((0.2, 0.3))
    '20.0-30.0%'
    """
    low, high = shares
    return f"{percent(low)[:-1]}{dash}{percent(high)}"


def points(difference: float) -> str:
    """Format a difference of shares of 1 in percentage points with its sign.

    >>> points(0.015), points(-0.0004)
    ('+1.5', '+0.0')
    """
    return decimal(100 * difference, signed=True)


def significant(value: float) -> str:
    """Format a number with three digits, or all those of a larger whole one.

    >>> significant(4518.2), significant(383), significant(12.345), significant(0.1249), significant(9.999)
    ('4518', '383', '12.3', '0.125', '10.0')
    """
    if not value or not math.isfinite(value):
        return f"{value:.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    # 9.999 has one digit fewer after rounding.
    digits = max(0, 2 - math.floor(math.log10(abs(rounded(value, digits)))))
    return f"{rounded(value, digits):.{digits}f}"


def short_count(count: float) -> str:
    """Format a count with three digits and K, M, G or T.

    >>> short_count(999), short_count(888_292), short_count(24_300_000), short_count(999_600), short_count(4e15)
    ('999', '888K', '24.3M', '1.00M', '4000T')
    """
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3)):
        # 999,600 would be "1000K".
        if count >= size * (1 - 5e-4):
            return f"{significant(count / size)}{unit}"
    return f"{rounded(count):.0f}"


def counted(number: int, noun: str) -> str:
    """Return a count with its noun.

    >>> counted(1, "class"), counted(2000, "class"), counted(2, "video")
    ('1 class', '2,000 classes', '2 videos')
    """
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"
