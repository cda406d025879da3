"""Declare the options that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vsn.config import Protocol

if TYPE_CHECKING:
    from vsn.data.per_video import Stored

arg = tyro.conf.arg

Weights = Annotated[Literal["last", "best"], arg(help="weights of the last epoch, or of the best validation.")]
Device = Annotated[
    str,
    arg(help="auto, cpu or cuda; auto takes CUDA where there is a GPU. A .onnx file: cpu, cuda, tensorrt or openvino."),
]
Root = Annotated[Path | None, arg(help="folder of the data set, if it moved; default the recipe's data.root.")]
Json = Annotated[bool, arg(name="json", help="print JSON.")]
RunProtocol = Annotated[Protocol | None, arg(help="views of a video (clips and crops); default the run's.")]


def print_stored(summary: Stored) -> None:
    """Print what was stored for videos, and those that failed; exit with status 1 if there are any."""
    for failure in summary.failed:
        print(f"{failure.video.path}: {failure.reason}", file=sys.stderr)
    print(summary)
    if summary.failed:
        raise SystemExit(1)
