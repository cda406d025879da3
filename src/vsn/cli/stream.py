"""`vsn stream`: a camera, a stream or a long file, labeled as it comes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from vsn.config import LiveConfig, Protocol, WindowConfig

if TYPE_CHECKING:
    from vsn.stream.labels import WindowPrediction
    from vsn.stream.stream import StreamSummary


def stream(
    run: Annotated[Path, tyro.conf.Positional],
    source: Annotated[str, tyro.conf.Positional],
    windows: Annotated[WindowConfig, tyro.conf.arg(name="")] = WindowConfig(),  # noqa: B008  (frozen)
    live: Annotated[LiveConfig, tyro.conf.arg(name="")] = LiveConfig(),  # noqa: B008
    calibration: Path | None = None,
    out: Path | None = None,
    video: Path | None = None,
    top_k: int = 3,
    protocol: Protocol | None = None,
    weights: Literal["last", "best"] = "last",
    device: str = "auto",
) -> None:
    """Label a camera, a stream or a file as it plays, one JSON object a window.

    Ctrl-C ends it with a summary. docs/stream.md says what the numbers mean.

    Args:
        run: a run folder on frames or their differences, or hf://user/name.
        source: a video file (played in real time), the number of a camera, or an RTSP or HTTP address.
        windows: how long windows are, how often there is an answer, and when a label counts.
        live: how the source is read.
        calibration: what `vsn calibrate --out` wrote: its temperature, and its threshold for "unknown".
        out: write the answers there, a line each, instead of printing them.
        video: write the pictures there with label and probability drawn on them, as MP4, whole or not at all.
        top_k: classes of an answer.
        protocol: which crops of a frame; default the run's.
        weights: the last of the run, or those of its best validation.
        device: auto, cpu or cuda.
    """
    from vsn.inference.predict import Predictor
    from vsn.inference.prediction import check_top_k
    from vsn.scores.calibrate import load_calibration
    from vsn.stream.stream import Stream
    from vsn.system.interrupt import stop_requests
    from vsn.system.progress import progress_bar

    check_top_k(top_k)
    if video is not None and video.suffix.lower() != ".mp4":
        raise ValueError(f"--video is {str(video)!r}; it is written as MP4, so end its name in .mp4.")
    calibrated = load_calibration(calibration) if calibration is not None else None
    predictor = Predictor.from_run(run, device=device, weights=weights)
    opened = Stream(predictor, source, windows=windows, live=live, calibration=calibrated, protocol=protocol)
    print(opened.description, file=sys.stderr)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    lines = sys.stdout if out is None else out.open("w", encoding="utf-8")
    shown = out is not None or not sys.stdout.isatty()
    try:
        with stop_requests() as stop, progress_bar("s", disable=not shown) as bar:
            task = bar.add_task("seconds of video", total=opened.announced_seconds, note="")

            def say(answer: WindowPrediction) -> None:
                facts = answer_facts(answer, predictor.classes, top_k) | {"dropped": opened.summary.dropped}
                print(json.dumps(facts, ensure_ascii=False), file=lines, flush=True)
                bar.update(task, note=f"{answer.label} {answer.probability:.0%}")

            opened.run(
                say,
                video=video,
                stop=stop,
                on_seconds=lambda seconds: bar.update(task, completed=round(seconds)),
            )
    finally:
        if out is not None:
            lines.close()
    print(describe_summary(opened.summary), file=sys.stderr)
    if opened.summary.lost:
        raise SystemExit(1)


def answer_facts(answer: WindowPrediction, classes: tuple[str, ...], top_k: int) -> dict[str, Any]:
    """An answer for JSON: window, label, the most probable classes, lag."""
    best = answer.smoothed.argsort()[::-1][:top_k]
    return {
        "start": round(answer.start, 3),
        "end": round(answer.end, 3),
        "label": answer.label,
        "probability": round(answer.probability, 6),
        "top": [{"label": classes[i], "probability": round(float(answer.smoothed[i]), 6)} for i in best],
        "lag_ms": round(answer.lag_ms, 1),
    }


def describe_summary(summary: StreamSummary) -> str:
    """A few lines on what came of a stream."""
    lines = [
        f"{summary.source}: {summary.seconds:.1f} seconds, {summary.num_frames} frames, "
        f"{summary.num_predictions} predictions"
    ]
    if summary.lags_ms:
        median, p90, most = np.percentile(summary.lags_ms, [50, 90, 100])
        lines.append(f"lag: median {median:.0f} ms, 90% within {p90:.0f} ms, at most {most:.0f} ms")
    if summary.frames_seen:
        lines.append(
            f"{summary.frames_computed} of the {summary.frames_seen} frames of all windows were computed, the others kept"
        )
    lines.append(f"dropped: {summary.dropped} frames; skipped: {summary.skipped} windows")
    if summary.undecodable:
        lines.append(f"{summary.undecodable} packets did not decode and were passed over")
    if summary.reconnected:
        lines.append(f"the connection was lost and made again {summary.reconnected} times")
    if summary.lost:
        lines.append(f"it is lost for good: {summary.lost}")
    return "\n".join(lines)
