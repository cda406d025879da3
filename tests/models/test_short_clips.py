"""Convolutions of few steps in time: outputs and gradients are those of double precision, in every network."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.helpers.peers import make, make_clip
from vsn.models.short_clips import ShortClipConv3d, conv3d_short, guard_short_clips

# Where PyTorch's gradient of the weights was wrong on a processor with bfloat16: two steps and three, three and five, ...
CASES = [
    ((3, 1, 1), 2), ((3, 3, 3), 2), ((3, 1, 3), 2), ((3, 3, 1), 2), ((5, 1, 1), 2), ((5, 1, 1), 4), ((3, 3, 3), 1),
    ((3, 3, 3), 4),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("kernel", "num_frames"), CASES)
def test_gradients_are_those_of_double_precision(
    kernel: tuple[int, int, int], num_frames: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    volume = torch.randn(2, 16, num_frames, 6, 6, generator=generator).to(dtype)
    weight = torch.randn(16, 16, *kernel, generator=generator).to(dtype)
    padding = tuple(size // 2 for size in kernel)
    results = []
    for precision in (dtype, torch.float64):
        inputs, weights = volume.to(precision, copy=True), weight.to(precision, copy=True)
        inputs.requires_grad_()
        weights.requires_grad_()
        convolve = conv3d_short if precision == dtype else functional.conv3d
        output = convolve(inputs, weights, stride=(1, 1, 1), padding=padding)
        output.backward(torch.ones_like(output))
        results.append((output.detach(), inputs.grad, weights.grad))
    for ours, exact in zip(*results, strict=True):
        assert (ours.double() - exact).abs().max() < (0.02 if dtype == torch.bfloat16 else 1e-5) * exact.abs().max()


@pytest.mark.parametrize(
    "name", ["i3d_resnet26_thin", "cost_resnet26_thin", "eco_lite_thin", "r2plus1d_34_thin", "i3d_inception_thin"]
)
def test_networks_train_in_bfloat16_on_few_frames(name: str) -> None:
    """Against their own gradients in float32; before, some were NaN or 1e30."""
    gradients = []
    for mixed in (False, True):
        model = make(name, num_frames=4).train()
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            model(make_clip(4, size=48)).logsumexp(dim=1).sum().backward()
        gradients.append({n: p.grad.norm().item() for n, p in model.named_parameters() if p.ndim == 5})
    exact, mixed_norms = gradients
    largest = max(exact.values())
    assert all(norm < 10 * largest for norm in mixed_norms.values())


def test_conversion_keeps_names_and_outputs() -> None:
    body = nn.Sequential(nn.Conv3d(3, 4, (3, 1, 1), padding=(1, 0, 0)), nn.Conv3d(4, 4, (1, 3, 3), padding=(0, 1, 1)))
    names, volume = list(body.state_dict()), torch.randn(1, 3, 2, 5, 5)
    expected = body(volume)
    guard_short_clips(body)
    assert [type(module) for module in body] == [ShortClipConv3d, nn.Conv3d]
    assert list(body.state_dict()) == names
    torch.testing.assert_close(body(volume), expected)
