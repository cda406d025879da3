import math

import pytest
import torch

from vsn.config import ConfigError, Modality, TrainConfig
from vsn.models import VideoClassifier, create_model
from vsn.training.optim import (
    base_lr,
    build_ema,
    build_optimizer,
    freeze_parts,
    schedule_factor,
    set_lr,
)


@pytest.fixture
def model() -> VideoClassifier:
    return create_model("tsm_resnet14_tiny", num_classes=3, num_frames=4)


def factors(model: VideoClassifier, optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float]]:
    """Learning-rate factor and decay of each parameter."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: (group["lr_factor"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize(
    ("name", "lr", "decay"),
    [
        ("backbone.conv1.weight", 1, 5e-4),
        ("backbone.layer3.0.conv2.weight", 1, 5e-4),
        ("backbone.layer3.0.downsample.0.weight", 1, 5e-4),
        ("backbone.bn1.weight", 1, 0),
        ("backbone.bn1.bias", 1, 0),
        ("backbone.layer4.0.downsample.1.bias", 1, 0),
        ("head.weight", 5, 5e-4),
        ("head.bias", 10, 0),
    ],
)
def test_groups_of_tsn(model: VideoClassifier, name: str, lr: float, decay: float):
    optimizer = build_optimizer(model, TrainConfig(lr_batch_size=0), fresh=())
    table = factors(model, optimizer)
    assert table[name] == (lr, decay)
    assert set(table) == {name for name, _ in model.named_parameters()}
    rates = {group["lr_factor"]: group["lr"] for group in optimizer.param_groups}
    assert rates[lr] == pytest.approx(0.01 * lr)


def test_bias_of_a_convolution(model: VideoClassifier):
    model.backbone.conv1 = torch.nn.Conv2d(3, 8, 3)
    assert factors(model, build_optimizer(model, TrainConfig(), fresh=()))["backbone.conv1.bias"] == (2, 0)


@pytest.mark.parametrize(("modality", "weight", "bias"), [("rgb", 1, 2), ("rgbdiff", 1, 2), ("flow", 5, 10)])
def test_the_stem_of_flow_learns_faster(modality: Modality, weight: float, bias: float):
    """TSN: factors 5 and 1 for the weight of the first convolution, 10 and 0 for its bias."""
    model = create_model("tsm_resnet14_tiny", num_classes=3, num_frames=4, modality=modality)
    model.backbone.conv1.bias = torch.nn.Parameter(torch.zeros(8))
    table = factors(model, build_optimizer(model, TrainConfig(), fresh=()))
    assert table["backbone.conv1.weight"] == (weight, 5e-4)
    assert table["backbone.conv1.bias"] == (bias, 0)
    assert table["backbone.layer1.0.conv1.weight"] == (1, 5e-4)
    assert table["head.weight"] == (5, 5e-4)


def test_fresh_parts_and_head(model: VideoClassifier):
    config = TrainConfig(head_lr_mult=3.0, fresh_lr_mult=4.0)
    table = factors(model, build_optimizer(model, config, fresh=("layer1.0.conv1.weight", "layer1.0.bn1.bias")))
    assert table["backbone.layer1.0.conv1.weight"] == (4, 5e-4)
    assert table["backbone.layer1.0.bn1.bias"] == (4, 0)
    assert table["backbone.layer1.0.conv2.weight"] == (1, 5e-4)
    assert (table["head.weight"], table["head.bias"]) == ((3, 5e-4), (6, 0))


def test_frozen_parameters_are_left_out(model: VideoClassifier):
    config = TrainConfig(freeze=("layer1",))
    freeze_parts(model, config)
    table = factors(model, build_optimizer(model, config, fresh=()))
    assert not [name for name in table if "layer1" in name]
    assert "backbone.layer2.0.conv1.weight" in table


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_optimizer_by_name(model: VideoClassifier, name, kind: type):
    optimizer = build_optimizer(model, TrainConfig(optimizer=name, momentum=0.8), fresh=())
    assert type(optimizer) is kind
    assert optimizer.param_groups[0].get("momentum", 0.8) == 0.8


def test_moving_average():
    layer = torch.nn.BatchNorm1d(1)
    ema = build_ema(layer, 0.4)
    expected, values = None, [1.0, 5.0, 2.0, -3.0]
    for step, value in enumerate(values):
        layer.weight.data.fill_(value)
        layer.running_mean.fill_(value)
        ema.update_parameters(layer)
        decay = min(0.4, (1 + step) / (10 + step))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert ema.module.weight.item() == pytest.approx(expected)
        assert ema.module.running_mean.item() == value  # statistics are copied


def test_set_lr_keeps_the_factors(model: VideoClassifier):
    optimizer = build_optimizer(model, TrainConfig(), fresh=())
    set_lr(optimizer, 0.5)
    assert {group["lr_factor"]: group["lr"] for group in optimizer.param_groups} == {1: 0.5, 5: 2.5, 10: 5.0}


@pytest.mark.parametrize(
    ("batch_size", "stated_for", "expected"),
    [(64, 64, 0.01), (16, 64, 0.0025), (128, 64, 0.02), (16, 0, 0.01)],
)
def test_base_lr(batch_size: int, stated_for: int, expected: float):
    assert base_lr(TrainConfig(batch_size=batch_size, lr_batch_size=stated_for)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "step", "expected"),
    [
        ({}, 0, 1.0),
        ({}, 199, 1.0),
        ({}, 200, 0.1),
        ({}, 399, 0.1),
        ({}, 400, 0.01),
        ({"milestones": ()}, 499, 1.0),
        ({"schedule": "cosine"}, 0, 1.0),
        ({"schedule": "cosine"}, 125, 0.5 * (1 + math.cos(math.pi / 4))),
        ({"schedule": "cosine"}, 250, 0.5),
        ({"schedule": "cosine"}, 499, 0.5 * (1 + math.cos(math.pi * 0.998))),
        ({"warmup_epochs": 1.0}, 0, 1 / 11),
        ({"warmup_epochs": 1.0}, 4, 5 / 11),
        ({"warmup_epochs": 1.0}, 9, 10 / 11),
        ({"warmup_epochs": 1.0}, 10, 1.0),
        ({"warmup_epochs": 10.0, "schedule": "cosine"}, 100, 1.0),
        ({"warmup_epochs": 10.0, "schedule": "cosine"}, 300, 0.5),
    ],
)
def test_schedule_of_50_epochs_of_10_steps(settings: dict[str, object], step: int, expected: float):
    config = TrainConfig(epochs=50, **settings)
    assert schedule_factor(step, steps_per_epoch=10, config=config) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["layer9", "layer1.7", "head"])
def test_unknown_module_to_freeze(model: VideoClassifier, name: str):
    with pytest.raises(ConfigError, match=f"train.freeze.*'{name}'.*conv1, bn1, .*layer1"):
        freeze_parts(model, TrainConfig(freeze=(name,)))


def test_partial_bn_freezes_all_but_the_first(model: VideoClassifier):
    model.train()
    freeze_parts(model, TrainConfig(partial_bn=True))
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert [module.training for module in norms] == [True] + [False] * (len(norms) - 1)
    assert [module.weight.requires_grad for module in norms] == [True] + [False] * (len(norms) - 1)
    assert model.backbone.get_submodule("layer1.0.conv1").training
