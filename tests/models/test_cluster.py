"""Attention Clusters: weighted averages by a loop, order and number of frames, the start, counts."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.helpers.peers import giga_multiply_adds, make, make_clip, num_parameters
from vsn.config import ConfigError, ModelConfig
from vsn.models.peers.cluster import AttentionCluster

NAME = "cluster_resnet14_tiny"


def cluster_of(features: int = 6, units: int = 3) -> AttentionCluster:
    torch.manual_seed(0)
    cluster = AttentionCluster(features, units).double()
    nn.init.normal_(cluster.attention.weight)
    return cluster


def features_of(batch: int = 2, num_frames: int = 4, features: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, num_frames, features, dtype=torch.float64, generator=generator)


@torch.no_grad()
def test_each_unit_is_its_weighted_average_shifted_and_normalized() -> None:
    cluster, features = cluster_of(), features_of()
    expected = torch.zeros(2, 3, 6, dtype=torch.float64)
    for b in range(2):
        for unit in range(3):
            weight, bias = cluster.attention.weight[unit], cluster.attention.bias[unit]
            scores = [torch.exp(weight @ frame + bias) for frame in features[b]]
            average = sum(score * frame for score, frame in zip(scores, features[b], strict=True)) / sum(scores)
            shifted = cluster.alpha[unit] * average + cluster.beta[unit]
            expected[b, unit] = shifted / (3**0.5 * shifted.norm())
    torch.testing.assert_close(cluster(features), expected.flatten(1))
    torch.testing.assert_close(cluster(features).norm(dim=1), torch.ones(2, dtype=torch.float64))


@torch.no_grad()
def test_one_unit_without_attention_and_shift_is_the_normalized_mean() -> None:
    """What a TSN averages, at length 1."""
    cluster, features = cluster_of(units=1), features_of()
    nn.init.zeros_(cluster.attention.weight)
    nn.init.ones_(cluster.alpha)
    nn.init.zeros_(cluster.beta)
    torch.testing.assert_close(cluster(features), functional.normalize(features.mean(dim=1), dim=1))


def test_gradients_are_those_of_finite_differences() -> None:
    cluster, features = cluster_of(), features_of()
    names = [name for name, _ in cluster.named_parameters()]
    values = tuple(parameter.detach().clone().requires_grad_() for parameter in cluster.parameters())
    assert names[:2] == ["alpha", "beta"]
    torch.autograd.gradcheck(
        lambda *given: torch.func.functional_call(cluster, dict(zip(names, given, strict=True)), (features,)), values
    )


def test_units_start_with_the_authors_spread() -> None:
    torch.manual_seed(0)
    cluster = AttentionCluster(4, 4096)
    for values in (cluster.alpha, cluster.beta):
        assert values.std().item() == pytest.approx(4096**-0.25, rel=0.05)
        assert values.mean().item() == pytest.approx(0, abs=0.01)


@torch.no_grad()
def test_order_is_not_seen_and_the_number_of_frames_is_free() -> None:
    model, clip = make(NAME), make_clip(size=64)
    nn.init.normal_(model.cluster.attention.weight)
    torch.testing.assert_close(model(clip.flip(1)), model(clip), rtol=1e-4, atol=1e-5)
    assert model(clip[:, :5]).shape == (2, 5)
    assert not torch.allclose(model(clip[:, :5]), model(clip), rtol=1e-3, atol=1e-4)
    # Twice the same frames weigh each half as much.
    torch.testing.assert_close(model(torch.cat([clip, clip], dim=1)), model(clip), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_features_of_zero_are_finite_in_float16() -> None:
    cluster = AttentionCluster(8, 4).half()
    nn.init.zeros_(cluster.beta)
    output = cluster(torch.zeros(1, 2, 8, dtype=torch.float16))
    assert (output.dtype, output.abs().sum().item()) == (torch.float16, 0.0)


@pytest.mark.parametrize(("units", "backbone", "width"), [(32, "resnet50", 2048), (128, "resnet50", 2048)])
def test_counts_by_hand(units: int, backbone: str, width: int) -> None:
    with torch.device("meta"):
        model = make(f"cluster_{backbone}", num_classes=400, clusters=units)
    head = units * (width + 3) + 400 * (units * width + 1)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == 23_508_032 + head
    tsn = num_parameters(f"tsn_{backbone}", num_classes=400, num_frames=8)
    assert tsn == 23_508_032 + 400 * (width + 1)


def test_multiply_adds_are_the_backbones() -> None:
    costs = {"num_classes": 400, "num_frames": 8, "size": 224}
    assert giga_multiply_adds("cluster_resnet50", **costs) == pytest.approx(
        giga_multiply_adds("tsn_resnet50", **costs), rel=2e-3
    )


def test_no_units_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.clusters is 0"):
        ModelConfig(name=NAME, clusters=0)
