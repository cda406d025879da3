"""Settings that change how a model is trained, and some that must not change the result."""

import json
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tests.helpers.tiny_runs import assert_same_weights, metrics_of, rename_data, tiny_recipe, weights_of
from vsn.config import ConfigError, Recipe
from vsn.data.open import open_datasets
from vsn.inference.evaluate import evaluate_run
from vsn.runs.checkpoint import load_model
from vsn.runs.run import RunError, open_run
from vsn.training import train as train_module
from vsn.training.train import TrainingStopped, train, train_or_reuse
from vsn.training.train_state import BestValidation, TrainState


def weights_kept(run: Path, kind: str) -> dict[str, torch.Tensor]:
    return load_model(open_run(run), kind).state_dict()


# --- moving average -----------------------------------------------------------------------------------


def test_the_average_is_validated_and_saved_and_resumed(
    tiny_data: Path, tmp_path: Path, finished_run: Path, quiet: Console
):
    recipe = tiny_recipe(tiny_data, ema=0.9)
    by_hand: dict[str, torch.Tensor] = {}
    step, count = train_module.train_step, 0

    def followed(job, *arguments):
        nonlocal count
        step(job, *arguments)
        decay = min(0.9, (1 + count) / (10 + count)) if count else 0.0
        for name, weight in job.model.state_dict().items():
            if weight.is_floating_point():
                by_hand[name] = weight.clone() if not count else by_hand[name].lerp(weight, 1 - decay)
        count += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "train_step", followed)
        whole = train(recipe, tmp_path / "whole", console=quiet).path
    state = torch.load(whole / "state.pt", weights_only=True)
    averaged, last = weights_of(whole), state["model"]
    assert not torch.equal(averaged["head.weight"], last["head.weight"])
    assert_same = [torch.equal(last[name], tensor) for name, tensor in weights_of(finished_run).items()]
    assert all(assert_same)  # training itself is not changed
    assert all(torch.equal(state["average"][f"module.{name}"], tensor) for name, tensor in averaged.items())
    assert all(torch.equal(by_hand[name], averaged[name]) for name in ("head.weight", "backbone.conv1.weight"))
    half = replace(recipe, train=replace(recipe.train, save_minutes=0))
    stop_after(half, tmp_path / "parts", 4, quiet)
    train(half, tmp_path / "parts", resume=True, console=quiet)
    assert_same_weights(tmp_path / "parts", whole)
    result = evaluate_run(whole, split="val", progress=False)
    assert result["top1"] == pytest.approx(metrics_of(whole)[-1]["val_top1"])


def stop_after(recipe: Recipe, path: Path, num_steps: int, console: Console) -> None:
    """Begin a run that is stopped, as by Ctrl-C, when so many steps are taken."""
    count = 0
    step = train_module.train_step

    def counted(job, *arguments):
        nonlocal count
        step(job, *arguments)
        count += 1
        job.stop.requested = count == num_steps

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "train_step", counted)
        with pytest.raises(TrainingStopped):
            train(recipe, path, console=console)


# --- parts of a step ----------------------------------------------------------------------------------


def without_batch_statistics(recipe: Recipe) -> Recipe:
    """The recipe with every batch normalization frozen and no dropout: videos of a batch do not meet."""
    layers = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
    return replace(recipe, model=replace(recipe.model, dropout=0.0), train=replace(recipe.train, freeze=layers))


@pytest.mark.parametrize("settings", [{}, {"class_weights": True}, {"label_smoothing": 0.2}])
def test_parts_of_a_step_give_the_step(tiny_data: Path, tmp_path: Path, quiet: Console, settings: dict):
    recipe = without_batch_statistics(tiny_recipe(tiny_data, **settings))
    whole = train(recipe, tmp_path / "whole", console=quiet).path
    parts = replace(recipe, train=replace(recipe.train, accumulate=3))
    run = train(parts, tmp_path / "parts", console=quiet).path
    for ours, wanted in zip(metrics_of(run), metrics_of(whole), strict=True):
        assert ours == {key: pytest.approx(value, rel=1e-5) for key, value in wanted.items()}
    torch.testing.assert_close(weights_of(run), weights_of(whole), rtol=1e-5, atol=1e-6)


# --- validation ---------------------------------------------------------------------------------------


def test_validation_within_an_epoch(tiny_data: Path, tmp_path: Path, finished_run: Path, quiet: Console):
    run = train(tiny_recipe(tiny_data, val_steps=2), tmp_path / "run", console=quiet).path
    assert [(line["step"], line["epoch"], "train_loss" in line) for line in metrics_of(run)] == [
        (2, 0.6667, False), (3, 1, True), (4, 1.3333, False), (6, 2, True),
    ]  # fmt: skip
    assert_same_weights(run, finished_run)  # validation changes no weight


def test_an_interrupted_validation_is_repeated(tiny_data: Path, tmp_path: Path, quiet: Console):
    recipe = tiny_recipe(tiny_data, val_steps=2)
    whole = train(recipe, tmp_path / "whole", console=quiet).path
    stop_after(recipe, tmp_path / "run", 2, quiet)  # the flag is seen in the validation after step 2
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    train(recipe, tmp_path / "run", resume=True, console=quiet)
    assert metrics_of(tmp_path / "run") == metrics_of(whole)


def test_the_best_weights_are_kept_and_the_run_stops_early(
    tiny_data: Path, tmp_path: Path, quiet: Console, monkeypatch, log
):
    from vsn.training import validate

    top1 = iter([0.5, 0.75, 0.75, 0.25, 0.9])
    loss = iter([1.0, 0.8, 0.7, 0.1, 0.1])  # the third ties in top-1 and is better in loss
    with monkeypatch.context() as patch:
        patch.setattr(validate, "top_k_hits", lambda scores, k: torch.tensor([next(top1)]).double())
        patch.setattr(validate, "mean_loss", lambda scores: next(loss))
        run = train(tiny_recipe(tiny_data, epochs=9, early_stop=1), tmp_path / "run", console=log[0]).path
    assert len(metrics_of(run)) == 4
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["epoch"], summary["best"]["epoch"], summary["best"]["value"]) == (4, 3, 0.75)
    assert "train.early_stop" in log[1]()
    third = train(tiny_recipe(tiny_data, epochs=3, schedule="multistep"), tmp_path / "3", console=quiet).path
    best = weights_kept(run, "best")
    assert all(torch.equal(best[name], tensor) for name, tensor in weights_of(third).items())
    assert not torch.equal(best["head.weight"], weights_kept(run, "last")["head.weight"])
    assert evaluate_run(run, split="val", weights="best", progress=False)["weights"] == "best"
    assert (run / "eval" / "val-fcn-forward-best.npz").is_file()


# --- saving -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("minutes", "times"), [(0.0, 9), (60.0, 3)])
def test_how_often_the_state_is_saved(
    tiny_data: Path, tmp_path: Path, quiet: Console, monkeypatch, minutes: float, times: int
):
    from vsn.training import job

    saved = []
    save = job.save_checkpoint
    monkeypatch.setattr(job, "save_checkpoint", lambda run, state: (saved.append(1), save(run, state)))
    train(tiny_recipe(tiny_data, save_minutes=minutes), tmp_path / "run", console=quiet)
    assert len(saved) == times  # at the start and after 2 epochs, or after each of 6 steps too


def test_time_decides_when_the_state_is_saved_within_an_epoch(
    tiny_data: Path, tmp_path: Path, quiet: Console, monkeypatch
):
    from vsn.training import job

    clock = iter(range(0, 10**6, 100))  # a hundred seconds from one look to the next
    saved = []
    monkeypatch.setattr(job, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(job, "save_checkpoint", lambda run, state: saved.append(state["progress"]["step"]))
    recipe = tiny_recipe(tiny_data, epochs=1, batch_size=2, save_minutes=5)  # 6 steps
    train(recipe, tmp_path / "run", console=quiet)
    assert saved == [0, 3, 6, 0]  # at the start, every third look, at the end of the epoch


def test_state_of_an_older_version_still_resumes():
    """The keys in `state.pt` as of 0.1: they stay, or `TrainState.from_state` translates them."""
    best = {"measure": "val_top1", "value": 0.5, "val_loss": 1.5, "step": 3, "epoch": 1.0}
    stored = {
        "epoch": 1, "step": 2, "loss_sum": 7.5, "hits": 4.0, "videos": 10.0, "bad": {"a.mp4": "empty"}, "fresh": ["bn1"],
        "best": best, "stale": 1, "validated": 2, "seconds": 9.5, "line": {"epoch": 1, "seconds": 9.5},
    }  # fmt: skip
    progress = TrainState.from_state(stored)
    assert progress.best == BestValidation(**best)
    assert progress.averages() == (0.75, 0.4)
    # A bad video is counted again only if it still cannot be read.
    assert progress.state_dict() == stored | {"bad": {}, "epoch_seconds": 0.0}  # not recorded yet


# --- what must not change the result -----------------------------------------------------------------


def test_checkpointed_activations_are_bit_equal(tiny_data: Path, tmp_path: Path, finished_run: Path, quiet: Console):
    recipe = tiny_recipe(tiny_data, checkpoint_activations=True)
    run = train(recipe, tmp_path / "run", console=quiet).path
    assert_same_weights(run, finished_run)  # batch statistics and their counts too
    assert metrics_of(run) == metrics_of(finished_run)


def test_a_resumable_setting_may_change(tiny_data: Path, tmp_path: Path, finished_run: Path, quiet: Console):
    recipe = tiny_recipe(tiny_data)
    stop_after(recipe, tmp_path / "run", 4, quiet)
    other = rename_data(recipe, num_workers=1)
    train(other, tmp_path / "run", resume=True, console=quiet)
    assert_same_weights(tmp_path / "run", finished_run)
    assert open_run(tmp_path / "run").recipe.data.num_workers == 1


# --- messages -------------------------------------------------------------------------------


def test_printed_lines(tiny_data: Path, tmp_path: Path, log):
    train(tiny_recipe(tiny_data), tmp_path / "run", console=log[0])
    printed = log[1]()
    assert "2 epochs, 6 steps in" in printed
    assert f"Test it with: vsn eval {tmp_path / 'run'}" in printed
    assert "waiting" in printed.split("epoch   2/2")[1]


def test_out_of_memory_says_what_to_change(tiny_data: Path, tmp_path: Path, quiet: Console, monkeypatch):
    def no_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(train_module, "train_step", no_memory)
    with pytest.raises(TrainingStopped, match=r"train\.accumulate.*--find-batch-size"):
        train(tiny_recipe(tiny_data), tmp_path / "run", console=quiet)


def test_fewer_videos_than_processes(tiny_data: Path, monkeypatch):
    from vsn.system.distributed import Distributed
    from vsn.training.job import check_job

    distributed = Distributed("cpu")
    distributed.world_size = 8
    with pytest.raises(ConfigError, match=r"batch_size = 5 .* 8 "):
        check_job(tiny_recipe(tiny_data), distributed)


@pytest.mark.parametrize("name", ["model.safetensors", "clips/a.mp4", "metrics.jsonl"])
def test_a_folder_that_is_not_an_unstarted_run_is_kept(tiny_data: Path, tmp_path: Path, quiet: Console, name: str):
    file = tmp_path / "run" / name
    file.parent.mkdir(parents=True)
    file.write_text("the only copy")
    (tmp_path / "run" / "recipe.toml").touch()
    recipe = tiny_recipe(tiny_data)
    datasets = open_datasets(recipe, quiet)
    with pytest.raises(RunError, match="not empty"):
        train_or_reuse(recipe, tmp_path / "run", datasets=datasets, console=quiet, command="vsn demo")
    assert file.read_text() == "the only copy"
