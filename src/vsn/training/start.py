"""What a run starts from: published weights, a file, or another run, and what of it starts at random."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from safetensors import safe_open
from torch import Tensor

from vsn.config import ConfigError, ModelConfig, Recipe
from vsn.models import VideoClassifier, initialize
from vsn.models.run_weights import (
    RunWeights,
    check_run_weights,
    describe_differences,
    find_run_weights,
    has_same_features,
)


@dataclass(frozen=True)
class _FormerHead:
    """The classifier of a run, and what its rows are for."""

    classes: tuple[str, ...]
    weight: Tensor
    """``(num_classes, D)``."""
    bias: Tensor
    """``(num_classes,)``."""


def check_start(config: ModelConfig) -> None:
    """Refuse a run that cannot start this model, before any video is read.

    Raises:
        ConfigError: a run without weights, of another backbone, or shuffled for another T.
    """
    source = find_run_weights(config.weights)
    if source is not None:
        check_run_weights(source, config)


def check_is_run(path: Path) -> None:
    """Refuse what is not a run: neither its folder nor a weights file of it.

    Raises:
        ConfigError: says what is there instead.
    """
    if find_run_weights(str(path)) is None:
        there = "is no run" if path.exists() else "is not there"
        raise ConfigError(
            f"--init-from takes a run folder made by `vsn train`, or a weights file of one (model.safetensors); {path} "
            f"{there}. Other weights are named with --model.weights."
        )


def load_start(model: VideoClassifier, recipe: Recipe, classes: Sequence[str], console: Console) -> list[str]:
    """Load what ``model.weights`` names into a model, and say what is not plain.

    From a run of ours the backbone is taken whole, and of the classifier the rows of classes that have the
    same names. Everything else starts at random, as the model came.

    Args:
        model: as `build_model` returns it; filled in place.
        recipe: its ``model.weights`` is "none", a torchvision weight name, a timm tag, a file of weights,
            a run folder, or a weights file of a run.
        classes: what the model's outputs are for, in order.
        console: where to say it.

    Returns:
        Names, within the backbone, that start at random although there are weights to start from; the
        optimizer gives them ``train.fresh_lr_mult``. (A classifier has ``train.head_lr_mult`` anyway.)

    Raises:
        ConfigError: no such weights, or weights that do not fit; the message says what to do.
    """
    weights = recipe.model.weights
    loaded = initialize(model, recipe.model)
    if weights == "none":
        return []
    lines = []
    if loaded.missing:
        lines.append(f"{weights} lacks {loaded.describe_missing()}: those start at random.")
    source = find_run_weights(weights)
    if source is not None:
        lines += describe_differences(source, recipe.model)
        lines.append(
            _load_head(model, source, classes)
            if has_same_features(source, recipe.model)
            else "The run's classifier saw other features: the classifier starts at random."
        )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    return list(loaded.missing)


def _load_head(model: VideoClassifier, source: RunWeights, classes: Sequence[str]) -> str:
    """Take the rows of the run's classifier that are for classes of ours, by name; say which."""
    former = _former_head(source)
    if former is None:
        return f"There is no classes.json beside {source.file}: the classifier starts at random."
    row = {name: i for i, name in enumerate(former.classes)}
    known = [(i, row[name]) for i, name in enumerate(classes) if name in row]
    new = [name for name in classes if name not in row]
    if known:
        ours, theirs = (torch.tensor(indices) for indices in zip(*known, strict=True))
        with torch.no_grad():
            model.head.weight[ours] = former.weight[theirs].to(model.head.weight)
            model.head.bias[ours] = former.bias[theirs].to(model.head.bias)
    return _describe_head(len(known), new, len(classes), len(former.classes))


def _describe_head(num_known: int, new: Sequence[str], num_classes: int, num_former: int) -> str:
    if num_known == num_classes == num_former:
        return f"All {num_classes} classes start from the run's classifier."
    size = "" if num_classes == num_former else f"The run's classifier had {num_former} classes. "
    if not num_known:
        return f"{size}None of the {num_classes} classes was in it: the classifier starts at random."
    text = f"{size}{num_known} of {num_classes} classes start from the run's classifier"
    if new:
        text += f"; {len(new)} {'is' if len(new) == 1 else 'are'} new: {', '.join(new[:5])}"
        text += f" and {len(new) - 5} more" if len(new) > 5 else ""
    return text + "."


def _former_head(source: RunWeights) -> _FormerHead | None:
    """The run's classifier; None when the names of its classes are not beside it."""
    path = source.file.parent / "classes.json"
    if not path.is_file():
        return None
    try:
        classes = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Start from another run, or mend it.") from error
    with safe_open(source.file, framework="pt") as file:
        weight, bias = file.get_tensor("head.weight"), file.get_tensor("head.bias")
    if not isinstance(classes, list) or len(classes) != len(bias):
        raise ConfigError(
            f"{path} does not name the {len(bias)} classes of {source.file.name} beside it; they are not of one run. "
            "Start from another run, or put the right file there."
        )
    return _FormerHead(tuple(map(str, classes)), weight, bias)
