"""The small parts of a report page: names, numbers and notes as strings of HTML.

They know nothing of run folders. Whatever comes from a file passes through `text`, which escapes it.
Colors are CSS variables, so that charts follow the reader's light or dark theme.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

NUM_COLORS = 8
LABELS = {
    "params": "Parameters",
    "num_frames": "Frames",
    "multiply_adds": "Multiply-adds",
    "views": "Views",
    "top1": "Top-1",
    "top5": "Top-5",
    "mean_class": "Class mean",
    "mean_average_precision": "mAP",
    "top1_best": "Top-1, best weights",
    "latency_ratio": "Latency",
    "latency_ms": "Latency",
    "seconds": "Training time",
}
MISSING = "\u2013"


def text(value: object) -> str:
    """`value` escaped for HTML, for use between tags and between double quotes."""
    return escape(str(value), quote=True)


def percent(share: float | None) -> str:
    """A share in 0..1 as "61.5%"; a dash when there is none."""
    return MISSING if share is None or not math.isfinite(share) else f"{100 * share:.1f}%"


def percent_range(shares: Sequence[float]) -> str:
    """Two shares in 0..1 as "56.0\u201366.8%"."""
    return f"{percent(shares[0])[:-1]}\u2013{percent(shares[1])}"


def points(difference: float) -> str:
    """A difference of two shares as "\u221212.5 points"."""
    return f"{round(100 * difference, 1) + 0.0:+.1f} points".replace("-", "\u2212")


def listed(names: Sequence[str]) -> str:
    """Join names as in a sentence: "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def videos(count: int) -> str:
    """ "1 video", "1,200 videos"."""
    return f"{count:,} {'video' if count == 1 else 'videos'}"


def color(index: int) -> str:
    """The style that sets `--c` to the color of run `index`."""
    return f"--c:var(--run-{index % NUM_COLORS})"


def legend(names: Sequence[str]) -> str:
    """Swatch and name of each run."""
    return "".join(
        f'<span style="{color(i)}"><span class="swatch"></span>{text(name)}</span>' for i, name in enumerate(names)
    )


def scroll_box(inner: str, label: str, *, tall: bool = False) -> str:
    """A box that scrolls by itself, by keyboard too."""
    kind = "tall scroll" if tall else "scroll"
    return f'<div class="{kind}" tabindex="0" role="region" aria-label="{text(label)}">{inner}</div>'


def lacking(what: str, commands: Sequence[Sequence[str]] = ()) -> str:
    """A note that something is not there, and the commands (lists of arguments) that make it."""
    lines = "\n".join(text(shlex.join(command)) for command in commands)
    shown = f"<pre><code>{lines}</code></pre>" if lines else ""
    return f'<div class="lacking"><p>{text(what)}</p>{shown}</div>'


def untested() -> str:
    """The note of a section that needs scores, where no run has any; the results name the commands."""
    return lacking("No run is tested yet; the commands are under Results.")


def embedded_json(key: str, value: Any) -> str:
    """JSON for the page's script, in a form that cannot end the element that holds it."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&":
        body = body.replace(sign, f"\\u{ord(sign):04x}")
    return f'<script type="application/json" id="{text(key)}">{body}</script>'


def is_number(value: object) -> bool:
    """Whether a table's value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def heading(key: str) -> str:
    """A column's name as a heading."""
    if key.startswith("top1_") and not key.endswith(("_interval", "_best")):
        return f"Top-1, {key.removeprefix('top1_')}"
    return LABELS.get(key, key[:1].upper() + key[1:].replace("_", " "))


def format_value(key: str, value: Any) -> str:
    """A table's value as text; the column's name says its unit."""
    if isinstance(value, list) and len(value) == 2 and all(map(is_number, value)) and key.endswith("_interval"):
        return percent_range(value)
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if not is_number(value):
        return str(value)
    if key.startswith(("top1", "top5", "mean_class", "mean_average")) and 0 <= value <= 1:
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


def data_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, note: str) -> str:
    """A table of results; `x_interval` of a row is shown under its `x`, the best top-1 stands out."""
    shown = [c for c in columns if not (c.endswith("_interval") and c.removesuffix("_interval") in columns)]
    best = max((r["top1"] for r in rows if is_number(r.get("top1"))), default=None)
    head = "".join(f'<th scope="col">{text(heading(c))}</th>' for c in shown)
    body = []
    for row in rows:
        is_best = best is not None and len(rows) > 1 and row.get("top1") == best
        cells = "".join(
            _cell(key, row, tag="th" if place == 0 else "td", is_best=is_best) for place, key in enumerate(shown)
        )
        body.append(f"<tr>{cells}</tr>")
    table = f'<table class="data"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return f'{scroll_box(table, "Table of results")}<p class="note">{text(note)} Small figures: 95% intervals.</p>'


def _cell(key: str, row: Mapping[str, Any], *, tag: str, is_best: bool) -> str:
    shown = text(format_value(key, row.get(key)))
    if key == "top1" and is_best:
        shown = f'<strong title="best top-1">{shown}</strong>'
    interval = row.get(f"{key}_interval")
    if isinstance(interval, list | tuple) and len(interval) == 2:
        shown += f"<small>{text(percent_range(interval))}</small>"
    kind = ' class="number"' if is_number(row.get(key)) or row.get(key) is None else ""
    return f'<th scope="row">{shown}</th>' if tag == "th" else f"<td{kind}>{shown}</td>"
