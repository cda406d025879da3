"""Plot the accuracy of tested runs against their cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from vsn.bench.results import BenchError, BenchResults
from vsn.config.distribution import install_command
from vsn.runs.results import list_results
from vsn.system.figures import figure_style, save_figure

Cost = Literal["latency", "multiply-adds"]

_AXIS_LABELS: dict[Cost, str] = {"latency": "latency of one clip (ms)", "multiply-adds": "multiply-adds of a video (G)"}
_PLACES = [
    (8, 0, "left"), (-8, 0, "right"), (0, 14, "center"), (0, -14, "center"),
    *((side * far, rise, "left" if side > 0 else "right")
      for step in range(1, 13) for far in (8, 24) for rise in (13 * step, -13 * step) for side in (1, -1)),
]  # fmt: skip
"""Offsets of a label in points, right and up, and its alignment; the preferred ones first."""
_LINE_FROM = 20
"""Offset in points from which a line connects the label with its point."""


@dataclass(frozen=True)
class Point:
    """A run in the plot; accuracies in percent."""

    label: str
    variant: str
    """Runtime and data type; "" where the cost does not depend on them."""
    evaluation: str
    """Split and protocol."""
    cost: float
    top1: float
    low: float
    high: float


def check_plot(path: Path, names: Sequence[str]) -> None:
    """Check that a plot is possible, before anything is measured.

    Raises:
        BenchError: another kind of file, matplotlib is missing, or there is no tested run.
    """
    if path.suffix not in (".png", ".svg"):
        raise BenchError(f"--plot is {path.name!r}; expected .png or .svg.")
    if find_spec("matplotlib") is None:
        raise BenchError(f"--plot needs matplotlib, which is not installed: {install_command('plot')}.")
    if not any(Path(name).is_dir() and list_results(Path(name), damaged=[]) for name in names):
        raise BenchError(
            "--plot draws the accuracy of tested runs, and none is named. Test one with `vsn eval RUN` and name its folder."
        )


def make_points(results: BenchResults, cost: Cost) -> list[Point]:
    """Return a point for each tested run and variant that has the cost."""
    points = []
    # reversed: the first variant of each label wins.
    first_variant = {row.label: row.variant for row in reversed(results.rows)}
    for row in results.rows:
        if not row.subject.evaluations:
            continue
        test = row.subject.evaluations[0]  # of the recipe's split and protocol, if there is one
        if cost == "multiply-adds":
            if first_variant[row.label] != row.variant:  # the cost is the same in all variants
                continue
            value = (test.multiply_adds or row.multiply_adds_of_video) / 1e9
        elif row.latency:
            value = row.latency.spread["median"]
        else:
            continue
        assert test.top1 is not None, "subjects have only measured evaluations"
        low, high = test.top1_interval or (test.top1, test.top1)
        points.append(
            Point(
                label=row.label,
                variant=str(row.variant) if cost == "latency" else "",
                evaluation=f"{test.split}, {test.protocol}",
                cost=value,
                top1=100 * test.top1,
                low=100 * low,
                high=100 * high,
            )
        )
    return points


def write_plot(results: BenchResults, path: Path, *, cost: Cost = "latency") -> Path:
    """Plot top-1 with its 95% interval against a cost.

    Args:
        results: of `run_bench`.
        path: .png or .svg.
        cost: milliseconds of one clip, or multiply-adds of a video under the protocol it was tested with.

    Raises:
        BenchError: no row has both.
    """
    points = make_points(results, cost)
    if not points:
        raise BenchError("None of the measured runs is tested; test one with `vsn eval RUN`.")
    with figure_style():
        figure = draw(points, cost, hardware=results.hardware)
        names = ", ".join(dict.fromkeys(point.label for point in points))
        return save_figure(figure, path, title=f"Top-1 against {_AXIS_LABELS[cost]}: {names}.")


def draw(points: Sequence[Point], cost: Cost, *, hardware: str = "") -> Any:
    """Draw the figure (matplotlib's), with labels that do not overlap."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, ScalarFormatter

    # Without pyplot, which would keep global state and may need a display.
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    variants = list(dict.fromkeys(point.variant for point in points))
    for number, variant in enumerate(variants):
        chosen = [point for point in points if point.variant == variant]
        axes.errorbar(
            [point.cost for point in chosen],
            [point.top1 for point in chosen],
            yerr=[[point.top1 - point.low for point in chosen], [point.high - point.top1 for point in chosen]],
            fmt="os^Dv"[number % 5],
            color=f"C{number}",
            capsize=3,
            elinewidth=1,
            label=variant,
        )
    # Space for labels beyond the outer points.
    axes.margins(0.14)
    costs = [point.cost for point in points]
    if max(costs) > 4 * min(costs):  # on a linear axis the cheap models would crowd in a corner
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,)))
        axes.xaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(ScalarFormatter())
    evaluations = "; ".join(dict.fromkeys(point.evaluation for point in points))
    axes.set(xlabel=_AXIS_LABELS[cost], ylabel=f"top-1 (%), 95% interval ({evaluations})")
    axes.grid(alpha=0.3)
    axes.set_title(f"{hardware}, one clip at a time" if cost == "latency" else "", fontsize=10)
    if len(variants) > 1:
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    _add_labels(figure, axes, points)
    return figure


def _add_labels(figure: Any, axes: Any, points: Sequence[Point]) -> None:
    """Put each label at the first place where it covers no other label, no point and no interval."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    # Labels are placed in pixels, so the layout must not change after this.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    renderer = figure.canvas.get_renderer()
    occupied = []
    # Boxes that labels must not cover: points, their intervals, the legend.
    for point in points:
        x, y = axes.transData.transform((point.cost, point.top1))
        low, high = (axes.transData.transform((point.cost, value))[1] for value in (point.low, point.high))
        occupied += [Bbox.from_extents(x - 7, y - 7, x + 7, y + 7), Bbox.from_extents(x - 5, low, x + 5, high)]
    if legend := axes.get_legend():
        occupied.append(legend.get_window_extent(renderer))
    frame = axes.get_window_extent(renderer)
    for point in points:
        text = axes.annotate(
            point.label,
            (point.cost, point.top1),
            (0, 0),
            textcoords="offset points",
            fontsize=9,
            va="center",
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "gray", "shrinkA": 0, "shrinkB": 3},
        )
        tried = []
        for dx, dy, side in _PLACES:
            text.set(position=(dx, dy), ha=side)
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer)  # without the line
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            num_overlaps = sum(box.overlaps(other) for other in occupied) + (not inside)
            tried.append((num_overlaps, dx, dy, side, box))
            if num_overlaps == 0:
                break
        # If every place overlaps something, the one with the fewest overlaps.
        _, dx, dy, side, box = min(tried, key=lambda place: place[0])
        text.set(position=(dx, dy), ha=side)
        text.arrow_patch.set_visible(max(abs(dx), abs(dy)) > _LINE_FROM)
        occupied.append(box)
