"""Render Jinja2 templates with autoescape, and format the numbers of a page.

Templates are in ``templates/``. Everything they insert is escaped unless it is `Markup`, so names from files cannot
break a page. Colors are CSS variables, so that charts follow the reader's light or dark theme.
"""

from __future__ import annotations

import base64
import io
import math
import re
import shlex
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from vsn.runs.run import is_number
from vsn.system import numbers


class Lacks(NamedTuple):
    """Why a section has no content, and the commands that give it some; the page shows one line."""

    text: str
    commands: Sequence[Sequence[str]] = ()


UNTESTED = Lacks("No run is tested yet; the commands are under Results.")
NUM_COLORS = 8
MISSING = "\u2013"
_HEADINGS = {
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


def render(template: str, **context: Any) -> Markup:
    """Render ``templates/<template>.jinja``."""
    # Markup, so that a rendered part can be inserted into another template without being escaped twice.
    return Markup(_ENVIRONMENT.get_template(f"{template}.jinja").render(context))


def static_file(name: str) -> Markup:
    """Return a style sheet or script of ``vsn/static``, to be inserted without escaping."""
    return Markup((files("vsn") / "static" / name).read_text(encoding="utf-8"))


def percent(share: float | None) -> str:
    """Format a share in 0..1 as "61.5%"; a dash for None and NaN."""
    return MISSING if share is None or not math.isfinite(share) else numbers.percent(share)


def percent_range(shares: Sequence[float]) -> str:
    """Format an interval of shares as "56.0\u201366.8%"."""
    return numbers.percent_range(shares, dash="\u2013")


def points(difference: float) -> str:
    """Format a difference of two shares as "\u221212.5 points"."""
    return f"{numbers.points(difference)} points".replace("-", "\u2212")


def points_range(differences: Sequence[float]) -> str:
    """Format an interval of differences as "\u22121.2 to +3.4"."""
    low, high = (points(end).removesuffix(" points") for end in differences)
    return f"{low} to {high}"


def p_value(value: float) -> str:
    """Format a p value as "0.042", or "< 0.001"."""
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def minus(text: str) -> str:
    """Write the signs of the numbers in a sentence of the terminal as true minus signs."""
    return re.sub(r"(?<![\w-])-(?=\d)", "\u2212", text)


def join_names(names: Sequence[str]) -> str:
    """Join names as in a sentence: "a", "a and b", "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def num_videos(count: int) -> str:
    """Format a number of videos: "1 video", "1,200 videos"."""
    return numbers.counted(count, "video")


def color(index: int) -> str:
    """Return the CSS that sets ``--c`` to the color of run ``index``."""
    return f"--c:var(--run-{index % NUM_COLORS})"


def is_interval(value: object) -> TypeGuard[Sequence[float]]:
    """Return whether a table's value is two finite numbers."""
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(is_number, value))


def heading(key: str) -> str:
    """Return the heading of a table's column."""
    # top1_shuffled -> "Top-1, shuffled"
    if key.startswith("top1_") and key != "top1_best":
        return f"Top-1, {key.removeprefix('top1_')}"
    return _HEADINGS.get(key, key[:1].upper() + key[1:].replace("_", " "))


def format_value(value: Any, key: str) -> str:
    """Format a table's value with the unit that its column's name implies."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return MISSING
    if is_interval(value):
        return percent_range(value)
    # Text, such as the name of a run.
    if not is_number(value):
        return str(value)
    if key.startswith(("top1", "top5", "mean_class", "mean_average")) and 0 <= value <= 1:
        return percent(value)
    if key in ("params", "multiply_adds"):
        return numbers.short_count(value)
    if key.endswith("_ratio"):
        return f"{numbers.decimal(value, 2)}\u00d7"
    if key.endswith("_ms"):
        return f"{numbers.significant(value)} ms"
    if key == "seconds":
        # Seconds below two minutes, then minutes, then hours.
        minutes = round(value / 60)
        return (
            f"{numbers.decimal(value, 0)} s"
            if value < 120
            else f"{minutes} min"
            if minutes < 120
            else f"{numbers.decimal(value / 3600)} h"
        )
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def jpeg(frame: np.ndarray) -> str:
    """Return a uint8 frame ``(h, w, 3)`` as a data URL, which keeps the page in one file."""
    # JPEG, because a page holds a hundred frames and more.
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


_ENVIRONMENT = Environment(
    loader=PackageLoader("vsn.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_ENVIRONMENT.filters |= {
    function.__name__: function
    for function in (
        percent,
        percent_range,
        points,
        points_range,
        minus,
        p_value,
        join_names,
        num_videos,
        heading,
        format_value,
        jpeg,
    )
}
_ENVIRONMENT.filters["shell"] = shlex.join
_ENVIRONMENT.tests["finite_number"], _ENVIRONMENT.tests["interval"] = is_number, is_interval
_ENVIRONMENT.globals |= {"color": color, "missing_value": MISSING}
# `tojson` escapes <, > and &, so that data cannot end its script element. Keys keep their order.
_ENVIRONMENT.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
