"""Send the metrics of a run to TensorBoard, Weights & Biases or MLflow, in addition to metrics.jsonl.

`RUN/trackers.json` has the id of the run in each service and the last step that it got of each metric, so that a resumed
run continues its curves and sends no point twice.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console

from vsn.config import ConfigError, Tracker
from vsn.runs.run import Run, RunError, flat_settings
from vsn.system.files import write_json
from vsn.system.telemetry import stop_telemetry
from vsn.system.terminal import print_note

PROJECT = "vsn"
IDENTITY_FILE = "trackers.json"
ANSWER_SECONDS = 5.0
"""Time that the address of a service has to answer before training."""

LogFunction = Callable[[Mapping[str, float], int], None]
"""Logs metrics at a step, counted over the whole run."""


def check_trackers(names: tuple[Tracker, ...]) -> None:
    """Check that trackers are installed and that their address answers, before a run folder is created.

    Raises:
        ConfigError: a package is not installed, or nothing answers within `ANSWER_SECONDS`.
    """
    for name in names:
        try:
            address = _address(name)
        except ImportError as error:
            raise ConfigError(
                f"train.trackers has {name!r}, which is not installed ({error}); pip install {name}, or remove it."
            ) from error
        if address is None:
            continue
        try:
            # urllib uses the proxies of the environment, as the services' own packages do.
            urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=ANSWER_SECONDS).close()
        except urllib.error.HTTPError:
            pass  # an error status is an answer too
        except (OSError, ValueError, http.client.HTTPException) as error:
            if isinstance(getattr(error, "reason", None), ssl.SSLError):
                continue  # the packages have their own certificates
            raise ConfigError(
                f"train.trackers has {name!r}, but {address} does not answer within {ANSWER_SECONDS:g} seconds: {error}. "
                f"Start the server, set {_SETTING[name]}, or remove the tracker."
            ) from error


_SETTING = {
    "wandb": "WANDB_BASE_URL to its address or WANDB_MODE=offline",
    "mlflow": "MLFLOW_TRACKING_URI to its address or to sqlite:///FILE",
}


def _address(name: Tracker) -> str | None:
    """Return the address that a tracker sends to; None if it writes to a disk."""
    if name == "wandb":
        import wandb

        settings = wandb.setup().settings
        return str(settings.base_url) if settings.mode in (None, "online", "shared") else None
    if name == "mlflow":
        stop_telemetry(name)
        import mlflow

        uri = str(mlflow.get_tracking_uri())
        return uri if uri.startswith(("http://", "https://")) else None
    return None


@contextlib.contextmanager
def open_trackers(names: tuple[Tracker, ...], run: Run, step: int, console: Console) -> Iterator[LogFunction]:
    """Open trackers and yield a function that logs metrics to all of them; a resumed run continues its curves.

    A tracker that fails later is reported once and gets no more points; training goes on.

    Args:
        names: of the trackers.
        run: its folder keeps `IDENTITY_FILE`.
        step: the step at which training begins or continues. TensorBoard drops the points after it; the services, which
            cannot, keep the points they have.
        console: where failures are reported.

    Raises:
        RunError: a tracker cannot be opened.
    """
    logs: dict[Tracker, LogFunction] = {}

    def report(name: Tracker, error: Exception, event: str) -> None:
        logs.pop(name, None)
        metrics_file = run.path / "metrics.jsonl"
        print_note(
            console, f"The tracker {name!r} {event}: {_reason(error)}. Training goes on; {metrics_file} has all epochs."
        )

    def log_all(metrics: Mapping[str, float], step: int) -> None:
        for name, log in list(logs.items()):
            try:
                log(metrics, step)
            except Exception as error:  # of any library: training must not stop because of a curve
                report(name, error, f"failed at step {step} and gets no more points")

    closing: dict[Tracker, Callable[[bool], None]] = {}
    finished = False
    try:
        for name in names:
            try:
                logs[name], closing[name] = _OPEN[name](run, step)
            except Exception as error:
                raise RunError(
                    f"The tracker {name!r} cannot be opened for {run.path}: {_reason(error)}. "
                    "Repair it, or leave it out of --train.trackers; `vsn train --resume` continues the run."
                ) from error
        yield log_all
        finished = True
    finally:
        for name, close in closing.items():
            # A tracker that failed before may wait for its server for minutes.
            if name in logs:
                try:
                    close(finished)
                except Exception as error:
                    report(name, error, "could not be closed")


def _reason(error: Exception) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


class _Identity:
    """The run in a service, as `IDENTITY_FILE` has it: `id`, "" for a new run, and the last step sent of each metric."""

    def __init__(self, run: Run, name: Tracker) -> None:
        self._file, self._name = run.path / IDENTITY_FILE, name
        stored = self._read().get(name, {})
        self.id: str = stored.get("id", "")
        self._steps: dict[str, int] = stored.get("steps", {})

    def _read(self) -> dict[str, Any]:
        return json.loads(self._file.read_text(encoding="utf-8")) if self._file.is_file() else {}

    def write(self) -> None:
        """Store it next to those of other trackers."""
        write_json(self._file, self._read() | {self._name: {"id": self.id, "steps": self._steps}})

    def log_new(self, log: LogFunction) -> LogFunction:
        """Return ``log`` without the points that the service has: it cannot delete those after the restored step."""

        def log_new(metrics: Mapping[str, float], step: int) -> None:
            if new := {key: value for key, value in metrics.items() if step > self._steps.get(key, -1)}:
                log(new, step)
                self._steps |= dict.fromkeys(new, step)
                self.write()

        return log_new


Opened = tuple[LogFunction, Callable[[bool], None]]
"""Logs metrics, and closes the tracker: of a run that is finished, or of one that was stopped."""


def _open_tensorboard(run: Run, step: int) -> Opened:
    from torch.utils.tensorboard import SummaryWriter

    folder = run.path / "tensorboard"
    # No hyperparameters: `add_hparams` would list a second run next to this one.
    writer = SummaryWriter(str(folder), purge_step=step + 1)

    def log(metrics: Mapping[str, float], step: int) -> None:
        if not folder.is_dir():
            # Here: the thread that writes would print a traceback.
            raise FileNotFoundError(f"{folder} is gone")
        for key, value in metrics.items():
            writer.add_scalar(key, value, step)
        writer.flush()  # the default is every two minutes, too late for a run that is killed

    return log, lambda finished: writer.close()


def _open_wandb(run: Run, step: int) -> Opened:
    import wandb

    identity = _Identity(run, "wandb")
    if not identity.id:
        # Runs of earlier versions have the name of their folder as id.
        identity.id = run.path.name if (run.path / "wandb").is_dir() else uuid.uuid4().hex
        identity.write()
    tracked = wandb.init(project=PROJECT, name=run.path.name, id=identity.id, resume="allow", dir=str(run.path))
    tracked.config.update(flat_settings(run.recipe), allow_val_change=True)

    def log(metrics: Mapping[str, float], step: int) -> None:
        tracked.log(dict(metrics), step=step)

    return identity.log_new(log), lambda finished: tracked.finish(exit_code=0 if finished else 1)


def _open_mlflow(run: Run, step: int) -> Opened:
    import mlflow

    # By default it repeats a request to a server that is gone for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    identity = _Identity(run, "mlflow")
    if not identity.id:
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        tracked = mlflow.start_run(run_name=run.path.name)
        identity.id = tracked.info.run_id
        identity.write()
    else:
        tracked = mlflow.start_run(run_id=identity.id)
    known = tracked.data.params
    for key, value in flat_settings(run.recipe).items():
        if key not in known:
            mlflow.log_param(key, value)  # one by one: `log_params` takes at most 100
        elif known[key] != str(value):
            mlflow.set_tag(key, value)  # a resumed run may change it, and a parameter is final

    def log(metrics: Mapping[str, float], step: int) -> None:
        mlflow.log_metrics(dict(metrics), step=step)

    return identity.log_new(log), lambda finished: mlflow.end_run("FINISHED" if finished else "KILLED")


_OPEN: dict[Tracker, Callable[[Run, int], Opened]] = {
    "tensorboard": _open_tensorboard,
    "wandb": _open_wandb,
    "mlflow": _open_mlflow,
}
