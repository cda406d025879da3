"""Measure the share of the time that the timeline of a long file is right, by window length and smoothing.

    python benchmarks/timelines.py RUN OUT.json --video joined.mp4 joined.csv [--video ...] [--seconds 2 4] [--smooth 1 0]

`joined.py` creates the files and their true labels. Besides the given window lengths, the default of
`vsn predict --windows` is measured. Every window is labeled twice: with the default thresholds, below which it is
unknown, and without. Results of `vsn eval RUN` on single clips are included.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vsn.config import ConfigError, WindowConfig
from vsn.data.video import VideoError
from vsn.inference.predictor import Predictor
from vsn.runs.metadata import versions
from vsn.runs.run import RunError
from vsn.scores.segments import LabeledVideo, Segment, score_segments
from vsn.stream.timeline import make_timeline, read_truth
from vsn.system.allocator import keep_freed_memory
from vsn.system.files import write_json

THRESHOLDS = {"default": (WindowConfig.enter, WindowConfig.leave), "none": (0.0, 0.0)}


def examine(
    predictor: Predictor,
    video: Path,
    truth: tuple[Segment, ...],
    *,
    seconds: float | None,
    smooth: float,
    thresholds: str,
) -> dict[str, Any]:
    """Compare one timeline of a file with the truth; shares are of its seconds."""
    enter, leave = THRESHOLDS[thresholds]
    config = WindowConfig(seconds=seconds, smooth=smooth, enter=enter, leave=leave)
    timeline = make_timeline(predictor, video, windows=config)
    labeled = math.fsum(one.end - one.start for one in timeline.segments)
    scores = score_segments([LabeledVideo(timeline.segments, truth, timeline.seconds)])
    most = Counter(one.label for one in truth for _ in range(round(10 * (one.end - one.start)))).most_common(1)
    return {
        "video": video.name,
        "video_seconds": timeline.seconds,
        "window": "as in training" if seconds is None else "stated",
        "window_seconds": timeline.window_seconds,
        "every_seconds": timeline.every,
        "smooth": smooth,
        "thresholds": thresholds,
        "num_windows": len(timeline.predictions),
        "right": scores.share_right,
        "measures": scores.to_json(),
        "unknown": 1 - labeled / timeline.seconds,
        "most_frequent_class": most[0][1] / sum(round(10 * (one.end - one.start)) for one in truth),
    }


def tested(run: Path) -> list[dict[str, Any]]:
    """Return the results of `vsn eval` on single clips with frames in order."""
    files = sorted((run / "eval").glob("*-forward.json"))
    found = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    keys = ("split", "protocol", "num_videos", "top1", "top1_interval")
    return [{key: one[key] for key in keys} for one in found]


def main() -> None:
    keep_freed_memory()  # as the `vsn` command does
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("output", type=Path)
    parser.add_argument("--video", nargs=2, action="append", type=Path, required=True, metavar=("VIDEO", "TRUTH"))
    parser.add_argument("--seconds", nargs="*", type=float, default=[], help="window lengths")
    parser.add_argument("--smooth", nargs="+", type=float, default=[WindowConfig.smooth, 0.0])
    options = parser.parse_args()
    predictor = Predictor.from_run(options.run, device="cpu")
    recipe = predictor.recipe
    rows = []
    for video, truth_path in options.video:
        truth = read_truth(truth_path, predictor.classes)
        for seconds in (None, *options.seconds):
            for smooth in options.smooth:
                for thresholds in THRESHOLDS:
                    row = examine(predictor, video, truth, seconds=seconds, smooth=smooth, thresholds=thresholds)
                    rows.append(row)
                    print(
                        f"{row['video']}: windows of {row['window_seconds']:.2f} s, smooth {smooth:g}, thresholds "
                        f"{thresholds}: right {row['right']:.1%}, unknown {row['unknown']:.1%}",
                        flush=True,
                    )
    lengths = " ".join(f"{one:g}" for one in options.seconds)
    pairs = " ".join(f"--video {video.name} {truth.name}" for video, truth in options.video)
    facts = {
        "command": f"python benchmarks/timelines.py RUN {options.output.name} {pairs} --seconds {lengths} --smooth "
        f"{' '.join(f'{one:g}' for one in options.smooth)}",
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions(),
        "model": recipe.model.name,
        "modality": recipe.model.modality,
        "protocol": recipe.eval.protocol,
        "num_classes": len(predictor.classes),
        "seed": recipe.train.seed,
        "clips": tested(Path(options.run)),
        "rows": rows,
    }
    write_json(options.output, facts)


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, RunError, VideoError) as error:
        sys.exit(f"timelines.py: {error}")
