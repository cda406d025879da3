import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.helpers.tiny_runs import assert_same_weights, metrics_of, tiny_recipe
from vsn.config import ConfigError, ModelConfig
from vsn.models import build_model
from vsn.models.weights import initialize
from vsn.models.weights_file import read_weights, write_weights
from vsn.runs.checkpoint import load_checkpoint, load_model, save_weights
from vsn.runs.hub.repository import write_repository
from vsn.runs.metadata import write_run
from vsn.runs.run import RunError, WeightsKind, append_metrics, check_resumable, new_run, open_run, read_metrics
from vsn.training.train import train


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
    with pytest.raises(ValueError, match=r"T=4 .*16"):
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


@pytest.mark.parametrize("seed", range(5))
def test_weights_with_changed_bytes_are_not_used(run: Path, seed: int):
    """The file keeps its form: its lengths and its JSON are right, only the tensors have changed."""
    path = run / "model.safetensors"
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    header = int.from_bytes(data[:8].tobytes(), "little")
    generator = np.random.default_rng(seed)
    for place in generator.integers(8 + header, len(data), generator.choice([1, 400])):
        data[place] ^= generator.integers(1, 256)
    path.write_bytes(data.tobytes())
    assert load_file(path).keys() == build_model(open_run(run).recipe.model).state_dict().keys()
    with pytest.raises(RunError, match=r"model\.safetensors is damaged.*checksum.*best\.safetensors"):
        load_model(open_run(run))
    with pytest.raises(ConfigError, match=r"model\.safetensors.*checksum"):
        initialize(build_model(open_run(run).recipe.model), replace(open_run(run).recipe.model, weights=str(run)))
    with pytest.raises(RunError, match="checksum"):
        write_repository(run, run / "hub", weights="last", license=None, repo="a/b")


def test_settings_stored_with_the_weights_are_part_of_the_checksum(run: Path):
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'dropout\\": 0.5', b'dropout\\": 0.1'))
    with pytest.raises(RunError, match=r"model\.safetensors is damaged.*checksum"):
        load_model(open_run(run))


def test_weights_without_a_checksum_still_load(run: Path):
    expected, path = load_model(open_run(run)).state_dict(), run / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata={"model": metadata["model"]})
    for name, tensor in load_model(open_run(run)).state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_weights_of_any_type_are_checked(tmp_path: Path):
    weights = {
        "a": torch.arange(6.0).bfloat16().reshape(2, 3).T, "b": torch.tensor(3), "c": torch.zeros(0, 2),
        "d": torch.tensor(True),
    }  # fmt: skip
    write_weights(tmp_path / "w.safetensors", weights, ModelConfig(name="tsn_resnet18"))
    read = read_weights(tmp_path / "w.safetensors")
    assert all(torch.equal(read[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("weights", ["last", "best"])
@pytest.mark.parametrize("change", [lambda names: names[::-1], sorted, lambda names: [names[1], "other"]])
def test_classes_in_another_order_are_refused(
    tmp_path: Path, weights: WeightsKind, change: Callable[[list[str]], list[str]]
):
    run = new_run(tmp_path / "run", tiny_recipe(Path("videos")), ("wave", "clap"))
    write_run(run)
    save_weights(run, build_model(run.recipe.model), weights)
    classes = run.path / "classes.json"
    load_model(open_run(run.path), weights)
    classes.write_text(json.dumps(change(["wave", "clap"])))
    with pytest.raises(RunError, match=r"'wave', 'clap'.*classes\.json"):
        load_model(open_run(run.path), weights)


@pytest.mark.parametrize("classes", [["wave"], ["wave", "clap", "jump"]])
def test_number_of_classes_is_that_of_the_model(tmp_path: Path, classes: list[str]):
    run = new_run(tmp_path / "run", tiny_recipe(Path("videos")), ("wave", "clap"))
    write_run(run)
    (run.path / "classes.json").write_text(json.dumps(classes))
    with pytest.raises(RunError, match=rf"classes\.json .*{len(classes)}.*model\.num_classes.* 2"):
        open_run(run.path)


def test_classes_may_be_renamed_and_old_weights_state_none(tmp_path: Path):
    run = new_run(tmp_path / "run", tiny_recipe(Path("videos")), ("wave", "clap"))
    write_run(run)
    save_weights(run, build_model(run.recipe.model))
    classes = run.path / "classes.json"
    classes.write_text(json.dumps(["Wave!", "clap"]))
    load_model(open_run(run.path))
    write_weights(run.path / "model.safetensors", build_model(run.recipe.model).state_dict(), run.recipe.model)
    classes.write_text(json.dumps(["clap", "wave"]))
    load_model(open_run(run.path))


def test_weights_of_another_model(run: Path):
    text = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(text.replace("resnet14_tiny", "resnet26_thin"))
    with pytest.raises(RunError, match=r"trained with model\.name = 'vsn_resnet14_tiny'.*says 'vsn_resnet26_thin'"):
        load_model(open_run(run))


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (("num_frames = 4", "num_frames = 8"), "num_frames = 4, .*says 8"),
        (('    "res2",\n', ""), "places = .*'res2'.* recipe.toml says"),
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


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def garble(path: Path) -> None:
    """Change one byte in the middle of the tensors; the file keeps its form."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [lambda p: cut(p, 0), lambda p: cut(p, -200), garble, Path.unlink])
def test_a_damaged_state_falls_back_to_the_previous_one(run: Path, log, damage, finished_run: Path):
    damage(run / "state.pt")
    for name in ("summary.json", "model.safetensors"):
        (run / name).unlink()
    train(open_run(run).recipe, run, resume=True, console=log[0])
    printed = log[1]()
    assert "; resuming from state-before.pt," in printed
    assert "state.pt is damaged (" in printed or "state.pt is missing;" in printed
    assert_same_weights(run, finished_run)
    assert metrics_of(run) == metrics_of(finished_run)


def test_both_states_damaged(run: Path, quiet: Console):
    cut(run / "state.pt", 100)
    cut(run / "state-before.pt", -200)
    with pytest.raises(RunError, match=r"cannot be resumed: state\.pt is damaged .*state-before\.pt is damaged"):
        train(open_run(run).recipe, run, resume=True, console=quiet)


def test_loading_a_state_runs_no_code(run: Path):
    class Malicious:
        def __reduce__(self):
            return (run.joinpath("ran").touch, ())

    torch.save(Malicious(), run / "state.pt")
    _, note = load_checkpoint(open_run(run))
    assert note.startswith("state.pt is damaged (it holds more than tensors")
    assert "still be loaded" not in note  # torch's advice
    assert not (run / "ran").exists()


def test_nothing_to_resume_from(run: Path):
    (run / "state.pt").unlink()
    (run / "state-before.pt").unlink()
    with pytest.raises(RunError, match="nothing to resume from"):
        load_checkpoint(open_run(run))


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("data.num_workers", 2, True), ("train.save_minutes", 0.0, True), ("train.checkpoint_activations", True, True),
        ("train.lr", 0.02, False), ("train.batch_size", 6, False), ("model.dropout", 0.1, False), ("train.ema", 0.9, False),
    ],
)  # fmt: skip
def test_settings_that_a_resumed_run_may_change(run: Path, key: str, value: object, allowed: bool):
    opened = open_run(run)
    table, name = key.split(".")
    recipe = replace(opened.recipe, **{table: replace(getattr(opened.recipe, table), **{name: value})})
    if allowed:
        check_resumable(opened, recipe, opened.classes)
        return
    with pytest.raises(RunError, match=rf"other settings: {key} was .* and is {value} now"):
        check_resumable(opened, recipe, opened.classes)


def test_folder_that_is_not_a_run(tmp_path: Path):
    with pytest.raises(RunError, match=r"is not a run folder \(made by `vsn train`\)"):
        open_run(tmp_path)


def test_folder_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"file/deep/run cannot be created: .*/file "):
        new_run(tmp_path / "file" / "deep" / "run", tiny_recipe(Path()), ("a", "b"))
    run = new_run(tmp_path / "run", tiny_recipe(Path()), ("a", "b"))
    (tmp_path / "run").write_text("")  # created in the meantime
    with pytest.raises(RunError, match=r"The run folder .*run cannot be written: .*another folder"):
        write_run(run)


def test_folder_that_is_a_file(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="exists and is not empty"):
        new_run(tmp_path / "file", tiny_recipe(Path()), ("a", "b"))


def test_metrics_keep_the_first_record_of_a_step(tmp_path: Path):
    run = new_run(tmp_path, tiny_recipe(Path()), ("a", "b"))
    assert read_metrics(tmp_path) == []
    lines = [
        {"epoch": 0.5, "step": 2, "val_loss": 0.5}, {"epoch": 1, "step": 4, "val_loss": 0.4},
        {"epoch": 1, "step": 4, "train_loss": 0.3}, {"epoch": 1.5, "step": 6, "val_loss": 1},
    ]  # fmt: skip
    again = [{"epoch": 1, "step": 4, "val_loss": 9}, {"epoch": 1, "step": 4, "train_loss": 9}]
    for line in [*lines[:3], *again, lines[3]]:
        append_metrics(run, line)
    assert read_metrics(tmp_path) == lines
