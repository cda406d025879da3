"""One run folder has one writer, and a run that was killed at once starts over."""

import os
import shlex
import shutil
import signal
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from tests.helpers.ranks import _CONTEXT, run_killed
from tests.helpers.tiny_runs import assert_same_weights, at_step, metrics_of, tiny_recipe
from vsn.config import ConfigError, Recipe
from vsn.data import processor
from vsn.runs import metadata
from vsn.runs.checkpoint import load_model
from vsn.runs.run import RunError, is_finished, open_run
from vsn.system.lock import LOCK_FILE, LockError
from vsn.training import job as job_module
from vsn.training import train as train_module
from vsn.training.train import train

Log = tuple[Console, Callable[[], str]]


def train_together(recipe: Recipe, path: Path, resume: bool, barrier: Barrier, answers: Any) -> None:
    """Train at the same time as other processes; answer when the data is read, and how it ended."""
    torch.set_num_threads(1)
    usual = train_module.open_datasets

    def open_datasets(*arguments: Any) -> Any:
        answers.put("read")
        return usual(*arguments)

    train_module.open_datasets = open_datasets
    barrier.wait(60)
    try:
        train(recipe, path, resume=resume, console=Console(quiet=True))
        answers.put("finished")
    except (LockError, RunError) as error:
        answers.put(str(error))


@pytest.mark.parametrize("resume", [False, True])
def test_of_two_started_together_one_trains(
    tiny_data: Path, tmp_path: Path, finished_run: Path, quiet: Console, monkeypatch, resume: bool
):
    recipe, path = tiny_recipe(tiny_data), tmp_path / "run"
    if resume:
        from tests.training.test_train import interrupt

        at_step(monkeypatch, 1, interrupt)
        with pytest.raises(train_module.TrainingStopped):
            train(recipe, path, console=quiet)
        monkeypatch.undo()
    barrier, answers = _CONTEXT.Barrier(2), _CONTEXT.Queue()
    started = [_CONTEXT.Process(target=train_together, args=(recipe, path, resume, barrier, answers)) for _ in range(2)]
    for process in started:
        process.start()
    said = [answers.get(timeout=90) for _ in range(3)]
    for process in started:
        process.join(20)
    # The second is refused before it reads the data, which may take hours.
    (refused,) = {*said} - {"read", "finished"}
    assert said.count("read") == said.count("finished") == 1
    assert "is being written by process" in refused
    assert any(str(process.pid) in refused for process in started)
    assert_same_weights(path, finished_run)
    assert metrics_of(path) == metrics_of(finished_run)
    assert not (path / LOCK_FILE).exists()


@pytest.mark.parametrize("step", [2, 3])
def test_a_folder_renamed_in_mid_run(
    tiny_data: Path, tmp_path: Path, finished_run: Path, quiet: Console, monkeypatch, step
):
    recipe, path, moved = tiny_recipe(tiny_data, save_minutes=0), tmp_path / "run", tmp_path / "moved"
    at_step(monkeypatch, step, lambda loss: (path.rename(moved), loss)[1])
    with pytest.raises(LockError, match=r"run was renamed"):
        train(recipe, path, console=quiet)
    monkeypatch.undo()
    assert not path.exists()
    train(recipe, moved, resume=True, console=quiet)
    assert_same_weights(moved, finished_run)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_until(point: str, recipe: Recipe, path: Path) -> None:
    """Train a run up to `point`, before its first save, and kill the process there."""
    if point == "before the first save":
        job_module.save_checkpoint = lambda *_: die()
    elif point == "writing the recipe":
        metadata.dump_recipe = lambda _: die()
    else:  # one of its first files
        usual = metadata.write_json
        metadata.write_json = processor.write_json = lambda file, value: (
            die() if file.name == point else usual(file, value)
        )
    train(recipe, path, console=Console(quiet=True))


@pytest.mark.parametrize(
    "point", ["versions.json", "preprocessing.json", "writing the recipe", "before the first save"]
)
@pytest.mark.parametrize("resume", [True, False])
def test_killed_before_the_first_save_it_starts_over(
    tiny_data: Path, tmp_path: Path, finished_run: Path, log: Log, point: str, resume: bool
):
    console, said = log
    recipe, path = tiny_recipe(tiny_data), tmp_path / "run"
    assert run_killed(train_until, point, recipe, path) == -signal.SIGKILL
    assert path.exists()
    if resume and not (path / "recipe.toml").exists():
        with pytest.raises(RunError, match="is not a run folder"):
            train(recipe, path, resume=True, console=console)
        return
    train(recipe, path, resume=resume, console=console)
    assert_same_weights(path, finished_run)
    assert is_finished(path)
    assert ("starts over" in said()) == ((path / "classes.json").exists() and point != "versions.json")


@pytest.mark.parametrize("name", ["recipe.toml", "classes.json", "videos.json", "notes.txt"])
def test_a_folder_of_something_else_is_left_alone(tiny_data: Path, tmp_path: Path, quiet: Console, name: str):
    (tmp_path / name).write_text("mine")
    with pytest.raises(RunError, match="exists and is not empty"):
        train(tiny_recipe(tiny_data), tmp_path, console=quiet)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]


def test_a_read_only_folder_is_resumed_elsewhere(tiny_data: Path, tmp_path: Path, quiet: Console, monkeypatch):
    from tests.training.test_train import interrupt

    recipe, path = tiny_recipe(tiny_data), tmp_path / "run"
    at_step(monkeypatch, 1, interrupt)
    with pytest.raises(train_module.TrainingStopped):
        train(recipe, path, console=quiet)

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(train_module, "lock_folder", read_only)
    with pytest.raises(RunError, match=r"Read-only file system.*copy it") as refused:
        train(recipe, path, resume=True, console=quiet)
    assert "--out" not in str(refused.value)


def test_a_run_in_a_folder_with_a_space_is_resumed_by_the_printed_command(
    tiny_data: Path, tmp_path: Path, quiet: Console, monkeypatch
):
    from tests.training.test_train import interrupt

    path = tmp_path / "my runs" / "a'b"
    at_step(monkeypatch, 1, interrupt)
    with pytest.raises(train_module.TrainingStopped) as stopped:
        train(tiny_recipe(tiny_data), path, console=quiet)
    command = shlex.split(str(stopped.value).partition("continue with: ")[2])
    assert command == ["vsn", "train", "--resume", str(path)]


def test_resuming_when_the_data_moved(tiny_data: Path, tmp_path: Path, quiet: Console, monkeypatch):
    from tests.training.test_train import interrupt

    data, path = tmp_path / "data", tmp_path / "run"
    data.symlink_to(tiny_data)
    at_step(monkeypatch, 1, interrupt)
    with pytest.raises(train_module.TrainingStopped):
        train(tiny_recipe(data), path, console=quiet)
    data.unlink()
    with pytest.raises(ConfigError, match=f"vsn train --resume {path} --data.root FOLDER"):
        train(tiny_recipe(data), path, resume=True, console=quiet)


def test_best_weights_that_are_missing(finished_run: Path, tmp_path: Path):
    path = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (path / "best.safetensors").unlink()
    with pytest.raises(RunError, match=r"no best weights \(best\.safetensors\).*--weights last"):
        load_model(open_run(path), "best")
