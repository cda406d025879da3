"""The house is in order: lint, types, import directions; what README says is there and runs."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["lint-imports"],
    ],
    ids=" ".join,
)
def test_tools_find_nothing(command):
    tool = Path(sys.executable).parent / command[0]
    result = subprocess.run([str(tool), *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.S))
def test_readme_python_runs(block, capsys):
    block = block.replace("(2, 8, 3, 224, 224)", "(2, 8, 3, 64, 64)").replace("vsn_resnet50", "vsn_resnet18")
    exec(compile(block, "README.md", "exec"), {})
    assert "Error" not in capsys.readouterr().err


def test_readme_file_map_is_true():
    table = README.split("## Where things are")[1]
    places = [place for row in re.findall(r"^\| (`.+?) \|", table, re.M) for place in re.findall(r"`([^`]+)`", row)]
    assert len(places) > 12
    assert [place for place in places if not (ROOT / place).exists()] == []


def test_readme_recipes_and_verbs_exist():
    from vsn.config.recipes import recipe_folder

    used = set(re.findall(r"vsn train ([a-z][a-z0-9-]+)", README))
    assert used
    assert used <= {path.stem for path in recipe_folder().glob("*.toml")}


def test_ci_runs_the_readme_test_command():
    command = next(line for line in README.splitlines() if line.endswith("python -m pytest"))
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_docs_quote_the_measured_tables():
    from vsn.ablation.results import load_ablation
    from vsn.ablation.run import format_tables

    page = (ROOT / "docs" / "embedded.md").read_text(encoding="utf-8")
    assert format_tables(load_ablation(ROOT / "results" / "embedded-cpu.json")) in page


def test_readme_quotes_the_measured_demo():
    demo = json.loads((ROOT / "results" / "demo-cpu.json").read_text(encoding="utf-8"))
    for row in demo["rows"]:
        low, high = row["top1_interval"]
        line = (
            f"| {row['model']} | {row['params'] / 1e6:.2f}M | {row['multiply_adds'] / 1e6:.0f}M | {row['top1']:.1%} | "
            f"{low:.1%} to {high:.1%} | {row['top1_shuffled']:.1%} | {row['latency_ratio']:.2f} |"
        )
        assert line in README
    assert f"{demo['seconds'] / 60:.1f} minutes" in README


def test_docs_quote_the_measured_clips(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from tables import runs_table

    page = (ROOT / "docs" / "clips.md").read_text(encoding="utf-8")
    for name in ("gestures-arrow-cpu", "gestures-15-cpu"):
        runs = json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))["runs"]
        assert runs_table(runs) in page
        assert f"results/{name}.json" in page
    arrow = json.loads((ROOT / "results" / "gestures-arrow-cpu.json").read_text(encoding="utf-8"))["runs"]
    said = [f"{run['recipe']['model']['name'][:3].upper()} {run['test'][0]['top1']:.1%}" for run in arrow]
    assert ", ".join(said) in README


@pytest.mark.parametrize("name", ["loading-cpu", "loading-long-cpu"])
def test_docs_quote_the_measured_loading(monkeypatch, name):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from tables import loading_table

    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    rows = json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    assert loading_table(rows) in page
    assert f"results/{name}.json" in page


def test_docs_quote_the_measured_streams(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from tables import streams_table
    from vsn.ablation.results import load_ablation
    from vsn.ablation.run import format_tables

    page = (ROOT / "docs" / "flow.md").read_text(encoding="utf-8")
    for name in ("two-streams-cpu", "two-streams-gestures-cpu"):
        measured = json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))
        assert streams_table(measured["pairs"]) in page
    assert format_tables(load_ablation(ROOT / "results" / "table5-embedded-cpu.json")) in page


def test_docs_quote_the_measured_exports(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from tables import parity_table

    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    for name in ("export-parity-cpu", "export-parity-gestures-cpu"):
        measured = json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))
        assert parity_table(measured["rows"]) in page


@pytest.mark.parametrize(
    ("name", "table", "part", "page"),
    [
        ("stream-cpu", "stream_table", "rows", "stream"),
        ("timelines-gestures-cpu", "timelines_table", "rows", "stream"),
        ("timelines-gestures-rate-cpu", "timelines_table", "rows", "stream"),
        ("cpu-inference", "inference_table", "rows", "bench"),
        ("ops-cpu", "operations_table", "operations", "bench"),
        ("export-cpu", "exports_table", "", "export"),
        ("serve-load-cpu", "load_table", "", "serve"),
        ("table6-throughput-cpu", "throughput_table", "rows", "bench"),
        ("ops-networks-cpu", "networks_table", "", "bench"),
        ("ops-networks-16-cpu", "networks_table", "", "bench"),
    ],
)
def test_docs_quote_what_the_benchmarks_measured(monkeypatch, name: str, table: str, part: str, page: str):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import tables

    measured = json.loads((ROOT / "results" / f"{name}.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    assert getattr(tables, table)(measured[part] if part else measured) in text
    assert f"results/{name}.json" in text


def test_docs_quote_the_measured_latency(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from tables import latency_table

    page = (ROOT / "docs" / "bench.md").read_text(encoding="utf-8")
    rows = json.loads((ROOT / "results" / "table6-latency-cpu.json").read_text(encoding="utf-8"))["rows"]
    assert latency_table(rows) in page


def test_docs_list_the_models_as_they_are_counted(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from model_costs import HEAD, line, rows

    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert HEAD in page
    counted = [line(row) for row in rows()]
    assert len(counted) > 10
    assert [text for text in counted if text not in page] == []
    from vsn.config.recipes import recipe_folder

    named = set(re.findall(r"\bdemo-[a-z0-9-]+", page))
    assert named == {path.stem for path in recipe_folder().glob("demo-*.toml")}
