"""Videos as strips of their sampled frames, with what the runs said of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from vsn.report import parts
from vsn.report.parts import percent, text
from vsn.report.runs import ReportError, Run, match_classes, read_arrays
from vsn.scores.metrics import sigmoid, softmax
from vsn.scores.scores import Scores

Kind = Literal["best", "worst"]
MARKS = ("\u2717", "\u2713")


class Choice(NamedTuple):
    """What a run said of a video, as its `place`-th choice from 0."""

    run: str
    label: str
    probability: float
    right: bool
    place: int = 0


@dataclass(frozen=True, kw_only=True)
class Example:
    """A video of the best or the worst, seen as a run saw it."""

    video_id: str
    kind: Kind
    frames: np.ndarray | None
    """uint8 (T, h, w, 3); None where it could not be read."""
    heat: np.ndarray | None = None
    """The same with the map of the class that was said laid over."""
    why_not: str = ""
    """Why there are no frames, or no heat."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """The best and the worst videos of one run, or why there are none."""

    run: str = ""
    """Its name in the report."""
    stage: str = ""
    """Where the heat maps are taken."""
    cells: tuple[int, int] = (0, 0)
    """Height and width of a heat map before it was laid over a frame."""
    examples: tuple[Example, ...] = ()
    why_not: str = ""


def choose_examples(scores: Scores, number: int) -> dict[Kind, list[int]]:
    """Rows of the `number` videos that a run was most right about, and most wrong; a class at most once
    where there are classes enough.

    Most right: the largest probability of the label among videos named rightly. Most wrong: the smallest.
    Of several labels their mean probability counts, and rightly is the first choice among them.
    """
    read: np.ndarray = np.flatnonzero(~scores.unreadable)
    chances = probabilities(scores, read)
    if scores.multi_label:
        labels = scores.labels[read]
        has_label = labels.any(axis=1)
        read, chances, labels = read[has_label], chances[has_label], labels[has_label]
        own = (chances * labels).sum(axis=1) / labels.sum(axis=1)
        first = labels.argmax(axis=1)
        right = labels[np.arange(len(read)), chances.argmax(axis=1)]
    else:
        first = scores.labels[read]
        own = chances[np.arange(len(read)), first]
        right = chances.argmax(axis=1) == first
    best = _one_a_class([i for i in np.argsort(-own, kind="stable").tolist() if right[i]], first)
    worst = _one_a_class([i for i in np.argsort(own, kind="stable").tolist() if not right[i]], first)
    return {"best": read[best[:number]].tolist(), "worst": read[worst[:number]].tolist()}


def _one_a_class(ranked: Sequence[int], labels: np.ndarray) -> list[int]:
    """The same indices, the first of each class before all others."""
    first = dict(reversed([(int(labels[index]), index) for index in ranked]))
    fresh = set(first.values())
    return [i for i in ranked if i in fresh] + [i for i in ranked if i not in fresh]


def probabilities(scores: Scores, rows: np.ndarray) -> np.ndarray:
    """float64 (len(rows), num_classes): softmax, or of several labels the sigmoid of each."""
    return sigmoid(scores.logits[rows]) if scores.multi_label else softmax(scores.logits[rows])


def examples_section(runs: Sequence[Run], examples: Examples | None) -> str:
    """The best and the worst videos, heat maps beneath; or why there are none."""
    again = ["vsn", "report", *(str(run.path) for run in runs)]
    if examples is None:
        return parts.lacking("The page was written from the run folders alone, without opening videos.", [again])
    if not examples.examples:
        return parts.lacking(
            examples.why_not or "No run is tested yet.",
            [[*again, "--root", "FOLDER"]] if examples.why_not else [],
        )
    run = next(run for run in runs if run.name == examples.run)
    blocks = []
    for kind, title in (("best", "Surest when right"), ("worst", "Most wrong")):
        cards = [_example_card(run, runs, one) for one in examples.examples if one.kind == kind]
        empty = "<p>None: every video was named rightly.</p>" if kind == "worst" else "<p>None.</p>"
        blocks.append(f"<h3>{title}</h3>{''.join(cards) or empty}")
    heat = (
        f" Beneath: Grad-CAM of the class it said, from the {examples.cells[0]}\u00d7{examples.cells[1]} features of "
        f"{text(examples.stage)} (--stage takes others); red counted most, and all frames of a video share one scale. "
        "The features of a temporal model have seen other frames too."
        if any(one.heat is not None for one in examples.examples)
        else ""
    )
    note = parts.lacking(examples.why_not) if examples.why_not else ""
    return (
        f"<p>Videos of which {text(run.name)} was most sure, rightly and wrongly, as frames it saw, first to last.{heat}"
        f"</p>{note}{''.join(blocks)}"
    )


def _example_card(run: Run, runs: Sequence[Run], example: Example) -> str:
    assert run.scores is not None
    row = int(np.flatnonzero(run.scores.video_ids == example.video_id)[0])
    own = run.scores.labels[row]
    labels = set(np.flatnonzero(own).tolist()) if run.scores.multi_label else {int(own)}
    chances = probabilities(run.scores, np.array([row]))[0]
    lines = [
        Choice(run.name if place == 0 else "", run.classes[c], float(chances[c]), c in labels, place)
        for place, c in enumerate(np.argsort(-chances, kind="stable")[:3].tolist())
    ]
    for other in runs:
        if other is run or other.scores is None or other.scores.unreadable[row]:
            continue
        theirs = probabilities(other.scores, np.array([row]))[0]
        said = int(theirs.argmax())
        lines.append(Choice(other.name, other.classes[said], float(theirs[said]), said in labels))
    truth = parts.listed([run.classes[c] for c in sorted(labels)])
    return strip_card(
        example.frames,
        example.video_id,
        truth=truth,
        verdicts=lines,
        heat=example.heat,
        why_not=example.why_not,
    )


def strips_section(runs: Sequence[Run], path: Path) -> str:
    """The videos of a file of strips, with the first choice of each run."""
    arrays = read_arrays(path, ("frames", "video_ids", "labels"))
    frames, labels = arrays["frames"], arrays["labels"]
    count = len(arrays["video_ids"])
    is_rgb = frames.dtype == np.uint8 and frames.ndim == 5 and frames.shape[-1] == 3
    if not is_rgb or len(frames) != count or labels.shape != (count,):
        raise ReportError(
            f"{path}: frames are {frames.dtype} {frames.shape} for {count} videos and {labels.size} labels; "
            "they must be uint8 (K, T, h, w, 3) for K videos and K labels."
        )
    classes = runs[0].classes
    if labels.size and not 0 <= labels.min() <= labels.max() < len(classes):
        raise ReportError(f"{path}: labels run to {labels.max()}; allowed: 0 to {len(classes) - 1}.")
    if "classes" in arrays:
        labels = np.argsort(match_classes([str(n) for n in arrays["classes"]], classes, path))[labels]
    cards = []
    for clip, video_id, label in zip(frames, arrays["video_ids"].tolist(), labels.tolist(), strict=True):
        verdicts = [_verdict(run, str(video_id), label, path) for run in runs if run.scores is not None]
        cards.append(strip_card(clip, str(video_id), truth=classes[label], verdicts=verdicts))
    return (
        "<p>The frames a network saw, first to last, with the truth above and what each run said below: "
        f"its first choice and the probability it gave.</p>{''.join(cards)}"
    )


def _verdict(run: Run, video_id: str, label: int, path: Path) -> Choice:
    """The run's first choice, which is right when it is `label`."""
    assert run.scores is not None
    rows = np.flatnonzero(run.scores.video_ids == video_id)
    if not len(rows):
        raise ReportError(f"{path}: {run.name} has no scores for {video_id!r}. Show videos of its split.")
    truth = run.scores.labels[rows[0]]
    right = np.flatnonzero(truth).tolist() if run.scores.multi_label else [int(truth)]
    if label not in right:
        raise ReportError(
            f"{path}: label {label} of {video_id!r} is not the {right[0]} ({run.classes[right[0]]!r}) of "
            f"{run.name}. Number the labels as the first run does, or store `classes` with them."
        )
    chances = probabilities(run.scores, rows[:1])[0]
    said = int(chances.argmax())
    return Choice(run.name, run.classes[said], float(chances[said]), said in right)


def strip_card(
    frames: np.ndarray | None,
    video_id: str,
    *,
    truth: str,
    verdicts: Sequence[Choice],
    heat: np.ndarray | None = None,
    why_not: str = "",
) -> str:
    """One video: uint8 `frames` (T, h, w, 3), its class, and what the runs said."""
    said = "".join(map(_choice_line, verdicts))
    note = f'<p class="note">{text(why_not)}</p>' if why_not else ""
    shown = ""
    if frames is not None:
        shown = _strip(frames, heat, f"{len(frames)} frames of {video_id} in the order they were filmed: {truth}")
    head = f"<h4>{text(truth)}<small>{text(video_id)}</small></h4>"
    return f'<article class="strip">{head}{shown}{note}<ul>{said}</ul></article>'


def _choice_line(choice: Choice) -> str:
    kind = "ok" if choice.right else "also" if choice.place else "no"
    # A second choice is no mistake, though it is not right.
    mark = "" if kind == "also" else MARKS[choice.right]
    name = f' role="img" aria-label="{"right" if choice.right else "wrong"}"' if mark else ""
    return (
        f'<li class="{kind}"><span class="mark"{name}>{mark}</span><span class="who">{text(choice.run)}</span>'
        f'<span class="what">{text(choice.label)}</span><b>{percent(choice.probability)}</b></li>'
    )


def _strip(frames: np.ndarray, heat: np.ndarray | None, label: str) -> str:
    """A row of frames; with heat maps each frame has its own beneath it, on a phone too."""
    images = []
    for t, frame in enumerate(frames):
        image = f'<img src="{_jpeg(frame)}" alt="" loading="lazy">'
        below = f'<img src="{_jpeg(heat[t])}" alt="" loading="lazy">' if heat is not None else ""
        images.append(f"<span>{image}{below}</span>" if below else image)
    return (
        f'<div class="frames" role="img" aria-label="{text(label)}" style="--n:{min(len(frames), 8)}">'
        f"{''.join(images)}</div>"
    )


def _jpeg(frame: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
