import collections
import json
from pathlib import Path

import pytest
import torch

from tests.helpers.originals import LAYOUTS, MMACTION2, RESNETS, TSM, State, original_logits, random_state
from vsn.config import ConfigError, ConvertConfig, DataConfig, ModelConfig, Recipe
from vsn.inference.evaluate import evaluate_run
from vsn.inference.predictor import Predictor
from vsn.models import build_model, create_model
from vsn.runs.checkpoint import load_model
from vsn.runs.convert import convert_checkpoint
from vsn.runs.listing import summarize_run
from vsn.runs.run import RunError, is_finished, open_run
from vsn.training.start import load_start

MEAN = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)


def save(path: Path, state: State, **others: object) -> Path:
    torch.save({"state_dict": collections.OrderedDict(state), **others}, path)
    return path


def some_clip(channels: int = 3, num_frames: int = 8, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, num_frames, channels, size, size), generator=generator, dtype=torch.uint8)


@torch.inference_mode()
def logits_of(run: Path, clip: torch.Tensor) -> torch.Tensor:
    return load_model(open_run(run))(clip)


@pytest.fixture(scope="module")
def tsm_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny TSM of 5 classes as the official code saves it."""
    state = random_state(RESNETS["resnet14_tiny"], TSM, shift_every=1)
    folder = tmp_path_factory.mktemp("tsm")
    return save(folder / "TSM_segment8.pth.tar", state, epoch=3, arch="resnet", best_prec1=torch.tensor(0.5))


@pytest.mark.parametrize(
    ("layout", "backbone", "shift_every"),
    [
        ("tsm", "resnet14_tiny", 0),
        ("tsm", "resnet26_thin", 1),
        ("tsm", "resnet26_thin", 2),
        pytest.param("tsm", "resnet50", 1, marks=pytest.mark.slow),
        ("mmaction2", "resnet14_tiny", 0),
        ("mmaction2", "resnet26_thin", 2),
        ("mmaction2", "resnet18", 1),
        pytest.param("mmaction2", "resnet50", 0, marks=pytest.mark.slow),
    ],
)
def test_logits_are_the_originals(tmp_path: Path, layout: str, backbone: str, shift_every: int):
    names, shape, clip = LAYOUTS[layout], RESNETS[backbone], some_clip()
    state = random_state(shape, names, shift_every=shift_every)
    done = convert_checkpoint(save(tmp_path / "c.pth", state), tmp_path / "run")
    model = done.run.recipe.model
    assert model.name == f"{'tsm' if shift_every else 'tsn'}_{backbone}"
    assert (model.num_frames, model.shift_div, model.shift_every) == (8, 8, max(1, shift_every))
    expected = original_logits(state, shape, names, (clip - MEAN) / STD)
    torch.testing.assert_close(logits_of(tmp_path / "run", clip), expected, rtol=1e-4, atol=1e-4)


def test_shift_div_and_num_frames_as_asked(tmp_path: Path):
    shape, clip = RESNETS["resnet26_thin"], some_clip(num_frames=4)
    state = random_state(shape, TSM, shift_every=1)
    config = ConvertConfig(num_frames=4, shift_div=4)
    convert_checkpoint(save(tmp_path / "c.pth", state), tmp_path / "run", config)
    expected = original_logits(state, shape, TSM, (clip - MEAN) / STD, fold_div=4)
    torch.testing.assert_close(logits_of(tmp_path / "run", clip), expected, rtol=1e-4, atol=1e-4)
    other = original_logits(state, shape, TSM, (clip - MEAN) / STD, fold_div=8)
    assert (other - expected).abs().max() > 0.01


def test_stages_that_do_not_shift(tmp_path: Path):
    shape, clip = RESNETS["resnet26_thin"], some_clip()
    state = random_state(shape, TSM, shift_every=1)
    state = {name.replace(".net.", ".") if ".layer1." in name else name: t for name, t in state.items()}
    done = convert_checkpoint(save(tmp_path / "c.pth", state), tmp_path / "run")
    assert done.run.recipe.model.shift_places == ("res3", "res4", "res5")
    expected = original_logits(state, shape, TSM, (clip - MEAN) / STD)
    torch.testing.assert_close(logits_of(tmp_path / "run", clip), expected, rtol=1e-4, atol=1e-4)


def test_bgr_is_turned_round(tmp_path: Path):
    shape, clip = RESNETS["resnet14_tiny"], some_clip()
    state = random_state(shape, MMACTION2)
    convert_checkpoint(save(tmp_path / "c.pth", state), tmp_path / "run", ConvertConfig(bgr=True))
    expected = original_logits(state, shape, MMACTION2, ((clip - MEAN) / STD).flip(2))
    torch.testing.assert_close(logits_of(tmp_path / "run", clip), expected, rtol=1e-4, atol=1e-4)


def test_flow_of_tsm(tmp_path: Path):
    shape, clip = RESNETS["resnet14_tiny"], some_clip(channels=10)
    state = random_state(shape, TSM, channels=10, shift_every=1)
    model = convert_checkpoint(save(tmp_path / "c.pth", state), tmp_path / "run").run.recipe.model
    assert (model.modality, model.flow_length) == ("flow", 5)
    expected = original_logits(state, shape, TSM, (clip / 255 - 0.5) / 0.226)
    torch.testing.assert_close(logits_of(tmp_path / "run", clip), expected, rtol=1e-4, atol=1e-4)


def test_flow_of_mmaction2_is_normalized_as_there(tmp_path: Path):
    shape, clip = RESNETS["resnet14_tiny"], some_clip(channels=2, size=64)
    state = random_state(shape, MMACTION2, channels=2)
    model = convert_checkpoint(save(tmp_path / "c.pth", state), tmp_path / "run").run.recipe.model
    assert (model.modality, model.flow_length) == ("flow", 1)
    expected = original_logits(state, shape, MMACTION2, (clip - 128.0) / 128)
    # Beyond the border the original sees a gray of 128, a run one of 127.5.
    torch.testing.assert_close(logits_of(tmp_path / "run", clip), expected, rtol=0, atol=5e-3)
    untouched = original_logits(state, shape, MMACTION2, (clip / 255 - 0.5) / 0.226)
    assert (untouched - expected).abs().max() > 0.1


def test_differences_of_tsn(tmp_path: Path):
    shape, frames = RESNETS["resnet14_tiny"], some_clip(channels=18)
    state = random_state(shape, TSM, channels=15)
    model = convert_checkpoint(save(tmp_path / "c.pth", state), tmp_path / "run").run.recipe.model
    assert (model.name, model.modality, model.flow_length) == ("tsn_resnet14_tiny", "rgbdiff", 5)
    each = (frames / 255).unflatten(2, (6, 3))
    expected = original_logits(state, shape, TSM, (each[:, :, 1:] - each[:, :, :-1]).flatten(2, 3))
    torch.testing.assert_close(logits_of(tmp_path / "run", frames), expected, rtol=1e-4, atol=1e-4)


def test_classifier_inside_the_backbone_where_tsm_had_no_dropout(tmp_path: Path):
    shape, clip = RESNETS["resnet14_tiny"], some_clip()
    state = random_state(shape, TSM, shift_every=1)
    expected = original_logits(state, shape, TSM, (clip - MEAN) / STD)
    state = {name.replace("new_fc", "base_model.fc"): tensor for name, tensor in state.items()}
    convert_checkpoint(save(tmp_path / "c.pth", state), tmp_path / "run")
    torch.testing.assert_close(logits_of(tmp_path / "run", clip), expected, rtol=1e-4, atol=1e-4)


def test_a_state_dict_alone_and_without_counts_of_batches(tmp_path: Path, tsm_file: Path):
    state = torch.load(tsm_file, weights_only=True)["state_dict"]
    bare = {n.removeprefix("module."): t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    torch.save(bare, tmp_path / "bare.pth")
    convert_checkpoint(tmp_path / "bare.pth", tmp_path / "bare")
    convert_checkpoint(tsm_file, tmp_path / "whole")
    clip = some_clip()
    assert torch.equal(logits_of(tmp_path / "bare", clip), logits_of(tmp_path / "whole", clip))


def test_what_mmaction2_says_of_itself(tmp_path: Path):
    state = random_state(RESNETS["resnet14_tiny"], MMACTION2, num_classes=3, shift_every=1)
    text = "model = dict(backbone=dict(type='ResNetTSM', depth=50, num_segments=16, shift_div=4))"
    meta = {"cfg": text, "dataset_meta": {"classes": ["b", "a", "c"]}}
    done = convert_checkpoint(save(tmp_path / "c.pth", state, meta=meta), tmp_path / "run")
    assert (done.run.recipe.model.num_frames, done.run.recipe.model.shift_div) == (16, 4)
    assert done.run.classes == ("b", "a", "c")
    assert "num_frames = 16 (from the checkpoint; change it with --num-frames)." in done.notes
    asked = convert_checkpoint(tmp_path / "c.pth", tmp_path / "asked", ConvertConfig(num_frames=8))
    assert asked.run.recipe.model.num_frames == 8
    assert "num_frames = 8 (from the option)." in asked.notes


@pytest.mark.parametrize(
    ("layout", "file", "order", "expected"),
    [
        ("tsm", "labels.txt", "auto", ("d", "b", "c", "a", "e")),
        ("tsm", "labels.txt", "sorted", ("a", "b", "c", "d", "e")),
        ("tsm", "something-something-v1-labels.csv", "auto", ("a", "b", "c", "d", "e")),
        ("tsm", "jester-v1-labels.csv", "auto", ("a", "b", "c", "d", "e")),
        ("tsm", "something-something-v1-labels.csv", "file", ("d", "b", "c", "a", "e")),
        ("mmaction2", "something-something-v1-labels.csv", "auto", ("d", "b", "c", "a", "e")),
    ],
)
def test_order_of_class_names(tmp_path: Path, layout, file, order, expected):
    state = random_state(RESNETS["resnet14_tiny"], LAYOUTS[layout])
    (tmp_path / file).write_text("d\nb\nc\na\ne\n")
    config = ConvertConfig(classes=str(tmp_path / file), class_order=order)
    done = convert_checkpoint(save(tmp_path / "c.pth", state), tmp_path / "run", config)
    assert done.run.classes == expected
    assert open_run(tmp_path / "run").classes == expected


def test_class_names_by_number(tmp_path: Path, tsm_file: Path):
    labels = {name: str(i) for i, name in enumerate("edcba")}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    config = ConvertConfig(classes=str(tmp_path / "labels.json"))
    assert convert_checkpoint(tsm_file, tmp_path / "run", config).run.classes == tuple("edcba")


def test_assumptions_are_noted_and_saved(tmp_path: Path, tsm_file: Path):
    done = convert_checkpoint(tsm_file, tmp_path / "run")
    text = "\n".join(done.notes)
    for part in (
        "names of TSM or TSN-PyTorch",
        "Backbone resnet14_tiny",
        "num_frames = 8 (assumed; change it with --num-frames)",
        "shift_div = 8 (assumed; change it with --shift-div)",
        "TSM: 4 blocks shift, each one of res2 res3 res4 res5",
        "Modality rgb (from the 3 input channels",
        "5 classes without names",
        "RGB (assumed; change it with --bgr)",
        "protocol 'center'",
    ):
        assert part in text
    kept = json.loads((tmp_path / "run" / "converted.json").read_text())
    assert kept["notes"] == list(done.notes)
    assert (kept["file"], kept["layout"]) == ("TSM_segment8.pth.tar", "tsm")
    assert len(kept["sha256"]) == 64


def test_the_run_is_finished_evaluates_and_predicts(tmp_path: Path, tsm_file: Path, tiny_data: Path, gray_video: Path):
    state = random_state(RESNETS["resnet14_tiny"], TSM, num_classes=3, shift_every=1)
    (tmp_path / "names").write_text("wave\nswipe_left\nswipe_right\n")
    config = ConvertConfig(classes=str(tmp_path / "names"), root=str(tiny_data), protocol="fcn")
    convert_checkpoint(save(tmp_path / "c.pth", state), tmp_path / "run", config)
    summary = summarize_run(tmp_path / "run")
    assert (summary.state, summary.reason, summary.model) == ("finished", "", "tsm_resnet14_tiny")
    assert is_finished(tmp_path / "run")
    result = evaluate_run(tmp_path / "run", device="cpu", num_workers=0, progress=False)
    assert result["num_videos"] == 3
    prediction = Predictor.from_run(tmp_path / "run", device="cpu").predict(gray_video)
    assert set(prediction.labels) == {"wave", "swipe_left", "swipe_right"}


def test_a_vsn_starts_from_a_converted_tsm(tmp_path: Path, tsm_file: Path, log):
    (tmp_path / "names").write_text("a\nb\nc\nd\ne\n")
    run = convert_checkpoint(tsm_file, tmp_path / "run", ConvertConfig(classes=str(tmp_path / "names"))).run
    tsm = load_model(run)
    config = ModelConfig(name="vsn_resnet14_tiny", num_classes=2, weights=str(run.path), shift_places=())
    vsn = build_model(config)
    console, text = log
    assert load_start(vsn, Recipe(model=config, data=DataConfig()), ("e", "new"), console) == []
    assert "This VSN starts from a TSM: same weights" in text()
    for name, tensor in tsm.backbone.state_dict().items():
        assert torch.equal(vsn.backbone.state_dict()[name], tensor), name
    assert torch.equal(vsn.head.weight[0], tsm.head.weight[4])
    again = create_model("vsn_resnet14_tiny", num_classes=2, weights=str(run.path))
    assert torch.equal(again.backbone.state_dict()["conv1.weight"], tsm.backbone.state_dict()["conv1.weight"])


def renamed(state: State, old: str, new: str) -> State:
    return {name.replace(old, new): tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"conv1_7x7_s2.weight": s["module.base_model.conv1.weight"]}, "Expected names of TSM"),
        (
            lambda s: renamed(s, "base_model.conv1.", "base_model.conv1_7x7_s2."),
            "its backbone is BN-Inception",
        ),
        (lambda s: renamed(s, "layer3.0.bn1", "layer3.0.nl.bn"), "it has non-local blocks"),
        (lambda s: renamed(s, "layer2.0.", "layer2.net.0."), "it pools over time"),
        (lambda s: renamed(s, "layer1.0.", "layer1.0.net."), "before whole blocks"),
        (lambda s: renamed(s, "base_model.layer1.0", "base_model.features.0"), "its backbone is a MobileNet"),
        (lambda s: renamed(s, "new_fc", "consensus.classifier.1"), "TRN"),
        (lambda s: renamed(s, "new_fc", "other"), "has no classifier base_model.fc.weight"),
        (lambda s: s | {"module.base_model.conv1.weight": torch.zeros(8, 3, 1, 5, 5)}, "3D network"),
        (
            lambda s: {n: t for n, t in s.items() if "layer4.0.conv3" not in n},
            r"The nearest, resnet14_tiny, differs in 1, for example layer4.0.conv3.weight: expected \(256, 64",
        ),
        (
            lambda s: s | {"module.new_fc.weight": torch.zeros(5, 99)},
            r"shape \(5, 256\) .*got \(5, 99\)",
        ),
        (
            lambda s: s | {"module.base_model.conv1.weight": torch.zeros(8, 5, 5, 5)},
            "takes 5 channels, but modality 'rgbdiff' has 3 for each of L",
        ),
        (
            lambda s: {"backbone.conv1.weight": torch.zeros(1), "head.weight": torch.zeros(1)},
            "names of vsn",
        ),
        (lambda s: {"epoch": 3}, "has no state_dict of names to tensors"),
    ],
)
def test_refused(tmp_path: Path, tsm_file: Path, change, message: str):
    state = torch.load(tsm_file, weights_only=True)["state_dict"]
    torch.save({"state_dict": dict(change(state))}, tmp_path / "c.pth")
    with pytest.raises(ConfigError, match=message):
        convert_checkpoint(tmp_path / "c.pth", tmp_path / "run")
    assert not (tmp_path / "run").exists()


EXTRA = {  # what other networks of the same code base have, and what the message says of it
    "neck.spatial_modulation.0.conv.weight": "TPN",
    "cls_head.consensus.classifier.0.1.weight": "TRN",
    "cls_head.fc_verb.weight": r"cls_head\.fc_verb\.weight",
    "cls_head.aux.fc.bias": r"cls_head\.aux\.fc\.bias",
    "backbone.fc.weight": r"backbone\.fc\.weight",
    "backbone.layer4.0.se.conv1.weight": r"layer4\.0\.se\.conv1\.weight",
    "backbone.head.weight": r"backbone\.head\.weight",
    "auxiliary_head.fc.weight": r"auxiliary_head\.fc\.weight",
    "data_preprocessor.mean": r"data_preprocessor\.mean",
    "new_fc.weight": r"new_fc\.weight",
    "cls_head.fc_cls.scale": r"cls_head\.fc_cls\.scale",
}


@pytest.mark.parametrize("name", EXTRA)
@pytest.mark.parametrize("shape", [(), (256, 3), (8, 2, 3, 3)])
def test_every_tensor_is_used_or_refused(tmp_path: Path, name: str, shape: tuple[int, ...]):
    state = random_state(RESNETS["resnet14_tiny"], MMACTION2, shift_every=1) | {name: torch.ones(shape)}
    with pytest.raises(ConfigError, match=EXTRA[name]):
        convert_checkpoint(save(tmp_path / "c.pth", state), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_every_tensor_of_tsm_is_used_or_refused(tmp_path: Path, tsm_file: Path):
    state = torch.load(tsm_file, weights_only=True)["state_dict"]
    for name in (
        "module.base_model.fc.weight",
        "module.new_fc_verb.weight",
        "module.gate.weight",
        "module.new_fc.scale",
    ):
        with pytest.raises(ConfigError, match=f"{name.removeprefix('module.')}"):
            convert_checkpoint(save(tmp_path / "c.pth", state | {name: torch.ones(5, 3)}), tmp_path / "run")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["layer1.0.conv1.net.weight", "layer2.0.bn2.running_var", "new_fc.bias"])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, tsm_file: Path, name: str, value: float):
    state = torch.load(tsm_file, weights_only=True)["state_dict"]
    key = next(key for key in state if key.endswith(name))
    state[key].flatten()[1] = value
    with pytest.raises(ConfigError, match=rf"NaN or infinity: .*{name}"):
        convert_checkpoint(save(tmp_path / "c.pth", state), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_uneven_shift_is_refused(tmp_path: Path):
    state = random_state(RESNETS["resnet26_thin"], TSM, shift_every=1)
    state = renamed(state, "layer2.1.conv1.net.", "layer2.1.conv1.")
    with pytest.raises(ConfigError, match=r"7 convolutions .* layer2.1.conv1"):
        convert_checkpoint(save(tmp_path / "c.pth", state), tmp_path / "run")


class Nasty:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("executed",))


def test_a_file_that_would_execute_is_refused_with_advice(tmp_path: Path, tsm_file: Path, capsys):
    state = torch.load(tsm_file, weights_only=True)["state_dict"]
    torch.save({"state_dict": state, "message_hub": Nasty()}, tmp_path / "c.pth")
    with pytest.raises(ConfigError, match=r"print.*weights.pth") as caught:
        convert_checkpoint(tmp_path / "c.pth", tmp_path / "run")
    assert "still be loaded" not in str(caught.value)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"classes": "absent.txt"}, "There is no file of class names absent.txt"),
        ({"class_order": "sorted"}, "class_order is 'sorted'"),
        ({"num_frames": -1}, "num_frames is -1"),
        ({"shift_div": 1}, "shift_div is 1"),
        ({"modality": "flow"}, "takes 3 channels, but modality 'flow' has 2 for each of L"),
        ({"protocol": "25x10"}, "Protocol '25x10' takes T=25 frames"),
    ],
)
def test_options_that_do_not_fit(tmp_path: Path, tsm_file: Path, config: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        convert_checkpoint(tsm_file, tmp_path / "run", ConvertConfig(**config))
    assert not (tmp_path / "run").exists()


def test_wrong_number_of_class_names(tmp_path: Path, tsm_file: Path):
    (tmp_path / "names").write_text("a\nb\n")
    with pytest.raises(ConfigError, match=r"5 classes.* got 2 from names"):
        convert_checkpoint(tsm_file, tmp_path / "run", ConvertConfig(classes=str(tmp_path / "names")))


def test_bad_files(tmp_path: Path, tsm_file: Path):
    (tmp_path / "text.pth").write_text("no checkpoint")
    for file, message in (
        ("text.pth", "cannot be read|more than tensors"),
        ("absent.pth", "There is no checkpoint"),
    ):
        with pytest.raises(ConfigError, match=message):
            convert_checkpoint(tmp_path / file, tmp_path / "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(RunError, match=r"exists and is not empty.*--to") as caught:
        convert_checkpoint(tsm_file, tmp_path / "full")
    assert "--out" not in str(caught.value)
    assert "--resume" not in str(caught.value)


def test_command(tmp_path: Path, tsm_file: Path, capsys):
    from vsn import cli

    cli.main(["convert", str(tsm_file), "--to", str(tmp_path / "run"), "--shift-div", "4", "--protocol", "fcn"])
    lines = capsys.readouterr().out.splitlines()
    assert "shift_div = 4 (from the option)." in lines
    assert lines[-1].startswith(f"{tmp_path / 'run'} is a run of tsm_resnet14_tiny. Next: vsn predict")
    assert open_run(tmp_path / "run").recipe.eval.protocol == "fcn"
    cli.main(["convert", str(tsm_file), "--to", str(tmp_path / "other"), "--json"])
    assert json.loads(capsys.readouterr().out)["model"] == "tsm_resnet14_tiny"
    with pytest.raises(SystemExit, match=r"vsn: There is no checkpoint absent\.pth"):
        cli.main(["convert", "absent.pth", "--to", str(tmp_path / "third")])
