"""Merge the window predictions of a file into a timeline, compare it with ground truth, and plot it."""

from __future__ import annotations

import bisect
import csv
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsn.config import BACKGROUND, ConfigError, LiveConfig, WindowConfig
from vsn.config.distribution import install_command
from vsn.data.part import parse_seconds
from vsn.inference.predictor import Predictor
from vsn.scores.calibrate import UNKNOWN, Calibration
from vsn.scores.segments import Segment
from vsn.stream.file_windows import FileWindows
from vsn.stream.grid import WindowGrid
from vsn.stream.labels import WindowLabeler, WindowPrediction
from vsn.stream.stream import Stream
from vsn.system.figures import INK, SOFT, figure_style, save_figure
from vsn.system.interrupt import StopRequest
from vsn.system.numbers import counted, decimal


@dataclass(frozen=True)
class Timeline:
    """The labels of a file over time."""

    path: str
    seconds: float
    """At which it ends, as far as it was read."""
    parts: tuple[tuple[float, float], ...]
    """Start and end of each part: a long pause, or a restart of the file's clock, begins another."""
    window_seconds: float
    every: float
    """Seconds from one prediction to the next."""
    predictions: tuple[WindowPrediction, ...]
    """Of all windows, in order, equal to those of `vsn stream`."""
    segments: tuple[Segment, ...]
    """Intervals with a label; the time between them is unknown, or background."""
    interrupted: bool = False
    """Whether a stop request ended it early."""

    @property
    def begins(self) -> float:
        """Seconds at which the picture begins: later than 0.0 in a file whose sound begins earlier."""
        return self.parts[0][0] if self.parts else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return all but the predictions, for JSON."""
        values = {key: value for key, value in vars(self).items() if key not in ("predictions", "segments")}
        segments = [asdict(segment) for segment in self.segments]
        return values | {"num_predictions": len(self.predictions), "segments": segments}


def make_timeline(
    predictor: Predictor,
    path: str | Path,
    *,
    windows: WindowConfig,
    calibration: Calibration | None = None,
    stop: StopRequest | None = None,
    on_start: Callable[[Stream], None] = lambda stream: None,
    on_seconds: Callable[[float], None] = lambda seconds: None,
) -> Timeline:
    """Label a video file window by window with the code of `vsn stream`, as fast as the model allows.

    For the arguments see `Stream` and `Stream.run`. A stop request ends the timeline early; `on_start` receives the open
    stream.

    Raises:
        VideoError, ConfigError: as `Stream`.
        Interrupted: stopped before the first window.
    """
    live = LiveConfig(fast=True)
    stream = Stream(predictor, Path(path), windows=windows, live=live, calibration=calibration)
    on_start(stream)
    predictions: list[WindowPrediction] = []
    summary = stream.run(predictions.append, stop=stop, on_seconds=on_seconds)
    interrupted = stop is not None and stop.requested
    if stop is not None and not predictions:
        stop.check()
    return _timeline(
        path, stream.grid, predictions, seconds=summary.seconds, parts=summary.parts, interrupted=interrupted
    )


def scored_timeline(
    path: str | Path,
    windows: FileWindows,
    logits: Sequence[NDArray[np.floating]],
    *,
    classes: Sequence[str],
    config: WindowConfig,
) -> Timeline:
    """Return the timeline of `make_timeline` for windows that were scored elsewhere."""
    labeler = WindowLabeler(classes, config, windows.grid)
    predictions: list[WindowPrediction] = []
    last_part = 0
    for number, scores in zip(windows.numbers, logits, strict=True):
        start, end = windows.grid.interval(number)
        part = _part_at((start + end) / 2, windows.parts)
        if part != last_part:  # what was before a break says nothing about what is after it
            labeler.reset()
        last_part = part
        predictions.append(labeler.predict(number, scores))
    return _timeline(path, windows.grid, predictions, seconds=windows.seconds, parts=windows.parts)


def _timeline(
    path: str | Path,
    grid: WindowGrid,
    predictions: Sequence[WindowPrediction],
    *,
    seconds: float,
    parts: tuple[tuple[float, float], ...],
    interrupted: bool = False,
) -> Timeline:
    segments = merge(predictions, parts)
    return Timeline(str(path), seconds, parts, grid.seconds, grid.every, tuple(predictions), segments, interrupted)


def merge(predictions: Sequence[WindowPrediction], parts: Sequence[tuple[float, float]]) -> tuple[Segment, ...]:
    """Merge consecutive predictions with one label into segments.

    A prediction covers the time nearest to the middle of its window, within its part of the video, of which `parts` are
    start and end: the first of a part starts with it, the last ends with it.
    """

    def part_of(prediction: WindowPrediction) -> int:
        return _part_at((prediction.start + prediction.end) / 2, parts)

    return tuple(
        segment
        for part, members in itertools.groupby(predictions, key=part_of)
        for segment in _merge_part(list(members), *parts[part])
    )


def _part_at(seconds: float, parts: Sequence[tuple[float, float]]) -> int:
    """The last part that begins before a time."""
    return max(0, bisect.bisect_right(parts, seconds, key=lambda part: part[0]) - 1)


def _merge_part(predictions: Sequence[WindowPrediction], begin: float, finish: float) -> Iterator[Segment]:
    # Windows overlap, so each prediction gets the time that is closest to it: edges are half way between middles.
    middles = [(prediction.start + prediction.end) / 2 for prediction in predictions]
    edges = [begin, *((a + b) / 2 for a, b in itertools.pairwise(middles)), finish]
    first = 0
    for label, members in itertools.groupby(predictions, key=lambda prediction: prediction.label):
        probabilities = [prediction.probability for prediction in members]
        end = first + len(probabilities)
        if label not in (UNKNOWN, BACKGROUND):
            score = math.fsum(probabilities) / len(probabilities)
            yield Segment(edges[first], edges[end], label, score)
        first = end


# --- ground truth -------------------------------------------------------------------------------------


def read_truth(path: str | Path, classes: Sequence[str]) -> tuple[Segment, ...]:
    """Read ground truth: a CSV file with the columns start, end (seconds) and label.

    Raises:
        ConfigError: no such file, another format, an end before its start, or no label that is a class of the run.
    """
    # utf-8-sig: spreadsheets write a byte order mark.
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = {"start", "end", "label"} - set(reader.fieldnames or ())
            if missing:
                raise ConfigError(f"{path}: missing columns {sorted(missing)}; the first line must be start,end,label.")
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read as a CSV of start,end,label: {error}.") from error
    segments = []
    for line, row in rows:
        try:
            start, end = (parse_seconds((row[name] or "").strip()) for name in ("start", "end"))
        except ValueError as error:
            raise ConfigError(f"{path}, line {line}: {error}") from None
        if start >= end:
            raise ConfigError(f"{path}, line {line}: start {start} and end {end} must satisfy 0 <= start < end.")
        label = (row["label"] or "").strip()
        if label != BACKGROUND:
            segments.append(Segment(start, end, label))
    # Other labels are allowed: ground truth may name what no model was trained on. All wrong is a mistake.
    if not any(segment.label in classes for segment in segments):
        raise ConfigError(f"{path}: no label is a class of the run ({', '.join(map(repr, list(classes)[:5]))} ...).")
    return tuple(segments)


# --- plot ---------------------------------------------------------------------------------------------

_MAX_LANES, _NUM_COLORS = 20, 20
_LABEL_LENGTH = 36
"""Characters of a label beside its lane."""
_CLOCK_FROM = 180
"""Seconds from which the axis counts minutes and seconds."""


def check_plot(path: Path) -> None:
    """Raise `ConfigError` for a plot that cannot be drawn, before anything is computed."""
    if path.suffix not in (".png", ".svg"):
        raise ConfigError(f"Expected --plot to end in .svg or .png, got {str(path)!r}.")
    if find_spec("matplotlib") is None:
        raise ConfigError(f"--plot needs matplotlib, which is not installed: {install_command('plot')}.")


def write_plot(timeline: Timeline, classes: Sequence[str], path: Path, *, truth: Sequence[Segment] = ()) -> Path:
    """Plot a timeline to an .svg or .png file: one lane a label, with its probability, its segments and the true ones."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    labels = _lanes(timeline, classes, truth)
    hidden = len({segment.label for segment in (*timeline.segments, *truth)} - set(labels))
    with figure_style():
        size = (min(14.0, max(8.0, timeline.seconds / 8)), 1.5 + 0.42 * len(labels))
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        times = _middles(timeline)
        for lane, label in enumerate(labels):
            color = _lane_color(lane)
            if label in classes:
                smoothed = [math.nan if one is None else one.smoothed[classes.index(label)] for _, one in times]
                top = [lane + 0.42 - 0.84 * value for value in smoothed]
                axes.fill_between([at for at, _ in times], lane + 0.42, top, facecolor=color, alpha=0.3, linewidth=0)
            for segments, at, height, shade in ((timeline.segments, -0.16, 0.32, color), (truth, 0.26, 0.14, INK)):
                spans = [(one.start, one.end - one.start) for one in segments if one.label == label]
                axes.broken_barh(spans, (lane + at, height), facecolor=shade)
        axes.set(xlim=(0, timeline.seconds), ylim=(len(labels) - 0.5, -0.5), yticks=range(len(labels)))
        # Matplotlib reads dollars as formulas.
        short = [one if len(one) <= _LABEL_LENGTH else f"{one[: _LABEL_LENGTH - 1]}\u2026" for one in labels]
        axes.set_yticklabels([label.replace("$", r"\$") for label in short])
        axes.tick_params(axis="y", length=0)
        if timeline.seconds >= _CLOCK_FROM:
            axes.xaxis.set_major_formatter(lambda at, _: f"{int(at) // 60}:{int(at) % 60:02d}")
        axes.set_xlabel("time in minutes and seconds" if timeline.seconds >= _CLOCK_FROM else "time in seconds")
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        more = f", and {counted(hidden, 'label')} more" if hidden else ""
        title = f"{Path(timeline.path).name}: windows of {decimal(timeline.window_seconds)} s{more}"
        axes.set_title(title.replace("$", r"\$"), fontsize=10, loc="left")
        handles = [
            Patch(facecolor=SOFT, label="predicted"),
            Patch(facecolor=SOFT, alpha=0.3, label="smoothed probability"),
        ]
        handles += [Patch(facecolor=INK, label="truth")] if truth else []
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
        return save_figure(figure, path, title=f"Timeline of {title}. Lanes: {', '.join(labels)}.")


def _lanes(timeline: Timeline, classes: Sequence[str], truth: Sequence[Segment]) -> list[str]:
    """The labels that are drawn, in the order in which they begin: those that last longest, where they are many."""
    seconds: dict[str, float] = {}
    for segment in sorted((*timeline.segments, *truth), key=lambda one: one.start):
        seconds[segment.label] = seconds.get(segment.label, 0.0) + segment.end - segment.start
    if not seconds:  # all unknown: the most probable classes
        return list(dict.fromkeys(classes[int(one.smoothed.argmax())] for one in timeline.predictions))[:_MAX_LANES]
    longest = sorted(seconds, key=lambda label: -seconds[label])[:_MAX_LANES]
    return [label for label in seconds if label in longest]


def _middles(timeline: Timeline) -> list[tuple[float, WindowPrediction | None]]:
    """The middle of each window with its prediction; None where a pause of the video begins, so that no line spans it."""
    times: list[tuple[float, WindowPrediction | None]] = []
    for one in timeline.predictions:
        middle = (one.start + one.end) / 2
        if times and _part_at(times[-1][0], timeline.parts) != _part_at(middle, timeline.parts):
            times.append((middle, None))
        times.append((middle, one))
    return times


def _lane_color(lane: int) -> Any:
    import matplotlib

    # tab20 alternates dark and light shades: dark ones first, so that few labels differ most.
    return matplotlib.colormaps["tab20"]((2 * lane) % _NUM_COLORS + (2 * lane) // _NUM_COLORS)
