"""Accuracy against cost, of runs that were tested, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from vsn.bench.subjects import BenchError
from vsn.bench.tables import variant_name
from vsn.runs.results import list_results
from vsn.system.files import atomic_write

Cost = Literal["latency", "multiply-adds"]

_COSTS: dict[Cost, str] = {
    "latency": "latency of one clip (ms)",
    "multiply-adds": "multiply-adds of a video (G)",
}
_PLACES = [
    (8, 0, "left"), (-8, 0, "right"), (0, 14, "center"), (0, -14, "center"),
    *((side * far, rise, "left" if side > 0 else "right")
      for step in range(1, 13) for far in (8, 24) for rise in (13 * step, -13 * step) for side in (1, -1)),
]  # fmt: skip
"""Where a label may stand: points to the right and above, and to which side the text ends; the best first."""
_FAR = 20
"""Points from which on a line leads to the label."""


def check_plot(path: Path, names: Sequence[str]) -> None:
    """Refuse what cannot be drawn before anything is measured.

    Raises:
        BenchError: another kind of file, matplotlib is missing, or no run was named.
    """
    if path.suffix not in (".png", ".svg"):
        raise BenchError(f"--plot writes .png or .svg, not {path.name!r}.")
    if find_spec("matplotlib") is None:
        raise BenchError("--plot draws with matplotlib, which is not installed: pip install 'vsn[plot]'.")
    tested = [name for name in names if Path(name).is_dir() and list_results(Path(name), damaged=[])]
    if not tested:
        raise BenchError(
            "--plot draws the accuracy of runs that were tested, and none was named; test one with `vsn eval RUN` "
            "and name its folder."
        )


def points(facts: dict[str, Any], cost: Cost) -> list[dict[str, Any]]:
    """What is drawn: label, variant, x, y (percent), low, high, for each tested run and variant that has a cost."""
    found = []
    first = {row["label"]: variant_name(row) for row in reversed(facts["rows"])}
    for row in facts["rows"]:
        if not row["evaluations"]:
            continue
        test = row["evaluations"][0]
        if cost == "multiply-adds":
            if first[row["label"]] != variant_name(row):  # it costs the same in all
                continue
            x = (test.get("multiply_adds") or row["multiply_adds_of_video"]) / 1e9
        elif row["latency"]:
            x = row["latency"]["median"]
        else:
            continue
        low, high = test.get("top1_interval") or (test["top1"], test["top1"])
        found.append({
            "label": row["label"],
            "variant": variant_name(row) if cost == "latency" else "",
            "what": f"{test['split']}, {test['protocol']}",
            "x": x,
            "y": 100 * test["top1"],
            "low": 100 * low,
            "high": 100 * high,
        })  # fmt: skip
    return found


def write_plot(facts: dict[str, Any], path: Path, *, cost: Cost = "latency") -> Path:
    """Draw top-1 with its 95% interval against a cost.

    Args:
        facts: what `run_bench` returned.
        path: .png or .svg.
        cost: milliseconds of one clip, or multiply-adds of a video under the protocol it was tested with.

    Raises:
        BenchError: no row has both.
    """
    drawn = points(facts, cost)
    if not drawn:
        raise BenchError("No run that was measured has been tested; `vsn eval RUN` does.")
    figure = draw(drawn, facts, cost)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150)
    return path


def draw(drawn: Sequence[dict[str, Any]], facts: dict[str, Any], cost: Cost) -> Any:
    """The figure (matplotlib's), with labels that do not lie over each other."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, ScalarFormatter

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    variants = list(dict.fromkeys(point["variant"] for point in drawn))
    for number, variant in enumerate(variants):
        chosen = [point for point in drawn if point["variant"] == variant]
        axes.errorbar(
            [point["x"] for point in chosen],
            [point["y"] for point in chosen],
            yerr=[[p["y"] - p["low"] for p in chosen], [p["high"] - p["y"] for p in chosen]],
            fmt="os^Dv"[number % 5],
            color=f"C{number}",
            capsize=3,
            elinewidth=1,
            label=variant,
        )
    axes.margins(0.14)
    costs = [point["x"] for point in drawn]
    if max(costs) > 4 * min(costs):  # else the many cheap ones would share one corner
        axes.set_xscale("log")
        for ticks, steps in (
            (axes.xaxis.set_major_locator, (1.0,)),
            (axes.xaxis.set_minor_locator, (2.0, 5.0)),
        ):
            ticks(LogLocator(subs=steps))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(ScalarFormatter())
    whats = list(dict.fromkeys(point["what"] for point in drawn))
    axes.set(xlabel=_COSTS[cost], ylabel=f"top-1 (%), 95% interval ({'; '.join(whats)})")
    axes.grid(alpha=0.3)
    hardware = facts["device"].get("gpu") or facts["versions"]["processor"]
    axes.set_title(f"{hardware}, one clip at a time" if cost == "latency" else "", fontsize=10)
    if len(variants) > 1:
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    _label(figure, axes, drawn)
    return figure


def _label(figure: Any, axes: Any, drawn: Sequence[dict[str, Any]]) -> None:
    """Put each label at the first place where it covers no other label, no point and no interval."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # as it is now, it stays: places are looked for in it
    renderer = figure.canvas.get_renderer()
    taken = []
    for point in drawn:
        (x, low), (_, high) = (axes.transData.transform((point["x"], point[key])) for key in ("low", "high"))
        middle = axes.transData.transform((point["x"], point["y"]))[1]
        taken += [
            Bbox.from_extents(x - 7, middle - 7, x + 7, middle + 7),
            Bbox.from_extents(x - 5, low, x + 5, high),
        ]
    if legend := axes.get_legend():
        taken.append(legend.get_window_extent(renderer))
    frame = axes.get_window_extent(renderer)
    for point in drawn:
        text = axes.annotate(
            point["label"],
            (point["x"], point["y"]),
            (0, 0),
            textcoords="offset points",
            fontsize=9,
            va="center",
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "gray", "shrinkA": 0, "shrinkB": 3},
        )
        found = []
        for dx, dy, side in _PLACES:
            text.set(position=(dx, dy), ha=side)
            text.update_positions(renderer)
            box = Text.get_window_extent(text, renderer)  # without the line
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            crowd = sum(box.overlaps(other) for other in taken) + (not inside)
            found.append((crowd, dx, dy, side, box))
            if crowd == 0:
                break
        _, dx, dy, side, box = min(found, key=lambda one: one[0])
        text.set(position=(dx, dy), ha=side)
        text.arrow_patch.set_visible(max(abs(dx), abs(dy)) > _FAR)
        taken.append(box)
