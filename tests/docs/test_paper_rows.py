"""The page of the paper's tables has every row of the paper, with counts, causes and recipes that fit."""

import json
from dataclasses import replace
from types import ModuleType

import pytest

from tests.helpers.docs_pages import ROOT, script
from vsn.config import ConfigError
from vsn.config.bench import paper_input
from vsn.config.recipes import find_recipe, load_recipe

rows: ModuleType = script("paper_rows")
tables: ModuleType = script("paper_row_tables")

# Top-1 (and top-5) as the paper prints them, row by row: an independent transcription.
PAPER = {
    "2": [
        "19.5 33.4", "34.4 33.6 48.8 50.9", "42.0 40.7 55.5 56.2", "41.4", "46.4 42.3", "49.5 43.9", "41.6", "44.4",
        "46.1 45.0", "47.8", "43.4 59.1", "44.8 59.4 60.4", "50.2 47.0 64.0 64.3", "46.6 60.6", "38.8 53.8", "51.6 65.3",
        "47.8 61.6", "41.4 56.7", "49.2 46.8 63.2 64.6", "52.7 49.9 65.8 66.1",
    ],
    "3": [
        "71.5 90.2", "75.0 91.9", "75.1 91.6", "75.3 92.4", "72.1 90.3", "74.3 91.4", "74.7 93.4", "77.5 93.2", "77.7 93.3",
        "79.8 93.9", "73.5 91.3", "75.4 92.2", "77.6 93.7",
    ],
    "4": [
        "24.11", "25.32 50.10", "25.97", "28.27 53.87", "27.16 51.68", "29.51 56.06", "30.10 57.20", "31.50 57.90",
        "32.40 60.00", "31.74 58.66", "32.65 61.47",
    ],
    "5": ["47.5 27.0", "54.8 34.3", "49.7 29.2", "56.5 34.3", "53.0 33.7", "56.7 37.5", "56.0 36.1", "60.1 41.4"],
    "6": ["41.6", "20.2", "22.7", "41.4", "43.4", "44.5", "46.5"],
    "7": ["71.5 20.2", "72.1 43.2", "73.5 46.6", "72.8 22.7", "74.0 44.5", "75.4 47.8"],
    "8": ["71.5 20.2", "72.2 40.7", "73.0 42.2", "72.8 43.9", "73.5 46.6"],
    "9": ["71.5 20.2", "72.4 43.4", "73.3 46.0", "73.5 46.6"],
}  # fmt: skip
ALL = [row for listed in rows.ROWS.values() for row in listed]


@pytest.mark.parametrize("number", PAPER)
def test_every_row_of_the_paper_is_there(number: str):
    figures = [row.accuracy.replace(", -", "").replace(",", "") for row in rows.ROWS[number]]
    assert figures == PAPER[number]
    page = (ROOT / "docs" / "paper-rows.md").read_text(encoding="utf-8")
    section = page.split(f"## Table {number}:")[1].split("\n## ")[0]
    assert [row.label for row in rows.ROWS[number] if f"\n| {row.label} |" not in section] == []


def test_table_1_is_the_architecture_of_the_paper():
    costs = json.loads(rows.COSTS.read_text(encoding="utf-8"))["architecture"]
    outputs = ["64x8x112x112", "64x8x56x56", "256x8x56x56", "512x8x28x28", "1024x8x14x14", "2048x8x7x7", "2048x1x1x1"]
    for name, standard in (("vsn_resnet50", (2, 3, 5, 2)), ("vsn_resnet101", (2, 3, 22, 2))):
        assert [layer["output"] for layer in costs[name]] == outputs
        blocks = [layer["blocks"] for layer in costs[name]][2:6]
        assert blocks == [f"standard (shift) x{count}, compact x1" for count in standard]
    assert [vars(layer) for layer in rows.architecture("vsn_resnet50")] == costs["vsn_resnet50"]


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.label)
def test_a_difference_from_the_published_cost_has_a_cause(row):
    if any(abs(share) > tables.TOLERANCE for share in tables.differences(row)):
        assert row.note


@pytest.mark.parametrize("row", ALL, ids=lambda row: row.label)
def test_recipes_train_a_network_of_their_row(row):
    own = [(network.name, network.num_frames, network.flow_fields) for network in row.networks]
    for name in row.recipes:
        recipe = load_recipe(find_recipe(name))
        flow = recipe.model.flow_length if recipe.model.modality == "flow" else 0
        # Without shuffle blocks a VSN is the TSM.
        kind = recipe.model.kind if recipe.model.kind != "vsn" or recipe.model.places else "tsm"
        model = recipe.model.name.replace(recipe.model.kind, kind, 1)
        assert (model, recipe.model.num_frames, flow) in own
        # The others of an ablation are in its header.
        for key, value in dict(row.networks[0].settings).items():
            assert getattr(recipe.model, key) == value


def test_vsn_bench_measures_a_network_with_the_frames_of_its_row():
    frames: dict[str, set[int]] = {}
    counted = json.loads(rows.COSTS.read_text(encoding="utf-8"))["networks"]
    in_tables = [network for number in "236" for row in rows.ROWS[number] for network in row.networks]
    for network in (network for network in in_tables if counted[network.key]):
        frames.setdefault(network.name, set()).add(network.num_frames)
    assert {name: own for name, own in frames.items() if paper_input(name)[0] not in own} == {"cost_resnet101": {32}}


CHEAP = ("vsn_resnet50, 8x224, 400 classes", "eco_lite, 20x224, 400 classes", "mtrn_bn_inception, 8x224, 400 classes")


@pytest.mark.parametrize("keys", [CHEAP, pytest.param((), marks=pytest.mark.slow)])
def test_costs_are_as_counted_now(keys: tuple[str, ...]):
    counted = json.loads(rows.COSTS.read_text(encoding="utf-8"))["networks"]
    assert set(counted) == {network.key for network in rows.networks()}
    for network in rows.networks():
        if network.key in (keys or counted):
            assert rows.count(network) == counted[network.key]


def test_networks_that_are_not_built_cannot_be():
    counted = json.loads(rows.COSTS.read_text(encoding="utf-8"))["networks"]
    for network in rows.networks():
        if counted[network.key] is None:
            with pytest.raises(ConfigError):  # otherwise: python docs/scripts/paper_rows.py counts it
                replace(network, classes=1).config  # noqa: B018
