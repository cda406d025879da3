import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from vsn.engine.checkpoint import (
    RunError,
    append_metrics,
    load_model,
    load_state,
    new_run,
    open_run,
    read_metrics,
    save_weights,
    write_run,
)
from vsn.engine.train import train
from vsn.models import build_model

from .conftest import tiny_recipe


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def test_model_is_rebuilt_from_its_own_recipe(tmp_path: Path):
    recipe = tiny_recipe(Path("videos"))
    model_config = replace(recipe.model, block="headtail", places=("res3", "res5"), shift_div=4, dropout=0.25)
    run = new_run(tmp_path / "any-name", replace(recipe, model=model_config), ("a", "b"))
    write_run(run)
    torch.manual_seed(3)
    model = build_model(run.recipe.model).eval()
    save_weights(run, model)
    reopened = open_run(tmp_path / "any-name")
    assert reopened == run
    assert reopened.recipe.model == replace(model_config, num_classes=2)
    loaded = load_model(reopened)
    clip = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(clip), model(clip), rtol=0, atol=0)
    assert not loaded.training


def test_clip_of_another_length_is_refused(finished_run: Path):
    model = load_model(open_run(finished_run))
    with pytest.raises(ValueError, match=r"built for clips of 4 frames.* the clip has 16"):
        model(torch.zeros(1, 16, 3, 32, 32, dtype=torch.uint8))


def test_versions_are_written(finished_run: Path):
    versions = json.loads((finished_run / "versions.json").read_text())
    assert versions["torch"] == torch.__version__
    assert {"vsn", "python", "torchvision", "av", "processor", "gpu"} <= set(versions)


@pytest.mark.parametrize("keep", [0, 5, 1000])
def test_damaged_weights(run: Path, keep: int):
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunError, match=r"model\.safetensors is damaged"):
        load_model(open_run(run))


def test_weights_of_another_model(run: Path):
    text = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(text.replace("resnet14_tiny", "resnet26_thin"))
    with pytest.raises(
        RunError, match=r"trained with model\.name = 'vsn_resnet14_tiny'.*says 'vsn_resnet26_thin'"
    ):
        load_model(open_run(run))


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (("num_frames = 4", "num_frames = 8"), "num_frames = 4, and the recipe beside it says 8"),
        (('    "res2",\n', ""), "places = .*'res2'.* beside it says"),
    ],
)
def test_weights_keep_their_frames_and_places(run: Path, now: tuple[str, str], message: str):
    """All shapes agree, so that only what is stored with the weights can tell."""
    text = (run / "recipe.toml").read_text()
    assert now[0] in text
    (run / "recipe.toml").write_text(text.replace(*now, 1))
    with pytest.raises(RunError, match=message):
        load_model(open_run(run))


def test_no_weights_yet(run: Path):
    (run / "model.safetensors").unlink()
    with pytest.raises(RunError, match="has no weights yet"):
        load_model(open_run(run))


@pytest.mark.parametrize("keep", [0, 100, -200])
def test_damaged_state(run: Path, keep: int, quiet: Console):
    path = run / "state.pt"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunError, match=r"state\.pt is damaged and cannot be resumed from"):
        train(open_run(run).recipe, run, resume=True, console=quiet)


def test_state_runs_no_code(run: Path):
    class Malicious:
        def __reduce__(self):
            return (run.joinpath("ran").touch, ())

    torch.save(Malicious(), run / "state.pt")
    with pytest.raises(RunError, match="is damaged"):
        load_state(open_run(run))
    assert not (run / "ran").exists()


def test_nothing_to_resume_from(run: Path):
    (run / "state.pt").unlink()
    with pytest.raises(RunError, match="nothing to resume from"):
        load_state(open_run(run))


def test_folder_that_is_no_run(tmp_path: Path):
    with pytest.raises(RunError, match=r"is not a run folder \(made by `vsn train`\)"):
        open_run(tmp_path)


def test_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        RunError, match=r"file/deep/run cannot be made: .*/file is no folder that can be written"
    ):
        new_run(tmp_path / "file" / "deep" / "run", tiny_recipe(Path()), ("a", "b"))
    run = new_run(tmp_path / "run", tiny_recipe(Path()), ("a", "b"))
    (tmp_path / "run").write_text("")  # it came in between
    with pytest.raises(RunError, match=r"The run folder .*run cannot be written"):
        write_run(run)


def test_folder_that_is_a_file(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="exists and is not empty"):
        new_run(tmp_path / "file", tiny_recipe(Path()), ("a", "b"))


def test_metrics_grow(tmp_path: Path):
    run = new_run(tmp_path, tiny_recipe(Path()), ("a", "b"))
    assert read_metrics(tmp_path) == []
    append_metrics(run, {"epoch": 1})
    append_metrics(run, {"epoch": 2})
    assert read_metrics(tmp_path) == [{"epoch": 1}, {"epoch": 2}]
