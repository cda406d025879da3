"""A timeline as a picture: bands of labels, the truth beneath, and the curves of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vsn.config import ConfigError
from vsn.engine.calibrate import UNKNOWN
from vsn.engine.timeline import Segment, Timeline
from vsn.files import write_beside

_MOST_CURVES = 20
_COLOURS = 20


def check_plot(path: Path) -> None:
    """Refuse what cannot be drawn before anything is computed. Raises `ConfigError`."""
    if path.suffix not in (".png", ".svg"):
        raise ConfigError(f"--plot is {str(path)!r}; the picture is .svg or .png, so end its name so.")
    if find_spec("matplotlib") is None:
        raise ConfigError("--plot draws with matplotlib, which is not installed: pip install 'vsn[plot]'.")


def write_plot(
    timeline: Timeline, classes: Sequence[str], path: Path, *, truth: Sequence[Segment] = ()
) -> Path:
    """Draw a timeline to an .svg or .png file, whole or not at all."""
    import matplotlib

    # The same timeline gives the same file.
    with matplotlib.rc_context({"svg.hashsalt": "vsn"}):
        figure = draw(timeline, classes, truth)
        with write_beside(path) as temporary:
            metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
            figure.savefig(temporary, dpi=150, metadata=metadata)
    return path


def draw(timeline: Timeline, classes: Sequence[str], truth: Sequence[Segment] = ()) -> Any:
    """The figure (matplotlib's): a band of what is said, one of the truth, and the curves of the labels in them."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    labels = list(dict.fromkeys(one.label for one in (*timeline.segments, *truth)))
    if not labels:  # nothing but unknown: the curves of what came nearest
        labels = list(dict.fromkeys(classes[int(one.smoothed.argmax())] for one in timeline.answers))
    # Dark shades first, then the light ones.
    shades = [colormaps["tab20"]((2 * i) % _COLOURS + (2 * i) // _COLOURS) for i in range(_COLOURS)]
    colours = {label: shades[i % _COLOURS] for i, label in enumerate(labels)}
    width = min(14.0, max(8.0, timeline.seconds / 8))
    figure = Figure(figsize=(width, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    bands, curves = figure.subplots(2, 1, sharex=True, height_ratios=[1 if truth else 0.6, 2.4])
    rows = [("said", timeline.segments), *([("true", truth)] if truth else [])]
    for place, (_, segments) in enumerate(rows):
        for one in segments:
            bands.broken_barh(
                [(one.start, one.end - one.start)], (-place - 0.4, 0.8), facecolor=colours[one.label],
                edgecolor="white", linewidth=0.5,
            )  # fmt: skip
    bands.set(
        ylim=(-len(rows) + 0.5, 0.5), yticks=[-i for i in range(len(rows))], yticklabels=[n for n, _ in rows]
    )
    bands.tick_params(axis="y", length=0)
    bands.set_title(f"{Path(timeline.path).name}: windows of {timeline.window_seconds:.1f} s", fontsize=10)
    middles = [(one.start + one.end) / 2 for one in timeline.answers]
    for label in [one for one in labels if one in classes][:_MOST_CURVES]:
        index = list(classes).index(label)
        curves.plot(
            middles, [one.smoothed[index] for one in timeline.answers], color=colours[label], linewidth=1.4
        )
    curves.set(xlim=(0, timeline.seconds), ylim=(0, 1), xlabel="seconds", ylabel="smoothed probability")
    curves.grid(alpha=0.3)
    handles = [Patch(color=colours[label], label=_short(label)) for label in labels]
    handles.append(Patch(facecolor="none", edgecolor="grey", label=UNKNOWN))
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _short(label: str, length: int = 36) -> str:
    # Matplotlib leaves out legend entries that begin with an underscore, and reads dollars as formulas.
    said = label if len(label) <= length else f"{label[: length - 1]}\u2026"
    return (
        said.replace("$", r"\$").replace("_", "\u200b_", 1)
        if said.startswith("_")
        else said.replace("$", r"\$")
    )
