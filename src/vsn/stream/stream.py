"""A camera, a stream or a long file, labeled window by window as its frames come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vsn.config import ConfigError, LiveConfig, Protocol, WindowConfig
from vsn.data.video import VideoError, write_video
from vsn.inference.predict import Predictor
from vsn.scores.calibrate import UNKNOWN, Calibration
from vsn.stream.frames import Stack, WantedFrames, WindowFinder, images_of, plan_grid
from vsn.stream.reader import LiveFrame, LiveReader
from vsn.stream.scorer import WindowScorer
from vsn.stream.source import USUAL_RATE, Source
from vsn.stream.windows import Answer, WindowGrid, WindowLabels
from vsn.system.interrupt import StopRequest

_POLL_SECONDS = 0.2
_LONGEST_STILL = 10.0
"""Seconds of a gap that a video shows as a still; of a longer one nothing is shown."""


@dataclass
class StreamSummary:
    """What came of a stream.

    Attributes:
        source: its name, without user and password.
        seconds: of video.
        num_frames: frames that came.
        num_answers: windows answered.
        skipped: windows that were not, because a later one was complete already.
        dropped: frames that windows had wanted, or the video, and that the model had no time for.
        undecodable: packets that do not decode.
        reconnected: connections lost and made again.
        lost: why the connection is gone for good; "" where it is not.
        frames_seen: frames of all windows.
        frames_computed: how many of these were computed, and not kept from a window before.
        lags_ms: from the arrival of a window's last frame to its answer, of the last 10,000 answers.
    """

    source: str
    seconds: float = 0.0
    num_frames: int = 0
    num_answers: int = 0
    skipped: int = 0
    dropped: int = 0
    undecodable: int = 0
    reconnected: int = 0
    lost: str = ""
    frames_seen: int = 0
    frames_computed: int = 0
    lags_ms: list[float] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """All of it for JSON; of the lags median, 90th percentile and maximum."""
        facts = {key: value for key, value in vars(self).items() if key != "lags_ms"}
        if self.lags_ms:
            middle, high, most = np.percentile(self.lags_ms, [50, 90, 100])
            facts["lag_ms"] = {"median": float(middle), "p90": float(high), "max": float(most)}
        return facts


class WindowStream:
    """Frames in, answers out: windows found, scored, labeled.

    Several frames at once mean that the model is behind: of the windows complete with them only the last
    is answered. Windows never reach across a break of the source.
    """

    def __init__(self, scorer: WindowScorer, grid: WindowGrid, labels: WindowLabels) -> None:
        self.skipped = 0
        self._scorer, self._labels = scorer, labels
        self._finder = WindowFinder(grid, scorer.num_consecutive)
        self._part = 0

    def feed(self, frames: list[LiveFrame]) -> list[Answer]:
        """The answers that are due with these frames, which follow those before."""
        complete: list[tuple[int, list[Stack]]] = []
        for frame in frames:
            complete += self._finder.feed(frame)
        if len(frames) > 1 and len(complete) > 1:
            self.skipped += len(complete) - 1
            complete = complete[-1:]
        return [self._answer(window, members) for window, members in complete]

    def _answer(self, window: int, stacks: list[Stack]) -> Answer:
        if stacks[0][0].part != self._part:
            self._part = stacks[0][0].part
            self._labels.reset()
        logits = self._scorer.score([stack[0].number for stack in stacks], list(map(images_of, stacks)))
        arrived = stacks[-1][-1].arrived
        return self._labels.answer(window, logits, lag_ms=1000 * (time.perf_counter() - arrived))


class Stream:
    """A source that is open, and all that answers need; `run` reads it to its end.

    Attributes:
        grid: the windows.
        summary: filled in as it runs.
        description: how windows lie and what is reused, in words.
    """

    def __init__(
        self,
        predictor: Predictor,
        source: str,
        *,
        windows: WindowConfig,
        live: LiveConfig,
        calibration: Calibration | None = None,
        protocol: Protocol | None = None,
    ) -> None:
        """Open a file, a camera by its number, or an address.

        Raises:
            VideoError: it cannot be opened; says why.
            ConfigError: a run that has no windows (see `WindowScorer`), a calibration of other classes, `every_frames`
                of a source whose rate is unknown.
        """
        if calibration is not None and calibration.classes != predictor.classes:
            raise ConfigError(
                f"The calibration is for {len(calibration.classes)} classes, for example {calibration.classes[0]!r}, and "
                f"the run has {len(predictor.classes)}, or others; fit it on scores of this run with `vsn calibrate`."
            )
        self._predictor, self._live = predictor, live
        self._scorer = WindowScorer(predictor, protocol=protocol)
        self._source = Source(source, live)
        try:
            self.grid, self.description = self._plan(windows)
        except BaseException:
            self._source.close()
            raise
        self.summary = StreamSummary(self._source.name)
        self.announced_seconds = self._source.announced_seconds
        self._windows = WindowStream(
            self._scorer, self.grid, WindowLabels(predictor.classes, windows, self.grid, calibration)
        )

    def run(
        self,
        on_answer: Callable[[Answer], None],
        *,
        video: Path | None = None,
        stop: StopRequest | None = None,
        on_seconds: Callable[[float], None] = lambda seconds: None,
    ) -> StreamSummary:
        """Read the source to its end, or until `stop` comes; every answer goes to `on_answer` at once.

        A connection that is lost for good ends it too, once there were answers; the summary says so.

        Args:
            on_answer: what is done with an answer.
            video: write the source's pictures there with what is said of them, as MP4, whole or not at all.
            stop: a request to stop.
            on_seconds: told how far it is.

        Raises:
            VideoError: nothing could be read, or it ended before the first window was complete.
        """
        count = self._scorer.num_consecutive
        live = self._live
        if video is None:  # small images: as many instants may wait as of single frames
            live = replace(live, max_waiting=live.max_waiting * count)
        reader = LiveReader(
            self._source,
            live,
            short_side=self._scorer.short_side,
            wanted=WantedFrames(self.grid, count),
            pictures=video is not None,
        )
        try:
            taken = self._answered(reader, on_answer, stop, on_seconds)
            if video is None:
                for _ in taken:
                    pass
            else:
                rate = self._source.frames_per_second or USUAL_RATE
                write_video(video, _annotated(taken, rate), frames_per_second=rate)
        finally:
            reader.close()
            self._count(reader)
        if not self.summary.num_answers and not (stop is not None and stop.requested):
            raise VideoError(
                self._source.name,
                f"it ended after {self.summary.num_frames} frames, {self.summary.seconds:.2f} seconds, before a window of "
                f"{self.grid.seconds:.2f} seconds was complete; take shorter ones with --seconds, or `vsn predict` without "
                "windows.",
            )
        return self.summary

    def _plan(self, windows: WindowConfig) -> tuple[WindowGrid, str]:
        grid, why = plan_grid(self._predictor.recipe, windows, self._source, num_frames=self._scorer.num_frames)
        count = self._scorer.num_consecutive
        seen = f"{grid.num_frames} frames, one" if count == 1 else f"{grid.num_frames} times {count} frames in a row,"
        return grid, (
            f"Windows of {grid.seconds:.2f} seconds ({why}), {seen} every "
            f"{grid.step_seconds * grid.spacing:.3f} seconds, an answer every {grid.every:.3f} seconds. {self._scorer.note}"
        )

    def _answered(
        self,
        reader: LiveReader,
        on_answer: Callable[[Answer], None],
        stop: StopRequest | None,
        on_seconds: Callable[[float], None],
    ) -> Iterator[tuple[LiveFrame, Answer | None]]:
        """Every frame that was handed over, with what was said last when it had come."""
        last: Answer | None = None
        while stop is None or not stop.requested:
            try:
                frames = reader.take(_POLL_SECONDS)
            except VideoError as error:
                if not self.summary.num_answers:
                    raise
                self.summary.lost = error.reason
                return
            if frames is None:
                return
            for answer in self._windows.feed(frames) if frames else []:
                last = answer
                self.summary.num_answers += 1
                self.summary.lags_ms = [*self.summary.lags_ms[-9999:], answer.lag_ms]
                self.summary.dropped = reader.dropped
                on_answer(answer)
            for frame in frames:
                self.summary.seconds = frame.end
                yield frame, last
            if frames:
                on_seconds(frames[-1].end)

    def _count(self, reader: LiveReader) -> None:
        summary = self.summary
        summary.num_frames, summary.dropped = reader.num_frames, reader.dropped
        summary.seconds = max(summary.seconds, reader.seconds)
        summary.skipped = self._windows.skipped
        summary.undecodable, summary.reconnected = self._source.undecodable, self._source.reconnected
        summary.frames_seen, summary.frames_computed = (
            self._scorer.num_frames_seen,
            self._scorer.num_frames_computed,
        )


def _annotated(taken: Iterator[tuple[LiveFrame, Answer | None]], rate: float) -> Iterator[np.ndarray]:
    """The pictures with their labels, at a constant rate: repeated over gaps, left out where they come faster."""
    written = 0
    for frame, answer in taken:
        assert frame.picture is not None
        said = ("\u2026", None) if answer is None else (answer.label, answer.probability)
        due = round(frame.end * rate) - written
        if due > _LONGEST_STILL * rate:
            written, due = written + due - 1, 1
        if due > 0:
            image = draw_label(frame.picture, *said)
            yield from (image for _ in range(due))
            written += due


_LABEL, _NO_LABEL = (255, 200, 60), (150, 150, 150)


def draw_label(picture: np.ndarray, label: str, probability: float | None) -> np.ndarray:
    """The picture with a dark band at its foot: the label, and a bar as long as it is probable.

    Args:
        picture: uint8 ``(H, W, 3)``, RGB; it is left as it is.
        label: a class name, "unknown", or whatever is to be said.
        probability: a share of 1; None draws no bar.

    Returns:
        uint8 ``(H', W', 3)``: H and W, less one pixel where they are odd, as H.264 wants them.
    """
    height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
    image = Image.fromarray(np.ascontiguousarray(picture[:height, :width]))
    band = max(16, height // 9)
    draw = ImageDraw.Draw(image, "RGBA")
    top = max(0, height - band)
    draw.rectangle((0, top, width, height), fill=(0, 0, 0, 170))
    font = ImageFont.load_default(size=max(8, round(band * 0.52)))
    color = _NO_LABEL if label == UNKNOWN or probability is None else _LABEL
    said = label if probability is None else f"{probability:.0%}  {label}"
    margin = max(2, band // 6)
    draw.text((margin, top + margin // 2), _fitting(draw, said, font, width - 2 * margin), font=font, fill=color)
    if probability is not None:
        bar = max(2, band // 8)
        right = margin + round((width - 2 * margin) * min(1.0, max(0.0, probability)))
        draw.rectangle((margin, height - bar - margin // 2, right, height - margin // 2), fill=color)
    return np.asarray(image)


def _fitting(
    draw: ImageDraw.ImageDraw, said: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int
) -> str:
    """As much of a text as there is room for."""
    if draw.textlength(said, font=font) <= room:
        return said
    while said and draw.textlength(f"{said}\u2026", font=font) > room:
        said = said[:-1]
    return f"{said}\u2026"
