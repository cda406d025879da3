import pytest
import torch

from vsn.config import ModelConfig
from vsn.models import create_model
from vsn.models.measure import count_multiply_adds, count_parameters, latency_ms

NAMES = ("tsn_resnet14_tiny", "tsm_resnet14_tiny", "vsn_resnet14_tiny")


def test_temporal_models_cost_what_tsn_costs():
    configs = [ModelConfig(name=name, num_classes=5, num_frames=4) for name in NAMES]
    assert len({count_multiply_adds(config, size=32) for config in configs}) == 1
    assert len({count_parameters(create_model(name, num_classes=5, num_frames=4)) for name in NAMES}) == 1


def test_parameters_of_a_known_network():
    assert count_parameters(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))) == 224 + 16


@pytest.mark.parametrize(("num_frames", "expected"), [(1, 1.814e9), (8, 14.51e9)])
def test_multiply_adds_of_resnet18(num_frames: int, expected: float):
    """torchvision states 1.814 G for one image of 224 pixels."""
    config = ModelConfig(name="tsn_resnet18", num_classes=1000, num_frames=num_frames)
    assert count_multiply_adds(config, size=224) == pytest.approx(expected, rel=2e-3)


def test_latency_of_each_model_in_turns():
    seen: list[str] = []

    class Spy(torch.nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, clip: torch.Tensor) -> torch.Tensor:
            seen.append(self.name)
            return clip

    latency = latency_ms({"a": Spy("a"), "b": Spy("b")}, torch.zeros(1), rounds=3)
    assert set(latency) == {"a", "b"}
    assert all(value > 0 for value in latency.values())
    assert seen == ["a", "b"] * 5  # two passes to warm up
