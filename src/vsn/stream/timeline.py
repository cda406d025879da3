"""Long files, window by window: when which label holds, and how much of that is true."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsn.config import ConfigError, LiveConfig, Protocol, WindowConfig
from vsn.inference.predict import Predictor
from vsn.scores.calibrate import UNKNOWN, Calibration
from vsn.stream.frames import FileWindows
from vsn.stream.source import file_source
from vsn.stream.stream import Stream
from vsn.stream.windows import Answer, WindowGrid, WindowLabels
from vsn.system.files import atomic_write
from vsn.system.interrupt import StopRequest


@dataclass(frozen=True)
class Segment:
    """A stretch of a video with one label.

    Attributes:
        start: seconds.
        end: seconds.
        label: a class name, never "unknown".
        score: mean over its answers of the label's smoothed probability; None in a truth.
    """

    start: float
    end: float
    label: str
    score: float | None = None


@dataclass(frozen=True)
class Timeline:
    """What is said of a file over time.

    Attributes:
        path: the file.
        seconds: its length, or how far it was read.
        window_seconds: length of a window.
        every: seconds from one answer to the next.
        answers: of all windows, in order; the same that `vsn stream` gives of the file.
        segments: stretches with a label; between them it is unknown.
        interrupted: whether it was stopped before the end.
    """

    path: str
    seconds: float
    window_seconds: float
    every: float
    answers: tuple[Answer, ...]
    segments: tuple[Segment, ...]
    interrupted: bool = False

    def to_dict(self) -> dict[str, Any]:
        """All but the answers, for JSON."""
        facts = {key: value for key, value in vars(self).items() if key not in ("answers", "segments")}
        return facts | {"num_answers": len(self.answers), "segments": [vars(one) for one in self.segments]}


def make_timeline(
    predictor: Predictor,
    path: str | Path,
    *,
    windows: WindowConfig,
    calibration: Calibration | None = None,
    protocol: Protocol | None = None,
    stop: StopRequest | None = None,
    on_start: Callable[[Stream], None] = lambda stream: None,
    on_seconds: Callable[[float], None] = lambda seconds: None,
) -> Timeline:
    """Label a video file window by window, with the code of `vsn stream`, as fast as it goes.

    Args:
        predictor: of a run on frames or their differences, with one label a video.
        path: the file.
        windows: where windows lie, and when a label counts.
        calibration: temperature and threshold.
        protocol: which crops; default the run's.
        stop: a request to stop, after which what there is so far is returned.
        on_start: told of the opened file.
        on_seconds: told how far it is.

    Raises:
        VideoError, ConfigError: as `Stream`.
    """
    stream = Stream(
        predictor,
        file_source(path),
        windows=windows,
        live=LiveConfig(fast=True),
        calibration=calibration,
        protocol=protocol,
    )
    on_start(stream)
    answers: list[Answer] = []
    summary = stream.run(answers.append, stop=stop, on_seconds=on_seconds)
    timeline = timeline_of(path, stream.grid, answers, seconds=summary.seconds)
    return replace(timeline, interrupted=stop is not None and stop.requested)


def scored_timeline(
    path: str | Path,
    windows: FileWindows,
    logits: Sequence[NDArray[np.floating]],
    *,
    classes: Sequence[str],
    config: WindowConfig,
) -> Timeline:
    """The timeline of a file whose windows were scored elsewhere, as `make_timeline` makes it."""
    labels = WindowLabels(classes, config, windows.grid)
    answers = [labels.answer(number, one) for number, one in zip(windows.numbers, logits, strict=True)]
    return timeline_of(path, windows.grid, answers, seconds=windows.seconds)


def timeline_of(path: str | Path, grid: WindowGrid, answers: Sequence[Answer], *, seconds: float) -> Timeline:
    """The answers to the windows of a file, with the segments that they make of its `seconds`."""
    return Timeline(str(path), seconds, grid.seconds, grid.every, tuple(answers), merge(answers, seconds))


def merge(answers: Sequence[Answer], seconds: float) -> tuple[Segment, ...]:
    """Answers in a row with one label become a segment.

    An answer stands for the time nearest to the middle of its window; the first from the beginning on, the
    last up to the end of the video at `seconds`.
    """
    middles = [(one.start + one.end) / 2 for one in answers]
    edges = [0.0, *((a + b) / 2 for a, b in itertools.pairwise(middles)), seconds]
    segments: list[Segment] = []
    first = 0
    for place in range(1, len(answers) + 1):
        if place < len(answers) and answers[place].label == answers[first].label:
            continue
        group = answers[first:place]
        if group and group[0].label != UNKNOWN:
            score = math.fsum(one.probability for one in group) / len(group)
            segments.append(Segment(edges[first], edges[place], group[0].label, score))
        first = place
    return tuple(segments)


def read_truth(path: str | Path, classes: Sequence[str]) -> tuple[Segment, ...]:
    """What is true of a video: a CSV with the columns start, end (seconds) and label.

    Raises:
        ConfigError: no such file, another form, a stretch that ends before it begins, or no label that the run knows.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = {"start", "end", "label"} - set(reader.fieldnames or ())
            if missing:
                raise ConfigError(
                    f"{path}: the columns {sorted(missing)} are missing; its first line is start,end,label."
                )
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as a CSV of start,end,label: {error}.") from error
    found = []
    for line, row in rows:
        try:
            start, end = float(row["start"]), float(row["end"])
        except (TypeError, ValueError):
            raise ConfigError(
                f"{path}, line {line}: start {row['start']!r} and end {row['end']!r} are seconds, such as 12.5."
            ) from None
        if not (math.isfinite(end) and 0 <= start < end):
            raise ConfigError(f"{path}, line {line}: it runs from {start} to {end}; it must end after it begins.")
        found.append(Segment(start, end, (row["label"] or "").strip()))
    if not any(one.label in classes for one in found):
        raise ConfigError(
            f"{path}: none of its labels is a class of the run, which knows {', '.join(map(repr, list(classes)[:5]))} ..."
        )
    return tuple(found)


def share_right(segments: Sequence[Segment], truth: Sequence[Segment]) -> float:
    """The share of the truth's seconds at which the timeline says the same; "unknown" is not right."""
    right = math.fsum(
        max(0.0, min(said.end, true.end) - max(said.start, true.start))
        for said in segments
        for true in truth
        if said.label == true.label
    )
    return right / math.fsum(one.end - one.start for one in truth)


_MOST_CURVES = 20


_COLORS = 20


def check_plot(path: Path) -> None:
    """Refuse what cannot be drawn before anything is computed. Raises `ConfigError`."""
    if path.suffix not in (".png", ".svg"):
        raise ConfigError(f"--plot is {str(path)!r}; the picture is .svg or .png, so end its name so.")
    if find_spec("matplotlib") is None:
        raise ConfigError("--plot draws with matplotlib, which is not installed: pip install 'vsn[plot]'.")


def write_plot(timeline: Timeline, classes: Sequence[str], path: Path, *, truth: Sequence[Segment] = ()) -> Path:
    """Draw a timeline to an .svg or .png file, whole or not at all."""
    import matplotlib

    # The same timeline gives the same file.
    with matplotlib.rc_context({"svg.hashsalt": "vsn"}):
        figure = draw(timeline, classes, truth)
        with atomic_write(path) as temporary:
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
    shades = [colormaps["tab20"]((2 * i) % _COLORS + (2 * i) // _COLORS) for i in range(_COLORS)]
    colors = {label: shades[i % _COLORS] for i, label in enumerate(labels)}
    width = min(14.0, max(8.0, timeline.seconds / 8))
    figure = Figure(figsize=(width, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    bands, curves = figure.subplots(2, 1, sharex=True, height_ratios=[1 if truth else 0.6, 2.4])
    rows = [("said", timeline.segments), *([("true", truth)] if truth else [])]
    for place, (_, segments) in enumerate(rows):
        for one in segments:
            bands.broken_barh(
                [(one.start, one.end - one.start)], (-place - 0.4, 0.8), facecolor=colors[one.label],
                edgecolor="white", linewidth=0.5,
            )  # fmt: skip
    bands.set(ylim=(-len(rows) + 0.5, 0.5), yticks=[-i for i in range(len(rows))], yticklabels=[n for n, _ in rows])
    bands.tick_params(axis="y", length=0)
    bands.set_title(f"{Path(timeline.path).name}: windows of {timeline.window_seconds:.1f} s", fontsize=10)
    middles = [(one.start + one.end) / 2 for one in timeline.answers]
    for label in [one for one in labels if one in classes][:_MOST_CURVES]:
        index = list(classes).index(label)
        curves.plot(middles, [one.smoothed[index] for one in timeline.answers], color=colors[label], linewidth=1.4)
    curves.set(xlim=(0, timeline.seconds), ylim=(0, 1), xlabel="seconds", ylabel="smoothed probability")
    curves.grid(alpha=0.3)
    handles = [Patch(color=colors[label], label=_short(label)) for label in labels]
    handles.append(Patch(facecolor="none", edgecolor="gray", label=UNKNOWN))
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _short(label: str, length: int = 36) -> str:
    # Matplotlib leaves out legend entries that begin with an underscore, and reads dollars as formulas.
    said = label if len(label) <= length else f"{label[: length - 1]}\u2026"
    return said.replace("$", r"\$").replace("_", "\u200b_", 1) if said.startswith("_") else said.replace("$", r"\$")
