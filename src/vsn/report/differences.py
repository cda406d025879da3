"""Compare the best run with each other one, video by video: by how much it is better, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from vsn.report.render import join_names, points, points_range, render
from vsn.report.runs import ReportRun
from vsn.scores.compare import ClassChange, Comparison, compare_scores
from vsn.scores.metrics import top_k_hits
from vsn.scores.scores import Scores

CLASSES_SHOWN = 8
"""Classes of each side, won and lost, that are listed."""


class Named(NamedTuple):
    """Scores under the name that a page gives them."""

    name: str
    scores: Scores


class Pair(NamedTuple):
    """A comparison of the best run, b, with another one, a."""

    best: str
    other: str
    comparison: Comparison

    @property
    def is_sure(self) -> bool:
        """Whether the 95% interval of the difference leaves out 0."""
        interval = self.comparison.top1.interval
        return interval is not None and interval[0] > 0

    def describe(self) -> str:
        """Return how far the best run is ahead, as a part of a sentence."""
        top1 = self.comparison.top1
        if not top1.difference:
            return f"as good as {self.other}"
        text = f"{points(top1.difference).removeprefix('+')} above {self.other}"
        if top1.interval is None:
            return text
        return f"{text} ({points_range(top1.interval)}{'' if self.is_sure else ', may be chance'})"


def named_scores(runs: Sequence[ReportRun]) -> list[Named]:
    """Return the scores of the runs that have some; `read_runs` has brought them into one order."""
    return [Named(run.name, run.scores) for run in runs if run.scores is not None]


def compare_with_best(named: Sequence[Named]) -> list[Pair]:
    """Compare the scores with the most videos right with each other ones, nearest first.

    Args:
        named: of the same videos and classes, in the same order.
    """
    if len(named) < 2:
        return []
    # The first of several that are equally good.
    best = max(named, key=lambda one: top_k_hits(one.scores, 1).sum())
    others = [one for one in named if one is not best]
    pairs = [Pair(best.name, other.name, compare_scores(other.scores, best.scores)) for other in others]
    return sorted(pairs, key=lambda pair: pair.comparison.top1.difference)


def differences_section(pairs: Sequence[Pair], named: Sequence[Named]) -> Markup:
    """A table of paired differences, and the classes that each pair differs in; `named` are all scores of the page."""
    rows = [(pair, _most_changed(pair.comparison)) for pair in pairs]
    place = next(place for place, one in enumerate(named) if one.name == pairs[0].best)
    # A class opens its videos as the best run sees them.
    classes = named[place].scores.classes
    opens = {} if named[place].scores.multi_label else {name: f"{place}:{index}" for index, name in enumerate(classes)}
    return render("differences.html", best=pairs[0].best, rows=rows, limit=CLASSES_SHOWN, opens=opens)


def difference_sentence(pairs: Sequence[Pair], subject: str = "It is") -> str:
    """Return one sentence on how far the best run is ahead of the others."""
    parts = join_names([pair.describe() for pair in pairs])
    return (
        f"{subject} {parts}: differences on the same videos, with 95% intervals over videos. Training with another seed "
        "changes them too: `vsn ablate --seeds` trains several."
    )


def _most_changed(comparison: Comparison) -> list[ClassChange]:
    """The classes that the best run won most, then those it lost most, as many of each at most."""
    changed = [row for row in comparison.classes if row["won"] != row["lost"]]
    won = [row for row in changed if row["won"] > row["lost"]][:CLASSES_SHOWN]
    lost = [row for row in changed if row["won"] < row["lost"]][-CLASSES_SHOWN:]
    return [*won, *lost]
