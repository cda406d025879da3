"""Say in one line, with its figure, what the metrics of a finished run suggest to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vsn.config import Recipe
from vsn.system.numbers import counted, percent, points

WAITING = 0.3
"""Share of the training time from which on waiting for videos is worth a change."""
GAP = 0.2
"""Top-1 of training minus that of validation from which on the training videos are learned by heart."""
RISE = 0.02
"""Rise of the validation over the last quarter of the epochs from which on longer training is worth a try."""


def advise(metrics: Sequence[Mapping[str, float]], recipe: Recipe, *, num_cpus: int, is_packed: bool) -> str:
    """Return one sentence, the most useful that there is; "" if the figures suggest nothing.

    Args:
        metrics: the lines of metrics.jsonl.
        recipe: of the run.
        num_cpus: CPUs that the process may use.
        is_packed: whether the data set is one of `vsn data pack`.

    >>> lines = [{"epoch": 1, "train_loss": 2.0, "train_top1": 0.99, "val_top1": 0.6, "data_wait": 0.1, "seconds": 9.0}]
    >>> advise(lines, Recipe(), num_cpus=2, is_packed=False).partition(":")[0]
    'Training 99.0%, validation 60.0%'
    """
    epochs = [line for line in metrics if "train_loss" in line]
    if not epochs:
        return ""
    return _loading(epochs, recipe, num_cpus, is_packed) or _by_heart(metrics, recipe) or _still_rising(metrics, recipe)


def _loading(epochs: Sequence[Mapping[str, float]], recipe: Recipe, num_cpus: int, is_packed: bool) -> str:
    # The first epochs fill caches, of the system or of data.cache.
    last = [line for line in epochs[len(epochs) // 2 :] if "data_wait" in line and line.get("seconds")]
    seconds = sum(line["seconds"] for line in last)
    share = sum(line["data_wait"] * line["seconds"] for line in last) / seconds if seconds else 0.0
    more = recipe.data.num_workers < num_cpus and recipe.data.cache == "none"
    ways = [f"set data.num_workers = {num_cpus} (now {recipe.data.num_workers})"] if more else []
    ways += [] if is_packed else ["pack the videos with `vsn data pack`, which decodes them once"]
    if share < WAITING or not ways:
        return ""
    return f"Training waited {percent(share, 0)} of its time for videos: {', or '.join(ways)}."


def _by_heart(metrics: Sequence[Mapping[str, float]], recipe: Recipe) -> str:
    trained = next((line["train_top1"] for line in reversed(metrics) if "train_top1" in line), 0.0)
    validated = max((line["val_top1"] for line in metrics if "val_top1" in line), default=trained)
    if trained - validated < GAP or recipe.data.task == "multilabel":
        return ""
    if recipe.model.weights == "none":
        way = "start from trained weights (model.weights, or --init-from a run)"
    else:
        way = "augment more (augment.rand_augment, augment.random_erasing), or label more videos"
    return (
        f"Training {percent(trained)}, validation {percent(validated)}: the network learns the training videos by heart; "
        f"{way}."
    )


def _still_rising(metrics: Sequence[Mapping[str, float]], recipe: Recipe) -> str:
    epochs = recipe.train.epochs
    values = [(line["epoch"], line["val_top1"]) for line in metrics if "val_top1" in line]
    before = [value for epoch, value in values if epoch <= 0.75 * epochs]
    last = [value for epoch, value in values if epoch > 0.75 * epochs]
    # One good validation among few is chance.
    if not before or len(last) < 2 or last[-1] < max(last) or max(last) - max(before) < RISE:
        return ""
    return (
        f"Validation rose by {points(max(last) - max(before))} points over the last quarter: train longer than "
        f"{counted(epochs, 'epoch')} (train.epochs)."
    )
