"""Say how far a run is that is trained now."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from vsn.report.render import format_value
from vsn.report.runs import ReportRun
from vsn.runs.run import is_finished
from vsn.system.lock import is_locked


def is_training(run: ReportRun) -> bool:
    """Return whether a process is training this run now."""
    return not is_finished(run.path) and is_locked(run.path)


def training_notes(runs: Sequence[ReportRun]) -> list[str]:
    """Return one sentence for each run that is trained now: epochs done, and about how long the others take."""
    return [f"{run.name} is in training: {_progress(run)}." for run in runs if is_training(run)]


def _progress(run: ReportRun) -> str:
    epochs = [line for line in run.metrics if "train_loss" in line]
    total = run.recipe.train.epochs
    if not epochs:
        return f"the first of {total} {'epoch' if total == 1 else 'epochs'}"
    done = int(epochs[-1]["epoch"])
    # The last three, because the first epochs also read videos that are kept later.
    seconds = statistics.median(float(line.get("seconds", 0)) for line in epochs[-3:])
    since = time.time() - (run.path / "metrics.jsonl").stat().st_mtime
    left = max(0.0, seconds * (total - done) - since)
    return f"{done} of {total} epochs done, about {format_value(left, 'seconds')} left"
