"""Where the curves of a run go besides metrics.jsonl: accelerate's trackers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from accelerate import PartialState
from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker

from vsn.config import ConfigError, Tracker
from vsn.runs.run import Run, RunError, flat_settings

PROJECT = "vsn"


class Trackers:
    """The trackers of a run; in all processes but the first there are none."""

    def __init__(self, trackers: list[GeneralTracker]) -> None:
        self._trackers = trackers

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Hand on numbers, at a step counted over the whole run."""
        numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
        for tracker in self._trackers:
            tracker.log(numbers, step=step)


@contextlib.contextmanager
def open_trackers(names: tuple[Tracker, ...], run: Run, *, first: bool) -> Iterator[Trackers]:
    """Start the trackers of a run and finish them; a resumed run goes on in what it has.

    Raises:
        ConfigError: a tracker whose package is not installed.
        RunError: a tracker that cannot write.
    """
    trackers: list[GeneralTracker] = []
    PartialState()  # accelerate's trackers ask it which process they are in
    try:
        for name in names if first else ():
            try:
                tracker = _tracker(name, run)
                tracker.start()
                if name != "tensorboard":  # which makes a second run of it
                    tracker.store_init_configuration(flat_settings(run.recipe))
            except ImportError as error:
                raise ConfigError(
                    f"train.trackers names {name!r}, which is not installed ({error}); pip install {name}, or take it out."
                ) from error
            except OSError as error:
                raise RunError(f"The tracker {name!r} cannot write in {run.path}: {error}.") from error
            trackers.append(tracker)
        yield Trackers(trackers)
    finally:
        for tracker in trackers:
            tracker.finish()


def _tracker(name: Tracker, run: Run) -> GeneralTracker:
    match name:
        case "tensorboard":
            return TensorBoardTracker("tensorboard", logging_dir=str(run.path))
        case "wandb":
            import wandb  # noqa: F401  (WandBTracker imports it late, with a worse message)

            place = {"name": run.path.name, "id": run.path.name, "resume": "allow", "dir": str(run.path)}
            return WandBTracker(PROJECT, **place)
        case "mlflow":
            import mlflow  # noqa: F401

            return MLflowTracker(PROJECT, run_name=run.path.name)
