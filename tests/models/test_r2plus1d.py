"""R(2+1)D: the widths between space and time, and what torchvision publishes."""

import pytest
import torch
from torchvision.models.video import r2plus1d_18

from tests.helpers.peers import giga_multiply_adds, make, make_clip, num_parameters
from vsn.models.peers.r2plus1d import R2Plus1dBody, middle_width


@pytest.mark.parametrize("inputs", [45, 64, 128, 512])
@pytest.mark.parametrize("outputs", [64, 128, 256])
def test_the_pair_has_as_many_weights_as_the_3d_convolution(inputs: int, outputs: int) -> None:
    middle = middle_width(inputs, outputs)
    per_channel = 9 * inputs + 3 * outputs
    assert middle * per_channel <= 27 * inputs * outputs < (middle + 1) * per_channel


def test_every_convolution_of_the_paper_has_its_own_middle_width() -> None:
    body = R2Plus1dBody(depths=(3, 4, 6, 3), width=64, paper=True)
    for number, width in enumerate((64, 128, 256, 512), 1):
        layer = body.get_submodule(f"layer{number}")
        assert len(list(layer.children())) == (3, 4, 6, 3)[number - 1]
        for i, block in enumerate(layer.children()):
            inputs = width // 2 if i == 0 and number > 1 else width
            assert block.conv1[0][0].out_channels == middle_width(inputs, width)
            assert block.conv2[0][0].out_channels == middle_width(width, width)
    assert [middle_width(w, w) for w in (64, 128, 256, 512)] == [144, 288, 576, 1152]
    assert [middle_width(w // 2, w) for w in (128, 256, 512)] == [230, 460, 921]


def pair(inputs: int, outputs: int) -> int:
    """Two convolutions, and batch normalization after each."""
    middle = 27 * inputs * outputs // (9 * inputs + 3 * outputs)
    return middle * (9 * inputs + 3 * outputs) + 2 * middle + 2 * outputs


def by_hand(depths: tuple[int, ...], num_classes: int) -> int:
    total = 3 * 45 * 49 + 2 * 45 + 45 * 64 * 3 + 2 * 64
    for i, depth in enumerate(depths):
        width = 64 * 2**i
        total += 2 * depth * pair(width, width)
        if i:
            total += pair(width // 2, width) - pair(width, width) + width // 2 * width + 2 * width
    return total + 512 * num_classes + num_classes


def test_parameters_by_hand_and_as_published() -> None:
    assert num_parameters("r2plus1d_34", num_classes=400, num_frames=32) == by_hand((3, 4, 6, 3), 400) == 63_697_175
    # The paper's table 2 counts 18 layers by the same rule; torchvision's have 31,505,325.
    assert by_hand((2, 2, 2, 2), 400) == pytest.approx(33.3e6, rel=0.02)
    assert num_parameters("r2plus1d_18", num_classes=400, num_frames=16) == 31_505_325


def test_multiply_adds_are_those_published() -> None:
    published = giga_multiply_adds("r2plus1d_34", num_classes=400, num_frames=32, size=112)
    assert published == pytest.approx(152, rel=0.02)
    torchvisions = giga_multiply_adds("r2plus1d_18", num_classes=400, num_frames=16, size=112)
    assert torchvisions == pytest.approx(40.519, rel=1e-3)


def test_eighteen_layers_are_torchvisions_network() -> None:
    torch.manual_seed(0)
    theirs = r2plus1d_18(num_classes=5).eval()
    model = make("r2plus1d_18", num_frames=4)
    state = theirs.state_dict()
    model.head.load_state_dict({"weight": state.pop("fc.weight"), "bias": state.pop("fc.bias")})
    model.backbone.load_state_dict(state)
    clip = make_clip(4)
    with torch.inference_mode():
        expected = theirs(model.normalized(clip).transpose(1, 2))
        torch.testing.assert_close(model(clip), expected, rtol=1e-4, atol=1e-5)


def test_the_thin_one_is_as_deep_and_small() -> None:
    model = make("r2plus1d_34_thin")
    assert model.backbone.feature_dim == 128
    assert sum(p.numel() for p in model.parameters()) < 4_100_000
