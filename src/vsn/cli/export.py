"""`vsn export`: write a run as one file for another runtime, or as a web page."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from vsn.cli.options import Json, Root, Weights
from vsn.config import ConfigError, ExportConfig, Protocol
from vsn.system.files import to_json
from vsn.system.numbers import percent


def export(
    run: Annotated[Path, tyro.conf.Positional],
    settings: Annotated[ExportConfig, tyro.conf.arg(name="")] = ExportConfig(),  # noqa: B008  (frozen)
    out: Path | None = None,
    weights: Weights = "last",
    protocol: Protocol | None = None,
    root: Root = None,
    check_accuracy: bool = False,
    json_output: Json = False,
) -> None:
    """Export a run to one file that needs no run folder: weights, normalization, class names, preprocessing.

    The file is compared with PyTorch before it is kept, on clips of the run's data set if it can be read.
    `vsn predict FILE video.mp4` predicts with it. `--to web` writes a folder for a web server.

    Args:
        run: a run folder.
        settings: what is written.
        out: the file, for web the folder; default RUN/export/model with the suffix of the format, RUN/export/web.
        protocol: the view of a video that the file takes; default the run's, with center crops for whole frames.
        check_accuracy: test the file, and the run in PyTorch, on the run's test split.
    """
    from vsn.export.export import export_run

    report = export_run(
        run,
        settings,
        out=out,
        weights=weights,
        protocol=protocol,
        root=root,
        check_accuracy=check_accuracy,
        window_seconds=_window_seconds(run, protocol, root) if settings.to == "web" else None,
    )
    if json_output:
        print(to_json(report.to_dict(), indent=2))
        return
    metadata, check = report.metadata, report.check
    size = "any size" if metadata.height is None else f"{metadata.height}x{metadata.width}"
    print(f"{report.path}: {report.num_bytes / 1e6:.1f} MB, {metadata.precision}")
    print(f"input: clips (B, {metadata.num_frames}, {metadata.channels}, H, W), {size}, {metadata.input}")
    differences = ", ".join(f"{value:.1e} at batch size {batch}" for batch, value in check.difference.items())
    print(f"compared with PyTorch on {report.clips}:")
    print(f"  logits differ by {differences}, relative to the largest; top-1 agrees on {percent(check.agreement, 0)}")
    pytorch, exported = check.latency_ms["pytorch"], check.latency_ms["exported"]
    print(f"  latency of one clip: {exported:.1f} ms, PyTorch {pytorch:.1f} ms")
    if accuracy := report.accuracy:
        print(
            f"{accuracy.split}, {accuracy.pytorch.num_videos} videos: top-1 {percent(accuracy.exported.top1)}, PyTorch "
            f"{percent(accuracy.pytorch.top1)}; the same prediction for {percent(accuracy.agreement)}"
        )
    if report.note:
        print(report.note)
    if settings.to == "web":
        print(f"serve the folder: python -m http.server -d {shlex.quote(str(report.path.parent))}")


def _window_seconds(run: Path, protocol: Protocol | None, root: Path | None) -> float | None:
    """Return the length of the windows of `vsn stream` with the run; None if the run cannot take windows."""
    from vsn.runs.run import open_run
    from vsn.stream.plan import window_processor, window_seconds
    from vsn.stream.source import USUAL_RATE

    recipe = open_run(run).recipe
    if root is not None:
        recipe = replace(recipe, data=replace(recipe.data, root=str(root)))
    try:
        window_processor(recipe, protocol)
    except ConfigError:
        return None
    return window_seconds(recipe, USUAL_RATE)[0]
