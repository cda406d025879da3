"""CPNet: the nearest points of other frames, the network of pairs, counts, and the 2D CNN inside it."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from tests.helpers.peers import giga_multiply_adds, make, make_clip, num_parameters
from vsn.config import ConfigError, ModelConfig
from vsn.models import build_model, initialize
from vsn.models.backbones import build_backbone
from vsn.models.blocks import stage_blocks
from vsn.models.gradcam import grad_cam
from vsn.models.peers.cpnet import PLANS, CorrespondenceProposal, nearest_of_other_frames
from vsn.models.split import split_backbone

THIN = "resnet26_thin"
NAME = f"cpnet_{THIN}"


def proposal(*, halve: bool = False, num_frames: int = 3, name: str = THIN) -> CorrespondenceProposal:
    """A module of 16 channels in double precision whose output is not zero."""
    torch.manual_seed(0)
    module = CorrespondenceProposal(16, num_frames=num_frames, plan=PLANS[name], halve=halve).double().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
            part.running_mean.normal_(0, 0.2)
            part.running_var.uniform_(0.5, 2)
    return module


def frames_of(num_frames: int = 3, *, batch: int = 2, size: tuple[int, int] = (3, 4), seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch * num_frames, 16, *size, dtype=torch.float64, generator=generator)


def awake(num_frames: int = 8, name: str = NAME) -> nn.Module:
    """The network with modules that no longer add zero."""
    model = make(name, num_frames=num_frames)
    for module in model.modules():
        if isinstance(module, CorrespondenceProposal):
            nn.init.normal_(module.bn.weight)
    return model


# Neighbors


@given(num_frames=st.integers(2, 4), count=st.integers(1, 5), neighbors=st.integers(1, 4), seed=st.integers(0, 1000))
def test_neighbors_are_the_nearest_points_of_other_frames(
    num_frames: int, count: int, neighbors: int, seed: int
) -> None:
    neighbors = min(neighbors, (num_frames - 1) * count)
    points = torch.randn(2, num_frames, count, 3, generator=torch.Generator().manual_seed(seed))
    found = nearest_of_other_frames(points, neighbors)
    assert (found.shape, found.dtype) == ((2, num_frames, count, neighbors), torch.int64)
    for b in range(2):
        for t in range(num_frames):
            for i in range(count):
                distances = {
                    u * count + j: float((points[b, t, i] - points[b, u, j]).square().sum())
                    for u in range(num_frames)
                    if u != t
                    for j in range(count)
                }
                expected = sorted(distances, key=lambda number: distances[number])[:neighbors]
                assert sorted(found[b, t, i].tolist()) == sorted(expected)


def test_swapped_frames_have_swapped_neighbors() -> None:
    points = torch.randn(1, 2, 6, 4)
    before, after = nearest_of_other_frames(points, 3), nearest_of_other_frames(points.flip(1), 3)
    numbers = torch.arange(12).view(2, 6).flip(0).flatten()  # the number of a point after the swap
    assert torch.equal(numbers[before].sort(dim=3).values.flip(1), after.sort(dim=3).values)


def test_mixed_precision_finds_the_same_neighbors() -> None:
    """Points far from the origin and near each other: in bfloat16 their distances would all be equal."""
    points = 100 + torch.randn(1, 3, 9, 8)
    expected = nearest_of_other_frames(points, 2).sort(dim=3).values
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nearest_of_other_frames(points, 2).sort(dim=3).values, expected)


def test_more_neighbors_than_points_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 5 points in the 1 other frames .* got 4"):
        nearest_of_other_frames(torch.zeros(1, 2, 4, 3), 5)
    with pytest.raises(ValueError, match=r"at least 4 points in the 1 other .* got 1"):
        make(NAME, num_frames=2)(make_clip(2, size=16))


def test_a_single_frame_is_refused() -> None:
    with pytest.raises(ConfigError, match=f"num_frames is 1; {NAME} .* at least 2"):
        make(NAME, num_frames=1)


# The module


def by_loops(module: CorrespondenceProposal, frames: Tensor) -> Tensor:
    """The output pair by pair, without the reduction of res3."""
    num_frames, neighbors = module.num_frames, module.neighbors
    reduced = module.reduce(frames)
    _, width, h, w = reduced.shape
    result = torch.zeros(len(frames), module.expand.in_channels, h, w, dtype=frames.dtype)
    for clip in range(len(frames) // num_frames):
        own = {
            (t, y, x): reduced[clip * num_frames + t, :, y, x]
            for t in range(num_frames)
            for y in range(h)
            for x in range(w)
        }
        for (t, y, x), point in own.items():
            others = sorted((p for p in own if p[0] != t), key=lambda p: float((own[p] - point).norm()))
            values = []
            for u, v, z in others[:neighbors]:
                offset = torch.tensor([(u - t) / num_frames, (v - y) / h, (z - x) / w], dtype=frames.dtype)
                pair = torch.cat([offset, point, own[u, v, z]])
                values.append(module.pairs(pair[None, :, None, None]).flatten())
            result[clip * num_frames + t, :, y, x] = torch.stack(values).max(dim=0).values
    assert width == frames.shape[1] // (8 if isinstance(module.reduce, nn.Sequential) else 1)
    return module.bn(module.expand(result))


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet34", THIN])
def test_the_module_is_that_of_a_loop_over_pairs(name: str) -> None:
    module, frames = proposal(name=name), frames_of()
    torch.testing.assert_close(module(frames), by_loops(module, frames))


@torch.no_grad()
def test_in_res3_maps_are_halved_and_doubled() -> None:
    halved, frames = proposal(halve=True), frames_of(size=(5, 6))
    plain = proposal()
    plain.reduce = nn.Identity()  # reduced already
    small = functional.interpolate(halved.reduce(frames), (3, 3), mode="bilinear")
    expected = functional.interpolate(plain(small), (5, 6), mode="bilinear")
    torch.testing.assert_close(halved(frames), expected)
    even = torch.randn(3, 16, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(functional.interpolate(even, (2, 3), mode="bilinear"), functional.avg_pool2d(even, 2))


def test_gradients_are_those_of_finite_differences() -> None:
    """Of the features; a step so small that no neighbor changes."""
    module, frames = proposal(), frames_of(batch=1, size=(2, 2)).requires_grad_()
    torch.autograd.gradcheck(lambda x: module(x).sum(dim=(0, 2, 3)), frames, eps=1e-6)


@torch.no_grad()
def test_clips_of_a_batch_do_not_meet() -> None:
    module, frames = proposal(), frames_of()
    torch.testing.assert_close(torch.cat([module(frames[:3]), module(frames[3:])]), module(frames))


# The network


@torch.no_grad()
@pytest.mark.parametrize("backbone", [THIN, "resnet34"])
def test_at_the_start_it_is_the_2d_network(backbone: str) -> None:
    plain, model, clip = make(f"tsn_{backbone}"), make(f"cpnet_{backbone}"), make_clip(size=64)
    missing = model.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing
    assert all(".proposal." in name for name in missing)
    torch.testing.assert_close(model(clip), plain(clip))
    for module in model.modules():
        if isinstance(module, CorrespondenceProposal):
            nn.init.ones_(module.bn.weight)
    assert not torch.allclose(model(clip), plain(clip), rtol=1e-2, atol=1e-2)


def test_blocks_and_counts_are_the_authors() -> None:
    places = {"resnet101": ["2.2", "2.3", "3.20", "3.21", "3.22"], "resnet34": ["2.2", "2.3", "3.3", "3.4", "3.5"]}
    for name, numbers in places.items():
        with torch.device("meta"):
            model = build_model(ModelConfig(name=f"cpnet_{name}", num_classes=400))
        modules = {n: m for n, m in model.backbone.named_modules() if isinstance(m, CorrespondenceProposal)}
        assert list(modules) == [f"layer{number}.proposal" for number in numbers]
        assert [m.halve for m in modules.values()] == [True, True, False, False, False]
        assert {m.neighbors for m in modules.values()} == {4 if name == "resnet101" else 8}
        assert sum(map(len, stage_blocks(model.backbone).values())) == {"resnet101": 33, "resnet34": 16}[name]


def of_module(channels: int, *, deep: bool) -> int:
    """Parameters by hand: convolutions, two values of normalization a channel, one bias."""
    if deep:  # ResNet-101
        c, widths = channels // 8, [channels // 8]
        total = channels * c + 2 * c
    else:
        c, widths, total = channels, [channels // 4, channels // 2], 0
    inputs = 2 * c + 3
    for width in widths:
        total += inputs * width + 2 * width
        inputs = width
    return total + inputs * channels + channels + 2 * channels


@pytest.mark.parametrize(
    ("name", "num_frames", "parameters", "cost"),
    [
        ("resnet101", 8, 43_319_760 + 2 * of_module(512, deep=True) + 3 * of_module(1024, deep=True), 66.1),
        ("resnet101", 32, 44_367_824, 280),
        ("resnet34", 12, 21_489_872 + 2 * of_module(128, deep=False) + 3 * of_module(256, deep=False), None),
    ],
)
def test_counts(name: str, num_frames: int, parameters: int, cost: float | None) -> None:
    """No publication has them; multiply-adds against a count with distances to all points, the frame's own too."""
    assert num_parameters(f"cpnet_{name}", num_classes=400, num_frames=num_frames) == parameters
    if cost is not None:
        counted = giga_multiply_adds(f"cpnet_{name}", num_classes=400, num_frames=num_frames, size=224)
        assert counted == pytest.approx(cost, rel=0.005)


@torch.no_grad()
def test_frames_meet() -> None:
    model, clip = awake(), make_clip(size=64)
    other = clip.clone()
    other[:, 5] = 0
    changed = ~torch.isclose(model.frame_features(clip), model.frame_features(other), atol=1e-4).all(dim=2)
    assert changed.all(dim=0).sum() > 4  # frames other than the fifth have other features
    torch.testing.assert_close(torch.cat([model(clip[:1]), model(clip[1:])]), model(clip), rtol=1e-4, atol=1e-4)
    assert model(torch.zeros(1, 8, 3, 33, 47)).shape == (1, 5)


def test_every_parameter_learns_once_the_modules_are_awake() -> None:
    model = awake().train()
    model(make_clip(size=64)).logsumexp(dim=1).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert [n for n, p in model.named_parameters() if n.endswith("weight") and not p.grad.any()] == []


def test_one_dropout_mask_for_all_frames() -> None:
    model = make(NAME, dropout=0.5)
    model.dropout.train()
    features = torch.ones(1, 8, model.head.in_features)
    nn.init.eye_(model.head.weight)
    assert set(model.scores_of(features).flatten().tolist()) <= {0.0, 2.0}


def test_image_weights_start_all_but_the_modules(tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(THIN)
    save_file(backbone.state_dict(), tmp_path / "flat.safetensors")
    config = ModelConfig(name=NAME, num_classes=5, weights=str(tmp_path / "flat.safetensors"))
    model = build_model(config)
    assert initialize(model, config).describe_missing() == "layer2.1.proposal, layer3.1.proposal"
    assert torch.equal(model.backbone.layer4[1].conv3.weight, backbone.layer4[1].conv3.weight)


def test_maps_and_streams() -> None:
    model = awake()
    assert grad_cam(model, make_clip(size=64), stage="res5").maps.shape == (2, 8, 2, 2)
    assert split_backbone(model.backbone).first_temporal == "layer2.1.proposal"
