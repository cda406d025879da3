"""Every recipe that comes with vsn: its header, its model, its data, and two steps of training."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from tests.helpers.lookalikes import LOOKALIKES
from tests.helpers.squares import lay_boxes
from tests.helpers.stored_flow import lay_flow
from vsn.config import MODELS, DataConfig, Recipe
from vsn.config.recipes import dump_recipe, load_recipe, recipe_folder, unused_settings
from vsn.data.embedded.write import SynthSpec, write_dataset
from vsn.data.flow.values import FlowMetadata, write_flow_metadata
from vsn.data.open import open_datasets
from vsn.models import build_model
from vsn.models.backbones import build_backbone
from vsn.models.layers import ShiftConv2d, ShuffleConv2d
from vsn.runs.run import read_metrics
from vsn.training.train import train

ROOT = Path(__file__).parents[2]
RECIPES = sorted(recipe_folder().glob("*.toml"))
each_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


@pytest.fixture(scope="session")
def data_sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DataConfig]:
    """By `data.source`: how to read a tiny look-alike; filled as recipes ask for it."""
    return {}


@pytest.fixture(scope="session")
def stepped() -> dict[str, Path]:
    """By what is left of a recipe when it is made small: the run. Many differ only in size."""
    return {}


def look_alike(recipe: Recipe, made: dict[str, DataConfig], folders: pytest.TempPathFactory) -> DataConfig:
    source = recipe.data.source
    if source not in made:
        root = folders.mktemp("data")
        if source == "synthetic":
            write_dataset(root, SHORT_VIDEOS, num_workers=1, progress=False)
            made[source] = DataConfig(root=str(root), source="synthetic")
        else:
            made[source] = LOOKALIKES["frame-folders" if source == "folder" else source](root)
    if recipe.model.extra_input == "boxes":
        lay_boxes(made[source])
    if not recipe.model.reads_flow:
        return made[source]
    if f"flow of {source}" not in made:
        made[f"flow of {source}"] = lay_flow(made[source], "id-xy" if source == "something-v1" else "xy")
    if recipe.model.extra_input == "paths":
        backward = lay_flow(made[source], "id-xy", folder="flow_backward")
        write_flow_metadata(Path(backward.root) / backward.flow, FlowMetadata(direction="backward"))
    return made[f"flow of {source}"]


SHORT_VIDEOS = SynthSpec(
    size=96,
    num_seconds=(1.5, 2.0),
    frames_per_second=(12, 16),
    num_train_per_class=1,
    num_val_per_class=1,
    num_test_per_class=1,
)


def weights_file(backbone: str, folders: pytest.TempPathFactory) -> str:
    path = folders.mktemp("weights") / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in build_backbone(backbone).state_dict().items()}, path)
    return str(path)


def on(recipe: Recipe, data: DataConfig) -> Recipe:
    """The recipe on this data, for two steps on this machine; all else is the recipe's."""
    own = replace(recipe.data, root=data.root, source=data.source, num_workers=0)
    count = 20 if data.source == "synthetic" else 12
    batch_size = count if own.task == "arrow" else count // 2  # each video is two records of an arrow
    train_config = replace(recipe.train, epochs=1, batch_size=batch_size, device="cpu", warmup_epochs=0.0)
    return replace(recipe, data=own, train=train_config)


def small(recipe: Recipe, weights: str) -> Recipe:
    """The recipe with a tiny backbone, if it has one, and tiny frames; a 3D network in its thin form, on one view."""
    model, test = recipe.model, recipe.eval
    if model.sees_frames:
        weights = "none" if model.weights == "none" else weights
        model = replace(model, name=f"{model.kind}_resnet14_tiny", weights=weights)
    else:
        backbones = MODELS[model.kind].backbones
        thin = (
            f"{model.kind}_{next((b for b in backbones if b.endswith('_thin')), '')}"
            if model.backbone
            else f"{model.name}_thin"
        )
        name = thin if model.backbone or thin in MODELS else model.name
        model, test = replace(model, name=name, weights="none", num_frames=8), replace(test, protocol="center")
    train_config = replace(recipe.train, partial_bn=recipe.train.partial_bn and model.weights != "none")
    clip = replace(recipe.clip, short_side=36, crop_size=32)
    return replace(recipe, model=model, train=train_config, eval=test, clip=clip)


def test_there_are_recipes_for_each_table_of_the_paper():
    names = {path.stem for path in RECIPES}
    data_sets = ("something-v1", "something-v2", "kinetics", "moments")
    assert {f"paper-{data}-{depth}" for data in data_sets for depth in ("r50", "r101")} <= names
    assert {f"paper-{data}-r50-{model}" for data in data_sets for model in ("tsn", "tsm")} <= names
    flow = {f"paper-{data}-flow-8x{n}" for data in ("something-v1", "kinetics") for n in (1, 5)}
    assert {f"{name}-{row}" for name in flow for row in ("r50", "r101", "r50-tsn", "r101-tsn")} <= names
    assert {f"paper-something-v2-flow-8x{n}-{depth}" for n in (1, 5) for depth in ("r50", "r101")} <= names
    ablations = ("headtail-r50", "headtail-r101", "shuffle-only", "blocks-1", "blocks-2", "blocks-3")
    assert {f"ablation-{data}{one}" for data in ("", "kinetics-") for one in ablations} <= names
    assert "ablation-shift-only" in names
    assert {f"paper-something-v{n}-{end}" for n in (1, 2) for end in ("r50-tsm-16f", "flow-16x5-r50-tsm")} <= names
    peers = ("trn", "mtrn", "eco", "eco-lite", "s3d", "s3dg", "r2plus1d")
    assert {f"demo-{peer}" for peer in peers} <= names
    assert {
        "demo",
        "finetune",
        "differences-cpu",
        "scratch",
        "one-gpu",
        "arrow-of-time",
    } <= names


@each_recipe
def test_the_header_says_what_it_is(path: Path):
    header = path.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    assert all(line.startswith("#") for line in header)
    assert len(header[0]) > 10
    assert header[1] == "#"
    keys = [line[2:12].strip() for line in header]
    assert [word for word in ("command", "hardware", "hours", "accuracy", "source") if word not in keys] == []
    assert f"vsn train {path.stem} " in "\n".join(header)


def results(name: str) -> Any:
    return json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))


def embedded_header(recipe: Recipe) -> list[str]:
    names = {"VSN": "recipe", "TSM": "name=tsm_resnet26_thin", "TSN": "name=tsn_resnet26_thin"}
    runs = {
        model: [run for run in results("embedded-cpu")["runs"] if run["name"] == name] for model, name in names.items()
    }
    top1 = {model: f"{fmean(run['forward']['top1'] for run in of_model):.1%}" for model, of_model in runs.items()}
    hours = min(run["seconds"] for run in runs["VSN"] if run["seconds"]) / 3600  # others shared the machine
    return [
        f"# hours      {hours:.2f} on one core (results/embedded-cpu.json)",
        f"# accuracy   VSN {top1['VSN']}, TSM {top1['TSM']}, TSN {top1['TSN']}, means of {len(runs['VSN'])} seeds "
        "(same file)",
    ]


def peers_header(recipe: Recipe) -> list[str]:
    runs = [run for run in results("peers-embedded-cpu")["runs"] if run["model"] == recipe.model.name]
    top1 = [100 * run["forward"]["top1"] for run in runs]
    hours = min(run["seconds"] for run in runs) / 3600  # others shared the machine
    file = "(results/peers-embedded-cpu.json)"
    return [
        f"# hours      {hours:.2f} on one core {file}",
        f"# accuracy   {fmean(top1):.1f}%, mean of {len(runs)} seeds, sd {stdev(top1):.1f} {file}",
    ]


def arrow_header(recipe: Recipe) -> list[str]:
    runs = {run["run"]: run for run in results("gestures-arrow-cpu")["runs"]}
    top1 = {name: f"{run['test'][0]['top1']:.1%}" for name, run in runs.items()}
    hours = runs["arrow-vsn"]["training_seconds"] / 3600
    return [
        f"# hours      {hours:.1f} for 360 clips on one CPU core (results/gestures-arrow-cpu.json)",
        f"# accuracy   VSN {top1['arrow-vsn']}, TSM {top1['arrow-tsm']}, TSN {top1['arrow-tsn']} on clips of unseen people "
        "(same file)",
    ]


def finetune_header(recipe: Recipe) -> list[str]:
    (run,) = [run for run in results("gestures-15-cpu")["runs"] if run["run"] == "gestures-vsn-from-arrow"]
    hours = run["training_seconds"] / 3600
    return [f"# hours      {hours:.1f} for 360 clips on one core, in bf16 (results/gestures-15-cpu.json)"]


def differences_header(recipe: Recipe) -> list[str]:
    (stream, row), *_ = [
        (stream, row)
        for pair in results("two-streams-gestures-cpu")["pairs"]
        for stream, row in zip(pair["streams"], pair["report"]["inputs"], strict=True)
        if (stream["run"], pair["protocol"]) == ("gdiff64", "center")
    ]
    hours = stream["training_seconds"] / 3600
    return [
        f"# hours      {hours:.1f} for 360 clips on one core (results/two-streams-gestures-cpu.json)",
        f'# accuracy   {row["top1"]:.1%} on 90 clips of 15 gestures by unseen people, with data.flip = "swap" (same file)',
    ]


HEADERS: dict[str, Callable[[Recipe], list[str]]] = {
    "embedded-cpu": embedded_header,
    "peers-embedded-cpu": peers_header,
    "gestures-arrow-cpu": arrow_header,
    "gestures-15-cpu": finetune_header,
    "two-streams-gestures-cpu": differences_header,
}
"""The lines with figures of a header, by the file that it names."""


@each_recipe
def test_header_figures_are_those_of_the_file_it_names(path: Path):
    header = path.read_text(encoding="utf-8").split("\n\n")[0]
    figures = [line for line in header.splitlines() if re.match(r"# (hours|accuracy) +(VSN )?\d", line)]
    files = set(re.findall(r"results/([\w-]+)\.json", header))
    if files:
        (name,) = files
        assert figures == HEADERS[name](load_recipe(path))
    else:
        assert [line for line in figures if "(paper, Table" not in line] == []


@each_recipe
def test_every_setting_has_an_effect(path: Path):
    assert unused_settings(load_recipe(path)) == []


@each_recipe
def test_it_trains(
    path: Path,
    data_sets: dict[str, DataConfig],
    stepped: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    quiet: Console,
):
    recipe = load_recipe(path)
    if recipe.model.backbone.startswith("timm/"):
        pytest.importorskip("timm")
    with torch.device("meta"):  # the network itself, in its full size
        model = build_model(replace(recipe.model, num_classes=5))
    kinds = {type(module) for module in model.modules()}
    kind = recipe.model.kind
    assert (ShuffleConv2d in kinds) == (kind == "vsn" and bool(recipe.model.places))
    assert (ShiftConv2d in kinds) == (kind == "tsm" or (kind == "vsn" and recipe.model.shift))

    here = on(recipe, look_alike(recipe, data_sets, tmp_path_factory))
    train_set, _ = open_datasets(here, quiet)  # clips in their full size
    size = recipe.clip.crop_size
    assert train_set[0].clip.shape[-4:] == (recipe.model.num_frames, recipe.model.clip_channels, size, size)

    if "weights" not in stepped:
        stepped["weights"] = Path(weights_file("resnet14_tiny", tmp_path_factory))
    tiny = small(here, str(stepped["weights"]))
    if (key := dump_recipe(tiny)) not in stepped:
        stepped[key] = train(tiny, tmp_path_factory.mktemp("runs") / "run", console=quiet).path
    (line,) = read_metrics(stepped[key])
    assert line["step"] == 2
    assert "val_top1" in line


@pytest.mark.slow
@each_recipe
def test_it_trains_in_its_full_size(
    path: Path, data_sets: dict[str, DataConfig], tmp_path_factory: pytest.TempPathFactory, quiet: Console
):
    recipe = load_recipe(path)
    here = on(recipe, look_alike(recipe, data_sets, tmp_path_factory))
    if recipe.model.weights != "none":
        weights = weights_file(recipe.model.backbone, tmp_path_factory)
        here = replace(here, model=replace(here.model, weights=weights))
    run = train(here, tmp_path_factory.mktemp("runs") / "run", console=quiet)
    assert read_metrics(run.path)[-1]["step"] == 2
