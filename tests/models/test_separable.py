"""Networks of depthwise and grouped convolutions: where the shuffle goes, and that it mixes there."""

import warnings

import pytest
import torch
from torch import Tensor, nn

from vsn.config import STAGES, Block, ConfigError, ModelConfig
from vsn.models import build_model
from vsn.models.backbones import build_backbone, remove_classifier
from vsn.models.blocks import ResidualBlock, residual_blocks
from vsn.models.insertion import Placement, insert_at, insert_temporal, mixing_matrix, plan_placement
from vsn.models.layers import ShiftConv2d, ShuffleConv2d, ShuffleLinear
from vsn.ops import video_shuffle

SEPARABLE = (
    "mobilenet_v2",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_v2_s",
    "convnext_tiny",
)


def built(name: str, device: str = "meta") -> nn.Module:
    torch.manual_seed(0)
    with torch.device(device):
        backbone = build_backbone(name).eval()
    return backbone


def names_of(stages: dict[str, list[ResidualBlock]]) -> dict[str, list[str]]:
    return {stage: [one.name.removeprefix("features.") for one in blocks] for stage, blocks in stages.items()}


def block_alone(backbone: nn.Module, one: ResidualBlock) -> nn.Module:
    """A block of a backbone behind a random stem."""
    width = backbone.get_submodule(one.head).in_channels
    return nn.Sequential(nn.Conv2d(3, width, 1), backbone.get_submodule(one.name))


@torch.no_grad()
def who_meets(model: nn.Module, num_frames: int) -> Tensor:
    """`mixing_matrix` by changing one frame at a time: depthwise convolutions in double precision take long."""
    frames = torch.rand(num_frames, 3, 3, 3)
    columns = []
    for s in range(num_frames):
        changed = frames.clone()
        changed[s] += 1
        columns.append((model(changed) != model(frames)).flatten(1).any(dim=1))
    return torch.stack(columns, dim=1)


# Where the blocks are


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("mobilenet_v2", (["3"], ["5", "6"], ["8", "9", "10", "12", "13"], ["15", "16"])),
        ("mobilenet_v3_small", ([], ["3"], ["5", "6", "8"], ["10", "11"])),
        ("mobilenet_v3_large", (["3"], ["5", "6"], ["8", "9", "10", "12"], ["14", "15"])),
        ("efficientnet_b0", (["2.1"], ["3.1"], ["4.1", "4.2", "5.1", "5.2"], ["6.1", "6.2", "6.3"])),
    ],
)
def test_blocks_with_an_identity_and_an_expanding_convolution_by_size_of_their_maps(
    name: str, blocks: tuple[list[str], ...]
) -> None:
    assert names_of(residual_blocks(built(name))) == dict(zip(STAGES, blocks, strict=True))


@pytest.mark.parametrize("name", SEPARABLE)
def test_a_stage_holds_maps_of_one_size(name: str) -> None:
    backbone = built(name)
    seen: dict[str, int] = {}
    blocks = residual_blocks(backbone)
    for stage, found in blocks.items():
        for one in found:
            backbone.get_submodule(one.name).register_forward_hook(
                lambda module, inputs, output, key=(stage, one.name): seen.__setitem__(key, output.shape[-1])
            )
    backbone(torch.empty(1, 3, 224, 224, device="meta"))
    sizes = {stage: {size for (at, _), size in seen.items() if at == stage} for stage in STAGES}
    # Blocks at half the frame's size count to res2.
    assert sizes["res2"] <= {56, 112}
    assert [sizes[stage] for stage in STAGES[1:]] == [{28}, {14}, {7}]


@pytest.mark.parametrize(
    ("timm_name", "torchvision_name"),
    [
        ("mobilenetv2_100", "mobilenet_v2"),
        ("efficientnet_b0", "efficientnet_b0"),
        ("convnext_tiny", "convnext_tiny"),
    ],
)
def test_timms_are_placed_as_torchvisions(timm_name: str, torchvision_name: str) -> None:
    pytest.importorskip("timm")
    theirs, ours = (residual_blocks(built(name)) for name in (f"timm/{timm_name}", torchvision_name))
    assert [len(theirs[stage]) for stage in STAGES] == [len(ours[stage]) for stage in STAGES]


def test_mobilenet_v2_shifts_before_the_first_pointwise_convolution_as_tsm_does() -> None:
    backbone = insert_temporal(built("mobilenet_v2"), num_frames=8, places=())
    shifts = [name for name, module in backbone.named_modules() if isinstance(module, ShiftConv2d)]
    assert shifts == [f"features.{i}.conv.0.0" for i in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)]
    assert all(backbone.get_submodule(name).kernel_size == (1, 1) for name in shifts)


# Where the shuffle is


@pytest.mark.parametrize(
    ("name", "shuffled"),
    [
        ("mobilenet_v2", ["features.3.conv.2", "features.6.conv.2", "features.13.conv.2", "features.16.conv.2"]),
        ("mobilenet_v3_small", ["features.3.block.2.0", "features.8.block.3.0", "features.11.block.3.0"]),
        (
            "efficientnet_v2_s",  # the dense 3x3 of its fused blocks, as in the paper; later the projecting convolution
            ["features.2.3.block.0.0", "features.3.3.block.0.0", "features.5.8.block.3.0", "features.6.14.block.3.0"],
        ),
        ("convnext_tiny", [f"features.{i}.{n}.block.5" for i, n in ((1, 2), (3, 2), (5, 8), (7, 2))]),
    ],
)  # fmt: skip
def test_the_pair_is_around_the_projecting_convolution(name: str, shuffled: list[str]) -> None:
    backbone = insert_temporal(built(name), num_frames=8)
    assert [
        n for n, module in backbone.named_modules() if isinstance(module, ShuffleConv2d | ShuffleLinear)
    ] == shuffled
    for path in shuffled:
        layer = backbone.get_submodule(path)
        if isinstance(layer, ShuffleConv2d):
            assert layer.groups == 1
        else:
            assert layer.in_features == 4 * layer.out_features


@pytest.mark.parametrize("name", SEPARABLE)
def test_each_shuffle_block_mixes_all_frames_and_none_did_before(name: str) -> None:
    backbone = built(name, "cpu")
    last = [blocks[-1] for blocks in residual_blocks(backbone).values() if blocks]
    before = backbone.state_dict(keep_vars=True)
    for one in last:
        assert torch.equal(who_meets(block_alone(backbone, one), 4), torch.eye(4, dtype=torch.bool))
    insert_temporal(backbone, num_frames=4, shift=False)
    for one in last:
        assert who_meets(block_alone(backbone, one), 4).all()
    after = backbone.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[key] is before[key] for key in before)


def test_mixing_matrix_says_the_same() -> None:
    backbone = built("mobilenet_v2", "cpu")
    one = residual_blocks(backbone)["res2"][-1]
    isolated = block_alone(backbone, one)
    assert torch.equal(mixing_matrix(isolated, num_frames=4, size=2), torch.eye(4, dtype=torch.bool))
    insert_temporal(backbone, num_frames=4, shift=False)
    assert mixing_matrix(isolated, num_frames=4, size=2).all()


def test_around_the_depthwise_convolution_it_would_mix_nothing() -> None:
    backbone = built("mobilenet_v2")
    message = r"features\.3\.conv\.1\.0 has 144 groups: .* mixes nothing .*block = 'pointwise'"
    with pytest.raises(ConfigError, match=message):
        insert_at(backbone, num_frames=8, shuffle=["features.3.conv.1.0"])


def test_headtail_around_an_inverted_block_mixes_too() -> None:
    backbone = insert_temporal(built("mobilenet_v2", "cpu"), num_frames=4, block="headtail", shift=False)
    one = residual_blocks(backbone)["res4"][-1]
    assert who_meets(block_alone(backbone, one), 4).all()
    with pytest.raises(ConfigError, match="ends in a Permute, not a plain batch normalization"):
        insert_temporal(built("convnext_tiny"), num_frames=4, block="headtail")


def test_a_stage_without_blocks_has_no_shuffle_and_alone_is_refused() -> None:
    stages = residual_blocks(built("mobilenet_v3_small"))
    assert len(plan_placement(stages).shuffle) == 3
    with pytest.raises(ConfigError, match=r"places is \['res2'\], .*\['res3', 'res4', 'res5'\]"):
        plan_placement(stages, places=("res2",))


def test_a_network_whose_blocks_have_no_identity_is_refused() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ConfigError, match="no residual blocks with an identity path"):
        insert_temporal(built("timm/test_efficientnet"), num_frames=4)


# The linear layer


@torch.no_grad()
def test_a_linear_layer_is_shuffled_as_the_1x1_convolution_it_is() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(7, 9)
    conv = nn.Conv2d(7, 9, 1)
    conv.weight.copy_(linear.weight[:, :, None, None])
    conv.bias.copy_(linear.bias)
    frames = torch.rand(6, 7, 4, 5)
    expected = video_shuffle(conv(video_shuffle(frames, 3)), 3)
    model = insert_at(nn.Sequential(linear), num_frames=3, shuffle=["0"])
    assert isinstance(model[0], ShuffleLinear)
    torch.testing.assert_close(model(frames.permute(0, 2, 3, 1)), expected.permute(0, 2, 3, 1))
    assert "num_frames=3" in repr(model)


def test_a_narrow_linear_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="0 has 7 input channels, fewer than num_frames = 8"):
        insert_at(nn.Sequential(nn.Linear(7, 9)), num_frames=8, shuffle=["0"])
    model = insert_at(nn.Sequential(nn.Linear(8, 9)), num_frames=8, shuffle=["0"])
    with pytest.raises(ConfigError, match=r"0 is a ShuffleLinear"):
        insert_at(model, num_frames=8, shuffle=["0"])


# block = "pointwise"


@pytest.mark.parametrize("name", ["resnext50_32x4d", "regnet_x_800mf", "resnet50"])
def test_pointwise_mixes_where_grouped_3x3_convolutions_do_not(name: str) -> None:
    backbone = built(name, "cpu")
    if name != "resnet50":
        # Of regnet_x_800mf's four stages one holds a part of the frames in each group, and one mixes nothing.
        conv = {"resnext50_32x4d": "layer1.2.conv2", "regnet_x_800mf": "trunk_output.block2.block2-2.f.b.0"}[name]
        with pytest.raises(ConfigError, match=r"mixes nothing .*Use block = 'pointwise'"):
            insert_at(backbone, num_frames=8, shuffle=[conv])
    blocks = residual_blocks(backbone)
    insert_temporal(backbone, num_frames=8, block="pointwise")
    for one in (blocks["res2"][-1], blocks["res3"][-1]):
        assert isinstance(backbone.get_submodule(one.pointwise), ShuffleConv2d)
        assert who_meets(block_alone(backbone, one), 8).all()


def test_pointwise_needs_a_1x1_convolution() -> None:
    with pytest.raises(ConfigError, match=r"layer1\.1 .*block = 'compact'"):
        insert_temporal(built("resnet18"), num_frames=4, block="pointwise")


# As models


@pytest.mark.parametrize("name", [*SEPARABLE, "regnet_y_400mf", "densenet121", "resnet34"])
@pytest.mark.parametrize("kind", ["tsn", "tsm", "vsn"])
def test_every_kind_builds_and_runs(kind: str, name: str) -> None:
    block: Block = "pointwise" if name.startswith("regnet") else "compact"
    config = ModelConfig(name=f"{kind}_{name}", num_classes=5, num_frames=4, block=block)
    with torch.device("meta"):
        model = build_model(config).eval()
        clip = torch.empty(2, 4, 3, 64, 64, dtype=torch.uint8)
    assert model(clip).shape == (2, 5)
    temporal = [m for m in model.modules() if isinstance(m, ShiftConv2d | ShuffleConv2d | ShuffleLinear)]
    assert bool(temporal) == (kind != "tsn")


@pytest.mark.parametrize(
    ("name", "width", "kept"),
    [
        ("mobilenet_v2", 1280, []),
        ("mobilenet_v3_large", 1280, ["classifier.0.weight", "classifier.0.bias"]),
        ("convnext_tiny", 768, ["classifier.0.weight", "classifier.0.bias"]),
    ],
)
def test_the_classifiers_last_layer_goes_and_its_dropout_with_it(name: str, width: int, kept: list[str]) -> None:
    backbone = built(name)
    assert remove_classifier(backbone) == width
    assert [key for key in backbone.state_dict() if key.startswith("classifier.")] == kept
    assert not any(isinstance(module, nn.Dropout) for module in backbone.modules())
    frames: Tensor = torch.empty(2, 3, 64, 64, device="meta")
    assert backbone(frames).shape == (2, width)


def test_regnet_with_its_grouped_3x3_sees_a_part_of_the_frames_and_says_so() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        insert_temporal(built("regnet_y_400mf"), num_frames=8)
    assert len(caught) == 4
    assert all("each sees a part of the frames" in str(one.message) for one in caught)


def test_a_placement_of_headtail_takes_no_linear_layer() -> None:
    with pytest.raises(ConfigError, match="0 is a Linear; only a plain Conv2d"):
        insert_at(
            nn.Sequential(nn.Linear(8, 8), nn.BatchNorm2d(8)),
            num_frames=4,
            placement=Placement(headtail=(("0", "1"),)),
        )
