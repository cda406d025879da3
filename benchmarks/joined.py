"""Join the videos of a split in random order into one long video, with a CSV of the true labels over time.

python benchmarks/joined.py ROOT OUT.mp4 OUT.csv [--source csv] [--split test] [--videos 60] [--rate 20] [--seed 0]

`vsn predict RUN OUT.mp4 --windows --truth OUT.csv` labels the result and reports the share of the time that is right.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from vsn.config import ConfigError, DataConfig, Source
from vsn.data.readers import read_records
from vsn.data.records import VideoRecord
from vsn.data.video import VideoError, at_constant_rate, open_video, write_video
from vsn.data.video.resize import resize_rgb
from vsn.system.files import write_text


def choose(records: Sequence[VideoRecord], count: int, seed: int) -> list[VideoRecord]:
    """Return labeled records in an order drawn from the seed."""
    labeled = [record for record in records if record.labels and not record.reverse]
    order = np.random.default_rng(seed).permutation(len(labeled))
    return [labeled[i] for i in order[:count]]


def frames_at_rate(path: Path, rate: float, size: tuple[int, int] | None) -> list[np.ndarray]:
    """Return the frames of a video at `rate` per second, by repeating or dropping, with even height and width."""
    video = at_constant_rate(open_video(path))
    images, own_rate = video.all_frames(), video.frames_per_second
    own_rate = own_rate or rate
    count = max(1, round(len(images) / own_rate * rate))
    places = np.minimum((np.arange(count) * own_rate / rate).astype(int), len(images) - 1)
    height, width = size or (images.shape[1] // 2 * 2, images.shape[2] // 2 * 2)
    fits = images.shape[1:3] == (height, width)
    return [images[i] if fits else resize_rgb(images[i], height, width) for i in places]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", help="folder of the data set")
    parser.add_argument("video", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("--source", default=DataConfig.source, choices=get_args(Source), help="reader of the data set")
    parser.add_argument("--split", default=DataConfig.test_split)
    parser.add_argument("--videos", type=int, default=60)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    record_set = read_records(DataConfig(root=options.root, source=options.source), options.split)
    rows: list[tuple[float, float, str]] = []

    def all_frames() -> Iterator[np.ndarray]:
        size, shown = None, 0
        for record in choose(record_set.records, options.videos, options.seed):
            images = frames_at_rate(record.path, options.rate, size)
            size = images[0].shape[:2]
            rows.append(
                (shown / options.rate, (shown + len(images)) / options.rate, record_set.classes[record.labels[0]])
            )
            shown += len(images)
            yield from images

    write_video(options.video, all_frames(), frames_per_second=options.rate)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("start", "end", "label"))
    writer.writerows((f"{start:.3f}", f"{end:.3f}", label) for start, end, label in rows)
    write_text(options.truth, text.getvalue())
    print(f"{options.video}: {len(rows)} videos, {rows[-1][1]:.1f} seconds")


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, VideoError) as error:
        sys.exit(f"joined.py: {error}")
