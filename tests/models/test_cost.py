"""CoST: one kernel on three views, the weights of the views, what it costs, and C2D inside it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from tests.helpers.peers import giga_multiply_adds, make, make_clip, num_parameters
from vsn.config import ConfigError, ModelConfig
from vsn.models import build_model, initialize
from vsn.models.backbones import build_backbone, remove_classifier
from vsn.models.peers.cost import PLANS, CostConv3d, cost_body
from vsn.models.peers.resnet3d import SHAPES, ResNet3d

THIN = "resnet26_thin"


def conv_of(*, by_clip: bool, inputs: int = 3, outputs: int = 4, stride: int = 1) -> CostConv3d:
    torch.manual_seed(0)
    conv = CostConv3d(inputs, outputs, stride=stride, by_clip=by_clip).double()
    for parameter in conv.parameters():  # far from the start, where views hardly differ
        nn.init.normal_(parameter)
    return conv


def volume_of(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def views_by_loops(conv: CostConv3d, volume: Tensor) -> Tensor:
    """The three views ``(3, B, C, T, h, w)``, place by place: a kernel's rows and columns are two of the three axes."""
    batch, _, *sizes = volume.shape
    padded = functional.pad(volume, (1,) * 6)
    result = torch.zeros(3, batch, len(conv.weight), *sizes, dtype=volume.dtype)
    for view, axes in enumerate(((1, 2), (0, 2), (0, 1))):  # height and width, time and width, time and height
        for place in torch.cartesian_prod(*(torch.arange(size) for size in sizes)).tolist():
            for row in range(3):
                for column in range(3):
                    at = [position + 1 for position in place]
                    at[axes[0]] += row - 1
                    at[axes[1]] += column - 1
                    seen = padded[:, :, at[0], at[1], at[2]]
                    result[view, :, :, place[0], place[1], place[2]] += seen @ conv.weight[:, :, row, column].T
    return result


# The operation


@torch.no_grad()
@pytest.mark.parametrize("by_clip", [False, True])
def test_the_output_is_the_weighted_sum_of_the_views(by_clip: bool) -> None:
    conv, volume = conv_of(by_clip=by_clip), volume_of(2, 3, 3, 4, 5)
    views = views_by_loops(conv, volume)
    expected = torch.zeros_like(views[0])
    for b in range(2):
        if by_clip:
            maxima = views[:, b].flatten(2).max(dim=2).values  # (3, C)
            scores = conv.views.weight @ (maxima @ conv.channels.weight.T)
        else:
            scores = conv.scores
        for channel in range(4):
            shares = torch.exp(scores[:, channel]) / torch.exp(scores[:, channel]).sum()
            expected[b, channel] = sum(shares[view] * views[view, b, channel] for view in range(3))
    torch.testing.assert_close(conv(volume), expected)


@torch.no_grad()
def test_a_stride_takes_every_other_place_of_height_and_width() -> None:
    conv, volume = conv_of(by_clip=False), volume_of(1, 3, 3, 5, 6)
    strided = conv_of(by_clip=False, stride=2)
    torch.testing.assert_close(strided(volume), conv(volume)[..., ::2, ::2])


@torch.no_grad()
def test_swapping_time_and_width_swaps_two_views() -> None:
    """Of a symmetric kernel: height-width becomes time-height, and time-width itself."""
    conv, volume = conv_of(by_clip=False), volume_of(1, 3, 4, 4, 4)
    conv.weight.copy_((conv.weight + conv.weight.transpose(2, 3)) / 2)
    before, after = views_by_loops(conv, volume), views_by_loops(conv, volume.transpose(2, 4))
    order = [2, 1, 0]
    torch.testing.assert_close(after[order].transpose(3, 5), before)
    swapped = conv_of(by_clip=False)
    swapped.weight.copy_(conv.weight)
    swapped.scores.copy_(conv.scores[order])
    torch.testing.assert_close(swapped(volume.transpose(2, 4)).transpose(2, 4), conv(volume))


@torch.no_grad()
def test_the_time_views_of_one_frame_see_the_kernels_middle_row() -> None:
    conv, volume = conv_of(by_clip=False), volume_of(1, 3, 1, 5, 6)
    middle = conv.weight[:, :, 1]  # (O, I, 3): the row of the frame itself
    wide = functional.conv2d(volume[:, :, 0], middle[:, :, None], padding=(0, 1))
    high = functional.conv2d(volume[:, :, 0], middle[:, :, :, None], padding=(1, 0))
    for view, expected in ((1, wide), (2, high)):
        conv.scores.fill_(-1e9)
        conv.scores[view] = 0
        torch.testing.assert_close(conv(volume)[:, :, 0], expected)


def test_there_is_one_kernel_whose_gradient_is_the_sum_of_three() -> None:
    conv, volume = conv_of(by_clip=False), volume_of(1, 3, 3, 4, 4)
    assert {name: tuple(p.shape) for name, p in conv.named_parameters()} == {"weight": (4, 3, 3, 3), "scores": (3, 4)}
    conv(volume).sum().backward()
    shares = conv.scores.detach().softmax(dim=0)
    total = torch.zeros_like(conv.weight)
    for view in range(3):
        alone = conv_of(by_clip=False)
        with torch.no_grad():
            alone.scores.fill_(-1e9)
            alone.scores[view] = 0
        (alone(volume) * shares[view][:, None, None, None]).sum().backward()
        total += alone.weight.grad
    torch.testing.assert_close(conv.weight.grad, total)


@torch.no_grad()
def test_weights_of_views_sum_to_one_and_belong_to_their_clip() -> None:
    conv, volume = conv_of(by_clip=True), volume_of(3, 3, 2, 4, 4)
    views = list(views_by_loops(conv, volume))
    conv.channels.weight.mul_(0.05)  # shares far from 0 and 1
    weights = conv.view_weights(views)
    assert weights.shape == (3, 3, 4)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3, 4, dtype=torch.float64))
    torch.testing.assert_close(conv.view_weights([view.flip(0) for view in views]), weights.flip(0))
    assert weights.max() < 0.99
    assert not torch.allclose(weights[0], weights[1], atol=1e-3)


def test_the_weights_of_views_start_as_the_authors() -> None:
    shares = CostConv3d(2, 5, by_clip=False).view_weights([]).detach()
    torch.testing.assert_close(shares[0, :, 0], torch.tensor([0.67, 0.165, 0.165]), rtol=0, atol=1e-3)
    torch.manual_seed(0)
    conv = CostConv3d(64, 64, by_clip=True)
    for linear in (conv.channels, conv.views):
        assert linear.bias is None
        assert linear.weight.std().item() == pytest.approx(0.01, rel=0.5)


# The network


@torch.no_grad()
@pytest.mark.parametrize("dense", [False, True])
def test_with_the_first_view_only_it_is_c2d(dense: bool) -> None:
    """The same convolutions and poolings, with the weights of the 2D network."""
    torch.manual_seed(0)
    flat = ResNet3d(SHAPES[THIN], PLANS[dense]).eval()
    body = cost_body(THIN, dense=dense, by_clip=False).eval()
    own = body.state_dict()
    state = {name: value.view(own[name].shape) for name, value in flat.state_dict().items()}
    scores = body.load_state_dict(state, strict=False).missing_keys
    assert [name.removesuffix(".conv2.scores") for name in scores] == ["layer1.1", "layer2.0", "layer3.0", "layer4.0"]
    for name, parameter in body.named_parameters():
        if name in scores:
            parameter.copy_(torch.tensor([1e9, -1e9, -1e9])[:, None].expand_as(parameter))
    volume = torch.randn(1, 3, 32, 48, 48)
    torch.testing.assert_close(body(volume), flat(volume))
    assert body(volume).shape[2] == (4 if dense else 16)


PLACES = {
    "resnet50": {"layer1": [1], "layer2": [0, 2], "layer3": [0, 2, 4], "layer4": [0, 2]},
    "resnet101": {"layer1": [1], "layer2": [0, 2], "layer3": list(range(0, 23, 2)), "layer4": [1]},
}


@pytest.mark.parametrize("name", PLACES)
def test_the_blocks_are_the_authors(name: str) -> None:
    with torch.device("meta"):
        body = cost_body(name, dense=False, by_clip=True)
    found = {n for n, module in body.named_modules() if isinstance(module, CostConv3d)}
    assert found == {f"{stage}.{i}.conv2" for stage, numbers in PLACES[name].items() for i in numbers}


@pytest.mark.parametrize(
    ("name", "num_frames", "parameters", "cost"),
    [
        ("cost-a_resnet50", 8, 24_333_968, 27.8),
        ("cost_resnet50", 8, 25_085_464, 27.8),
        ("cost-a_resnet101", 8, 43_331_472, 50.1),
        ("cost_resnet101", 8, 44_405_344, 50.1),
        ("cost_resnet101", 32, 44_442_976, 58.6),
    ],
)
def test_counts(name: str, num_frames: int, parameters: int, cost: float) -> None:
    """No publication has them; parameters by hand, multiply-adds against a count of the authors' configuration."""
    backbone, head = {"resnet50": 23_508_032, "resnet101": 42_500_160}[name.split("_")[1]], 2048 * 400 + 400
    planes = [
        SHAPES[name.split("_")[1]].width * 2**stage
        for stage, numbers in enumerate(PLACES[name.split("_")[1]].values())
        for _ in numbers
    ]
    own = sum(3 * width if name.startswith("cost-a") else width**2 + 9 for width in planes)
    stem = 4 * 64 * 3 * 7 * 7 if num_frames == 32 else 0  # four more frames in conv1
    assert backbone + head + own + stem == parameters
    assert num_parameters(name, num_classes=400, num_frames=num_frames) == parameters
    assert giga_multiply_adds(name, num_classes=400, num_frames=num_frames, size=224) == pytest.approx(cost, rel=0.002)


@pytest.mark.parametrize(("num_frames", "steps"), [(2, 1), (8, 4), (16, 8), (32, 4), (64, 8)])
def test_time_is_halved_once_or_three_times(num_frames: int, steps: int) -> None:
    with torch.device("meta"):
        model = build_model(ModelConfig(name="cost_resnet50", num_classes=2, num_frames=num_frames))
        assert model.backbone(torch.zeros(1, 3, num_frames, 64, 64)).shape == (1, 2048, steps, 2, 2)


@pytest.mark.parametrize(
    ("num_frames", "advice"), [(1, "multiple of 2, such as .* 8"), (7, "of 2"), (36, "of 8, .* 32")]
)
def test_frames_that_a_pooling_would_drop_are_refused(num_frames: int, advice: str) -> None:
    with pytest.raises(ConfigError, match=f"num_frames is {num_frames}; .*{advice}"):
        make(f"cost_{THIN}", num_frames=num_frames)


@pytest.mark.parametrize("kind", ["cost", "cost-a"])
@torch.no_grad()
def test_image_weights_start_all_but_the_views(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(THIN)
    save_file(backbone.state_dict(), tmp_path / "flat.safetensors")
    config = ModelConfig(name=f"{kind}_{THIN}", num_classes=5, weights=str(tmp_path / "flat.safetensors"))
    model = build_model(config).eval()
    loaded = initialize(model, config)
    own = ("scores",) if kind == "cost-a" else ("channels.weight", "views.weight")
    assert set(loaded.missing) == {f"layer{i}.{i == 1:d}.conv2.{name}" for i in range(1, 5) for name in own}
    assert torch.equal(model.backbone.layer1[1].conv2.weight, backbone.layer1[1].conv2.weight)
    # Views of a still clip are not its frames: only with the first view does it see what the 2D network sees.
    remove_classifier(backbone)
    frame = torch.rand(1, 3, 64, 64)
    still = frame[:, :, None].expand(-1, -1, 8, -1, -1)
    assert not torch.allclose(model.backbone(still).mean(dim=(2, 3, 4)), backbone.eval()(frame), rtol=1e-2)


def test_the_views_of_time_matter() -> None:
    model, clip = make(f"cost_{THIN}"), make_clip(size=64)
    with torch.no_grad():
        order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
        assert not torch.allclose(model(clip), model(clip[:, order]), rtol=1e-3, atol=1e-3)
