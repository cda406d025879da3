"""Backbones by name, their classifiers and their pretrained weights."""

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision.models as tv
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models._api import WeightsEnum

from vsn.config import STAGES, ConfigError, ModelConfig
from vsn.models import build_model, create_model, initialize, list_models
from vsn.models.backbones import (
    THIN_BACKBONES,
    TORCHVISION_BACKBONES,
    build_backbone,
    list_backbones,
    remove_classifier,
)
from vsn.models.blocks import residual_blocks
from vsn.models.weights import load_pretrained

THIN = "resnet26_thin"


@pytest.mark.parametrize("name", list_backbones())
def test_every_backbone_has_four_stages_and_gives_the_features_it_says(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name).eval()
        frames = torch.empty(2, 3, 64, 64)
    blocks = residual_blocks(backbone)
    assert list(blocks) == list(STAGES)
    for one in (block for stage in blocks.values() for block in stage):
        assert isinstance(backbone.get_submodule(one.head), nn.Conv2d)
        spatial = backbone.get_submodule(one.spatial)
        if one.spatial == one.pointwise:  # next to a depthwise convolution
            assert isinstance(spatial, nn.Linear) or (spatial.kernel_size, spatial.groups) == ((1, 1), 1)
        else:
            assert spatial.kernel_size == (3, 3)
        if one.pointwise:
            pointwise = backbone.get_submodule(one.pointwise)
            assert isinstance(pointwise, nn.Linear) or (pointwise.kernel_size, pointwise.groups) == (
                (1, 1),
                1,
            )
    for stage in blocks.values():
        last = backbone.get_submodule(stage[-1].spatial) if stage else None
        if len(stage) > 1 and isinstance(last, nn.Conv2d):  # a stage's only block has its stride
            assert last.stride == (1, 1)
    width = remove_classifier(backbone)
    assert backbone(frames).shape == (2, width)


def test_list_models_names_every_backbone_with_every_kind_that_takes_any() -> None:
    names = list_models()
    assert len(names) == len(set(names))
    for kind in ("tsn", "tsm", "vsn"):
        own = [name for name in names if name.startswith(f"{kind}_")]
        assert own == [f"{kind}_{name}" for name in (*TORCHVISION_BACKBONES, "bn_inception", *THIN_BACKBONES)]
    assert {"tsn_resnet50", "tsm_resnet50", "vsn_resnet50", f"vsn_{THIN}"} <= set(names)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet51", r"No backbone 'resnet51'\. Nearest: .*resnet50.*`vsn models` lists"),
        ("zzz", r"No backbone 'zzz'\. `vsn models` lists those of torchvision"),
        ("", "No backbone ''"),
    ],
)
def test_unknown_backbones_are_offered_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_backbone(name)


def test_a_network_without_a_linear_classifier_is_refused() -> None:
    with pytest.raises(ConfigError, match="Cannot find the classifier of Sequential: expected"):
        remove_classifier(nn.Sequential(nn.Linear(3, 3)))


# Files of weights


def write(path: Path, state: Mapping[str, Tensor]) -> str:
    save_file({name: value.contiguous() for name, value in state.items()}, path)
    return str(path)


def part_of(backbone: nn.Module, *prefixes: str) -> dict[str, Tensor]:
    return {name: value for name, value in backbone.state_dict().items() if name.startswith(prefixes)}


def test_a_file_of_a_part_says_what_it_had_and_what_starts_at_random(tmp_path: Path) -> None:
    source, backbone = build_backbone(THIN), build_backbone(THIN)
    start = backbone.get_parameter("layer4.0.conv1.weight").clone()
    loaded = load_pretrained(
        backbone, THIN, write(tmp_path / "part.safetensors", part_of(source, "conv1", "bn1", "layer1"))
    )
    assert torch.equal(backbone.get_parameter("conv1.weight"), source.get_parameter("conv1.weight"))
    assert torch.equal(backbone.get_parameter("layer4.0.conv1.weight"), start)
    assert "layer1.0.conv1.weight" in loaded.loaded
    assert "layer2.0.conv1.weight" in loaded.missing
    assert not any(name.endswith("num_batches_tracked") for name in loaded.missing)
    assert loaded.describe_missing() == "fc, layer2, layer3, layer4"


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pth_file_holds_a_state_dict_or_a_checkpoint_with_one(tmp_path: Path, wrapped: bool) -> None:
    source, backbone = build_backbone(THIN), build_backbone(THIN)
    state = source.state_dict()
    torch.save({"state_dict": state} if wrapped else state, tmp_path / "whole.pth")
    loaded = load_pretrained(backbone, THIN, str(tmp_path / "whole.pth"))
    assert loaded.missing == ()
    assert all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items())


def test_half_precision_files_fill_single_precision_weights(tmp_path: Path) -> None:
    source, backbone = build_backbone(THIN).half(), build_backbone(THIN)
    load_pretrained(backbone, THIN, write(tmp_path / "half.safetensors", source.state_dict()))
    weight = backbone.get_parameter("conv1.weight")
    assert weight.dtype == torch.float32
    assert torch.equal(weight, source.get_parameter("conv1.weight").float())


def test_no_weights_loads_nothing() -> None:
    loaded = load_pretrained(build_backbone(THIN), THIN, "none")
    assert loaded.loaded == ()
    assert "conv1.weight" in loaded.missing


def wrong_names(path: Path) -> None:
    write(path, {"module.conv1.weight": torch.zeros(1), "conv1.weight": torch.zeros(16, 3, 5, 5)})


def wrong_shape(path: Path) -> None:
    write(path, {"conv1.weight": torch.zeros(16, 3, 7, 7)})


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("gone.safetensors", lambda path: None, r"model\.weights.*'gone\.safetensors'"),
        ("bad.safetensors", lambda path: path.write_bytes(b"no weights"), "cannot be read as weights"),
        ("bad.pth", lambda path: path.write_bytes(b"no weights"), "cannot be read as weights"),
        ("list.pth", lambda path: torch.save([1, 2], path), r"holds no state dict"),
        ("odd.pth", lambda path: torch.save({"epoch": 3}, path), r"holds no state dict"),
        ("empty.safetensors", lambda path: write(path, {}), "the file holds no weights"),
        (
            "names.safetensors",
            wrong_names,
            r"1 of its 2 names are not the backbone's, for example 'module\.conv1.*like 'conv1\.weight'",
        ),
        (
            "shape.safetensors",
            wrong_shape,
            r"'conv1\.weight'.*\(16, 3, 7, 7\).*\(16, 3, 5, 5\)",
        ),
        ("IMAGENET1K_V1", lambda path: None, "'IMAGENET1K_V1'.*'resnet26_thin'"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, make: Callable[[Path], object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    backbone = build_backbone(THIN)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(ConfigError, match=message):
        load_pretrained(backbone, THIN, name)
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


# Published weights, without a network


def publish(monkeypatch: pytest.MonkeyPatch, result: Mapping[str, Tensor] | Exception) -> list[str]:
    """Let torchvision "download" this; returns the list of what was asked for."""
    asked: list[str] = []

    def get_state_dict(self: WeightsEnum, *args: object, **kwargs: object) -> Mapping[str, Tensor]:
        asked.append(self.url)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(WeightsEnum, "get_state_dict", get_state_dict)
    return asked


def test_a_weight_name_loads_what_torchvision_publishes(monkeypatch: pytest.MonkeyPatch) -> None:
    source = tv.resnet18().state_dict()
    asked = publish(monkeypatch, source)
    model = create_model("vsn_resnet18", num_classes=3, num_frames=4, weights="IMAGENET1K_V1")
    assert asked == [tv.ResNet18_Weights.IMAGENET1K_V1.url]
    state = model.backbone.state_dict()
    assert set(source) - set(state) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, source[name]) for name, value in state.items())


@pytest.mark.parametrize("from_file", [False, True])
def test_densenet_files_load_in_their_old_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_file: bool
) -> None:
    source = tv.densenet121().state_dict()
    old = {}
    for name, value in source.items():
        for part in ("norm1", "norm2", "conv1", "conv2"):
            if "denselayer" in name:
                name = name.replace(f".{part}.", f".{part[:-1]}.{part[-1]}.")
        old[name] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    publish(monkeypatch, old)
    torch.save(old, tmp_path / "densenet121.pth")
    backbone = tv.densenet121()
    weights = str(tmp_path / "densenet121.pth") if from_file else "IMAGENET1K_V1"
    assert load_pretrained(backbone, "densenet121", weights).missing == ()
    assert all(torch.equal(value, source[name]) for name, value in backbone.state_dict().items())


def test_an_unknown_weight_name_is_told_the_known_ones() -> None:
    with torch.device("meta"):
        backbone = tv.resnet50()
    message = r"is 'IMAGENET'; for resnet50 torchvision has IMAGENET1K_V1, IMAGENET1K_V2.*A file must end"
    with pytest.raises(ConfigError, match=message):
        load_pretrained(backbone, "resnet50", "IMAGENET")


@pytest.mark.parametrize("error", [URLError("no network"), RuntimeError("invalid hash value")])
def test_a_failed_download_says_how_to_go_on_offline(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    publish(monkeypatch, error)
    message = (
        r"IMAGENET1K_V1 of resnet18 could not be downloaded \(.*(no network|invalid hash).*"
        r"fetch https://download\.pytorch\.org/models/resnet18-.*\.pth elsewhere and set model\.weights"
    )
    with pytest.raises(ConfigError, match=message):
        load_pretrained(tv.resnet18(), "resnet18", "IMAGENET1K_V1")


# Through the model


def test_initialize_fills_a_temporal_model_and_leaves_out_the_classifier(tmp_path: Path) -> None:
    source = build_backbone(THIN)
    weights = write(tmp_path / "part.safetensors", part_of(source, "conv1", "layer3", "fc.weight"))
    config = ModelConfig(name=f"vsn_{THIN}", num_classes=3, num_frames=4, weights=weights)
    model = build_model(config)
    loaded = initialize(model, config)
    weight = model.backbone.get_parameter("layer3.1.conv2.weight")
    assert torch.equal(weight, source.get_parameter("layer3.1.conv2.weight"))
    assert set(loaded.loaded) == set(part_of(source, "conv1", "layer3"))
    assert loaded.describe_missing() == "bn1, layer1, layer2, layer4"


@pytest.mark.parametrize(
    ("name", "file", "missing"),
    [
        ("resnet50", "resnet50-imagenet-to-res4-fp16.safetensors", "fc, layer4"),
        ("densenet121", "densenet121-imagenet-fp16.safetensors", ""),
    ],
)
@pytest.mark.filterwarnings("ignore:bn1.running_var. 1 of 64 values overflowed float16")
def test_real_weights_load(shared_data: Path, name: str, file: str, missing: str) -> None:
    path = shared_data / "weights" / file
    if not path.is_file():
        pytest.skip(f"no {path}")
    backbone = build_backbone(name).eval()
    loaded = load_pretrained(backbone, name, str(path))
    assert loaded.describe_missing() == missing
    assert backbone(torch.zeros(1, 3, 64, 64)).isfinite().all()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_variances_that_overflowed_float16_are_read_as_its_largest_value(tmp_path: Path, suffix: str) -> None:
    state = {name: tensor.half() for name, tensor in build_backbone("resnet18").state_dict().items()}
    state["bn1.running_var"][3] = torch.inf
    path = tmp_path / f"weights{suffix}"
    write = save_file if suffix == ".safetensors" else torch.save
    write(state, path)
    backbone = build_backbone("resnet18")
    with pytest.warns(UserWarning, match="bn1.running_var: 1 of 64 values overflowed float16"):
        load_pretrained(backbone, "resnet18", str(path))
    assert backbone.state_dict()["bn1.running_var"].tolist() == [1, 1, 1, 65504, *[1] * 60]
    state["bn1.running_mean"][3] = torch.inf  # of any other tensor nothing is known
    write(state, path)
    with pytest.warns(UserWarning, match="running_var"), pytest.raises(ConfigError, match="running_mean"):
        load_pretrained(backbone, "resnet18", str(path))
