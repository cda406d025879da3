"""What all peers have in common, 2D weights in 3D networks, and where their blocks are."""

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.peers import make, make_clip
from vsn.config import ConfigError, ModelConfig
from vsn.models import build_model, initialize, list_models
from vsn.models.blocks import stage_blocks
from vsn.models.classifier import VolumeClassifier
from vsn.models.weights import inflate

SMALL = (
    "trn_resnet26_thin",
    "mtrn_resnet26_thin",
    "eco_thin",
    "eco_lite_thin",
    "s3d",
    "s3dg",
    "r2plus1d_34_thin",
    "i3d_resnet26_thin",
    "i3d_inception_thin",
    "cost_resnet26_thin",
    "cost-a_resnet26_thin",
    "separable_resnet18_thin",
)


def test_every_small_peer_is_listed_and_so_are_those_of_full_width() -> None:
    names = set(list_models())
    assert (
        set(SMALL)
        | {
            "eco",
            "eco_lite",
            "i3d_inception",
            "cost_resnet101",
            "cost-a_resnet50",
            "cpnet_resnet34",
            "r2plus1d_18",
            "r2plus1d_34",
            "mtrn_resnet50",
        }
        <= names
    )
    for name in names:
        assert ModelConfig(name=name).name == name


@pytest.mark.parametrize("name", SMALL)
def test_a_peer_is_a_model_like_the_others(name: str) -> None:
    model, clip = make(name), make_clip()
    with torch.inference_mode():
        logits = model(clip)
        assert (logits.shape, logits.dtype) == ((2, 5), torch.float32)
        torch.testing.assert_close(logits, model(clip.float() / 255))
        assert torch.equal(logits, model(clip))
        apart = torch.cat([model(clip[i : i + 1]) for i in range(2)])
        torch.testing.assert_close(logits, apart, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(logits, model(clip.flip(1)), rtol=1e-3, atol=1e-4)
        assert model(torch.zeros(1, 8, 3, 33, 47)).shape == (1, 5)
    assert (model.num_frames, model.any_num_frames, model.num_channels) == (8, False, 3)
    assert (model.head.out_features, model.dropout.p) == (5, 0.5)
    assert not {"mean", "std"} & set(model.state_dict())
    with pytest.raises(ValueError, match=r"T=8 .*got 6"):
        model(clip[:, :6])
    with pytest.raises(ValueError, match=r"\(B, T, 3, H, W\)"):
        model(clip.transpose(1, 2))


@pytest.mark.parametrize("name", SMALL)
def test_all_parameters_of_a_peer_learn(name: str) -> None:
    model = make(name).train()
    torch.manual_seed(1)
    model(make_clip(size=64)).logsumexp(dim=1).sum().backward()
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not still
    # A bias under batch normalization has no effect, by construction.
    weights = [n for n, p in model.named_parameters() if n.endswith("weight") and not p.grad.any()]
    assert not weights


@pytest.mark.parametrize("name", SMALL)
def test_a_peer_sees_flow(name: str) -> None:
    model = make(name, modality="flow", flow_length=2)
    assert model.num_channels == 4
    with torch.inference_mode():
        still = torch.full((1, 8, 4, 32, 32), 0.5)
        assert not model.normalized(still).any()
        assert model(make_clip(channels=4)).shape == (2, 5)


class Counted(nn.Module):
    """A body that returns the volume, and remembers it."""

    def forward(self, volume: Tensor) -> Tensor:
        self.seen = volume
        return volume


def test_a_clip_becomes_a_volume_and_its_average_is_judged() -> None:
    body = Counted()
    config = ModelConfig(name="s3d", num_classes=2, num_frames=4, dropout=0.0)
    model = VolumeClassifier(body, config, feature_dim=3, normalization=((0.5, 0.25, 0.0), (0.5, 1.0, 2.0)))
    clip = make_clip(4, size=6)
    scores = model(clip)
    shares = clip.double() / 255
    means, deviations = (0.5, 0.25, 0.0), (0.5, 1.0, 2.0)
    for c in range(3):
        for t in range(4):
            expected = (shares[:, t, c] - means[c]) / deviations[c]
            torch.testing.assert_close(body.seen[:, c, t].double(), expected, rtol=1e-5, atol=1e-5)
    averages = body.seen.flatten(2).mean(dim=2)
    torch.testing.assert_close(scores, averages @ model.head.weight.T)
    half = model.half()(clip)
    assert half.dtype == torch.float32


# 2D weights


class Flat(nn.Module):
    """A 2D network of two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 2, 3)


class Deep(nn.Module):
    """The same names in 3D: three steps in time, then one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, 4, 3, padding=(0, 1, 1))
        self.conv2 = nn.Conv3d(4, 2, (1, 3, 3))

    def forward(self, volume: Tensor) -> Tensor:
        return self.conv2(self.conv1(volume).relu())


def test_an_inflated_network_says_of_a_still_clip_what_the_2d_one_says_of_its_frame() -> None:
    torch.manual_seed(0)
    flat, deep = Flat(), Deep()
    deep.load_state_dict(inflate(deep, flat.state_dict()))
    frame = torch.randn(2, 3, 8, 9)
    expected = flat.conv2(flat.conv1(frame).relu())
    output = deep(frame[:, :, None].expand(-1, -1, 5, -1, -1))
    assert output.shape[2] == 3
    for t in range(3):
        torch.testing.assert_close(output[:, :, t], expected)


def test_only_what_lacks_time_is_inflated() -> None:
    deep = Deep()
    own = deep.state_dict()
    again = inflate(deep, own)
    assert all(torch.equal(again[name], own[name]) for name in own)
    one_step = {"conv1.weight": own["conv1.weight"][:, :, :1], "other": torch.ones(2)}
    inflated = inflate(deep, one_step)
    assert torch.equal(inflated["other"], one_step["other"])
    assert inflated["conv1.weight"].shape == own["conv1.weight"].shape
    torch.testing.assert_close(inflated["conv1.weight"].sum(dim=2, keepdim=True), one_step["conv1.weight"])


def test_a_stem_for_flow_takes_the_inflated_mean_of_the_colors() -> None:
    from vsn.models.stem import fit_stem

    torch.manual_seed(0)
    flat, body = Flat(), Deep()
    config = ModelConfig(name="s3d", num_classes=2, modality="flow", flow_length=2)
    model = VolumeClassifier(body, config, feature_dim=2)
    assert (model.num_channels, body.conv1.weight.shape) == (4, (4, 4, 3, 3, 3))
    fitted = fit_stem(body, inflate(body, flat.state_dict()))["conv1.weight"]
    for channel in range(4):
        for t in range(3):
            torch.testing.assert_close(fitted[:, channel, t], flat.conv1.weight.mean(dim=1) / 3)


@pytest.mark.parametrize("name", ["s3d", "r2plus1d_18"])
def test_what_torchvision_publishes_is_loaded_without_its_classifier(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import get_model, get_model_weights

    torch.manual_seed(7)
    theirs = get_model(name, weights=None).state_dict()
    monkeypatch.setattr(type(get_model_weights(name).KINETICS400_V1), "get_state_dict", lambda *a, **k: theirs)
    config = ModelConfig(name=name, num_classes=5, weights="KINETICS400_V1")
    model = build_model(config)
    loaded = initialize(model, config)
    assert not loaded.missing
    for own, value in model.backbone.state_dict().items():
        assert torch.equal(value, theirs[own])
    with pytest.raises(ConfigError, match=f"for {name} torchvision has KINETICS400_V1"):
        initialize(model, ModelConfig(name=name, num_classes=5, weights="IMAGENET1K_V1"))


# Blocks


@pytest.mark.parametrize(
    ("name", "number", "first", "last"),
    [
        ("eco_thin", 13, "inception_3a", "res5"),
        ("eco_lite_thin", 5, "inception_3a", "res5"),
        ("s3d", 10, "features.3", "features.15"),
        ("i3d_inception_thin", 10, "conv3", "inception5b"),
        ("r2plus1d_34_thin", 16, "layer1.0", "layer4.2"),
        ("trn_resnet26_thin", 8, "layer1.0", "layer4.1"),
    ],
)
def test_blocks_by_stage(name: str, number: int, first: str, last: str) -> None:
    backbone = make(name).backbone
    stages = stage_blocks(backbone)
    assert list(stages) == ["res2", "res3", "res4", "res5"]
    blocks = [block for names in stages.values() for block in names]
    assert (len(blocks), blocks[0], blocks[-1]) == (number, first, last)
    for block in blocks:
        backbone.get_submodule(block)


def test_a_body_of_unknown_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Deep.*insert_at"):
        stage_blocks(Deep())
