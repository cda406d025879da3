"""The parts of a report page: strings of HTML and SVG from names, numbers and frames.

They know nothing of run folders. Whatever comes from a file passes through `text`, which escapes it.
Colours are CSS variables, so that charts follow the reader's light or dark theme.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

NUM_COLOURS = 8
LABELS = {
    "params": "Parameters",
    "num_frames": "Frames",
    "multiply_adds": "Multiply-adds",
    "top1": "Top-1",
    "top5": "Top-5",
    "mean_class": "Class mean",
    "latency_ratio": "Latency",
    "latency_ms": "Latency",
    "seconds": "Training time",
}
MISSING = "\u2013"


class Series(NamedTuple):
    """One line of a chart: `points` are (epoch, value) of one phase ("train", "validation") of a run."""

    name: str
    colour: int
    phase: str
    points: Sequence[tuple[float, float]]


def text(value: object) -> str:
    """`value` escaped for HTML, for use between tags and between double quotes."""
    return escape(str(value), quote=True)


def percent(share: float | None) -> str:
    """A share in 0..1 as "61.5%"; a dash when there is none."""
    return MISSING if share is None or not math.isfinite(share) else f"{100 * share:.1f}%"


def percent_range(shares: Sequence[float]) -> str:
    """Two shares in 0..1 as "56.0–66.8%"."""
    return f"{percent(shares[0])[:-1]}\u2013{percent(shares[1])}"


def listed(names: Sequence[str]) -> str:
    """Join names as in a sentence: "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def colour(index: int) -> str:
    """The style that sets `--c` to the colour of run `index`."""
    return f"--c:var(--run-{index % NUM_COLOURS})"


# ---------------------------------------------------------------- table


def data_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, note: str) -> str:
    """A table of results; `x_interval` of a row is shown under its `x`, the best top-1 stands out."""
    shown = [c for c in columns if not (c.endswith("_interval") and c.removesuffix("_interval") in columns)]
    best = max((r["top1"] for r in rows if _is_number(r.get("top1"))), default=None)
    head = "".join(f'<th scope="col">{text(_heading(c))}</th>' for c in shown)
    body = []
    for row in rows:
        is_best = best is not None and len(rows) > 1 and row.get("top1") == best
        cells = "".join(
            _cell(key, row, tag="th" if place == 0 else "td", is_best=is_best)
            for place, key in enumerate(shown)
        )
        body.append(f"<tr>{cells}</tr>")
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table of results"><table class="data">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        f'<p class="note">{text(note)} Small figures: 95% intervals.</p>'
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _heading(key: str) -> str:
    if key.startswith("top1_") and not key.endswith("_interval"):
        return f"Top-1, {key.removeprefix('top1_')}"
    return LABELS.get(key, key[:1].upper() + key[1:].replace("_", " "))


def _cell(key: str, row: Mapping[str, Any], *, tag: str, is_best: bool) -> str:
    shown = text(format_value(key, row.get(key)))
    if key == "top1" and is_best:
        shown = f'<strong title="best top-1">{shown}</strong>'
    interval = row.get(f"{key}_interval")
    if isinstance(interval, list) and len(interval) == 2:
        shown += f"<small>{text(percent_range(interval))}</small>"
    kind = ' class="number"' if _is_number(row.get(key)) or row.get(key) is None else ""
    return f'<th scope="row">{shown}</th>' if tag == "th" else f"<td{kind}>{shown}</td>"


def format_value(key: str, value: Any) -> str:
    """A table's value as text; the column's name says its unit."""
    if (
        isinstance(value, list)
        and len(value) == 2
        and all(map(_is_number, value))
        and key.endswith("_interval")
    ):
        return percent_range(value)
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if not _is_number(value):
        return str(value)
    if key.startswith(("top1", "top5", "mean_class")) and 0 <= value <= 1:
        return percent(value)
    if key in ("params", "multiply_adds"):
        unit, size = next(((u, s) for u, s in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if value >= s), ("", 1))
        return f"{value / size:.1f}\u202f{unit}" if unit else f"{value:g}"
    if key.endswith("_ratio"):
        return f"{value:.2f}\u00d7"
    if key.endswith("_ms"):
        return f"{value:.1f} ms"
    if key == "seconds":
        minutes = round(value / 60)
        longer = f"{minutes} min" if minutes < 120 else f"{value / 3600:.1f} h"
        return f"{value:.0f} s" if value < 120 else longer
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


# ---------------------------------------------------------------- curves


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers, about `count` of them, from at or below `low` to at or above `high`."""
    span = max(high - low, 1e-9)
    raw = span / max(count - 1, 1)
    size = 10.0 ** math.floor(math.log10(raw))
    step = size * next(m for m in (1, 2, 2.5, 5, 10) if m * size >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]


def line_chart(series: Sequence[Series], *, label: str, is_share: bool) -> str:
    """An SVG of values by epoch: validation drawn through, training dashed."""
    drawn = [s for s in series if s.points]
    if not drawn:
        return (
            f'<figure><figcaption>{text(label)}</figcaption><p class="note">No values recorded.</p></figure>'
        )
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    y_ticks = nice_ticks(0.0, max(ys)) if min(ys) >= 0 else nice_ticks(min(ys), max(ys))
    inside = [t for t in nice_ticks(min(xs), max(xs), 6) if min(xs) <= t <= max(xs)]
    x_ticks = sorted({round(t) for t in (*inside, min(xs))})
    left, top, width, height = 46, 12, 434, 218

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - min(xs)) / ((max(xs) - min(xs)) or 1)
        return left + width * across, top + height * (1 - (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]))

    def shown(y: float) -> str:
        return f"{100 * y:.4g}%" if is_share else f"{y:.4g}"

    lines = [
        f'<path class="grid" d="M{left} {at(0, y)[1]:.1f}h{width}"/>'
        f'<text x="{left - 8}" y="{at(0, y)[1] + 4:.1f}" text-anchor="end">{shown(y)}</text>'
        for y in y_ticks
    ]
    lines += [
        f'<text x="{at(x, 0)[0]:.1f}" y="{top + height + 20}" text-anchor="middle">{x}</text>'
        for x in x_ticks
    ]
    lines.append(f'<text x="{left + width / 2}" y="{top + height + 38}" text-anchor="middle">epoch</text>')
    for s in drawn:
        places = [at(x, y) for x, y in s.points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        dots = "".join(
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{2.2 if len(places) < 60 else 1.2}">'
            f"<title>{text(s.name)}, {s.phase}, epoch {x:g}: {shown(y)}</title></circle>"
            for (px, py), (x, y) in zip(places, s.points, strict=True)
        )
        kind = f"line line-{s.colour} {s.phase}"
        lines.append(f'<g class="{kind}" style="{colour(s.colour)}"><path d="{path}"/>{dots}</g>')
    ends = "; ".join(f"{s.name}, {s.phase}: {shown(s.points[-1][1])}" for s in drawn)
    return (
        f'<figure><figcaption>{text(label)}</figcaption><svg viewBox="0 0 492 274" role="img" '
        f'aria-label="{text(f"{label} by epoch. Last values: {ends}.")}">{"".join(lines)}</svg></figure>'
    )


def curves(names: Sequence[str], charts: Sequence[str]) -> str:
    """Charts side by side under one legend whose boxes show and hide a run."""
    boxes = "".join(
        f'<label style="{colour(i)}"><input type="checkbox" id="show-{i}" checked>'
        f'<span class="swatch"></span>{text(name)}</label>'
        for i, name in enumerate(names)
    )
    stroke = '<svg viewBox="0 0 30 8" aria-hidden="true"><path d="M0 4h30"/></svg>'
    keys = f'<span class="key">{stroke}validation</span><span class="key train">{stroke}training</span>'
    return (
        f'<div class="curves"><div class="legend" role="group" aria-label="Runs shown">{boxes}{keys}</div>'
        f'<div class="charts">{"".join(charts)}</div></div>'
    )


# ---------------------------------------------------------------- accuracy


def _bar(name: str, share: float | None, index: int, *, note: str = "") -> str:
    known = share is not None and math.isfinite(share)
    value = share if known and share is not None else 0.0
    return (
        f'<span class="bar" style="--v:{value:.4f};{colour(index)}" title="{text(name)}: {percent(share)}">'
        f'<span class="sr">{text(name)}: </span><span class="track"><i></i></span>'
        f"<b>{percent(share)}</b>{note}</span>"
    )


def order_table(shares: Mapping[str, Mapping[str, float]], orders: Sequence[str], *, chance: float) -> str:
    """Top-1 of each run with its frames in each order, and the points lost against `forward`."""
    meaning = {
        "forward": "as filmed",
        "reversed": "last frame first",
        "shuffled": "random order",
        "still": "one frame repeated",
    }
    head = "".join(
        f'<th scope="col">{text(order)}<small>{text(meaning.get(order, ""))}</small></th>' for order in orders
    )
    rows = []
    for index, (name, by_order) in enumerate(shares.items()):
        cells = []
        for order in orders:
            if order not in by_order:
                cells.append(f'<td><span class="note">{MISSING}</span></td>')
                continue
            change = 100 * (by_order[order] - by_order["forward"])
            note = "" if order == "forward" else f"<small>{change:+.1f} points</small>".replace("-", "\u2212")
            cells.append(f"<td>{_bar(f'{name}, {order}', by_order[order], index, note=note)}</td>")
        rows.append(f'<tr><th scope="row">{text(name)}</th>{"".join(cells)}</tr>')
    return (
        "<p>Top-1 when the same frames are shown in another order. A model that ignores order scores alike "
        "forward, reversed and shuffled; what a model loses is what it read from order. The mark in each bar "
        f'is blind guessing, {percent(chance)}.</p><div class="scroll" tabindex="0" role="region" '
        f'aria-label="Accuracy by frame order"><table class="data orders" style="--chance:{chance:.4f}">'
        f'<thead><tr><th scope="col">Run</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def class_bars(
    classes: Sequence[str],
    counts: Sequence[int],
    accuracies: Mapping[str, Sequence[float | None]],
    *,
    first: int,
) -> str:
    """Accuracy of each class, a bar a run; sorted by run `first`, best class on top."""
    columns = list(accuracies.values())

    def known(value: float | None) -> float:
        return value if value is not None and math.isfinite(value) else -1.0

    ranked = sorted(range(len(classes)), key=lambda c: (-known(columns[first][c]), classes[c]))
    rows = []
    for c in ranked:
        bars = "".join(_bar(name, values[c], i) for i, (name, values) in enumerate(accuracies.items()))
        values = " ".join(f"{known(column[c]):.4f}" for column in columns)
        videos = f"{counts[c]:,} {'video' if counts[c] == 1 else 'videos'}"
        rows.append(
            f'<li data-name="{text(classes[c])}" data-values="{values}">'
            f'<span class="bar-name">{text(classes[c])}<small>{videos}</small></span>'
            f'<span class="bar-group">{bars}</span></li>'
        )
    options = "".join(
        f'<option value="{i}"{" selected" if i == first else ""}>{text(name)}</option>'
        for i, name in enumerate(accuracies)
    )
    legend = "".join(
        f'<span style="{colour(i)}"><span class="swatch"></span>{text(name)}</span>'
        for i, name in enumerate(accuracies)
    )
    # A short list needs no box of its own; a long one would push the rest of the page away.
    is_long = len(classes) > 30
    box = 'class="tall" tabindex="0" role="region" aria-label="Accuracy by class"' if is_long else ""
    return (
        f'<div class="legend">{legend}<label class="sort" hidden>Sort by <select>{options}'
        '<option value="spread">largest difference</option><option value="name">class name</option></select>'
        f"</label></div><div {box}>"
        f'<ol class="bars">{"".join(rows)}</ol></div>'
    )


# ---------------------------------------------------------------- confusion


def confused_pairs(matrix: np.ndarray, count: int = 8) -> list[tuple[int, int]]:
    """The `count` most frequent (truth, said) mistakes, most frequent first, then by share of the truth."""
    wrong = [(t, s) for t, s in np.argwhere(matrix > 0).tolist() if t != s]
    totals = matrix.sum(axis=1)
    return sorted(wrong, key=lambda p: (-matrix[p], -matrix[p] / totals[p[0]], p))[:count]


def confusion(name: str, matrix: np.ndarray, classes: Sequence[str], *, is_open: bool) -> str:
    """Heat map of int `matrix` (truth, said) in a box that scrolls, its commonest mistakes beside it."""
    roomy = len(classes) <= 30
    cell = 22 if roomy else 16 if len(classes) <= 60 else 12
    size = cell * len(classes)
    totals = matrix.sum(axis=1)
    drawn = []
    for truth, said in np.argwhere(matrix > 0).tolist():  # empty cells are the background
        share = matrix[truth, said] / totals[truth]
        counted = f"{matrix[truth, said]} of {totals[truth]} ({percent(share)})"
        tip = f"{classes[truth]} → {classes[said]}: {counted}"
        drawn.append(
            f'<rect x="{said * cell}" y="{truth * cell}" class="{"ok" if truth == said else "no"}" '
            f'style="--s:{0.12 + 0.88 * share:.2f}"><title>{text(tip)}</title></rect>'
        )
        if roomy:
            shade = ' class="hi"' if share > 0.75 else ' class="mid"' if share > 0.55 else ""
            drawn.append(
                f'<text x="{said * cell + 11}" y="{truth * cell + 15}"{shade}>{matrix[truth, said]}</text>'
            )
    grid = "".join(f"M{i * cell} 0v{size}M0 {i * cell}h{size}" for i in range(len(classes) + 1))
    numbers = "".join(f'<span title="{text(c)}">{i}</span>' for i, c in enumerate(classes, start=1))
    names = "".join(f'<li title="{text(c)}">{text(c)}</li>' for c in classes)
    right = int(matrix.trace())
    box = "matrix" if roomy else "matrix dense"
    label = f"Confusion matrix of {name}: {right} of {int(matrix.sum())} videos on the diagonal."
    return (
        f'<details class="confusion"{" open" if is_open else ""}><summary><h3>{text(name)}</h3></summary>'
        f'<div class="beside"><div class="{box}" tabindex="0" role="region" aria-label="{text(label)}" '
        f'style="--cell:{cell}px;--size:{size + 1}px">'
        '<div class="corner"><span>truth ↓</span><span>said →</span></div>'
        f'<div class="cols" aria-hidden="true">{numbers}</div><ol class="names">{names}</ol>'
        f'<div class="nums" aria-hidden="true">{numbers}</div><svg width="{size + 1}" height="{size + 1}" '
        f'role="img" aria-label="{text(label)}"><path class="grid" d="{grid}"/>{"".join(drawn)}</svg></div>'
        f"{_pairs(matrix, classes, totals)}</div></details>"
    )


def _pairs(matrix: np.ndarray, classes: Sequence[str], totals: np.ndarray) -> str:
    rows = "".join(
        f"<li><span>{text(classes[t])}</span>"
        f'<span class="said"><span class="arrow" role="img" aria-label="taken for">→</span>'
        f"<span>{text(classes[s])}</span></span>"
        f"<small>{matrix[t, s]} of {totals[t]} ({percent(matrix[t, s] / totals[t])})</small></li>"
        for t, s in confused_pairs(matrix)
    )
    found = f"<ol>{rows}</ol>" if rows else "<p>None: every video was named rightly.</p>"
    return f'<div class="pairs"><h4>Most confused</h4>{found}</div>'


# ---------------------------------------------------------------- strips


def strip_card(
    frames: np.ndarray, video_id: str, *, truth: str, verdicts: Sequence[tuple[str, str, float, bool]]
) -> str:
    """One video: uint8 `frames` (T, h, w, 3), its class, and (run, label, probability, right) of each run."""
    images = "".join(f'<img src="{_jpeg(frame)}" alt="" loading="lazy">' for frame in frames)
    said = "".join(
        f'<li class="{"ok" if right else "no"}"><span class="mark" role="img" '
        f'aria-label="{"right" if right else "wrong"}">{"✓" if right else "✗"}</span>'
        f'<span class="who">{text(run)}</span><span class="what">{text(label)}</span>'
        f"<b>{percent(probability)}</b></li>"
        for run, label, probability, right in verdicts
    )
    alt = f"{len(frames)} frames of {video_id} in the order they were filmed: {truth}"
    return (
        f'<article class="strip"><h3>{text(truth)}<small>{text(video_id)}</small></h3>'
        f'<div class="frames" role="img" aria-label="{text(alt)}" style="--n:{min(len(frames), 8)}">'
        f"{images}</div><ul>{said}</ul></article>"
    )


def strips(cards: Sequence[str]) -> str:
    """The cards under one line that says how to read them."""
    return (
        "<p>The frames a network saw, first to last, with the truth above and what each run said below: "
        f"its first choice and the probability it gave.</p>{''.join(cards)}"
    )


def _jpeg(frame: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
