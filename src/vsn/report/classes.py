"""Accuracy of each class, or its average precision, with counts and intervals; a bar a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vsn.report import parts
from vsn.report.parts import color, percent, percent_range, text
from vsn.report.runs import Run
from vsn.scores.intervals import wilson_interval


def classes_section(runs: Sequence[Run]) -> str:
    """Bars sorted by the best run, best class on top; the page's script sorts them otherwise."""
    tested = [(index, run) for index, run in enumerate(runs) if run.scores is not None]
    if not tested:
        return parts.untested()
    _, first = max(tested, key=lambda pair: pair[1].top1)
    assert first.scores is not None
    several = first.scores.multi_label
    counts = (
        first.scores.labels.sum(axis=0) if several else np.bincount(first.scores.labels, minlength=len(first.classes))
    )
    shares = {run.name: [_known(run, name) for name in run.classes] for _, run in tested}
    ranked = sorted(range(len(first.classes)), key=lambda c: (-shares[first.name][c], first.classes[c]))
    rows = []
    for c in ranked:
        bars = "".join(
            bar(run.name, shares[run.name][c], index, None if several else int(counts[c])) for index, run in tested
        )
        values = " ".join(f"{column[c]:.4f}" for column in shares.values())
        rows.append(
            f'<li data-name="{text(first.classes[c])}" data-count="{counts[c]}" data-values="{values}">'
            f'<span class="bar-name">{text(first.classes[c])}<small>{parts.videos(int(counts[c]))}</small></span>'
            f'<span class="bar-group">{bars}</span></li>'
        )
    what = (
        "Average precision of each class: the mean, over the videos that have it, of the precision among the videos "
        "scored at least as high."
        if several
        else "Share of the videos of a class that were named rightly. Thin lines and small figures: 95% intervals "
        "(Wilson)."
    )
    # A short list needs no box of its own; a long one would push the rest of the page away.
    long = len(first.classes) > 30
    box = 'class="tall" tabindex="0" role="region" aria-label="Accuracy by class"' if long else ""
    return f'<p>{what}</p>{_legend(tested, first.name)}<div {box}><ol class="bars">{"".join(rows)}</ol></div>'


def _legend(tested: Sequence[tuple[int, Run]], first: str) -> str:
    names = [run.name for _, run in tested]
    options = "".join(
        f'<option value="{i}"{" selected" if name == first else ""}>{text(name)}</option>'
        for i, name in enumerate(names)
    )
    if len(names) > 1:
        options += '<option value="spread">largest difference</option>'
    swatches = "".join(
        f'<span style="{color(i)}"><span class="swatch"></span>{text(run.name)}</span>' for i, run in tested
    )
    return (
        f'<div class="legend">{swatches}<label class="sort" hidden>Sort by <select>{options}'
        '<option value="count">number of videos</option><option value="name">class name</option></select>'
        "</label></div>"
    )


def _known(run: Run, name: str) -> float:
    """The class's figure; -1 where it has no video."""
    value = run.evals["forward"]["per_class"].get(name)
    return float(value) if value is not None and math.isfinite(value) else -1.0


def bar(name: str, share: float, index: int, count: int | None) -> str:
    """One bar of a run; with `count` videos behind it, its interval too. A share below 0: there is none."""
    known = share >= 0
    range_, line = "", ""
    if known and count:
        low, high = wilson_interval(share, count)
        low, high = max(low, 0.0), min(high, 1.0)
        line = f'<u style="--l:{low:.3f};--h:{high:.3f}"></u>'
        range_ = f"<small>{percent_range((low, high))}</small>"
    return (
        f'<span class="bar" style="--v:{max(share, 0):.4f};{color(index)}"><span class="sr">{text(name)}: </span>'
        f'<span class="track"><i></i>{line}</span><b>{percent(share if known else None)}</b>{range_}</span>'
    )
