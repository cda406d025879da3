"""Choose the windows of a source: whether a run supports them, their length, and the distance between them."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from typing import Protocol

from vsn.config import ConfigError, Recipe, WindowConfig
from vsn.config import Protocol as ProtocolName
from vsn.data.lengths import training_lengths
from vsn.data.processor import Processor
from vsn.data.sampling import DENSE_WINDOW
from vsn.data.views import PROTOCOLS
from vsn.stream.grid import WindowGrid
from vsn.stream.source import USUAL_RATE

DEFAULT_SECONDS = 4.0
"""Length of a window when nothing tells the length of training clips."""
_LONGEST_STILL_FRAMES = 3
"""A picture is no pause unless it is on display for longer than as many frames."""


class TooShortWindowError(ConfigError):
    """A window too short for the consecutive frames of one instant."""


def window_processor(recipe: Recipe, protocol: ProtocolName | None = None) -> Processor:
    """Return what crops the windows of a run, by a protocol, by default that of the run.

    Raises:
        ConfigError: a run on flow or with several labels per video, or a protocol with several clips per video or more
            frames than the model takes.
    """
    if recipe.model.modality == "flow":
        raise ConfigError(
            "The run uses flow, which takes longer to compute than to watch. Windows need a run with model.modality "
            "'rgb' or 'rgbdiff'; for flow use `vsn predict` on single clips."
        )
    if recipe.model.extra_input:
        raise ConfigError(
            f"The clips of {recipe.model.name} carry {recipe.model.extra_input}, which windows of a source do not have. Use "
            "`vsn predict` on single clips."
        )
    # One label at a time is also what `WindowLabeler` and the segments of a timeline assume.
    if recipe.data.task == "multilabel":
        raise ConfigError("The run has data.task 'multilabel'; windows need a run with one label per video.")
    protocol = protocol or recipe.eval.protocol
    if PROTOCOLS[protocol].clips != "one":
        allowed = _one_clip_protocols()
        raise ConfigError(
            f"Protocol {protocol!r} takes several clips of a video, and a window is a single clip. Choose one of "
            f"{allowed} with --protocol."
        )
    if PROTOCOLS[protocol].windows:
        raise ConfigError(
            f"Protocol {protocol!r} scores windows of the frame, which is for tests. Choose one of {_one_clip_protocols()} "
            "with --protocol; 'fcn' shows the same frame."
        )
    return Processor(recipe, replace(recipe.eval, protocol=protocol))


def _one_clip_protocols() -> str:
    plans = PROTOCOLS.items()
    return ", ".join(name for name, plan in plans if plan.clips == "one" and not plan.num_frames and not plan.windows)


class TimedSource(Protocol):
    """What the places of windows depend on."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def frames_per_second(self) -> float:
        """0.0 if it is unknown."""

    @property
    def begins(self) -> float:
        """See `Source`."""

    def uneven_interval(self) -> float:
        """See `Source.uneven_interval`."""


def longest_still(grid: WindowGrid, frames_per_second: float) -> float:
    """Return the seconds for which a picture may be shown; after a longer one windows start over."""
    return max(grid.seconds, _LONGEST_STILL_FRAMES / (frames_per_second or USUAL_RATE))


def plan_grid(
    recipe: Recipe, windows: WindowConfig, source: TimedSource, *, num_frames: int, recorded: float | None = None
) -> tuple[WindowGrid, str]:
    """Return the grid of a source's windows, and the reason for their length, for display.

    For `recorded` see `window_seconds`.

    Raises:
        ConfigError: `every_frames` with a source of unknown rate.
        TooShortWindowError: a window too short for the consecutive frames of one instant.
    """
    rate, every = source.frames_per_second, windows.every
    if windows.every_frames is not None:
        if not rate:
            raise ConfigError(f"{source.name} has no frame rate, which every_frames needs. Set --every in seconds.")
        every = windows.every_frames / rate
    seconds, reason = windows.seconds, "as set"
    if seconds is None:
        seconds, reason = window_seconds(recipe, rate, recorded=recorded)
    # The instants of a window divide what is left before the consecutive frames of the last one.
    num_consecutive = recipe.model.num_consecutive
    interval = source.uneven_interval() if num_consecutive > 1 and recipe.clip.by == "time" else 0.0
    rate = 1 / interval if interval else rate
    tail = (num_consecutive - 1) / (rate or USUAL_RATE)
    if tail >= seconds:
        raise TooShortWindowError(
            f"A window of {seconds:.2f} seconds ({reason}) is too short: the run takes {num_consecutive} consecutive "
            f"frames per instant, {tail:.2f} seconds at {rate or USUAL_RATE:g} frames per second. Set longer windows "
            "with --seconds, or use a source with a higher frame rate."
        )
    grid = WindowGrid.of(seconds, num_frames, every, tail=tail, frame_interval=interval, begins=source.begins)
    return grid, reason


def spread(grid: WindowGrid, *, max_windows: int, video_seconds: float) -> WindowGrid:
    """Move windows as far apart as a video of `video_seconds` needs to have at most `max_windows`.

    >>> spread(WindowGrid.of(4.0, 8, None), max_windows=10, video_seconds=60.0).every
    6.0
    """
    assert grid.spacing == 1
    # A window is complete half a step before its end, with the frame in the middle of its last step.
    num_steps = (video_seconds - grid.seconds) / grid.step_seconds + 0.5
    return replace(grid, stride=max(grid.stride, math.floor(num_steps / max_windows) + 1))


def window_seconds(recipe: Recipe, frames_per_second: float, *, recorded: float | None = None) -> tuple[float, str]:
    """Return the length of a training clip in seconds, and where it comes from.

    - `clip.sampling` "rate" (T frames at a rate) and "dense" (64 frames of the source) have a fixed length, plus the
      consecutive frames after the last instant (rgbdiff).
    - Otherwise a clip is the whole video: `training_seconds`, or what an exported file `recorded` of it; else 4 seconds.

    The rate of the source is 0.0 when unknown.
    """
    clip, num_frames = recipe.clip, recipe.model.num_frames
    num_more = recipe.model.num_consecutive - 1
    if clip.sampling == "rate":
        seconds = num_frames / clip.frames_per_second + (num_more / frames_per_second if frames_per_second else 0)
        return seconds, f"{num_frames} frames at {clip.frames_per_second:g} per second, as in training"
    if clip.sampling == "dense" and frames_per_second:
        return (DENSE_WINDOW + num_more) / frames_per_second, f"{DENSE_WINDOW + num_more} frames, as in training"
    if recorded is not None:
        return recorded, "the median length of training videos, as the file records"
    if lengths := training_lengths(recipe):
        return statistics.median(lengths), f"the median length of {len(lengths)} training videos"
    return DEFAULT_SECONDS, "the default, as the training videos are not available; set their length with --seconds"


def trained_seconds(recipe: Recipe, *, recorded: float | None = None) -> float | None:
    """Return the length of a window for any source; None if it depends on the source's frame rate."""
    depends = recipe.clip.sampling == "dense" or (recipe.clip.sampling == "rate" and recipe.model.num_consecutive > 1)
    return None if depends else window_seconds(recipe, 0.0, recorded=recorded)[0]
