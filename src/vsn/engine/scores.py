"""Scores of many videos: top-k, means over classes, intervals. Arrays only, no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsn.files import write_beside, write_json


@dataclass(frozen=True)
class Scores:
    """What a model said of a set of videos.

    Attributes:
        video_ids: ``(N,)`` str, unique.
        logits: ``(N, num_classes)`` float32, before softmax or sigmoid; NaN for a video that could not be
            read, which counts as wrong.
        labels: ``(N,)`` int64, indices into classes; of multi-label videos ``(N, num_classes)`` bool.
        classes: names, in the order of the logits.
    """

    video_ids: NDArray[np.str_]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.bool_]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        n, shape = len(self.video_ids), (len(self.video_ids), len(self.classes))
        if self.logits.shape != shape or self.labels.shape != (shape if self.multi_label else (n,)):
            raise ValueError(
                f"Scores of {n} videos and {len(self.classes)} classes have logits {self.logits.shape} and labels "
                f"{self.labels.dtype} {self.labels.shape}; expected logits {shape} and labels int64 {(n,)}, or bool {shape}."
            )
        if len(set(self.video_ids.tolist())) != n:
            raise ValueError("The same video appears twice in the scores; every video counts once.")

    @property
    def multi_label(self) -> bool:
        """Whether a video may have several labels."""
        return self.labels.dtype == np.bool_

    def save(self, path: Path) -> None:
        """Write as .npz; `load_scores` reads it back."""
        with write_beside(path) as temporary:
            np.savez_compressed(
                temporary,
                video_ids=self.video_ids,
                scores=self.logits,
                labels=self.labels,
                classes=np.array(self.classes),
            )


def load_scores(path: Path) -> Scores:
    """Read scores written by `Scores.save`."""
    with np.load(path) as data:
        return Scores(data["video_ids"], data["scores"], data["labels"], tuple(data["classes"].tolist()))


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities over the last axis, computed in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    weights = np.exp(shifted)
    return weights / weights.sum(axis=-1, keepdims=True)


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probability of each class by itself, computed in float64."""
    return 0.5 * (1.0 + np.tanh(0.5 * logits.astype(np.float64)))


def top_k_hits(scores: Scores, k: int) -> NDArray[np.bool_]:
    """``(N,)`` bool: whether the label is among the k highest scores; ties count as wrong.

    Counting ties as wrong keeps a model that says the same of every class at zero. Of several labels,
    the one with the highest score counts; a video without any is wrong.
    """
    if scores.multi_label:
        own = np.where(scores.labels, scores.logits, -np.inf).max(axis=1)
    else:
        own = scores.logits[np.arange(len(scores.labels)), scores.labels]
    # "Not below" rather than "at least": a score that is not a number ties with everything, so it is wrong.
    not_below = (~(scores.logits < own[:, None])).sum(axis=1) - 1
    return not_below < k


def average_precisions(scores: Scores) -> dict[str, float]:
    """Average precision of each class that has videos, by name, over multi-label scores.

    The mean, over the videos that have the label, of the precision among those scored at least as high.
    Unreadable videos (NaN) rank last.
    """
    if not scores.multi_label:
        raise ValueError("Average precision is for multi-label scores; these have one label a video.")
    found = {}
    for index, name in enumerate(scores.classes):
        own = np.nan_to_num(scores.logits[:, index].astype(np.float64), nan=-np.inf)
        true = scores.labels[:, index]
        if not true.any():
            continue
        order = np.argsort(-own, kind="stable")
        ranked, values = true[order], own[order]
        hits = np.cumsum(ranked.astype(np.int64))
        # Videos that tie share the precision of their last: no order among them is a fact.
        last = np.searchsorted(-values, -values, side="right") - 1
        found[name] = float((hits[last] / (last + 1))[ranked].mean())
    return found


def per_class_accuracy(scores: Scores) -> dict[str, float]:
    """Top-1 accuracy of each class that has videos, by name; one label a video."""
    hits = top_k_hits(scores, 1)
    return {
        name: float(hits[scores.labels == index].mean())
        for index, name in enumerate(scores.classes)
        if (scores.labels == index).any()
    }


def bootstrap_interval(
    hits: NDArray[np.bool_],
    *,
    groups: Sequence[str] | None = None,
    confidence: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean over videos.

    Videos of one of ``groups`` (``(N,)``, default each its own) are drawn together: a clip and its
    reversed copy are not two independent facts. With all right or all wrong, where the bootstrap has
    no spread, the exact binomial bound is given.
    """
    _, inverse = np.unique(
        np.arange(len(hits)) if groups is None else np.asarray(groups), return_inverse=True
    )
    right, size = np.bincount(inverse, hits.astype(float)), np.bincount(inverse)
    if hits.all() or not hits.any():
        bound = ((1 - confidence) / 2) ** (1 / len(size))
        return (float(bound), 1.0) if hits.all() else (0.0, float(1 - bound))
    generator, means = np.random.default_rng(seed), np.empty(draws)
    for draw in range(draws):  # one by one: all at once would take gigabytes for a large test set
        drawn = generator.integers(len(size), size=len(size))
        means[draw] = right[drawn].sum() / size[drawn].sum()
    if np.ptp(means) == 0:  # each group half right, say: nothing to resample, but no certainty either
        return _wilson_interval(float(hits.mean()), len(size), confidence)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def _wilson_interval(share: float, count: int, confidence: float) -> tuple[float, float]:
    """Wilson's interval of a share of ``count`` independent draws."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return middle - half, middle + half


def summarise(scores: Scores) -> dict[str, Any]:
    """Top-1 with its interval, top-5, mean-class and per-class accuracy, as shares of 1.

    Of multi-label videos, top-1 is a hit on any of their labels, "per_class" holds average precisions,
    and "mean_average_precision" their mean.
    """
    hits = top_k_hits(scores, 1)
    by_class = average_precisions(scores) if scores.multi_label else per_class_accuracy(scores)
    originals = [video_id.removesuffix("#reversed") for video_id in scores.video_ids.tolist()]
    return {
        "num_videos": len(hits),
        "top1": float(hits.mean()),
        "top1_interval": list(bootstrap_interval(hits, groups=originals)),
        "top5": float(top_k_hits(scores, 5).mean()),
        "mean_average_precision" if scores.multi_label else "mean_class": float(
            np.mean(list(by_class.values()))
        ),
        "per_class": by_class,
    }


def save_evaluation(folder: Path, name: str, scores: Scores, facts: dict[str, Any]) -> dict[str, Any]:
    """Write ``name.npz`` and ``name.json`` into a folder; return what the JSON holds."""
    result = {**facts, **summarise(scores)}
    scores.save(folder / f"{name}.npz")
    write_json(folder / f"{name}.json", result)
    return result
