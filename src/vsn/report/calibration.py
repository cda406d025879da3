"""Show calibration: whether a run is right as often as its probabilities say."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from vsn.report.charts import reliability_diagram
from vsn.report.render import UNTESTED, Lacks, render
from vsn.report.runs import ReportRun
from vsn.runs.results import EvalResult, list_results
from vsn.scores.calibrate import NUM_BINS, load_calibration, reliability_curve
from vsn.scores.facts import same_weights, weight_shares


def calibration_section(runs: Sequence[ReportRun]) -> Markup | Lacks:
    """A reliability diagram of each run, and of its calibrated probabilities where it has a calibration."""
    tested = [(index, run) for index, run in enumerate(runs) if run.scores is not None]
    if not tested:
        return UNTESTED
    if any(run.is_multi_label for _, run in tested):
        return Lacks("Calibration is for one label per video; here each label has its own probability.")
    charts, commands = [], []
    for index, run in tested:
        # Without a readable video there is no bin to draw.
        if run.scores is None or run.scores.unreadable.all():
            continue
        charts.append(reliability_diagram(run.name, reliability_curve(run.scores), index))
        path = run.path / "calibration.json"
        calibration = load_calibration(path) if path.is_file() else None
        # One of other weights is left out: the run was trained on since, or it is of another run.
        if calibration is not None and same_weights(
            weight_shares(calibration.fitted_on), weight_shares(run.scores.facts)
        ):
            temperature = calibration.temperature
            curve = reliability_curve(run.scores, temperature=temperature)
            charts.append(reliability_diagram(f"{run.name}, temperature {temperature:.3g}", curve, index))
            continue
        # A calibration must be fitted on videos that are not those of the test.
        split = run.recipe.data.val_split
        test = EvalResult(split=split, protocol=run.protocol, order="forward", weights=run.weights)
        validation = test.file_in(run.path).with_suffix(".npz")
        results = list_results(
            run.path, split=split, protocol=run.protocol, order="forward", weights=run.weights, damaged=[]
        )
        if not validation.is_file() or not any(result.is_own and not result.is_stale for result in results):
            commands.append(run.eval_command(split=split, weights=run.weights))
        commands.append(["vsn", "calibrate", str(validation), "--out", str(path)])
    return render(
        "calibration.html",
        num_bins=NUM_BINS,
        charts=charts,
        commands=commands,
    )
