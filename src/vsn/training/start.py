"""Initialize a model for fine-tuning: from published weights, a weights file, or another run with its classifier."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from vsn.config import ConfigError, Recipe
from vsn.models import VideoClassifier, initialize
from vsn.models.run_weights import RunWeights, describe_differences, find_run_weights, has_same_features
from vsn.models.weights_file import check_class_order
from vsn.runs.run import RunError, open_run
from vsn.system.terminal import print_note


def check_is_run(path: Path) -> None:
    """Raise `ConfigError` unless the path is a run folder or a weights file of a run."""
    if find_run_weights(str(path)) is None:
        problem = "is not a run" if path.exists() else "does not exist"
        raise ConfigError(
            f"--init-from takes a run folder made by `vsn train`, or a weights file of one (model.safetensors); {path} "
            f"{problem}. Pass other weights with --model.weights."
        )


def run_of_same_data(recipe: Recipe) -> Path | None:
    """Return the folder of the run whose weights a recipe starts from, if that was trained on the same data folder.

    None too where the run's recipe cannot be read, such as one of a newer version: weights do not need it.
    """
    source = find_run_weights(recipe.model.weights)
    if source is None:
        return None
    try:
        trained_on = open_run(source.file.parent).recipe.data.root
    except RunError:
        return None
    # Another data set may have videos of the same names.
    return source.file.parent if Path(trained_on).resolve() == Path(recipe.data.root).resolve() else None


def load_start(model: VideoClassifier, recipe: Recipe, classes: Sequence[str], console: Console) -> list[str]:
    """Load ``model.weights`` into a model in place, and print what does not start from them.

    They are "none", a torchvision weight name, a timm tag, a weights file, or a run. Of a run the backbone is loaded,
    and the rows of its classifier for classes of the same name.

    Returns:
        Names, within the backbone, of the parameters that the weights lack; they take ``train.fresh_lr_mult``.

    Raises:
        ConfigError: no such weights, or weights that do not fit.
    """
    weights = recipe.model.weights
    loaded = initialize(model, recipe.model)
    if weights == "none":
        return []
    lines = []
    if loaded.missing:
        lines.append(f"{weights} lacks {loaded.describe_missing()}: initialized at random.")
    source = loaded.run
    if source is not None:
        lines += describe_differences(source, recipe.model)
        if has_same_features(source, recipe.model):
            lines.append(_load_classifier(model, source, classes))
        else:
            lines.append("The classifier of the run has other input features: initialized at random.")
    for line in lines:
        print_note(console, line)
    return list(loaded.missing)


def _load_classifier(model: VideoClassifier, source: RunWeights, classes: Sequence[str]) -> str:
    """Copy the rows of the run's classifier for classes of the same name; return a line that says which."""
    path = source.file.parent / "classes.json"
    if not path.is_file():
        return f"There is no classes.json next to {source.file}: the classifier is initialized at random."
    try:
        old_classes = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Repair it, or start from another run.") from error
    weight, bias = source.state["head.weight"], source.state["head.bias"]
    if not isinstance(old_classes, list) or len(old_classes) != len(bias):
        raise ConfigError(
            f"{path} does not list the {len(bias)} classes of {source.file.name}: the files are from different runs. "
            "Restore it, or start from another run."
        )
    try:
        check_class_order(source.file, old_classes)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    # Match by name, not by position. From a run with (wave, clap, jump) to (jump, sit, wave): rows 0 and 2
    # are its rows 2 and 0, and row 1 stays random.
    old_row = {str(name): i for i, name in enumerate(old_classes)}
    for row, name in enumerate(classes):
        if name in old_row:
            with torch.no_grad():
                model.head.weight[row] = weight[old_row[name]].to(model.head.weight)
                model.head.bias[row] = bias[old_row[name]].to(model.head.bias)
    new = [name for name in classes if name not in old_row]
    num_shared = len(classes) - len(new)
    text = "" if len(classes) == len(old_classes) else f"The run's classifier had {len(old_classes)} classes. "
    if not num_shared:
        return f"{text}None of the {len(classes)} classes was in it: the classifier is initialized at random."
    text += f"{num_shared} of {len(classes)} classes start from the run's classifier"
    if new:
        text += f"; {len(new)} new: {', '.join(new[:5])}" + (f" and {len(new) - 5} more" if len(new) > 5 else "")
    return text + "."
