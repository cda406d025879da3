"""A run that is killed at any moment resumes to the same result."""

import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.helpers.ranks import run_killed, train_quietly
from tests.helpers.tiny_runs import assert_same_weights, metrics_of, tiny_recipe
from vsn.config import Recipe
from vsn.models import weights_file
from vsn.runs import checkpoint
from vsn.runs.run import is_finished
from vsn.system import files
from vsn.system.lock import LOCK_FILE
from vsn.training import train as train_module
from vsn.training.train import train


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half_written(state: Any, path: Path) -> None:
    whole = path.with_name("whole")
    SAVE(state, whole)
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    whole.unlink()
    die()


SAVE = checkpoint.torch.save


def train_until(point: str, recipe: Recipe, path: Path) -> None:
    """Train a run up to `point`, and kill the process there."""
    calls = 0
    of, name, number = {
        "after a step": (train_module, "train_step", 4),
        "writing the state": (checkpoint.torch, "save", 4),
        "between the two states": (checkpoint.os, "fsync", 4),
        "writing the weights": (weights_file, "save_file", 2),
        "after the state, before its line": (train_module, "append_metrics", 2),
        "writing the line": (files.Path, "write_text", None),
        "before the summary": (train_module, "write_summary", 1),
    }[point]
    usual = getattr(of, name)

    def dying(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        if number is None:
            if ".metrics-" in str(arguments[0]):
                usual(arguments[0], arguments[1][:7])
                die()
            return usual(*arguments, **options)
        calls += 1
        if calls < number:
            return usual(*arguments, **options)
        if point == "writing the state":
            half_written(*arguments)
        if point == "after a step":
            usual(*arguments, **options)
        if point == "between the two states":  # the previous one is moved away, the new one not yet in its place
            (path / "state.pt").replace(path / "state-before.pt")
        return die()

    setattr(of, name, dying)
    train(recipe, path, console=Console(quiet=True))


@pytest.mark.parametrize(
    "point",
    [
        "after a step", "writing the state", "between the two states", "writing the weights",
        "after the state, before its line", "writing the line", "before the summary",
    ],
)  # fmt: skip
def test_killed_and_resumed_is_uninterrupted(
    tiny_data: Path, tmp_path: Path, finished_run: Path, quiet: Console, point: str
):
    recipe, path = tiny_recipe(tiny_data, save_minutes=0), tmp_path / "run"
    assert run_killed(train_until, point, recipe, path) == -signal.SIGKILL
    assert not is_finished(path)
    assert bool({file.name for file in path.glob(".*")} - {LOCK_FILE}) == point.startswith(("writing", "between"))
    train(recipe, path, resume=True, console=quiet)
    assert_same_weights(path, finished_run)
    assert metrics_of(path) == metrics_of(finished_run)
    assert is_finished(path)
    assert not [left.name for left in path.iterdir() if left.name.startswith(".")]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_random_moments_again_and_again(tiny_data: Path, tmp_path: Path, quiet: Console, seed: int):
    recipe = tiny_recipe(tiny_data, epochs=4, save_minutes=0, val_steps=2, ema=0.9)
    whole = train(recipe, tmp_path / "whole", console=quiet).path
    draw, path, kills = random.Random(seed), tmp_path / "run", 0
    while not is_finished(path):
        resume = any(path.glob("state*.pt"))
        after = draw.uniform(0.02, 0.3) if kills < 12 else None
        kills += run_killed(train_quietly, recipe, path, resume, after=after) != 0
    assert kills >= 3
    assert_same_weights(path, whole)
    assert metrics_of(path) == metrics_of(whole)
