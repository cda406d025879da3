"""docs/export.md: its commands are understood, its Python runs, its tables are what the code does."""

import contextlib
import io
import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.helpers.tiny_runs import tiny_recipe
from vsn import cli
from vsn.config import ExportConfig
from vsn.export import export as export_module
from vsn.export.check import TOLERANCES
from vsn.training.train import train

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
COMMANDS = [line.partition("#")[0].strip() for line in re.findall(r"^vsn (?:export|predict) .*$", PAGE, re.M)]


@pytest.fixture(scope="module")
def trained(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run at runs/tsm, a video, the run's ONNX file, and what its export said."""
    from rich.console import Console

    folder = tmp_path_factory.mktemp("page")
    recipe = tiny_recipe(tiny_data, model="tsm_resnet14_tiny", epochs=1)
    train(recipe, folder / "runs" / "tsm", console=Console(quiet=True))
    shutil.copy(next(tiny_data.rglob("*.mp4")), folder / "new.mp4")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        cli.main(["export", str(folder / "runs" / "tsm"), "--check-accuracy"])
    (folder / "said.txt").write_text(said.getvalue())
    return folder


def test_the_page_has_commands():
    assert len(COMMANDS) == 8
    formats = re.findall(r"--to (\S+)", PAGE)
    assert set(formats) == {"openvino", "torch-export", "aoti"}


@pytest.mark.parametrize("command", COMMANDS)
def test_its_commands_are_understood(trained: Path, command: str, monkeypatch, capsys):
    """Predictions run; of exports, which the tests of the engine run, the settings are read."""
    monkeypatch.chdir(trained)
    asked = []

    def stop(path: Path, config: ExportConfig, **settings: object) -> None:
        asked.append((path, config, settings))
        raise ValueError("far enough")

    monkeypatch.setattr(export_module, "export_run", stop)
    words = shlex.split(command)[1:]
    if words[0] == "predict":
        cli.main(words)
        assert "new.mp4: " in capsys.readouterr().out
        return
    with pytest.raises(SystemExit, match="far enough"):
        cli.main(words)
    ((path, config, settings),) = asked
    assert path == Path("runs/tsm")
    assert config.int8 == ("--int8" in words)
    assert config.any_size == ("--any-size" in words)
    assert config.to == (words[words.index("--to") + 1] if "--to" in words else "onnx")
    assert settings["check_accuracy"] == ("--check-accuracy" in words)
    assert (settings["out"] is not None) == ("--out" in words)


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", PAGE, re.S))
def test_its_python_runs(trained: Path, block: str, monkeypatch, capsys):
    monkeypatch.chdir(trained)
    exec(compile(block.replace("(1, 8, 3, 224, 224)", "(1, 4, 3, 32, 32)"), "docs/export.md", "exec"), {})


def test_its_tolerances_are_those_that_hold():
    rows = dict(re.findall(r"^\| (\w+) \| ([\d.]+) \|$", PAGE, re.M))
    assert {name: float(value) for name, value in rows.items()} == TOLERANCES


def test_the_command_says_what_it_wrote(trained: Path):
    out = (trained / "said.txt").read_text()
    assert re.search(r"runs/tsm/export/model\.onnx: \d+\.\d MB, fp32$", out, re.M)
    assert "takes: clips (B, 4, 3, H, W), 32x32, uint8" in out
    assert re.search(r"100% of top-1 agree\ncompared on: 3 clips of split 'test'", out)
    assert re.search(r"top-1 .*the same answer for 100\.0%", out)
    assert "For whole frames: --any-size." in out


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--flow-run", "runs/tsm"], "--flow-run is for a run folder"),
        (["--weights", "best"], "--weights best is for a run folder"),
        (["--device", "cuda"], "--device cuda is for a run folder"),
    ],
)
def test_options_that_an_exported_file_cannot_follow(trained: Path, option: list[str], message: str, monkeypatch):
    monkeypatch.chdir(trained)
    with pytest.raises(SystemExit, match=message):
        cli.main(["predict", "runs/tsm/export/model.onnx", "new.mp4", *option])
