"""`vsn export`: a run into one file for another runtime."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vsn.config import ExportConfig, ExportFormat, InputType, Protocol

if TYPE_CHECKING:
    from vsn.export.export import ExportReport


def export(
    run: Annotated[Path, tyro.conf.Positional],
    to: ExportFormat = ExportConfig.to,
    out: Path | None = None,
    weights: Literal["last", "best"] = "last",
    protocol: Protocol | None = None,
    input_type: Annotated[InputType, tyro.conf.arg(name="input")] = ExportConfig.input,
    any_size: bool = ExportConfig.any_size,
    int8: bool = ExportConfig.int8,
    calibration_clips: int = ExportConfig.calibration_clips,
    fp16: bool = ExportConfig.fp16,
    opset: int = ExportConfig.opset,
    root: Path | None = None,
    check_accuracy: bool = False,
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Export a run to one file that needs no run folder: weights, normalization, class names, preprocessing.

    The file is compared with PyTorch first, on clips of the run's data where it can be read; one that
    differs is not written. `vsn predict FILE video.mp4` predicts with it.

    Args:
        run: a run folder.
        to: onnx, openvino, torch-export (a .pt2 for torch), or aoti (a .pt2 compiled for this processor).
        out: the file; default RUN/export/model with the suffix of the format.
        weights: the last of the run, or those of its best validation.
        protocol: the view of a video the file is for; default the run's, with center crops for whole frames.
        input_type: the clips it takes: uint8, or float32 in [0, 1].
        any_size: take frames of any height and width.
        int8: 8-bit weights and activations, ranges from training clips (onnx, openvino).
        calibration_clips: how many training clips set the ranges of int8.
        fp16: store the weights in 16 bits (openvino).
        opset: version of the ONNX operators.
        root: where the data set is now, if it moved; default the recipe's data.root.
        check_accuracy: test the file, and the run in PyTorch, on the run's test split.
        json_output: print JSON.
    """
    from vsn.export.export import export_run

    config = ExportConfig(
        to=to,
        input=input_type,
        any_size=any_size,
        int8=int8,
        fp16=fp16,
        calibration_clips=calibration_clips,
        opset=opset,
    )
    report = export_run(
        run,
        config,
        out=out,
        weights=weights,
        protocol=protocol,
        root=root,
        check_accuracy=check_accuracy,
    )
    if json_output:
        print(json.dumps(dataclasses.asdict(report) | {"path": str(report.path)}, indent=2, ensure_ascii=False))
    else:
        _print_report(report)


def _print_report(report: ExportReport) -> None:
    facts, check = report.facts, report.check
    size = "any size" if facts.height is None else f"{facts.height}x{facts.width}"
    print(f"{report.path}: {report.num_bytes / 1e6:.1f} MB, {facts.precision}")
    print(f"takes: clips (B, {facts.num_frames}, {facts.channels}, H, W), {size}, {facts.input}")
    apart = ", ".join(f"{value:.1e} at batch {batch}" for batch, value in check.difference.items())
    print(f"against PyTorch: logits differ by {apart} of the largest; {check.agreement:.0%} of top-1 agree")
    print(f"compared on: {report.clips}")
    pytorch, exported = check.latency_ms["pytorch"], check.latency_ms["exported"]
    print(f"one clip: {exported:.1f} ms, PyTorch {pytorch:.1f} ms (this machine as busy as it was)")
    if report.accuracy:
        first, second = report.accuracy["pytorch"], report.accuracy["exported"]
        print(
            f"{report.accuracy['split']}, {first['num_videos']} videos: top-1 {second['top1']:.1%}, PyTorch "
            f"{first['top1']:.1%}; the same answer for {report.accuracy['agreement']:.1%}"
        )
    if report.note:
        print(report.note)


def refuse_for_run(path: Path, *, precision: str) -> None:
    """Raise `ValueError` for an option of `vsn predict` that is for exported files alone."""
    if precision != "fp32":
        raise ValueError(
            f"--precision {precision} is for an OpenVINO .xml file, and {path} is a run, which computes as its "
            "train.precision says. Leave it out, or export the run: vsn export RUN --to openvino."
        )


def refuse_for_exported(path: Path, *, flow_run: Path | None, weights: str, device: str) -> None:
    """Raise `ValueError` for an option of `vsn predict` that an exported file cannot follow."""
    options = {
        "--flow-run": flow_run is not None,
        "--weights best": weights == "best",
        f"--device {device}": device not in ("auto", "cpu"),
    }
    for option, given in options.items():
        if given:
            raise ValueError(
                f"{option} is for a run folder; {path} is an exported file, which holds one model, for the CPU."
            )
