"""Tiny recipes and runs: a network of a few thousand values, videos of 32 pixels, one thread."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from vsn.config import ClipSpec, DataConfig, EvalConfig, ModelConfig, Recipe, TrainConfig
from vsn.data.decode import write_video
from vsn.engine.train import train


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums in one order, so that equal means equal to the last bit."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


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


@pytest.fixture(scope="session")
def quiet() -> Console:
    return Console(quiet=True)


@pytest.fixture
def log() -> Iterator[tuple[Console, Callable[[], str]]]:
    """A console, and what was printed on it."""
    console = Console(record=True, width=300, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    yield console, console.export_text
    console.file.close()


@pytest.fixture(scope="session")
def finished_run(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory, quiet: Console) -> Path:
    """A VSN trained for two epochs. Not to be changed: copy it."""
    return train(tiny_recipe(tiny_data), tmp_path_factory.mktemp("runs") / "vsn", console=quiet).path


@pytest.fixture(scope="session")
def arrow_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """4 videos whose light moves left to right, each at a height of its own; test clips are exact mirrors in time."""
    root = tmp_path_factory.mktemp("arrow")
    for number in range(4):
        frames = np.full((12, 32, 32, 3), 40, np.uint8)
        for i, frame in enumerate(frames):
            frame[7 * number : 7 * number + 8, 2 * i : 2 * i + 8] = 230
        write_video(root / "train" / "moving" / f"{number}.mp4", frames, frames_per_second=12)
    return root
