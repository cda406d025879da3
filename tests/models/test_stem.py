"""First convolutions for flow and differences, the weights they start from, and what the model does first."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torchvision.models as tv
from safetensors.torch import save_file
from torch import nn

from vsn.config import ConfigError, Modality, ModelConfig
from vsn.models import build_model, create_model, initialize
from vsn.models.backbones import build_backbone
from vsn.models.blocks import TIMM_EXAMPLES
from vsn.models.classifier import VideoClassifier
from vsn.models.measure import count_multiply_adds
from vsn.models.stem import fit_stem, stem_name, widen_stem

THIN = "resnet14_tiny"


def stem_of(model: VideoClassifier, name: str = "conv1") -> nn.Conv2d:
    stem = model.backbone.get_submodule(name)
    assert isinstance(stem, nn.Conv2d)
    return stem


def make(modality: Modality, length: int, **settings) -> VideoClassifier:
    torch.manual_seed(0)
    settings = {"name": f"tsn_{THIN}", "num_classes": 3, "num_frames": 4} | settings
    return create_model(modality=modality, flow_length=length, **settings).eval()


# --- channels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("modality", "length", "clip", "stem"),
    [
        ("rgb", 5, 3, 3),
        ("flow", 1, 2, 2),
        ("flow", 5, 10, 10),
        ("rgbdiff", 1, 6, 3),
        ("rgbdiff", 5, 18, 15),
    ],
)
@pytest.mark.parametrize("prefix", ["tsn", "tsm", "vsn"])
def test_channels_of_clips_and_stems(prefix: str, modality: Modality, length: int, clip: int, stem: int) -> None:
    model = make(modality, length, name=f"{prefix}_{THIN}")
    assert stem_of(model).weight.shape == (8, stem, 5, 5)
    assert stem_of(model).in_channels == stem
    assert model(torch.zeros(2, 4, clip, 32, 40, dtype=torch.uint8)).shape == (2, 3)
    with pytest.raises(ValueError, match=rf"\(B, T, {clip}, H, W\).*shape \(2, 4, 1, 32, 40\)"):
        model(torch.zeros(2, 4, 1, 32, 40, dtype=torch.uint8))


@pytest.mark.parametrize("backbone", ["resnet18", "densenet121", "wide_resnet50_2"])
def test_only_the_stem_changes_and_names_stay(backbone: str) -> None:
    with torch.device("meta"):
        rgb = build_backbone(backbone).state_dict()
        wide = build_backbone(backbone)
        widen_stem(wide, 10)
    name = {"densenet121": "features.conv0"}.get(backbone, "conv1")
    assert stem_name(wide) == name
    assert {n: v.shape for n, v in wide.state_dict().items() if n != f"{name}.weight"} == {
        n: v.shape for n, v in rgb.items() if n != f"{name}.weight"
    }
    assert wide.state_dict()[f"{name}.weight"].shape == (rgb[f"{name}.weight"].shape[0], 10, 7, 7)


@pytest.mark.parametrize("family", TIMM_EXAMPLES)
def test_timm_families(family: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(f"timm/{family}")
        if family == "tresnet_m":  # it moves pixels into channels first
            with pytest.raises(ConfigError, match=r"TResNet: its first convolution, .*takes 48 channels"):
                widen_stem(backbone, 10)
            return
        kind = type(backbone.get_submodule(stem_name(backbone)))
        widen_stem(backbone, 10)
        assert type(backbone.get_submodule(stem_name(backbone))) is kind
        assert backbone(torch.zeros(1, 10, 64, 64)).shape == (1, 1000)


def test_a_backbone_without_one_stem() -> None:
    with pytest.raises(ConfigError, match=r"^Sequential .*resnet50"):
        widen_stem(nn.Sequential(nn.Linear(2, 2)), 10)
    unchanged = nn.Sequential(nn.Linear(2, 2))
    widen_stem(unchanged, 3)  # RGB takes any backbone


def test_a_stem_without_weights_starts_at_random() -> None:
    weight = stem_of(make("flow", 5)).weight
    assert weight.std().item() == pytest.approx((2 / (8 * 25)) ** 0.5, rel=0.05)  # He, fan out
    assert not torch.equal(weight[:, 0], weight[:, 2])


def test_rgb_models_stay_as_they_were() -> None:
    torch.manual_seed(0)
    plain = build_backbone(THIN).state_dict()
    backbone = make("rgb", 5).backbone.state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in backbone.items())


# --- weights ---------------------------------------------------------------------------------------


def mean_by_loop(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """Every channel sees what gray did: the mean of the three colors' kernels."""
    wide = torch.empty(weight.shape[0], channels, *weight.shape[2:])
    for output in range(weight.shape[0]):
        for channel in range(channels):
            wide[output, channel] = (weight[output, 0] + weight[output, 1] + weight[output, 2]) / 3
    return wide


@pytest.mark.parametrize(("modality", "length", "channels"), [("flow", 1, 2), ("flow", 5, 10), ("rgbdiff", 5, 15)])
def test_weights_for_rgb_give_each_channel_their_mean(
    tmp_path: Path, modality: Modality, length: int, channels: int
) -> None:
    torch.manual_seed(1)
    rgb = build_backbone(THIN).state_dict()
    save_file({n: v for n, v in rgb.items() if not n.startswith("fc.")}, tmp_path / "rgb.safetensors")
    model = make(modality, length, weights=str(tmp_path / "rgb.safetensors"))
    torch.testing.assert_close(stem_of(model).weight, mean_by_loop(rgb["conv1.weight"], channels))
    assert torch.equal(model.backbone.state_dict()["layer1.0.conv1.weight"], rgb["layer1.0.conv1.weight"])
    config = ModelConfig(
        name=f"tsn_{THIN}", num_classes=3, modality=modality, flow_length=length,
        weights=str(tmp_path / "rgb.safetensors"),
    )  # fmt: skip
    assert "conv1.weight" in initialize(build_model(config), config).loaded  # not fresh


def test_weights_of_a_flow_model_are_taken_as_they_are(tmp_path: Path) -> None:
    earlier = make("flow", 5)
    save_file(dict(earlier.state_dict()), tmp_path / "run.safetensors")
    model = make("flow", 5, weights=str(tmp_path / "run.safetensors"))
    assert torch.equal(stem_of(model).weight, stem_of(earlier).weight)
    with pytest.raises(
        ConfigError, match=r"'conv1.weight' has shape \(8, 10, 5, 5\), the backbone's has \(8, 2, 5, 5\)"
    ):
        make("flow", 1, weights=str(tmp_path / "run.safetensors"))
    with pytest.raises(ConfigError, match=r"\(8, 10, 5, 5\), the backbone's has \(8, 3, 5, 5\)"):
        make("rgb", 1, weights=str(tmp_path / "run.safetensors"))


def test_published_weights_fit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    published = tv.resnet18().state_dict()
    monkeypatch.setattr("vsn.models.weights.download_torchvision", lambda name, weights: published)
    model = make("flow", 5, name="vsn_resnet18", weights="IMAGENET1K_V1")
    torch.testing.assert_close(stem_of(model).weight, mean_by_loop(published["conv1.weight"], 10))


def test_weights_without_a_stem_are_left_alone() -> None:
    backbone = build_backbone(THIN)
    widen_stem(backbone, 10)
    state = {"fc.bias": torch.zeros(1000)}
    assert fit_stem(backbone, state) is state


# --- what the backbone sees ------------------------------------------------------------------------


def seen(modality: Modality, clip: torch.Tensor, length: int) -> torch.Tensor:
    model = make(modality, length)
    model.backbone = nn.Flatten()
    features = model.frame_features(clip)
    assert features.dtype == torch.float32
    return features.unflatten(2, (-1, *clip.shape[-2:]))


def test_flow_is_normalized_as_in_tsn() -> None:
    clip = torch.randint(0, 256, (2, 3, 10, 4, 5), dtype=torch.uint8)
    model = make("flow", 5, num_frames=3)
    assert (model.mean.flatten().tolist(), model.std.flatten().tolist()) == (
        [0.5],
        [pytest.approx(0.226)],
    )
    torch.testing.assert_close(seen("flow", clip, 5), (clip / 255 - 0.5) / 0.226)
    still = seen("flow", torch.full((1, 1, 2, 1, 1), 128, dtype=torch.uint8), 1)
    assert still.abs().max() < 0.01


def differences_by_loop(clip: torch.Tensor, length: int, std: Sequence[float]) -> torch.Tensor:
    rows = []
    for i in range(length):
        for color in range(3):
            later, earlier = clip[:, :, 3 * (i + 1) + color], clip[:, :, 3 * i + color]
            rows.append((later.float() - earlier.float()) / 255 / std[color])
    return torch.stack(rows, dim=2)


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("bytes_", [True, False])
def test_differences_are_those_of_normalized_frames(length: int, bytes_: bool) -> None:
    clip = torch.randint(0, 256, (2, 4, 3 * (length + 1), 4, 5), dtype=torch.uint8)
    expected = differences_by_loop(clip, length, (0.229, 0.224, 0.225))
    shown = clip if bytes_ else clip.float() / 255
    torch.testing.assert_close(seen("rgbdiff", shown, length), expected)


def test_a_still_scene_shows_no_differences() -> None:
    frame = torch.randint(0, 256, (1, 4, 3, 8, 8), dtype=torch.uint8)
    assert not seen("rgbdiff", frame.repeat(1, 1, 4, 1, 1), 3).any()


def test_costs_are_counted() -> None:
    configs = [
        ModelConfig(name=f"tsn_{THIN}", num_classes=3, modality=modality, flow_length=5)
        for modality in ("rgb", "flow", "rgbdiff")
    ]
    rgb, flow, differences = (count_multiply_adds(config, size=32) for config in configs)
    one_channel = 8 * 5 * 5 * 16 * 16 * 8  # outputs, kernel, positions, frames
    assert (flow - rgb, differences - rgb) == (7 * one_channel, 12 * one_channel)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modality": "depth"}, r"model\.modality is 'depth'.*'rgbdiff'"),
        ({"modality": "flow", "flow_length": 0}, "model.flow_length is 0"),
    ],
)
def test_impossible_modalities(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_model(f"tsn_{THIN}", num_classes=3, **settings)
