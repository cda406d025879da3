import re
from pathlib import Path

import pytest
import torch

from tests.helpers.tiny_runs import tiny_recipe
from vsn.models import create_model
from vsn.training.batch_size import TrialStep, describe_fit, find_batch_size, largest_batch
from vsn.training.memory import checkpoint_activations, is_out_of_memory

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
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: ..."))


def test_checkpointed_blocks_store_only_their_inputs():
    model = create_model("vsn_resnet26_thin", num_classes=2, num_frames=4).train()
    clip = torch.randint(0, 256, (1, 4, 3, 32, 32), dtype=torch.uint8)

    def saved_bytes() -> int:
        """What autograd keeps between the two ways, weights left out."""
        kept = {}
        weights = {parameter.data_ptr() for parameter in model.parameters()}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.data_ptr() not in weights:
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            logits = model(clip)
        del logits
        return sum(kept.values())

    names, before = list(model.state_dict()), saved_bytes()
    checkpoint_activations(model)
    assert list(model.state_dict()) == names
    assert saved_bytes() < 0.6 * before


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
