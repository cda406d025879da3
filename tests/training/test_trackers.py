import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.helpers.tiny_runs import metrics_of, tiny_recipe
from vsn.config import ConfigError
from vsn.runs.metadata import write_run
from vsn.runs.run import Run, RunError, flat_settings, new_run
from vsn.training import trackers
from vsn.training.trackers import check_trackers, open_trackers
from vsn.training.train import train


def test_tensorboard_has_every_epoch(finished_run: Path):
    events = EventAccumulator(str(finished_run / "tensorboard")).Reload()
    for key in ("train_loss", "val_top1", "lr", "data_wait"):
        assert [point.step for point in events.Scalars(key)] == [3, 6]
    assert [point.value for point in events.Scalars("val_loss")] == [
        pytest.approx(line["val_loss"]) for line in metrics_of(finished_run)
    ]


def test_no_trackers(tiny_data: Path, tmp_path: Path, quiet: Console):
    run = train(tiny_recipe(tiny_data, epochs=1, trackers=()), tmp_path / "run", console=quiet)
    assert not (run.path / "tensorboard").exists()


class FakeService(types.ModuleType):
    """`wandb` and `mlflow`, as far as they are used: keeps the points, settings and end of each run by its id."""

    def __init__(self, address: str = "") -> None:
        super().__init__("service")
        self.runs: dict[str, dict[str, Any]] = {}
        self.address, self.fails = address, False

    def run_of(self, id: str | None) -> Any:
        values = self.runs.setdefault(id or f"made-{len(self.runs)}", {"points": [], "settings": {}, "tags": {}})
        values["end"] = None
        self.id, self.values = next(key for key, run in self.runs.items() if run is values), values
        return types.SimpleNamespace(
            info=types.SimpleNamespace(run_id=self.id),
            data=types.SimpleNamespace(params={key: str(value) for key, value in values["settings"].items()}),
            config=types.SimpleNamespace(update=lambda settings, allow_val_change: values["settings"].update(settings)),
            log=self.log_metrics,
            finish=self.end_run,
        )

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        if self.fails:
            raise TimeoutError("the server is gone\nmore lines")
        self.values["points"] += [(key, step, value) for key, value in metrics.items()]

    def end_run(self, status: str = "", exit_code: int | None = None) -> None:
        if self.fails:
            raise TimeoutError("the server is gone")
        self.values["end"] = status or {0: "FINISHED", 1: "KILLED"}[exit_code]

    # wandb
    def init(self, project: str, name: str, id: str, resume: str, dir: str) -> Any:
        assert (project, resume, Path(dir).name) == ("vsn", "allow", name)
        (Path(dir) / "wandb").mkdir(exist_ok=True)
        return self.run_of(id)

    def setup(self) -> Any:
        mode = "online" if self.address else "offline"
        return types.SimpleNamespace(settings=types.SimpleNamespace(mode=mode, base_url=self.address))

    # mlflow
    def get_tracking_uri(self) -> str:
        return self.address or "sqlite:///x.db"

    def set_experiment(self, name: str) -> None:
        self.experiment = name

    def start_run(self, run_name: str | None = None, run_id: str | None = None) -> Any:
        assert run_id is None or run_id in self.runs
        return self.run_of(run_id)

    def log_param(self, key: str, value: Any) -> None:
        assert key not in self.values["settings"], "MLflow refuses to change a parameter"
        self.values["settings"][key] = value

    def set_tag(self, key: str, value: Any) -> None:
        self.values["tags"][key] = value


@pytest.fixture(params=["wandb", "mlflow"])
def name(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def service(name: str, monkeypatch: pytest.MonkeyPatch) -> FakeService:
    monkeypatch.setitem(sys.modules, name, fake := FakeService())
    return fake


def written_run(path: Path, **changed: Any) -> Run:
    run = new_run(path, tiny_recipe(Path("x"), **changed), ("a",))
    write_run(run)
    return run


def log_steps(name: Any, run: Run, restored: int, last: int, *, killed: bool = False, console: Console | None = None):
    """Log the loss of each step after the restored one; a killed process does not close its trackers."""
    opened = open_trackers((name,), run, restored, console or Console(quiet=True))
    log = opened.__enter__()
    for step in range(restored + 1, last + 1):
        log({"loss": 1 / step}, step)
    if not killed:
        opened.__exit__(None, None, None)
    return opened


def test_services_get_the_recipe_and_the_numbers(tmp_path: Path, name: Any, service: FakeService):
    run = written_run(tmp_path / "mine")
    log_steps(name, run, 0, 2)
    (values,) = service.runs.values()
    assert values == {
        "points": [("loss", 1, 1.0), ("loss", 2, 0.5)], "settings": flat_settings(run.recipe), "tags": {}, "end": "FINISHED",
    }  # fmt: skip


def test_a_killed_run_that_resumes_is_one_run_with_each_step_once(tmp_path: Path, name: Any, service: FakeService):
    """Before, MLflow had a second run, and the first stayed "running"."""
    run = written_run(tmp_path / "mine")
    opened = log_steps(name, run, 0, 6, killed=True)
    assert [values["end"] for values in service.runs.values()] == [None]
    log_steps(name, run, 4, 9)  # the checkpoint is of step 4
    (values,) = service.runs.values()
    assert [step for _, step, _ in values["points"]] == list(range(1, 10))
    assert values["end"] == "FINISHED"
    assert opened  # kept open until here


def test_a_metric_that_is_new_at_a_repeated_step_is_logged(tmp_path: Path, name: Any, service: FakeService):
    run = written_run(tmp_path / "mine")
    log_steps(name, run, 0, 6)
    with open_trackers((name,), run, 5, Console(quiet=True)) as log:
        log({"loss": 0.1, "val_loss": 0.2}, 6)
    (values,) = service.runs.values()
    assert values["points"][-2:] == [("loss", 6, 1 / 6), ("val_loss", 6, 0.2)]


def test_two_folders_of_one_name_are_two_runs(tmp_path: Path, name: Any, service: FakeService):
    for place in ("first", "second"):
        (tmp_path / place).mkdir()
        log_steps(name, written_run(tmp_path / place / "mine"), 0, 1)
    assert len(service.runs) == 2


def test_a_run_that_is_stopped_is_not_finished(tmp_path: Path, name: Any, service: FakeService):
    with pytest.raises(ZeroDivisionError), \
            open_trackers((name,), written_run(tmp_path / "mine"), 0, Console(quiet=True)):  # fmt: skip
        raise ZeroDivisionError
    assert [values["end"] for values in service.runs.values()] == ["KILLED"]


def test_a_resumed_run_may_change_settings(tmp_path: Path, name: Any, service: FakeService):
    run = written_run(tmp_path / "mine")
    log_steps(name, run, 0, 1)
    longer = Run(run.path, replace(run.recipe, train=replace(run.recipe.train, epochs=7)), run.classes)
    log_steps(name, longer, 1, 2)
    (values,) = service.runs.values()
    kept = values["tags"] if name == "mlflow" else values["settings"]
    assert kept["train.epochs"] == 7


def test_a_wandb_run_of_before_keeps_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", fake := FakeService())
    run = written_run(tmp_path / "mine")
    (run.path / "wandb").mkdir()
    log_steps("wandb", run, 3, 4)
    assert list(fake.runs) == ["mine"]


def test_a_tracker_that_fails_is_reported_once_and_the_others_go_on(
    tmp_path: Path, name: Any, service: FakeService, capsys: pytest.CaptureFixture[str]
):
    run = written_run(tmp_path / "mine")
    with open_trackers((name, "tensorboard"), run, 0, Console(width=500)) as log:
        for step in range(1, 6):
            service.fails = step > 2
            log({"loss": 1 / step}, step)
    (values,) = service.runs.values()
    assert [step for _, step, _ in values["points"]] == [1, 2]
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert [point.step for point in events.Scalars("loss")] == [1, 2, 3, 4, 5]
    printed = capsys.readouterr().out
    assert printed.count(f"'{name}' failed at step 3") == 1
    assert "the server is gone. Training goes on" in printed
    assert printed.count("The tracker") == 1


def test_tensorboard_whose_folder_is_gone_is_reported_without_a_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    run = written_run(tmp_path / "mine")
    with open_trackers(("tensorboard",), run, 0, Console(width=500)) as log:
        for step in range(1, 5):
            log({"loss": 1 / step}, step)
            if step == 2:
                shutil.rmtree(run.path / "tensorboard")
    out, err = capfd.readouterr()
    assert out.count("'tensorboard' failed at step 3") == 1
    assert "Traceback" not in out + err


def test_a_tracker_that_cannot_be_closed_is_reported(
    tmp_path: Path, name: Any, service: FakeService, capsys: pytest.CaptureFixture[str]
):
    with open_trackers((name,), written_run(tmp_path / "mine"), 0, Console(width=500)):
        service.fails = True
    assert f"'{name}' could not be closed" in capsys.readouterr().out


def test_training_goes_on_without_its_tracker(
    tiny_data: Path, tmp_path: Path, name: Any, service: FakeService, capsys: pytest.CaptureFixture[str]
):
    service.fails = True
    recipe = tiny_recipe(tiny_data, epochs=2, trackers=(name,))
    run = train(recipe, tmp_path / "run", console=Console(width=500))
    assert len(metrics_of(run.path)) == 2
    assert capsys.readouterr().out.count("gets no more points") == 1


def test_tensorboard_drops_the_points_after_the_restored_step(tmp_path: Path):
    """Before, it showed steps 5 and 6 twice."""
    run = written_run(tmp_path / "mine")
    opened = log_steps("tensorboard", run, 0, 6, killed=True)
    log_steps("tensorboard", run, 4, 9)
    events = EventAccumulator(str(run.path / "tensorboard")).Reload()
    assert [point.step for point in events.Scalars("loss")] == list(range(1, 10))
    assert opened


def test_a_tracker_that_is_not_installed(tiny_data: Path, tmp_path: Path, monkeypatch, quiet: Console):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"wandb.*pip install wandb"):
        train(tiny_recipe(tiny_data, trackers=("wandb",)), tmp_path / "run", console=quiet)
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_cannot_write(tmp_path: Path, quiet: Console):
    run = written_run(tmp_path / "run")
    (run.path / "tensorboard").write_text("a file where the folder should be")
    with pytest.raises(RunError, match=r"tensorboard.*run"), \
            open_trackers(("tensorboard",), run, 0, quiet):  # fmt: skip
        pass


# --- addresses -------------------------------------------------------------------------------------


@pytest.fixture
def mute_address() -> Iterator[str]:
    """An address that accepts a connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_an_address_that_does_not_answer_is_told_before_the_folder_is_made(
    tiny_data: Path, tmp_path: Path, name: Any, service: FakeService, mute_address: str, monkeypatch, quiet: Console
):
    monkeypatch.setattr(trackers, "ANSWER_SECONDS", 0.3)
    service.address = mute_address
    started = time.perf_counter()
    with pytest.raises(ConfigError, match=rf"{name}.*{mute_address} does not answer"):
        train(tiny_recipe(tiny_data, trackers=(name,)), tmp_path / "run", console=quiet)
    assert time.perf_counter() - started < 5
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://no-such-host.invalid", "http://127.0.0.1:bad"])
def test_addresses_where_nothing_is(name: Any, service: FakeService, address: str):
    service.address = address
    with pytest.raises(ConfigError, match=rf"{name}.*does not answer"):
        check_trackers((name,))


def test_any_answer_is_an_answer(name: Any, service: FakeService):
    class NotFound(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), NotFound) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        service.address = f"http://127.0.0.1:{server.server_address[1]}"
        check_trackers((name,))
    service.address = ""  # a disk
    check_trackers((name, "tensorboard"))


# --- the real packages, where they are installed -----------------------------------------------------

KILLED = """
import os, sys
from pathlib import Path
from rich.console import Console
from vsn.runs.run import open_run
from vsn.training.trackers import open_trackers
folder, name, first, last, end = sys.argv[1:]
with open_trackers((name,), open_run(Path(folder)), int(first), Console(stderr=True)) as log:
    for step in range(int(first) + 1, int(last) + 1):
        log({"loss": 1 / step}, step)
    if end == "kill":
        os.kill(os.getpid(), 9)
"""


def run_killed_and_resumed(folder: Path, name: str, **environment: str) -> None:
    written_run(folder)
    for first, last, end, status in ((0, 6, "kill", -signal.SIGKILL), (4, 9, "end", 0)):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(folder), name, str(first), str(last), end],
            env={**os.environ, **environment}, capture_output=True, text=True, timeout=200,
        )  # fmt: skip
        assert done.returncode == status, done.stderr


@pytest.mark.filterwarnings("ignore")
@pytest.mark.needs("mlflow")  # a minute with the package, which the test command does not install
def test_mlflow_on_sqlite_is_killed_and_resumed(tmp_path: Path):
    import mlflow

    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    run_killed_and_resumed(tmp_path / "mine", "mlflow", MLFLOW_TRACKING_URI=uri)
    client = mlflow.MlflowClient(tracking_uri=uri)
    (run,) = client.search_runs([client.get_experiment_by_name("vsn").experiment_id])
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    assert [point.step for point in client.get_metric_history(run.info.run_id, "loss")] == list(range(1, 10))
    assert run.data.params["train.epochs"] == "2"


@pytest.mark.needs("wandb")
def test_wandb_offline_is_killed_and_resumed(tmp_path: Path):
    run_killed_and_resumed(tmp_path / "mine", "wandb", WANDB_MODE="offline")
    folders = [path.name for path in (tmp_path / "mine" / "wandb").glob("offline-run-*")]
    identity = json.loads((tmp_path / "mine" / "trackers.json").read_text())["wandb"]
    assert len(folders) == 2
    assert {name.rsplit("-", 1)[1] for name in folders} == {identity["id"]}
    assert identity["steps"] == {"loss": 9}
