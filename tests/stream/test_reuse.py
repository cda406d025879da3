"""A backbone cut before its first temporal module gives what the whole gives."""

import copy

import pytest
import torch
from torch import Tensor, nn

import vsn
from vsn.models.split import CannotSplitError, split_backbone

T = 4
FAMILIES = (
    "tsn_resnet18",
    "tsm_resnet18",
    "vsn_resnet14_tiny",
    "vsn_densenet121",
    "vsn_mobilenet_v2",
    "vsn_efficientnet_b0",
    "tsm_regnet_y_400mf",
    "vsn_convnext_tiny",
)


def backbone_of(name: str, **settings: object) -> nn.Module:
    torch.manual_seed(0)
    model = vsn.create_model(name, num_classes=2, num_frames=settings.pop("num_frames", T), **settings).eval()
    for module in model.modules():  # as after training: normalizations that say something
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
    return model.backbone


@pytest.mark.filterwarnings("ignore:.*each sees a part of the frames.*")
@pytest.mark.parametrize("name", FAMILIES)
def test_parts_are_bit_equal_to_the_whole(name: str):
    backbone = backbone_of(name)
    names, inplace = list(backbone.state_dict()), [getattr(m, "inplace", None) for m in backbone.modules()]
    split = split_backbone(backbone)
    assert list(backbone.state_dict()) == names
    assert [getattr(module, "inplace", None) for module in backbone.modules()] == inplace
    frames = torch.randn(2 * T, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        whole = backbone(frames)
        assert torch.equal(split.clip_part(*split.frame_part(frames)), whole)  # the same batches: the same bits
        parts = [split.frame_part(frame[None]) for frame in frames]
        before = copy.deepcopy(parts)
        joined = split.clip_part(*(torch.cat(values) for values in zip(*parts, strict=True)))
    # Frame by frame a convolution may round otherwise.
    assert torch.allclose(joined, whole, rtol=0, atol=1e-5 * float(whole.abs().max()))
    assert all(torch.equal(a, b) for one, two in zip(parts, before, strict=True) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("settings", "first"),
    [
        ({"places": (), "shift": False}, ""),
        ({}, "layer1.0.conv1"),
        ({"shift": False}, "layer1.1.conv2"),
        ({"shift": False, "places": ("res4", "res5")}, "layer3.1.conv2"),
        ({"shift": False, "places": ("res5",)}, "layer4.1.conv2"),
        ({"shift": False, "places": ("res5",), "block": "headtail"}, "layer4.1.conv1"),
        ({"places": ("res5",), "shift_places": ("res5",)}, "layer4.0.conv1"),
    ],
)
def test_the_split_is_before_the_first_temporal_module(settings: dict[str, object], first: str):
    name = "tsn_resnet26_thin" if settings.get("places") == () else "vsn_resnet26_thin"
    settings = {} if name.startswith("tsn") else settings
    split = split_backbone(backbone_of(name, **settings))
    assert split.first_temporal == first
    temporal = [type(m).__name__ for m in split.frame_part.modules() if hasattr(m, "num_frames")]
    assert not temporal
    # Frames of no other clip reach what is kept of a frame.
    frames = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    split.frame_part(frames)[0][1].sum().backward()
    assert frames.grad is not None
    assert [bool(one.any()) for one in frames.grad] == [False, True, False]


class Overwriting(nn.Module):
    """What the temporal convolution sees is overwritten behind it, by a module and by an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
        self.mixing = nn.Conv2d(8, 8, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, frames: Tensor) -> Tensor:
        first, second = self.conv(frames), self.other(frames)
        mixed = self.mixing(first + 0 * second) + self.mixing(first) + self.mixing(second)
        active = self.relu(first)
        second += 1
        return (mixed + active + second).mean(dim=(2, 3))


def test_later_in_place_writes_do_not_change_kept_features():
    torch.manual_seed(0)
    network = vsn.insert_at(Overwriting().eval(), num_frames=2, shift=["mixing"])
    split = split_backbone(network)
    frames = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(split.clip_part(*split.frame_part(frames)), network(frames))
    assert network.relu.inplace


class Looping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, frames: Tensor) -> Tensor:
        return self.conv(frames).mean(dim=(2, 3)) if frames.sum() > 0 else self.conv(-frames).mean(dim=(2, 3))


class InPlace(Looping):
    def forward(self, frames: Tensor) -> Tensor:
        return self.conv(frames).relu_().mean(dim=(2, 3))


class Mixing(Looping):
    def forward(self, frames: Tensor) -> Tensor:
        found = self.conv(frames).mean(dim=(2, 3))
        return found - 2 * found.roll(1, dims=0)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Looping, "it cannot be traced"),
        (InPlace, r"it writes in place \(relu_\)"),
        (Mixing, "do not give the output of the whole"),
    ],
)
def test_networks_that_cannot_be_split(network: type[Looping], message: str):
    torch.manual_seed(0)
    whole = nn.Sequential(network(), nn.Linear(4, 2)).eval()
    with pytest.raises(CannotSplitError, match=message):
        split_backbone(whole)
