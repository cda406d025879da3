"""The model card of a run: what was measured of these weights, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsn.config import Recipe
from vsn.runs.results import EvalResult

_CLASSES_SHOWN = 20
_KINDS = {
    "vsn": "a Video Shuffle Network (Ma, Zhou, Lu, Zhang)",
    "tsm": "a TSM (Lin, Gan, Han, 2018)",
    "tsn": "a TSN (Wang et al., 2016)",
}


@dataclass(frozen=True)
class CardFacts:
    """What a card is written from."""

    recipe: Recipe
    classes: Sequence[str]
    results: Sequence[EvalResult]
    """Of `vsn eval`, of these weights."""
    versions: dict[str, Any]
    preprocessing: dict[str, Any]
    converted: dict[str, Any] | None
    """What `vsn convert` wrote, if the run was converted."""
    license: str | None
    repo: str
    """What `from_pretrained` takes."""


def write_card(facts: CardFacts) -> str:
    """The text of a card, Markdown, without the hub's header of settings."""
    parts = [
        f"# {facts.repo.rpartition('/')[2]}",
        _summary(facts),
        _use(facts),
        _measured(facts),
        _origin(facts),
        _input(facts),
        _classes(facts),
        _license(facts),
    ]
    return "\n\n".join(parts) + "\n"


def data_name(recipe: Recipe) -> str:
    """The data set: its kind, and the folder's name where the kind is no data set of its own."""
    data = recipe.data
    folder = Path(data.root).name
    return f"{folder} ({data.source})" if folder and data.source in ("folder", "csv") else data.source


def _summary(facts: CardFacts) -> str:
    model = facts.recipe.model
    kind = _KINDS.get(model.name.partition("_")[0], "a video model")
    several = "its labels" if facts.recipe.data.task == "multilabel" else f"one of {len(facts.classes)} classes"
    return f"`{model.name}`, {kind}: {model.num_frames} frames of a video in, {several} out."


def _use(facts: CardFacts) -> str:
    return (
        "## Use\n\n```python\nimport vsn\n\n"
        f'predictor = vsn.Predictor.from_pretrained("{facts.repo}")\n'
        'print(predictor.predict("video.mp4").labels)\n```\n\n'
        f"or `vsn predict hf://{facts.repo} video.mp4`."
    )


def _measured(facts: CardFacts) -> str:
    if not facts.results:
        return "## Measured\n\nNothing was measured of these weights."
    is_multi_label = facts.recipe.data.task == "multilabel"
    mean_name = "mAP" if is_multi_label else "mean class"
    lines = [
        "## Measured",
        "",
        f"| split | protocol | views | frames | videos | top-1 | 95% interval | top-5 | {mean_name} |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in facts.results:
        low, high = result.top1_interval or (math.nan, math.nan)
        mean = result.mean_average_precision if is_multi_label else result.mean_class
        lines.append(
            f"| {result.split} | {result.protocol} | {result.num_views} | {result.order} | {result.num_videos} | "
            f"{result.top1:.1%} | {low:.1%} to {high:.1%} | {result.top5:.1%} | {mean:.1%} |"
        )
    lines += [
        "",
        f"On {data_name(facts.recipe)}, by `vsn eval`, of the weights in this repository. Every video counts "
        "once; the interval is a bootstrap over videos.",
    ]
    num_bad = sum(len(result.bad_videos or ()) for result in facts.results)
    if num_bad:
        lines.append(f"Videos that could not be read count as wrong: {num_bad} in all rows together.")
    return "\n".join(lines)


def _origin(facts: CardFacts) -> str:
    if facts.converted is not None:
        where = (
            f"Converted by `vsn convert` from `{facts.converted['file']}`, a checkpoint in the names of "
            f"{facts.converted['layout']} (SHA-256 `{facts.converted['sha256']}`). How it was trained is not known here; "
            "what was taken for granted is in `converted.json`."
        )
    else:
        train, start = facts.recipe.train, facts.recipe.model.weights
        where = (
            f"Trained on {data_name(facts.recipe)}, split {facts.recipe.data.train_split!r}, from "
            f"{'random weights' if start == 'none' else f'weights `{start}`'}, for up to {train.epochs} epochs of "
            f"batches of {train.batch_size}, with {train.optimizer} at a learning rate of {train.lr:g} for "
            f"{train.lr_batch_size or train.batch_size} videos. All settings: `recipe.toml`."
        )
    known = [f"{name} {facts.versions[name]}" for name in ("vsn", "torch", "torchvision") if name in facts.versions]
    return f"## Made\n\n{where}\n\nVersions: {', '.join(known)}."


def _input(facts: CardFacts) -> str:
    lines = [f"- {name}: {value}" for name, value in facts.preprocessing.items()]
    return "## Input\n\nWhat `vsn` does to a video, for those who feed the model themselves:\n\n" + "\n".join(lines)


def _classes(facts: CardFacts) -> str:
    shown = ", ".join(facts.classes[:_CLASSES_SHOWN])
    more = len(facts.classes) - _CLASSES_SHOWN
    rest = f" and {more} more, in `classes.json`" if more > 0 else ""
    return (
        f"## Classes\n\n{shown}{rest}.\n\nThe model answers with these, whatever a video shows; a video of something else "
        "gets one of them too."
    )


def _license(facts: CardFacts) -> str:
    stated = f"The weights: {facts.license}." if facts.license else "No licence of the weights was stated."
    return f"## Licence\n\n{stated}"
