"""Two models tested on the same videos: is one better, where, and on which videos."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsn.scores.intervals import bootstrap_draws, mcnemar, paired_interval, percentiles, widened
from vsn.scores.metrics import predicted_classes, summarize, top_k_hits
from vsn.scores.scores import Scores


def compare_scores(a: Scores, b: Scores, *, seed: int = 0) -> dict[str, Any]:
    """Compare two models video by video; shares of 1, differences are b minus a.

    Args:
        a: the first, of the same videos and classes in the same order as b: `vsn.scores.match.match_scores`.
        b: the second.
        seed: of the bootstrap.

    Returns:
        "num_videos"; "top1" and "mean_class" (or "mean_average_precision") as [a, b] with "..._difference"
        and its paired bootstrap "..._interval" (95%, 2000 draws over videos, a clip and its reversed copy
        together; none for average precision); "only_a" and "only_b", what one alone gets right, and
        "mcnemar_p": McNemar's exact test, in which a clip and its reversed copy count once, for the model
        that got more of the two right;
        "classes", a list of {class, num_videos, a, b, won, lost}, most won first: a and b are accuracies
        (average precisions), won the videos that b alone gets right, lost those that a alone does;
        "changed", a list of {id, label, a, b, side}: the predictions, side "won" or "lost" by b.

    Raises:
        ScoresError: videos without a known label.
    """
    hits = [top_k_hits(one, 1) for one in (a, b)]
    changes = hits[1].astype(np.int64) - hits[0]
    summaries = [summarize(one).to_dict() for one in (a, b)]
    mean = "mean_average_precision" if a.multi_label else "mean_class"
    _, inverse = np.unique(np.array(a.groups), return_inverse=True)
    net = np.bincount(inverse, changes)
    result: dict[str, Any] = {
        "num_videos": len(changes),
        "num_unreadable": [int(one.unreadable.sum()) for one in (a, b)],
        "top1": [one["top1"] for one in summaries],
        "top1_difference": float(changes.mean()),
        "top1_interval": list(paired_interval(changes.astype(float), groups=a.groups, seed=seed)),
        mean: [one[mean] for one in summaries],
        f"{mean}_difference": summaries[1][mean] - summaries[0][mean],
    }
    if not a.multi_label:
        result["mean_class_interval"] = list(_mean_class_interval(changes, a, seed))
    result |= {
        "only_a": int((changes < 0).sum()),
        "only_b": int((changes > 0).sum()),
        "mcnemar_p": mcnemar(int((net < 0).sum()), int((net > 0).sum())),
        "classes": _classes(a, changes, summaries[0]["per_class"], summaries[1]["per_class"]),
        "changed": _changed(a, b, changes),
    }
    return result


def _mean_class_interval(changes: NDArray[np.int64], scores: Scores, seed: int) -> tuple[float, float]:
    """Paired bootstrap of the difference in mean-class accuracy; a class that is not drawn is left out."""
    labels, num_classes = scores.labels, len(scores.classes)

    def difference(weights: NDArray[np.int64]) -> float:
        videos = np.bincount(labels, weights, minlength=num_classes)
        drawn = videos > 0
        gained = np.bincount(labels, weights * changes, minlength=num_classes)
        return float((gained[drawn] / videos[drawn]).mean())

    draws = bootstrap_draws(difference, len(changes), groups=scores.groups, seed=seed)
    if np.ptp(draws) > 0:
        return percentiles(draws)
    return widened(float(draws[0]), len(set(scores.groups)))


def _classes(
    scores: Scores, changes: NDArray[np.int64], first: dict[str, float], second: dict[str, float]
) -> list[dict[str, Any]]:
    found = []
    for index, name in enumerate(scores.classes):
        own = scores.labels[:, index] if scores.multi_label else scores.labels == index
        if not own.any():
            continue
        found.append(
            {
                "class": name,
                "num_videos": int(own.sum()),
                "a": first[name],
                "b": second[name],
                "won": int((changes[own] > 0).sum()),
                "lost": int((changes[own] < 0).sum()),
            }
        )
    return sorted(found, key=lambda row: (row["lost"] - row["won"], row["a"] - row["b"], row["class"]))


def _changed(a: Scores, b: Scores, changes: NDArray[np.int64]) -> list[dict[str, Any]]:
    said = [predicted_classes(one) for one in (a, b)]
    found = []
    for row in np.flatnonzero(changes).tolist():
        if a.multi_label:
            label = "|".join(name for name, own in zip(a.classes, a.labels[row], strict=True) if own)
        else:
            label = a.classes[a.labels[row]]
        found.append(
            {
                "id": str(a.video_ids[row]),
                "label": label,
                "a": said[0][row],
                "b": said[1][row],
                "side": "won" if changes[row] > 0 else "lost",
            }
        )
    return sorted(found, key=lambda row: (row["side"] != "won", row["label"], row["id"]))
