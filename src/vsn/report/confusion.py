"""Show which classes are confused: a matrix that stays usable with hundreds of classes, and the most frequent mistakes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from vsn.report.render import UNTESTED, Lacks, percent, render
from vsn.report.runs import ReportRun

MAX_DRAWN = 30
"""Up to this many classes the matrix is an SVG with its numbers; above, the page's script draws it on a canvas."""
NUM_PAIRS = 20


def confusion_section(runs: Sequence[ReportRun]) -> Markup | Lacks:
    """A matrix of each tested run, with its most confused pairs."""
    tested = [run for run in runs if run.scores is not None]
    is_multi_label = any(run.is_multi_label for run in tested)
    if not tested:
        return UNTESTED
    if is_multi_label:
        return Lacks("A video with several labels has no single true class, so there is no matrix.")
    classes = tested[0].classes
    # 400 classes would be 160,000 SVG elements.
    is_drawn = len(classes) <= MAX_DRAWN
    best = max(run.top1 for run in tested)
    matrices = []
    for run in tested:
        counts = run.confusion
        matrices.append({
            "name": run.name,
            "is_open": len(runs) <= 4 if is_drawn else run.top1 == best,
            "label": f"Confusion matrix of {run.name}: {counts.trace()} of {counts.sum()} videos on the diagonal.",
            "cells": _cells(counts, classes) if is_drawn else [],
            "data": None if is_drawn else _canvas_data(counts),
            "pairs": [(t, p, _share(counts, t, p)) for t, p in confused_pairs(counts)],
        })  # fmt: skip
    return render("confusion.html", matrices=matrices, classes=classes, is_drawn=is_drawn, cell=22)


def confused_pairs(counts: np.ndarray, number: int = NUM_PAIRS) -> list[tuple[int, int]]:
    """Return the most frequent (true, predicted) mistakes, by count, then by share of the true class."""
    mistakes = [(t, p) for t, p in np.argwhere(counts > 0).tolist() if t != p]
    # Ties by share: 3 of 4 is worse than 3 of 100.
    totals = counts.sum(axis=1)
    return sorted(mistakes, key=lambda pair: (-counts[pair], -counts[pair] / totals[pair[0]], pair))[:number]


def order_alike(counts: np.ndarray) -> list[int]:
    """Return classes in an order that puts confused ones side by side: int matrix (true, predicted) in.

    Average linkage: the two groups of classes with the highest mean confusion, counted in both directions, are joined
    until one group is left. Groups are flipped so that the ends that face each other are the most confused ones.
    """
    # Rates, so that a frequent class does not attract all others; 1 avoids dividing by 0 for a class without videos.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    alike = shares + shares.T
    between = alike.astype(float)
    np.fill_diagonal(between, -np.inf)
    groups: dict[int, list[int]] = {index: [index] for index in range(len(counts))}
    while len(groups) > 1:
        # argmax counts in the flat matrix: row = index // n, column = index % n
        a, b = sorted(divmod(int(between.argmax()), len(counts)))
        left, right = groups[a], groups.pop(b)
        # Four ways to join two sequences; prefer the one without flips if they are equal.
        facing = {
            (flip_a, flip_b): alike[left[0 if flip_a else -1], right[-1 if flip_b else 0]]
            for flip_a in (False, True)
            for flip_b in (False, True)
        }
        flip_a, flip_b = max(facing, key=lambda flips: (facing[flips], not any(flips)))
        sizes = len(left), len(right)
        groups[a] = (left[::-1] if flip_a else left) + (right[::-1] if flip_b else right)
        # The joined group takes row and column a; -inf removes b from all later choices.
        joined = (sizes[0] * between[a] + sizes[1] * between[b]) / sum(sizes)
        between[a], between[:, a] = joined, joined
        between[b], between[:, b], between[a, a] = -np.inf, -np.inf, -np.inf
    return next(iter(groups.values()), [])


def _cells(counts: np.ndarray, classes: Sequence[str]) -> list[dict[str, object]]:
    """The cells that are not zero; the others are the background."""
    totals = counts.sum(axis=1)
    cells = []
    for t, p in np.argwhere(counts > 0).tolist():
        share = counts[t, p] / totals[t]
        cells.append({
            "row": t,
            "column": p,
            "count": counts[t, p],
            "shade": f"{0.12 + 0.88 * share:.2f}",
            "text_class": "hi" if share > 0.75 else "mid" if share > 0.55 else "",  # legible on dark cells
            "tip": f"{classes[t]} \u2192 {classes[p]}: {_share(counts, t, p)}",
        })  # fmt: skip
    return cells


def _share(counts: np.ndarray, true: int, predicted: int) -> str:
    total = counts[true].sum()
    return f"{counts[true, predicted]} of {total} ({percent(counts[true, predicted] / total)})"


def _canvas_data(counts: np.ndarray) -> dict[str, object]:
    """What the page's script draws: sparse rows as (class, count, class, count, ...), and orders of the classes."""
    # Sparse rows keep a page of 400 classes small.
    right = counts.diagonal() / np.maximum(counts.sum(axis=1), 1)
    return {
        "rows": [[value for p in np.flatnonzero(row).tolist() for value in (p, int(row[p]))] for row in counts],
        "orders": {"alike": order_alike(counts), "accuracy": np.argsort(-right, kind="stable").tolist()},
    }
