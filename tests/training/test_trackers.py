import sys
import types
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.helpers.tiny_runs import metrics_of, tiny_recipe
from vsn.config import ConfigError
from vsn.runs.metadata import write_run
from vsn.runs.run import RunError, flat_settings, new_run
from vsn.training.trackers import open_trackers
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


class FakeModule(types.ModuleType):
    """`wandb` or `mlflow`: records every call, on itself and on what `init` returns."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "config":
            return self

        def record(*arguments: Any, **options: Any) -> Any:
            self.calls.append((name, *arguments, options))
            return self

        return record


@pytest.mark.parametrize(
    ("name", "opening", "setting", "logging"),
    [
        (
            "wandb",
            [("init", {"project": "vsn", "name": "mine", "id": "mine", "resume": "allow", "dir": "mine"})],
            ("update", "SETTINGS", {"allow_val_change": True}),
            [("log", {"loss": 1.5}, {"step": 7}), ("finish", {})],
        ),
        (
            "mlflow",
            [("set_experiment", "vsn", {}), ("start_run", {"run_name": "mine"})],
            ("log_param", "train.epochs", 2, {}),
            [("log_metrics", {"loss": 1.5}, {"step": 7}), ("end_run", {})],
        ),
    ],
)
def test_other_trackers_get_the_recipe_and_the_numbers(
    tmp_path: Path, monkeypatch, name: Any, opening: list[Any], setting: Any, logging: list[Any]
):
    monkeypatch.setitem(sys.modules, name, module := FakeModule(name))
    monkeypatch.chdir(tmp_path)
    run = new_run(Path("mine"), tiny_recipe(Path("x")), ("a",))
    with open_trackers((name,), run) as opened:
        opened({"loss": 1.5}, 7)
    settings = flat_settings(run.recipe)
    assert module.calls[: len(opening)] == opening
    assert tuple(settings if x == "SETTINGS" else x for x in setting) in module.calls
    assert module.calls[-2:] == logging


def test_a_tracker_that_is_not_installed(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    run = new_run(tmp_path / "run", tiny_recipe(Path("x")), ("a",))
    with pytest.raises(ConfigError, match=r"wandb.*pip install wandb"), \
            open_trackers(("wandb",), run):  # fmt: skip
        pass


def test_a_tracker_that_cannot_write(tmp_path: Path):
    run = new_run(tmp_path / "run", tiny_recipe(Path("x")), ("a",))
    write_run(run)
    (run.path / "tensorboard").write_text("a file where the folder should be")
    with pytest.raises(RunError, match=r"tensorboard.*run"), \
            open_trackers(("tensorboard",), run):  # fmt: skip
        pass
