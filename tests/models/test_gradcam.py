"""Grad-CAM: the map of a frame lies on that frame, and on the place that counts."""

import numpy as np
import pytest
import torch
from torch import nn

import vsn
from vsn.config import ConfigError
from vsn.models.classifier import VideoClassifier
from vsn.models.gradcam import choose_stage, grad_cam, overlay

T, SIZE = 8, 128
MODELS = {
    "tsn": ("tsn_resnet14_tiny", "compact"),
    "tsm": ("tsm_resnet14_tiny", "compact"),
    "vsn compact": ("vsn_resnet14_tiny", "compact"),
    "vsn headtail": ("vsn_resnet14_tiny", "headtail"),
}


def model_that_sees_light(name: str, block: str, *, branch: float = 0.1) -> VideoClassifier:
    """Class 1 scores what is lit in any frame; class 0 nothing. What is not lit is exactly zero in every layer.

    Residual branches count ``branch`` times in addition to the identity.
    """
    torch.manual_seed(0)
    model = vsn.create_model(name, num_classes=2, num_frames=T, block=block)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 1.0)
    for stage in (model.backbone.layer1, model.backbone.layer2, model.backbone.layer3, model.backbone.layer4):
        for one in stage:
            nn.init.constant_(one.bn3.weight, branch)
    with torch.no_grad():
        model.head.weight.copy_(torch.stack([torch.zeros(256), torch.ones(256)]))
    return model.double().eval()


def lit_clip(model: VideoClassifier, frame: int, corner: tuple[int, int]) -> torch.Tensor:
    """A clip of the mean color, which the model takes for zero, with a bright patch in one frame."""
    clip = model.mean.expand(1, T, 3, SIZE, SIZE).clone()
    y, x = corner
    clip[0, frame, :, y : y + 32, x : x + 32] = 1.0
    return clip


@pytest.mark.parametrize("stage", ["res5", "res4"])
@pytest.mark.parametrize("case", MODELS)
def test_an_impulse_lights_its_frame_and_its_place(case: str, stage: str) -> None:
    model = model_that_sees_light(*MODELS[case])
    for frame, corner in ((2, (0, 96)), (5, (96, 32))):
        maps = grad_cam(model, lit_clip(model, frame, corner), targets=[1], stage=stage).maps[0]
        cells = SIZE // maps.shape[1]
        assert maps.shape == (T, SIZE // cells, SIZE // cells)
        assert maps.flatten(1).amax(dim=1).argmax() == frame
        assert maps.flatten(1).sum(dim=1).argmax() == frame
        middle = cells * (torch.arange(len(maps[frame])) + 0.5)
        shares = maps[frame] / maps[frame].sum()
        assert abs(float((shares.sum(dim=1) * middle).sum()) - corner[0] - 16) < 16
        assert abs(float((shares.sum(dim=0) * middle).sum()) - corner[1] - 16) < 16


@pytest.mark.parametrize(("case", "reached"), [("tsn", {3}), ("tsm", set(range(8))), ("vsn compact", set(range(8)))])
def test_frames_that_saw_nothing_are_dark(case: str, reached: set[int]) -> None:
    """Of TSN only the lit frame; four blocks of TSM reach four frames each way, one shuffle all."""
    model = model_that_sees_light(*MODELS[case], branch=1.0)
    maps = grad_cam(model, lit_clip(model, 3, (32, 32)), targets=[1]).maps[0]
    assert set(np.flatnonzero(maps.flatten(1).sum(dim=1) > 0)) <= reached
    assert maps[3].sum() > 0


def test_maps_are_those_of_the_definition() -> None:
    """Against a loop over frames and channels, with the gradient of an average pool and a linear head."""
    model = model_that_sees_light(*MODELS["vsn compact"], branch=1.0)
    torch.manual_seed(1)
    nn.init.normal_(model.head.weight)
    clip = torch.rand(1, T, 3, 64, 64, dtype=torch.float64)
    found = grad_cam(model, clip, targets=[0])
    features: list[torch.Tensor] = []
    with model.backbone.layer4.register_forward_hook(lambda m, i, o: features.append(o)), torch.no_grad():
        model(clip)
    for t in range(T):
        expected = torch.zeros_like(found.maps[0, t])
        for c in range(256):
            # Scores are the mean over frames of the head of the mean over places.
            weight = model.head.weight[0, c] / (T * features[0][t, c].numel())
            expected += (weight * features[0][t, c]).detach().float()
        torch.testing.assert_close(found.maps[0, t], expected.relu(), rtol=1e-4, atol=1e-7)


def test_clips_of_a_batch_and_the_best_class() -> None:
    model = model_that_sees_light(*MODELS["vsn compact"])
    clips = torch.cat([lit_clip(model, 1, (0, 0)), lit_clip(model, 6, (64, 64))])
    both = grad_cam(model, clips)
    assert both.targets.tolist() == both.logits.argmax(dim=1).tolist() == [1, 1]
    for row in range(2):
        single = grad_cam(model, clips[row : row + 1])
        torch.testing.assert_close(both.maps[row], single.maps[0])


def test_the_model_is_left_as_it_was() -> None:
    model = model_that_sees_light(*MODELS["vsn compact"])
    model.train()
    model.backbone.bn1.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with torch.inference_mode():
        grad_cam(model, lit_clip(model, 1, (0, 0)))
    assert model.training
    assert not model.backbone.bn1.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not model.backbone.layer4[-1]._forward_hooks


def test_dense_blocks_hand_on_all_their_channels() -> None:
    model = vsn.create_model("vsn_densenet121", num_classes=2, num_frames=2)
    assert grad_cam(model, torch.rand(1, 2, 3, 64, 64)).maps.shape == (1, 2, 2, 2)


@pytest.mark.parametrize(
    ("stage", "match"),
    [
        ("res6", r"stage is 'res6'; it must be one of \['res2', 'res3', 'res4', 'res5'\]"),
        ("", "stage is ''"),
        ("layer4.0.conv2", r"'layer4.0.conv2' is inside a headtail block.*'layer4.0'"),
        ("fc", r"'fc' is \(8, 256\)"),
    ],
)
def test_refused_stages(stage: str, match: str) -> None:
    model = model_that_sees_light(*MODELS["vsn headtail"])
    with pytest.raises(ConfigError, match=match):
        grad_cam(model, lit_clip(model, 0, (0, 0)), stage=stage)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("targets", [[2], [-1], [0, 0], []])
def test_refused_targets(targets: list[int]) -> None:
    model = model_that_sees_light(*MODELS["tsn"])
    with pytest.raises(ValueError, match="0 to 1 for each of 1 clips"):
        grad_cam(model, lit_clip(model, 0, (0, 0)), targets=targets)


def test_overlay_is_red_where_the_map_is_largest() -> None:
    frames = np.full((2, 4, 4, 3), 100, np.uint8)
    maps = np.zeros((2, 2, 2))
    maps[1, 0, 1] = 3.0
    laid = overlay(frames, maps, strength=0.6)
    assert laid.dtype == np.uint8
    assert laid.shape == frames.shape
    assert laid[0, 0, 0].tolist() == [80, 80, 99]  # a fifth of dark blue
    assert laid[1, 0, 3].tolist() == [193, 64, 40]  # three fifths of red
    assert laid[1, 3, 0].tolist() == [80, 80, 99]
    np.testing.assert_array_equal(overlay(frames, maps, strength=0.0), frames)
    np.testing.assert_array_equal(overlay(frames, np.zeros((2, 2, 2))), overlay(frames, maps)[:1].repeat(2, 0))


@pytest.mark.parametrize(
    ("frames", "maps", "strength", "match"),
    [
        (np.zeros((2, 4, 4, 3)), np.zeros((2, 2, 2)), 0.5, "got float64"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros((3, 2, 2)), 0.5, "2 frames, got 3"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 2, 2)), 1.5, "strength is 1.5"),
    ],
)
def test_refused_overlays(frames: np.ndarray, maps: np.ndarray, strength: float, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        overlay(frames, maps, strength=strength)


@pytest.mark.parametrize("is_enabled", [True, False])
def test_only_the_layers_behind_the_features_keep_their_activations(is_enabled: bool) -> None:
    model, enabled = model_that_sees_light(*MODELS["vsn compact"]), dict[str, bool]()
    for name in ("layer1", "layer4"):
        part = model.backbone.get_submodule(name)
        part.register_forward_pre_hook(
            lambda module, inputs, name=name: enabled.update({name: torch.is_grad_enabled()})
        )
    head = lambda module, inputs: enabled.update(head=torch.is_grad_enabled())  # noqa: E731
    model.head.register_forward_pre_hook(head)
    with torch.set_grad_enabled(is_enabled):
        grad_cam(model, lit_clip(model, 1, (0, 0)))
        assert torch.is_grad_enabled() == is_enabled
    assert enabled == {"layer1": False, "layer4": False, "head": True}


@pytest.mark.parametrize(
    ("size", "stage", "cells"),
    [
        ((224, 224), "res5", 7),
        ((112, 112), "res4", 7),
        ((64, 96), "res3", 8),
        ((48, 48), "res3", 6),
        ((16, 16), "res2", 4),
    ],
)
def test_maps_are_of_the_deepest_stage_with_enough_cells(size: tuple[int, int], stage: str, cells: int) -> None:
    model = vsn.create_model("tsn_resnet18", num_classes=2, num_frames=1).train()
    clip = torch.rand(1, 1, 3, *size)
    found = grad_cam(model, clip, stage="auto")
    assert (found.stage, min(found.maps.shape[-2:])) == (stage, cells)
    assert choose_stage(model, clip) == stage
    assert model.backbone.bn1.training  # the mode is restored
    assert torch.equal(found.maps, grad_cam(model, clip, stage=stage).maps)


def test_a_stage_is_chosen_for_each_size_of_a_model() -> None:
    model = vsn.create_model("tsn_resnet18", num_classes=2, num_frames=1)
    assert [choose_stage(model, torch.zeros(1, 1, 3, size, size)) for size in (64, 224, 64)] == ["res3", "res5", "res3"]
