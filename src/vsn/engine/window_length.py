"""How long the clips were that a run was trained on: what its model takes for one window."""

from __future__ import annotations

import statistics

from vsn.config import ConfigError, Recipe
from vsn.data.decode import VideoError, probe_video
from vsn.data.readers import read_records
from vsn.data.sampling import DENSE_WINDOW

DEFAULT_SECONDS = 4.0
"""Where nothing tells."""
NUM_PROBED = 25


def window_seconds(recipe: Recipe, frames_per_second: float) -> tuple[float, str]:
    """Seconds of a window, and where they come from, in words.

    Clips of T frames at a rate, and dense ones (64 frames), have their length by their sampling; where several
    frames are seen of each (differences), those after the last come on top. Where a clip
    is the whole video it is the median length of 25 training videos, evenly spread over the list, if the
    data set is still where the run found it; else 4 seconds.

    Args:
        recipe: the run's.
        frames_per_second: of what is looked at; 0.0 when unknown.
    """
    clip, num_frames = recipe.clip, recipe.model.num_frames
    more = recipe.model.num_consecutive - 1
    if clip.sampling == "rate":
        seconds = num_frames / clip.frames_per_second + (more / frames_per_second if frames_per_second else 0)
        return seconds, f"{num_frames} frames at {clip.frames_per_second:g} a second, as in training"
    if clip.sampling == "dense" and frames_per_second:
        count = DENSE_WINDOW + more
        return count / frames_per_second, f"{count} frames, as in training"
    lengths = _training_lengths(recipe)
    if lengths:
        return statistics.median(lengths), f"the median length of {len(lengths)} training videos"
    return DEFAULT_SECONDS, "the default: the training videos are not at hand; --seconds states their length"


def trained_seconds(recipe: Recipe) -> float | None:
    """Seconds of a window, whatever is looked at; None where that depends on its frames."""
    by_frames = recipe.clip.sampling == "dense" or (
        recipe.clip.sampling == "rate" and recipe.model.num_consecutive > 1
    )
    return None if by_frames else window_seconds(recipe, 0.0)[0]


def _training_lengths(recipe: Recipe) -> list[float]:
    try:
        records = read_records(recipe.data, recipe.data.train_split).records
    except (ConfigError, OSError):
        return []
    count = min(NUM_PROBED, len(records))
    lengths = []
    for place in range(count):
        path = records[place * len(records) // count].path
        try:
            facts = probe_video(path, frame_template=recipe.data.frame_template)
        except (VideoError, ConfigError):
            continue
        if facts.frames_per_second:
            lengths.append(facts.num_frames / facts.frames_per_second)
    return lengths
