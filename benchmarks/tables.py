"""Print tables of results/, as Markdown: the paper's Tables 7, 8 and 9, or runs side by side.

python benchmarks/tables.py results/embedded-cpu.json
python benchmarks/tables.py results/gestures-arrow-cpu.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

PAPER = {
    "baseline": 20.2,
    "headtail": 43.2,
    "compact": 46.6,
    "1": 40.7,
    "2": 42.2,
    "3": 43.9,
    "+ temporal shift": 43.4,
    "+ video shuffle": 46.0,
}
"""Top-1 on Something-Something V1, ResNet-50, in percent (paper, Tables 7 to 9)."""
SHUFFLE_ONLY = "shuffle res2+res3+res4+res5, no shift"


def tables(rows: list[dict[str, Any]]) -> str:
    """The three tables; a cell is the mean top-1 over seeds and placements, in percent, and how many."""

    def cell(*names: str) -> str:
        values = [100 * row["forward"]["top1"] for row in rows if row["row"] in names]
        return f"{mean(values):.1f} ({len(values)})"

    placements = {
        count: [r["row"] for r in rows if r["row"].startswith("shuffle ") and r["row"].count("res") == count]
        for count in (1, 2, 3)
    }
    lines = [_head("Table 7: block", "embedded set", "paper, Sth-V1")]
    lines += [_line("baseline (TSN)", cell("tsn"), PAPER["baseline"])]
    lines += [_line("headtail", cell("vsn headtail"), PAPER["headtail"])]
    lines += [_line("compact", cell("vsn"), PAPER["compact"])]
    lines += ["", _head("Table 8: shuffle blocks, no shift", "embedded set", "paper, Sth-V1")]
    lines += [_line("0 (TSN)", cell("tsn"), PAPER["baseline"])]
    lines += [_line(str(count), cell(*names), PAPER[str(count)]) for count, names in placements.items()]
    lines += [_line("4", cell(SHUFFLE_ONLY), PAPER["+ video shuffle"])]
    lines += [_line("4 and shift in the rest", cell("vsn"), PAPER["compact"])]
    lines += ["", _head("Table 9: model", "embedded set", "paper, Sth-V1")]
    lines += [_line("baseline (TSN)", cell("tsn"), PAPER["baseline"])]
    lines += [_line("+ temporal shift (TSM)", cell("tsm"), PAPER["+ temporal shift"])]
    lines += [_line("+ video shuffle", cell(SHUFFLE_ONLY), PAPER["+ video shuffle"])]
    lines += [_line("+ combination (VSN)", cell("vsn"), PAPER["compact"])]
    return "\n".join(lines)


def runs_table(runs: list[dict[str, Any]]) -> str:
    """What `collect.py` wrote: a line a run, top-1 with its 95% interval, and with frames shuffled."""
    lines = [_head("run", "epochs", "top-1", "95% interval", "frames shuffled")]
    for run in runs:
        forward, shuffled = (
            next(t for t in run["test"] if t["order"] == order) for order in ("forward", "shuffled")
        )
        low, high = forward["top1_interval"]
        lines.append(
            f"| {run['run']} | {len(run['metrics'])} | {forward['top1']:.1%} | {low:.1%} to {high:.1%} | "
            f"{shuffled['top1']:.1%} |"
        )
    return "\n".join(lines)


def loading_table(rows: list[dict[str, Any]]) -> str:
    """What `loading.py` wrote: a line a form of video, medians of clips a second and ratios to PIL's."""
    names = {
        "pil": "JPEG folders, PIL as in 2019",
        "jpeg": "JPEG folders",
        "h264-12": "H.264, a key frame every 12",
        "h264-250": "H.264, a key frame every 250",
        "packed": "packed",
    }
    found = {(row["form"], row["workers"]): row for row in rows}

    def speed(row: dict[str, Any]) -> str:
        return f"{row['median']:.{0 if row['median'] >= 10 else 1}f} | {row['times_pil']:.2f}"

    lines = [_head("videos are", "1 worker", "to PIL", "2 workers", "to PIL")]
    for form, name in names.items():
        lines.append(f"| {name} | {speed(found[form, 1])} | {speed(found[form, 2])} |")
    return "\n".join(lines)


def _head(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n|{'---|' * len(cells)}"


def _line(name: str, ours: str, paper: float) -> str:
    return f"| {name} | {ours} | {paper} |"


if __name__ == "__main__":
    measured = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if "runs" in measured:
        print(runs_table(measured["runs"]))
    else:
        print((loading_table if "form" in measured["rows"][0] else tables)(measured["rows"]))
