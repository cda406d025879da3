"""Make a task of any videos that only the order of two parts decides: beginning and end as filmed, or exchanged.

    python benchmarks/swapped_halves.py ROOT OUT [--source csv] [--short-side 128]

Of each video the first and the last 40% are kept and cut together, once in order and once exchanged. Both have one cut in
the middle and the same frames, so that a network that averages frames is right on half. OUT gets the videos and clips.csv,
with the groups and splits of the source: `vsn train differences-cpu --data.source csv --data.root OUT`.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path
from typing import get_args

import numpy as np

from vsn.config import DataConfig, Source
from vsn.data.readers import read_records
from vsn.data.video import at_constant_rate, open_video, write_video
from vsn.system.files import write_text

KEPT = 0.4
"""Share of a video in each part."""
CLASSES = ("in order", "exchanged")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", help="folder of the data set")
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", default=DataConfig.source, choices=get_args(Source), help="reader of the data set")
    parser.add_argument("--short-side", type=int, default=128, help="of the written videos, pixels")
    options = parser.parse_args()
    config = DataConfig(root=options.root, source=options.source)
    rows: list[tuple[str, str, str, str]] = []
    for split in (config.train_split, config.val_split, config.test_split):
        for record in read_records(config, split).records:
            with at_constant_rate(open_video(record.path, short_side=options.short_side)) as video:
                frames, rate = video.all_frames(), video.frames_per_second or 25.0
            count = round(KEPT * len(frames))
            even = frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
            parts = even[:count], even[len(even) - count :]
            for name, chosen in zip(CLASSES, (parts, parts[::-1]), strict=True):
                path = Path(name) / f"{len(rows):05d}.mp4"
                (options.out / path).parent.mkdir(parents=True, exist_ok=True)
                write_video(options.out / path, np.concatenate(chosen), frames_per_second=rate)
                rows.append((path.as_posix(), name, record.group or record.video_id, split))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("path", "label", "group", "split"))
    writer.writerows(rows)
    write_text(options.out / "clips.csv", text.getvalue())
    print(f"{options.out}: {len(rows)} videos")


if __name__ == "__main__":
    main()
