"""The grid of windows, the label that does not flicker, the length of a window."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.tiny_runs import tiny_recipe
from vsn.config import ClipSpec, ConfigError, WindowConfig
from vsn.data.sampling import segment_indices
from vsn.scores.calibrate import Calibration
from vsn.stream.grid import GridWalk, WindowGrid
from vsn.stream.labels import WindowLabeler
from vsn.stream.plan import window_seconds


@pytest.mark.parametrize(
    ("every", "spacing", "stride", "got"),
    [
        (None, 1, 1, 0.5),
        (0.5, 1, 1, 0.5),
        (1.1, 1, 2, 1.0),
        (4.0, 1, 8, 4.0),
        (9.0, 1, 18, 9.0),
        (0.2, 2, 1, 0.25),
        (0.1, 5, 1, 0.1),
    ],
)
def test_windows_on_a_grid(every: float | None, spacing: int, stride: int, got: float):
    grid = WindowGrid.of(4.0, 8, every)
    assert (grid.spacing, grid.stride) == (spacing, stride)
    assert grid.every == pytest.approx(got)
    for window in range(4):
        begin, end = grid.interval(window)
        assert (begin, end - begin) == pytest.approx((window * got, 4.0))
        # The middle of each eighth of the window.
        centers = [begin + (i + 0.5) * 0.5 for i in range(8)]
        assert [grid.instant(step) for step in grid.steps_of(window)] == pytest.approx(centers)
        assert all(grid.is_needed(step) for step in grid.steps_of(window))
        assert grid.window_of(grid.steps_of(window)[-1]) == window
    complete = [grid.window_of(step) for step in range(grid.steps_of(3)[-1] + 1)]
    assert [window for window in complete if window is not None] == [0, 1, 2, 3]


def until(end: float, *, seconds: float = 0.0, part: int = 0) -> SimpleNamespace:
    """A frame that is displayed until `end`."""
    return SimpleNamespace(part=part, seconds=seconds, end=end)


@settings(max_examples=200, deadline=None)
@given(
    num_video_frames=st.integers(1, 300),
    num_frames=st.integers(1, 32),
    rate=st.sampled_from([10.0, 12.0, 15.0, 24.0, 25.0, 29.97, 30.0, 60.0]),
)
def test_a_window_as_long_as_a_video_has_the_frames_of_evaluation(num_video_frames: int, num_frames: int, rate: float):
    walk = GridWalk(WindowGrid.of(num_video_frames / rate, num_frames, None))
    found = [number for number in range(num_video_frames) for _ in walk.take(until((number + 1) / rate))]
    expected = segment_indices(num_video_frames, num_frames, None).tolist()
    assert len(found) == num_frames
    for place, (one, other) in enumerate(zip(found, expected, strict=True)):
        # Where an instant lies between two frames rounding decides, there as here.
        between = (2 * place + 1) * num_video_frames % (2 * num_frames) == 0
        assert one == other or (between and abs(one - other) == 1)


def test_the_next_frame_replaces_a_dropped_one():
    walk = GridWalk(WindowGrid.of(4.0, 4, None))  # instants at 0.5, 1.5, 2.5, ...
    assert [walk.take(until(end)) for end in (0.5, 1.0, 3.0, 3.4)] == [[], [0], [1, 2], []]


def test_a_frame_that_ends_at_an_instant_does_not_take_it_for_rounding():
    walk = GridWalk(WindowGrid.of(1.2, 2, None))  # instants at 0.3, 0.9
    assert 0.1 + 0.1 + 0.1 > 0.3
    assert walk.take(until(0.1 + 0.1 + 0.1)) == []
    assert walk.take(until(0.4)) == [0]


def test_between_windows_that_leave_gaps_nothing_is_needed():
    walk = GridWalk(WindowGrid.of(1.0, 2, every=2.0))
    assert walk.take(until(4.0)) == [0, 1, 4, 5]


def test_steps_of_a_break_belong_to_no_frame():
    walk = GridWalk(WindowGrid.of(4.0, 4, None))
    assert walk.take(until(2.0)) == [0, 1]
    assert walk.take(until(1e12, seconds=1e12 - 2, part=1)) == [int(1e12) - 2, int(1e12) - 1]


# --- labels -----------------------------------------------------------------------------------------


def labeler_of(
    classes: tuple[str, ...], config: WindowConfig, *, every: float, threshold: float | None = None
) -> WindowLabeler:
    """Of windows `every` seconds apart."""
    calibration = Calibration(
        temperature=1.0, threshold=threshold, classes=classes, nll_before=1, nll_after=1, ece_before=0, ece_after=0
    )
    grid = WindowGrid(seconds=every, num_frames=1, spacing=1, stride=1)
    return WindowLabeler(classes, config, grid, calibration)


def labels_of(rows: list[tuple[float, ...]], *, threshold: float | None = None, **settings: Any) -> list[str]:
    config = WindowConfig(**{"smooth": 0.0, **settings})
    labeler = labeler_of(("a", "b", "c"), config, every=1.0, threshold=threshold)
    return [labeler.update(np.array(row))[0] for row in rows]


RISE_AND_FALL = [(0.4, 0.3, 0.3), (0.6, 0.2, 0.2), (0.4, 0.5, 0.1), (0.2, 0.4, 0.4), (0.1, 0.8, 0.1)]


@pytest.mark.parametrize(
    ("settings", "labels"),
    [
        ({"enter": 0.55, "leave": 0.3}, ["unknown", "a", "a", "unknown", "b"]),
        ({"enter": 0.6, "leave": 0.4}, ["unknown", "a", "a", "unknown", "b"]),  # at the limits
        ({"enter": 0.55, "leave": 0.55}, ["unknown", "a", "unknown", "unknown", "b"]),
        ({"enter": 0.5, "leave": 0.3}, ["unknown", "a", "b", "b", "b"]),
        ({"enter": 0.0, "leave": 0.0}, ["a", "a", "b", "b", "b"]),
        ({"enter": 0.5, "leave": 0.3, "unknown": 0.7}, ["unknown"] * 4 + ["b"]),
        ({"enter": 0.5, "leave": 0.3, "threshold": 0.7}, ["unknown"] * 4 + ["b"]),
        ({"enter": 0.55, "leave": 0.3, "threshold": 0.7, "unknown": 0.0}, ["unknown", "a", "a", "unknown", "b"]),
    ],
)
def test_a_label_begins_and_ends_at_different_probabilities(settings: dict[str, Any], labels: list[str]):
    assert labels_of(RISE_AND_FALL, **settings) == labels


def test_probabilities_are_smoothed_over_time_not_over_answers():
    def after_a_second(every: float) -> float:
        labeler = labeler_of(("a", "b"), WindowConfig(smooth=2.0), every=every)
        labeler.update(np.array([0.0, 1.0]))
        for _ in range(round(1 / every)):
            _, _, smoothed = labeler.update(np.array([1.0, 0.0]))
        return float(smoothed[0])

    assert after_a_second(1.0) == pytest.approx(1 - np.exp(-0.5))
    assert after_a_second(0.1) == pytest.approx(after_a_second(1.0))
    labeler = labeler_of(("a", "b"), WindowConfig(smooth=2.0), every=0.1)
    labeler.update(np.array([0.0, 1.0]))
    assert labeler.update(np.array([1.0, 0.0]), num_windows=10)[2][0] == pytest.approx(after_a_second(1.0))


def test_smoothing_is_in_double_precision():
    labeler = labeler_of(("a", "b"), WindowConfig(smooth=2.0), every=1.0)
    for _ in range(2):
        assert labeler.update(np.array([0.9, 0.1], np.float32))[2].dtype == np.float64


def test_reset_forgets_earlier_windows():
    labeler = labeler_of(("a", "b"), WindowConfig(smooth=5.0), every=1.0)
    assert labeler.update(np.array([0.9, 0.1]))[0] == "a"
    labeler.reset()
    label, probability, smoothed = labeler.update(np.array([0.55, 0.45]))
    assert (label, probability, smoothed.tolist()) == ("a", 0.55, [0.55, 0.45])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seconds": 0.0}, r"seconds.*0"),
        ({"every": float("inf")}, r"every.*inf"),
        ({"every_frames": 0}, r"every_frames.*0"),
        ({"every": 1.0, "every_frames": 3}, "every.*every_frames"),
        ({"smooth": -1.0}, r"smooth.*-1"),
        ({"enter": 1.5}, r"enter.*1\.5"),
        ({"unknown": float("nan")}, r"unknown.*nan"),
        ({"enter": 0.3, "leave": 0.4}, r"leave.*0\.4.*0\.3"),
    ],
)
def test_invalid_settings(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        WindowConfig(**settings)


# --- length -----------------------------------------------------------------------------------------


def test_a_window_is_as_long_as_the_clips_of_training(tiny_data: Path, tmp_path: Path):
    recipe = tiny_recipe(tiny_data)
    seconds, why = window_seconds(recipe, 25.0)
    assert 1.0 <= seconds <= 1.4  # 10 to 14 frames, 10 a second
    assert "12 training videos" in why
    moved = replace(recipe, data=replace(recipe.data, root=str(tmp_path / "gone")))
    assert window_seconds(moved, 25.0)[0] == 4.0
    assert "--seconds" in window_seconds(moved, 25.0)[1]

    def sampled(sampling: str) -> Any:
        return replace(moved, clip=ClipSpec(short_side=36, crop_size=32, sampling=sampling, frames_per_second=8))

    assert window_seconds(sampled("rate"), 25.0)[0] == 4 / 8
    assert window_seconds(sampled("dense"), 32.0)[0] == 2.0

    def of_differences(sampling: str) -> Any:
        """Six frames from each instant on."""
        model = replace(recipe.model, modality="rgbdiff", flow_length=5)
        return replace(sampled(sampling), model=model)

    assert window_seconds(of_differences("rate"), 20.0)[0] == 4 / 8 + 5 / 20
    assert window_seconds(of_differences("rate"), 0.0)[0] == 4 / 8
    assert window_seconds(of_differences("dense"), 23.0) == (3.0, "69 frames, as in training")
