"""The whole model: layouts, sizes, costs, and what TSN, TSM and VSN share."""

import copy
import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision.models as tv
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vsn.config import ConfigError, ModelConfig
from vsn.models import build_model, create_model
from vsn.models.classifier import FrameClassifier, VideoClassifier

THIN = "resnet26_thin"


def make(name: str = f"vsn_{THIN}", num_frames: int = 4, **settings: object) -> FrameClassifier:
    """A small model whose head says something: its start of nearly zero would hide differences."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, num_frames=num_frames, **settings).eval()  # type: ignore[arg-type]
    nn.init.normal_(model.head.weight)
    return model


def make_clip(num_frames: int = 4, batch: int = 2, size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, num_frames, 3, size, size), dtype=torch.uint8, generator=generator)


# Costs, of the paper


def on_meta(name: str, *, num_classes: int) -> FrameClassifier:
    with torch.device("meta"):
        return create_model(name, num_classes=num_classes, num_frames=8).eval()


def multiply_adds(model: nn.Module, num_frames: int = 8) -> int:
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, num_frames, 3, 224, 224, device="meta"))
    return counter.get_total_flops() // 2


# torchvision's backbone without its 1000-class layer, and the new layer.
R50 = 25_557_032 - (2048 * 1000 + 1000)
R101 = 44_549_160 - (2048 * 1000 + 1000)


@pytest.mark.parametrize(
    ("backbone", "num_classes", "num_parameters", "paper_gmacs"),
    [
        ("resnet50", 400, R50 + 2048 * 400 + 400, 33),
        ("resnet101", 174, R101 + 2048 * 174 + 174, 63),
    ],
)
def test_a_vsn_costs_what_the_paper_says_and_exactly_what_a_tsn_does(
    backbone: str, num_classes: int, num_parameters: int, paper_gmacs: float
) -> None:
    costs = set()
    for prefix in ("tsn", "tsm", "vsn"):
        model = on_meta(f"{prefix}_{backbone}", num_classes=num_classes)
        costs.add((sum(p.numel() for p in model.parameters()), multiply_adds(model)))
    ((parameters, macs),) = costs
    assert parameters == num_parameters
    assert macs / 1e9 == pytest.approx(paper_gmacs, rel=0.01)


def test_the_quoted_parameter_counts() -> None:
    assert R50 + 2048 * 400 + 400 == 24_327_632
    assert R101 + 2048 * 174 + 174 == 42_856_686


# Equalities


def test_a_vsn_of_one_frame_is_the_plain_resnet_bit_for_bit() -> None:
    torch.manual_seed(0)
    resnet = tv.resnet18(num_classes=5).eval()
    model = make("vsn_resnet18", num_frames=1)
    model.backbone.load_state_dict(resnet.state_dict(), strict=False)
    model.head.load_state_dict(resnet.fc.state_dict())
    clip = make_clip(num_frames=1)
    normalized = (clip[:, 0].float() / 255 - model.mean) / model.std
    assert torch.equal(model(clip), resnet(normalized))


@pytest.mark.parametrize("prefix", ["tsn", "tsm", "vsn"])
def test_bytes_and_shares_give_the_same_logits(prefix: str) -> None:
    model, clip = make(f"{prefix}_{THIN}"), make_clip()
    logits = model(clip)
    assert logits.shape == (2, 5)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, model(clip.float() / 255))


def test_pixels_are_normalized_as_imagenet_was() -> None:
    model = make()
    model.backbone = nn.Flatten()
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    clip = make_clip(size=8)
    expected = ((clip.float() / 255 - mean) / std).flatten(2)
    torch.testing.assert_close(model.frame_features(clip), expected)


def test_consensus_is_the_mean_of_the_frames() -> None:
    model, clip = make(), make_clip()
    expected = model.head(model.frame_features(clip)).mean(dim=1)
    assert model.frame_features(clip).shape == (2, 4, 512)
    torch.testing.assert_close(model(clip), expected)


@pytest.mark.parametrize("prefix", ["tsn", "tsm", "vsn"])
def test_clips_of_a_batch_are_independent(prefix: str) -> None:
    model, clip = make(f"{prefix}_{THIN}"), make_clip(batch=3)
    apart = torch.cat([model(clip[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model(clip), apart, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prefix", ["tsn", "tsm", "vsn"])
def test_order_matters_to_temporal_models_alone(prefix: str) -> None:
    model, clip = make(f"{prefix}_{THIN}"), make_clip()
    same = torch.allclose(model(clip), model(clip.flip(1)), rtol=1e-4, atol=1e-4)
    assert same == (prefix == "tsn")


def test_a_tsn_takes_any_number_of_frames() -> None:
    model = make(f"tsn_{THIN}")
    for num_frames in (1, 3, 7):
        assert model(make_clip(num_frames)).shape == (2, 5)


@pytest.mark.parametrize("size", [(33, 47), (64, 32)])
def test_any_height_and_width(size: tuple[int, int]) -> None:
    assert make()(torch.zeros(1, 4, 3, *size, dtype=torch.uint8)).shape == (1, 5)


def test_channels_last_gives_the_same_logits() -> None:
    model, clip = make(), make_clip()
    expected = model(clip)
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(clip), expected, rtol=1e-4, atol=1e-4)


# State


def test_the_state_dict_holds_the_backbones_names_and_no_constants() -> None:
    names = set(make("vsn_resnet18").state_dict())
    expected = {f"backbone.{name}" for name in tv.resnet18().state_dict() if not name.startswith("fc.")}
    assert names == expected | {"head.weight", "head.bias"}


def test_the_head_starts_small_and_dropout_is_as_set() -> None:
    model = create_model(f"vsn_{THIN}", num_classes=50, dropout=0.8)
    assert model.dropout.p == 0.8
    assert model.head.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert not model.head.bias.any()


def test_a_model_is_copied_and_pickled() -> None:
    model, clip = make(), make_clip()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(clip), model(clip))


def test_settings_reach_the_network() -> None:
    model = make(places=("res5",), shift_places=("res4",), shift_div=4, block="headtail")
    text = repr(model)
    assert text.count("unshuffle=False") == text.count("ShuffleBatchNorm2d") == 1
    assert text.count("shift_div=4") == 2
    tsm = repr(make(f"tsm_{THIN}", shift_every=2))
    assert tsm.count("ShiftConv2d") == 4
    assert "Shuffle" not in tsm


# Refusals


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (torch.zeros(4, 3, 32, 32), r"\(B, T, 3, H, W\).*\(4, 3, 32, 32\).*clip\[None\]"),
        (torch.zeros(2, 3, 4, 32, 32), r"\(2, 3, 4, 32, 32\)"),
        (torch.zeros(2, 4, 32, 32, 3), r"\(2, 4, 32, 32, 3\)"),
        (torch.zeros(2, 4, 3, 32, 32, dtype=torch.int64), r"uint8 or float.*torch\.int64"),
        (torch.zeros(2, 8, 3, 32, 32), "T=4 .*got 8"),
    ],
)  # fmt: skip
def test_what_is_no_clip_of_this_model_is_refused(clip: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()(clip)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"name": "resnet50"},
            "model.name is 'resnet50'.*vsn_resnet50",
        ),
        ({"name": "vsn_resnet51"}, "No backbone 'resnet51'"),
        ({"num_classes": 0}, "model.num_classes is 0; a model needs at least one class"),
        ({"places": ("layer4",)}, r"model\.places is \['layer4'\]"),
        ({"places": (), "shift": False}, "without shuffle and shift is a TSN"),
        ({"name": "vsn_resnext50_32x4d", "num_frames": 8}, "32 groups: with num_frames = 8"),
        ({"weights": "nowhere.safetensors"}, "model.weights.*'nowhere.safetensors'"),
    ],
)
def test_impossible_models_are_refused(settings: dict, message: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        create_model(**{"name": f"vsn_{THIN}", "num_classes": 5, **settings})


def test_a_config_without_classes_builds_no_model() -> None:
    with pytest.raises(ConfigError, match="num_classes is 0"):
        build_model(ModelConfig(name=f"vsn_{THIN}"))


def tiny(name: str = "vsn_resnet14_tiny", **settings) -> VideoClassifier:
    return create_model(name, num_classes=3, num_frames=4, **settings).eval()


@pytest.mark.parametrize("name", ["tsn_resnet14_tiny", "vsn_resnet14_tiny", "eco_lite", "trn_resnet14_tiny"])
@pytest.mark.parametrize(
    ("change", "values"),
    [
        (lambda clip: clip * 255, "from 0.* to 25"), (lambda clip: (clip - 0.45) / 0.225, "from -2 to 2"),
        (lambda clip: clip.log(), "from -inf to"), (lambda clip: clip.where(clip < 0.9, math.nan), "from nan to nan"),
        (lambda clip: clip + 0.01, "from 0.01 to 1.01"),
    ],
)  # fmt: skip
def test_float_clips_outside_the_range_are_refused(name: str, change: Callable[[Tensor], Tensor], values: str):
    model, clip = tiny(name), torch.linspace(0, 1, 2 * 4 * 3 * 64 * 64).view(2, 4, 3, 64, 64)
    with pytest.raises(ValueError, match=rf"float clip in \[0, 1\], got values {values}"):
        model(change(clip))
    model.train()
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        model(change(clip))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_float_clips_of_any_precision(dtype: torch.dtype):
    model, clip = tiny(), torch.randint(0, 256, (1, 4, 3, 32, 32), dtype=torch.uint8)
    expected = model(clip)
    for one in (clip.to(dtype) / 255, clip.to(dtype) / 255 + torch.tensor(1e-6, dtype=dtype)):
        torch.testing.assert_close(model(one), expected, atol=3e-2, rtol=0)


def test_the_range_is_not_read_in_a_graph():
    """A compiled graph that waits for values would be cut in two; an exported one cannot raise."""
    model = tiny()
    program = torch.export.export(model, (torch.rand(1, 4, 3, 32, 32),))
    torch.compile(model, fullgraph=True, backend="eager")(torch.rand(1, 4, 3, 32, 32))
    assert not [node for node in program.graph.nodes if "aminmax" in str(node.target)]


@pytest.mark.parametrize("clip", [np.zeros((1, 4, 3, 32, 32), np.uint8), [[1]], None, "clip.mp4"])
def test_a_clip_is_a_tensor(clip: object):
    with pytest.raises(TypeError, match=rf"tensor, got {type(clip).__name__}"):
        tiny()(clip)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 2.5}, r"model\.num_classes is 2\.5, of type float; it must be a whole number"),
        ({"num_classes": "3"}, r"model\.num_classes is '3', of type str"),
        ({"num_classes": True}, "of type bool"), ({"num_classes": None}, "of type NoneType"),
        ({"num_frames": 8.0}, r"model\.num_frames is 8\.0"), ({"dropout": "0.5"}, r"model\.dropout is '0\.5'.*a number"),
        ({"name": 3}, r"model\.name is 3, of type int"),
    ],
)  # fmt: skip
def test_settings_of_another_type(settings: dict, message: str):
    with pytest.raises(TypeError, match=message):
        create_model(**({"name": "tsn_resnet14_tiny", "num_classes": 3} | settings))


def test_whole_numbers_of_numpy_are_numbers():
    model = create_model("tsn_resnet14_tiny", num_classes=np.int64(3), num_frames=np.int32(4), dropout=np.float32(0.25))
    assert model.head.out_features == 3
