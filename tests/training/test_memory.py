import re
from pathlib import Path

import pytest
import torch

from tests.helpers.tiny_runs import tiny_recipe
from vsn.models import create_model
from vsn.training import job
from vsn.training.batch_size import TrialStep, describe_fit, find_batch_size, largest_batch
from vsn.training.memory import checkpoint_activations, is_out_of_memory, kept_bytes
from vsn.training.train import train

CPU = torch.device("cpu")


@pytest.mark.parametrize("most", [1, 7, 64, 100])
@pytest.mark.parametrize("fits", [0, 1, 2, 3, 31, 32, 33, 63, 64, 1000])
def test_largest_batch(most: int, fits: int):
    tried = []

    def step(num_videos: int) -> None:
        tried.append(num_videos)
        assert num_videos <= most
        if num_videos > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")

    assert largest_batch(step, limit=most) == min(fits, most)
    assert len(tried) <= 2 * 8 + 1


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def step(num_videos: int) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        largest_batch(step, limit=4)
    for text in ("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory"):
        assert is_out_of_memory(RuntimeError(f"[enforce fail at alloc_cpu.cpp:124] {text}: you tried to ..."))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))


def test_checkpointed_blocks_store_only_their_inputs():
    model = create_model("vsn_resnet26_thin", num_classes=2, num_frames=4).train()
    clip = torch.randint(0, 256, (1, 4, 3, 32, 32), dtype=torch.uint8)

    names, before = list(model.state_dict()), kept_bytes(model, clip)
    checkpoint_activations(model)
    assert list(model.state_dict()) == names
    assert kept_bytes(model, clip) < 0.6 * before


def test_kept_bytes_are_those_of_the_tensors_between():
    """The inputs of both layers and the mask of the ReLU; the weights, and a tensor kept twice, are not counted again."""
    layers = [torch.nn.Linear(3, 5, bias=False), torch.nn.ReLU(), torch.nn.Linear(5, 2, bias=False)]
    for device in ("cpu", "meta"):
        network = torch.nn.Sequential(*layers).to(device)
        assert kept_bytes(network, torch.zeros(7, 3, device=device)) == 4 * 7 * (3 + 5)


@pytest.mark.parametrize(
    ("settings", "is_said"),
    [
        ({}, True),
        ({"precision": "bf16"}, False),  # half as much
        ({"accumulate": 2}, False),
        ({"checkpoint_activations": True}, False),
    ],
)
def test_a_lack_of_memory_is_said_before_the_system_ends_the_training(
    settings: dict, is_said: bool, tiny_data: Path, tmp_path: Path, log: tuple, monkeypatch: pytest.MonkeyPatch
):
    model = create_model("vsn_resnet14_tiny", num_classes=3, num_frames=4).train()
    needed = kept_bytes(model, torch.zeros(5, 4, 3, 32, 32))
    monkeypatch.setattr(job, "available_bytes", lambda: int(1.1 * needed))
    console, text = log
    train(tiny_recipe(tiny_data, epochs=1, **settings), tmp_path / "run", console=console)
    said = "A step with 5 videos at once keeps about 0.0 GB until its backward pass, and 0.0 GB are free" in text()
    assert said == is_said


@pytest.mark.parametrize(
    ("fits", "settings", "numbers", "advice"),
    [
        (0, {}, [], "train.checkpoint_activations"),
        (64, {"batch_size": 64}, ["64", "64"], "which fits"),
        (20, {"batch_size": 64, "accumulate": 4}, ["20", "16"], "which fits"),
        (20, {"batch_size": 64}, ["20", "64", "4", "16", "20"], "train.accumulate = 4"),
    ],
)
def test_describe_fit(fits: int, settings: dict, numbers: list[str], advice: str):
    text = describe_fit(fits, tiny_recipe(Path(), **settings), CPU)
    assert re.findall(r"\d+", text) == numbers
    assert advice in text


def test_batch_size_is_found_on_the_cpu(tiny_data: Path):
    assert "has 5 at once on one process, which fits" in find_batch_size(tiny_recipe(tiny_data))


def test_trial_steps_train(tiny_data: Path):
    step = TrialStep(tiny_recipe(tiny_data, checkpoint_activations=True), 3, CPU)
    before = step.model.head.bias.detach().clone()
    step(2)
    assert not torch.equal(step.model.head.bias, before)
