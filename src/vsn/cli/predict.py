"""`vsn predict`: labels for video files, or a timeline for long ones."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from vsn.cli.export import refuse_for_exported, refuse_for_run
from vsn.config import WindowConfig

if TYPE_CHECKING:
    from vsn.export.exported import ExportedPredictor
    from vsn.inference.predict import Predictor, TwoStreamPredictor
    from vsn.inference.prediction import Prediction
    from vsn.scores.calibrate import Calibration
    from vsn.stream.timeline import Segment, Timeline
    from vsn.system.interrupt import StopRequest


@dataclasses.dataclass(frozen=True)
class TimelineFiles:
    """What a timeline is written to, and compared with."""

    out: Path | None = None
    """With --windows: write the timeline there as JSON, with every answer."""
    plot: Path | None = None
    """With --windows: draw it there (.svg or .png); needs vsn[plot]."""
    truth: Path | None = None
    """With --windows: a CSV start,end,label of what is true; the output says how much of it was found."""


def predict(
    run: Annotated[Path, tyro.conf.Positional],
    videos: Annotated[list[Path], tyro.conf.Positional],
    flow_run: Path | None = None,
    flow_weight: float = 1.0,
    calibration: Path | None = None,
    top_k: int = 5,
    weights: Literal["last", "best"] = "last",
    device: str = "auto",
    precision: Literal["fp32", "bf16"] = "fp32",
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
    windows: bool = False,
    sliding: Annotated[WindowConfig, tyro.conf.arg(name="")] = WindowConfig(),  # noqa: B008  (frozen)
    files: Annotated[TimelineFiles, tyro.conf.arg(name="")] = TimelineFiles(),
) -> None:
    """Label video files, or all video files of a folder. A flow model computes the flow, or takes stored flow.

    With --windows a long file gets a timeline: labels of windows that slide over it, smoothed and merged
    (docs/stream.md). A file that cannot be read gets one line that says why; the others go on, and the exit
    status is 1.

    Args:
        run: a run folder, hf://user/name on the Hugging Face hub, or a file that `vsn export` wrote.
        videos: video files or folders of them.
        flow_run: a run on flow, whose probabilities are averaged with those of the run.
        flow_weight: weight of the flow run; that of the run is 1.
        calibration: what `vsn calibrate` wrote of this run: its temperature is applied, and below its threshold
            the answer is "unknown".
        top_k: how many labels to print.
        weights: the last of the run, or those of its best validation.
        device: auto, cpu or cuda.
        precision: of an OpenVINO .xml file: what it is computed in. bf16 is faster, less exact, and refused on a
            processor without it.
        json_output: print one JSON object a line, for other programs.
        windows: a timeline for each file, instead of one label.
        sliding: with --windows: how long windows are, how often there is an answer, and when a label counts.
        files: what a timeline is written to, and compared with.
    """
    if not videos:
        raise ValueError("vsn predict needs video files, or folders of them, after the run folder.")
    from vsn.scores.calibrate import load_calibration

    fitted = load_calibration(calibration) if calibration is not None else None
    if windows:
        refuse_for_run(run, precision=precision)
        _timelines(
            run, videos, sliding, files, weights=weights, device=device, top_k=top_k, json_output=json_output,
            flow_run=flow_run, calibration=fitted,
        )  # fmt: skip
        return
    unused = [
        f"--{field.name.replace('_', '-')}"
        for one in (sliding, files)
        for field in dataclasses.fields(one)
        if getattr(one, field.name) != field.default
    ]
    if unused:
        raise ValueError(f"{unused[0]} is for a timeline; add --windows, or leave it out.")
    _labels(
        _open_predictor(run, flow_run, flow_weight=flow_weight, weights=weights, device=device, precision=precision),
        videos,
        fitted,
        top_k=top_k,
        json_output=json_output,
    )


def _labels(
    predictor: Predictor | TwoStreamPredictor | ExportedPredictor,
    videos: list[Path],
    calibration: Calibration | None,
    *,
    top_k: int,
    json_output: bool,
) -> None:
    """A line for each file."""
    from vsn.data.video import VideoError

    files = [file for path in videos for file in predictor.list_inputs(path)]
    failed = False
    for file in files:
        try:
            prediction = predictor.predict(file, top_k=len(predictor.classes) if calibration else top_k)
        except VideoError as error:
            failed = True
            _say_unreadable(file, error.reason, json_output=json_output)
            continue
        if calibration is not None:
            prediction = prediction.calibrated(calibration, top_k=top_k)
        _print_prediction(prediction, json_output=json_output)
    if failed:
        raise SystemExit(1)


def _print_prediction(prediction: Prediction, *, json_output: bool) -> None:
    """One line; "unknown" stands before the labels of a video whose best label is below the threshold."""
    pairs = list(zip(prediction.labels, prediction.probabilities, strict=True))
    if json_output:
        labels = [{"label": name, "probability": probability} for name, probability in pairs]
        facts = {"path": str(prediction.path), "predictions": labels}
        print(json.dumps(facts if prediction.accepted else {**facts, "unknown": True}))
        return
    line = ", ".join(f"{name} {probability:.1%}" for name, probability in pairs)
    print(f"{prediction.path}: {line if prediction.accepted else f'unknown ({line})'}")


def _say_unreadable(file: Path, reason: str, *, json_output: bool) -> None:
    if json_output:
        print(json.dumps({"path": str(file), "error": reason}))
    else:
        print(f"{file}: cannot be read: {reason}", file=sys.stderr)


def _timelines(
    run: Path,
    videos: list[Path],
    sliding: WindowConfig,
    files: TimelineFiles,
    *,
    weights: Literal["last", "best"],
    device: str,
    top_k: int,
    json_output: bool,
    flow_run: Path | None,
    calibration: Calibration | None,
) -> None:
    """A timeline for each file."""
    from vsn.data.video import VideoError
    from vsn.export.exported import is_exported
    from vsn.inference.predict import Predictor
    from vsn.inference.prediction import check_top_k
    from vsn.stream.timeline import check_plot, read_truth
    from vsn.system.interrupt import stop_requests

    check_top_k(top_k)
    if flow_run is not None:
        raise ValueError("--flow-run takes whole clips; a timeline is made by one run on frames. Leave it out.")
    if is_exported(run):
        raise ValueError(f"{run} is an exported file; a timeline needs the run folder that it came from.")
    if files.plot is not None:
        check_plot(files.plot)
    predictor = Predictor.from_run(run, device=device, weights=weights)
    truth = read_truth(files.truth, predictor.classes) if files.truth is not None else ()
    listed = [file for path in videos for file in predictor.list_inputs(path)]
    for option in ("out", "plot", "truth"):
        if getattr(files, option) is not None and len(listed) > 1:
            raise ValueError(f"--{option} is for one video, and there are {len(listed)}; name one.")
    failed = False
    with stop_requests() as stop:
        for file in listed:
            try:
                timeline = _timeline(predictor, file, sliding, calibration, stop)
            except VideoError as error:
                failed = True
                _say_unreadable(file, error.reason, json_output=json_output)
                continue
            _write_timeline(timeline, predictor.classes, files, truth, top_k=top_k, json_output=json_output)
            if stop.requested:
                print("vsn: stopped; this is what there was of it", file=sys.stderr)
                raise SystemExit(130)
    if failed:
        raise SystemExit(1)


def _timeline(
    predictor: Predictor,
    file: Path,
    sliding: WindowConfig,
    calibration: Calibration | None,
    stop: StopRequest,
) -> Timeline:
    """The timeline of a file, behind a progress bar."""
    from vsn.stream.stream import Stream
    from vsn.stream.timeline import make_timeline
    from vsn.system.progress import progress_bar

    with progress_bar("s") as bar:
        task = bar.add_task("seconds of video", total=None, note=file.name)

        def begin(stream: Stream) -> None:
            print(stream.description, file=sys.stderr)
            bar.update(task, total=stream.announced_seconds)

        return make_timeline(
            predictor,
            file,
            windows=sliding,
            calibration=calibration,
            stop=stop,
            on_start=begin,
            on_seconds=lambda seconds: bar.update(task, completed=round(seconds)),
        )


def _write_timeline(
    timeline: Timeline,
    classes: tuple[str, ...],
    files: TimelineFiles,
    truth: tuple[Segment, ...],
    *,
    top_k: int,
    json_output: bool,
) -> None:
    """Print a timeline, and write the files that were asked for."""
    from vsn.cli.stream import answer_facts
    from vsn.stream.timeline import share_right, write_plot
    from vsn.system.files import write_json

    facts = timeline.to_dict()
    if truth:
        facts["share_right"] = share_right(timeline.segments, truth)
    if files.out is not None:
        answers = [answer_facts(one, classes, top_k) for one in timeline.predictions]
        for one in answers:
            del one["lag_ms"]
        write_json(files.out, facts | {"answers": answers})
    if files.plot is not None:
        write_plot(timeline, classes, files.plot, truth=truth)
    if json_output:
        print(json.dumps(facts, ensure_ascii=False))
        return
    for segment in timeline.segments:
        print(f"{segment.start:8.1f} to {segment.end:8.1f} s  {segment.score:4.0%}  {segment.label}")
    labeled = sum(one.end - one.start for one in timeline.segments)
    print(f"{timeline.path}: {timeline.seconds:.1f} seconds, {labeled / timeline.seconds:.0%} of them with a label")
    if truth:
        print(f"{facts['share_right']:.1%} of the time that {files.truth} labels has its label here")


def _open_predictor(
    run: Path,
    flow_run: Path | None,
    *,
    flow_weight: float,
    weights: Literal["last", "best"],
    device: str,
    precision: Literal["fp32", "bf16"],
) -> Predictor | TwoStreamPredictor | ExportedPredictor:
    """What predicts: an exported file, a run, or a run on frames and one on flow."""
    from vsn.export.exported import ExportedPredictor, is_exported

    if is_exported(run):
        refuse_for_exported(run, flow_run=flow_run, weights=weights, device=device)
        return ExportedPredictor.from_file(run, precision=precision)
    refuse_for_run(run, precision=precision)
    from vsn.inference.predict import Predictor, TwoStreamPredictor

    first = Predictor.from_run(run, device=device, weights=weights)
    if flow_run is None:
        return first
    second = Predictor.from_run(flow_run, device=device, weights=weights)
    return TwoStreamPredictor(first, second, flow_weight=flow_weight)
