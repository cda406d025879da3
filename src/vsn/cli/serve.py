"""`vsn serve`: a model as an HTTP service with a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from vsn.config import ServeConfig


def serve(
    run: Annotated[Path, tyro.conf.Positional],
    config: Annotated[ServeConfig, tyro.conf.arg(name="")] = ServeConfig(),  # noqa: B008  (frozen)
    weights: Literal["last", "best"] = "last",
    device: str = "auto",
) -> None:
    """Serve a model over HTTP: a page to drop videos on at /, POST /v1/predict for programs.

    It listens on this machine alone unless --host says otherwise. Needs `pip install "vsn[serve]"`.

    Args:
        run: a run folder, or a file that `vsn export` wrote.
        config: where it listens, and the limits.
        weights: the last of the run, or those of its best validation.
        device: auto, cpu or cuda.
    """
    from vsn.serve.run import serve as serve_model

    serve_model(run, config, weights=weights, device=device)
