"""A training that diverges stops, and nothing that is not finite is saved, tested or predicted with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from tests.helpers.tiny_runs import at_step, metrics_of, tiny_recipe, weights_of
from vsn.cli import main
from vsn.config import ConfigError
from vsn.export.export import export_run
from vsn.inference.evaluate import evaluate_run
from vsn.inference.exported import video_logits
from vsn.inference.features import extract_features
from vsn.inference.predictor import Predictor
from vsn.models.weights_file import NotFiniteError, check_finite, write_weights
from vsn.runs.checkpoint import load_checkpoint
from vsn.runs.run import RunError, is_finished, open_run, weights_file
from vsn.scores.scores import ScoresError
from vsn.serve.models import open_model
from vsn.stream.scorer import WindowScorer
from vsn.training import train as train_module
from vsn.training.job import Job
from vsn.training.train import TrainingStopped, train


def nan_gradient(loss: torch.Tensor) -> torch.Tensor:
    """A finite loss whose gradient is NaN: the update makes every weight NaN."""
    return loss + torch.sqrt(0 * loss)


def not_json(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def assert_all_finite(path: Path) -> None:
    """Every weight and every number that a run folder holds is finite."""
    state, note = load_checkpoint(open_run(path))
    assert not note
    check_finite(state["model"])
    for file in path.glob("*.safetensors"):
        check_finite(weights_of(path, file.name))
    for file in [*path.glob("*.json"), *path.glob("*.jsonl")]:
        for line in file.read_text().splitlines() if file.suffix == ".jsonl" else [file.read_text()]:
            json.loads(line, parse_constant=not_json)


@pytest.mark.parametrize(
    ("step", "settings", "stopped_in"),
    [
        (1, {}, "epoch 1, step 2"),
        (2, {"save_minutes": 0}, "epoch 1, step 2"),
        (2, {"val_steps": 2}, "epoch 1, step 2"),
        (3, {}, "epoch 1, step 3"),
        (3, {"val_every": 2}, "epoch 1, step 3"),
        (3, {"ema": 0.9, "optimizer": "adamw"}, "epoch 1, step 3"),
        (6, {}, "epoch 2, step 3"),
        (6, {"clip_grad_norm": 0.0, "ema": 0.9}, "epoch 2, step 3"),
    ],
)
def test_a_step_that_diverges_is_not_saved(
    tiny_data: Path, tmp_path: Path, quiet: Console, monkeypatch, step: int, settings: dict, stopped_in: str
):
    path = tmp_path / "run"
    at_step(monkeypatch, step, nan_gradient)
    with pytest.raises(TrainingStopped, match=f"diverged in {stopped_in}") as stopped:
        train(tiny_recipe(tiny_data, **settings), path, console=quiet)
    monkeypatch.undo()
    assert not is_finished(path)
    assert_all_finite(path)
    assert len(metrics_of(path) if (path / "metrics.jsonl").exists() else []) == (step - 1) // 3
    # Where the message names weights to go on from, they can be trained on.
    has_weights = weights_file(open_run(path)).is_file()
    assert (f"--init-from {weights_file(open_run(path))}" in str(stopped.value)) == has_weights == (step > 3)
    if has_weights:
        recipe = tiny_recipe(tiny_data, epochs=1)
        recipe = replace(recipe, model=replace(recipe.model, weights=str(weights_file(open_run(path)))))
        assert is_finished(train(recipe, tmp_path / "next", console=quiet).path)


def test_batch_statistics_count(tiny_data: Path, tmp_path: Path, quiet: Console, monkeypatch):
    """Training never reads the running statistics, so that the loss stays finite."""
    path, usual = tmp_path / "run", train_module.train_step

    def step(job: Job, *arguments: Any) -> None:
        usual(job, *arguments)
        if job.steps_done == 5:
            dict(job.model.named_buffers())["backbone.layer3.0.bn1.running_var"][1] = float("inf")

    monkeypatch.setattr(train_module, "train_step", step)
    with pytest.raises(TrainingStopped, match=r"epoch 2, step 3.*backbone\.layer3\.0\.bn1\.running_var"):
        train(tiny_recipe(tiny_data), path, console=quiet)
    assert_all_finite(path)


def test_a_stop_after_a_step_that_diverged_saves_nothing(tiny_data: Path, tmp_path: Path, quiet: Console, monkeypatch):
    from tests.training.test_train import interrupt

    at_step(monkeypatch, 2, lambda loss: nan_gradient(interrupt(loss)))
    with pytest.raises(TrainingStopped, match="diverged in epoch 1, step 2"):
        train(tiny_recipe(tiny_data), tmp_path / "run", console=quiet)
    assert_all_finite(tmp_path / "run")


def test_a_state_that_is_not_finite_is_skipped(finished_run: Path, tmp_path: Path):
    """As versions before this check have left it: the one before is resumed from."""
    run = replace(open_run(finished_run), path=tmp_path)
    state, _ = load_checkpoint(open_run(finished_run))
    torch.save(state, tmp_path / "state-before.pt")
    state["model"]["head.bias"][0] = float("nan")
    torch.save(state, tmp_path / "state.pt")
    older, note = load_checkpoint(run)
    check_finite(older["model"])
    assert "head.bias" in note


# --- weights on disk ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_check_finite(value: float, dtype: torch.dtype):
    largest = torch.full((3,), torch.finfo(dtype).max, dtype=dtype)  # its norm overflows, and it is finite
    weights = {"fine": largest, "empty": torch.empty(0), "count": torch.tensor(7), "scalar": torch.tensor(1.0)}
    check_finite(weights)
    weights["bad"] = torch.tensor([0.0, value], dtype=dtype)
    with pytest.raises(NotFiniteError, match=r"1 of 4 .*'bad'"):
        check_finite(weights)


def test_weights_that_are_not_finite_are_neither_written_nor_read(finished_run: Path, tmp_path: Path, capsys):
    """As versions before this check have left them."""
    path, run = tmp_path / "run", open_run(finished_run)
    path.mkdir()
    for file in ("recipe.toml", "classes.json"):
        (path / file).write_bytes((finished_run / file).read_bytes())
    broken = weights_of(finished_run)
    broken["backbone.bn1.running_mean"][0] = float("nan")
    with pytest.raises(NotFiniteError):
        write_weights(path / "model.safetensors", broken, run.recipe.model)
    assert not (path / "model.safetensors").exists()
    save_file(broken, path / "model.safetensors")
    for use in (
        lambda: evaluate_run(path, progress=False),
        lambda: Predictor.from_run(path),
        lambda: extract_features(path, tmp_path / "f.npz"),
        lambda: export_run(path, out=tmp_path / "m.onnx"),
        lambda: open_model(path),
    ):
        with pytest.raises(RunError, match=r"model\.safetensors .*'backbone\.bn1\.running_mean'.*--weights best"):
            use()
    with pytest.raises(SystemExit) as stopped:
        main(["predict", str(path), str(tmp_path / "video.mp4")])
    assert "bn1.running_mean" in str(stopped.value)


@pytest.mark.parametrize("name", ["model.safetensors", "weights.pth"])
def test_a_model_does_not_start_from_them(
    tiny_data: Path, finished_run: Path, tmp_path: Path, quiet: Console, name: str
):
    recipe, broken = tiny_recipe(tiny_data), weights_of(finished_run)
    broken["backbone.conv1.weight"][0] = float("inf")
    if name == "weights.pth":
        torch.save({k.removeprefix("backbone."): v for k, v in broken.items() if "head" not in k}, tmp_path / name)
    else:
        (tmp_path / "recipe.toml").write_bytes((finished_run / "recipe.toml").read_bytes())
        save_file(broken, tmp_path / name, metadata={"model": json.dumps(recipe.to_dict()["model"])})
    recipe = replace(recipe, model=replace(recipe.model, weights=str(tmp_path / name)))
    with pytest.raises(ConfigError, match=r"NaN or infinity: '.*conv1\.weight'"):
        train(recipe, tmp_path / "run", console=quiet)
    assert not (tmp_path / "run").exists()


# --- outputs --------------------------------------------------------------------------------------


@pytest.fixture
def overflowing(finished_run: Path, tmp_path: Path) -> Path:
    """A run with finite weights, so large that its features and logits are infinite or NaN."""
    path, run = tmp_path / "overflowing", open_run(finished_run)
    path.mkdir()
    for file in ("recipe.toml", "classes.json"):
        (path / file).write_bytes((finished_run / file).read_bytes())
    weights = weights_of(finished_run)
    for name in weights:
        if name.endswith(("bn2.weight", "bn1.weight", "head.weight")):
            weights[name].fill_(3e38)
    write_weights(path / "model.safetensors", weights, run.recipe.model)
    return path


def test_outputs_that_are_not_finite_are_errors(overflowing: Path, gray_video: Path, tmp_path: Path, capsys):
    predictor = Predictor.from_run(overflowing, device="cpu")
    frames = [np.full((1, 36, 54, 3), 10 * i, np.uint8) for i in range(4)]
    for use in (
        lambda: evaluate_run(overflowing, progress=False),
        lambda: predictor.predict(gray_video),
        lambda: predictor.features(gray_video),
        lambda: extract_features(overflowing, tmp_path / "f.npz", videos=[gray_video], device="cpu"),
        lambda: WindowScorer(predictor).score(range(4), frames),
        lambda: WindowScorer(predictor, reuse=False).score(range(4), frames),
        lambda: open_model(overflowing, device="cpu").score([np.zeros((4, 3, 32, 32), np.uint8)]),
        lambda: video_logits(lambda _: np.array([[1.0, np.nan]]), frames[0], average="logits"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ScoresError, match="not finite"):
            use()
    assert not (overflowing / "eval").exists()
    assert not (tmp_path / "f.npz").exists()
    with pytest.raises(SystemExit) as stopped:
        main(["predict", str(overflowing), str(gray_video), "--device", "cpu"])
    assert "not finite" in str(stopped.value)
    assert "nan" not in capsys.readouterr().out


def test_a_validation_that_is_not_finite_is_never_the_best(
    tiny_data: Path, tmp_path: Path, quiet: Console, monkeypatch
):
    from vsn.training import validate

    losses = iter([2.0, float("nan")])
    monkeypatch.setattr(validate, "mean_loss", lambda scores: next(losses))
    with pytest.raises(TrainingStopped, match=r"epoch 2, step 3.*: the validation loss is not finite"):
        train(tiny_recipe(tiny_data), tmp_path / "run", console=quiet)
    assert_all_finite(tmp_path / "run")
    assert [line["val_loss"] for line in metrics_of(tmp_path / "run")] == [2.0]
