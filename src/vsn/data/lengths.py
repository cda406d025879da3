"""Read how long training videos are."""

from __future__ import annotations

import statistics

from vsn.config import ConfigError, Recipe
from vsn.data.background import read_labeled
from vsn.data.video import VideoError, open_video, part_reader

NUM_PROBED = 25
"""Training videos whose length is read: a median of 25 is stable enough, and takes a second."""


def training_seconds(recipe: Recipe) -> float | None:
    """Return the median length of 25 training videos, evenly spaced in the list.

    None if the data set is not where the run found it; an exported file does not say where that was.
    """
    lengths = training_lengths(recipe)
    return statistics.median(lengths) if lengths else None


def training_lengths(recipe: Recipe) -> list[float]:
    """Return the lengths of up to 25 training videos in seconds; empty if the data set is not there."""
    if not recipe.data.root:  # of an exported file: the working directory is another data set
        return []
    try:
        records = read_labeled(recipe.data, recipe.data.train_split).records
    except (ConfigError, OSError):
        # A run is often used on another machine than the one with its data.
        return []
    # Evenly spaced: lists are sorted by class, and classes differ in length.
    lengths = []
    count = min(NUM_PROBED, len(records))
    for index in range(count):
        record = records[index * len(records) // count]
        try:
            video = part_reader(open_video(record.path, frame_template=recipe.data.frame_template), record.part)
        except (VideoError, ConfigError):
            continue
        if video.frames_per_second:
            lengths.append(video.seconds)
    return lengths
