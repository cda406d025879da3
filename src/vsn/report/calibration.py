"""Show calibration: whether a run is right as often as its probabilities say."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from vsn.report.charts import reliability_diagram
from vsn.report.render import render
from vsn.report.runs import ReportRun
from vsn.runs.results import EvalResult
from vsn.scores.calibrate import NUM_BINS, load_calibration, reliability_curve


def calibration_section(runs: Sequence[ReportRun]) -> Markup:
    """A reliability diagram of each run, and of its calibrated probabilities where it has a calibration."""
    tested = [(index, run) for index, run in enumerate(runs) if run.scores is not None]
    is_multi_label = any(run.is_multi_label for _, run in tested)
    charts, commands = [], []
    for index, run in tested:
        # Without a readable video there is no bin to draw.
        if is_multi_label or run.scores is None or run.scores.unreadable.all():
            continue
        charts.append(reliability_diagram(run.name, reliability_curve(run.scores), index))
        path = run.path / "calibration.json"
        if path.is_file():
            temperature = load_calibration(path).temperature
            curve = reliability_curve(run.scores, temperature=temperature)
            charts.append(reliability_diagram(f"{run.name}, temperature {temperature:.3g}", curve, index))
            continue
        # A calibration must be fitted on videos that are not those of the test.
        split = run.recipe.data.val_split
        validation = (
            EvalResult(split=split, protocol=run.protocol, order="forward").file_in(run.path).with_suffix(".npz")
        )
        if not validation.is_file():
            commands.append(["vsn", "eval", str(run.path), "--split", split, "--protocol", run.protocol])
        commands.append(["vsn", "calibrate", str(validation), "--out", str(path)])
    return render(
        "calibration.html",
        is_tested=bool(tested),
        is_multi_label=is_multi_label,
        num_bins=NUM_BINS,
        charts=charts,
        commands=commands,
    )
