"""Make small scores with known answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vsn.scores.scores import ScoreKind, Scores


def scores_of(
    logits: Sequence[Sequence[float]],
    labels: Sequence[int],
    *,
    ids: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    kind: ScoreKind = "logits",
    **facts: Any,
) -> Scores:
    """Return the given scores; videos are 0.mp4, 1.mp4, ..., classes a, b, ..."""
    table = np.array(logits, np.float32)
    names = tuple("abcdefghij"[: table.shape[1]]) if classes is None else tuple(classes)
    videos = [f"{i}.mp4" for i in range(len(table))] if ids is None else list(ids)
    return Scores(np.array(videos), table, np.array(labels, np.int64), names, kind, facts)


def several(logits: Sequence[Sequence[float]], labels: Sequence[Sequence[int]], **facts: Any) -> Scores:
    """Return the given multi-label scores."""
    plain = scores_of(logits, [0] * len(logits))
    return Scores(plain.video_ids, plain.logits, np.array(labels, bool), plain.classes, "logits", facts)


def sides(right: Sequence[int], labels: Sequence[int] | None = None, **options: Any) -> Scores:
    """Return scores of two classes, one video per number: 1 if the model is right, 0 if it predicts the other class."""
    labels = [0] * len(right) if labels is None else labels
    predictions = [label if hit else 1 - label for hit, label in zip(right, labels, strict=True)]
    return scores_of([[2.0, 0.0] if label == 0 else [0.0, 2.0] for label in predictions], labels, **options)


def random_scores(
    seed: int,
    *,
    num_videos: int = 60,
    num_classes: int = 4,
    strength: float = 1.0,
    scale: float = 1.0,
    **facts: Any,
) -> Scores:
    """Noise plus `strength` at the label. Labels and ids depend only on the size, so each seed is another model."""
    labels = np.arange(num_videos) % num_classes
    logits = np.random.default_rng(seed).normal(size=(num_videos, num_classes))
    logits[np.arange(num_videos), labels] += strength
    return scores_of((scale * logits).tolist(), labels.tolist(), **facts)


def shuffled_names(scores: Scores, seed: int) -> Scores:
    """Return the same scores with videos and classes in another order."""
    generator = np.random.default_rng(seed)
    rows = generator.permutation(len(scores.video_ids))
    columns = generator.permutation(len(scores.classes))
    if scores.multi_label:
        labels = scores.labels[rows][:, columns]
    else:
        labels = np.array([columns.tolist().index(label) for label in scores.labels[rows]])
    return Scores(
        scores.video_ids[rows],
        scores.logits[rows][:, columns],
        labels,
        tuple(scores.classes[i] for i in columns),
        scores.kind,
        scores.facts,
    )
