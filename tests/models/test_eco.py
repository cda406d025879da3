"""ECO and its BN-Inception: counts, sizes, and the two streams against a frame-by-frame loop."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers.peers import giga_multiply_adds, make, make_clip, num_parameters
from vsn.config import ConfigError, ModelConfig
from vsn.models import initialize
from vsn.models.bn_inception import BnInception, max_pool
from vsn.models.peers.eco import EcoBody


def conv3d(inputs: int, outputs: int) -> int:
    return 27 * inputs * outputs + outputs


def norm(channels: int) -> int:
    return 2 * channels


def stage(inputs: int, outputs: int) -> int:
    """Two convolutions from the previous stage, three more, and four batch normalizations (none of the short cut)."""
    return 2 * conv3d(inputs, outputs) + 3 * conv3d(outputs, outputs) + 4 * norm(outputs)


RES = conv3d(96, 128) + 2 * conv3d(128, 128) + 3 * norm(128) + stage(128, 256) + stage(256, 512)


def unit(inputs: int, outputs: int, kernel: int) -> int:
    return inputs * outputs * kernel**2 + outputs + norm(outputs)


def test_bn_inception_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = BnInception()
    assert sum(p.numel() for p in network.parameters()) + 1024 * 1000 + 1000 == 11_295_240
    assert network.feature_dim == 1024


def test_parameters_by_hand_and_as_published() -> None:
    low = unit(3, 64, 7) + unit(64, 64, 1) + unit(64, 192, 3)
    low += unit(192, 64, 1) * 3 + unit(64, 64, 3) + unit(64, 96, 3) + unit(96, 96, 3) + unit(192, 32, 1)
    low += unit(256, 64, 1) * 4 + 2 * unit(64, 96, 3) + unit(96, 96, 3)
    shared = unit(320, 64, 1) + unit(64, 96, 3)
    lite = low + shared + RES + 512 * 174 + 174
    assert num_parameters("eco_lite", num_classes=174, num_frames=16) == lite == 37_387_918
    eco = (11_295_240 - 1024 * 1000 - 1000) + RES + (1024 + 512) * 174 + 174
    assert num_parameters("eco", num_classes=174, num_frames=16) == eco == 47_154_766
    assert eco == pytest.approx(47.5e6, rel=0.02)  # the VSN paper's Table 2
    assert eco + (400 - 174) * 1537 == pytest.approx(47.5e6, rel=1e-3)


def test_multiply_adds_are_those_of_the_paper() -> None:
    assert giga_multiply_adds("eco", num_classes=174, num_frames=16, size=224) == pytest.approx(64, rel=0.02)


@pytest.mark.parametrize("size", [(7, 8), (9, 33), (1, 2)])
def test_pooling_meets_a_strided_convolution_at_every_size(size: tuple[int, int]) -> None:
    frames = torch.rand(1, 2, *size)
    expected = functional.conv2d(frames, torch.zeros(1, 2, 3, 3), stride=2, padding=1).shape[2:]
    pooled = max_pool(frames)
    assert pooled.shape[2:] == expected
    for y in range(pooled.shape[2]):
        for x in range(pooled.shape[3]):
            window = frames[:, :, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3]
            assert torch.equal(pooled[:, :, y, x], window.amax(dim=(2, 3)))


def test_pooling_of_even_sizes_is_caffes() -> None:
    frames = torch.rand(2, 3, 56, 28)
    assert torch.equal(max_pool(frames), functional.max_pool2d(frames, 3, stride=2, ceil_mode=True))


def test_published_sizes_of_the_features() -> None:
    with torch.device("meta"):
        body = EcoBody(full=True, divisor=1).eval()
        frames = torch.zeros(4, 3, 224, 224)
        low = body.low(frames)
        shared = body.shared(low)
        assert (low.shape, shared.shape) == ((4, 320, 28, 28), (4, 96, 28, 28))
        assert body.high(low, shared).shape == (4, 1024, 7, 7)
        volume = shared[None].transpose(1, 2)
        assert body.res3(volume).shape == (1, 128, 4, 28, 28)
        assert body.res5(body.res4(body.res3(volume))).shape == (1, 512, 1, 7, 7)
        lite = EcoBody(full=False, divisor=1).eval()
        assert lite(torch.zeros(1, 3, 16, 224, 224)).shape == (1, 512, 4, 7, 7)


def test_the_3d_blocks_are_written_out() -> None:
    """What is added has not been normalized; batch normalization and ReLU come after each addition."""
    torch.manual_seed(0)
    body = EcoBody(full=False, divisor=4).eval()
    for module in body.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
    seen = torch.randn(1, 24, 4, 6, 6)
    res3, res4 = body.res3, body.res4

    def after(block: nn.Module, total: torch.Tensor) -> torch.Tensor:
        pair = block.pair
        active = block.a_bn(total).relu()
        return pair.b_bn(pair.b_2(pair.b_1_bn(pair.b_1(active)).relu()) + total).relu()

    third = after(res3, res3.a(seen))
    torch.testing.assert_close(res3(seen), third)
    fourth = after(res4, res4.a_2(res4.a_1_bn(res4.a_1(third)).relu()) + res4.a_down(third))
    torch.testing.assert_close(res4(third), fourth)


def test_the_two_streams_beside_a_loop_over_frames() -> None:
    """The 2D network sees each frame separately; the 2D stream is the average of its outputs."""
    torch.manual_seed(0)
    body = EcoBody(full=True, divisor=4).eval()
    volume = torch.randn(2, 3, 4, 40, 36)
    low = [body.low(volume[:, :, t]) for t in range(4)]
    shared = [body.shared(frame) for frame in low]
    in_3d = body.res5(body.res4(body.res3(torch.stack(shared, dim=2)))).mean(dim=(2, 3, 4))
    in_2d = sum(body.high(*pair).mean(dim=(2, 3)) for pair in zip(low, shared, strict=True)) / 4
    features = body(volume)
    assert features.shape == (2, 384, 1, 1, 1)
    torch.testing.assert_close(features.flatten(1), torch.cat([in_3d, in_2d], dim=1), rtol=1e-4, atol=1e-5)


def test_an_image_network_is_the_start_of_both(tmp_path) -> None:
    """In the flat names of the Caffe model, classifier included; missing weights are listed."""
    torch.manual_seed(3)
    network = BnInception()
    flat = {}
    for name, value in network.state_dict().items():
        block, _, rest = name.partition(".")
        flat[f"{block}_{rest}" if block.startswith("inception_") else name] = value
    assert "inception_3a_double_3x3_1_bn.running_mean" in flat
    flat |= {"last_linear.weight": torch.zeros(1000, 1024), "last_linear.bias": torch.zeros(1000)}
    file = tmp_path / "bn_inception.pth"
    torch.save(flat, file)
    for name in ("eco", "eco_lite"):
        config = ModelConfig(name=name, num_classes=2, num_frames=4, weights=str(file))
        model = make(name, num_classes=2, num_frames=4)
        loaded = initialize(model, config)
        assert loaded.describe_missing() == "res3, res4, res5"
        for own in ("conv1_7x7_s2_bn.weight", "inception_3c.double_3x3_1_bn.weight"):
            assert torch.equal(model.backbone.state_dict()[own], network.state_dict()[own])


def test_thin_ones_are_small_and_take_small_clips() -> None:
    for name in ("eco_thin", "eco_lite_thin"):
        model = make(name)
        assert sum(p.numel() for p in model.parameters()) < 3_000_000
        assert model(make_clip(size=64)).shape == (2, 5)


def test_no_weights_are_published() -> None:
    config = ModelConfig(name="eco_lite", num_classes=2, weights="IMAGENET1K_V1")
    with pytest.raises(ConfigError, match=r"'IMAGENET1K_V1'.*'eco_lite'"):
        initialize(make("eco_lite"), config)
