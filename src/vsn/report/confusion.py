"""What was taken for what: a matrix that stays usable with hundreds of classes, and the commonest mistakes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vsn.report import parts
from vsn.report.parts import percent, text
from vsn.report.runs import Run

FEW = 30
"""Up to so many classes the matrix is drawn with its numbers; above, by the page's script on a canvas."""
NUM_PAIRS = 20


def confusion_section(runs: Sequence[Run]) -> str:
    """A matrix of each tested run, its most confused pairs beside it."""
    tested = [run for run in runs if run.scores is not None]
    if not tested:
        return parts.untested()
    if any(run.scores.multi_label for run in tested if run.scores is not None):
        return parts.lacking("Videos with several labels are not taken for one class or another: no matrix.")
    classes = tested[0].classes
    where = "by the row's number" if len(classes) <= FEW else "in the order of the rows"
    key = (
        f"<p>Rows are the truth, columns what the run said, {where}. Blue is right, orange is "
        "wrong; the stronger the color, the larger the share of the row.</p>"
    )
    if len(classes) > FEW:
        key += parts.embedded_json("class-names", list(classes))
        best = max(run.top1 for run in tested)
        return key + "".join(
            _canvas(run.name, run.confusion, classes, number, is_open=run.top1 == best)
            for number, run in enumerate(tested)
        )
    return key + "".join(matrix(run.name, run.confusion, classes, is_open=len(runs) <= 4) for run in tested)


def confused_pairs(counts: np.ndarray, number: int = NUM_PAIRS) -> list[tuple[int, int]]:
    """The `number` most frequent (truth, said) mistakes, most frequent first, then by share of the truth."""
    wrong = [(t, s) for t, s in np.argwhere(counts > 0).tolist() if t != s]
    totals = counts.sum(axis=1)
    return sorted(wrong, key=lambda p: (-counts[p], -counts[p] / totals[p[0]], p))[:number]


def order_alike(counts: np.ndarray) -> list[int]:
    """Classes in an order that puts those taken for each other side by side: int matrix (truth, said) in.

    Average linkage: the two groups of classes that are most confused, on average of their pairs and both
    ways, are joined until one is left, the ends that are most confused facing each other.
    """
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shares = counts / totals
    alike = shares + shares.T
    between = alike.astype(float)
    np.fill_diagonal(between, -np.inf)
    groups: dict[int, list[int]] = {index: [index] for index in range(len(counts))}
    while len(groups) > 1:
        a, b = sorted(divmod(int(between.argmax()), len(counts)))
        left, right = groups[a], groups.pop(b)
        facing = {
            (flip_a, flip_b): alike[left[0 if flip_a else -1], right[-1 if flip_b else 0]]
            for flip_a in (False, True)
            for flip_b in (False, True)
        }
        flip_a, flip_b = max(facing, key=lambda flips: (facing[flips], not any(flips)))
        sizes = len(left), len(right)
        groups[a] = (left[::-1] if flip_a else left) + (right[::-1] if flip_b else right)
        joined = (sizes[0] * between[a] + sizes[1] * between[b]) / sum(sizes)
        between[a], between[:, a] = joined, joined
        between[b], between[:, b], between[a, a] = -np.inf, -np.inf, -np.inf
    return next(iter(groups.values()), [])


def matrix(name: str, counts: np.ndarray, classes: Sequence[str], *, is_open: bool) -> str:
    """Heat map of int `counts` (truth, said) with its numbers, its commonest mistakes beside it."""
    cell = 22
    size = cell * len(classes)
    totals = counts.sum(axis=1)
    drawn = []
    for truth, said in np.argwhere(counts > 0).tolist():  # empty cells are the background
        share = counts[truth, said] / totals[truth]
        counted = f"{counts[truth, said]} of {totals[truth]} ({percent(share)})"
        tip = f"{classes[truth]} \u2192 {classes[said]}: {counted}"
        shade = ' class="hi"' if share > 0.75 else ' class="mid"' if share > 0.55 else ""
        drawn.append(
            f'<rect x="{said * cell}" y="{truth * cell}" class="{"ok" if truth == said else "no"}" '
            f'style="--s:{0.12 + 0.88 * share:.2f}"><title>{text(tip)}</title></rect>'
            f'<text x="{said * cell + 11}" y="{truth * cell + 15}"{shade}>{counts[truth, said]}</text>'
        )
    grid = "".join(f"M{i * cell} 0v{size}M0 {i * cell}h{size}" for i in range(len(classes) + 1))
    numbers = "".join(f'<span title="{text(c)}">{i}</span>' for i, c in enumerate(classes, start=1))
    names = "".join(f'<li title="{text(c)}">{text(c)}</li>' for c in classes)
    label = _label(name, counts)
    return (
        f'<details class="confusion"{" open" if is_open else ""}><summary><h3>{text(name)}</h3></summary>'
        f'<div class="beside"><div class="matrix" tabindex="0" role="region" aria-label="{text(label)}" '
        f'style="--cell:{cell}px;--size:{size + 1}px">'
        '<div class="corner"><span>truth \u2193</span><span>said \u2192</span></div>'
        f'<div class="cols" aria-hidden="true">{numbers}</div><ol class="names">{names}</ol>'
        f'<div class="nums" aria-hidden="true">{numbers}</div><svg width="{size + 1}" height="{size + 1}" '
        f'role="img" aria-label="{text(label)}"><path class="grid" d="{grid}"/>{"".join(drawn)}</svg></div>'
        f"{_pairs(counts, classes)}</div></details>"
    )


def _canvas(name: str, counts: np.ndarray, classes: Sequence[str], number: int, *, is_open: bool) -> str:
    """The same for many classes: the counts as data, what draws them is the page's script."""
    totals = counts.sum(axis=1)
    right = counts.diagonal() / np.maximum(totals, 1)
    rows = [[value for said in np.flatnonzero(row).tolist() for value in (said, int(row[said]))] for row in counts]
    data = {
        "rows": rows,
        "orders": {"alike": order_alike(counts), "accuracy": np.argsort(-right, kind="stable").tolist()},
    }
    label = _label(name, counts)
    keys = "Arrow keys move the marked cell, plus and minus zoom, 0 shows the whole matrix."
    return (
        f'<details class="confusion"{" open" if is_open else ""}><summary><h3>{text(name)}</h3></summary>'
        f'<div class="beside"><div class="map" data-map="map-{number}"><div class="tools" hidden>'
        '<label>Order <select><option value="alike">confused side by side</option>'
        '<option value="file">as in the data</option><option value="accuracy">by accuracy</option></select></label>'
        '<span><button type="button" data-zoom="-" aria-label="Zoom out">\u2212</button>'
        '<button type="button" data-zoom="+" aria-label="Zoom in">+</button>'
        '<button type="button" data-zoom="0">Whole</button></span></div>'
        f'<div class="map-box" tabindex="0" role="application" aria-label="{text(f"{label} {keys}")}">'
        '<div class="map-size"><canvas></canvas></div></div>'
        '<output class="readout" aria-live="polite">Point at a cell, or move with the arrow keys.</output>'
        f"<noscript><p>The matrix of {len(classes)} classes is drawn by a script, which is turned off here.</p></noscript>"
        f"{parts.embedded_json(f'map-{number}', data)}</div>{_pairs(counts, classes)}</div></details>"
    )


def _label(name: str, counts: np.ndarray) -> str:
    return f"Confusion matrix of {name}: {int(counts.trace())} of {int(counts.sum())} videos on the diagonal."


def _pairs(counts: np.ndarray, classes: Sequence[str]) -> str:
    totals = counts.sum(axis=1)
    rows = "".join(
        f"<li><span>{text(classes[t])}</span>"
        f'<span class="said"><span class="arrow" role="img" aria-label="taken for">\u2192</span>'
        f"<span>{text(classes[s])}</span></span>"
        f"<small>{counts[t, s]} of {totals[t]} ({percent(counts[t, s] / totals[t])})</small></li>"
        for t, s in confused_pairs(counts)
    )
    found = f"<ol>{rows}</ol>" if rows else "<p>None: every video was named rightly.</p>"
    box = f'<div class="tall" tabindex="0" role="region" aria-label="Most confused pairs">{found}</div>'
    return f'<div class="pairs"><h4>Most confused</h4>{box}</div>'
