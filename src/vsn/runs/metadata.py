"""Create a run folder, and describe what its results depend on: preprocessing, library versions, hardware."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from vsn.config.distribution import installed_version
from vsn.config.recipes import dump_recipe
from vsn.data.processor import Processor
from vsn.runs.run import STATE_FILES, Run, RunError
from vsn.runs.videos import VIDEOS_FILE
from vsn.system.allocator import keeps_freed_memory
from vsn.system.environment import processor
from vsn.system.files import write_json, write_text
from vsn.system.lock import LOCK_FILE


def write_run(run: Run) -> None:
    """Create the folder of a run: recipe, class names, versions, preprocessing.

    Raises:
        RunError: it cannot be written.
    """
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        write_json(run.path / "versions.json", versions())
        write_json(run.path / "classes.json", list(run.classes))
        Processor(run.recipe).save(run.path / "preprocessing.json")
        # The recipe last: a folder with a recipe is a run, and can be resumed if the process is killed here.
        write_text(run.path / "recipe.toml", dump_recipe(run.recipe))
    except OSError as error:
        raise RunError(f"The run folder {run.path} cannot be written: {error}. Choose another folder.") from error


def different_threads(path: Path) -> str:
    """Return a note if a run was trained with another number of threads than this process has; "" otherwise."""
    try:
        before = json.loads((path / "versions.json").read_text(encoding="utf-8"))["num_threads"]
    except (OSError, ValueError, KeyError, TypeError):  # written by an older version, or a copy of a part of the run
        return ""
    now = torch.get_num_threads()
    if before == now:
        return ""
    return (
        f"The run was trained with {before} threads, and this process has {now}: sums on a CPU round differently, so that "
        "the weights will differ in their last bits. Set OMP_NUM_THREADS for equal ones."
    )


def is_unstarted(path: Path) -> bool:
    """Return whether a folder holds nothing but files of `write_run`, or temporary files of writing one."""
    created = {"recipe.toml", "classes.json", "versions.json", "preprocessing.json"}
    # `atomic_write` names a temporary file .STEM-RANDOM.SUFFIX. The first checkpoint may have been interrupted too.
    stems = tuple(f".{Path(name).stem}-" for name in (*created, VIDEOS_FILE, *STATE_FILES))
    left = {file.name for file in path.iterdir() if file.name != LOCK_FILE and not file.name.startswith(stems)}
    # In the order of `write_run`: a folder with only a recipe, for example, was made by the user.
    in_order = not left or ("versions.json" in left and ("recipe.toml" not in left or left >= created))
    return in_order and left <= created | {VIDEOS_FILE}


def versions() -> dict[str, Any]:
    """Return library versions and hardware, as run folders and benchmark results record them."""
    return {
        "vsn": installed_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": metadata.version("torchvision"),
        "av": metadata.version("av"),
        # Speed, and the last bits of results, depend on the hardware and the number of threads.
        "system": platform.platform(),
        "processor": processor(),
        "num_threads": torch.get_num_threads(),
        "keeps_freed_memory": keeps_freed_memory(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
