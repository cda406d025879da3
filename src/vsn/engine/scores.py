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
        logits: ``(N, num_classes)`` float32, before softmax.
        labels: ``(N,)`` int64, indices into classes.
        classes: names, in the order of the logits.
    """

    video_ids: NDArray[np.str_]
    logits: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.video_ids)
        if self.logits.shape != (n, len(self.classes)) or self.labels.shape != (n,):
            raise ValueError(
                f"Scores of {n} videos and {len(self.classes)} classes have logits {self.logits.shape} and labels "
                f"{self.labels.shape}; expected {(n, len(self.classes))} and {(n,)}."
            )
        if len(set(self.video_ids.tolist())) != n:
            raise ValueError("The same video appears twice in the scores; every video counts once.")

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


def top_k_hits(scores: Scores, k: int) -> NDArray[np.bool_]:
    """``(N,)`` bool: whether the label is among the k highest scores; ties count as wrong.

    Counting ties as wrong keeps a model that says the same of every class at zero.
    """
    own = scores.logits[np.arange(len(scores.labels)), scores.labels]
    # "Not below" rather than "at least": a score that is not a number ties with everything, so it is wrong.
    not_below = (~(scores.logits < own[:, None])).sum(axis=1) - 1
    return not_below < k


def per_class_accuracy(scores: Scores) -> dict[str, float]:
    """Top-1 accuracy of each class that has videos, by name."""
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
    """Top-1 with its interval, top-5, mean-class and per-class accuracy, as shares of 1."""
    hits = top_k_hits(scores, 1)
    by_class = per_class_accuracy(scores)
    originals = [video_id.removesuffix("#reversed") for video_id in scores.video_ids.tolist()]
    return {
        "num_videos": len(hits),
        "top1": float(hits.mean()),
        "top1_interval": list(bootstrap_interval(hits, groups=originals)),
        "top5": float(top_k_hits(scores, 5).mean()),
        "mean_class": float(np.mean(list(by_class.values()))),
        "per_class": by_class,
    }


def save_evaluation(folder: Path, name: str, scores: Scores, facts: dict[str, Any]) -> dict[str, Any]:
    """Write ``name.npz`` and ``name.json`` into a folder; return what the JSON holds."""
    result = {**facts, **summarise(scores)}
    scores.save(folder / f"{name}.npz")
    write_json(folder / f"{name}.json", result)
    return result
