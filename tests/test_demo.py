import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console

from vsn.config.recipes import load_recipe
from vsn.data.embedded.write import SynthSpec
from vsn.demo import run_demo
from vsn.runs.run import RunError
from vsn.system.load import CpuLoad

RECIPES = Path(__file__).parents[1] / "recipes"
SPEC = SynthSpec(
    size=96, num_train_per_class=1, num_val_per_class=1, num_test_per_class=1,
    num_seconds=(1.0, 2.0), frames_per_second=(12, 24),
)  # fmt: skip


class Meter:
    """Tells that other programs use as many of two cores as is set."""

    others = 0.0

    def read(self) -> CpuLoad:
        return CpuLoad(cores=2, others=self.others)


def test_demo_from_nothing_to_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One video a class in each split, a tiny network, an epoch: every step of the demo."""
    recipe = load_recipe(RECIPES / "demo.toml")
    recipe = replace(
        recipe,
        model=replace(recipe.model, name="vsn_resnet14_tiny", num_frames=4),
        clip=replace(recipe.clip, short_side=32, crop_size=32),
        train=replace(recipe.train, epochs=1, device="cpu"),
    )
    monkeypatch.setattr("vsn.demo.CpuMeter", Meter)
    console = Console(record=True, width=200)
    (tmp_path / "runs" / "tsn").mkdir(parents=True)  # of a demo that was killed before it had a state
    (tmp_path / "runs" / "tsn" / "versions.json").touch()
    rows = run_demo(tmp_path, recipe, spec=SPEC, console=console)
    assert [row.model for row in rows] == ["TSN", "TSM", "VSN"]
    assert len({row.multiply_adds for row in rows}) == 1
    assert len({row.params for row in rows}) == 1
    assert rows[0].latency_ratio == 1.0
    assert all(0 <= row.top1_interval[0] <= row.top1 <= row.top1_interval[1] <= 1 for row in rows)
    assert json.loads((tmp_path / "table.json").read_text())["rows"] == json.loads(
        json.dumps([asdict(row) for row in rows])
    )
    page = (tmp_path / "report.html").read_text()
    assert "TSN" in page
    assert "VSN" in page
    for name in ("tsn", "tsm", "vsn"):
        evaluated = sorted(path.name for path in (tmp_path / "runs" / name / "eval").glob("*.json"))
        assert evaluated == ["test-fcn-forward.json", "test-fcn-shuffled.json"]
        facts = json.loads((tmp_path / "runs" / name / "eval" / evaluated[0]).read_text())
        assert {"weights_hash", "root", "videos_hash", "average", "protocol"} <= facts.keys()
    said = console.export_text()
    assert "report.html" in said
    # What will be seen and how long it takes, then a table that grows.
    assert (
        said.index("35.0%") < said.index("minutes on this machine") < said.index("minutes left") < said.index("TSN (")
    )
    before_tsm, before_vsn = said.split("TSM (")[0], said.split("VSN (")[0]
    assert [before_tsm.count(f"│ {name}") for name in ("TSN", "TSM", "VSN")] == [1, 0, 0]
    assert [before_vsn.count(f"│ {name}") for name in ("TSN", "TSM", "VSN")] == [2, 1, 0]
    assert [said.count(f"│ {name}") for name in ("TSN", "TSM", "VSN")] == [3, 2, 1]

    weights = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/model.safetensors")}
    # What is finished is kept. Beside a program that uses every core, latencies would be wrong: none is stated.
    monkeypatch.setattr(Meter, "others", 2.0)
    again = run_demo(tmp_path, recipe, spec=SPEC, console=console)
    assert all(row.latency_ratio is None for row in again)
    assert "latency: not measured, because other programs" in console.export_text()
    assert "Latency" not in (tmp_path / "report.html").read_text()
    assert weights == {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/model.safetensors")}
    assert [row.top1 for row in again] == [row.top1 for row in rows]

    other = replace(recipe, train=replace(recipe.train, lr=1.0))
    with pytest.raises(RunError, match="runs/tsn was trained with other settings"):
        run_demo(tmp_path, other, spec=SPEC, console=Console(quiet=True))
