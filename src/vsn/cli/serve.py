"""`vsn serve`: serve a model over HTTP, with a web page."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from vsn.cli.options import Device, Weights
from vsn.config import ServeConfig


def serve(
    run: Annotated[Path, tyro.conf.Positional],
    config: Annotated[ServeConfig, tyro.conf.arg(name="")] = ServeConfig(),  # noqa: B008  (frozen)
    weights: Weights = "last",
    device: Device = "auto",
) -> None:
    """Serve a model over HTTP: a page to drop videos on at /, POST /v1/predict for programs.

    By default only this machine can connect; --host changes that. Needs `pip install "vsn-video[serve]"`, of
    exported files no PyTorch.

    Args:
        run: a run folder, or a file that `vsn export` wrote.
        config: address and limits.
    """
    from vsn.serve.run import serve as serve_model

    # For images of containers, whose command is fixed and whose address is not.
    if config.public_url is None and (url := os.environ.get("VSN_PUBLIC_URL")):
        config = replace(config, public_url=url)
    serve_model(run, config, weights=weights, device=device)
