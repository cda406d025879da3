"""Draw the figures of the documentation, as SVG that follows the reader's light or dark theme.

    python docs/scripts/page_figures.py          # writes docs/shuffle.svg, docs/blocks.svg, docs/cost-*.svg and others

Figures of operations are computed by the operations; plots read results/.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch
from page_tables import hard_runs, peer_rows

from vsn.bench.tables import PAPER_TABLE_6
from vsn.data.embedded.scenes import GROUPS, LEVELS
from vsn.ops import video_shuffle

ROOT = Path(__file__).parents[2]
NUM_FRAMES = 4
PAPER_NAMES = {
    "i3d-fine_resnet50": "I3D",
    "tsn_resnet50": "TSN-R50",
    "tsn_resnet101": "TSN-R101",
    "eco": "ECO",
    "tsm_resnet50": "TSM-R50",
    "vsn_resnet50": "VSN-R50",
    "vsn_resnet101": "VSN-R101",
}
PEER_NAMES = {
    "eco_lite": "ECO-Lite",
    "slowfast": "SlowFast",
    "nl-i3d": "NL-I3D",
    "r2plus1d_34": "R(2+1)D-34",
    "mtrn": "M-TRN",
    "i3d_inception": "I3D-Inception",
    "cost": "CoST",
    "cost-a": "CoST(a)",
    "cpnet": "CPNet",
    "cluster": "Attention Clusters",
}
PEER_LABELS = {
    "VSN": (2, -10),
    "TRN": (-11, 3),
    "M-TRN": (11, 3),
    "SlowFast": (-11, 5),
    "I3D": (-11, 5),
    "NL-I3D": (11, 14),
    "TSM": (11, 0),
}
STYLE = """
text { font: 14px system-ui, sans-serif; fill: #24292f }
.small { font-size: 12px } .strong { font-weight: 600 } .middle { text-anchor: middle } .end { text-anchor: end }
.line { stroke: #57606a; stroke-width: 1.5; fill: none } .faint { stroke: #d0d7de; stroke-width: 1; fill: none }
.head, .mark { fill: #57606a } .box { fill: #f6f8fa; stroke: #8c959f } .on { fill: #fff }
.f0 { fill: #2563c9 } .f1 { fill: #b35309 } .f2 { fill: #1a7f4e } .f3 { fill: #7c3aad }
.op { fill: #ddebff; stroke: #2563c9 } .shift { fill: #ffe8d2; stroke: #b35309 } .ours { fill: #2563c9 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .line { stroke: #9ea7b3 } .faint { stroke: #3d444d } .head, .mark { fill: #9ea7b3 }
.box { fill: #262c36; stroke: #656c76 } .on { fill: #fff } .op { fill: #173a6b; stroke: #6ea8ff }
.shift { fill: #5a3310; stroke: #f0a35e } .ours { fill: #6ea8ff }
}
"""


def svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    """Join parts to an image with its style; screen readers read `title`."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def label(x: float, y: float, words: str, kind: str = "") -> str:
    """Draw text; `kind` is a class of the style."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}">{escape(words)}</text>'


def rectangle(x: float, y: float, width: float, height: float, kind: str) -> str:
    """Draw a box with round corners."""
    return f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" class="{kind}"/>'


def arrow(x: float, y: float, length: float, *, down: bool = False) -> str:
    """Draw an arrow to the right, or down."""
    end_x, end_y = (x, y + length) if down else (x + length, y)
    head = (
        f"{end_x - 5:g},{end_y - 7:g} {end_x + 5:g},{end_y - 7:g}"
        if down
        else f"{end_x - 7:g},{end_y - 5:g} {end_x - 7:g},{end_y + 5:g}"
    )
    return (
        f'<path d="M{x:g} {y:g} L{end_x:g} {end_y:g}" class="line"/>'
        f'<polygon points="{end_x:g},{end_y:g} {head}" class="head"/>'
    )


def shuffle_figure() -> str:
    """Draw frames as columns, channel groups as rows: before, after the shuffle, and after its inverse."""
    numbers = torch.arange(NUM_FRAMES**2).view(NUM_FRAMES, NUM_FRAMES, 1, 1)  # frame t, group g: 4t + g
    shuffled = video_shuffle(numbers, NUM_FRAMES)
    grids = [
        ("frames", "each holds its own channels", numbers),
        ("shuffled", "each holds a group of every frame", shuffled),
        ("shuffled again", "every channel is back", video_shuffle(shuffled, NUM_FRAMES)),
    ]
    cell, gap, step, top = 40, 6, 268, 62
    parts = []
    for number, (name, subtitle, grid) in enumerate(grids):
        left = 16 + number * step
        parts += [label(left, 20, name, "strong"), label(left, 38, subtitle, "small")]
        for frame in range(NUM_FRAMES):
            x = left + frame * (cell + gap)
            for group in range(NUM_FRAMES):
                source, part = divmod(int(grid[frame, group]), NUM_FRAMES)
                y = top + group * cell
                parts.append(rectangle(x, y, cell, cell - 2, f"f{source}"))
                parts.append(label(x + cell / 2, y + 25, f"{source + 1}{'abcd'[part]}", "middle on"))
            parts.append(label(x + cell / 2, top + NUM_FRAMES * cell + 18, f"t = {frame + 1}", "small middle"))
        if number + 1 < len(grids):
            parts.append(arrow(left + 4 * (cell + gap) + 6, top + 2 * cell, 56))
    parts.append(label(218, top + 2 * cell - 12, "shuffle", "small"))
    parts.append(label(478, top + 2 * cell - 28, "3x3 conv,", "small"))
    parts.append(label(478, top + 2 * cell - 12, "shuffle", "small"))
    title = "The shuffle of four frames with four channel groups each exchanges frame and group, and undoes itself"
    return svg(740, top + NUM_FRAMES * cell + 30, title, parts)


def blocks_figure() -> str:
    """Draw the three residual blocks of a VSN, from top to bottom."""
    columns = [
        ("Shift block (TSM)", "the other blocks", ["shift", "1x1 conv", "3x3 conv", "1x1 conv"]),
        ("Compact block", "last of a stage (default)", ["1x1 conv", "shuffle", "3x3 conv", "shuffle", "1x1 conv"]),
        ("Headtail block", 'model.block = "headtail"', ["shuffle", "1x1 conv", "3x3 conv", "1x1 conv", "shuffle"]),
    ]
    height, width, top, bottom = 34, 112, 92, 372
    parts = []
    for number, (name, subtitle, layers) in enumerate(columns):
        center = 110 + number * 230
        parts += [label(center, 20, name, "strong middle"), label(center, 38, subtitle, "small middle")]
        parts.append(f'<path d="M{center} 50 L{center} {top - 24}" class="line"/>')
        parts.append(f'<path d="M{center} 66 H{center - 88} V{bottom} H{center - 13}" class="line"/>')
        parts.append(arrow(center, 66, bottom - 66 - 12, down=True))
        pitch = (bottom - 20 - top) / len(layers)
        for place, layer in enumerate(layers):
            kind = {"shift": "shift", "shuffle": "op"}.get(layer, "box")
            y = top + place * pitch
            parts.append(rectangle(center - width / 2, y, width, height, kind))
            parts.append(label(center, y + 22, layer, "middle"))
        parts.append(f'<circle cx="{center}" cy="{bottom}" r="12" class="box"/>')
        parts.append(label(center, bottom + 5, "+", "middle strong"))
        parts.append(arrow(center, bottom + 12, 26, down=True))
    title = "Shift and shuffle in the residual blocks: before the first 1x1, around the 3x3, around the branch"
    return svg(680, 416, title, parts)


def plot(
    points: Sequence[tuple[str, float, float, tuple[float, float] | None]],
    *,
    title: str,
    x_name: str,
    y_name: str,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    label_shift: dict[str, tuple[int, int]] | None = None,
) -> str:
    """Plot points (name, x on a log scale, y, interval of y) with their names; VSN has its own color."""
    left, right, top, bottom = 64, 600, 24, 320
    low, high = math.log(x_ticks[0]), math.log(x_ticks[-1])

    def across(x: float) -> float:
        return left + (math.log(x) - low) / (high - low) * (right - left)

    def up(y: float) -> float:
        return bottom - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (bottom - top)

    parts = [label(left, 14, y_name, "small")]
    for tick in y_ticks:
        parts.append(f'<path d="M{left} {up(tick):.1f} H{right}" class="faint"/>')
        parts.append(label(left - 8, up(tick) + 4, f"{tick:g}%", "small end"))
    for tick in x_ticks:
        parts.append(f'<path d="M{across(tick):.1f} {bottom} v5" class="line"/>')
        parts.append(label(across(tick), bottom + 20, f"{tick:g}x", "small middle"))
    parts.append(label((left + right) / 2, bottom + 42, x_name, "small middle"))
    for name, x, y, interval in points:
        if interval:
            parts.append(f'<path d="M{across(x):.1f} {up(interval[0]):.1f} V{up(interval[1]):.1f}" class="line"/>')
        kind = "ours" if name.startswith("VSN") else "mark"
        parts.append(f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="6" class="{kind}"/>')
        shift = (label_shift or {}).get(name, (11, 5))
        parts.append(
            label(round(across(x) + shift[0], 1), round(up(y) + shift[1], 1), name, "end" if shift[0] < 0 else "")
        )
    return svg(660, 372, title, parts)


def demo_plot() -> str:
    """Plot measured accuracy on the embedded data set against measured latency."""
    rows = _read("demo-cpu.json")["rows"]
    points = [
        (row["model"], row["latency_ratio"], 100 * row["top1"], tuple(100 * one for one in row["top1_interval"]))
        for row in rows
    ]
    return plot(
        points,
        title="Top-1 on the embedded data set against latency of TSN, TSM and VSN",
        x_name="latency of one video relative to TSN, two CPU cores",
        y_name="top-1, the embedded data set, 95% intervals",
        x_ticks=(0.9, 1, 1.1, 1.2),
        y_ticks=(0, 20, 40, 60, 80, 100),
    )


def paper_plot() -> str:
    """Plot the accuracy of the paper's Table 6 against measured latency."""
    rows = _read("table6-latency-cpu.json")["rows"]
    points = [
        (PAPER_NAMES[row["label"]], row["latency"]["ratio"], PAPER_TABLE_6[row["label"]][2], None) for row in rows
    ]
    return plot(
        points,
        title="Top-1 of the paper's Table 6 against latency measured on two CPU cores",
        x_name="latency of one video relative to TSN-R50, measured by us on two CPU cores",
        y_name="top-1 on Something-Something V1, the paper's figures",
        x_ticks=(0.8, 1, 2, 4, 8, 16),
        y_ticks=(10, 20, 30, 40, 50),
        label_shift={"TSM-R50": (11, 14), "VSN-R50": (11, -6), "TSN-R50": (11, -6)},
    )


def peers_plot() -> str:
    """Plot measured accuracy on the embedded data set against measured latency, for every model trained there."""
    rows = peer_rows()
    short = {row["model"]: row["model"].split("_resnet26")[0].removesuffix("_thin") for row in rows}
    points = []
    for row in rows:
        spread = 100 * row["sd"] if row["sd"] else 0.0
        middle = 100 * row["top1"]
        interval = (max(middle - spread, 0.0), min(middle + spread, 100.0)) if spread else None
        points.append(
            (PEER_NAMES.get(short[row["model"]], short[row["model"]].upper()), row["latency"], middle, interval)
        )
    return plot(
        points,
        title="Top-1 on the embedded data set against latency of VSN and its peers, at the size of the demo",
        x_name="latency of one video relative to TSN, two CPU cores",
        y_name="top-1, the embedded data set; bars are one standard deviation over seeds",
        x_ticks=(0.5, 1, 2, 4, 8),
        y_ticks=(20, 40, 60, 80, 100),
        label_shift=PEER_LABELS,
    )


def seeds_plot() -> str:
    """Plot top-1 on the hard level, a dot for each seed, and the means."""
    runs = hard_runs()
    left, right, pitch = 350, 700, 34
    bottom = 24 + pitch * len(runs)

    def across(share: float) -> float:
        return left + share * (right - left)

    parts = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path d="M{across(tick):.1f} 20 V{bottom}" class="faint"/>')
        parts.append(label(across(tick), bottom + 18, f"{tick:.0%}", "small middle"))
    bound = across(1 / statistics.fmean(len(GROUPS[group]) for group in LEVELS["hard"][0]))
    parts.append(f'<path d="M{bound:.1f} 20 V{bottom}" class="line" stroke-dasharray="4 4"/>')
    parts.append(label(bound, 12, "without order", "small middle"))
    for row, (name, found) in enumerate(runs.items()):
        y = 40 + row * pitch
        values = [run["forward"]["top1"] for run in found]
        kind = "ours" if name.endswith("(VSN)") else "mark"
        parts.append(label(left - 12, y + 5, name, "end"))
        parts.append(f'<path d="M{across(statistics.fmean(values)):.1f} {y - 11} v22" class="line"/>')
        parts += [f'<circle cx="{across(value):.1f}" cy="{y}" r="5" class="{kind}" opacity="0.7"/>' for value in values]
    parts.append(
        label((left + right) / 2, bottom + 38, "top-1, a dot for each seed, a line at the mean", "small middle")
    )
    return svg(740, bottom + 50, "Top-1 on the hard level of the embedded data set, seed by seed", parts)


def _read(name: str) -> Any:
    return json.loads((ROOT / "results" / name).read_text(encoding="utf-8"))


FIGURES = {
    "shuffle.svg": shuffle_figure,
    "blocks.svg": blocks_figure,
    "cost-demo.svg": demo_plot,
    "cost-paper.svg": paper_plot,
    "cost-peers.svg": peers_plot,
    "embedded-hard-seeds.svg": seeds_plot,
}


if __name__ == "__main__":
    for name, draw in FIGURES.items():
        (ROOT / "docs" / name).write_text(draw(), encoding="utf-8")
