"""Measure how much of a model's accuracy depends on the order of the frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vsn.scores.intervals import Interval, difference_interval, loss_share_interval, share_interval
from vsn.scores.match import match_scores
from vsn.scores.metrics import per_class_intervals, top_k_hits
from vsn.scores.scores import Scores, ScoresError
from vsn.system.numbers import decimal, percent, points

ORDERS = ("forward", "reversed", "shuffled", "still")

# Order -> what it does, and what else than order may cause the loss.
_CAVEATS = {
    "shuffled": ("the same frames in random order", "A model may also lose because it never saw such jumps."),
    "still": ("one frame repeated", "The other frames are lost too, not only their order."),
    "reversed": ("the same frames in reverse", "A reversed video has an order too, perhaps that of another class."),
}


@dataclass(frozen=True)
class ClassAccuracy:
    """Top-1 of the videos of a class in one order of their frames."""

    top1: float
    interval: Interval
    """95% interval."""


@dataclass(frozen=True)
class OrderAccuracy(ClassAccuracy):
    """Top-1 of all videos in one order of their frames."""

    loss: float
    """Top-1 forward minus top-1 in this order."""
    loss_interval: Interval
    """95% interval of the paired difference."""


@dataclass(frozen=True)
class Reliance:
    """Accuracy by frame order, overall and by class, as shares of 1."""

    num_videos: int
    chance: float
    """One over the number of classes."""
    orders: dict[str, OrderAccuracy]
    classes: dict[str, dict[str, ClassAccuracy]]
    """Class -> order -> accuracy."""
    judged_by: str
    """The order compared with forward: "shuffled" if present, else "still", else "reversed"."""
    share_on_order: float | None
    """Loss in that order, over top-1 forward above chance; None if forward is not above chance by its interval."""
    share_interval: Interval | None

    def describe(self) -> str:
        """Return the result as one or two sentences, with the reservations that apply."""
        forward, judge = self.orders["forward"], self.orders[self.judged_by]
        if self.share_on_order is None or self.share_interval is None:
            return (
                f"Top-1 of {percent(forward.top1)} is not significantly above chance ({percent(self.chance)}), so its "
                "dependence on order cannot be measured."
            )
        treatment, caveat = _CAVEATS[self.judged_by]
        low_loss, high_loss = judge.loss_interval
        # The interval of a change is that of the loss with both signs
        # and ends swapped.
        change = f"With {treatment}, top-1 changes by {points(-judge.loss)} points"
        interval = f"(95% interval {points(-high_loss)} to {points(-low_loss)})"
        if high_loss < 0:
            return f"{change} {interval}: a significant gain, so forward is not the best order for this model."
        if low_loss <= 0:
            return f"{change} {interval}: no significant dependence on order."
        low, high = self.share_interval
        return (
            f"{change}: {percent(self.share_on_order, 0)} (95% interval {percent(low, 0)} to {percent(high, 0)}) of the "
            f"{decimal(100 * (forward.top1 - self.chance))} points above chance ({percent(self.chance)}) depend on order. "
            f"{caveat}"
        )


def temporal_reliance(by_order: Mapping[str, Scores]) -> Reliance:
    """Compare one model's top-1 with its frames forward and in other orders.

    Args:
        by_order: order -> scores of the same videos; "forward" and one or more of "reversed", "shuffled",
            "still". For multi-label scores top-1 is a hit on any label.

    Raises:
        ScoresError: no forward scores, no or unknown other orders, different videos.
    """
    orders = [order for order in ORDERS if order in by_order]
    if "forward" not in orders or len(orders) < 2 or len(orders) < len(by_order):
        raise ScoresError(f"Expected forward and one or more of reversed, shuffled, still, got {sorted(by_order)}.")
    # All orders on the same videos, so that intervals of differences can be paired.
    matched, _ = match_scores([by_order[order] for order in orders], orders)
    groups = matched[0].groups
    hits = {order: top_k_hits(scores, 1) for order, scores in zip(orders, matched, strict=True)}
    forward = hits["forward"].astype(float)
    accuracies = {
        order: OrderAccuracy(
            float(order_hits.mean()),
            share_interval(order_hits, groups=groups),
            float((forward - order_hits).mean()),
            (0.0, 0.0) if order == "forward" else difference_interval(forward - order_hits, groups=groups),
        )
        for order, order_hits in hits.items()
    }
    judge = next(order for order in ("shuffled", "still", "reversed") if order in orders)
    chance = 1 / len(matched[0].classes)
    # A model at chance has nothing to lose: a share of almost 0 points above chance would be noise.
    share, interval = None, None
    if accuracies["forward"].interval[0] > chance:
        interval = loss_share_interval(hits["forward"], hits[judge], chance=chance, groups=groups)
    if interval is not None:
        share = accuracies[judge].loss / (accuracies["forward"].top1 - chance)
    by_class: dict[str, dict[str, ClassAccuracy]] = {}
    for order, scores in zip(orders, matched, strict=True):
        for name, class_interval in per_class_intervals(scores).items():
            members = scores.members(scores.classes.index(name))
            top1 = float(hits[order][members].mean())
            by_class.setdefault(name, {})[order] = ClassAccuracy(top1, class_interval)
    return Reliance(len(forward), chance, accuracies, by_class, judge, share, interval)
