"""Style and save the figures of matplotlib: text that is text, and colors that follow a dark theme."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from vsn.system.files import atomic_write

INK, SOFT, GRID, PAPER = "#1b2330", "#5a6575", "#dfe3e9", "#ffffff"
_DARK = {INK: "#e6eaf0", SOFT: "#9aa6b6", GRID: "#303947", PAPER: "#1a2029"}
"""Color of a figure -> what an SVG shows in its place where a reader's theme is dark."""
_STYLE = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "grid.color": GRID,
    "legend.frameon": False,
    "xtick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.color": SOFT,
    "ytick.labelcolor": INK,
    # Text stays text: it can be searched, copied and read aloud.
    "svg.fonttype": "none",
    # With a fixed salt, and without a date, equal figures give equal files.
    "svg.hashsalt": "vsn",
}


@contextlib.contextmanager
def figure_style() -> Iterator[None]:
    """Draw and save figures in our colors while the block runs; `save_figure` within it."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        yield


def save_figure(figure: Any, path: Path, *, title: str) -> Path:
    """Save a figure (matplotlib's) atomically as .svg or .png, and return ``path``.

    Args:
        figure: drawn within `figure_style`.
        path: its suffix decides the format.
        title: what the figure shows, for screen readers.
    """
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None, "Title": title}
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, metadata=metadata)
        if path.suffix == ".svg":
            temporary.write_text(_finish(temporary.read_text(encoding="utf-8"), title), encoding="utf-8")
    return path


def _finish(svg: str, title: str) -> str:
    # Matplotlib writes colors into the elements, which only a rule that is marked important overrules.
    rules = "".join(
        f'[style*="{kind}: {light}"]{{{kind}:{dark}!important}}'
        for light, dark in _DARK.items()
        for kind in ("fill", "stroke")
    )
    style = f"<style>@media (prefers-color-scheme: dark){{{rules}}}</style>"
    head, tag, rest = svg.partition("<svg ")
    attributes, end, body = rest.partition(">")
    return f'{head}{tag}role="img" {attributes}{end}<title>{escape(title)}</title>{style}{body}'
