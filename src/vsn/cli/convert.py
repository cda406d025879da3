"""`vsn convert`: a checkpoint of another code base into a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import tyro

from vsn.config import ConvertConfig


def convert(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    to: Path,
    settings: Annotated[ConvertConfig, tyro.conf.arg(name="")] = ConvertConfig(),  # noqa: B008  (frozen)
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> None:
    """Make a run of a checkpoint of TSM, TSN-PyTorch or MMAction2; print what was read and what was guessed.

    `vsn eval`, `vsn predict` and `vsn train --init-from` take the run; a VSN of the same backbone may
    start from it. The file is read without executing anything in it.

    Args:
        checkpoint: .pth, .pth.tar or .pt.
        to: the run folder to make.
        settings: what the checkpoint does not say of itself.
        json_output: print JSON.
    """
    from vsn.runs.convert import convert_checkpoint

    done = convert_checkpoint(checkpoint, to, settings)
    if json_output:
        print(json.dumps({"run": str(done.run.path), "model": done.run.recipe.model.name, "said": done.said}, indent=2))
        return
    print("\n".join(done.said))
    advice = f"vsn predict {done.run.path} VIDEO" if not settings.root else f"vsn eval {done.run.path}"
    print(f"{done.run.path} is a run of {done.run.recipe.model.name}. Now: {advice}")
