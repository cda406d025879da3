"""How much of a model's accuracy rests on the order of the frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsn.scores.intervals import bootstrap_draws, bootstrap_interval, paired_interval, percentiles
from vsn.scores.match import match_scores
from vsn.scores.metrics import top_k_hits
from vsn.scores.scores import Scores, ScoresError

ORDERS = ("forward", "reversed", "shuffled", "still")


def temporal_reliance(by_order: Mapping[str, Scores]) -> dict[str, Any]:
    """One model's top-1 with its frames forward and in other orders, overall and by class; shares of 1.

    Args:
        by_order: order -> scores of the same videos; "forward" and one or more of "reversed", "shuffled",
            "still". For multi-label scores top-1 is a hit on any label.

    Returns:
        "chance", one over the number of classes; "orders": order -> {top1, interval, loss, loss_interval},
        where loss is top-1 forward minus top-1 in that order, its interval the paired bootstrap's;
        "classes": class -> order -> {top1, interval}; "num_videos"; "judged_by", the order that stands for
        no order ("shuffled" where it is there, else "still", else "reversed"); "share_on_order", what is lost
        in that order, as a share of top-1 forward above chance, with "share_interval"; both None where top-1
        forward is not above chance by its interval.

    Raises:
        ScoresError: no forward scores, or none beside them; other videos.
    """
    orders = [order for order in ORDERS if order in by_order]
    if "forward" not in orders or len(orders) < 2 or len(orders) < len(by_order):
        raise ScoresError(
            f"The orders are {sorted(by_order)}; needed are forward and one or more of reversed, shuffled, still."
        )
    matched, _ = match_scores([by_order[order] for order in orders], orders)
    groups = matched[0].groups
    hits = {order: top_k_hits(one, 1) for order, one in zip(orders, matched, strict=True)}
    forward = hits["forward"].astype(float)
    rows: dict[str, dict[str, Any]] = {}
    for order, own in hits.items():
        rows[order] = {
            "top1": float(own.mean()),
            "interval": list(bootstrap_interval(own, groups=groups)),
            "loss": float((forward - own).mean()),
            "loss_interval": [0.0, 0.0] if order == "forward" else list(paired_interval(forward - own, groups=groups)),
        }
    judge = next(order for order in ("shuffled", "still", "reversed") if order in orders)
    chance = 1 / len(matched[0].classes)
    share, interval = None, None
    if rows["forward"]["interval"][0] > chance:
        share, interval = _share_on_order(forward, forward - hits[judge], groups, chance)
    return {
        "num_videos": len(forward),
        "chance": chance,
        "orders": rows,
        "classes": _by_class(matched[0], hits),
        "judged_by": judge,
        "share_on_order": share,
        "share_interval": interval,
    }


def _by_class(scores: Scores, hits: Mapping[str, NDArray[np.bool_]]) -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = {}
    filmed = np.array(scores.groups)
    for index, name in enumerate(scores.classes):
        members = np.flatnonzero(scores.labels[:, index] if scores.multi_label else scores.labels == index)
        if not len(members):
            continue
        found[name] = {
            order: {
                "top1": float(own[members].mean()),
                "interval": list(bootstrap_interval(own[members], groups=filmed[members].tolist())),
            }
            for order, own in hits.items()
        }
    return found


def _share_on_order(
    forward: NDArray[np.float64], lost: NDArray[np.float64], groups: Sequence[str], chance: float
) -> tuple[float, list[float]]:
    """What is lost, as a share of top-1 forward above chance, and its bootstrap interval."""

    def drawn_share(weights: NDArray[np.int64]) -> float:
        above = float(weights @ forward - chance * weights.sum())
        return float(weights @ lost) / above if above > 0 else np.nan

    drawn = bootstrap_draws(drawn_share, len(forward), groups=groups)
    share = float(lost.mean() / (forward.mean() - chance))
    return share, list(percentiles(drawn[np.isfinite(drawn)]))


def reliance_sentence(reliance: Mapping[str, Any]) -> str:
    """What `temporal_reliance` found, in words that claim no more."""
    forward, judge = reliance["orders"]["forward"], reliance["judged_by"]
    chance = reliance["chance"]
    if reliance["share_on_order"] is None:
        return (
            f"Top-1 of {forward['top1']:.1%} is not above chance ({chance:.1%}) beyond doubt, so nothing can be said "
            "about what it rests on."
        )
    loss, (low, high) = reliance["orders"][judge]["loss"], reliance["share_interval"]
    meaning = {
        "shuffled": "the same frames in random order",
        "still": "one frame repeated",
        "reversed": "the same frames last first",
    }[judge]
    caveat = {
        "shuffled": "A model may also lose because it never saw frames so jumbled.",
        "still": "Other frames are lost too, not their order alone.",
        "reversed": "A reversed video has an order too, perhaps that of another class.",
    }[judge]
    low_loss, high_loss = reliance["orders"][judge]["loss_interval"]
    if low_loss <= 0:
        return (
            f"With {meaning}, top-1 changes by {-100 * loss:+.1f} points (95% interval {-100 * high_loss:+.1f} to "
            f"{-100 * low_loss:+.1f}): that it rests on order is not shown."
        )
    return (
        f"With {meaning}, top-1 changes by {-100 * loss:+.1f} points: {reliance['share_on_order']:.0%} (95% interval "
        f"{low:.0%} to {high:.0%}) of the {100 * (forward['top1'] - chance):.1f} points above chance ({chance:.1%}) "
        f"rest on order. {caveat}"
    )
