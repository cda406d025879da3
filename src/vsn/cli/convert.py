"""`vsn convert`: make a run folder of another code base's checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from vsn.cli.options import Json
from vsn.config import ConvertConfig
from vsn.system.files import to_json
from vsn.system.terminal import shell_quote


def convert(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    to: Path,
    settings: Annotated[ConvertConfig, tyro.conf.arg(name="")] = ConvertConfig(),  # noqa: B008  (frozen)
    json_output: Json = False,
) -> None:
    """Convert a checkpoint of TSM, TSN-PyTorch or MMAction2 to a run; print what was read and what was guessed.

    `vsn eval`, `vsn predict` and `vsn train --init-from` take the run; a VSN with the same backbone can
    be fine-tuned from it. No code in the file is executed.

    Args:
        checkpoint: .pth, .pth.tar or .pt.
        to: the run folder to make.
        settings: what the checkpoint does not record.
    """
    from vsn.runs.convert import convert_checkpoint

    done = convert_checkpoint(checkpoint, to, settings)
    run, model = done.run.path, done.run.recipe.model.name
    if json_output:
        print(to_json({"run": str(run), "model": model, "notes": done.notes}, indent=2))
        return
    print("\n".join(done.notes))
    # Without a data set there is nothing to test on yet.
    command = f"vsn eval {shell_quote(run)}" if settings.root else f"vsn predict {shell_quote(run)} VIDEO"
    print(f"{run} is a run of {model}. Next: {command}")
