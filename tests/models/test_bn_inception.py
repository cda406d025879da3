"""BN-Inception as a backbone: counts, files in the Caffe model's names, shift and shuffle."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.helpers.peers import giga_multiply_adds, make, make_clip, num_parameters
from vsn.config import ConfigError, ModelConfig
from vsn.models import create_model, initialize
from vsn.models.bn_inception import BnInceptionClassifier
from vsn.models.insertion import mixing_matrix


@pytest.mark.parametrize(
    ("name", "num_classes", "millions"),
    [
        ("tsn_bn_inception", 400, 10.7),  # the VSN paper's Table 2
        ("tsn_bn_inception", 174, 10.45),
        ("mtrn_bn_inception", 400, 13.55),
        ("mtrn_bn_inception", 174, 13.14),
        ("tsm_bn_inception", 400, 10.7),
        ("vsn_bn_inception", 400, 10.7),
    ],
)
def test_parameters(name: str, num_classes: int, millions: float) -> None:
    assert num_parameters(name, num_classes=num_classes, num_frames=8) / 1e6 == pytest.approx(millions, abs=0.025)


@pytest.mark.parametrize("kind", ["tsn", "mtrn"])
def test_multiply_adds_are_those_of_the_paper(kind: str) -> None:
    giga = giga_multiply_adds(f"{kind}_bn_inception", num_classes=400, num_frames=8, size=224)
    assert giga == pytest.approx(16, rel=0.025)


def caffe_named(network: BnInceptionClassifier) -> dict[str, Tensor]:
    flat = {}
    for name, value in network.state_dict().items():
        block, _, rest = name.partition(".")
        flat[f"{block}_{rest}" if block.startswith("inception_") else name.replace("fc.", "last_linear.")] = value
    return flat


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    torch.manual_seed(2)
    return caffe_named(BnInceptionClassifier())


def start(tmp_path: Path, state: dict[str, Tensor], **settings: str) -> tuple[torch.nn.Module, str]:
    file = tmp_path / "weights.pth"
    torch.save(state, file)
    config = ModelConfig(name="tsn_bn_inception", num_classes=3, weights=str(file), **settings)
    model = make("tsn_bn_inception", num_classes=3, **settings)
    return model, initialize(model, config).describe_missing()


def test_a_caffe_file_scores_rgb_as_it_did_bgr_bytes(tmp_path: Path, published: dict[str, Tensor]) -> None:
    model, missing = start(tmp_path, published)
    assert missing == ""
    clip = make_clip(size=40)[:1]
    weight, bias = published["conv1_7x7_s2.weight"], published["conv1_7x7_s2.bias"]
    bgr = clip[0].flip(1).float() - torch.tensor([104.0, 117.0, 128.0]).view(3, 1, 1)
    expected = functional.conv2d(bgr, weight, bias, stride=2, padding=3)
    frames = model.normalized(clip).flatten(0, 1)
    inner = (..., slice(2, -2), slice(2, -2))  # at the border one pads with the file's mean, the other with ImageNet's
    torch.testing.assert_close(model.backbone.conv1_7x7_s2(frames)[inner], expected[inner], rtol=1e-4, atol=1e-2)


def test_weights_in_our_names_stay_as_they_are(tmp_path: Path) -> None:
    network = BnInceptionClassifier()
    model, missing = start(tmp_path, network.state_dict())
    assert missing == ""
    assert torch.equal(model.backbone.conv1_7x7_s2.weight, network.conv1_7x7_s2.weight)


def test_batch_normalization_as_rows_is_read(tmp_path: Path, published: dict[str, Tensor]) -> None:
    rows = {name: value[None] if "_bn." in name and value.ndim == 1 else value for name, value in published.items()}
    model, _ = start(tmp_path, rows)
    assert model.backbone.conv1_7x7_s2_bn.weight.shape == (64,)


def test_a_caffe_file_of_flow_is_refused(tmp_path: Path, published: dict[str, Tensor]) -> None:
    flow = {**published, "conv1_7x7_s2.weight": torch.zeros(64, 10, 7, 7)}
    with pytest.raises(ConfigError, match="10 channels"):
        start(tmp_path, flow, modality="flow")


@pytest.mark.parametrize("block", ["compact", "headtail", "pointwise"])
@pytest.mark.parametrize("stage", ["res3", "res5"])
def test_one_shuffle_block_lets_every_frame_reach_every_other(block: str, stage: str) -> None:
    settings = {"num_classes": 2, "num_frames": 4, "shift": False, "places": (stage,), "block": block}
    model = create_model("vsn_bn_inception", **settings)
    assert mixing_matrix(model.backbone, num_frames=4, size=32).all()


def test_shift_mixes_and_tsn_does_not() -> None:
    tsn, tsm = (create_model(f"{kind}_bn_inception", num_classes=2, num_frames=4) for kind in ("tsn", "tsm"))
    assert torch.equal(mixing_matrix(tsn.backbone, num_frames=4, size=32), torch.eye(4, dtype=torch.bool))
    assert mixing_matrix(tsm.backbone, num_frames=4, size=32)[0, 1]
