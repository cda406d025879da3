"""Calibration: whether a run is right as often as its probabilities say."""

from __future__ import annotations

from collections.abc import Sequence

from vsn.report import parts
from vsn.report.parts import color, percent, text
from vsn.report.runs import Run
from vsn.scores.calibrate import (
    NUM_BINS,
    ReliabilityBin,
    expected_calibration_error,
    load_calibration,
    reliability_curve,
)

_LEFT, _TOP, _SIZE, _STRIP = 44, 10, 220, 34


def calibration_section(runs: Sequence[Run]) -> str:
    """A reliability diagram of each run, and of its calibrated probabilities where it has a calibration."""
    tested = [(index, run) for index, run in enumerate(runs) if run.scores is not None]
    if not tested:
        return parts.untested()
    if any(run.scores.multi_label for _, run in tested if run.scores is not None):
        return parts.lacking(
            "Calibration is for one label a video; here a video may have several, each with a probability of its own."
        )
    charts, commands = [], []
    for index, run in tested:
        assert run.scores is not None
        if run.scores.unreadable.all():
            continue
        charts.append(diagram(run.name, reliability_curve(run.scores), index))
        path = run.path / "calibration.json"
        if path.is_file():
            temperature = load_calibration(path).temperature
            curve = reliability_curve(run.scores, temperature=temperature)
            charts.append(diagram(f"{run.name}, temperature {temperature:.3g}", curve, index))
            continue
        validation = run.path / "eval" / f"{run.recipe.data.val_split}-{run.protocol}-forward.npz"
        if not validation.is_file():
            commands.append([*run.eval_command()[:4], run.recipe.data.val_split, *run.eval_command()[5:]])
        commands.append(["vsn", "calibrate", str(validation), "--out", str(path)])
    note = parts.lacking("Calibration fitted on the validation split is not there:", commands)
    return (
        "<p>Videos are sorted by the probability of the class said, in bins of equal width. Where a bar ends on the "
        "dashed line the run is right as often as it says; a bar that ends below is sure of too much. The line from "
        "a bar's end shows the gap, the small bars below how many videos a bin holds. ECE, the expected calibration "
        f"error, is the mean gap over all videos, here with {NUM_BINS} bins: compare it only with as many.</p>"
        f'<div class="diagrams">{"".join(charts)}</div>{note if commands else ""}'
    )


def diagram(name: str, bins: Sequence[ReliabilityBin], index: int) -> str:
    """An SVG of accuracy against confidence, with the number of videos below."""
    bottom, most = _TOP + _SIZE, max(one.count for one in bins)
    drawn = []
    for tick in (0.0, 0.5, 1.0):
        y = bottom - _SIZE * tick
        drawn.append(
            f'<path class="grid" d="M{_LEFT} {y:.1f}h{_SIZE}"/>'
            f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{tick:.0%}</text>'
            f'<text x="{_LEFT + _SIZE * tick:.1f}" y="{bottom + _STRIP + 22}" text-anchor="middle">{tick:.0%}</text>'
        )
    for one in bins:
        if one.accuracy is None or one.confidence is None:
            continue
        x, wide = _LEFT + _SIZE * one.low + 1, _SIZE * (one.high - one.low) - 2
        end, sure = bottom - _SIZE * one.accuracy, bottom - _SIZE * one.confidence
        held = _STRIP * one.count / most
        tip = f"{parts.videos(one.count)}: said {percent(one.confidence)} on average, right {percent(one.accuracy)}"
        drawn.append(
            f'<g><title>{text(tip)}</title><rect class="bar-of" x="{x:.1f}" y="{end:.1f}" width="{wide:.1f}" '
            f'height="{bottom - end:.1f}"/><path class="gap" d="M{x + wide / 2:.1f} {end:.1f}V{sure:.1f}"/>'
            f'<rect class="held" x="{x:.1f}" y="{bottom + 4:.1f}" width="{wide:.1f}" height="{max(held, 1):.1f}"/></g>'
        )
    drawn.append(f'<path class="even" d="M{_LEFT} {bottom}L{_LEFT + _SIZE} {_TOP}"/>')
    drawn.append(
        f'<text x="{_LEFT + _SIZE / 2}" y="{bottom + _STRIP + 40}" text-anchor="middle">probability of the class said</text>'
    )
    error = percent(expected_calibration_error(bins))
    label = f"Reliability diagram of {name}: expected calibration error {error}."
    return (
        f'<figure style="{color(index)}"><figcaption>{text(name)}<small>ECE {error}</small></figcaption>'
        f'<svg viewBox="0 0 290 312" role="img" aria-label="{text(label)}">{"".join(drawn)}</svg></figure>'
    )
