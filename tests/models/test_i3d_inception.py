"""I3D on Inception-V1: counts, TensorFlow's padding, weights of GoogLeNet and of the port of the released ones."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import GoogLeNet

from tests.helpers.peers import giga_multiply_adds, make, make_clip, num_parameters
from vsn.config import ConfigError, ModelConfig
from vsn.models import build_model, initialize
from vsn.models.peers.i3d_inception import BLOCKS, InceptionI3d, SamePool, Unit, pad_same
from vsn.models.weights import inflate

NAME = "i3d_inception_thin"


def googlenet(**settings: bool) -> GoogLeNet:
    """torchvision's network with random weights, and statistics of its own, so that a wrong sum shows."""
    torch.manual_seed(0)
    network = GoogLeNet(init_weights=False, **settings).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    return network


# Counts


def by_hand(inputs: int = 3) -> int:
    """Parameters without the classifier: kernels without biases, and two values of normalization per channel."""
    total, channels = 343 * inputs * 64 + 64 * 64 + 27 * 64 * 192 + 2 * (64 + 64 + 192), 192
    for one, reduce_a, three_a, reduce_b, three_b, pool in BLOCKS.values():
        total += channels * (one + reduce_a + reduce_b + pool) + 27 * (reduce_a * three_a + reduce_b * three_b)
        total += 2 * (one + reduce_a + three_a + reduce_b + three_b + pool)
        channels = one + three_a + three_b + pool
    return total


def test_parameters_are_those_counted_by_hand() -> None:
    counted = num_parameters("i3d_inception", num_classes=400, num_frames=64)
    assert counted == by_hand() + 1024 * 400 + 400 == 12_697_264
    assert counted == pytest.approx(12e6, rel=0.06)  # the paper rounds
    with torch.device("meta"):
        flow = ModelConfig(name="i3d_inception", num_classes=400, modality="flow", flow_length=1)
        model = build_model(flow)
    assert sum(p.numel() for p in model.parameters()) == by_hand(inputs=2) + 1024 * 400 + 400


def test_multiply_adds_are_those_published() -> None:
    """108G for 64 frames, quoted by later papers."""
    assert giga_multiply_adds("i3d_inception", num_classes=400, num_frames=64, size=224) == pytest.approx(108, rel=0.03)


# Padding


@pytest.mark.parametrize("length", range(1, 17))
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 2), (2, 2), (1, 1)])
def test_padding_is_tensorflows_where_the_stride_divides_the_size(length: int, kernel: int, stride: int) -> None:
    """TensorFlow: (ceil(n / s) - 1) s + k - n zeros in all, half of them, rounded down, at the start."""
    outputs = (length + stride - 1) // stride
    total = max(0, (outputs - 1) * stride + kernel - length)
    padded = pad_same(torch.ones(1, 1, length, 1, 1), (kernel, 1, 1), (stride, 1, 1)).flatten()
    assert (len(padded) - kernel) // stride + 1 == outputs
    if length % stride == 0:
        seen = padded[: (outputs - 1) * stride + kernel]
        assert seen.tolist() == [0.0] * (total // 2) + [1.0] * length + [0.0] * (total - total // 2)


@pytest.mark.parametrize("num_frames", [1, 2, 5, 6, 7, 8])
def test_any_number_of_frames_has_the_stems_right_gradient(num_frames: int) -> None:
    """PyTorch's was wrong for five to seven frames of a padded kernel of 7 and stride 2; padding apart avoids it."""
    torch.manual_seed(0)
    unit, volume = Unit(3, 8, 7, stride=2).train(), torch.randn(2, 3, num_frames, 12, 12)
    exact = Unit(3, 8, 7, stride=2).double().train()
    exact.load_state_dict(unit.state_dict())
    for network, inputs in ((unit, volume), (exact, volume.double())):
        network(inputs).square().sum().backward()
    torch.testing.assert_close(unit.conv.weight.grad.double(), exact.conv.weight.grad, rtol=1e-3, atol=1e-3)
    assert make(NAME, num_frames=num_frames)(make_clip(num_frames, size=33)).shape == (2, 5)


def test_pooling_rounds_up() -> None:
    """As torchvision's GoogLeNet pools."""
    pool = SamePool((1, 1, 3), (1, 1, 2))
    assert pool(torch.arange(5.0).view(1, 1, 1, 1, 5)).flatten().tolist() == [2.0, 4.0, 4.0]
    assert pool(torch.arange(4.0).view(1, 1, 1, 1, 4)).flatten().tolist() == [2.0, 3.0]


# Weights


@torch.no_grad()
def test_a_still_clip_is_seen_as_googlenet_sees_its_frame() -> None:
    """Away from the ends in time, where a kernel sees zeros; torchvision's stem is shifted by a pixel, hence the padding."""
    network = googlenet(aux_logits=False)
    network.fc = nn.Identity()
    network.conv1.conv.padding = (0, 0)
    body = InceptionI3d().eval()
    body.load_state_dict(
        inflate(body, {n: v for n, v in network.state_dict().items() if not n.startswith("fc.")}), strict=True
    )
    frame = torch.rand(1, 3, 32, 32)
    features = body(frame[:, :, None].expand(-1, -1, 128, -1, -1)).mean(dim=(3, 4))
    assert features.shape == (1, 1024, 15)
    torch.testing.assert_close(features[:, :, 7], network(functional.pad(frame, (2, 4, 2, 4))), rtol=1e-4, atol=1e-4)


def test_the_first_and_the_last_step_count_half() -> None:
    """The authors average windows of two steps; the steps are those before the last line of `forward`."""
    body = InceptionI3d(divisor=4).eval()
    steps: list[Tensor] = []
    body.inception5b.register_forward_hook(lambda module, inputs, output: steps.append(output))
    with torch.no_grad():
        averages = body(torch.randn(1, 3, 32, 32, 32)).mean(dim=(2, 3, 4))
    weights = torch.tensor([0.5, 1, 1, 0.5]) / 3
    expected = (steps[0].mean(dim=(3, 4)) * weights).sum(dim=2)
    torch.testing.assert_close(averages, expected)


def test_weights_of_googlenet_start_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import GoogLeNet_Weights

    theirs = googlenet(aux_logits=True).state_dict()
    monkeypatch.setattr(GoogLeNet_Weights.IMAGENET1K_V1.__class__, "get_state_dict", lambda *a, **k: theirs)
    config = ModelConfig(name="i3d_inception", num_classes=5, weights="IMAGENET1K_V1")
    model = build_model(config)
    assert not initialize(model, config).missing
    stem = theirs["conv1.conv.weight"]
    torch.testing.assert_close(model.backbone.conv1.conv.weight.sum(dim=2), stem)
    # GoogLeNet's pixels are in [-1, 1].
    assert model.normalize(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1, 1).expand(1, 2, 3, 1, 1)).unique().tolist() == [
        -1,
        1,
    ]
    with pytest.raises(ConfigError, match="for googlenet torchvision has IMAGENET1K_V1"):
        initialize(model, ModelConfig(name="i3d_inception", num_classes=5, weights="KINETICS400_V1"))
    with pytest.raises(ConfigError, match="'i3d_inception_thin' has no published weights"):
        initialize(make(NAME), ModelConfig(name=NAME, num_classes=5, weights="IMAGENET1K_V1"))


def port_name(name: str) -> str:
    """``inception3a.branch2.0.conv.weight``: ``Mixed_3b.b1a.conv3d.weight``, as the port of the released weights."""
    block, *parts, layer, value = name.split(".")
    layer = {"conv": "conv3d"}.get(layer, layer)
    if block.startswith("conv"):
        stem = {"conv1": "Conv3d_1a_7x7", "conv2": "Conv3d_2b_1x1", "conv3": "Conv3d_2c_3x3"}[block]
        return f"{stem}.{layer}.{value}"
    branch = {
        ("branch1",): "b0", ("branch2", "0"): "b1a", ("branch2", "1"): "b1b",
        ("branch3", "0"): "b2a", ("branch3", "1"): "b2b", ("branch4", "1"): "b3b",
    }[tuple(parts)]  # fmt: skip
    return f"Mixed_{block[9]}{'bcdef'['abcde'.index(block[10])]}.{branch}.{layer}.{value}"


def test_weights_with_the_names_of_the_port_are_loaded(tmp_path: Path) -> None:
    source = make(NAME)
    state = {port_name(name): value for name, value in source.backbone.state_dict().items()}
    assert "Mixed_4f.b2b.bn.running_var" in state
    state |= {"logits.conv3d.weight": torch.zeros(400, 256, 1, 1, 1), "logits.conv3d.bias": torch.zeros(400)}
    torch.save(state, tmp_path / "port.pt")
    config = ModelConfig(name=NAME, num_classes=5, weights=str(tmp_path / "port.pt"))
    model = build_model(config)
    assert not initialize(model, config).missing
    for name, value in source.backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value)


@pytest.mark.parametrize("name", ["Mixed_3b.b3a.conv3d.weight", "Conv3d_9z_1x1.conv3d.weight", "Mixed_7b.b0.bn.bias"])
def test_weights_of_another_inception_are_refused(name: str, tmp_path: Path) -> None:
    save_file({name: torch.zeros(2)}, tmp_path / "other.safetensors")
    config = ModelConfig(name=NAME, num_classes=5, weights=str(tmp_path / "other.safetensors"))
    with pytest.raises(ConfigError, match=name.split(".")[0].replace("Mixed_7b", "inception7a|Mixed_7b")):
        initialize(make(NAME), config)


def test_a_branch_is_the_published_one() -> None:
    """The second branch of a block against its definition."""
    torch.manual_seed(0)
    block = InceptionI3d(divisor=4).eval().inception3a
    volume = torch.rand(1, 48, 2, 4, 4)
    hidden = functional.conv3d(volume, block.branch2[0].conv.weight)
    hidden = torch.relu(hidden / (1 + 1e-3) ** 0.5)
    expected = functional.conv3d(hidden, block.branch2[1].conv.weight, padding=1)
    torch.testing.assert_close(block(volume)[:, 16:48], torch.relu(expected / (1 + 1e-3) ** 0.5))
