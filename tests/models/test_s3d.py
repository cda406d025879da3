"""S3D: torchvision's network and its weights; S3D-G: gates where the authors have them."""

import pytest
import torch
from torch import nn
from torchvision.models.video import S3D
from torchvision.models.video.s3d import SepInceptionBlock3D

from tests.helpers.peers import giga_multiply_adds, make, make_clip, num_parameters
from vsn.config import ConfigError
from vsn.models.peers.s3d import MIN_FRAMES, FeatureGate, S3dBody, add_gates

# Squares of the outputs of the four branches of each block.
BRANCHES = (
    (64, 128, 32, 32), (128, 192, 96, 64), (192, 208, 48, 64), (160, 224, 64, 64), (128, 256, 64, 64),
    (112, 288, 64, 64), (256, 320, 128, 128), (256, 320, 128, 128), (384, 384, 128, 128),
)  # fmt: skip
TORCHVISION = 8_320_048
"""Stated with its weights, of 400 classes."""


def test_parameters_are_torchvisions_and_the_gates() -> None:
    gates = 192**2 + sum(width**2 for block in BRANCHES for width in block)
    assert num_parameters("s3d", num_classes=400, num_frames=16) == TORCHVISION
    assert num_parameters("s3dg", num_classes=400, num_frames=16) == TORCHVISION + gates == 9_539_376


def test_counts_of_the_paper_are_others() -> None:
    """The header says so: 8.77M and 11.56M; 66.4G and 71.4G for 64 frames. S3D-G's cost agrees, the rest not."""
    assert pytest.approx(0.949, abs=1e-3) == TORCHVISION / 8.77e6
    assert num_parameters("s3dg", num_classes=400, num_frames=64) / 11.56e6 == pytest.approx(0.825, abs=1e-3)
    costs = {"num_classes": 400, "num_frames": 64, "size": 224}
    assert giga_multiply_adds("s3d", **costs) == pytest.approx(71.914, rel=1e-3)
    assert giga_multiply_adds("s3dg", **costs) == pytest.approx(71.38, rel=0.02)


def test_multiply_adds_are_those_torchvision_states() -> None:
    assert giga_multiply_adds("s3d", num_classes=400, num_frames=16, size=224) == pytest.approx(17.979, rel=1e-3)


def test_torchvisions_network_says_the_same_of_sixteen_frames() -> None:
    torch.manual_seed(0)
    theirs = S3D(num_classes=5).eval()
    model = make("s3d", num_frames=16)
    model.backbone.load_state_dict(
        {name: value for name, value in theirs.state_dict().items() if name.startswith("features.")}
    )
    model.head.weight.data = theirs.classifier[1].weight.data.flatten(1)
    model.head.bias.data = theirs.classifier[1].bias.data
    clip = make_clip(16, batch=1, size=224)
    volume = model.normalized(clip).transpose(1, 2)
    with torch.inference_mode():
        torch.testing.assert_close(model(clip), theirs(volume), rtol=1e-4, atol=1e-5)


def test_a_gate_is_a_share_of_each_channel_by_the_averages_of_all() -> None:
    torch.manual_seed(0)
    gate, volume = FeatureGate(4), torch.randn(2, 4, 3, 5, 2)
    nn.init.normal_(gate.linear.weight)
    expected = torch.empty_like(volume)
    for b in range(2):
        averages = [volume[b, c].sum() / 30 for c in range(4)]
        for c in range(4):
            score = sum(gate.linear.weight[c, i] * averages[i] for i in range(4))
            expected[b, c] = volume[b, c] / (1 + torch.exp(-score))
    torch.testing.assert_close(gate(volume), expected)


def test_gates_close_the_stem_and_every_branch_and_names_stay() -> None:
    body = S3dBody()
    before = set(body.state_dict())
    add_gates(body.features)
    after = set(body.state_dict())
    assert before < after
    assert len(after - before) == 1 + 4 * 9
    assert isinstance(body.features[3][-1], FeatureGate)
    blocks = [block for block in body.features if isinstance(block, SepInceptionBlock3D)]
    for block, widths in zip(blocks, BRANCHES, strict=True):
        for branch, width in zip(block.children(), widths, strict=True):
            assert isinstance(branch[-1], FeatureGate)
            assert branch[-1].linear.in_features == width


def test_the_stems_gradient_is_right_from_the_fewest_frames_on() -> None:
    """PyTorch's is wrong for five to seven frames on a CPU; compared with an einsum in double precision."""
    body = S3dBody().train()
    stem, frames = body.features[0][1][0], torch.randn(1, 64, MIN_FRAMES, 8, 8)
    assert stem.kernel_size == (7, 1, 1)
    stem(frames).square().sum().backward()
    expected = torch.zeros_like(stem.weight)
    output = stem(frames).detach()
    padded = nn.functional.pad(frames, (0, 0, 0, 0, 3, 3))
    for step in range(7):
        seen = padded[:, :, step : step + 2 * output.shape[2] - 1 : 2]
        expected[:, :, step, 0, 0] = torch.einsum("bothw,bithw->oi", 2 * output, seen)
    torch.testing.assert_close(stem.weight.grad, expected, rtol=1e-3, atol=1e-2)


def test_a_short_training_is_enough_for_the_statistics_of_testing():
    """After fifty batches nothing is left of what they began with."""
    body = make("s3dg", num_frames=8).backbone.train()  # S3D's, with gates
    norms = [module for module in body.modules() if isinstance(module, nn.BatchNorm3d)]
    for module in norms:
        module.running_mean.fill_(1e6)
    volume = torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for _ in range(50):
            body(volume)
    assert len(norms) > 70
    assert all(module.running_mean.abs().max() < 1e4 for module in norms)


@pytest.mark.parametrize("name", ["s3d", "s3dg"])
def test_eight_frames_are_the_fewest(name: str) -> None:
    assert make(name, num_frames=8)(make_clip(8)).shape == (2, 5)
    with pytest.raises(ConfigError, match=f"num_frames is 7; {name} .* at least 8"):
        make(name, num_frames=7)
