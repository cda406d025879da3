"""The tutorial runs, whole, with tiny sizes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.py"


def run_tutorial(place: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(TUTORIAL)],
        cwd=place,
        env={**os.environ, "VSN_TUTORIAL": "tiny"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_tutorial_runs(tmp_path: Path):
    said = run_tutorial(tmp_path)
    for part in (
        "36 videos of",
        "torch.Size([1, 4])",
        "'model.safetensors'",
        "fcn: ",
        "of 12 videos, 95% interval",
        "chance 25%",
        "train (16, 256)",
        "test (12, 256)",
        "nearest centroid: ",
        "(8, 256)",
    ):
        assert part in said
    assert [path.name for path in tmp_path.iterdir()] == ["vsn-tutorial"]


@pytest.mark.slow
def test_started_again_it_goes_on_from_what_is_there(tmp_path: Path):
    first = run_tutorial(tmp_path)
    weights = (tmp_path / "vsn-tutorial" / "run" / "model.safetensors").read_bytes()
    assert run_tutorial(tmp_path).splitlines()[-2:] == first.splitlines()[-2:]
    assert (tmp_path / "vsn-tutorial" / "run" / "model.safetensors").read_bytes() == weights


def test_it_is_a_notebook_in_cells():
    text = TUTORIAL.read_text(encoding="utf-8")
    assert text.count("\n# %%") >= 16
    for cell in text.split("\n# %% [markdown]\n")[1:]:
        prose = cell.split("\n\n# %%")[0]
        assert all(line.startswith("#") for line in prose.strip().splitlines()), prose
