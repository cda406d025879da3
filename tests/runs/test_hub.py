"""Runs on the hub, without a network: folders and a cache made by hand. `test_hub_http` has a hub that answers."""

import json
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open

import vsn
from tests.helpers.tiny_runs import tiny_recipe
from vsn import cli
from vsn.config import ConvertConfig
from vsn.config.recipes import load_recipe
from vsn.inference.evaluate import evaluate_run
from vsn.models.weights_file import write_weights
from vsn.runs import hub
from vsn.runs.checkpoint import load_model
from vsn.runs.hub import HubError, from_pretrained, local_run, pull, push_to_hub, save_pretrained
from vsn.runs.listing import summarize_run
from vsn.runs.run import RunError, open_run, weights_hash
from vsn.system.numbers import percent
from vsn.training.train import train

FILES = {
    "README.md",
    "classes.json",
    "config.json",
    "eval",
    "metrics.jsonl",
    "model.safetensors",
    "preprocessing.json",
    "recipe.toml",
    "summary.json",
    "versions.json",
}


@pytest.fixture(scope="module")
def tested_run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a result of its last weights, and an older one of others."""
    run = tmp_path_factory.mktemp("tested") / "run"
    shutil.copytree(finished_run, run)
    evaluate_run(run, device="cpu", num_workers=0, progress=False)
    (result,) = run.glob("eval/*.json")
    other = json.loads(result.read_text()) | {"weights_hash": "0" * 64, "top1": 0.987}
    (run / "eval" / "test-10crop-forward.json").write_text(json.dumps(other | {"protocol": "10crop"}))
    return run


@pytest.fixture(scope="module")
def saved(tested_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "tiny-vsn"
    return save_pretrained(tested_run, folder, license="apache-2.0", repo_id="me/tiny-vsn")


def test_what_is_saved_and_what_stays_private(tested_run: Path, saved: Path, tiny_data: Path):
    assert {path.name for path in saved.iterdir()} == FILES
    assert [path.name for path in saved.parent.iterdir()] == ["tiny-vsn"]
    for file in saved.rglob("*"):
        if file.is_file():
            assert str(tiny_data).encode() not in file.read_bytes(), file
    assert load_recipe(saved / "recipe.toml").data.root == tiny_data.name


def test_config_holds_model_clip_and_classes(saved: Path):
    config = json.loads((saved / "config.json").read_text())
    assert config["library_name"] == "vsn"
    assert config["model"]["name"] == "vsn_resnet14_tiny"
    assert config["model"]["num_frames"] == 4
    assert (config["clip"]["short_side"], config["eval"]["protocol"]) == (36, "fcn")
    assert config["classes"] == ["swipe_left", "swipe_right", "wave"]


def test_a_saved_folder_is_a_run(tested_run: Path, saved: Path, gray_video: Path, tmp_path: Path):
    model, original = from_pretrained(saved), load_model(open_run(tested_run))
    assert not model.training
    for name, tensor in original.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    prediction = vsn.Predictor.from_pretrained(saved, device="cpu").predict(gray_video)
    assert prediction == vsn.Predictor.from_run(tested_run, device="cpu").predict(gray_video)
    summary = summarize_run(saved)
    assert (summary.state, len(summary.evaluations)) == ("finished", 1)
    again = save_pretrained(saved, tmp_path / "again", license="apache-2.0", repo_id="me/tiny-vsn")
    for name in FILES - {"eval"}:
        assert (again / name).read_bytes() == (saved / name).read_bytes(), name


def test_the_card_claims_what_was_measured_of_these_weights(tested_run: Path, saved: Path):
    card = ModelCard.load(saved / "README.md")
    (file,) = tested_run.glob("eval/test-fcn-forward.json")
    result = json.loads(file.read_text())
    low, high = result["top1_interval"]
    shares = (
        f"{percent(result['top1'])} | {percent(low)} to {percent(high)} | {percent(result['mean_class'])} |"  # no top-5
    )
    row = f"| test | fcn | 1 | forward | 3 | {shares}"
    assert row in card.text
    assert "10crop" not in card.text
    assert "98.7%" not in card.text
    assert card.data.license == "apache-2.0"
    assert (card.data.library_name, card.data.pipeline_tag) == ("vsn", "video-classification")
    (measured,) = card.data.eval_results
    assert (measured.dataset_split, measured.metric_value) == ("test", round(result["top1"], 4))
    for part in (
        'vsn.Predictor.from_pretrained("me/tiny-vsn")',
        "`vsn predict hf://me/tiny-vsn video.mp4`",
        "from random weights, for up to 2 epochs with batches of 5, sgd, and a learning rate of 0.01",
        f"torch {torch.__version__}",
        "swipe_left, swipe_right, wave.",
        "The weights: apache-2.0.",
        "- normalization: inside the model",
    ):
        assert part in card.text


def test_a_card_of_nothing_measured(finished_run: Path, tmp_path: Path):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    shutil.rmtree(run / "eval", ignore_errors=True)
    card = ModelCard.load(save_pretrained(run, tmp_path / "plain") / "README.md")
    assert "These weights have not been evaluated." in card.text
    assert "%" not in card.text
    assert "No license of the weights was stated." in card.text
    assert card.data.license is None
    assert card.data.eval_results is None


def test_results_of_other_weights_are_left_behind(tested_run: Path, saved: Path):
    assert [path.name for path in (saved / "eval").iterdir()] == ["test-fcn-forward.json"]
    result = json.loads((saved / "eval" / "test-fcn-forward.json").read_text())
    assert result["weights_hash"] == weights_hash(open_run(saved))


def test_results_on_another_data_set_are_left_behind(finished_run: Path, tiny_data: Path, tmp_path: Path):
    """The card states the data of the recipe."""
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    evaluate_run(run, root=shutil.copytree(tiny_data, tmp_path / "darker"), progress=False)
    evaluate_run(run, config=replace(open_run(run).recipe.eval, average="softmax"), progress=False)
    assert len(list((run / "eval").glob("*.json"))) == 2
    folder = save_pretrained(run, tmp_path / "saved")
    assert not list(folder.glob("eval/*"))
    evaluate_run(run, progress=False)
    assert "root" not in json.loads(
        (save_pretrained(run, tmp_path / "again") / "eval/test-fcn-forward.json").read_text()
    )


def test_best_weights(tested_run: Path, tmp_path: Path):
    run = Path(shutil.copytree(tested_run, tmp_path / "run"))
    shutil.copy(run / "model.safetensors", run / "best.safetensors")
    with safe_open(run / "best.safetensors", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors["head.bias"] += 1
    write_weights(run / "best.safetensors", tensors, open_run(run).recipe.model)
    folder = save_pretrained(run, tmp_path / "best", weights="best")
    assert torch.equal(from_pretrained(folder).head.bias, tensors["head.bias"])
    assert "These weights have not been evaluated." in (folder / "README.md").read_text()


def test_the_best_weights_may_be_the_last(finished_run: Path, tmp_path: Path):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    shutil.copyfile(run / "model.safetensors", run / "best.safetensors")
    for weights in ("last", "best"):
        evaluate_run(run, split="test", device="cpu", weights=weights, progress=False)
    folder = save_pretrained(run, tmp_path / "hub", repo_id="me/tiny-vsn")
    assert [file.name for file in folder.glob("eval/*")] == ["test-fcn-forward.json"]
    assert (folder / "README.md").read_text().count("| test | fcn | 1 | forward |") == 1


def test_the_place_weights_started_from_stays_private(tested_run: Path, tiny_data: Path, tmp_path: Path, quiet):
    recipe = tiny_recipe(tiny_data, epochs=1)
    recipe = replace(recipe, model=replace(recipe.model, weights=str(tested_run)))
    run = train(recipe, tmp_path / "started", console=quiet).path
    evaluate_run(run, device="cpu", num_workers=0, progress=False)
    folder = save_pretrained(run, tmp_path / "saved")
    for file in folder.rglob("*"):
        if file.is_file():
            assert str(tested_run).encode() not in file.read_bytes(), file
    assert "from weights `run`" in (folder / "README.md").read_text()
    assert "| test | fcn |" in (folder / "README.md").read_text()
    assert open_run(folder).recipe.model.weights == "run"
    again = save_pretrained(folder, tmp_path / "again")
    assert "| test | fcn |" in (again / "README.md").read_text()


def test_card_of_a_converted_run(tmp_path: Path):
    from tests.helpers.originals import RESNETS, TSM, random_state
    from vsn.runs.convert import convert_checkpoint

    torch.save({"state_dict": random_state(RESNETS["resnet14_tiny"], TSM)}, tmp_path / "official.pth")
    (tmp_path / "names").write_text("a\nb\nc\nd\ne\n")
    config = ConvertConfig(classes=str(tmp_path / "names"))
    run = convert_checkpoint(tmp_path / "official.pth", tmp_path / "run", config).run.path
    folder = save_pretrained(run, tmp_path / "saved")
    for file in folder.rglob("*"):
        if file.is_file():
            assert str(tmp_path).encode() not in file.read_bytes(), file
    text = (folder / "README.md").read_text()
    assert "Converted by `vsn convert` from `official.pth`" in text
    assert "How it was trained is not known" in text
    assert "Trained on" not in text


@pytest.fixture
def cached(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with one repository in it, and no network."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "cache"
    place = cache / "models--me--tiny-vsn"
    shutil.copytree(saved, place / "snapshots" / commit)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return cache


def test_from_the_cache_without_a_network(cached: Path, saved: Path, gray_video: Path):
    folder = pull("me/tiny-vsn", cache_dir=cached, local_files_only=True)
    assert folder.is_relative_to(cached)
    predictor = vsn.Predictor.from_pretrained("me/tiny-vsn", cache_dir=cached, device="cpu")
    expected = vsn.Predictor.from_run(saved, device="cpu").predict(gray_video)
    assert predictor.predict(gray_video) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "me/absent",
            "me/absent could not be downloaded: no connection",
        ),
        ("absent", "absent is neither"),
        ("/nowhere/run", "/nowhere/run is neither"),
        ("hf://me", "hf://user/name.* got hf:/+me"),
        ("me/na..me", "got 'me/na..me'"),
    ],
)
def test_names_that_cannot_be_downloaded(cached: Path, name: str, message: str):
    with pytest.raises(HubError, match=message):
        pull(name, cache_dir=cached)


def test_no_network_is_one_line(cached: Path, gray_video: Path):
    with pytest.raises(SystemExit, match="vsn: me/absent could not be downloaded: no connection"):
        cli.main(["predict", "hf://me/absent", str(gray_video)])


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A hub that takes connections and never answers, as behind a firewall."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(hub, "_CONNECT_SECONDS", 0.2)
        yield server


def test_a_hub_that_does_not_answer_is_not_waited_for(no_hub: socket.socket, tmp_path: Path):
    start = time.monotonic()
    with pytest.raises(HubError, match="no connection to the hub, and it is not in the local cache"):
        pull("nobody/nothing", cache_dir=tmp_path)
    assert time.monotonic() - start < 10


def test_a_push_without_a_network_is_one_line(tested_run: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"  # closed, so that connections are refused
    monkeypatch.setattr(huggingface_hub, "HfApi", partial(huggingface_hub.HfApi, endpoint=address))
    with pytest.raises(HubError, match=r"me/x could not be uploaded: .*refused") as error:
        push_to_hub(tested_run, "me/x", token="t")
    assert "\n" not in str(error.value)


def test_a_folder_whose_files_disagree(saved: Path, tmp_path: Path):
    folder = Path(shutil.copytree(saved, tmp_path / "x"))
    config = json.loads((folder / "config.json").read_text())
    config["classes"][0] = "another"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(HubError, match=r"config\.json differs in 'classes' from recipe\.toml"):
        from_pretrained(folder)
    (folder / "recipe.toml").unlink()
    with pytest.raises(HubError, match=r"config\.json and no recipe\.toml"):
        from_pretrained(folder)


def test_a_folder_of_before_clip_by_samples_as_it_was_trained(saved: Path, tmp_path: Path):
    folder = Path(shutil.copytree(saved, tmp_path / "x"))
    config = json.loads((folder / "config.json").read_text())
    del config["clip"]["by"]
    (folder / "config.json").write_text(json.dumps(config))
    recipe = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(recipe.replace('by = "time"\n', ""))
    from_pretrained(folder)
    assert open_run(folder).recipe.clip.by == "index"


def test_saving_needs_a_new_folder_and_weights(tested_run: Path, tmp_path: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(RunError, match="exists and is not empty"):
        save_pretrained(tested_run, tmp_path / "full")
    run = Path(shutil.copytree(tested_run, tmp_path / "run"))
    (run / "best.safetensors").unlink(missing_ok=True)
    with pytest.raises(RunError, match=r"has no best\.safetensors"):
        save_pretrained(run, tmp_path / "out", weights="best")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "run"]


def test_failing_halfway_leaves_nothing(tested_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from vsn.runs.hub import repository

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(repository, "write_card", fail)
    with pytest.raises(OSError, match="disk full"):
        save_pretrained(tested_run, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert local_run("runs/x") == Path("runs/x")
    with pytest.raises(HubError, match=r"huggingface_hub.*pip install .vsn-video\[hub\]"):
        pull("me/x")
