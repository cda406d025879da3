"""Tables that pages quote equal what their file in results/ holds."""

import importlib
import json
import re
from types import ModuleType
from typing import Any

import pytest

from tests.helpers.docs_pages import ROOT, read
from vsn.ablation.results import load_ablation
from vsn.ablation.run import format_tables
from vsn.config.recipes import recipe_folder
from vsn.system.numbers import percent, percent_interval, short_count


def measured(name: str) -> Any:
    return json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("tables")


@pytest.mark.parametrize(
    ("name", "table", "part", "page"),
    [
        ("stream-cpu", "stream_table", "rows", "stream"),
        ("timelines-gestures-cpu", "timelines_table", "rows", "stream"),
        ("timelines-gestures-rate-cpu", "timelines_table", "rows", "stream"),
        ("cpu-inference", "inference_table", "rows", "bench"),
        ("ops-cpu", "operations_table", "operations", "bench"),
        ("table6-latency-cpu", "latency_table", "rows", "bench"),
        ("table6-throughput-cpu", "throughput_table", "rows", "bench"),
        ("ops-networks-cpu", "networks_table", "", "bench"),
        ("ops-networks-16-cpu", "networks_table", "", "bench"),
        ("ops-networks-16-compiled-cpu", "networks_table", "", "bench"),
        ("export-cpu", "exports_table", "", "export"),
        ("export-parity-cpu", "parity_table", "rows", "export"),
        ("export-parity-gestures-cpu", "parity_table", "rows", "export"),
        ("serve-load-cpu", "load_table", "", "serve"),
        ("decoding-equality-cpu", "decoding_table", "summary", "data"),
        ("decoding-cpu", "readers_table", "rows", "data"),
        ("loading-cpu", "loading_table", "rows", "data"),
        ("loading-long-cpu", "loading_table", "rows", "data"),
        ("gestures-arrow-cpu", "runs_table", "runs", "clips"),
        ("gestures-15-cpu", "runs_table", "runs", "clips"),
        ("gestures-differences-cpu", "runs_table", "runs", "clips"),
        ("gestures-swapped-cpu", "runs_table", "runs", "clips"),
        ("gestures-arrow-differences-cpu", "runs_table", "runs", "clips"),
        ("gestures-windows-cpu", "runs_table", "runs", "clips"),
        ("fights-arrow-cpu", "runs_table", "runs", "clips"),
        ("fights-swapped-cpu", "runs_table", "runs", "clips"),
        ("fights-default-cpu", "runs_table", "runs", "clips"),
        ("fights-rgb-cpu", "runs_table", "runs", "clips"),
        ("two-streams-fights-cpu", "streams_table", "pairs", "clips"),
        ("two-streams-cpu", "streams_table", "pairs", "flow"),
        ("two-streams-gestures-cpu", "streams_table", "pairs", "flow"),
        ("two-streams-hard-cpu", "ensembles_table", "pairs", "flow"),
    ],
)
def test_tables_of_benchmarks(tables: ModuleType, name: str, table: str, part: str, page: str):
    values, text = measured(name), read(f"{page}.md")
    assert getattr(tables, table)(values[part] if part else values) in text
    assert f"results/{name}.json" in text


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("embedded-cpu", "embedded.md"),
        ("embedded-hard-cpu", "embedded.md"),
        ("table5-embedded-cpu", "flow.md"),
        ("table5-hard-cpu", "flow.md"),
    ],
)
def test_tables_of_ablations(name: str, page: str):
    assert format_tables(load_ablation(ROOT / "results" / f"{name}.json")) in read(page)


@pytest.mark.parametrize(
    "names", [("vsn_resnet50", "eco_thin", "vsn_resnet26_thin"), pytest.param((), marks=pytest.mark.slow)]
)
def test_table_of_models(tables: ModuleType, names: tuple[str, ...]):
    costs = importlib.import_module("model_costs")
    page = read("models.md")
    assert costs.HEAD in page
    assert [row.name for row in costs.ROWS if f"| `{row.name}` |" not in page] == []
    assert [row.name for row in costs.ROWS if row.name in (names or row.name) and costs.line(row) not in page] == []
    recipes = set(re.findall(r"\bdemo-[a-z0-9-]+", page))
    assert recipes == {path.stem for path in recipe_folder().glob("demo-*.toml")}


def test_readme():
    readme, demo = read("README.md"), measured("demo-cpu")
    for row in demo["rows"]:
        shares = (percent(row["top1"]), percent_interval(row["top1_interval"]), percent(row["top1_shuffled"]))
        costs = (short_count(row["params"]), short_count(row["multiply_adds"]))
        line = " | ".join((row["model"], *costs, *shares, f"{row['latency_ratio']:.2f}"))
        assert line in readme
    assert f"{demo['seconds'] / 60:.1f} minutes" in readme
    for run in measured("gestures-arrow-cpu")["runs"]:
        assert f"{run['recipe']['model']['name'][:3].upper()} {percent(run['test'][0]['top1'])}" in readme
