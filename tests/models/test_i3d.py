"""C2D and I3D: what they do along time, what they cost, and that 2D weights go over."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vsn.config import ModelConfig
from vsn.models import build_model, create_model, initialize
from vsn.models.backbones import build_backbone, remove_classifier
from vsn.models.gradcam import grad_cam
from vsn.models.measure import count_multiply_adds, count_parameters
from vsn.models.peers.i3d import PLANS, i3d_body
from vsn.models.peers.resnet3d import SHAPES
from vsn.models.run_weights import RunWeights, describe_differences
from vsn.models.weights import inflate
from vsn.training.memory import checkpoint_activations

THIN = "resnet26_thin"


def on_meta(name: str, **settings: int) -> nn.Module:
    with torch.device("meta"):
        return build_model(ModelConfig(name=name, num_classes=400, **settings)).eval()


def shapes_of(body: nn.Module, volume: torch.Tensor, names: tuple[str, ...]) -> list[tuple[int, ...]]:
    """(T, H, W) of each module's output."""
    seen: dict[str, tuple[int, ...]] = {}
    for name in names:
        body.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: seen.__setitem__(name, tuple(output.shape[2:]))
        )
    body(volume)
    return [seen[name] for name in names]


PARTS = ("conv1", "maxpool", "layer1", "pool2", "layer2", "layer3", "layer4")


@pytest.mark.parametrize(
    ("kind", "frames", "res5"),
    [
        ("c2d", (16, 8, 8, 4, 4, 4, 4), 7),
        ("i3d", (16, 8, 8, 4, 4, 4, 4), 7),
        ("i3d-fine", (32, 32, 32, 16, 16, 16, 16), 14),
    ],
)
def test_the_sizes_of_table_1(kind: str, frames: tuple[int, ...], res5: int) -> None:
    with torch.device("meta"):
        body = i3d_body(kind, "resnet50").eval()
        volume = torch.empty(1, 3, 32, 224, 224)
    sizes = (112, 56, 56, 56, 28, 14, res5)
    assert shapes_of(body, volume, PARTS) == [(t, size, size) for t, size in zip(frames, sizes, strict=True)]


@pytest.mark.parametrize(
    ("name", "inflated"),
    [
        ("resnet50", {"layer1": [0, 1, 2], "layer2": [0, 2], "layer3": [0, 2, 4], "layer4": [1]}),
        (
            "resnet101",
            {"layer1": [0, 1, 2], "layer2": [0, 2], "layer3": list(range(0, 23, 2)), "layer4": [1]},
        ),
    ],
)
def test_i3d_inflates_the_first_convolution_of_every_other_block(name: str, inflated: dict[str, list[int]]) -> None:
    with torch.device("meta"):
        body = i3d_body("i3d", name)
    kernels = {n: m.kernel_size for n, m in body.named_modules() if isinstance(m, nn.Conv3d)}
    long = {n for n, size in kernels.items() if size[0] > 1}
    assert long == {"conv1"} | {f"{stage}.{i}.conv1" for stage, blocks in inflated.items() for i in blocks}
    assert kernels["conv1"] == (5, 7, 7)
    assert {kernels[n] for n in long - {"conv1"}} == {(3, 1, 1)}


def test_c2d_sees_one_frame_in_every_convolution() -> None:
    with torch.device("meta"):
        body = i3d_body("c2d", "resnet50")
    assert {m.kernel_size[0] for m in body.modules() if isinstance(m, nn.Conv3d)} == {1}


# What they cost

R50 = 23_508_032
"""torchvision's ResNet-50 has 25,557,032 parameters, of which the classifier 2048 * 1000 + 1000."""
HEAD = 2048 * 400 + 400
INFLATION = (
    4 * 64 * 3 * 7 * 7  # conv1: four more frames
    + 2 * (64 * 64 + 2 * 256 * 64)  # res2: two more frames in each block
    + 2 * (256 * 128 + 512 * 128)
    + 2 * (512 * 256 + 2 * 1024 * 256)
    + 2 * 2048 * 512
)
NON_LOCAL = sum(
    number * (4 * channels * (channels // 2) + 3 * (channels // 2) + channels + 2 * channels)
    for number, channels in ((2, 512), (3, 1024))
)
"""theta, phi, g and the output with their biases, and the normalization."""


@pytest.mark.parametrize(
    ("name", "parameters", "published"),
    [
        ("c2d_resnet50", R50 + HEAD, None),
        ("i3d_resnet50", R50 + HEAD + INFLATION, 28.0e6),
        ("i3d-fine_resnet50", R50 + HEAD + INFLATION, 28.0e6),
        ("nl-i3d-fine_resnet50", R50 + HEAD + INFLATION + NON_LOCAL, 35.3e6),
    ],
)
def test_parameters_are_those_counted_by_hand(name: str, parameters: int, published: float | None) -> None:
    counted = count_parameters(on_meta(name))
    assert counted == parameters
    if published is not None:  # VSN paper, Table 2
        assert counted == pytest.approx(published, rel=0.02)


def test_two_clips_of_i3d_fine_are_the_306_g_of_the_papers_table_2() -> None:
    config = ModelConfig(name="i3d-fine_resnet50", num_classes=174, num_frames=32)
    assert 2 * count_multiply_adds(config, size=224) == pytest.approx(306e9, rel=0.005)


def test_table_1s_strides_cost_a_fifth_of_that() -> None:
    config = ModelConfig(name="i3d_resnet50", num_classes=400, num_frames=32)
    assert count_multiply_adds(config, size=224) == pytest.approx(33.13e9, rel=1e-3)


def test_non_local_blocks_cost_more_than_the_335_g_of_the_papers_table_2() -> None:
    """The published difference is that of two of each block's four 1x1 convolutions; we count all, and the pairs."""

    def count(kind: str, **settings: str) -> int:
        config = ModelConfig(name=f"{kind}_resnet50", num_classes=174, num_frames=32, **settings)
        return count_multiply_adds(config, size=224)

    plain = count("i3d-fine")
    places = {512: 16 * 28 * 28, 1024: 16 * 14 * 14}
    convolutions = sum(n * 4 * places[channels] * channels * (channels // 2) for n, channels in ((2, 512), (3, 1024)))
    pairs = sum(
        n * 2 * places[channels] * (places[channels] // 4) * (channels // 2) for n, channels in ((2, 512), (3, 1024))
    )
    assert count("nl-i3d-fine", non_local_pool="after") - plain == convolutions + pairs
    # Two of the four see a quarter of the positions.
    assert count("nl-i3d-fine") - plain == convolutions * 5 // 8 + pairs
    assert 2 * (plain + convolutions / 2) == pytest.approx(335e9, rel=0.01)


# 2D weights


@pytest.mark.parametrize("kind", PLANS)
def test_the_names_are_those_of_the_2d_network(kind: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone("resnet50")
        remove_classifier(backbone)
        assert set(i3d_body(kind, "resnet50").state_dict()) == set(backbone.state_dict())


@pytest.mark.parametrize(("kind", "num_frames", "middle"), [("c2d", 8, slice(None)), ("i3d", 160, slice(9, 11))])
@torch.no_grad()
def test_a_still_clip_is_seen_as_the_2d_network_sees_its_frame(kind: str, num_frames: int, middle: slice) -> None:
    """Away from the borders of time, where an inflated kernel sees zeros: 68 frames for the thin I3D."""
    torch.manual_seed(0)
    backbone = build_backbone(THIN).eval()
    remove_classifier(backbone)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics of their own, so that a wrong sum shows
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2)
    body = i3d_body(kind, THIN).eval()
    body.load_state_dict(inflate(body, backbone.state_dict()), strict=True)
    frame = torch.rand(1, 3, 32, 32)
    features = body(frame[:, :, None].expand(-1, -1, num_frames, -1, -1)).mean(dim=(3, 4))
    torch.testing.assert_close(
        features[:, :, middle],
        backbone(frame)[:, :, None].expand_as(features[:, :, middle]),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("kind", ["c2d", "i3d", "i3d-fine", "nl-c2d", "nl-i3d", "nl-i3d-fine"])
def test_every_name_builds_a_model_that_gives_scores_of_a_clip(kind: str) -> None:
    model = create_model(f"{kind}_{THIN}", num_classes=5, num_frames=8).eval()
    clip = torch.randint(0, 256, (2, 8, 3, 32, 48), dtype=torch.uint8)
    assert model(clip).shape == (2, 5)
    assert model.backbone.feature_dim == 4 * 8 * SHAPES[THIN].width == model.head.in_features
    with pytest.raises(ValueError, match=r"T=8 .*got 4"):
        model(clip[:, :4])


def test_blocks_can_be_recomputed_and_seen_through() -> None:
    model = create_model(f"nl-i3d_{THIN}", num_classes=5, num_frames=8).eval()
    nn.init.normal_(model.head.weight)
    clip = torch.randint(0, 256, (1, 8, 3, 64, 64), dtype=torch.uint8)
    assert grad_cam(model, clip, stage="res4").maps.shape == (1, 8, 4, 4)
    model(clip).sum().backward()
    expected = model.backbone.conv1.weight.grad.clone()
    model.zero_grad()
    checkpoint_activations(model)
    model(clip).sum().backward()
    assert torch.equal(model.backbone.conv1.weight.grad, expected)


@pytest.mark.parametrize(("modality", "channels"), [("flow", 10), ("rgbdiff", 18)])
def test_weights_of_rgb_fit_a_stem_for_other_channels(tmp_path: Path, modality: str, channels: int) -> None:
    backbone = build_backbone(THIN)
    save_file(backbone.state_dict(), tmp_path / "flat.safetensors")
    model = create_model(
        f"i3d_{THIN}",
        num_classes=5,
        num_frames=8,
        modality=modality,
        weights=str(tmp_path / "flat.safetensors"),
    )
    stem = model.backbone.conv1.weight
    assert stem.shape[1:3] == (10 if modality == "flow" else 15, 5)
    mean = backbone.conv1.weight.mean(dim=1) / 5
    torch.testing.assert_close(stem[:, 7, 2], mean)
    clip = torch.randint(0, 256, (1, 8, channels, 32, 32), dtype=torch.uint8)
    assert model.eval()(clip).shape == (1, 5)


def test_2d_weights_start_a_non_local_network_whose_new_blocks_start_at_random(tmp_path: Path) -> None:
    save_file(build_backbone(THIN).state_dict(), tmp_path / "flat.safetensors")
    config = ModelConfig(name=f"nl-i3d_{THIN}", num_classes=5, weights=str(tmp_path / "flat.safetensors"))
    loaded = initialize(build_model(config), config)
    assert "layer4.1.conv3.weight" in loaded.loaded
    assert loaded.missing
    assert all(".non_local." in name for name in loaded.missing)
    assert loaded.describe_missing() == "layer2.1.non_local, layer3.1.non_local"


@pytest.mark.parametrize(
    ("before", "now", "ending"),
    [
        ("tsm", "i3d", "inflated along time where kernels are longer"),
        ("c2d", "nl-i3d", "inflated along time where kernels are longer"),
        ("i3d", "nl-i3d", "only the non-local blocks are new"),
        ("nl-c2d", "c2d", "only the non-local blocks are removed"),
        ("i3d", "i3d-fine", "only the strides are new to them"),
        ("slowfast", "nl-slowfast", "only the non-local blocks are new"),
        ("tsn", "cost", "inflated along time where kernels are longer"),
    ],
)
def test_a_start_from_a_run_of_another_kind_is_described(before: str, now: str, ending: str) -> None:
    source = RunWeights(Path("m.safetensors"), ModelConfig(name=f"{before}_{THIN}", num_frames=16))
    (line,) = describe_differences(source, ModelConfig(name=f"{now}_{THIN}"))
    assert line.startswith(f"This {now.upper()} starts from a {before.upper()}: same weights")
    assert line.endswith(f" {ending}.")


@pytest.mark.parametrize(
    ("name", "setting", "there", "here"),
    [
        ("slowfast", "alpha", 8, 4),
        ("nl-i3d", "pairwise", "embedded-gaussian", "dot-product"),
        ("nl-i3d", "non_local_pool", "before", "after"),
        ("nl-i3d", "non_local_scale", False, True),
    ],
)
def test_a_start_from_a_run_with_another_setting_says_so(name: str, setting: str, there: object, here: object) -> None:
    source = RunWeights(Path("m.safetensors"), ModelConfig(name=f"{name}_{THIN}"))
    (line,) = describe_differences(source, ModelConfig(name=f"{name}_{THIN}", **{setting: here}))
    assert f"model.{setting} {there} -> {here}" in line
    assert describe_differences(source, ModelConfig(name=f"{name}_{THIN}")) == []
