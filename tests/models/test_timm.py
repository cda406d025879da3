"""timm backbones: every accepted family mixes frames, everything else is refused with a reason."""

import sys
import warnings

import pytest
import torch
from torch import Tensor, nn

from vsn.config import STAGES, ConfigError, ModelConfig
from vsn.models import build_model, create_model, initialize
from vsn.models.backbones import build_backbone, remove_classifier
from vsn.models.blocks import TIMM_EXAMPLES, residual_blocks
from vsn.models.insertion import insert_temporal, mixing_matrix
from vsn.models.layers import ShiftConv2d, ShuffleConv2d
from vsn.models.measure import count_multiply_adds, count_parameters

timm = pytest.importorskip("timm")
pytestmark = pytest.mark.needs("timm")

# Groups of RegNet see a part of the frames each: only together its four blocks mix all.
GROUPED = {"regnetx_002", "regnety_002"}


def built(name: str, device: str = "meta") -> nn.Module:
    torch.manual_seed(0)
    with torch.device(device):
        backbone = build_backbone(f"timm/{name}")
    remove_classifier(backbone)
    return backbone


def insert(name: str, backbone: nn.Module, num_frames: int) -> None:
    if name in GROUPED:
        with pytest.warns(UserWarning, match=r"groups; with num_frames = 4 each sees a part of the frames"):
            insert_temporal(backbone, num_frames=num_frames, shift=False)
    else:
        insert_temporal(backbone, num_frames=num_frames, shift=False)


@pytest.mark.parametrize("name", TIMM_EXAMPLES)
def test_every_family_mixes_all_frames_and_keeps_its_weights(name: str) -> None:
    backbone = built(name, "cpu")
    before = backbone.state_dict(keep_vars=True)
    insert(name, backbone, num_frames=4)
    after = backbone.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[key] is before[key] for key in before)
    assert sum(isinstance(module, ShuffleConv2d) for module in backbone.modules()) == 4
    if name in GROUPED:
        assert mixing_matrix(backbone, num_frames=4, size=32).all()
    else:
        assert_each_block_mixes_all_frames(backbone)


@torch.no_grad()
def assert_each_block_mixes_all_frames(backbone: nn.Module) -> None:
    """With three of the four shuffle pairs turned off, each output frame depends on each input frame.

    Faster than `mixing_matrix`: single precision, and one pass over a clip and its four copies with one frame changed.
    """
    pairs = [module for module in backbone.modules() if isinstance(module, ShuffleConv2d)]
    for parameter in backbone.parameters():
        if not parameter.any():
            nn.init.ones_(parameter)
    clips = torch.rand(1, 4, 3, 32, 32).repeat(5, 1, 1, 1, 1)
    for s in range(4):
        clips[1 + s, s] = torch.rand(3, 32, 32)
    backbone.eval()
    for one in pairs:
        for pair in pairs:
            pair.num_frames = 4 if pair is one else 1
        original, *changed = backbone(clips.flatten(0, 1)).unflatten(0, (5, 4))
        assert all((features - original).abs().amax(dim=1).gt(0).all() for features in changed)


@pytest.mark.parametrize("name", TIMM_EXAMPLES)
def test_every_family_shifts_in_its_other_blocks(name: str) -> None:
    backbone = built(name)
    blocks = residual_blocks(backbone)
    assert list(blocks) == list(STAGES)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*each sees a part of the frames")
        insert_temporal(backbone, num_frames=4)
    num_shifts = sum(isinstance(module, ShiftConv2d) for module in backbone.modules())
    assert num_shifts == sum(len(stage) for stage in blocks.values()) - 4
    frames = torch.empty(4, 3, 64, 64, device="meta")
    assert backbone(frames).shape[0] == 4


def test_headtail_where_the_branch_ends_in_a_plain_normalization() -> None:
    backbone = built("test_resnet", "cpu")
    insert_temporal(backbone, num_frames=4, block="headtail", shift=False)
    assert mixing_matrix(backbone, num_frames=4, size=32).all()
    with pytest.raises(ConfigError, match="BatchNormAct2d; only a plain BatchNorm2d"):
        insert_temporal(built("cs3darknet_s"), num_frames=4, block="headtail")


def test_a_fifth_stage_before_the_others_counts_to_the_first() -> None:
    blocks = residual_blocks(built("darknet53"))
    assert [len(blocks[stage]) for stage in STAGES] == [1 + 2, 8, 8, 4]
    assert blocks["res2"][0].name == "stages.0.blocks.0"
    assert blocks["res2"][-1].name == "stages.1.blocks.1"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rexnet_100", "RexNet .* are depthwise"),
        ("ghostnet_100", "convolutions are depthwise.*mixes nothing"),
        ("vit_tiny_patch16_224", "VisionTransformer .*no 3x3 convolutions"),
        ("hrnet_w18_small", "blocks are not known"),
        ("repvgg_a0", "blocks are not known"),
        ("skresnet18", "blocks are not known"),
        ("ese_vovnet19b_dw", r"stages\.\d\.blocks\.0 is a variant without conv_mid\.0\.conv"),
        ("botnet50ts_256", r"stages\.\d\.\d, next to its block stages\.\d\.\d, is a SelfAttnBlock"),
        ("botnet26t_256", "blocks are not known"),
        ("gernet_s", r"stages\.3\.1\.conv2_kxk\.conv has \d+ groups: .* mixes nothing"),
        ("resnext26ts", r"stages\.2\.1\.conv2_kxk\.conv has 8 groups: .* mixes nothing"),
        ("resnext50_32x4d", r"layer1\.2\.conv2 has 32 groups: .* mixes nothing"),
        ("resnetv2_50x1_bit", "is a StdConv2d; only a plain Conv2d can become temporal"),
    ],
)  # fmt: skip
def test_what_would_not_mix_is_refused(name: str, message: str) -> None:
    backbone = built(name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*each sees a part of the frames")
        with pytest.raises(ConfigError, match=message):
            insert_temporal(backbone, num_frames=8)
    assert not any(isinstance(module, ShuffleConv2d | ShiftConv2d) for module in backbone.modules())


def test_a_network_whose_last_stage_has_other_blocks_is_refused() -> None:
    backbone = built("darknet53")
    backbone.get_submodule("stages.4").blocks = nn.Sequential(nn.Conv2d(1024, 1024, 1))
    with pytest.raises(ConfigError, match=r"of its stages only stages\.0, .*, stages\.3 consist of residual"):
        residual_blocks(backbone)


def test_a_refusal_says_what_to_use_instead() -> None:
    with pytest.raises(ConfigError, match=r"These do.*resnet26d, .*tsn_timm/<name>.*insert_at\(model"):
        residual_blocks(built("hrnet_w18_small"))


@pytest.mark.parametrize(
    "name",
    ["test_efficientnet", "test_convnext", "vgg11", "hgnetv2_b0", "repvgg_a0", "dpn48b", "legacy_seresnet18"],
)
def test_a_tsn_takes_any_timm_cnn(name: str) -> None:
    with torch.device("meta"):
        model = create_model(f"tsn_timm/{name}", num_classes=7, num_frames=2).eval()
        assert model(torch.empty(1, 3, 3, 224, 224)).shape == (1, 7)


def test_create_model_builds_a_temporal_timm_network() -> None:
    model = create_model("vsn_timm/test_resnet", num_classes=5, num_frames=4).eval()
    assert model(torch.zeros(1, 4, 3, 64, 64, dtype=torch.uint8)).shape == (1, 5)
    assert sum(isinstance(module, ShuffleConv2d) for module in model.modules()) == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet26x", r"timm has no model 'resnet26x'\. Nearest: .*resnet26.*timm\.list_models"),
        ("hf_hub:someone/resnet", "timm has no model 'hf_hub:someone/resnet'"),
        ("", r"timm has no model ''\. timm\.list_models"),
    ],
)  # fmt: skip
def test_unknown_names_are_offered_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_backbone(f"timm/{name}")


def test_without_timm_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"not installed: pip install .vsn-video\[timm\]"):
        create_model("vsn_timm/resnet26d", num_classes=2)


def pretend_download(monkeypatch: pytest.MonkeyPatch, weights: dict[str, Tensor] | Exception) -> list[str]:
    """Let timm have pretrained weights; returns the list of names it was asked for."""
    create, asked = timm.create_model, []

    def create_model(name: str, *, pretrained: bool, num_classes: int) -> nn.Module:
        network = create(name, pretrained=False, num_classes=num_classes)
        if pretrained:
            asked.append(name)
            if isinstance(weights, Exception):
                raise weights
            network.load_state_dict(weights)
        return network

    monkeypatch.setattr(timm, "create_model", create_model)
    return asked


@pytest.mark.parametrize(
    ("weights", "asked_for"), [("pretrained", "test_resnet"), ("r160_in1k", "test_resnet.r160_in1k")]
)
def test_published_weights_are_asked_for_by_tag(monkeypatch: pytest.MonkeyPatch, weights: str, asked_for: str) -> None:
    source = build_backbone("timm/test_resnet").state_dict()
    asked = pretend_download(monkeypatch, source)
    config = ModelConfig(name="vsn_timm/test_resnet", num_classes=5, num_frames=4, weights=weights)
    model = build_model(config)
    assert initialize(model, config).missing == ()
    assert asked == [asked_for]
    assert all(torch.equal(value, source[name]) for name, value in model.backbone.state_dict().items())


def test_a_failed_download_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_download(monkeypatch, OSError("no network"))
    message = r"test_resnet .*\(no network\).*model\.weights"
    with pytest.raises(ConfigError, match=message):
        create_model("tsn_timm/test_resnet", num_classes=5, weights="pretrained")


@pytest.mark.parametrize(
    ("name", "millions", "giga"), [("inception_v3", 22.61, 45.7), ("inception_resnet_v2", 54.92, 105.2)]
)
def test_inceptions_of_the_papers_table_3_count_at_their_own_size(name: str, millions: float, giga: float) -> None:
    config = ModelConfig(name=f"tsn_timm/{name}", num_classes=400)
    with torch.device("meta"):
        model = build_model(config)
    assert count_parameters(model) / 1e6 == pytest.approx(millions, abs=0.005)
    assert count_multiply_adds(config, size=299) / 1e9 == pytest.approx(giga, abs=0.05)
