"""The published peers through the whole of it: train, resume, test by every protocol, predict, report, start again."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from tests.helpers.tiny_runs import assert_same_weights, metrics_of, tiny_recipe, weights_of
from tests.training.test_train import at_step, interrupt
from vsn.config import ConfigError, EvalConfig, ModelConfig, Recipe, TrainConfig
from vsn.data.open import open_split
from vsn.data.views import PROTOCOLS
from vsn.inference.evaluate import evaluate_run, score_videos
from vsn.inference.predictor import Predictor
from vsn.models import VideoClassifier, build_model, create_model
from vsn.models.gradcam import grad_cam
from vsn.models.measure import count_multiply_adds
from vsn.report.illustrate import illustrated_report
from vsn.runs.checkpoint import load_model, save_weights
from vsn.runs.metadata import write_run
from vsn.runs.run import new_run, open_run
from vsn.scores.metrics import softmax
from vsn.training.memory import checkpoint_activations
from vsn.training.optim import build_optimizer, freeze_parts
from vsn.training.start import load_start
from vsn.training.train import TrainingStopped, train

Log = tuple[Console, Callable[[], str]]
PEERS = (
    "mtrn_resnet14_tiny",
    "cluster_resnet14_tiny",
    "eco_thin",
    "s3dg",
    "r2plus1d_34_thin",
    "nl-i3d_resnet26_thin",
    "i3d_inception_thin",
    "cost_resnet26_thin",
    "cpnet_resnet26_thin",
    "separable_resnet18_thin",
    "slowfast_resnet26_thin",
)
"""One of each kind of network, the smallest there is."""
QUICK = ("mtrn_resnet14_tiny", "eco_thin", "nl-i3d_resnet26_thin")
"""A 2D, a 3D and a non-local network; the others take longer, or are as these."""
FRAMES = 8


def peer_recipe(root: Path, name: str, **settings: object) -> Recipe:
    recipe = tiny_recipe(root, epochs=1, **settings)
    return replace(recipe, model=ModelConfig(name=name, num_frames=FRAMES))


def make_clip(batch: int = 1, size: int = 64, *, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, FRAMES, channels, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name not in QUICK else []) for name in PEERS],
)
def test_a_run_from_training_to_report(
    name: str, tiny_data: Path, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, path = peer_recipe(tiny_data, name), tmp_path / "run"
    whole = train(recipe, tmp_path / "whole", console=quiet).path
    at_step(monkeypatch, 2, interrupt)
    with pytest.raises(TrainingStopped):
        train(recipe, path, console=quiet)
    train(recipe, path, resume=True, console=quiet)
    assert_same_weights(path, whole)
    assert metrics_of(path) == metrics_of(whole)

    for protocol in PROTOCOLS if name == "mtrn_resnet14_tiny" else ("fcn", "3crop", "25x10"):
        config = EvalConfig(protocol=protocol, batch_size=2)
        if protocol == "25x10" and not recipe.model.any_num_frames:
            with pytest.raises(ConfigError, match=r"25x10.*T=8"):
                evaluate_run(path, config=config, progress=False)
            continue
        result = evaluate_run(path, config=config, progress=False)
        assert result["num_videos"] == 3
        if protocol == "3crop":
            assert result["multiply_adds"] == 3 * count_multiply_adds(open_run(path).recipe.model, size=36)

    run = open_run(path)
    dataset = open_split(run.recipe, "test", view=EvalConfig(), classes=run.classes)
    scores = score_videos(load_model(run), dataset, batch_size=2, progress=False)
    predictor = Predictor.from_run(path, device="cpu")
    for record, expected in zip(dataset.records, softmax(scores.logits), strict=True):
        prediction = predictor.predict(record.path, top_k=3)
        by_name = dict(zip(prediction.labels, prediction.probabilities, strict=True))
        assert [by_name[label] for label in run.classes] == expected.tolist()

    page = illustrated_report([path], tmp_path / "report.html", title="t", num_videos=1)
    assert page.read_text("utf-8").count("<img") >= 2 * FRAMES


# Memory, groups, maps


@pytest.mark.parametrize("name", PEERS)
def test_recomputed_activations_change_no_gradient_and_no_statistic(name: str) -> None:
    gradients = []
    for again in (False, True):
        torch.manual_seed(0)
        model = create_model(name, num_classes=2, num_frames=FRAMES).train()
        if again:
            checkpoint_activations(model)
        torch.manual_seed(1)
        model(make_clip(2, size=32))[:, 0].sum().backward()
        state = {key: value for key, value in model.state_dict().items() if "running" in key}
        gradients.append({n: p.grad for n, p in model.named_parameters()} | state)
    plain, recomputed = gradients
    for key, value in plain.items():
        assert torch.equal(value, recomputed[key]), key


@pytest.mark.parametrize("name", PEERS)
def test_parameter_groups(name: str) -> None:
    """Classifier 5 and 10, biases 2 and 0, batch normalization 1 and 0, the rest 1 and 1; each exactly once."""
    model = create_model(name, num_classes=2, num_frames=FRAMES)
    optimizer = build_optimizer(model, TrainConfig(), fresh=())
    names = {parameter: key for key, parameter in model.named_parameters()}
    norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d)
        for parameter in module.parameters()
    }
    seen = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            key = names[parameter]
            seen.append(key)
            bias = key.endswith("bias") and id(parameter) not in norms
            factor = (5 if key.startswith("head.") else 1) * (2 if bias else 1)
            decay = 0 if bias or id(parameter) in norms else TrainConfig().weight_decay
            assert (group["lr_factor"], group["weight_decay"]) == (factor, decay), key
    assert sorted(seen) == sorted(key for key, _ in model.named_parameters())


@pytest.mark.parametrize("name", [name for name in PEERS if not name.startswith("slowfast")])
def test_the_stem_of_flow_and_the_frozen_parts(name: str) -> None:
    model = create_model(name, num_classes=2, num_frames=FRAMES, modality="flow", flow_length=1)
    optimizer = build_optimizer(model, TrainConfig(), fresh=())
    fast = {id(p) for group in optimizer.param_groups if group["lr_factor"] == 5 for p in group["params"]}
    found = {key for key, parameter in model.named_parameters() if id(parameter) in fast}
    first = next(key for key, parameter in model.named_parameters() if parameter.ndim >= 4)
    assert found == {first, "head.weight"}
    freeze_parts(model.train(), TrainConfig(partial_bn=True))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d)]
    assert [norm.training for norm in norms] == [True] + [False] * (len(norms) - 1)


@pytest.mark.parametrize(
    ("name", "stage", "steps", "cells"),
    [
        ("mtrn_resnet14_tiny", "res5", 8, 2),
        ("eco_thin", "res5", 2, 2),
        ("eco_thin", "res3", 8, 8),
        ("eco_thin", "inception_5b", 8, 2),
        ("eco_lite_thin", "res2", 8, 8),
        ("s3d", "res5", 1, 2),
        ("s3d", "res4", 2, 4),
        ("cluster_resnet14_tiny", "res5", 8, 2),
        ("cost_resnet26_thin", "res5", 4, 2),
        ("cost-a_resnet26_thin", "res5", 4, 2),
        ("separable_resnet18_thin", "res5", 2, 2),
        ("trajectory_resnet18_thin", "res5", 2, 2),
        ("trajectory_resnet18_thin", "res2", 4, 16),
        ("gcn_resnet26_thin", "res5", 4, 4),
        ("cpnet_resnet26_thin", "layer4.1", 8, 2),
        ("i3d_inception_thin", "res5", 1, 2),
        ("i3d_inception_thin", "res4", 2, 4),
        ("r2plus1d_34_thin", "res5", 1, 4),
        ("r2plus1d_34_thin", "layer2", 4, 16),
    ],
)
def test_maps_of_every_frame(name: str, stage: str, steps: int, cells: int) -> None:
    """A frame has the map of the step in time it falls into: 8 frames of 2 steps are 4 and 4."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, num_frames=FRAMES)
    nn.init.normal_(model.head.weight)
    found = grad_cam(model, make_clip(2, channels=model.num_channels), targets=[0, 2], stage=stage)
    assert found.maps.shape == (2, FRAMES, cells, cells)
    assert found.maps.isfinite().all()
    assert found.maps.amax() > 0
    if stage.startswith("res") and not name.endswith("resnet14_tiny"):
        same = [torch.equal(found.maps[:, t], found.maps[:, t + 1]) for t in range(FRAMES - 1)]
        assert same == [(t * steps // FRAMES) == ((t + 1) * steps // FRAMES) for t in range(FRAMES - 1)]


def test_maps_of_a_volume_are_those_of_the_definition() -> None:
    """Against a loop over steps and channels, with the gradient of the global average and a linear head."""
    torch.manual_seed(0)
    model = create_model("r2plus1d_34_thin", num_classes=3, num_frames=FRAMES).double().eval()
    nn.init.normal_(model.head.weight)
    clip = make_clip().double() / 255
    with torch.inference_mode():
        features = model.backbone(model.normalized(clip).transpose(1, 2))[0]
    num_cells, _, height, width = features[0].numel(), *features.shape[1:]
    expected = torch.zeros(height, width, dtype=torch.float64)
    for c, channel in enumerate(features):
        expected += model.head.weight[1, c].detach() / num_cells * channel[0]
    maps = grad_cam(model, clip, targets=[1]).maps[0]
    torch.testing.assert_close(maps[0].double(), expected.relu(), rtol=1e-4, atol=1e-8)


# Starting


def make_run(path: Path, name: str, *, num_frames: int = FRAMES) -> Path:
    """A run folder with random weights, as if it had finished an epoch."""
    run = new_run(path, Recipe(model=ModelConfig(name=name, num_frames=num_frames)), ("a", "b"))
    write_run(run)
    torch.manual_seed(5)
    model = build_model(run.recipe.model)
    nn.init.normal_(model.head.bias)
    save_weights(run, model)
    return path


def start(run: Path, log: Log, name: str, *, num_frames: int = FRAMES) -> tuple[VideoClassifier, list[str], str]:
    config = ModelConfig(name=name, num_frames=num_frames, num_classes=2, weights=str(run))
    torch.manual_seed(6)
    model = build_model(config)
    fresh = load_start(model, Recipe(model=config), ("a", "b"), log[0])
    return model, fresh, log[1]()


@pytest.mark.parametrize("name", ["trn_resnet14_tiny", *PEERS])
def test_a_run_of_the_same_model_gives_everything(name: str, tmp_path: Path, log: Log) -> None:
    run = make_run(tmp_path / "run", name)
    model, fresh, printed = start(run, log, name)
    stored = weights_of(run)
    assert all(torch.equal(value, stored[key]) for key, value in model.state_dict().items())
    assert (fresh, printed) == ([], "2 of 2 classes start from the run's classifier.\n")


@pytest.mark.parametrize(
    ("before", "num_frames"),
    [
        ("tsn_resnet14_tiny", FRAMES),
        ("trn_resnet14_tiny", FRAMES),
        ("mtrn_resnet14_tiny", 4),
        ("cluster_resnet14_tiny", FRAMES),
    ],
)
def test_a_trn_takes_the_backbone_of_others_and_no_relations(
    before: str, num_frames: int, tmp_path: Path, log: Log
) -> None:
    run = make_run(tmp_path / "run", before, num_frames=num_frames)
    model, fresh, printed = start(run, log, "mtrn_resnet14_tiny")
    stored = weights_of(run)
    for key, value in model.state_dict().items():
        if key.startswith("backbone."):
            assert torch.equal(value, stored[key])
    assert {name.split(".")[0] for name in fresh} == {"projection", "relations"}
    assert f"{run} lacks projection, relations: " in printed
    assert "classifier of the run has other input features" in printed
    table = build_optimizer(model, TrainConfig(fresh_lr_mult=4.0), fresh=fresh).param_groups
    raised = {id(p) for group in table if group["lr_factor"] in (4, 8) for p in group["params"]}
    assert {key for key, p in model.named_parameters() if id(p) in raised} == set(fresh)


def test_clusters_take_their_units_from_as_many(tmp_path: Path, log: Log) -> None:
    name = "cluster_resnet14_tiny"
    run = make_run(tmp_path / "run", name, num_frames=4)
    assert start(run, log, name)[1] == []  # of another T
    config = ModelConfig(name=name, num_frames=FRAMES, num_classes=2, weights=str(run), clusters=5)
    fresh = load_start(build_model(config), Recipe(model=config), ("a", "b"), log[0])
    assert {parameter.split(".")[0] for parameter in fresh} == {"cluster"}
    assert "classifier of the run has other input features" in log[1]()


def test_a_tsn_starts_from_a_trn(tmp_path: Path, log: Log) -> None:
    run = make_run(tmp_path / "run", "trn_resnet14_tiny")
    model, fresh, printed = start(run, log, "tsn_resnet14_tiny")
    stored = weights_of(run)
    assert all(torch.equal(v, stored[f"backbone.{k}"]) for k, v in model.backbone.state_dict().items())
    assert not fresh
    assert "This TSN starts from a TRN" in printed


@pytest.mark.parametrize(
    ("before", "now", "advice"),
    [
        ("eco_thin", "eco_lite_thin", "a run of 'eco_lite_thin', a file or 'none'"),
        ("tsn_resnet14_tiny", "s3d", "a run of 's3d'"),
        ("c2d_resnet26_thin", "cost_resnet26_thin", "a run of 'cost_resnet26_thin', or of a TSN"),
        ("cost_resnet26_thin", "i3d_resnet26_thin", "a run of a TSN, TSM, VSN, .* C2D or I3D"),
        ("eco_thin", "tsn_resnet14_tiny", "a run of a TSN, TSM, VSN, TRN or Attention Clusters, a file"),
    ],
)
def test_weights_of_another_network_are_refused(before: str, now: str, advice: str, tmp_path: Path, log: Log) -> None:
    run = make_run(tmp_path / "run", before)
    with pytest.raises(ConfigError, match=f"a run of '{before}', .* do not fit '{now}'.*{advice}"):
        start(run, log, now)


def test_a_run_whose_file_moved_is_still_of_its_model(tmp_path: Path, log: Log) -> None:
    run = make_run(tmp_path / "run", "eco_lite_thin")
    moved = shutil.copy(run / "model.safetensors", tmp_path / "moved.safetensors")
    model, fresh, _ = start(moved, log, "eco_lite_thin")
    assert not fresh
    assert torch.equal(model.backbone.conv1_7x7_s2.weight, weights_of(run)["backbone.conv1_7x7_s2.weight"])
    np.testing.assert_array_equal(json.loads((run / "classes.json").read_text()), ["a", "b"])
