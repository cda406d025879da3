"""Initialize models from another run, a file, published weights, or nothing."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models._api import WeightsEnum

from tests.helpers.tiny_runs import tiny_recipe, weights_of
from vsn import create_model
from vsn.config import ConfigError, DataConfig, ModelConfig, Recipe
from vsn.inference.predictor import Predictor
from vsn.models import build_model
from vsn.models.backbones import build_backbone
from vsn.models.classifier import VideoClassifier
from vsn.runs.checkpoint import load_model, save_weights
from vsn.runs.metadata import write_run
from vsn.runs.run import new_run, open_run
from vsn.system.distributed import Distributed
from vsn.training.job import check_job
from vsn.training.start import check_is_run, load_start, run_of_same_data
from vsn.training.train import train

Log = tuple[Console, Callable[[], str]]

TINY = "resnet14_tiny"
RUN_CLASSES = ("wave", "clap", "jump")


def make_run(path: Path, name: str = f"vsn_{TINY}", classes: tuple[str, ...] = RUN_CLASSES, **settings) -> Path:
    """A run folder with random weights, as if it had finished an epoch."""
    run = new_run(path, Recipe(model=ModelConfig(name=name, num_frames=4, **settings)), classes)
    write_run(run)
    torch.manual_seed(5)
    model = build_model(run.recipe.model)
    torch.nn.init.normal_(model.head.bias)
    save_weights(run, model)
    return path


def start_from(
    weights: Path | str, log: Log, name: str = f"vsn_{TINY}", classes: tuple[str, ...] = RUN_CLASSES, **settings
) -> tuple[VideoClassifier, list[str], str]:
    """Return the model, its parameters without weights, and what was printed. Its random head is -7 everywhere."""
    config = ModelConfig(name=name, num_classes=len(classes), weights=str(weights), **({"num_frames": 4} | settings))
    model = build_model(config)
    with torch.no_grad():
        model.head.weight.fill_(-7)
        model.head.bias.fill_(-7)
    fresh = load_start(model, Recipe(model=config), classes, log[0])
    return model, fresh, log[1]()


def assert_backbone_of(model: VideoClassifier, run: Path) -> None:
    stored = weights_of(run)
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, stored[f"backbone.{name}"]), name


@pytest.mark.parametrize("named", ["", "model.safetensors", "best.safetensors"])
def test_a_run_gives_its_backbone_and_its_classifier(tmp_path: Path, log: Log, named: str):
    run = make_run(tmp_path / "run")
    shutil.copy(run / "model.safetensors", run / "best.safetensors")
    model, fresh, printed = start_from(run / named, log)
    assert_backbone_of(model, run)
    assert torch.equal(model.head.weight, weights_of(run)["head.weight"])
    assert torch.equal(model.head.bias, weights_of(run)["head.bias"])
    assert fresh == []
    assert "3 of 3 classes" in printed


@pytest.mark.parametrize(
    ("classes", "printed"),
    [
        (("jump", "wave", "clap"), "3 of 3 classes start from the run's classifier."),
        (("jump", "sit", "wave"), "2 of 3 classes start from the run's classifier; 1 new: sit."),
        (
            ("jump", "sit", "stand", "wave"),
            "The run's classifier had 3 classes. 2 of 4 classes start from the run's classifier; 2 new: sit, stand.",
        ),
        (
            (*tuple("abcdef"), "clap"),
            "had 3 classes. 1 of 7 classes start from the run's classifier; 6 new: a, b, c, d, e and 1 more.",
        ),
        (
            ("clap", "wave"),
            "The run's classifier had 3 classes. 2 of 2 classes start from the run's classifier.",
        ),
        (("x", "y", "z"), "None of the 3 classes was in it: the classifier is initialized at random."),
        (("x", "y"), "had 3 classes. None of the 2 classes was in it: the classifier is initialized at random."),
    ],
)
def test_classes_are_matched_by_name(tmp_path: Path, log: Log, classes: tuple[str, ...], printed: str):
    run = make_run(tmp_path / "run")
    model, _, text = start_from(run, log, classes=classes)
    assert_backbone_of(model, run)
    stored = weights_of(run)
    for i, name in enumerate(classes):
        if name in RUN_CLASSES:
            assert torch.equal(model.head.weight[i], stored["head.weight"][RUN_CLASSES.index(name)])
            assert model.head.bias[i] == stored["head.bias"][RUN_CLASSES.index(name)]
        else:
            assert model.head.weight[i].eq(-7).all()
            assert model.head.bias[i] == -7
    assert text.strip().endswith(printed)


def test_a_weights_file_away_from_its_classes_gives_its_backbone(tmp_path: Path, log: Log):
    run = make_run(tmp_path / "run")
    moved = shutil.copy(run / "model.safetensors", tmp_path / "moved.safetensors")
    model, _, printed = start_from(moved, log)
    assert_backbone_of(model, run)
    assert model.head.weight.eq(-7).all()
    assert str(moved) in printed
    assert "classes.json" in printed


@pytest.mark.parametrize("before", ["tsn", "tsm", "vsn"])
@pytest.mark.parametrize("now", ["tsn", "tsm", "vsn"])
def test_any_kind_starts_any_other(tmp_path: Path, log: Log, before: str, now: str):
    run = make_run(tmp_path / "run", f"{before}_{TINY}")
    model, _, printed = start_from(run, log, name=f"{now}_{TINY}")
    assert_backbone_of(model, run)
    sentence = f"This {now.upper()} starts from a {before.upper()}: same weights"
    assert (sentence in printed) == (before != now)


VSN, TSM, TSN, SHIFT_ONLY = (
    {"name": f"vsn_{TINY}"},
    {"name": f"tsm_{TINY}"},
    {"name": f"tsn_{TINY}"},
    {"name": f"vsn_{TINY}", "places": ()},
)


@pytest.mark.parametrize(
    ("before", "now", "noted"),
    [
        (TSN, TSN, False),
        (TSN, VSN, False),
        (TSM, TSM, True),
        (TSM, VSN, True),
        (SHIFT_ONLY, VSN, True),
        (VSN, TSM, True),
        (VSN, TSN, False),
    ],
)
def test_another_number_of_frames_where_no_channel_means_one(
    tmp_path: Path, log: Log, before: dict, now: dict, noted: bool
):
    run = make_run(tmp_path / "run", **before)
    model, _, printed = start_from(run, log, **now, num_frames=8)
    assert_backbone_of(model, run)
    assert ("model.num_frames 4 -> 8" in printed) == noted


def test_another_number_of_frames_of_shuffled_weights_is_refused(tmp_path: Path, log: Log):
    run = make_run(tmp_path / "run")
    message = r"num_frames is 8, \S* ?\S*model\.safetensors was trained with 4"
    with pytest.raises(ConfigError, match=message):
        start_from(run, log, num_frames=8)
    with pytest.raises(ConfigError, match=message):
        check_job(Recipe(model=ModelConfig(name=f"vsn_{TINY}", num_frames=8, weights=str(run))), Distributed("cpu"))
    with pytest.raises(ConfigError, match=message):
        create_model(f"vsn_{TINY}", num_classes=3, num_frames=8, weights=str(run))


@pytest.mark.parametrize(
    ("before", "now", "printed"),
    [
        ({"block": "headtail"}, {}, "model.block headtail -> compact"),
        (
            {"places": ("res4", "res5")},
            {},
            "model.places ('res4', 'res5') -> ('res2', 'res3', 'res4', 'res5')",
        ),
        ({}, {"shift_div": 4}, "model.shift_div 8 -> 4"),
        ({}, {"shift": False}, "temporal shift on -> off"),
        ({"shift": False}, {}, "temporal shift off -> on"),
        ({"places": ()}, {}, "video shuffle off -> on"),
    ],
)
def test_other_placements_are_said(tmp_path: Path, log: Log, before: dict, now: dict, printed: str):
    run = make_run(tmp_path / "run", **before)
    model, _, text = start_from(run, log, **now)
    assert_backbone_of(model, run)
    assert f"differ from {run / 'model.safetensors'}: {printed}. " in text


def test_another_backbone_is_refused_and_both_are_named(tmp_path: Path, log: Log):
    run = make_run(tmp_path / "run", f"tsn_{TINY}")
    with pytest.raises(
        ConfigError,
        match=r"backbone 'resnet14_tiny', but model\.name is 'vsn_resnet18', with 'resnet18'",
    ):
        start_from(run, log, name="vsn_resnet18")


def test_the_run_of_the_weights_counts_where_its_data_is_the_same_folder(tmp_path: Path):
    path = make_run(tmp_path / "run")
    run = open_run(path)
    write_run(replace(run, recipe=replace(run.recipe, data=replace(run.recipe.data, root=str(tmp_path)))))

    def recipe(root: Path, weights: str = str(path)) -> Recipe:
        return Recipe(model=ModelConfig(weights=weights), data=DataConfig(root=str(root)))

    same = tmp_path / "run" / ".."
    assert run_of_same_data(recipe(same)) == path
    assert run_of_same_data(recipe(same, str(path / "model.safetensors"))) == path
    assert run_of_same_data(recipe(tmp_path / "other")) is None
    assert run_of_same_data(recipe(same, "none")) is None
    (path / "recipe.toml").write_text("[model]\nof_a_newer_version = 1\n")
    assert run_of_same_data(recipe(same)) is None


def no_weights(run: Path) -> None:
    (run / "model.safetensors").unlink()


def half_weights(run: Path) -> None:
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def other_classes(run: Path) -> None:
    (run / "classes.json").write_text('["a", "b"]')


def classes_in_another_order(run: Path) -> None:
    (run / "classes.json").write_text(json.dumps(RUN_CLASSES[::-1]))


def no_json(run: Path) -> None:
    (run / "classes.json").write_text("[")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            no_weights,
            r"names the folder \S*, which has no model\.safetensors",
        ),
        (half_weights, r"model\.safetensors cannot be read as weights"),
        (other_classes, r"classes\.json .* 3 classes of model\.safetensors"),
        (classes_in_another_order, "'wave', 'clap', 'jump'.*another order"),
        (no_json, r"classes\.json cannot be read"),
    ],
)
def test_damaged_runs_are_refused(tmp_path: Path, log: Log, damage: Callable[[Path], None], message: str):
    run = make_run(tmp_path / "run")
    damage(run)
    with pytest.raises(ConfigError, match=message):
        start_from(run, log)


def test_a_file_that_would_execute_code_is_refused_in_one_line(tmp_path: Path):
    torch.save({"conv1.weight": torch.zeros(1), "made": Path("x")}, tmp_path / "unsafe.pth")
    with pytest.raises(
        ConfigError, match=r"cannot be read as weights: it holds more than tensors.*: it needs"
    ) as error:
        create_model("tsn_resnet14_tiny", num_classes=2, weights=str(tmp_path / "unsafe.pth"))
    assert "still be loaded" not in str(error.value)
    assert "\n" not in str(error.value)


def test_only_a_run_is_a_run(tmp_path: Path):
    run = make_run(tmp_path / "run")
    check_is_run(run)
    check_is_run(run / "model.safetensors")
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "plain.safetensors")
    for path, problem in (
        (tmp_path / "gone", "does not exist"),
        (tmp_path, "is not a run"),
        (tmp_path / "plain.safetensors", "is not a run"),
    ):
        with pytest.raises(ConfigError, match=rf"--init-from .*{path} {problem}"):
            check_is_run(path)


# Other starts


def test_nothing_to_start_from_prints_nothing(log: Log):
    assert start_from("none", log)[1:] == ([], "")


def test_a_file_of_a_part_leaves_the_rest_fresh(tmp_path: Path, log: Log):
    state = {n: v for n, v in build_backbone(TINY).state_dict().items() if not n.startswith(("layer4", "fc"))}
    save_file(state, tmp_path / "part.safetensors")
    _, fresh, printed = start_from(tmp_path / "part.safetensors", log)
    assert {name.split(".")[0] for name in fresh} == {"layer4"}
    assert f"{tmp_path / 'part.safetensors'} lacks layer4" in printed


def test_published_weights(monkeypatch: pytest.MonkeyPatch, log: Log):
    state = build_backbone("resnet18").state_dict()

    def download(self: WeightsEnum, *args: object, **kwargs: object) -> Mapping[str, Tensor]:
        return state

    monkeypatch.setattr(WeightsEnum, "get_state_dict", download)
    model, fresh, printed = start_from("IMAGENET1K_V1", log, name="vsn_resnet18")
    assert all(torch.equal(value, state[name]) for name, value in model.backbone.state_dict().items())
    assert (fresh, printed) == ([], "")


def test_timm_weights(monkeypatch: pytest.MonkeyPatch, log: Log):
    timm = pytest.importorskip("timm")
    published, create = timm.create_model("resnet10t", num_classes=1000), timm.create_model
    asked = []

    def download(name: str, *, pretrained: bool = False, **settings: object) -> torch.nn.Module:
        asked.append((name, pretrained))
        return published if pretrained else create(name, **settings)

    monkeypatch.setattr(timm, "create_model", download)
    model, fresh, printed = start_from("c3_in1k", log, name="vsn_timm/resnet10t")
    assert ("resnet10t.c3_in1k", True) in asked
    state = published.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.backbone.state_dict().items())
    assert (fresh, printed) == ([], "")


# Through training


def test_a_fine_tuned_run_does_not_need_its_source(tiny_data: Path, gray_video: Path, tmp_path: Path, log: Log):
    source = make_run(tmp_path / "source", classes=("wave", "swipe_left"))
    recipe = tiny_recipe(tiny_data, epochs=1, lr=1e-9)
    recipe = replace(recipe, model=replace(recipe.model, weights=str(source)))
    start = weights_of(source)
    run = train(recipe, tmp_path / "run", console=log[0])
    assert "2 of 3 classes start from the run's classifier; 1 new: swipe_right." in log[1]()
    after = weights_of(run.path)
    wave = json.loads((run.path / "classes.json").read_text()).index("wave")
    torch.testing.assert_close(after["head.weight"][wave], start["head.weight"][0], rtol=0, atol=1e-6)
    name = "backbone.layer4.0.conv2.weight"
    torch.testing.assert_close(after[name], start[name], rtol=0, atol=1e-6)
    shutil.rmtree(source)
    model = load_model(open_run(run.path))
    assert torch.equal(model.head.weight, after["head.weight"])
    assert len(Predictor.from_run(run.path).predict(gray_video).labels) == 3
