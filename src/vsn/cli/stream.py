"""`vsn stream`: label a webcam, a network stream or a long file while it plays."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from vsn.cli.options import Device, RunProtocol, Weights
from vsn.config import LiveConfig, WindowConfig
from vsn.system.files import to_json
from vsn.system.numbers import percent

if TYPE_CHECKING:
    from vsn.stream.labels import WindowPrediction
    from vsn.stream.stream import Stream, StreamSummary


_BREAKS_SHOWN = 5


def stream(
    run: Annotated[Path, tyro.conf.Positional],
    sources: Annotated[list[str], tyro.conf.Positional],
    windows: Annotated[WindowConfig, tyro.conf.arg(name="")] = WindowConfig(),  # noqa: B008  (frozen)
    live: Annotated[LiveConfig, tyro.conf.arg(name="")] = LiveConfig(),  # noqa: B008
    calibration: Path | None = None,
    out: Path | None = None,
    video: Path | None = None,
    top_k: int = 3,
    protocol: RunProtocol = None,
    weights: Weights = "last",
    device: Device = "auto",
) -> None:
    """Label a webcam, a network stream or a file as it plays, one JSON object per window.

    Several sources share one model. Ctrl-C ends it with a summary. docs/stream.md explains the output.

    Args:
        run: a run folder on frames or their differences, hf://user/name, or a file that `vsn export` wrote.
        sources: video files (played in real time), numbers of webcams, RTSP or HTTP addresses; one or several.
        windows: length and stride of the windows, and when a label counts.
        live: how the source is read.
        calibration: a file that `vsn calibrate --out` wrote: its temperature, and its threshold for "unknown".
        out: write the labels there, one line per window, instead of printing them.
        video: write the frames there with label and probability drawn on them, as MP4.
        top_k: classes per window.
    """
    from vsn.cli.predict import check_calibrated
    from vsn.inference.prediction import check_top_k
    from vsn.inference.predictor import open_predictor
    from vsn.scores.calibrate import load_calibration
    from vsn.stream.stream import Stream, run_streams
    from vsn.system.interrupt import stop_requests
    from vsn.system.progress import progress_bar

    check_top_k(top_k)
    if not sources:
        raise ValueError("vsn stream needs a source after the run: a file, the number of a webcam, or an address.")
    if video is not None and len(sources) > 1:
        raise ValueError(f"--video is for one source, got {len(sources)}.")
    if video is not None and video.suffix.lower() != ".mp4":
        raise ValueError(f"--video is {str(video)!r}; it is written as .mp4.")
    calibrated = load_calibration(calibration) if calibration is not None else None
    predictor = open_predictor(run, device=device, weights=weights)
    check_calibrated(predictor, calibrated)
    with contextlib.ExitStack() as stack:
        opened: list[Stream] = []
        for source in sources:
            one = Stream(predictor, source, windows=windows, live=live, calibration=calibrated, protocol=protocol)
            stack.callback(one.close)
            opened.append(one)
            print(f"{one.summary.source}: " * (len(sources) > 1) + one.description, file=sys.stderr)
        _name_sources(opened)
        lines = sys.stdout
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            lines = stack.enter_context(out.open("w", encoding="utf-8"))
        # A progress bar would mix with labels printed on the same terminal.
        mixed = out is None and sys.stdout.isatty()
        stop = stack.enter_context(stop_requests())
        bar = stack.enter_context(progress_bar("s", disable=mixed))
        task = bar.add_task(
            "seconds of video", total=opened[0].announced_seconds if len(opened) == 1 else None, note=""
        )

        def write(stream: Stream, prediction: WindowPrediction) -> None:
            name = {"source": stream.summary.source} if len(opened) > 1 else {}
            values = prediction_to_dict(prediction, predictor.classes, top_k)
            # Flushed, because a program at the other end of a pipe reacts to each line.
            print(to_json(name | values | {"dropped": stream.summary.dropped}), file=lines, flush=True)
            bar.update(task, note=f"{prediction.label} {percent(prediction.probability, 0)}")

        def show(seconds: float) -> None:
            bar.update(task, completed=round(seconds))

        if video is not None:
            opened[0].run(lambda prediction: write(opened[0], prediction), video=video, stop=stop, on_seconds=show)
        else:
            run_streams(opened, write, stop=stop, on_seconds=show)
    for one in opened:
        print(describe_summary(one.summary), file=sys.stderr)
    # A webcam that was unplugged is a failure, the end of a file is not.
    if any(one.summary.lost for one in opened):
        raise SystemExit(1)


def _name_sources(streams: Sequence[Stream]) -> None:
    """Number sources whose names are equal: without user, password and query two URLs may be."""
    counts: Counter[str] = Counter()
    for stream in streams:
        name = stream.summary.source
        counts[name] += 1
        if counts[name] > 1:
            stream.summary.source = f"{name} ({counts[name]})"


def prediction_to_dict(prediction: WindowPrediction, classes: tuple[str, ...], top_k: int) -> dict[str, Any]:
    """Return the prediction of one window for JSON: times, label, the most probable classes, lag."""
    best = prediction.smoothed.argsort()[::-1][:top_k]
    return {
        "start": round(prediction.start, 3),
        "end": round(prediction.end, 3),
        "label": prediction.label,
        "probability": round(prediction.probability, 6),
        "top": [{"label": classes[i], "probability": round(float(prediction.smoothed[i]), 6)} for i in best],
        "lag_ms": round(prediction.lag_ms, 1),
    }


def describe_breaks(parts: Sequence[tuple[float, float]]) -> str:
    """List where windows start over: at long pauses and restarts of the clock. Empty for a source of one part."""
    breaks = [
        f"{end:.1f} to {start:.1f} s" if start - end > 0.05 else f"{start:.1f} s"
        for (_, end), (start, _) in itertools.pairwise(parts)
    ]
    if not breaks:
        return ""
    more = f" and {len(breaks) - _BREAKS_SHOWN} more" if len(breaks) > _BREAKS_SHOWN else ""
    return f"no window spans the breaks at {', '.join(breaks[:_BREAKS_SHOWN])}{more}"


def describe_summary(summary: StreamSummary) -> str:
    """Summarize a stream in a few lines."""
    lines = [
        f"{summary.source}: {summary.seconds:.1f} seconds, {summary.num_frames} frames, "
        f"{summary.num_predictions} predictions"
    ]
    if summary.lags_ms:
        median, p90, largest = np.percentile(summary.lags_ms, [50, 90, 100])
        lines.append(f"lag: median {median:.0f} ms, 90% within {p90:.0f} ms, at most {largest:.0f} ms")
    if summary.frames_seen:
        lines.append(
            f"{summary.frames_computed} of the {summary.frames_seen} frames of all windows were computed, the others "
            "reused"
        )
    lines.append(f"dropped: {summary.dropped} frames; skipped: {summary.skipped} windows")
    if breaks := describe_breaks(summary.parts):
        lines.append(breaks)
    if summary.undecodable:
        lines.append(f"{summary.undecodable} packets could not be decoded")
    if summary.reconnected:
        lines.append(f"reconnected {summary.reconnected} times")
    if summary.lost:
        lines.append(f"connection lost: {summary.lost}")
    return "\n".join(lines)
