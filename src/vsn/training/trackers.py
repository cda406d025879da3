"""Send the metrics of a run to TensorBoard, Weights & Biases or MLflow, in addition to metrics.jsonl."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping

from vsn.config import ConfigError, Tracker
from vsn.runs.run import Run, RunError, flat_settings

PROJECT = "vsn"

LogFunction = Callable[[Mapping[str, float], int], None]
"""Logs metrics at a step, counted over the whole run."""


@contextlib.contextmanager
def open_trackers(names: tuple[Tracker, ...], run: Run) -> Iterator[LogFunction]:
    """Open trackers and yield a function that logs metrics to all of them; a resumed run continues its curves.

    Raises:
        ConfigError: the package of a tracker is not installed.
        RunError: a tracker cannot write into the run folder.
    """
    with contextlib.ExitStack() as stack:
        log_functions = []
        for name in names:
            try:
                log_functions.append(_OPEN[name](run, stack))
            except ImportError as error:
                raise ConfigError(
                    f"train.trackers has {name!r}, which is not installed ({error}); pip install {name}, or remove it."
                ) from error
            except OSError as error:
                raise RunError(f"The tracker {name!r} cannot write in {run.path}: {error}.") from error

        def log_all(metrics: Mapping[str, float], step: int) -> None:
            for log in log_functions:
                log(metrics, step)

        yield log_all


def _open_tensorboard(run: Run, stack: contextlib.ExitStack) -> LogFunction:
    from torch.utils.tensorboard import SummaryWriter

    # No hyperparameters: `add_hparams` would list a second run next to this one.
    writer = stack.enter_context(SummaryWriter(str(run.path / "tensorboard")))

    def log(metrics: Mapping[str, float], step: int) -> None:
        for key, value in metrics.items():
            writer.add_scalar(key, value, step)
        writer.flush()  # the default is every two minutes, too late for a run that is killed

    return log


def _open_wandb(run: Run, stack: contextlib.ExitStack) -> LogFunction:
    import wandb

    # The same id on resuming continues the curves instead of starting a second run.
    tracked = wandb.init(project=PROJECT, name=run.path.name, id=run.path.name, resume="allow", dir=str(run.path))
    stack.callback(tracked.finish)
    tracked.config.update(flat_settings(run.recipe), allow_val_change=True)
    return lambda metrics, step: tracked.log(metrics, step=step)


def _open_mlflow(run: Run, stack: contextlib.ExitStack) -> LogFunction:
    import mlflow

    mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
    mlflow.start_run(run_name=run.path.name)
    stack.callback(mlflow.end_run)
    for key, value in flat_settings(run.recipe).items():
        mlflow.log_param(key, value)  # one by one: `log_params` takes at most 100
    return lambda metrics, step: mlflow.log_metrics(metrics, step=step)


_OPEN: dict[Tracker, Callable[[Run, contextlib.ExitStack], LogFunction]] = {
    "tensorboard": _open_tensorboard,
    "wandb": _open_wandb,
    "mlflow": _open_mlflow,
}
