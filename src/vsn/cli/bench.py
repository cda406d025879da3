"""`vsn bench`: measure what models cost."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from vsn.cli.settings import command_line
from vsn.config import BenchConfig


def bench(
    names: Annotated[tuple[str, ...], tyro.conf.Positional],
    settings: Annotated[BenchConfig, tyro.conf.arg(name="")] = BenchConfig(),  # noqa: B008  (frozen)
    json_file: Annotated[Path | None, tyro.conf.arg(name="json")] = None,
    plot: Path | None = None,
    plot_by: Literal["latency", "multiply-adds"] = "latency",
) -> None:
    """Measure models side by side: parameters, multiply-adds, latency, throughput, peak memory.

    The models take turns, one batch each, so that a slow phase of the machine affects all of them. Ctrl-C
    prints the results so far. Times are refused where other programs used the processor meanwhile.

    `vsn bench tsn_resnet50 tsm_resnet50 vsn_resnet50` is the paper's Table 6 on your hardware; `vsn bench
    runs/*` measures trained runs. NAME@T and NAME@TxCLIPS set the input of one model: i3d-fine_resnet50@32x2.

    Args:
        names: names of models (`vsn models` lists them), or run folders.
        settings: what is measured.
        json_file: write all results there, with hardware, versions, command and date.
        plot: draw the accuracy of tested runs against their cost there (.png or .svg); needs vsn-video[plot].
        plot_by: the cost in that plot.
    """
    from vsn.bench.plot import check_plot, write_plot
    from vsn.bench.run import run_bench
    from vsn.bench.tables import print_table
    from vsn.system.files import write_json

    # A measurement takes minutes: what cannot be drawn is refused before it.
    if plot:
        check_plot(plot, names)
    results = run_bench(names, settings, command=command_line.get())
    print_table(results, Console())
    if json_file:
        write_json(json_file, results.to_json())
    if results.too_busy:
        # Printed and written as what was measured, but neither drawn nor reported as a success.
        raise RuntimeError("The machine was too busy for a result; see above.")
    if plot:
        write_plot(results, plot, cost=plot_by)
    # Partial results are printed and written, but scripts must not take them for complete ones.
    if results.interrupted:
        print("vsn: stopped", file=sys.stderr)
        raise SystemExit(130)  # 128 + SIGINT
