import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.helpers.tiny_runs import tiny_recipe
from vsn.cli.score_tables import print_results
from vsn.config import ConfigError, EvalConfig, Protocol
from vsn.data.open import open_split, relabel
from vsn.data.records import RecordSet, VideoRecord
from vsn.data.video import VideoError
from vsn.data.views import PROTOCOLS
from vsn.inference.evaluate import evaluate_run, evaluate_split, mirror_note, score_videos
from vsn.inference.forward import autocast
from vsn.inference.predictor import Average
from vsn.models.measure import count_multiply_adds
from vsn.runs.checkpoint import load_model
from vsn.runs.results import find_scores
from vsn.runs.run import open_run
from vsn.scores.metrics import softmax
from vsn.scores.scores import load_scores
from vsn.system.distributed import pick_device
from vsn.training.train import train


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


def move_data(run: Path, old: Path, new: Path) -> None:
    recipe = run / "recipe.toml"
    recipe.write_text(recipe.read_text().replace(str(old), str(new)))


@pytest.mark.parametrize("batch_size", [1, 2, 5, 12, 100])
def test_every_video_once_for_any_batch_size(finished_run: Path, batch_size: int):
    run = open_run(finished_run)
    dataset = open_split(run.recipe, "train", classes=run.classes)  # 12 videos
    scores = score_videos(load_model(run), dataset, batch_size=batch_size, progress=False)
    reference = score_videos(load_model(run), dataset, batch_size=3, progress=False)
    assert scores.video_ids.tolist() == [record.video_id for record in dataset.records]
    assert len(set(scores.video_ids.tolist())) == 12
    assert scores.labels.tolist() == [record.label for record in dataset.records]
    assert np.array_equal(scores.logits, reference.logits)  # to the last bit: on the CPU a video goes by itself


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name not in ("25x10", "fcn-windows")])
@pytest.mark.parametrize("average", ["logits", "softmax"])
def test_views_are_averaged(finished_run: Path, protocol: Protocol, average: Average):
    run, view = open_run(finished_run), EvalConfig(protocol=protocol)
    dataset = open_split(run.recipe, "test", view=view, classes=run.classes)
    model = load_model(run)
    means = []
    for sample in (dataset[index] for index in range(len(dataset))):
        views = sample.clip if sample.clip.ndim == 5 else sample.clip[None]
        with torch.inference_mode():
            logits = torch.cat([model(view[None]) for view in views])
        means.append((logits.softmax(dim=1) if average == "softmax" else logits).mean(dim=0).numpy())
    for batch_size in (1, 100):
        scores = score_videos(model, dataset, batch_size=batch_size, average=average, progress=False)
        shown = softmax(scores.logits) if average == "softmax" else scores.logits
        np.testing.assert_allclose(shown, np.stack(means), atol=1e-5)


@pytest.mark.parametrize(
    ("protocol", "views"),
    [("fcn", 1), ("center", 1), ("3crop", 3), ("3crop-2clip", 6), ("10crop", 10), ("dense-10clip-3crop", 30)],
)
def test_protocol_costs_are_reported(run: Path, protocol: Protocol, views: int):
    result = evaluate_run(run, config=EvalConfig(protocol=protocol), progress=False)
    sizes = {
        "fcn": (36, 54),
        "center": (32, 32),
        "10crop": (32, 32),
    }  # videos of 32x48, shorter side 36, crops 32
    once = count_multiply_adds(open_run(run).recipe.model, size=sizes.get(protocol, (36, 36)))
    assert (result["num_views"], result["multiply_adds"]) == (views, views * once)
    assert result["videos_per_second"] == pytest.approx(3 / result["seconds"])
    assert result["average"] == "logits"


def test_mirror_images_of_left_and_right_classes_give_a_warning():
    classes = ("wave", "swipe left", "swipe right")
    assert "2 of the 3 classes, for example 'swipe left'" in mirror_note(classes, "10crop")
    assert mirror_note(classes, "25x10")
    assert mirror_note(classes, "3crop") == mirror_note(("wave", "jump"), "10crop") == ""


def test_score_files_carry_metadata(run: Path):
    facts = {}
    for average, name in (("logits", ""), ("softmax", "-softmax")):
        evaluate_run(run, config=EvalConfig(protocol="3crop", average=average), progress=False)
        scores = load_scores(run / "eval" / f"test-3crop-forward{name}.npz")
        facts[average] = scores.facts
        assert scores.kind == {"logits": "logits", "softmax": "log_probabilities"}[average]
    assert np.exp(scores.logits).sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    wanted = hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    assert facts["softmax"] == facts["logits"] | {"average": "softmax", "variant": "-softmax"}
    assert facts["logits"]["root"] == open_run(run).recipe.data.root
    assert facts["softmax"]["weights_hash"] == wanted
    assert facts["softmax"]["num_views"] == 3


def test_another_data_set_does_not_overwrite_the_test_of_the_recipes(run: Path, tiny_data: Path, tmp_path: Path):
    own = evaluate_run(run, progress=False)
    other = Path(shutil.copytree(tiny_data, tmp_path / "darker"))
    result = evaluate_run(run, root=other, progress=False)
    assert (result["root"], own["root"]) == (str(other), str(tiny_data))
    assert result["videos_hash"] == own["videos_hash"]  # the same names: only the folder tells
    assert json.loads((run / "eval" / "test-fcn-forward.json").read_text()) == own
    assert find_scores([run]) == [run / "eval" / "test-fcn-forward.npz"]


def test_several_labels_have_no_softmax(tiny_data: Path):
    recipe = tiny_recipe(tiny_data)
    with pytest.raises(ConfigError, match=r"softmax.*multilabel"):
        replace(recipe, data=replace(recipe.data, task="multilabel"), eval=EvalConfig(average="softmax"))


def test_25x10_needs_a_tsn(tiny_data: Path, run: Path, tmp_path: Path, quiet: Console):
    config = EvalConfig(protocol="25x10")
    with pytest.raises(ConfigError, match=r"'25x10'.*T=25.*T=4"):
        evaluate_run(run, config=config, progress=False)
    tsn = train(tiny_recipe(tiny_data, model="tsn_resnet14_tiny", epochs=1), tmp_path / "tsn", console=quiet)
    result = evaluate_run(tsn.path, config=config, progress=False)
    model = replace(tsn.recipe.model, num_frames=25)
    assert result["multiply_adds"] == 10 * count_multiply_adds(model, size=32)


def test_deterministic(run: Path):
    files = []
    for _ in range(2):
        for order in ("forward", "shuffled"):
            evaluate_run(run, config=EvalConfig(order=order, batch_size=2), progress=False)
        files.append([load_scores(path).logits.tobytes() for path in sorted((run / "eval").glob("*.npz"))])
    assert files[0] == files[1]
    assert files[0][0] != files[0][1]


@pytest.mark.parametrize(
    ("protocol", "order", "name"),
    [("fcn", "forward", "test-fcn-forward"), ("center", "still", "test-center-still")],
)
def test_files_carry_split_protocol_and_order(run: Path, protocol, order, name: str):
    result = evaluate_run(run, config=EvalConfig(protocol=protocol, order=order), progress=False)
    assert (result["split"], result["protocol"], result["order"]) == ("test", protocol, order)
    assert sorted(path.name for path in (run / "eval").iterdir()) == [f"{name}.json", f"{name}.npz"]
    assert json.loads((run / "eval" / f"{name}.json").read_text()) == result
    assert result["num_videos"] == 3
    assert list(result["per_class"]) == ["swipe_left", "swipe_right", "wave"]
    assert result["seconds"] > 0


def test_frames_of_several_sizes_in_one_batch(run: Path, tiny_data: Path, tmp_path: Path, gray_video: Path):
    from vsn.data.video import write_video

    root = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    tall = [np.full((64, 32, 3), 9, np.uint8)] * 6
    write_video(root / "wave" / "tall.mp4", tall, frames_per_second=5)
    move_data(run, tiny_data, root)
    config = replace(open_run(run).recipe.eval, batch_size=100)
    assert evaluate_run(run, split="train", config=config, progress=False)["num_videos"] == 13


def test_classes_are_matched_by_name(tiny_data: Path, tmp_path: Path, run: Path):
    """Data that lacks a class numbers the others differently; the model's numbers hold."""
    before = evaluate_run(run, progress=False)
    scores = dict(zip(*_ids_and_scores(run), strict=True))
    root = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    shutil.rmtree(root / "swipe_left")
    move_data(run, tiny_data, root)
    after = evaluate_run(run, progress=False)
    assert after["per_class"] == {n: before["per_class"][n] for n in ("swipe_right", "wave")}
    for video_id, row in zip(*_ids_and_scores(run), strict=True):
        np.testing.assert_allclose(row, scores[video_id], atol=1e-4)


def _ids_and_scores(run: Path) -> tuple[list[str], np.ndarray]:
    scores = load_scores(run / "eval" / "test-fcn-forward.npz")
    return scores.video_ids.tolist(), scores.logits


def test_labels_of_matched_classes():
    records = RecordSet((VideoRecord(Path("a"), (0,), "a"), VideoRecord(Path("b"), (1,), "b")), ("wave", "zoom"))
    matched = relabel(records, ("zoom", "nod", "wave"))
    assert [record.label for record in matched.records] == [2, 0]
    assert matched.classes == ("zoom", "nod", "wave")


def test_unknown_class_is_refused(tiny_data: Path, tmp_path: Path, run: Path):
    root = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    shutil.copytree(root / "wave", root / "nod")
    move_data(run, tiny_data, root)
    with pytest.raises(
        ConfigError,
        match=r" 1 of the data's 4 classes.*'nod'.*'swipe_left', ",
    ):
        evaluate_run(run, progress=False)


def test_unreadable_video_stops_evaluation(tiny_data: Path, tmp_path: Path, run: Path):
    root = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    move_data(run, tiny_data, root)
    recipe = open_run(run).recipe
    victim = open_split(recipe, "test", classes=open_run(run).classes).records[1].path
    victim.write_bytes(b"")
    with pytest.raises(VideoError, match=r"the file is empty\.") as caught:
        evaluate_run(run, progress=False)
    assert caught.value.path == str(victim)
    assert not (run / "eval").exists()


def test_unreadable_video_counts_as_wrong_if_configured(tiny_data: Path, tmp_path: Path, run: Path):
    root = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    recipe = open_run(run).recipe
    before = evaluate_run(run, progress=False)
    victim = open_split(recipe, "test", classes=open_run(run).classes).records[1]
    (root / victim.video_id).write_bytes(b"")
    config = replace(recipe.eval, bad_videos="wrong")
    result = evaluate_run(run, config=config, root=root, progress=False)
    assert result["bad_videos"] == [{"path": str(root / victim.video_id), "reason": "the file is empty."}]
    assert result["num_videos"] == before["num_videos"] == 3
    scores = load_scores(next((run / "eval").glob("test-fcn-forward@data-*.npz")))
    assert np.isnan(scores.logits).any(axis=1).tolist() == [False, True, False]
    assert result["per_class"][open_run(run).classes[victim.label]] == 0.0


def test_a_split_without_labels_is_scored_and_not_measured(tiny_data: Path, tmp_path: Path, run: Path, monkeypatch):
    from vsn.data import open as inputs

    original = inputs.read_labeled

    def unlabeled(*asked):
        found = original(*asked)
        return replace(found, records=tuple(replace(record, labels=()) for record in found.records))

    evaluate_run(run, progress=False)
    measured = load_scores(run / "eval" / "test-fcn-forward.npz")
    monkeypatch.setattr(inputs, "read_labeled", unlabeled)
    result = evaluate_run(run, progress=False)
    assert (result["num_videos"], result["num_unlabeled"], "top1" in result) == (3, 3, False)
    scores = load_scores(run / "eval" / "test-fcn-forward.npz")
    assert scores.labels.tolist() == [-1, -1, -1]
    assert np.array_equal(scores.logits, measured.logits)
    with pytest.raises(ConfigError, match=r"12 videos.* 'train'"):
        inputs.open_datasets(open_run(run).recipe, Console(quiet=True))


def test_without_a_test_split_the_validation_split_is_tested(tiny_data: Path, tmp_path: Path, run: Path):
    rows = [
        f"{tiny_data}/{name}/{i}.mp4,{name},{'val' if i == 4 else 'train'}"
        for name in open_run(run).classes
        for i in range(5)
    ]
    (tmp_path / "list.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    text = (run / "recipe.toml").read_text().replace('source = "folder"', 'source = "csv"')
    (run / "recipe.toml").write_text(text)
    result = evaluate_run(run, root=tmp_path, progress=False)
    assert (result["split"], result["num_videos"]) == ("val", 3)
    assert [path.name.partition("@")[0] for path in (run / "eval").glob("*.json")] == ["val-fcn-forward"]
    with pytest.raises(ConfigError, match="there is no split 'test'"):
        evaluate_run(run, split="test", root=tmp_path, progress=False)
    (tmp_path / "list.csv").write_text("path,label,split\n" + rows[0] + "\n")
    with pytest.raises(ConfigError, match="there is no split 'test'"):
        evaluate_run(run, root=tmp_path, progress=False)


def test_data_that_moved(tiny_data: Path, tmp_path: Path, run: Path):
    before = evaluate_run(run, progress=False)
    moved = Path(shutil.copytree(tiny_data, tmp_path / "elsewhere"))
    move_data(run, tiny_data, tmp_path / "gone")
    with pytest.raises(ConfigError, match="there is no such folder"):
        evaluate_run(run, progress=False)
    assert evaluate_run(run, root=moved, progress=False)["per_class"] == before["per_class"]


def test_a_test_on_the_validation_videos_says_so(
    tiny_data: Path, tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
):
    """Data without splits: one held-out part is the validation and the test split."""
    result = evaluate_split(run, progress=False)
    assert (result.split, result.num_validated) == ("test", 3)
    print_results(run, [result])
    printed = capsys.readouterr().out
    assert "3 validation videos (no test split)" in " ".join(printed.split())
    assert "Chosen on these videos" in printed
    of_training = evaluate_split(run, split="train", progress=False)
    assert (of_training.num_validated, of_training.num_trained) == (0, 12)
    assert "Trained on 12 of these 12 videos" in of_training.choice_note
    # Another data set with the same names is another matter.
    other = Path(shutil.copytree(tiny_data, tmp_path / "other"))
    assert evaluate_split(run, root=other, progress=False).num_validated == 0
    # Runs of earlier versions tell by the name of the split only.
    (run / "videos.json").unlink()
    assert evaluate_split(run, split="val", progress=False).num_validated == 3
    assert evaluate_split(run, progress=False).choice_note == ""


def test_video_listed_twice_counts_once(tiny_data: Path, tmp_path: Path, run: Path):
    rows = [f"{tiny_data}/{name}/{i}.mp4,{name},test" for name in open_run(run).classes for i in (0, 1, 0)]
    (tmp_path / "list.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    recipe = open_run(run).recipe
    recipe = replace(recipe, data=replace(recipe.data, root=str(tmp_path), source="csv"))
    assert len(open_split(recipe, "test", classes=open_run(run).classes)) == 6


def test_run_of_a_device_that_this_machine_lacks(run: Path):
    text = (run / "recipe.toml").read_text()
    text = text.replace('device = "cpu"', 'device = "cuda:77"').replace('"fp32"', '"fp16"')
    (run / "recipe.toml").write_text(text)
    assert open_run(run).recipe.train.precision == "fp16"
    assert evaluate_run(run, progress=False)["num_videos"] == 3


def test_devices_and_precision():
    assert pick_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="The device is 'abacus', which cannot be used here"):
        pick_device("abacus")
    with pytest.raises(ConfigError, match="'fp16' needs a CUDA device; use 'bf16' or 'fp32' here"):
        autocast(pick_device("cpu"), "fp16")
