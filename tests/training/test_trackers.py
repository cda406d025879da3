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
from vsn.runs.run import RunError, new_run
from vsn.training import trackers
from vsn.training.trackers import open_trackers
from vsn.training.train import train


def test_tensorboard_has_every_epoch(finished_run: Path):
    events = EventAccumulator(str(finished_run / "tensorboard")).Reload()
    for key in ("train_loss", "val_top1", "lr", "data_wait"):
        assert [point.step for point in events.Scalars(key)] == [3, 6]
    assert [point.value for point in events.Scalars("val_loss")] == [
        pytest.approx(line["val_loss"]) for line in metrics_of(finished_run)
    ]


def test_none_at_all(tiny_data: Path, tmp_path: Path, quiet: Console):
    run = train(tiny_recipe(tiny_data, epochs=1, trackers=()), tmp_path / "run", console=quiet)
    assert not (run.path / "tensorboard").exists()


class Recorder:
    """Stands in for one of accelerate's trackers."""

    made: list[Any] = []  # noqa: RUF012

    def __init__(self, project: str, **place: Any) -> None:
        self.project, self.place, self.calls = project, place, []
        Recorder.made.append(self)

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: self.calls.append((name, *arguments, options))


@pytest.mark.parametrize(
    ("name", "kind", "place"),
    [
        ("wandb", "WandBTracker", {"name": "mine", "id": "mine", "resume": "allow"}),
        ("mlflow", "MLflowTracker", {"run_name": "mine"}),
    ],
)
def test_other_trackers_get_the_recipe_and_the_numbers(tmp_path: Path, monkeypatch, name: str, kind: str, place: dict):
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(trackers, kind, Recorder)
    run = new_run(tmp_path / "mine", tiny_recipe(Path("x")), ("a",))
    with open_trackers((name,), run, first=True) as opened:
        opened.log({"loss": 1.5, "name": "not a number"}, step=7)
    recorder = Recorder.made[-1]
    assert recorder.project == "vsn"
    assert place.items() <= recorder.place.items()
    assert [call[0] for call in recorder.calls] == ["start", "store_init_configuration", "log", "finish"]
    assert recorder.calls[1][1]["train.epochs"] == 2
    assert recorder.calls[2][1:] == ({"loss": 1.5}, {"step": 7})
    with open_trackers((name,), run, first=False) as opened:
        opened.log({"loss": 1.5}, step=7)
    assert Recorder.made[-1] is recorder


def test_a_tracker_that_is_not_installed(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    run = new_run(tmp_path / "run", tiny_recipe(Path("x")), ("a",))
    with pytest.raises(ConfigError, match=r"names 'wandb', which is not installed .*pip install wandb"), \
            open_trackers(("wandb",), run, first=True):  # fmt: skip
        pass


def test_a_tracker_that_cannot_write(tmp_path: Path):
    run = new_run(tmp_path / "run", tiny_recipe(Path("x")), ("a",))
    write_run(run)
    (run.path / "tensorboard").write_text("a file where the folder should be")
    with pytest.raises(RunError, match=r"'tensorboard' cannot write in .*run"), \
            open_trackers(("tensorboard",), run, first=True):  # fmt: skip
        pass
