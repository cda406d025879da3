"""The run folder: written so that nothing is ever half there, read back into a model.

``recipe.toml`` all settings, ``classes.json`` class names, ``versions.json``, ``metrics.jsonl`` a
line an epoch, ``model.safetensors`` weights in the backbone's own names, ``state.pt`` what resuming
needs, ``eval/`` results, ``tensorboard/``.
"""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from vsn.config import ConfigError, Recipe, dump_recipe, load_recipe
from vsn.files import write_beside, write_json, write_text
from vsn.models import VideoClassifier, build_model


class RunError(ValueError):
    """A run folder that cannot be used as asked; the message says what to do."""


@dataclass(frozen=True)
class Run:
    """A run folder and what it was made with."""

    path: Path
    recipe: Recipe
    classes: tuple[str, ...]


def create_run(path: Path, recipe: Recipe, classes: tuple[str, ...]) -> Run:
    """Start a run folder.

    Raises:
        RunError: the folder holds something already, or cannot be written.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise RunError(
            f"{path} exists and is not empty. Continue that run with --resume, or choose another folder with --out."
        )
    recipe = replace(recipe, model=replace(recipe.model, num_classes=len(classes)))
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_text(path / "recipe.toml", dump_recipe(recipe))
        write_json(path / "classes.json", list(classes))
        write_json(path / "versions.json", versions())
    except OSError as error:
        raise RunError(f"The run folder {path} cannot be written: {error}.") from error
    return Run(path, recipe, classes)


def open_run(path: str | Path) -> Run:
    """Read a run folder's recipe and class names.

    Raises:
        RunError: no such folder, or not a run.
    """
    path = Path(path)
    try:
        classes = json.loads((path / "classes.json").read_text(encoding="utf-8"))
        return Run(path, load_recipe(path / "recipe.toml"), tuple(classes))
    except (OSError, json.JSONDecodeError, ConfigError) as error:
        raise RunError(f"{path} is not a run folder (made by `vsn train`): {error}") from error


def load_model(run: Run) -> VideoClassifier:
    """Rebuild a run's model, in evaluation mode, from its own recipe and weights.

    Raises:
        RunError: no weights yet, or weights that do not fit the recipe.
    """
    path = run.path / "model.safetensors"
    if not path.is_file():
        raise RunError(
            f"{run.path} has no weights yet ({path.name}); its training has not finished an epoch."
        )
    model = build_model(run.recipe.model)
    try:
        model.load_state_dict(load_file(path), strict=True)
    except Exception as error:  # safetensors and torch raise several types for damage and mismatch
        raise RunError(f"{path} does not fit its recipe or is damaged: {error}") from error
    return model.eval()


def save_weights(run: Run, model: VideoClassifier) -> None:
    """Write the weights, whole or not at all."""
    tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in model.state_dict().items()}
    with write_beside(run.path / "model.safetensors") as temporary:
        save_file(tensors, temporary, metadata={"model": run.recipe.model.name})


def save_state(run: Run, state: dict[str, Any]) -> None:
    """Write what resuming needs, whole or not at all."""
    with write_beside(run.path / "state.pt") as temporary:
        torch.save(state, temporary)


def load_state(run: Run) -> dict[str, Any]:
    """Read what `save_state` wrote.

    Raises:
        RunError: there is nothing to resume from, or it is damaged.
    """
    path = run.path / "state.pt"
    if not path.is_file():
        raise RunError(f"{run.path} has nothing to resume from ({path.name} is missing); train it anew.")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged file
        raise RunError(f"{path} is damaged and cannot be resumed from: {error}") from error
    return state


def append_metrics(run: Run, line: dict[str, Any]) -> None:
    """Append one line to metrics.jsonl."""
    with (run.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All lines of a run's metrics.jsonl; empty when there are none yet."""
    file = path / "metrics.jsonl"
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def versions() -> dict[str, Any]:
    """Versions and hardware, as results carry them."""
    import av
    import torchvision

    import vsn

    return {
        "vsn": vsn.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "av": av.__version__,
        "system": platform.platform(),
        "processor": _processor(),
        "num_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
