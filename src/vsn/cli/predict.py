"""`vsn predict`: labels of video files, or timelines of long ones."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from rich.console import Console

from vsn.cli.options import Device, Weights
from vsn.config import PreLabelFormat, WindowConfig
from vsn.system.files import to_json
from vsn.system.numbers import percent
from vsn.system.terminal import join_labels

if TYPE_CHECKING:
    from vsn.inference.predict import TwoStreamPredictor
    from vsn.inference.prediction import Prediction
    from vsn.inference.predictor import Predictor
    from vsn.scores.calibrate import Calibration
    from vsn.scores.segments import Segment
    from vsn.stream.stream import Stream
    from vsn.stream.timeline import Timeline
    from vsn.system.interrupt import StopRequest


@dataclasses.dataclass(frozen=True)
class TimelineFiles:
    """Files that a timeline is written to, and compared with."""

    out: Path | None = None
    """With --windows: write the timeline there as JSON, with the label of every window."""
    plot: Path | None = None
    """With --windows: draw it there (.svg or .png); needs vsn-video[plot]."""
    truth: Path | None = None
    """With --windows: a CSV start,end,label of true labels; prints segment mAP, edit score, share of the time right."""
    pre_labels: Path | None = None
    """With --windows: write the segments of all videos there, in a format that people correct in a tool and train on."""
    pre_label_format: PreLabelFormat = "label-studio"
    """The format of --pre-labels: one that data.source reads."""
    pre_label_rate: float = 0.0
    """The framerate of the tag <Video> in Label Studio, by which it counts frames; 0: that of each video."""


def predict(
    run: Annotated[Path, tyro.conf.Positional],
    videos: Annotated[list[Path], tyro.conf.Positional],
    flow_run: Path | None = None,
    flow_weight: float = 1.0,
    calibration: Path | None = None,
    top_k: int = 5,
    weights: Weights = "last",
    device: Device = "auto",
    precision: Literal["fp32", "bf16"] = "fp32",
    json_output: Annotated[bool, tyro.conf.arg(name="json")] = False,
    start: float = 0.0,
    end: float | None = None,
    save: Path | None = None,
    windows: bool = False,
    sliding: Annotated[WindowConfig, tyro.conf.arg(name="")] = WindowConfig(),  # noqa: B008  (frozen)
    files: Annotated[TimelineFiles, tyro.conf.arg(name="")] = TimelineFiles(),
) -> None:
    """Label video files, or all video files of a folder. A flow model computes the flow, or takes stored flow.

    With --windows a long file gets a timeline: labels of sliding windows, smoothed and merged
    (docs/stream.md). A file that cannot be read gets one line with the reason, and the exit status is 1.

    Args:
        run: a run folder, hf://user/name on the Hugging Face hub, or a file that `vsn export` wrote.
        videos: video files or folders of them.
        flow_run: a run on flow, whose probabilities are averaged with those of the run.
        flow_weight: weight of the flow run; that of the run is 1.
        calibration: a file that `vsn calibrate` wrote for this run: its temperature is applied, and below its
            threshold the label is "unknown".
        top_k: how many labels to print.
        precision: of an OpenVINO .xml file. bf16 is faster and less exact; the CPU must support it.
        json_output: print one JSON object per line.
        start: label the part of each video from here on, in seconds.
        end: end of that part; default the end of the video.
        save: a folder for pictures: of each video some frames with its labels; with --windows a copy of the video that
            shows the label at each time.
        windows: a timeline for each file, not one label.
        sliding: with --windows: length and stride of the windows, and when a label counts.
        files: files that a timeline is written to, and compared with.
    """
    from vsn.data.video import Part
    from vsn.inference.exported_metadata import is_exported
    from vsn.inference.prediction import check_top_k
    from vsn.inference.predictor import open_predictor
    from vsn.scores.calibrate import load_calibration

    check_top_k(top_k)
    part = Part(start, end) if start or end is not None else None
    # Options of timelines that were given; a default may be given too, and does no harm.
    changed = [
        f"--{field.name.replace('_', '-')}"
        for options in (sliding, files)
        for field in dataclasses.fields(options)
        if getattr(options, field.name) != field.default
    ]
    # A combination of options that is not possible, and what is wrong with it.
    refused = [
        (not videos, "vsn predict needs video files, or folders of them, after the run folder."),
        (changed and not windows, f"{' '.join(changed[:1])} is for timelines; add --windows, or leave it out."),
        (windows and part, "--start and --end are for labels; a timeline covers the whole file. Leave them out."),
        (windows and flow_run, "--flow-run does not work with --windows: a timeline takes one run on frames."),
        (
            is_exported(run) and flow_run,
            f"--flow-run needs a run folder; {run} is an exported file, with one model for the CPU.",
        ),
    ]
    # All before a model is opened, which takes seconds.
    for condition, message in refused:
        if condition:
            raise ValueError(message)
    if windows and files.plot is not None:
        from vsn.stream.timeline import check_plot

        check_plot(files.plot)
    calibrated = load_calibration(calibration) if calibration is not None else None
    single = open_predictor(run, device=device, weights=weights, precision=precision)
    predictor: Predictor | TwoStreamPredictor = single
    if flow_run is not None:
        from vsn.inference.predict import TwoStreamPredictor

        of_flow = open_predictor(flow_run, device=device, weights=weights)
        predictor = TwoStreamPredictor(single, of_flow, flow_weight=flow_weight)
    check_calibrated(predictor, calibrated)
    if windows:
        _predict_timelines(single, videos, sliding, files, calibrated, save, top_k=top_k, json_output=json_output)
        return

    def predict_labels(file: Path) -> None:
        # Calibration changes the probabilities of all classes.
        prediction = predictor.predict(file, top_k=len(predictor.classes) if calibrated else top_k, part=part)
        if calibrated is not None:
            prediction = prediction.calibrated(calibrated, top_k=top_k)
        print_prediction(prediction, json_output=json_output)
        if save is not None:
            from vsn.inference.pictures import write_contact_sheet

            template = predictor.recipe.data.frame_template
            write_contact_sheet(_saved_as(save, file, ".jpg", taken), prediction, frame_template=template, part=part)

    taken: set[Path] = set()
    inputs = _list_inputs(predictor, videos)
    _for_each_file(inputs, predict_labels, json_output=json_output)


def _list_inputs(predictor: Predictor | TwoStreamPredictor, videos: Sequence[Path]) -> list[Path]:
    from vsn.inference.inputs import describe_unread

    for note in filter(None, (describe_unread(predictor.recipe, path) for path in videos)):
        print(f"Note: {note}", file=sys.stderr)
    return [file for path in videos for file in predictor.list_inputs(path)]


def check_calibrated(predictor: Predictor | TwoStreamPredictor, calibration: Calibration | None) -> None:
    """Refuse a calibration of other weights, and note on standard error if it was fitted on other views."""
    from vsn.scores.calibrate import check_calibration

    if calibration is None:
        return
    view = predictor.recipe.eval
    note = check_calibration(calibration, weights=predictor.weight_shares, protocol=view.protocol, average=view.average)
    if note:
        print(f"Note: {note}", file=sys.stderr)


def _for_each_file(files: Sequence[Path], work: Callable[[Path], None], *, json_output: bool) -> None:
    """Call ``work`` on every file. An unreadable file among thousands does not cost the others their labels."""
    from vsn.data.video import VideoError
    from vsn.system.interrupt import stop_requests

    failed = False
    with stop_requests(raises=True) as stop:
        for file in files:
            try:
                work(file)
            except VideoError as error:
                failed = True
                if json_output:
                    print(to_json({"path": str(file), "error": error.reason}))
                else:
                    print(f"{file}: cannot be read: {error.reason}", file=sys.stderr)
            stop.check()
    if failed:
        raise SystemExit(1)


def _saved_as(folder: Path, video: Path, suffix: str, taken: set[Path]) -> Path:
    """Return the path for a picture of a video in ``folder``; videos of one name in two folders get two names."""
    numbers = itertools.count(2)
    path = folder / f"{video.stem}{suffix}"
    while path in taken or path.resolve() == video.resolve():
        path = folder / f"{video.stem}-{next(numbers)}{suffix}"
    taken.add(path)
    return path


def print_prediction(prediction: Prediction, *, json_output: bool) -> None:
    """Print one line, or in a narrow terminal one a label; "unknown" if the best is below the calibration's threshold."""
    pairs = list(zip(prediction.labels, prediction.probabilities, strict=True))
    if json_output:
        labels = [{"label": name, "probability": probability} for name, probability in pairs]
        unknown = {} if prediction.accepted else {"unknown": True}
        print(to_json({"path": str(prediction.path), "predictions": labels, **unknown}))
        return
    line = join_labels([f"{name} {percent(probability)}" for name, probability in pairs])
    text = f"{prediction.path}: {line if prediction.accepted else f'unknown ({line})'}"
    console = Console()
    # One line a video is for programs that read it. In a terminal too narrow for it, one a label: it would break in words.
    if console.is_terminal and len(text) > console.width:
        rows = [f"  {percent(probability):>6}  {name}" for name, probability in pairs]
        text = "\n".join([f"{prediction.path}:{'' if prediction.accepted else ' unknown'}", *rows])
    print(text)


def _predict_timelines(
    predictor: Predictor,
    videos: Sequence[Path],
    sliding: WindowConfig,
    files: TimelineFiles,
    calibration: Calibration | None,
    save: Path | None,
    *,
    top_k: int,
    json_output: bool,
) -> None:
    """Print a timeline per file, and write those of ``files`` and, into ``save``, videos with their labels."""
    from vsn.stream.timeline import read_truth
    from vsn.system.interrupt import stop_requests

    # Checked before the first video, which may take an hour.
    truth = read_truth(files.truth, predictor.classes) if files.truth is not None else ()
    inputs = _list_inputs(predictor, videos)
    for option in ("out", "plot", "truth"):
        if getattr(files, option) is not None and len(inputs) > 1:
            raise ValueError(f"--{option} is for one video, got {len(inputs)}.")
    if files.pre_label_format == "cvat" and files.pre_labels is not None and len(inputs) > 1:
        raise ValueError(f"--pre-label-format cvat is for one video, got {len(inputs)}.")
    timelines: list[Timeline] = []
    taken: set[Path] = set()
    with stop_requests() as stop:

        def predict_timeline(file: Path) -> None:
            timeline = _timeline(predictor, file, sliding, calibration, stop)
            timelines.append(timeline)
            if save is not None:
                from vsn.stream.labeled_video import write_labeled_video

                template = predictor.recipe.data.frame_template
                write_labeled_video(_saved_as(save, file, ".mp4", taken), timeline, frame_template=template)
            _write_timeline(timeline, predictor.classes, files, truth, top_k=top_k, json_output=json_output)
            if files.pre_labels is not None:  # after each: an hour of labels is not lost with a later video
                _write_pre_labels(predictor, timelines, files)
            # Ctrl-C ends the video early: what was labeled until then is written above.
            if stop.requested:
                print("vsn: stopped; the timeline ends there", file=sys.stderr)
                raise SystemExit(stop.exit_status)

        _for_each_file(inputs, predict_timeline, json_output=json_output)


def _write_pre_labels(predictor: Predictor, timelines: Sequence[Timeline], files: TimelineFiles) -> None:
    """Write the segments of all timelines so far to the file of ``files``."""
    from vsn.data.readers.segments import TimedLabel, VideoLabels
    from vsn.data.readers.write import write_pre_labels
    from vsn.data.video import open_video

    videos = []
    for timeline in timelines:
        segments = [TimedLabel(one.start, one.end, one.label, one.score) for one in timeline.segments]
        with open_video(timeline.path, frame_template=predictor.recipe.data.frame_template) as video:
            size = (video.num_frames, video.metadata.height, video.metadata.width)
            rate, begins = video.frames_per_second, video.begins
            videos.append(VideoLabels(Path(timeline.path), video.ends, rate, *size, segments, begins))
    assert files.pre_labels is not None
    write_pre_labels(files.pre_labels, files.pre_label_format, videos, predictor.classes, rate=files.pre_label_rate)


def _timeline(
    predictor: Predictor, file: Path, sliding: WindowConfig, calibration: Calibration | None, stop: StopRequest
) -> Timeline:
    """Make the timeline of a file. Prints no results: while a bar is shown, rich redirects stdout to its terminal."""
    from vsn.stream.timeline import make_timeline
    from vsn.system.progress import progress_bar

    with progress_bar("s") as bar:
        task = bar.add_task("seconds of video", total=None, note=file.name)

        def start(stream: Stream) -> None:
            print(stream.description, file=sys.stderr)
            bar.update(task, total=stream.announced_seconds)

        return make_timeline(
            predictor,
            file,
            windows=sliding,
            calibration=calibration,
            stop=stop,
            on_start=start,
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
    """Print a timeline, and write it to those of ``files``."""
    from vsn.cli.stream import describe_breaks, prediction_to_dict
    from vsn.scores.segments import LabeledVideo, score_segments
    from vsn.stream.timeline import write_plot
    from vsn.system.files import write_json

    values = timeline.to_dict()
    video = LabeledVideo(timeline.segments, truth, timeline.seconds, timeline.begins)
    scores = score_segments([video]) if truth else None
    if scores is not None:
        values["measures"] = scores.to_json()
    if files.out is not None:
        predictions = [prediction_to_dict(prediction, classes, top_k) for prediction in timeline.predictions]
        for prediction in predictions:
            del prediction["lag_ms"]  # meaningless for a file
        write_json(files.out, values | {"predictions": predictions})
    if files.plot is not None:
        write_plot(timeline, classes, files.plot, truth=truth)
    if json_output:
        print(to_json(values))
        return
    for segment in timeline.segments:
        print(f"{segment.start:8.1f} to {segment.end:8.1f} s  {percent(segment.score, 0):>4}  {segment.label}")
    # Seconds without a confident label belong to no segment.
    labeled = sum(segment.end - segment.start for segment in timeline.segments)
    shown = timeline.seconds - timeline.begins
    print(f"{timeline.path}: {shown:.1f} seconds, {percent(labeled / shown, 0)} of them with a label")
    if breaks := describe_breaks(timeline.parts):
        print(breaks)
    if scores is not None:
        print(f"Compared with {files.truth}: {scores}")
