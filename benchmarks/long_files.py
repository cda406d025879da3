"""Join the clips of each person of a data set into one long file with pauses, and list the clips as segments.

    python benchmarks/long_files.py ROOT OUT --group-pattern '(S\\d+)_' [--source csv] [--pauses 1 4] [--seed 0]

writes OUT/PERSON.mp4 at the person's frame rate and OUT/clips.csv (path,label,start,end,split). A pause shows the last half
second of the clip before it, where people are at rest, back and forth. `vsn train` learns from the segments, with
`data.background` from the pauses too, and `vsn eval RUN --windows` compares the timelines of whole files with them:

    vsn train differences-cpu --data.root OUT --data.source csv --data.flip swap --data.background 0.25 --out RUN
    vsn eval RUN --windows
    python benchmarks/long_files.py --collect results/long-files-gestures-cpu.json NAME=RUN ...

--collect gathers the results of `vsn eval --windows` of several runs into one file.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from common import describe_run
from joined import choose, frames_at_rate
from vsn.config import ConfigError, DataConfig, Source
from vsn.data.part import format_seconds
from vsn.data.readers import NoSplitError, read_records
from vsn.data.records import VideoRecord
from vsn.data.video import VideoError, open_video, write_video
from vsn.runs.run import open_run
from vsn.system.files import write_json, write_text

REST_SECONDS = 0.5
Row = tuple[str, str, str, str, str]


def pause(images: Sequence[np.ndarray], count: int, rate: float) -> list[np.ndarray]:
    """Return `count` frames that show the end of a clip back and forth."""
    rest = images[-max(2, round(REST_SECONDS * rate)) :]
    cycle = [*rest[::-1], *rest]
    return [cycle[i % len(cycle)] for i in range(count)]


def write_file(
    out: Path, records: Sequence[tuple[str, VideoRecord, str]], *, pauses: tuple[float, float], seed: int
) -> list[Row]:
    """Write one long file of clips, each (split, record, label), and return the rows of its segments."""
    generator = np.random.default_rng(seed)
    rates = []
    for _, record, _ in records:
        with open_video(record.path) as video:
            rates.append(video.frames_per_second)
    rate = float(statistics.median(rates))
    rows: list[Row] = []

    def all_frames() -> Iterator[np.ndarray]:
        size, shown = None, 0
        for split, record, label in records:
            images = frames_at_rate(record.path, rate, size)
            size = images[0].shape[:2]
            # Before and after each clip, so that a file begins and ends with nothing.
            counts = [round(float(seconds) * rate) for seconds in generator.uniform(*pauses, 2) / 2]
            for part in (pause(images[::-1], counts[0], rate), images, pause(images, counts[1], rate)):
                if part is images:
                    times = (format_seconds(shown / rate), format_seconds((shown + len(images)) / rate))
                    rows.append((out.name, label, *times, split))
                shown += len(part)
                yield from part

    write_video(out, all_frames(), frames_per_second=rate)
    return rows


def collect(output: Path, runs: Sequence[str]) -> None:
    """Write what `vsn eval --windows` saved for each NAME=RUN into one file."""
    rows: list[dict[str, Any]] = []
    for name, _, path in (run.partition("=") for run in runs):
        run = open_run(path)
        for file in sorted((run.path / "timelines").glob("*.json")):
            saved = json.loads(file.read_text(encoding="utf-8"))
            # Files are named after people, and their segments fill pages.
            files = [{"seconds": one["seconds"], "window_seconds": one["window_seconds"]} for one in saved["files"]]
            rows.append({
                "run": name,
                "background": run.recipe.data.background,
                "sampling": run.recipe.clip.sampling,
                "epochs": run.recipe.train.epochs,
                "seed": run.recipe.train.seed,
                **{key: saved[key] for key in ("split", "measures", "windows", "weights")},
                "files": files,
            })  # fmt: skip
    names = [run.partition("=")[0] for run in runs]
    facts = describe_run(__file__, ["--collect", output.name, *(f"{name}=RUN" for name in names)])
    write_json(output, facts | {"rows": rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", nargs="?", help="folder of the data set")
    parser.add_argument("out", nargs="?", type=Path)
    parser.add_argument("--group-pattern", default="", help="as data.group_pattern: finds the person in a path")
    parser.add_argument("--source", default="csv", choices=get_args(Source), help="reader of the data set")
    parser.add_argument("--pauses", nargs=2, type=float, default=(1.0, 4.0), help="seconds around a clip, from and to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--collect", nargs="+", metavar="OUT.json NAME=RUN")
    options = parser.parse_args()
    if options.collect:
        collect(Path(options.collect[0]), options.collect[1:])
        return
    # Whole splits: the long files state which people are held out.
    config = DataConfig(root=options.root, source=options.source, group_pattern=options.group_pattern, val_split="none")
    of_person: dict[str, list[tuple[str, VideoRecord, str]]] = {}
    for split in ("train", "val", "test"):
        try:
            records = read_records(config, split)
        except NoSplitError:
            continue
        chosen = choose(records.records, len(records.records), options.seed)
        for record in chosen:
            of_person.setdefault(record.group, []).append((split, record, records.classes[record.label]))
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, person in enumerate(sorted(of_person)):
        path = options.out / f"{person}.mp4"
        rows += write_file(path, of_person[person], pauses=tuple(options.pauses), seed=options.seed + number)
        print(f"{path}: {len(of_person[person])} segments, until {rows[-1][3]} seconds", flush=True)
    text = io.StringIO()
    csv.writer(text).writerows([("path", "label", "start", "end", "split"), *rows])
    write_text(options.out / "clips.csv", text.getvalue())


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, VideoError) as error:
        sys.exit(f"long_files.py: {error}")
