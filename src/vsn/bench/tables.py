"""Print results in the layout of the paper's Table 6, with the paper's own numbers. Does not import torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

from rich.console import Console

from vsn.bench.results import FEW_ROUNDS, BenchResults, BenchRow, Ratio, Speed
from vsn.config import ClipSpec
from vsn.config.bench import paper_input
from vsn.system.numbers import counted, decimal, percent, short_count, significant
from vsn.system.terminal import make_table, print_line, print_note

Part: TypeAlias = Literal["latency", "throughput"]
Cell: TypeAlias = Callable[[BenchRow], str]

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

PARTS: dict[Part, str] = {"latency": "latency of one video", "throughput": "throughput"}


def print_table(results: BenchResults, console: Console) -> None:
    """Print the sizes of the models, then latency and throughput of each variant (runtime, mode, data type, format).

    Each table fits into 80 columns with its spread and intervals, so that no terminal hides how sure a number is.
    """
    variants: dict[str, list[BenchRow]] = {}
    for row in results.rows:
        variants.setdefault(str(row.variant), []).append(row)
    _print_columns(next(iter(variants.values()), []), _SIZES, "", console)
    for name, rows in variants.items():
        for part, title in PARTS.items():
            # A part that was not measured at all has no table; one that failed for a model has.
            if any(getattr(row, part) or part in row.errors or "prepare" in row.errors for row in rows):
                _print_columns(rows, _speed_columns(part), f"{title}, {name}", console)
    for note in _notes(results):
        print_note(console, note)
    for row in next(iter(variants.values()), []):  # the same in every variant
        if row.multiply_adds_of_protocols:
            costs = (f"{name} {short_count(cost)}" for name, cost in row.multiply_adds_of_protocols.items())
            print_note(console, f"{row.label}, multiply-adds of a video by protocol: {', '.join(costs)}")


def _print_columns(rows: Sequence[BenchRow], columns: Mapping[str, Cell], title: str, console: Console) -> None:
    cells = [[cell(row) for cell in columns.values()] for row in rows]
    # A column that is empty for all rows was not measured.
    used = [i for i in range(len(columns)) if any(line[i] for line in cells)]
    if not used:
        return
    table = make_table([list(columns)[i] for i in used], title=title, ruled=False)
    for line in cells:
        table.add_row(*(line[i] for i in used))
    console.print(table, markup=False)
    print_line(console, "")


def _notes(results: BenchResults) -> Iterator[str]:
    """Say what the columns are and how far they can be trusted."""
    settings, rows = results.settings, results.rows
    if results.too_busy:
        yield (
            f"NO RESULT: other processes took {percent(max(results.too_busy.values()), 0)} of the time of "
            f"{counted(results.threads, 'thread')} (allowed: {percent(settings.max_busy, 0)}, --max-busy). Measure again "
            "when they have ended."
        )
    yield f"Measured on {results.hardware}, {counted(results.threads, 'thread')}."
    for part, title in PARTS.items():
        speeds = [(row, speed) for row in rows if (speed := getattr(row, part))]
        if not speeds:
            continue
        rounds = max(speed.rounds for _, speed in speeds)
        batches = f" in batches of {settings.batch_size}" if part == "throughput" else ""
        done = (
            f"{rounds} of {settings.batches} rounds, stopped early" if results.interrupted else counted(rounds, "round")
        )
        yield f"{title.capitalize()}{batches}: {done}; {_describe_load(results, part)}."
        if rounds < FEW_ROUNDS:
            yield (
                f"  Few rounds: {FEW_ROUNDS} or more give a 95% interval; these are the ranges. Allow more with "
                "--seconds and --batches."
            )
        for row, speed in speeds:
            if speed.to_baseline and not speed.is_consistent:
                by_rounds, by_medians = (decimal(speed.to_baseline[key], 2) for key in ("ratio", "ratio_of_medians"))
                yield (
                    f"  {row.label}, {row.variant}: {by_rounds} by rounds but {by_medians} by medians: the speed of the "
                    "machine changed meanwhile. Compare by rounds, and measure again."
                )
    yield (
        f"p10-p90: of the rounds. to base: the median over rounds of the ratio to {results.baseline}, with its interval. "
        "by medians: the ratio of the two medians."
    )
    if any(paper_numbers(row) for row in rows):
        yield "paper: its Table 6, on other hardware (one Tesla P100); not comparable with ours."


def _describe_load(results: BenchResults, part: Part) -> str:
    load = results.cpu_load.get(part)
    if load is None:
        return "too short to tell how busy the machine was"
    return f"other processes used {decimal(load.others)} of {counted(load.cores, 'core')}"


def paper_numbers(row: BenchRow) -> tuple[float, float, float] | None:
    """Return the numbers of the paper's Table 6 for a model with the paper's input; else None."""
    subject, name = row.subject, row.subject.config.name
    shape = (subject.config.num_frames, subject.num_clips, subject.size)
    return PAPER_TABLE_6.get(name) if shape == (*paper_input(name), ClipSpec.crop_size) else None


def _input(row: BenchRow) -> str:
    subject = row.subject
    return f"{subject.config.num_frames}x{subject.size}" + (f" x{subject.num_clips}" if subject.num_clips > 1 else "")


_SIZES: dict[str, Cell] = {
    "model": lambda row: row.label,
    "input": _input,
    "params": lambda row: short_count(row.parameters),
    "mult-adds": lambda row: short_count(row.multiply_adds_of_video),
}


def _speed_columns(part: Part) -> dict[str, Cell]:
    """Return the columns of latency or throughput; cells are empty if not measured, "failed" if tried."""

    def of_speed(text: Callable[[Speed], str], otherwise: str = "") -> Cell:
        def cell(row: BenchRow) -> str:
            speed: Speed | None = getattr(row, part)
            return text(speed) if speed else otherwise and ("failed" if row.errors else "")

        return cell

    def of_ratio(text: Callable[[Ratio], str]) -> Cell:
        return of_speed(lambda speed: text(speed.to_baseline) if speed.to_baseline else "")

    def paper(row: BenchRow) -> str:
        numbers = paper_numbers(row)
        return f"{numbers[0 if part == 'latency' else 1]:.1f}" if numbers else ""

    def peak(row: BenchRow) -> str:
        value = row.peak_bytes.get(part)
        return f"{value / 2**20:.0f}M" if value else ""

    return {
        "model": lambda row: row.label,
        "ms" if part == "latency" else "videos/s": of_speed(lambda s: significant(s.spread["median"]), "failed"),
        "p10-p90": of_speed(lambda s: f"{significant(s.spread['p10'])}-{significant(s.spread['p90'])}"),
        "to base": of_ratio(lambda r: f"{r['ratio']:.2f}"),
        "95%": of_ratio(lambda r: "{:.2f}-{:.2f}".format(*r["interval"])),
        "by\nmedians": of_ratio(lambda r: f"{r['ratio_of_medians']:.2f}"),
        "peak": peak,
        "paper": paper,
    }
