"""docs/bench.md: its commands are understood, its Python runs, its numbers are the defaults."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
import tyro

from vsn.bench.rounds import MIN_ROUNDS
from vsn.bench.run import CPU_BATCHES, CPU_SECONDS, GPU_BATCHES
from vsn.bench.tables import WIDE
from vsn.cli.bench import BenchCommand
from vsn.config import BenchConfig, ClipSpec, ModelConfig
from vsn.config.bench import PAPER_INPUTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "bench.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^(vsn bench .*?)(?: {2,}#.*)?$", PAGE, re.M)


def test_there_are_commands():
    assert len(COMMANDS) == 6


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command: str):
    parsed = tyro.cli(BenchCommand, args=shlex.split(command)[2:], prog="vsn bench")
    assert parsed.names
    assert not [name for name in parsed.names if name.startswith("-")]


def test_every_setting_has_a_word_of_help(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        tyro.cli(BenchCommand, args=["--help"], prog="vsn bench")
    out = capsys.readouterr().out
    names = [field.name.replace("_", "-") for field in dataclasses.fields(BenchConfig)]
    assert [name for name in names if f"--{name}" not in out] == []


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", PAGE, re.S))
def test_python_runs(block: str, capsys: pytest.CaptureFixture[str]):
    exec(compile(block, "docs/bench.md", "exec"), {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "tsn_resnet14_tiny",
        "vsn_resnet14_tiny",
    ]


def test_numbers_are_the_defaults():
    text = " ".join(PAGE.split())
    for figure in (f"**{GPU_BATCHES} batches**", f"on a CPU {CPU_BATCHES},"):
        assert figure in text
    assert CPU_SECONDS == 120  # "two minutes"
    assert MIN_ROUNDS == 3  # "three are always taken"
    assert f"one clip of {ModelConfig.num_frames} frames of {ClipSpec.crop_size}x{ClipSpec.crop_size}" in text
    assert f"for ECO {PAPER_INPUTS['eco'][0]} frames, for I3D two clips of {PAPER_INPUTS['i3d'][0]}" in text
    assert PAPER_INPUTS["i3d"][1] == 2
    assert f"A terminal of {WIDE} columns" in text


@pytest.mark.parametrize("name", re.findall(r"`python (benchmarks/\S+)", PAGE))
def test_scripts_are_there(name: str):
    assert (ROOT / name).is_file()
