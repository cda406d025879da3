"""`vsn hub`: runs on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

hub_app = tyro.extras.SubcommandApp()


@hub_app.command
def push(
    run: Annotated[Path, tyro.conf.Positional],
    repo: Annotated[str, tyro.conf.Positional],
    weights: Literal["last", "best"] = "last",
    license: str = "",
    private: bool = False,
    branch: str = "",
) -> None:
    """Upload a run with a model card of what was measured; the repository is made where there is none.

    Test the run first (vsn eval): the card says what was measured of these weights, and nothing else.

    Args:
        run: a run folder.
        repo: user/name.
        weights: the last of the run, or those of its best validation.
        license: of the weights, such as apache-2.0; without it the card says that none was stated.
        private: make a new repository private.
        branch: default the main one.
    """
    from vsn.runs.hub import push_to_hub

    print(
        push_to_hub(
            run,
            repo,
            weights=weights,
            license=license or None,
            private=private or None,
            branch=branch or None,
        )
    )


@hub_app.command
def save(
    run: Annotated[Path, tyro.conf.Positional],
    folder: Annotated[Path, tyro.conf.Positional],
    weights: Literal["last", "best"] = "last",
    license: str = "",
) -> None:
    """Write what `push` would upload into a folder, card included, to look at or to hand on.

    Args:
        run: a run folder.
        folder: the folder to make.
        weights: the last of the run, or those of its best validation.
        license: of the weights, such as apache-2.0.
    """
    from vsn.runs.hub import save_pretrained

    print(save_pretrained(run, folder, weights=weights, license=license or None))


@hub_app.command
def pull(
    repo: Annotated[str, tyro.conf.Positional],
    to: Path,
    revision: str = "",
) -> None:
    """Fetch a run from the hub into a run folder of your own, which everything here takes.

    Args:
        repo: user/name.
        to: the run folder to make.
        revision: branch, tag or commit; default the newest.
    """
    from vsn.runs.hub import copy_run

    print(copy_run(repo, to, revision=revision or None))
