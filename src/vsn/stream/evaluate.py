"""Measure the timelines of the long files of a split (`vsn eval --windows`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from vsn.config import BACKGROUND, ConfigError, DataConfig, WindowConfig
from vsn.data.background import segments_of_files
from vsn.data.readers.splits import means
from vsn.inference.predictor import Predictor
from vsn.scores.segments import LabeledVideo, Segment, SegmentScores, score_segments
from vsn.stream.stream import Stream
from vsn.stream.timeline import Timeline, make_timeline
from vsn.system.interrupt import StopRequest


@dataclass(frozen=True)
class TimelineResult:
    """The timelines of the files of a split, and how well they agree with its segments."""

    split: str
    timelines: tuple[Timeline, ...]
    truth: tuple[tuple[Segment, ...], ...]
    """Of each file, all its labeled segments, also those of other splits."""
    scores: SegmentScores
    """Over all files."""
    num_skipped: int
    """Files left out, because they have training segments too."""

    def to_json(self) -> dict[str, Any]:
        """Return everything but the predictions of the windows."""
        files = [
            timeline.to_dict() | {"truth": [asdict(segment) for segment in truth]}
            for timeline, truth in zip(self.timelines, self.truth, strict=True)
        ]
        return {"split": self.split, "num_skipped": self.num_skipped, "measures": self.scores.to_json(), "files": files}


def evaluate_timelines(
    predictor: Predictor,
    data: DataConfig,
    split: str,
    *,
    windows: WindowConfig,
    stop: StopRequest | None = None,
    on_start: Callable[[Stream], None] = lambda stream: None,
    on_seconds: Callable[[float], None] = lambda seconds: None,
) -> TimelineResult:
    """Make the timeline of every file that has segments in a split, and compare it with all segments of the file.

    A file that has training segments too is left out, unless the split is that of training: a timeline covers the whole
    file. For the other arguments see `make_timeline`.

    Raises:
        ConfigError: no file is left, or as `Stream`.
        VideoError: a file cannot be read.
        Stopped: a stop was requested.
    """
    of_file = segments_of_files(data, split)
    if not of_file:
        raise ConfigError(
            f"{data.root}: split {split!r} has no segments (start and end), with which timelines are compared. Test clips "
            "without --windows."
        )
    is_training = means(split, data.train_split)
    chosen = [
        segments
        for segments in of_file.values()
        if is_training or not any(means(one.split, data.train_split) for one in segments)
    ]
    if not chosen:
        raise ConfigError(
            f"{data.root}: each of the {len(of_file)} files of split {split!r} has training segments too, and a timeline "
            "covers the whole file. Keep all segments of a file in one split."
        )
    timelines, truths = [], []
    for segments in chosen:
        timeline = make_timeline(
            predictor, segments[0].record.path, windows=windows, stop=stop, on_start=on_start, on_seconds=on_seconds
        )
        if stop is not None:
            stop.check()
        timelines.append(timeline)
        truths.append(
            tuple(
                Segment(one.record.start, timeline.seconds if one.record.end is None else one.record.end, name)
                for one in sorted(segments, key=lambda one: one.record.start)
                for name in one.class_names
                if name != BACKGROUND
            )
        )
    videos = [
        LabeledVideo(one.segments, truth, one.seconds, one.begins) for one, truth in zip(timelines, truths, strict=True)
    ]
    num_skipped = len(of_file) - len(chosen)
    return TimelineResult(split, tuple(timelines), tuple(truths), score_segments(videos), num_skipped)
