"""Draw SVG charts: lines over epochs, and reliability diagrams.

Python computes the coordinates; ``templates/*.svg.jinja`` hold the elements.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from vsn.report.render import percent, render
from vsn.scores.calibrate import ReliabilityBin, expected_calibration_error
from vsn.system import numbers

_LEFT, _TOP, _WIDTH, _HEIGHT = 66, 12, 384, 218
_END_HEIGHT = 17
"""Least distance of two labels at the ends of lines."""
_MAX_END_LABELS = 8
_END_NAME = 9
"""Characters of a run's name at the end of its line."""
PANEL_SIZE = 220
"""Side of the square of a reliability diagram."""
_PANEL_LEFT, _PANEL_STEP = 62, 308
_STRIP_HEIGHT = 34


class Series(NamedTuple):
    """One line of a chart: ``points`` are (epoch, value) of a phase: "train", "validation" or "" for neither."""

    name: str
    number: int
    """Selects the color; the legend's box of the same number hides the line."""
    phase: str
    points: Sequence[tuple[float, float]]

    @property
    def label(self) -> str:
        """Run and phase."""
        return ", ".join(filter(None, (self.name, self.phase)))


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about ``count`` round numbers, from at or below ``low`` to at or above ``high``.

    From 0 to 0.37, for example: 0, 0.1, 0.2, 0.3, 0.4.
    """
    raw_step = max(high - low, 1e-9) / max(count - 1, 1)
    size = 10.0 ** math.floor(math.log10(raw_step))
    step = size * next(m for m in (1, 2, 2.5, 5, 10) if m * size >= raw_step * (1 - 1e-9))
    # 1e-9: 0.3 / 0.1 is a little below 3, and must count as 3.
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def line_chart(series: Sequence[Series], *, label: str, is_share: bool) -> Markup:
    """Return a figure of values by epoch: validation as solid lines, training as dashed ones."""
    # A run that logs no such value has no line and no entry in the label.
    drawn = [s for s in series if s.points]
    if not drawn:
        return render("line_chart.svg", label=label, lines=[])
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    # From 0, so that heights can be compared between charts.
    y_ticks = nice_ticks(min(0.0, *ys), max(ys))
    x_ticks = _epoch_ticks(min(xs), max(xs))

    def x_at(epoch: float) -> float:
        return _LEFT + _WIDTH * (epoch - min(xs)) / ((max(xs) - min(xs)) or 1)

    def y_at(value: float) -> float:
        return _TOP + _HEIGHT * (1 - (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]))

    def shown(value: float, digits: int = 4) -> str:
        return f"{100 * value:.{digits}g}%" if is_share else f"{value:.{digits}g}"

    ends = [(y_at(s.points[-1][1]), s) for s in drawn if s.phase != "train"]
    return render(
        "line_chart.svg",
        label=label,
        ends=[
            (y, series.number, _shorten(series.name), shown(series.points[-1][1], digits=3))
            for y, series in _spread(ends, _TOP + 6, _TOP + _HEIGHT)
        ],
        last_values="; ".join(f"{s.label}: {shown(s.points[-1][1])}" for s in drawn),
        left=_LEFT,
        width=_WIDTH,
        bottom=_TOP + _HEIGHT,
        y_ticks=[(y_at(tick), shown(tick)) for tick in y_ticks],
        x_ticks=[(x_at(tick), tick) for tick in x_ticks],
        lines=[(s, [(x_at(x), y_at(y), f"{s.label}, epoch {x:g}: {shown(y)}") for x, y in s.points]) for s in drawn],
    )


def _epoch_ticks(first: float, last: float) -> list[int]:
    """Whole epochs, the first and the last among them: 1, 10, 20, 30."""
    inside = [tick for tick in map(round, nice_ticks(first, last, 6)) if first <= tick <= last]
    ends = {math.ceil(first), math.floor(last)} & set(range(math.ceil(first), math.floor(last) + 1))
    # Not beside an end: 28 and 30 would touch.
    apart = (last - first) / 12
    return sorted(ends | {tick for tick in inside if all(abs(tick - end) > apart for end in ends)})


def _spread(ends: Sequence[tuple[float, Series]], top: float, bottom: float) -> list[tuple[float, Series]]:
    """Move the labels at the ends of lines apart, in their order; none where they are too many to read."""
    if len(ends) > _MAX_END_LABELS:
        return []
    placed: list[tuple[float, Series]] = []
    for y, series in sorted(ends, key=lambda end: end[0]):
        placed.append((max(y, placed[-1][0] + _END_HEIGHT if placed else top), series))
    # From the bottom up, where the last ones were pushed out.
    limit = bottom
    for index in reversed(range(len(placed))):
        y, series = placed[index]
        placed[index] = (min(y, limit), series)
        limit = placed[index][0] - _END_HEIGHT
    return placed


def _shorten(name: str) -> str:
    return name if len(name) <= _END_NAME else f"{name[: _END_NAME - 1]}\u2026"


def reliability_diagram(name: str, bins: Sequence[ReliabilityBin], index: int) -> Markup:
    """Return a figure of accuracy against confidence, with the number of videos of each bin below."""
    error = percent(expected_calibration_error(bins))
    return render("reliability_figure.html", name=name, error=error, index=index, panel=_panel(bins, _PANEL_LEFT))


def reliability_chart(curves: Mapping[str, Sequence[ReliabilityBin]], *, title: str) -> str:
    """Return an SVG document of reliability diagrams side by side, one per curve; it needs no other file."""
    errors = {name: percent(expected_calibration_error(bins)) for name, bins in curves.items()}
    return render(
        "reliability_chart.svg",
        title=title,
        width=len(curves) * _PANEL_STEP,
        errors=errors,
        panels=[
            (name, errors[name], _panel(bins, _PANEL_LEFT + number * _PANEL_STEP))
            for number, (name, bins) in enumerate(curves.items())
        ],
    )


def _panel(bins: Sequence[ReliabilityBin], left: int) -> Markup:
    """Draw bars of accuracy, the gap from each bar to its confidence, and the number of videos of each bin."""
    # The count bars are relative to the fullest bin.
    bottom, most = _TOP + PANEL_SIZE, max(one.count for one in bins)
    bars = [
        {
            "x": left + PANEL_SIZE * one.low + 1,
            "width": PANEL_SIZE * (one.high - one.low) - 2,
            "accuracy_y": bottom - PANEL_SIZE * one.accuracy,
            "confidence_y": bottom - PANEL_SIZE * one.confidence,
            "count_height": max(_STRIP_HEIGHT * one.count / most, 1),
            "bin": one,
        }
        for one in bins
        if one.accuracy is not None and one.confidence is not None
    ]
    ticks = [(PANEL_SIZE * tick, numbers.percent(tick, 0)) for tick in (0.0, 0.5, 1.0)]
    return render(
        "reliability_panel.svg",
        left=left,
        top=_TOP,
        bottom=bottom,
        size=PANEL_SIZE,
        strip=_STRIP_HEIGHT,
        ticks=ticks,
        bars=bars,
    )
