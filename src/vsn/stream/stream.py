"""Label a camera, a stream or a long file window by window, as its frames arrive."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vsn.config import ConfigError, LiveConfig, Protocol, WindowConfig
from vsn.data.video import VideoError, write_video
from vsn.inference.pictures import fitted, font
from vsn.inference.predictor import Predictor
from vsn.scores.calibrate import UNKNOWN, Calibration
from vsn.stream.collect import Stack, WindowCollector, images_of
from vsn.stream.grid import FrameFilter, WindowGrid
from vsn.stream.labels import WindowLabeler, WindowPrediction
from vsn.stream.plan import longest_still, plan_grid
from vsn.stream.reader import LiveFrame, LiveReader
from vsn.stream.scorer import WindowScorer, score_windows
from vsn.stream.source import USUAL_RATE, Source
from vsn.system.interrupt import StopRequest
from vsn.system.numbers import percent

_MAX_STILL_SECONDS = 10.0
"""A shorter gap of the source is a still in the annotated video; a longer one is left out."""


@dataclass
class StreamSummary:
    """Statistics of a stream."""

    source: str
    """Name, without user and password."""
    seconds: float = 0.0
    parts: tuple[tuple[float, float], ...] = ()
    """Start and end of each part; no window spans a break between two (see `Source.frames`)."""
    num_frames: int = 0
    num_predictions: int = 0
    skipped: int = 0
    """Windows not labeled, because a later one was complete already."""
    dropped: int = 0
    """Frames dropped although a window or the video needed them, because the model was too slow."""
    undecodable: int = 0
    """Packets that do not decode."""
    reconnected: int = 0
    lost: str = ""
    """Why the connection was lost for good, or why a source among several gave no prediction; "" if neither."""
    frames_seen: int = 0
    """Frames of all windows."""
    frames_computed: int = 0
    """How many of these were computed, not reused from an earlier window."""
    lags_ms: deque[float] = field(default_factory=lambda: deque(maxlen=10_000))
    """From the arrival of a window's last frame to its prediction, of the last 10,000 predictions."""


@dataclass(frozen=True)
class _Window:
    """A complete window, not yet scored."""

    number: int
    stacks: list[Stack]


class WindowStream:
    """Frames in, predictions out: collect windows, score and label them.

    Several frames at once mean that the model is too slow: of the windows that they complete only the last is
    labeled. Windows never span a break of the source.
    """

    def __init__(self, scorer: WindowScorer, grid: WindowGrid, labeler: WindowLabeler) -> None:
        self.skipped = 0
        self._scorer, self._labeler = scorer, labeler
        self._collector = WindowCollector(grid, scorer.num_consecutive)
        self._part = 0

    def feed(self, frames: list[LiveFrame]) -> list[WindowPrediction]:
        """Return the predictions that the next frames complete."""
        return [prediction for _, prediction in feed_streams([(self, frames)])]

    def _collect(self, frames: list[LiveFrame]) -> list[_Window]:
        # All frames are collected, also those of skipped windows: later windows share them.
        windows = [_Window(number, stacks) for frame in frames for number, stacks in self._collector.feed(frame)]
        if len(frames) > 1 and len(windows) > 1:
            self.skipped += len(windows) - 1
            windows = windows[-1:]
        return windows

    def _label(self, window: _Window, logits: NDArray[np.float32]) -> WindowPrediction:
        # What was before a break says nothing about what is after it.
        if window.stacks[0][0].part != self._part:
            self._part = window.stacks[0][0].part
            self._labeler.reset()
        lag_ms = 1000 * (time.perf_counter() - window.stacks[-1][-1].arrived)
        return self._labeler.predict(window.number, logits, lag_ms=lag_ms)


def feed_streams(
    batches: Sequence[tuple[WindowStream, list[LiveFrame]]],
) -> Iterator[tuple[WindowStream, WindowPrediction]]:
    """Yield the predictions that the next frames of several streams complete; their windows are scored together."""
    windows = [(stream, window) for stream, frames in batches for window in stream._collect(frames)]
    logits = score_windows(
        [
            (
                stream._scorer,
                [stack[0].number for stack in window.stacks],
                [images_of(stack) for stack in window.stacks],
            )
            for stream, window in windows
        ]
    )
    for (stream, window), scores in zip(windows, logits, strict=True):
        yield stream, stream._label(window, scores)


class Stream:
    """An open source with a model that labels it; `run` reads it to its end.

    Args:
        predictor: of a run on RGB frames or frame differences, with one label per video.
        source: a file, the number of a camera, or a URL.
        windows: where windows are, and when a label counts.
        live: how the source is read.
        calibration: temperature and threshold.
        protocol: which crops; default that of the run.

    Attributes:
        grid: the windows.
        summary: statistics, updated by `run`.
        description: the windows and what is reused, in a sentence for display.
        announced_seconds: duration of the source, as announced; None if it is not.

    Raises:
        VideoError: the source cannot be opened.
        ConfigError: a run without windows (see `WindowScorer`), a calibration of other classes, `every_frames`
            with a source of unknown rate.
    """

    def __init__(
        self,
        predictor: Predictor,
        source: str | Path,
        *,
        windows: WindowConfig,
        live: LiveConfig,
        calibration: Calibration | None = None,
        protocol: Protocol | None = None,
    ) -> None:
        check_calibrated_classes(calibration, predictor.classes)
        self._live, self._short_side = live, predictor.recipe.clip.short_side
        self._scorer = scorer = WindowScorer(predictor, protocol=protocol)
        self._source = Source(source, live)
        try:
            grid, reason = plan_grid(
                predictor.recipe,
                windows,
                self._source,
                num_frames=scorer.num_frames,
                recorded=predictor.training_seconds,
            )
        except BaseException:
            self._source.close()
            raise
        consecutive = f" times {scorer.num_consecutive} consecutive frames" if scorer.num_consecutive > 1 else " frames"
        self.description = (
            f"Windows of {grid.seconds:.2f} seconds ({reason}): {grid.num_frames}{consecutive}, one every "
            f"{grid.step_seconds * grid.spacing:.3f} seconds; a prediction every {grid.every:.3f} seconds. {scorer.note}"
        )
        self.grid = grid
        self.summary = StreamSummary(self._source.name)
        self.announced_seconds = self._source.announced_seconds
        self._windows = WindowStream(scorer, grid, WindowLabeler(predictor.classes, windows, grid, calibration))
        self._reader: LiveReader
        self._latest: WindowPrediction | None = None
        self._error: VideoError | None = None

    def run(
        self,
        on_prediction: Callable[[WindowPrediction], None],
        *,
        video: Path | None = None,
        stop: StopRequest | None = None,
        on_seconds: Callable[[float], None] = lambda seconds: None,
    ) -> StreamSummary:
        """Read the source to its end or until a stop request.

        A connection that is lost for good ends it too; once there were predictions, only the summary tells.

        Args:
            on_prediction: receives each prediction at once.
            video: write the pictures of the source there as MP4, annotated with their labels.
            stop: checked between frames.
            on_seconds: receives the position in the video.

        Raises:
            VideoError: nothing could be read, or it ended before the first window was complete.
        """
        changed = threading.Condition()
        with self._reading(pictures=video is not None, changed=changed):
            frames = _labeled(
                [self],
                on_prediction=lambda _, prediction: on_prediction(prediction),
                stop=stop,
                on_seconds=on_seconds,
                changed=changed,
            )
            labeled = ((frame, prediction) for _, frame, prediction in frames)
            if video is None:
                # Nothing to write: only run the generator.
                deque(labeled, maxlen=0)
            else:
                rate = self._source.frames_per_second or USUAL_RATE
                images = _annotated(labeled, rate)
                if (first := next(images, None)) is not None:  # a source without a frame makes no file
                    write_video(video, itertools.chain([first], images), frames_per_second=rate)
        if (problem := self._problem(stop)) is not None:
            raise problem
        return self.summary

    def close(self) -> None:
        """Close the source. `run` does so at its end; a second call does nothing."""
        self._source.close()

    @contextlib.contextmanager
    def _reading(self, *, pictures: bool = False, changed: threading.Condition) -> Iterator[None]:
        """Read the source in a thread; at the end close it and complete the summary."""
        scorer, summary, live = self._scorer, self.summary, self._live
        if not pictures:
            # Without full-size pictures frames are small: the queue holds as many instants as for single frames.
            live = replace(live, max_waiting=live.max_waiting * scorer.num_consecutive)
        self._reader = reader = LiveReader(
            self._source,
            live,
            short_side=self._short_side,
            wanted=FrameFilter(self.grid, scorer.num_consecutive),
            longest_still=longest_still(self.grid, self._source.frames_per_second),
            pictures=pictures,
            changed=changed,
        )
        try:
            yield
        finally:
            reader.close()
            summary.num_frames, summary.dropped = reader.num_frames, reader.dropped
            summary.seconds, summary.parts = max(summary.seconds, reader.seconds), tuple(reader.parts)
            summary.skipped = self._windows.skipped
            summary.undecodable, summary.reconnected = self._source.undecodable, self._source.reconnected
            summary.frames_seen, summary.frames_computed = scorer.num_frames_seen, scorer.num_frames_computed

    def _take(self) -> list[LiveFrame] | None:
        """Return the waiting frames; None at the end."""
        try:
            return self._reader.take(timeout=0)
        except VideoError as error:
            # After hours of predictions a lost camera is the end of the stream, not a failure of the command.
            self._error, self.summary.lost = error, error.reason
            return None

    def _record(self, prediction: WindowPrediction) -> None:
        summary = self.summary
        self._latest = prediction
        summary.num_predictions += 1
        summary.lags_ms.append(prediction.lag_ms)
        summary.dropped = self._reader.dropped

    def _problem(self, stop: StopRequest | None) -> VideoError | None:
        """Return why there was no prediction; None if there was one, or if the stream was stopped."""
        summary = self.summary
        if summary.num_predictions or (stop is not None and stop.requested):
            return None
        seconds = max(0.0, summary.seconds - self.grid.begins)
        return self._error or VideoError(
            self._source.name,
            f"it ended after {summary.num_frames} frames, {seconds:.2f} seconds, before a window of "
            f"{self.grid.seconds:.2f} seconds was complete. Set shorter windows with --seconds, or use `vsn predict` "
            "without --windows.",
        )


def run_streams(
    streams: Sequence[Stream],
    on_prediction: Callable[[Stream, WindowPrediction], None],
    *,
    stop: StopRequest | None = None,
    on_seconds: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Read several sources of one predictor until all have ended, or until a stop request.

    Each source has a thread of its own: one that is lost reconnects there, and the others go on. Windows that are complete
    at the same time are scored together.

    Args:
        streams: made with the same predictor.
        on_prediction: receives each prediction at once.
        stop: checked between frames.
        on_seconds: receives the latest position of any source.

    Raises:
        VideoError: no source gave a prediction. One that fails while others work is in its summary (`lost`).
    """
    changed = threading.Condition()
    with contextlib.ExitStack() as stack:
        for stream in streams:
            stack.enter_context(stream._reading(changed=changed))
        deque(
            _labeled(streams, on_prediction=on_prediction, stop=stop, on_seconds=on_seconds, changed=changed), maxlen=0
        )
    problems = [(stream, problem) for stream in streams if (problem := stream._problem(stop)) is not None]
    if len(problems) == len(streams):
        raise problems[0][1]
    for stream, problem in problems:
        stream.summary.lost = problem.reason


def _labeled(
    streams: Sequence[Stream],
    *,
    on_prediction: Callable[[Stream, WindowPrediction], None],
    stop: StopRequest | None,
    on_seconds: Callable[[float], None],
    changed: threading.Condition,
) -> Iterator[tuple[Stream, LiveFrame, WindowPrediction | None]]:
    """Give every frame with the latest prediction of its source at its time."""
    active = list(streams)

    def is_ready() -> bool:
        return any(stream._reader.is_ready for stream in active)

    while active and not (stop is not None and stop.requested):
        with changed:
            changed.wait_for(is_ready, 0.2)  # with a timeout, to look for stop requests
        taken: list[tuple[Stream, list[LiveFrame]]] = []
        for stream in tuple(active):
            frames = stream._take()
            if frames is None:
                active.remove(stream)
            elif frames:
                taken.append((stream, frames))
        of_windows = {stream._windows: stream for stream, _ in taken}
        for windows, prediction in feed_streams([(stream._windows, frames) for stream, frames in taken]):
            stream = of_windows[windows]
            stream._record(prediction)
            on_prediction(stream, prediction)
        for stream, frames in taken:
            for frame in frames:
                stream.summary.seconds = frame.end
                yield stream, frame, stream._latest
        if taken:
            on_seconds(max(frames[-1].end for _, frames in taken))


def check_calibrated_classes(calibration: Calibration | None, classes: tuple[str, ...]) -> None:
    """Raise `ConfigError` for a calibration of other classes."""
    if calibration is not None and calibration.classes != classes:
        raise ConfigError(
            f"The calibration has {len(calibration.classes)} classes, such as {calibration.classes[0]!r}; the run has "
            f"{len(classes)}, such as {classes[0]!r}. Run `vsn calibrate` on scores of this run."
        )


def _annotated(frames: Iterable[tuple[LiveFrame, WindowPrediction | None]], rate: float) -> Iterator[np.ndarray]:
    """Give annotated pictures at a constant rate: repeated over gaps, left out where frames are closer."""
    num_written = 0
    for frame, prediction in frames:
        assert frame.picture is not None
        # How many pictures the video lacks up to the end of this frame.
        num_due = round(frame.end * rate) - num_written
        if num_due > _MAX_STILL_SECONDS * rate:
            num_written, num_due = num_written + num_due - 1, 1
        if num_due > 0:
            label, probability = ("\u2026", None) if prediction is None else (prediction.label, prediction.probability)
            image = draw_label(frame.picture, label, probability)
            yield from (image for _ in range(num_due))
            num_written += num_due


_LABEL_COLOR, _NO_LABEL_COLOR = (255, 200, 60), (150, 150, 150)


def draw_label(picture: np.ndarray, label: str, probability: float | None) -> np.ndarray:
    """Return a picture, uint8 ``(H, W, 3)``, with a dark band at its bottom: a label and a bar of its probability.

    H and W are rounded down to even numbers, which H.264 requires. A probability of None draws no bar.
    """
    height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
    image = Image.fromarray(np.ascontiguousarray(picture[:height, :width]))
    # Proportions of the picture, with minimums that keep the text readable in small ones.
    band = max(16, height // 9)
    draw = ImageDraw.Draw(image, "RGBA")
    top = max(0, height - band)
    draw.rectangle((0, top, width, height), fill=(0, 0, 0, 170))
    text = font(max(8, round(band * 0.52)))
    color = _NO_LABEL_COLOR if label == UNKNOWN or probability is None else _LABEL_COLOR
    margin = max(2, band // 6)
    shown = label if probability is None else f"{percent(probability, 0)}  {label}"
    draw.text((margin, top + margin // 2), fitted(shown, text, width - 2 * margin), color, text)
    if probability is not None:
        bar = max(2, band // 8)
        right = margin + round((width - 2 * margin) * min(1.0, max(0.0, probability)))
        draw.rectangle((margin, height - bar - margin // 2, right, height - margin // 2), fill=color)
    return np.asarray(image)
