"""Tiny recipes and runs: a network of a few thousand values, videos of 32 pixels, one thread."""

import json
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vsn.config import ClipSpec, DataConfig, EvalConfig, ModelConfig, Recipe, TrainConfig
from vsn.training import losses


def tiny_recipe(root: Path, *, model: str = "vsn_resnet14_tiny", **train_settings: Any) -> Recipe:
    """12 training and 3 validation videos of `tiny_data`: 3 steps an epoch, the last one smaller."""
    settings = {"epochs": 2, "batch_size": 5, "lr_batch_size": 0, "device": "cpu", **train_settings}
    return Recipe(
        model=ModelConfig(name=model, num_frames=4),
        clip=ClipSpec(short_side=36, crop_size=32),
        data=DataConfig(root=str(root), num_workers=0),
        train=TrainConfig(**settings),
        eval=EvalConfig(batch_size=2),
    )


def weights_of(run: Path, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(run / name)


def assert_same_weights(run: Path, other: Path) -> None:
    first, second = weights_of(run), weights_of(other)
    assert first.keys() == second.keys()
    differing = [name for name, tensor in first.items() if not torch.equal(tensor, second[name])]
    assert not differing


CLOCKED = ("seconds", "videos_per_second", "data_wait")


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock measured."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in CLOCKED} for line in lines]


def rename_data(recipe: Recipe, **data_settings: Any) -> Recipe:
    return replace(recipe, data=replace(recipe.data, **data_settings))


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Let the loss of the number-th training step, counted from 1, pass through `act`."""
    calls = 0

    def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, **settings: float) -> torch.Tensor:
        nonlocal calls
        loss = torch.nn.functional.cross_entropy(logits, labels, **settings)
        calls += "label_smoothing" in settings  # validation states none
        return act(loss) if calls == number and "label_smoothing" in settings else loss

    monkeypatch.setattr(losses, "functional", types.SimpleNamespace(cross_entropy=cross_entropy))
