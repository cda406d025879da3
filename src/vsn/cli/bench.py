"""`vsn bench`: what models cost, side by side."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from vsn.config import BenchConfig


@dataclasses.dataclass(frozen=True)
class BenchCommand:
    """Measure models side by side: parameters, multiply-adds, latency, throughput, peak memory.

    One batch of each in turn, so that a drifting machine harms all alike. Ctrl-C prints what was measured
    so far.

    `vsn bench tsn_resnet50 tsm_resnet50 vsn_resnet50` is the paper's Table 6 on your hardware; `vsn bench
    runs/*` measures trained runs. NAME@T and NAME@TxCLIPS state the input of one model: i3d-fine_resnet50@32x2.
    """

    names: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Names of models (`vsn models` lists them), or run folders."""
    settings: Annotated[BenchConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=BenchConfig)
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None
    """Write everything that was measured there, with hardware, versions, command and date."""
    plot: Path | None = None
    """Draw accuracy against cost there (.png or .svg), of runs that were tested; needs vsn[plot]."""
    plot_by: Literal["latency", "multiply-adds"] = "latency"
    """The cost in that plot."""


def bench_command(arguments: Sequence[str]) -> None:
    """Parse and run `vsn bench`."""
    command = tyro.cli(BenchCommand, args=list(arguments), prog="vsn bench")
    from vsn.bench.plot import check_plot, write_plot  # torch, which --help needs not
    from vsn.bench.run import run_bench
    from vsn.bench.tables import print_table
    from vsn.system.files import write_json

    if command.plot:
        check_plot(command.plot, command.names)
    facts = run_bench(command.names, command.settings, command=shlex.join(["vsn", "bench", *arguments]))
    print_table(facts, Console())
    if command.json_file:
        write_json(command.json_file, facts)
    if command.plot:
        write_plot(facts, command.plot, cost=command.plot_by)
    if facts["interrupted"]:
        print("vsn: stopped", file=sys.stderr)
        raise SystemExit(130)
