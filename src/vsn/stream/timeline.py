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
from vsn.inference.predict import Predictor
from vsn.scores.calibrate import UNKNOWN, Calibration
from vsn.scores.segments import Segment
from vsn.stream.file_windows import FileWindows
from vsn.stream.grid import WindowGrid
from vsn.stream.labels import WindowLabeler, WindowPrediction
from vsn.stream.stream import Stream
from vsn.system.files import atomic_write
from vsn.system.interrupt import StopRequest


@dataclass(frozen=True)
class Timeline:
    """The labels of a file over time."""

    path: str
    seconds: float
    """Duration, as far as it was read."""
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
    """
    live = LiveConfig(fast=True)
    stream = Stream(predictor, Path(path), windows=windows, live=live, calibration=calibration)
    on_start(stream)
    predictions: list[WindowPrediction] = []
    summary = stream.run(predictions.append, stop=stop, on_seconds=on_seconds)
    interrupted = stop is not None and stop.requested
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

_MAX_CURVES, _NUM_COLORS = 20, 20


def check_plot(path: Path) -> None:
    """Raise `ConfigError` for a plot that cannot be drawn, before anything is computed."""
    if path.suffix not in (".png", ".svg"):
        raise ConfigError(f"Expected --plot to end in .svg or .png, got {str(path)!r}.")
    if find_spec("matplotlib") is None:
        raise ConfigError(f"--plot needs matplotlib, which is not installed: {install_command('plot')}.")


def write_plot(timeline: Timeline, classes: Sequence[str], path: Path, *, truth: Sequence[Segment] = ()) -> Path:
    """Plot a timeline to an .svg or .png file: a band of predictions, one of ground truth, and curves of both's labels."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(min(14.0, max(8.0, timeline.seconds / 8)), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    labels = list(dict.fromkeys(segment.label for segment in (*timeline.segments, *truth)))
    if not labels:  # all unknown: show the curves of the most probable classes
        labels = list(dict.fromkeys(classes[int(one.smoothed.argmax())] for one in timeline.predictions))
    # tab20 alternates dark and light shades: dark ones first, so that few labels differ most.
    shades = [matplotlib.colormaps["tab20"]((2 * i) % _NUM_COLORS + (2 * i) // _NUM_COLORS) for i in range(_NUM_COLORS)]
    colors = {label: shades[i % _NUM_COLORS] for i, label in enumerate(labels)}

    bands, curves = figure.subplots(2, 1, sharex=True, height_ratios=[1 if truth else 0.6, 2.4])
    rows = {"predicted": timeline.segments, "truth": truth} if truth else {"predicted": timeline.segments}
    for row, segments in enumerate(rows.values()):
        for segment in segments:
            span = (segment.start, segment.end - segment.start)
            color = colors[segment.label]
            bands.broken_barh([span], (-row - 0.4, 0.8), facecolor=color, edgecolor="white", linewidth=0.5)
    bands.set(ylim=(-len(rows) + 0.5, 0.5), yticks=[-row for row in range(len(rows))], yticklabels=list(rows))
    bands.tick_params(axis="y", length=0)
    bands.set_title(f"{Path(timeline.path).name}: windows of {timeline.window_seconds:.1f} s", fontsize=10)

    middles = [(prediction.start + prediction.end) / 2 for prediction in timeline.predictions]
    for label in [label for label in labels if label in classes][:_MAX_CURVES]:
        smoothed = [prediction.smoothed[classes.index(label)] for prediction in timeline.predictions]
        curves.plot(middles, smoothed, color=colors[label], linewidth=1.4)
    curves.set(xlim=(0, timeline.seconds), ylim=(0, 1), xlabel="seconds", ylabel="smoothed probability")
    curves.grid(alpha=0.3)
    # Matplotlib reads dollars as formulas, and skips legend entries that start with an underscore.
    short = {label: label if len(label) <= 36 else f"{label[:35]}\u2026" for label in labels}
    texts = {label: ("\u200b" if label.startswith("_") else "") + short[label].replace("$", r"\$") for label in labels}
    handles = [Patch(color=colors[label], label=texts[label]) for label in labels]
    handles.append(Patch(facecolor="none", edgecolor="gray", label=UNKNOWN))
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, frameon=False)
    # Without a date and with a fixed salt the same timeline gives the same file.
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "vsn"}), atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150, metadata=metadata)
    return path
