"""The model card of a run: what was measured of these weights, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsn.config import Recipe

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
    results: Sequence[dict[str, Any]]
    """Of `vsn eval`, of these weights."""
    versions: dict[str, Any]
    preprocessing: dict[str, Any]
    converted: dict[str, Any] | None
    """What `vsn convert` wrote, if the run was converted."""
    license: str | None
    repo: str
    """What `from_pretrained` takes."""


def read_results(run: Path, weights_hash: str) -> list[dict[str, Any]]:
    """The results in a run folder that were measured of the weights with this hash, frames in order first.

    Results of other weights, and files that are no results, are left out.
    """
    found = []
    for file in sorted((run / "eval").glob("*.json")):
        try:
            result = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError):
            continue
        if isinstance(result, dict) and result.get("weights_hash") == weights_hash and "top1" in result:
            found.append(result)
    return sorted(found, key=lambda one: (one["order"] != "forward", one["split"], one["protocol"]))


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
    several = facts.recipe.data.task == "multilabel"
    mean = ("mean_average_precision", "mAP") if several else ("mean_class", "mean class")
    lines = [
        "## Measured",
        "",
        f"| split | protocol | views | frames | videos | top-1 | 95% interval | top-5 | {mean[1]} |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in facts.results:
        low, high = one["top1_interval"]
        lines.append(
            f"| {one['split']} | {one['protocol']} | {one['num_views']} | {one['order']} | {one['num_videos']} | "
            f"{one['top1']:.1%} | {low:.1%} to {high:.1%} | {one['top5']:.1%} | {one[mean[0]]:.1%} |"
        )
    lines += [
        "",
        f"On {data_name(facts.recipe)}, by `vsn eval`, of the weights in this repository. Every video counts "
        "once; the interval is a bootstrap over videos.",
    ]
    bad = sum(len(one.get("bad_videos", ())) for one in facts.results)
    if bad:
        lines.append(f"Videos that could not be read count as wrong: {bad} in all rows together.")
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
