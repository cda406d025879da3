"""`vsn hub`: push runs to the Hugging Face hub, and pull them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from vsn.cli.options import Weights

Run = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(help="a run folder.")]
License = Annotated[str, tyro.conf.arg(help="of the weights, such as apache-2.0; by default the card states none.")]


def push(
    run: Run,
    repo: Annotated[str, tyro.conf.Positional],
    weights: Weights = "last",
    license: License = "",
    private: bool = False,
    branch: str = "",
) -> None:
    """Upload a run with a model card of its results; the repository is created if needed.

    Test the run first (vsn eval): the card reports only results of these weights.

    Args:
        repo: user/name.
        private: make a new repository private.
        branch: default the main branch.
    """
    from vsn.runs.hub import push_to_hub

    url = push_to_hub(
        run, repo, weights=weights, license=license or None, private=private or None, branch=branch or None
    )
    print(url)


def save(
    run: Run, folder: Annotated[Path, tyro.conf.Positional], weights: Weights = "last", license: License = ""
) -> None:
    """Write what `push` would upload, model card included, to a folder.

    Args:
        folder: the folder to make.
    """
    from vsn.runs.hub import save_pretrained

    print(save_pretrained(run, folder, weights=weights, license=license or None))


def pull(repo: Annotated[str, tyro.conf.Positional], to: Path, revision: str = "") -> None:
    """Download a run from the hub into a run folder, which every command takes.

    Args:
        repo: user/name.
        to: the run folder to make.
        revision: branch, tag or commit; default the newest.
    """
    from vsn.runs.hub import copy_run

    print(copy_run(repo, to, revision=revision or None))
