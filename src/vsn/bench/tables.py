"""What was measured, in the layout of the paper's Table 6, with the paper's own figures beside it."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from vsn.config import ClipSpec
from vsn.config.bench import paper_input

PAPER_TABLE_6: dict[str, tuple[float, float, float]] = {
    "i3d-fine_resnet50": (165.3, 6.1, 41.6),
    "tsn_resnet50": (15.8, 80.8, 20.2),
    "tsn_resnet101": (26.7, 48.8, 22.7),
    "eco": (30.6, 45.6, 41.4),
    "tsm_resnet50": (17.4, 77.4, 43.4),
    "vsn_resnet50": (16.5, 79.5, 44.5),
    "vsn_resnet101": (28.7, 47.2, 46.5),
}
"""Latency in ms, videos a second in batches of 16, top-1 in percent on Something-Something V1: one Tesla P100.
I3D is the one whose multiply-adds the paper's Table 2 states."""

COLUMNS = (
    "model", "input", "params", "mult-\nadds", "ms", "p10-p90", "to\nbase", "95%", "videos\n/s", "to\nbase", "95%", "peak",
)  # fmt: skip
WIDE_ONLY = ("input", "p10-p90", "95%", "peak")
"""Columns that a terminal of fewer than 140 columns has no room for."""
WIDE = 140
PAPER_COLUMNS = ("paper\nms", "paper\nvideos/s")


def print_table(facts: dict[str, Any], console: Console) -> None:
    """One table a variant: runtime, mode, data type, memory format."""
    variants: dict[str, list[dict[str, Any]]] = {}
    for row in facts["rows"]:
        variants.setdefault(variant_name(row), []).append(row)
    for name, rows in variants.items():
        console.print(_table(name, rows, facts, console.width >= WIDE), markup=False)
    size = facts["settings"]["batch_size"]
    throughput = f"videos/s: in batches of {size}. " if size else ""
    notes = [
        f"ms: latency of one video, median{' (p10-p90)' if console.width >= WIDE else ''}. {throughput}to base: times "
        f"that of {facts['baseline']}, median over rounds in which both took a turn; its 95% interval is in the JSON and "
        "in a wide terminal."
    ]
    if any(paper_figures(row) for row in facts["rows"]):
        notes.append("paper: its Table 6, other hardware (one Tesla P100), not to be compared with ours.")
    if facts["interrupted"]:
        counts = [
            row[part]["rounds"] if row[part] else 0 for row in facts["rows"] for part in ("latency", "throughput")
        ]
        notes.append(f"Stopped early: {max(counts, default=0)} of {facts['settings']['batches']} rounds at most.")
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    for row in facts["rows"]:
        if row["multiply_adds_of_protocols"] and variant_name(row) == next(iter(variants)):
            costs = ", ".join(f"{name} {short(cost)}" for name, cost in row["multiply_adds_of_protocols"].items())
            console.print(
                f"{row['label']}, multiply-adds of a video by protocol: {costs}",
                highlight=False,
                soft_wrap=True,
            )


def variant_name(row: dict[str, Any]) -> str:
    """Runtime, mode, data type and memory format of a row, as far as they apply."""
    return ", ".join(row[key] for key in ("runtime", "mode", "dtype", "format") if row[key])


def paper_figures(row: dict[str, Any]) -> tuple[float, float, float] | None:
    """What the paper's Table 6 says of a row's model, if the row has the paper's input."""
    same = (row["num_frames"], row["num_clips"], row["size"]) == (
        *paper_input(row["model"]),
        ClipSpec.crop_size,
    )
    return PAPER_TABLE_6.get(row["model"]) if same else None


def short(count: float) -> str:
    """A count with three digits and K, M or G."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= size:
            value = count / size
            return f"{value:.{0 if value >= 100 else 1}f}{unit}"
    return f"{count:.0f}"


def _table(name: str, rows: list[dict[str, Any]], facts: dict[str, Any], wide: bool) -> Table:
    table = Table(
        title=f"{facts['device'].get('gpu') or facts['versions']['processor']}: {name}",
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    paper = any(paper_figures(row) for row in rows)
    kept = [i for i, column in enumerate(COLUMNS) if wide or column not in WIDE_ONLY]
    for column in [*(COLUMNS[i] for i in kept), *(PAPER_COLUMNS if paper else ())]:
        table.add_column(column, justify="left" if column == "model" else "right", overflow="fold")
    for row in rows:
        cells = _cells(row)
        theirs = paper_figures(row)
        beside = [f"{theirs[0]:.1f}", f"{theirs[1]:.1f}"] if theirs else ["", ""]
        table.add_row(*(cells[i] for i in kept), *(beside if paper else ()))
    return table


def _cells(row: dict[str, Any]) -> list[str]:
    latency, throughput = row["latency"], row["throughput"]
    clips = f" x{row['num_clips']}" if row["num_clips"] > 1 else ""
    peak = row["peak_bytes"].get("throughput") or row["peak_bytes"].get("latency")
    failed = "failed" if row["errors"] else ""
    return [
        row["label"],
        f"{row['num_frames']}x{row['size']}{clips}",
        short(row["parameters"]),
        short(row["multiply_adds_of_video"]),
        f"{latency['median']:.1f}" if latency else failed,
        f"{latency['p10']:.1f}-{latency['p90']:.1f}" if latency else "",
        *_ratio(latency),
        f"{throughput['median']:.1f}" if throughput else failed,
        *_ratio(throughput),
        f"{peak / 2**20:.0f}M" if peak else "",
    ]


def _ratio(part: dict[str, Any] | None) -> tuple[str, str]:
    if not part or "ratio" not in part:
        return "", ""
    low, high = part["interval"]
    return f"{part['ratio']:.2f}", f"{low:.2f}-{high:.2f}"
