import runpy
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def load(entry: str, *arguments: object, **settings: object) -> torch.nn.Module:
    return torch.hub.load(str(ROOT), entry, *arguments, source="local", **settings)


def test_every_entry_point_builds_its_model():
    names = ["tsm_resnet50", "tsn_resnet50", "vsn_resnet101", "vsn_resnet18", "vsn_resnet50"]
    module = runpy.run_path(str(ROOT / "hubconf.py"))
    entries = [name for name, one in module.items() if callable(one) and not name.startswith("_")]
    assert sorted(entries) == sorted(["model", "run", *names])
    for name in names:
        with torch.device("meta"):
            model = load(name, num_classes=7, num_frames=4)
        assert model.head.out_features == 7
        assert model.num_frames == 4
        kinds = {type(module).__name__ for module in model.modules()}
        assert ("ShuffleConv2d" in kinds) == name.startswith("vsn")
        assert ("ShiftConv2d" in kinds) == (not name.startswith("tsn"))
        depth = sum(len(getattr(model.backbone, f"layer{i}")) for i in (1, 2, 3, 4))
        assert depth == {"18": 8, "50": 16, "101": 33}[name.partition("_resnet")[2]]


def test_a_model_by_name_takes_a_clip():
    model = load("model", "vsn_resnet14_tiny", num_classes=3, num_frames=4).eval()
    assert model(torch.zeros(1, 4, 3, 32, 32, dtype=torch.uint8)).shape == (1, 3)


def test_weights_from_a_file(tmp_path: Path):
    first = load("model", "tsn_resnet14_tiny", num_classes=3)
    torch.save(first.backbone.state_dict(), tmp_path / "w.pth")
    second = load("model", "vsn_resnet14_tiny", num_classes=9, pretrained=str(tmp_path / "w.pth"))
    assert torch.equal(second.backbone.layer4[0].conv3.weight, first.backbone.layer4[0].conv3.weight)


def test_pretrained_asks_for_imagenet_weights():
    with pytest.raises(ValueError, match=r"'DEFAULT'.*'resnet14_tiny'"):
        load("model", "vsn_resnet14_tiny", num_classes=9, pretrained=True)


def test_folder_that_is_not_a_run(tmp_path: Path):
    with pytest.raises(ValueError, match="is not a run folder"):
        load("run", str(tmp_path))
