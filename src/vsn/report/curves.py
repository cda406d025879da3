"""Learning curves: loss, accuracy, learning rate, and the share of time spent waiting for data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from vsn.report import parts
from vsn.report.parts import color, text
from vsn.report.runs import Run

_LEFT, _TOP, _WIDTH, _HEIGHT = 58, 12, 422, 218


class Series(NamedTuple):
    """One line of a chart: `points` are (epoch, value) of one phase of a run: "train", "validation" or "" (none)."""

    name: str
    color: int
    phase: str
    points: Sequence[tuple[float, float]]

    @property
    def label(self) -> str:
        """Run and phase, in words."""
        return ", ".join(filter(None, (self.name, self.phase)))


def curves_section(runs: Sequence[Run]) -> str:
    """Charts side by side under one legend whose boxes show and hide a run."""
    trained = [run for run in runs if run.metrics]
    notes = "".join(
        parts.lacking(f"{run.name} has no epochs yet.", [["vsn", "train", "--resume", str(run.path)]])
        for run in runs
        if not run.metrics
    )
    if not trained:
        return notes
    # What is drawn through, what dashed; a chart nobody has values for is left out.
    charts = [
        ("Loss", False, (("train", "train_loss"), ("validation", "val_loss"))),
        ("Top-1", True, (("train", "train_top1"), ("validation", "val_top1"))),
        ("mAP", True, (("validation", "val_map"),)),
        ("Learning rate", False, (("", "lr"),)),
        ("Waiting for data, share of the time", True, (("", "data_wait"),)),
    ]
    drawn = []
    for label, is_share, lines in charts:
        series = [
            Series(run.name, index, phase, _points(run, key)) for index, run in enumerate(runs) for phase, key in lines
        ]
        if label in ("Loss", "Top-1") or any(one.points for one in series):
            drawn.append(line_chart(series, label=label, is_share=is_share))
    return notes + _under_legend([run.name for run in runs], drawn)


def _points(run: Run, key: str) -> list[tuple[float, float]]:
    pairs = [(float(m["epoch"]), float(m[key])) for m in run.metrics if m.get(key) is not None]
    return [(x, y) for x, y in pairs if math.isfinite(y)]  # a diverged epoch has no place on the axis


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers, about `count` of them, from at or below `low` to at or above `high`."""
    span = max(high - low, 1e-9)
    raw = span / max(count - 1, 1)
    size = 10.0 ** math.floor(math.log10(raw))
    step = size * next(m for m in (1, 2, 2.5, 5, 10) if m * size >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def line_chart(series: Sequence[Series], *, label: str, is_share: bool) -> str:
    """An SVG of values by epoch: validation drawn through, training dashed."""
    drawn = [s for s in series if s.points]
    if not drawn:
        return f'<figure><figcaption>{text(label)}</figcaption><p class="note">No values recorded.</p></figure>'
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    y_ticks = nice_ticks(0.0, max(ys)) if min(ys) >= 0 else nice_ticks(min(ys), max(ys))
    inside = [t for t in nice_ticks(min(xs), max(xs), 6) if min(xs) <= t <= max(xs)]
    x_ticks = sorted({round(t) for t in inside} | ({round(min(xs))} if min(xs) >= 1 else set()))

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - min(xs)) / ((max(xs) - min(xs)) or 1)
        return _LEFT + _WIDTH * across, _TOP + _HEIGHT * (1 - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]))

    def shown(y: float) -> str:
        return f"{100 * y:.4g}%" if is_share else f"{y:.4g}"

    lines = [
        f'<path class="grid" d="M{_LEFT} {at(0, y)[1]:.1f}h{_WIDTH}"/>'
        f'<text x="{_LEFT - 8}" y="{at(0, y)[1] + 4:.1f}" text-anchor="end">{shown(y)}</text>'
        for y in y_ticks
    ]
    lines += [
        f'<text x="{at(x, 0)[0]:.1f}" y="{_TOP + _HEIGHT + 20}" text-anchor="middle">{x}</text>'
        for x in x_ticks
        if min(xs) <= x <= max(xs)
    ]
    lines.append(f'<text x="{_LEFT + _WIDTH / 2}" y="{_TOP + _HEIGHT + 38}" text-anchor="middle">epoch</text>')
    for s in drawn:
        places = [at(x, y) for x, y in s.points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        dots = "".join(
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{2.2 if len(places) < 60 else 1.2}">'
            f"<title>{text(s.label)}, epoch {x:g}: {shown(y)}</title></circle>"
            for (px, py), (x, y) in zip(places, s.points, strict=True)
        )
        kind = f"line line-{s.color} {s.phase}"
        lines.append(f'<g class="{kind}" style="{color(s.color)}"><path d="{path}"/>{dots}</g>')
    ends = "; ".join(f"{s.label}: {shown(s.points[-1][1])}" for s in drawn)
    return (
        f'<figure><figcaption>{text(label)}</figcaption><svg viewBox="0 0 492 274" role="img" '
        f'aria-label="{text(f"{label} by epoch. Last values: {ends}.")}">{"".join(lines)}</svg></figure>'
    )


def _under_legend(names: Sequence[str], charts: Sequence[str]) -> str:
    boxes = "".join(
        f'<label style="{color(i)}"><input type="checkbox" id="show-{i}" checked>'
        f'<span class="swatch"></span>{text(name)}</label>'
        for i, name in enumerate(names)
    )
    stroke = '<svg viewBox="0 0 30 8" aria-hidden="true"><path d="M0 4h30"/></svg>'
    keys = f'<span class="key">{stroke}validation</span><span class="key train">{stroke}training</span>'
    return (
        f'<div class="curves"><div class="legend" role="group" aria-label="Runs shown">{boxes}{keys}</div>'
        f'<div class="charts">{"".join(charts)}</div></div>'
    )
