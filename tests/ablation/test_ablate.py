import doctest
import importlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.conftest import TINY_CLASSES
from tests.helpers.held import held_elsewhere
from tests.helpers.tiny_runs import assert_same_weights, rename_data, tiny_recipe
from tests.training.test_train import at_step, interrupt
from vsn.ablation import run as ablate_module
from vsn.ablation.fuse import ENSEMBLES, ensemble_grid, fuse_grid
from vsn.ablation.grid import grid_variants, make_variant, parse_grid, run_name
from vsn.ablation.paper_tables import (
    PAPER_FLOW,
    PAPER_MODELS,
    TABLES,
    Row,
    Table,
    figures_of,
    format_table,
    grid_table,
    make_paper_tables,
    make_tables,
)
from vsn.ablation.plan import AblationSpec, RunState, data_key, describe_states, plan_runs
from vsn.ablation.results import load_ablation
from vsn.ablation.run import ablate, format_tables, merge_ablations, open_ablation, plan_ablation
from vsn.cli import main
from vsn.config import STAGES, ConfigError, ModelConfig, Recipe
from vsn.config.recipes import find_recipe, load_recipe
from vsn.data.embedded.write import SynthSpec, write_dataset
from vsn.data.video import stored_bytes
from vsn.models import build_model
from vsn.models.measure import count_multiply_adds, count_parameters
from vsn.runs.results import find_scores
from vsn.runs.run import RunError
from vsn.scores.metrics import probabilities
from vsn.scores.scores import ScoresError, load_scores
from vsn.system.lock import LockError
from vsn.training import train as train_module
from vsn.training.train import TrainingStopped

BASE = Recipe(model=ModelConfig(name="vsn_resnet14_tiny", num_frames=4))


@pytest.mark.parametrize("name", ["vsn.ablation.grid"])
def test_examples(name: str):
    result = doctest.testmod(importlib.import_module(name))
    assert (result.failed, result.attempted > 0) == (0, True)


# --- grids ---


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("model.block=compact,headtail", "model.block", ("compact", "headtail")),
        ("model.num_frames=4,8", "model.num_frames", (4, 8)),
        ("model.shift=true,False", "model.shift", (True, False)),
        ("model.places=res5,res2+res5", "model.places", (("res5",), ("res2", "res5"))),
        ("train.milestones=1,2+3", "train.milestones", ((1,), (2, 3))),
        ("train.lr=1e-3,.5", "train.lr", (0.001, 0.5)),
        ("clip.crop_positions=5,13", "clip.crop_positions", (5, 13)),
        ("clip.crop_scales=1+0.5", "clip.crop_scales", ((1.0, 0.5),)),
        ("model.weights=none,7", "model.weights", ("none", "7")),
    ],
)
def test_values_are_read_as_the_setting_is(text: str, key: str, values: tuple[Any, ...]):
    grid = parse_grid([text])
    assert grid == {key: values}
    assert list(map(type, grid[key])) == list(map(type, values))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["model.block"], r"--grid takes SETTING=VALUE,VALUE .*'model\.block'"),
        (["block=compact"], "--grid takes SETTING=VALUE,VALUE .*'block=compact'"),
        (["model.block="], "--grid takes SETTING=VALUE,VALUE"),
        (["train.seed=0,1"], r"train\.seed.*--seeds"),
        (["eval.protocol=fcn,center"], r"eval\.protocol.*`vsn eval`"),
        (["model.num_frames=4", "model.num_frames=8"], r"model\.num_frames twice"),
        (["model.num_frames=4,8,4"], r"model\.num_frames=4,8,4 .*twice"),
        (["model.blok=compact"], "unknown setting 'model.blok'; did you mean 'model.block'"),
        (["modle.block=compact"], "unknown setting 'modle'; did you mean 'model'"),
        (["model.block=compct"], "--grid model.block=compct: model.block is 'compct'; allowed: 'compact', 'headtail'"),
        (["model.num_frames=4,x"], "model.num_frames is 'x'; it must be of type int"),
        (["model.shift=1"], "model.shift is '1'; it must be of type bool"),
        (["model.num_frames=0"], "--grid model.num_frames=0: model.num_frames is 0"),
        (["model.places=res2+res2"], "model.places is .*res2.*at most once"),
    ],
)  # fmt: skip
def test_grids_that_cannot_be_run(texts: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        grid_variants(BASE, parse_grid(texts))


def test_every_combination_the_last_setting_fastest():
    grid = parse_grid(["model.block=compact,headtail", "model.num_frames=2,4"])
    variants = grid_variants(BASE, grid)
    assert [(values, variant.name) for values, variant in variants.items()] == [
        (("compact", 2), "num_frames=2"),
        (("compact", 4), "recipe"),
        (("headtail", 2), "num_frames=2,block=headtail"),
        (("headtail", 4), "block=headtail"),
    ]
    changed = replace(BASE, model=replace(BASE.model, num_frames=2, block="headtail"))
    assert variants["headtail", 2].recipe == changed
    table = grid_table(BASE, grid)
    assert table.columns == ("model.block", "model.num_frames")
    assert [row.labels for row in table.rows] == [
        ("compact", "2"), ("compact", "4"), ("headtail", "2"), ("headtail", "4"),
    ]  # fmt: skip


def test_names_are_fit_for_folders_and_tell_runs_apart():
    assert run_name({}) == "recipe"
    long = {"model.weights": "x" * 200}
    assert len(run_name(long)) == 160 + 9
    assert run_name(long) != run_name({"model.weights": "x" * 201})
    slashed, dashed = (make_variant(BASE, {"model.weights": w}).name for w in ("a/b", "a-b"))
    assert dashed == "weights=a-b"
    assert slashed.startswith("weights=a-b-")


# --- rows of the paper's tables ---


def models_of(table: Table) -> dict[tuple[str, ...], list[ModelConfig]]:
    return {row.labels: [variant.recipe.model for variant in row.variants] for row in table.rows}


def test_table_7_is_the_block():
    (table,) = make_paper_tables(7, BASE)
    assert models_of(table) == {
        ("resnet14_tiny", "baseline"): [replace(BASE.model, name="tsn_resnet14_tiny")],
        ("resnet14_tiny", "headtail"): [replace(BASE.model, block="headtail")],
        ("resnet14_tiny", "compact"): [BASE.model],
    }
    assert [row.paper for row in table.rows] == [(71.5, 20.2), (72.1, 43.2), (73.5, 46.6)]


def test_table_7_of_two_backbones():
    (table,) = make_paper_tables(7, BASE, ["resnet14_tiny", "resnet26_thin"])
    assert [(row.labels[0], row.paper, row.baseline) for row in table.rows[3:]] == [
        ("resnet26_thin", (72.8, 22.7), None),
        ("resnet26_thin", (74.0, 44.5), ("resnet26_thin", "baseline")),
        ("resnet26_thin", (75.4, 47.8), ("resnet26_thin", "baseline")),
    ]
    (table,) = make_paper_tables(7, BASE, ["resnet101", "resnet50"])  # by depth, not by place
    assert [(row.labels[0], row.paper) for row in table.rows if row.labels[1] == "compact"] == [
        ("resnet101", (75.4, 47.8)), ("resnet50", (73.5, 46.6)),
    ]  # fmt: skip


def test_table_8_takes_every_placement_without_shift():
    table, single = make_paper_tables(8, BASE)
    assert [len(row.variants) for row in table.rows] == [1, 4, 6, 4, 1, 1]
    models = models_of(table)
    for count in (1, 2, 3, 4):
        expected = dict.fromkeys(combinations(STAGES, count), False)
        assert {model.places: model.shift for model in models[str(count),]} == expected
    assert models["0",] == [replace(BASE.model, name="tsn_resnet14_tiny")]
    assert models["4, and shift",] == [BASE.model]
    assert [row.paper and row.paper[1] for row in table.rows] == [20.2, 40.7, 42.2, 43.9, 46.0, 46.6]
    assert [row.labels[0] for row in single.rows] == [
        "+".join(places) for count in (1, 2, 3, 4) for places in combinations(STAGES, count)
    ]


def test_table_9_is_shift_shuffle_and_both():
    (table,) = make_paper_tables(9, BASE)
    assert models_of(table) == {
        ("baseline",): [replace(BASE.model, name="tsn_resnet14_tiny")],
        ("+ temporal shift",): [replace(BASE.model, name="tsm_resnet14_tiny")],
        ("+ video shuffle",): [replace(BASE.model, shift=False)],
        ("+ combination",): [BASE.model],
    }


def test_rows_do_not_depend_on_what_the_recipe_has_itself():
    """A recipe of a TSM, or of a VSN with other blocks, results in the same networks."""
    others = (
        replace(BASE.model, name="tsm_resnet14_tiny"),
        replace(BASE.model, block="headtail", places=("res5",), shift=False),
    )
    for other in others:
        for ours, theirs in zip(
            make_paper_tables(8, BASE)[0].rows, make_paper_tables(8, replace(BASE, model=other))[0].rows, strict=True
        ):
            for one, two in zip(ours.variants, theirs.variants, strict=True):
                if one.recipe.model.name.startswith("vsn"):
                    assert one.recipe.model == two.recipe.model
                else:
                    assert one.recipe.model.name == two.recipe.model.name


def test_table_5_needs_flow(monkeypatch):
    """Eight rows when a model can see flow; else the reason, and the other tables all the same."""
    asked: list[dict[str, Any]] = []

    def note(base: Recipe, settings: dict[str, Any], where: str) -> Any:
        asked.append(dict(settings))
        return make_variant(base, {}, where)

    monkeypatch.setattr("vsn.ablation.paper_tables.make_variant", note)
    (table,) = make_paper_tables(5, BASE, ["resnet50", "resnet101"])
    assert [row.labels for row in table.rows] == [
        ("resnet50", "4 x 1"), ("resnet50", "4 x 5"), ("resnet101", "4 x 1"), ("resnet101", "4 x 5"),
        ("VSN resnet50", "4 x 1"), ("VSN resnet50", "4 x 5"), ("VSN resnet101", "4 x 1"), ("VSN resnet101", "4 x 5"),
    ]  # fmt: skip
    assert [row.paper for row in table.rows] == list(PAPER_FLOW.values())
    assert asked[1] == {
        "model.name": "tsn_resnet50", "model.modality": "flow", "model.flow_length": 5,
        "clip.crop_scales": [1.0, 0.875, 0.75],
    }  # fmt: skip
    assert asked[4]["model.name"] == "vsn_resnet50"

    def refuse(*_: object) -> None:
        raise ConfigError("no flow")

    monkeypatch.setitem(TABLES, 5, refuse)
    tables, missing = make_tables(BASE, [5, 9], {}, [])
    assert ([table.key for table in tables], missing) == (["9"], {"5": "no flow"})


def test_tables_that_do_not_exist():
    with pytest.raises(ConfigError, match="--tables has 6"):
        make_paper_tables(6, BASE)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"--backbones .* 3"):
        make_paper_tables(7, BASE, ["a", "b", "c"])


# --- figures and layout ---


def result(name: str, seed: int, top1: float, shuffled: float | None = None, **more: Any) -> dict[str, Any]:
    found = {
        "name": name,
        "seed": seed,
        "model": "m",
        "forward": {"top1": top1, "num_videos": 9, "split": "test"},
    }
    return found | ({} if shuffled is None else {"shuffled": {"top1": shuffled}}) | more


def slow_figures(groups: dict[str, dict[int, float]]) -> tuple[float, float | None]:
    """Mean of means over seeds; deviation of the seeds that have every variant. Loops only."""
    means = [sum(by_seed.values()) / len(by_seed) for by_seed in groups.values() if by_seed]
    seeds = [
        sum(by_seed[seed] for by_seed in groups.values()) / len(groups)
        for seed in range(10)
        if all(seed in by_seed for by_seed in groups.values())
    ]
    if len(seeds) < 2:
        return sum(means) / len(means), None
    middle = sum(seeds) / len(seeds)
    return sum(means) / len(means), (sum((s - middle) ** 2 for s in seeds) / (len(seeds) - 1)) ** 0.5


@pytest.mark.parametrize(
    "groups",
    [
        {"a": {0: 0.5}},
        {"a": {0: 0.5, 1: 0.7, 2: 0.9}},
        {"a": {0: 0.1, 1: 0.2}, "b": {0: 0.4, 1: 0.9}},
        {"a": {0: 0.1, 1: 0.2, 2: 0.6}, "b": {0: 0.4, 2: 0.9}},
        {"a": {0: 0.1}, "b": {}},
        {"a": {0: 0.1}, "b": {1: 0.5, 2: 0.6}},
    ],
)
def test_figures(groups: dict[str, dict[int, float]]):
    row = Row(("x",), tuple(replace(make_variant(BASE, {}), name=name) for name in groups))
    results = [result(name, seed, top1) for name, own in groups.items() for seed, top1 in own.items()]
    found = figures_of(row, [*results, result("other", 0, 1.0)], num_seeds=3)
    expected_mean, expected_stdev = slow_figures(groups)
    assert found is not None
    assert found.mean == pytest.approx(expected_mean)
    assert found.stdev == (None if expected_stdev is None else pytest.approx(expected_stdev))
    assert (found.num_runs, found.num_expected) == (len(results), 3 * len(groups))
    assert figures_of(row, [], num_seeds=3) is None


def test_layout_of_table_9():
    (table,) = make_paper_tables(9, BASE)
    results = [
        *(result("name=tsn_resnet14_tiny", seed, 0.30 + 0.1 * seed, 0.3) for seed in (0, 1)),
        *(result("shift=false", seed, 0.755, 0.25) for seed in (0, 1)),
        result("recipe", 0, 0.961, 0.25),
    ]
    assert (
        format_table(table, results, 2, "nine videos")
        == """\
Table 9. Comparison of video shuffle and temporal shift.
Top-1 in percent. Ours: nine videos. The paper's: ResNets on other data, for the shape of the comparison only.

| Model            |         ours |  sd |   runs | frames shuffled | paper: Kinetics | paper: Sth-V1 |
|------------------|-------------:|----:|-------:|----------------:|----------------:|--------------:|
| baseline         |         35.0 | 7.1 |      2 |            30.0 |            71.5 |          20.2 |
| + temporal shift |            - |   - |      0 |               - |     72.4 (+0.9) |  43.4 (+23.2) |
| + video shuffle  | 75.5 (+40.5) | 0.0 |      2 |            25.0 |     73.3 (+1.8) |  46.0 (+25.8) |
| + combination    | 96.1 (+61.1) |   - | 1 of 2 |            25.0 |     73.5 (+2.0) |  46.6 (+26.4) |"""
    )


def test_layout_of_table_8_averages_placements():
    table, single = make_paper_tables(8, BASE)
    results = [result("name=tsn_resnet14_tiny", 0, 0.2)]
    results += [result(f"places={stage},shift=false", 0, 0.1 * i) for i, stage in enumerate(STAGES, 5)]
    results += [result("places=res2+res3,shift=false", 0, 0.9)]
    text = format_table(table, results, 1, "x")
    assert "| 1            | 65.0 (+45.0) |  - |      4 |     72.2 (+0.7) |  40.7 (+20.5) |" in text
    assert "| 2            | 90.0 (+70.0) |  - | 1 of 6 |     73.0 (+1.5) |  42.2 (+22.0) |" in text
    assert 'row 4 is compared with its "+ video shuffle" of Table 9' in text
    text = format_table(single, results, 1, "x")
    assert "| res5                | 80.0 |  - |    1 |" in text
    assert "paper" not in text.lower()


def test_layout_of_a_grid_shows_cost_if_it_differs():
    table = grid_table(BASE, parse_grid(["model.num_frames=2,4"]))
    results = [
        result("num_frames=2", 0, 0.5, multiply_adds=2_000_000),
        result("recipe", 0, 0.75, multiply_adds=4_000_000_000),
    ]
    assert format_table(table, results, 1, "x").splitlines()[3:] == [
        "| model.num_frames | ours | sd | runs | multiply-adds |",
        "|------------------|-----:|---:|-----:|--------------:|",
        "| 2                | 50.0 |  - |    1 |         2.00M |",
        "| 4                | 75.0 |  - |    1 |         4.00G |",
    ]


def test_the_papers_gains_are_its_own():
    """The gains in brackets are the superscripts of the paper, which we do not store."""
    gains = [round(PAPER_MODELS[name][1] - PAPER_MODELS["baseline"][1], 1) for name in PAPER_MODELS]
    assert gains == [0.0, 23.2, 25.8, 26.4]


# --- plans ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"--tables.*--grid"),
        ({"tables": (7,), "seeds": ()}, r"--seeds .*\[\]"),
        ({"tables": (7,), "seeds": (1, 1)}, r"--seeds .*\[1, 1\]"),
        ({"tables": (7,), "seeds": (-1,)}, r"--seeds .*\[-1\]"),
    ],
)
def test_invalid_specs(settings: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        AblationSpec(**settings)


def test_tables_share_runs_and_runs_share_data(tmp_path: Path):
    tables, _ = make_tables(BASE, [7, 8, 9], parse_grid(["model.num_frames=2,4", "model.shift_div=4,8"]), [])
    runs = plan_runs(tables, [0, 1], tmp_path)
    assert len({run.path for run in runs}) == len(runs) == 2 * (19 + 3)
    keys = [data_key(run.recipe) for run in runs]
    switches = sum(a != b for a, b in pairwise(keys))
    assert (len(set(keys)), switches) == (4, 3)  # two seeds, T of 4 and 2: each set of clips is opened once
    assert [run.seed for run in runs] == [0] * 22 + [1] * 22


def test_the_embedded_set_is_made_for_each_seed_unless_there_is_one(tmp_path: Path):
    made = replace(BASE, data=replace(BASE.data, source="synthetic"))
    tables, _ = make_tables(made, [9], {}, [])
    roots = [run.recipe.data.root for run in plan_runs(tables, [0, 7], tmp_path)]
    assert set(roots) == {str(tmp_path / "videos-seed0"), str(tmp_path / "videos-seed7")}
    tables, _ = make_tables(replace(made, data=replace(made.data, root="mine")), [9], {}, [])
    assert {run.recipe.data.root for run in plan_runs(tables, [0, 7], tmp_path)} == {"mine"}


def test_estimates_are_of_the_same_model_where_there_are_any(tmp_path: Path):
    runs = {run.variant.name: run for run in plan_runs(make_paper_tables(9, BASE), [0], tmp_path)}
    results = [
        result("a", 0, 0.5, seconds=10.0) | {"model": "tsn_resnet14_tiny"},
        result("b", 0, 0.5, seconds=40.0) | {"model": "tsm_resnet14_tiny"},
        result("c", 0, 0.5, seconds=None),
    ]
    assert runs["name=tsn_resnet14_tiny"].estimate_seconds(results) == 10.0
    assert runs["recipe"].estimate_seconds(results) == 25.0
    assert runs["recipe"].estimate_seconds([]) is None


def test_describe_states():
    states = [
        RunState("a", 0, "done", epochs=9, epochs_done=9, seconds_left=0.0),
        RunState("b", 0, "begun", epochs=9, epochs_done=3, seconds_left=1200.0),
        RunState("b", 1, "to do", epochs=9, epochs_done=0, seconds_left=1800.0),
    ]
    assert describe_states(states).splitlines() == [
        "done   a, seed 0",
        "begun  b, seed 0 (3 of 9 epochs done), about 20.0 minutes",
        "to do  b, seed 1, about 30.0 minutes",
        "1 of 3 runs done, 2 left: about 0.8 hours.",
    ]
    unknown = describe_states([replace(states[2], seconds_left=None)])
    assert unknown.endswith("0 of 1 runs done, 1 left: time unknown until a run has finished.")


# --- runs ---


@pytest.fixture(scope="module")
def ablated(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory, quiet: Console) -> tuple[Path, Recipe]:
    """Table 9, one epoch, two seeds of the one, frames shuffled too. Not to be changed: copy it."""
    recipe, out = tiny_recipe(tiny_data, epochs=1), tmp_path_factory.mktemp("ablation")
    ablate(recipe, AblationSpec(tables=(9,), shuffled=True), out, command="vsn ablate r.toml", console=quiet)
    return out, recipe


def test_one_file_holds_runs_figures_and_what_they_were_measured_with(ablated: tuple[Path, Recipe]):
    out, recipe = ablated
    facts = load_ablation(out / "ablation.json")
    assert set(facts) == {
        "commands", "date", "versions", "recipe", "tables", "grid", "backbones", "seeds", "runs", "missing", "figures",
    }  # fmt: skip
    assert facts["commands"] == ["vsn ablate r.toml"]
    assert facts["recipe"] == recipe.to_dict()
    names = ["name=tsn_resnet14_tiny", "name=tsm_resnet14_tiny", "shift=false", "recipe"]
    assert [(run["name"], run["seed"]) for run in facts["runs"]] == [(name, 0) for name in names]
    run = facts["runs"][2]
    assert run["settings"] == {"model.shift": False}
    assert set(run["hardware"]) == {"torch", "processor", "gpu", "num_threads"}
    assert set(run["forward"]) == set(run["shuffled"]) | {"per_class"}
    assert (run["forward"]["num_videos"], run["forward"]["split"], run["epochs"]) == (3, "test", 1)
    assert len({run["parameters"] for run in facts["runs"]}) == 1
    assert run["seconds"] > 0
    figures = facts["figures"]["9"]
    assert [f["ours"]["mean"] for f in figures] == [run["forward"]["top1"] for run in facts["runs"]]
    assert figures[2]["paper"] == {"kinetics": 73.3, "something-v1": 46.0}
    text = format_tables(facts)
    assert text.startswith("Table 9. Comparison of video shuffle and temporal shift.\nTop-1 in percent. Ours: ")
    assert "3 videos of split test, protocol fcn, resnet14_tiny, T = 4, 1 epochs, seeds 0." in text


def test_a_caption_names_what_the_rows_were_trained_with(ablated: tuple[Path, Recipe]):
    ablation = load_ablation(ablated[0] / "ablation.json")
    ablation["tables"], ablation["backbones"] = [8], ["resnet26_thin", "resnet14_tiny"]
    ablation["grid"] = {"model.num_frames": [4, 2], "train.epochs": [1, 3]}
    table, placements, grid = (line for line in format_tables(ablation).splitlines() if line.startswith("Top-1"))
    assert "protocol fcn, resnet26_thin, T = 4, 1 epochs" in table
    assert "protocol fcn, resnet26_thin, T = 4, 1 epochs" in placements
    assert "protocol fcn, resnet14_tiny, T = 4 or 2, 1 or 3 epochs" in grid


def test_one_writer_at_a_time(tiny_data: Path, tmp_path: Path, quiet: Console):
    with held_elsewhere(tmp_path / "out") as pid, pytest.raises(LockError, match=str(pid)):
        ablate(tiny_recipe(tiny_data), AblationSpec(tables=(9,)), tmp_path / "out", console=quiet)


def test_the_results_are_those_of_the_runs(ablated: tuple[Path, Recipe]):
    out, _ = ablated
    for run in load_ablation(out / "ablation.json")["runs"]:
        for order in ("forward", "shuffled"):
            path = out / "runs" / f"{run['name']}-seed0" / "eval" / f"test-fcn-{order}.json"
            assert json.loads(path.read_text())["top1"] == run[order]["top1"]


def copied(out: Path, to: Path) -> Path:
    return Path(shutil.copytree(out, to / "copy"))


def weights_times(out: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("runs/*/model.safetensors")}


def test_the_runs_of_a_grid_are_fused_seed_by_seed(ablated: tuple[Path, Recipe], tmp_path: Path):
    out, recipe = copied(ablated[0], tmp_path), ablated[1]
    grid = parse_grid(["model.shift=true,false"])
    (fused,) = fuse_grid(recipe, AblationSpec(grid=grid), out)
    files = [out / "runs" / f"{name}-seed0" for name in ("recipe", "shift=false")]
    parts = [load_scores(file) for file in find_scores(files)]
    assert (fused.seed, fused.report.num_videos) == (0, len(parts[0].video_ids))
    expected = sum(probabilities(part) for part in parts) / 2
    np.testing.assert_allclose(probabilities(load_scores(fused.file)), expected, rtol=1e-5)
    assert [row.name for row in fused.report.inputs] == ["recipe", "shift=false"]
    assert fused.report.fused.costs.parameters == sum(row.costs.parameters for row in fused.report.inputs)

    shutil.rmtree(files[1])
    with pytest.raises(ScoresError, match="shift=false-seed0"):
        fuse_grid(recipe, AblationSpec(grid=grid), out)
    with pytest.raises(ConfigError, match="--fuse needs two runs"):
        fuse_grid(recipe, AblationSpec(grid=parse_grid(["model.shift=true"])), out)


def test_networks_that_take_paths_and_boxes_train_on_the_embedded_set(tmp_path: Path, quiet: Console):
    demo = load_recipe(find_recipe("demo"))
    small = replace(
        demo,
        clip=replace(demo.clip, short_side=32, crop_size=32),
        train=replace(demo.train, epochs=1, batch_size=4, device="cpu"),
    )
    counts = {"num_train_per_class": 2, "num_val_per_class": 1, "num_test_per_class": 1}
    synth = SynthSpec(**counts, groups=("vertical",), num_seconds=(1.5, 2.0))
    names = ("trajectory_resnet18_thin", "gcn_resnet26_thin")
    grid = parse_grid([f"model.name={','.join(names)}"])
    ablation = ablate(small, AblationSpec(grid=grid), tmp_path, synth=synth, console=quiet)
    assert [run["name"] for run in ablation["runs"]] == [f"name={name}" for name in names]
    assert all(run["forward"]["num_videos"] == 2 for run in ablation["runs"])


def test_the_published_ensemble_costs_what_the_paper_states():
    base = Recipe(model=ModelConfig(name="eco_lite", num_classes=400))
    models = [
        variant.recipe.model for variant in grid_variants(base, parse_grid(ensemble_grid("eco-en-lite", base))).values()
    ]
    assert sum(model.num_frames for model in models) == 92
    with torch.device("meta"):
        parameters = sum(count_parameters(build_model(model)) for model in models)
    assert parameters / 1e6 == pytest.approx(150, abs=0.05)  # the paper's Table 2
    assert sum(count_multiply_adds(model, size=224) for model in models) / 1e9 == pytest.approx(267, abs=0.5)
    assert len(grid_variants(base, parse_grid(ENSEMBLES["eco-en-lite-rf"]))) == 8
    with pytest.raises(ConfigError, match=r"'vsn_resnet14_tiny'.*'eco_lite'"):
        ensemble_grid("eco-en-lite", BASE)


def test_finished_runs_are_kept_and_more_is_added(
    ablated: tuple[Path, Recipe], tmp_path: Path, quiet: Console, monkeypatch
):
    out, recipe = copied(ablated[0], tmp_path), ablated[1]
    before = weights_times(out)
    trained: list[str] = []
    opened: list[int] = []
    train, open_datasets = train_module.train, ablate_module.open_datasets

    def note_train(recipe: Recipe, path: Path, **more: Any) -> Any:
        trained.append(path.name)
        return train(recipe, path, **more)

    def note_open(recipe: Recipe, console: Console) -> Any:
        opened.append(recipe.train.seed)
        return open_datasets(recipe, console)

    monkeypatch.setattr(train_module, "train", note_train)
    monkeypatch.setattr(ablate_module, "open_datasets", note_open)
    ablate(recipe, AblationSpec(tables=(9,)), out, console=quiet)
    assert (trained, opened) == ([], [])

    # Another seed of a grid that has one network in common with the table: both its runs, on data opened once.
    grid = parse_grid(["model.shift=true,false"])
    facts = ablate(recipe, AblationSpec(grid=grid, seeds=(1,)), out, command="more", console=quiet)
    assert (trained, opened) == (["recipe-seed1", "shift=false-seed1"], [1])
    assert weights_times(out).items() >= before.items()
    assert (facts["seeds"], facts["tables"], facts["commands"]) == (
        [0, 1],
        [9],
        ["vsn ablate r.toml", "more"],
    )
    assert [f["ours"]["num_runs"] for f in facts["figures"]["9"]] == [1, 1, 2, 2]
    top1 = [r["forward"]["top1"] for r in facts["runs"] if r["name"] == "recipe"]
    assert facts["figures"]["grid"][0]["ours"]["mean"] == pytest.approx(mean(top1))
    assert facts["figures"]["grid"][0]["ours"]["stdev"] == pytest.approx(stdev(top1))
    assert "| model.shift |" in format_tables(facts)

    # A result outlives its run folder; a result without one of the orders is tested again, not trained again.
    shutil.rmtree(out / "runs" / "name=tsm_resnet14_tiny-seed0")
    ablate(recipe, AblationSpec(grid=grid, seeds=(1,), shuffled=True), out, console=quiet)
    assert len(trained) == 2
    facts = load_ablation(out / "ablation.json")
    assert [("shuffled" in run) for run in facts["runs"]] == [True] * 6


def test_an_interrupted_ablation_resumes(
    ablated: tuple[Path, Recipe], tiny_data: Path, tmp_path: Path, quiet: Console, monkeypatch
):
    """Stopped in the second of four runs: the first is kept, the second resumes within its epoch."""
    whole, recipe = ablated
    out, spec = tmp_path / "out", AblationSpec(tables=(9,), shuffled=True)
    with monkeypatch.context() as patch:
        at_step(patch, 5, interrupt)
        message = "epoch 1 after 2 of 3 steps of name=tsm_resnet14_tiny-seed0"
        with pytest.raises(TrainingStopped, match=message):
            ablate(recipe, spec, out, console=quiet)
    assert [run["name"] for run in load_ablation(out / "ablation.json")["runs"]] == ["name=tsn_resnet14_tiny"]
    first = weights_times(out)
    states, _ = plan_ablation(recipe, spec, out)
    assert [state.state for state in states] == ["done", "begun", "to do", "to do"]

    (out / "runs" / "shift=false-seed0").mkdir()  # killed before it had a state
    (out / "runs" / "shift=false-seed0" / "versions.json").write_text("")
    facts = ablate(recipe, spec, out, console=quiet)
    assert weights_times(out).items() >= first.items()
    for path in sorted((whole / "runs").iterdir()):
        assert_same_weights(out / "runs" / path.name, path)
    expected = load_ablation(whole / "ablation.json")
    assert facts["figures"] == expected["figures"]
    states, _ = plan_ablation(recipe, spec, out)
    assert describe_states(states).endswith("4 of 4 runs done, 0 left: about 0.0 hours.")


def test_other_settings_need_another_folder(ablated: tuple[Path, Recipe], tmp_path: Path):
    out, recipe = copied(ablated[0], tmp_path), ablated[1]
    other = replace(recipe, train=replace(recipe.train, lr=0.5))
    message = r"train\.lr was 0\.01 and is 0\.5 .*--out"
    for call in (open_ablation, plan_ablation, ablate):
        with pytest.raises(RunError, match=message):
            call(other, AblationSpec(tables=(9,)), out)
    moved = replace(recipe, data=replace(recipe.data, root="moved"))
    assert open_ablation(moved, AblationSpec(tables=(9,)), out)["recipe"]["data"]["root"] == "moved"


def test_results_of_other_test_videos_are_not_passed_for_those_of_the_data(
    ablated: tuple[Path, Recipe], tiny_data: Path, tmp_path: Path
):
    out, recipe = copied(ablated[0], tmp_path), ablated[1]
    data = shutil.copytree(tiny_data, tmp_path / "data")
    moved = rename_data(recipe, root=str(data))
    assert plan_ablation(moved, AblationSpec(tables=(9,)), out)[0]  # the same videos in another folder
    next(data.iterdir()).rename(data / "other class")
    for seeds in ((0,), (0, 1)):
        for call in (plan_ablation, ablate):
            with pytest.raises(RunError, match=r"tested on 3 videos of .*tiny.*other folder with --out"):
                call(moved, AblationSpec(tables=(9,), seeds=seeds), out)
    shutil.copytree(out, tmp_path / "part")
    facts = load_ablation(tmp_path / "part" / "ablation.json")
    for run in facts["runs"]:
        run["seed"], run["forward"]["videos_hash"], run["forward"]["num_videos"] = 1, "another", 5
    (tmp_path / "part" / "ablation.json").write_text(json.dumps(facts))
    with pytest.raises(
        RunError, match=r"different videos or labels: .* with seed 0 on 3 of .*, and .* with seed 1 on 5 of"
    ):
        merge_ablations([out, tmp_path / "part"], tmp_path / "all")
    # Rows that differ in the data on purpose are tested on other videos.
    for run in facts["runs"]:
        run["settings"]["data.split_seed"] = 1
    (tmp_path / "part" / "ablation.json").write_text(json.dumps(facts))
    assert "3 to 5 videos of split test" in format_tables(merge_ablations([out, tmp_path / "part"], tmp_path / "all"))


def test_unlabeled_test_videos_are_refused_before_the_first_run(tiny_data: Path, tmp_path: Path):
    names = [path.relative_to(tiny_data).as_posix() for path in sorted(tiny_data.rglob("*.mp4"))]
    splits = ("train", "train", "train", "val", "test")
    rows = [f"{name},{name.split('/')[0] if n % 5 < 4 else ''},{splits[n % 5]}" for n, name in enumerate(names)]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,split", *rows]))
    recipe = rename_data(tiny_recipe(tiny_data, epochs=1), source="csv", annotations=str(tmp_path / "clips.csv"))
    for call in (plan_ablation, ablate):
        with pytest.raises(
            ConfigError, match=r"3 of 3 videos of the split 'test' have no label.*data\.test_split .*'val'"
        ):
            call(recipe, AblationSpec(tables=(9,)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def changed_copy(tiny_data: Path, root: Path, *, exchange: bool = False, remove: bool = False) -> Path:
    """The data, with the training videos of two classes exchanged, or without one; the test videos stay."""
    shutil.copytree(tiny_data, root)
    rows = [
        (f"{name}/{i}.mp4", name, "test" if i == 0 else "val" if i == 1 else "train")
        for name in TINY_CLASSES
        for i in range(5)
    ]
    if exchange:
        first, second = (root / name / "3.mp4" for name in TINY_CLASSES[:2])
        content = first.read_bytes()
        first.write_bytes(second.read_bytes() + b"\0")
        second.write_bytes(content)
    rows = rows[:-1] if remove else rows
    (root / "videos.csv").write_text("path,label,split\n" + "".join(",".join(row) + "\n" for row in rows))
    return root


@pytest.mark.parametrize("change", [{"exchange": True}, {"remove": True}])
def test_runs_on_other_training_videos_are_not_pooled(tiny_data: Path, tmp_path: Path, quiet: Console, change: dict):
    """The test videos are the same, with the same names and labels."""
    first, second = changed_copy(tiny_data, tmp_path / "a"), changed_copy(tiny_data, tmp_path / "b", **change)
    spec = AblationSpec(grid=parse_grid(["model.name=tsn_resnet14_tiny"]))

    def run(root: Path, out: str, seed: int) -> None:
        recipe = rename_data(tiny_recipe(root, epochs=1), source="csv")
        ablate(recipe, replace(spec, seeds=(seed,)), tmp_path / out, console=quiet)

    run(first, "one", 0)
    with pytest.raises(RunError, match="trained or tested on other videos, labels or files"):
        run(second, "one", 1)
    run(second, "two", 1)
    with pytest.raises(RunError, match="trained or tested on different videos, labels or files"):
        merge_ablations([tmp_path / "one", tmp_path / "two"], tmp_path / "all")
    (tmp_path / "one" / "ablation.json").unlink()  # only its run is left
    with pytest.raises(RunError, match=r"was begun with other data; since then there are (training|other files)"):
        run(second, "one", 0)
    run(first, "one", 0)


def test_files_of_file_managers_are_no_change(tmp_path: Path):
    for name in ("1.jpg", "2.JPG"):
        (tmp_path / name).write_bytes(b"x" * 10)
    for name in (".DS_Store", "Thumbs.db", "._1.jpg"):
        (tmp_path / name).write_bytes(b"y" * 99)
    assert stored_bytes(tmp_path) == 20


def test_rows_of_a_grid_of_data_sets_stay_when_the_base_moves(tiny_data: Path, tmp_path: Path, quiet: Console):
    first, second = changed_copy(tiny_data, tmp_path / "a"), changed_copy(tiny_data, tmp_path / "b", remove=True)
    spec = AblationSpec(grid=parse_grid([f"data.root={first},{second}"]))
    recipe = rename_data(tiny_recipe(first, epochs=1), source="csv")
    ablate(recipe, spec, tmp_path / "out", console=quiet)
    with pytest.raises(RunError, match=r"data\.root was '.*a' and is '.*b'"):
        ablate(rename_data(recipe, root=str(second)), spec, tmp_path / "out", console=quiet)


def test_parts_of_several_machines_are_merged(ablated: tuple[Path, Recipe], tmp_path: Path, capsys):
    def part(name: str, seed: int, top1: float) -> Path:
        facts = json.loads((ablated[0] / "ablation.json").read_text())
        facts |= {"seeds": [seed], "commands": [name]}
        facts["runs"] = [{**run, "seed": seed} for run in facts["runs"]]
        facts["runs"][0]["forward"] = {**facts["runs"][0]["forward"], "top1": top1}
        (tmp_path / name).mkdir()
        (tmp_path / name / "ablation.json").write_text(json.dumps(facts))
        return tmp_path / name

    parts = [part("a", 1, 0.5), part("b", 0, 0.25), part("again", 0, 1.0)]
    main(["ablate", "--merge", *map(str, parts), "--out", str(tmp_path / "all")])
    joined = load_ablation(tmp_path / "all" / "ablation.json")
    assert (joined["seeds"], joined["commands"], len(joined["runs"])) == ([0, 1], ["a", "b", "again"], 8)
    first = joined["figures"]["9"][0]["ours"]
    assert (first["mean"], first["num_runs"], first["num_expected"]) == (0.375, 2, 2)
    assert capsys.readouterr().out == format_tables(joined) + "\n"
    with pytest.raises(RunError, match=r"ablation\.json exists.*--out"):
        merge_ablations(parts, tmp_path / "all")


def test_values_of_a_grid_are_merged_with_each_other_and_with_tables(ablated: tuple[Path, Recipe], tmp_path: Path):
    def part(folder: str, key: str, *models: str) -> Path:
        facts = json.loads((ablated[0] / "ablation.json").read_text())
        facts |= {"seeds": [0], "tables": [], "grid": {key: list(models)}}
        facts["runs"] = [
            {**facts["runs"][0], "name": f"name={model}", "seed": 0, "settings": {key: model}} for model in models
        ]
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "ablation.json").write_text(json.dumps(facts))
        return tmp_path / folder

    tsm, vsn_ = "tsm_resnet14_tiny", "vsn_resnet14_tiny"
    parts = [part("a", "model.name", tsm), part("b", "model.name", tsm, vsn_)]
    joined = merge_ablations(parts, tmp_path / "all")
    assert joined["grid"] == {"model.name": [tsm, vsn_]}
    assert [run["name"] for run in joined["runs"]] == [f"name={tsm}", f"name={vsn_}"]
    assert [row["labels"] for row in joined["figures"]["grid"]] == [[tsm], [vsn_]]
    for name, order in (("after", [ablated[0], *parts]), ("before", [*parts, ablated[0]])):
        joined = merge_ablations(order, tmp_path / name)
        assert (joined["tables"], joined["grid"]) == ([9], {"model.name": [tsm, vsn_]})
        assert [row["labels"] for row in joined["figures"]["grid"]] == [[tsm], [vsn_]]
        assert [row["ours"]["num_runs"] for row in joined["figures"]["9"]] == [1, 1, 1, 1]
    with pytest.raises(RunError, match=r"c and .*a differ in grid"):
        merge_ablations([ablated[0], parts[0], part("c", "model.block", "compact")], tmp_path / "other")


def test_only_parts_of_one_ablation_are_merged(ablated: tuple[Path, Recipe], tmp_path: Path):
    out = copied(ablated[0], tmp_path)
    facts = load_ablation(out / "ablation.json")
    facts["recipe"]["train"]["lr"] = 0.5
    (out / "ablation.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match=r"differ in train\.lr"):
        merge_ablations([ablated[0], out], tmp_path / "all")
    assert not (tmp_path / "all").exists()


EDITED = {"name": "a", "seed": 0, "settings": {}, "model": "m", "forward": {"top1": 0.5}}


def edited_file(runs: object) -> str:
    return json.dumps(
        {"recipe": {}, "tables": [], "grid": {}, "backbones": [], "seeds": [], "commands": [], "runs": runs}
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not the ablation.json"),
        ("[]", "is not the ablation.json"),
        ('{"runs": []}', "lacks backbones, co"),
        (edited_file(None), "its runs are not a list"),
        (edited_file([{"name": "a", "seed": 0}]), "run 1 lacks forward, model, settings"),
        (edited_file([EDITED | {"forward": {"top1": "33,3"}}]), "top1 of run 1 with its frames forward is no number"),
        (edited_file([EDITED, EDITED]), "it has 'a' with seed 0 twice"),
    ],
)
def test_invalid_files(tmp_path: Path, text: str, message: str):
    with pytest.raises(RunError, match=r"a\.json does not exist"):
        load_ablation(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(RunError, match=message):
        load_ablation(tmp_path / "a.json")


def test_impossible_networks_are_refused_before_any_run(tiny_data: Path, tmp_path: Path, quiet: Console):
    recipe = tiny_recipe(tiny_data)
    grid = parse_grid(["model.block=compact,headtail", "model.num_frames=4,64"])
    with pytest.raises(ConfigError, match="64"):
        ablate(recipe, AblationSpec(grid=grid), tmp_path / "out", console=quiet)
    assert not (tmp_path / "out").exists()


def test_table_5_without_stored_flow_leaves_the_others(
    tiny_data: Path, tmp_path: Path, log: tuple[Console, Callable[[], str]]
):
    recipe = tiny_recipe(tiny_data, epochs=1)
    spec = AblationSpec(tables=(5,), grid={"model.shift": (True,)})
    facts = ablate(recipe, spec, tmp_path / "out", console=log[0])
    assert [run["name"] for run in facts["runs"]] == ["recipe"]
    assert "Table 5 is missing: " in format_tables(facts)
    assert "| model.shift |" in format_tables(facts)


def test_missing_flow_leaves_out_only_table_5(tiny_data: Path, tmp_path: Path, quiet: Console, monkeypatch):
    """Stored flow is looked for when its data is opened; here clips of T = 2 stand for it."""
    recipe, out = tiny_recipe(tiny_data, epochs=1), tmp_path / "out"
    opened: list[str] = []

    def flow_table(base: Recipe, _: Any) -> list[Table]:
        variants = [make_variant(base, {"model.num_frames": 2, "model.shift": shift}) for shift in (True, False)]
        return [Table("5", "Five.", ("#",), tuple(Row((x,), (one,)) for x, one in zip("xy", variants, strict=True)))]

    def open_datasets(recipe: Recipe, console: Console) -> Any:
        if recipe.model.num_frames == 2:
            opened.append(recipe.model.name)
            raise ConfigError("no flow here")
        return usual(recipe, console)

    usual = ablate_module.open_datasets
    monkeypatch.setitem(TABLES, 5, flow_table)
    monkeypatch.setattr(ablate_module, "open_datasets", open_datasets)
    grid = {"model.shift": (True,)}
    facts = ablate(recipe, AblationSpec(tables=(5,), grid=grid), out, console=quiet)
    assert ([run["name"] for run in facts["runs"]], facts["missing"]) == (["recipe"], {"5": "no flow here"})
    assert "| x |    - |  - |    0 |" in format_tables(facts)
    assert len(opened) == 1  # the two runs share their data, which is looked for once
    later = ablate(recipe, AblationSpec(grid=grid), out, console=quiet)
    assert later["missing"] == {"5": "no flow here"}
    with pytest.raises(ConfigError, match="no flow here"):  # of any other table it is an error
        ablate(recipe, AblationSpec(grid={"model.num_frames": (2,)}), out, console=quiet)


def test_the_embedded_set_is_made_and_kept(tmp_path: Path, quiet: Console):
    recipe = tiny_recipe(Path(), epochs=1)
    recipe = replace(recipe, data=replace(recipe.data, root="", source="synthetic", cache="memory"))
    spec = SynthSpec(
        size=96, num_train_per_class=1, num_val_per_class=1, num_test_per_class=1, num_seconds=(1.0, 2.0),
        frames_per_second=(12, 24), groups=("horizontal",),
    )  # fmt: skip
    facts = ablate(recipe, AblationSpec(grid={"model.shift": (True,)}, seeds=(3,)), tmp_path, synth=spec, console=quiet)
    assert (tmp_path / "videos-seed3").is_dir()
    write_dataset(tmp_path / "videos-seed3", replace(spec, seed=3))  # refuses a set of another seed
    assert facts["runs"][0]["forward"]["split"] == "test"
    assert facts["recipe"]["data"]["root"] == ""
    assert "Ours: the embedded data set, " in format_tables(facts)
