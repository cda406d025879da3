"""Print results in the layout of the paper's Table 6, with the paper's own numbers. Does not import torch."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from vsn.bench.results import BenchResults, BenchRow, Speed
from vsn.config import ClipSpec
from vsn.config.bench import paper_input
from vsn.system.terminal import make_table, print_line, short_count

PAPER_TABLE_6: dict[str, tuple[float, float, float]] = {
    "i3d-fine_resnet50": (165.3, 6.1, 41.6),
    "tsn_resnet50": (15.8, 80.8, 20.2),
    "tsn_resnet101": (26.7, 48.8, 22.7),
    "eco": (30.6, 45.6, 41.4),
    "tsm_resnet50": (17.4, 77.4, 43.4),
    "vsn_resnet50": (16.5, 79.5, 44.5),
    "vsn_resnet101": (28.7, 47.2, 46.5),
}
"""Latency in ms, videos per second in batches of 16, top-1 in percent on Something-Something V1, on one Tesla P100.
I3D is the one whose multiply-adds the paper's Table 2 states."""

WIDE = 140
"""Terminals with fewer columns show fewer columns of the table."""


def print_table(results: BenchResults, console: Console) -> None:
    """Print one table per variant: runtime, mode, data type and memory format."""
    wide = console.width >= WIDE
    variants: dict[str, list[BenchRow]] = {}
    for row in results.rows:
        variants.setdefault(str(row.variant), []).append(row)
    for name, rows in variants.items():
        # The paper's columns appear only if a model has the paper's input.
        with_paper = any(paper_numbers(row) for row in rows)
        columns = [(heading, cell) for heading, cell, wide_only in _COLUMNS if wide or not wide_only]
        columns += _PAPER_COLUMNS if with_paper else []
        table = make_table([heading for heading, _ in columns], title=f"{results.hardware}: {name}", ruled=False)
        for row in rows:
            table.add_row(*(cell(row) for _, cell in columns))
        console.print(table, markup=False)

    settings = results.settings
    throughput = f"videos/s: in batches of {settings.batch_size}. " if settings.batch_size else ""
    print_line(
        console,
        f"ms: latency of one video, median{' (p10-p90)' if wide else ''}. {throughput}to base: ratio to "
        f"{results.baseline}, median over rounds in which both were measured; its 95% interval is in the JSON and in a "
        "wide terminal.",
    )
    if any(paper_numbers(row) for row in results.rows):
        print_line(console, "paper: its Table 6, on other hardware (one Tesla P100); not comparable with ours.")
    if results.interrupted:
        rounds = [speed.rounds for row in results.rows for speed in (row.latency, row.throughput) if speed]
        print_line(console, f"Stopped early: {max(rounds, default=0)} of {settings.batches} rounds at most.")
    for row in next(iter(variants.values()), []):  # the same in every variant
        if row.multiply_adds_of_protocols:
            costs = (f"{name} {short_count(cost)}" for name, cost in row.multiply_adds_of_protocols.items())
            print_line(console, f"{row.label}, multiply-adds of a video by protocol: {', '.join(costs)}")


def paper_numbers(row: BenchRow) -> tuple[float, float, float] | None:
    """Return the numbers of the paper's Table 6 for a model with the paper's input; else None."""
    subject, name = row.subject, row.subject.config.name
    shape = (subject.config.num_frames, subject.num_clips, subject.size)
    return PAPER_TABLE_6.get(name) if shape == (*paper_input(name), ClipSpec.crop_size) else None


# Cells are empty if a part was not measured, and "failed" if it was tried.
def _median(speed: Speed | None, row: BenchRow) -> str:
    return f"{speed.spread['median']:.1f}" if speed else "failed" if row.errors else ""


def _ratio(speed: Speed | None) -> str:
    return f"{speed.to_baseline['ratio']:.2f}" if speed and speed.to_baseline else ""


def _interval(speed: Speed | None) -> str:
    if speed is None or speed.to_baseline is None:
        return ""
    low, high = speed.to_baseline["interval"]
    return f"{low:.2f}-{high:.2f}"


def _input(row: BenchRow) -> str:
    subject = row.subject
    return f"{subject.config.num_frames}x{subject.size}" + (f" x{subject.num_clips}" if subject.num_clips > 1 else "")


def _peak(row: BenchRow) -> str:
    peak = row.peak_bytes.get("throughput") or row.peak_bytes.get("latency")
    return f"{peak / 2**20:.0f}M" if peak else ""


def _paper(row: BenchRow, index: int) -> str:
    numbers = paper_numbers(row)
    return f"{numbers[index]:.1f}" if numbers else ""


Cell = Callable[[BenchRow], str]

# Heading, cell, only in wide terminals.
_COLUMNS: list[tuple[str, Cell, bool]] = [
    ("model", lambda row: row.label, False),
    ("input", _input, True),
    ("params", lambda row: short_count(row.parameters), False),
    ("mult-\nadds", lambda row: short_count(row.multiply_adds_of_video), False),
    ("ms", lambda row: _median(row.latency, row), False),
    ("p10-p90", lambda row: "{p10:.1f}-{p90:.1f}".format(**row.latency.spread) if row.latency else "", True),
    ("to\nbase", lambda row: _ratio(row.latency), False),
    ("95%", lambda row: _interval(row.latency), True),
    ("videos\n/s", lambda row: _median(row.throughput, row), False),
    ("to\nbase", lambda row: _ratio(row.throughput), False),
    ("95%", lambda row: _interval(row.throughput), True),
    ("peak", _peak, True),
]
_PAPER_COLUMNS: list[tuple[str, Cell]] = [
    ("paper\nms", lambda row: _paper(row, 0)),
    ("paper\nvideos/s", lambda row: _paper(row, 1)),
]
