import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.conftest import TINY_CLASSES, gray_frames
from tests.helpers.tiny_runs import assert_same_weights, at_step, metrics_of, rename_data, tiny_recipe, weights_of
from vsn.config import AugmentConfig, ConfigError, EvalConfig, Recipe
from vsn.data.dataset import Sample, VideoDataset
from vsn.data.readers import read_records
from vsn.data.video import VideoError, write_video
from vsn.inference.evaluate import evaluate_run
from vsn.inference.predictor import Predictor
from vsn.models import build_model, initialize
from vsn.runs.checkpoint import load_model
from vsn.runs.run import RunError, open_run
from vsn.scores.scores import load_scores
from vsn.system.interrupt import Stopped
from vsn.system.pool import WorkerError
from vsn.training import validate as validate_module
from vsn.training.train import TrainingStopped, train

Log = tuple[Console, Callable[[], str]]


# From Python 3.12 on, a fork in a process with threads warns; PyTorch's threads are always there.
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def interrupt(loss: torch.Tensor) -> torch.Tensor:
    signal.raise_signal(signal.SIGINT)
    return loss


def test_run_folder_holds_everything(finished_run: Path):
    names = {path.name for path in finished_run.iterdir()}
    assert names == {
        "recipe.toml", "classes.json", "versions.json", "preprocessing.json", "videos.json", "metrics.jsonl",
        "model.safetensors", "best.safetensors", "state.pt", "state-before.pt", "summary.json", "tensorboard",
    }  # fmt: skip
    first, second = metrics_of(finished_run)
    assert set(first) == {
        "epoch", "step", "lr", "train_loss", "train_top1", "bad_videos", "val_loss", "val_top1",
    }  # fmt: skip
    assert (first["epoch"], first["step"], second["epoch"], second["step"]) == (1, 3, 2, 6)
    assert open_run(finished_run).recipe.model.num_classes == 3
    assert any(path.stat().st_size > 300 for path in (finished_run / "tensorboard").iterdir())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_same_seed_same_weights(tiny_data: Path, tmp_path: Path, finished_run: Path, quiet: Console, num_workers: int):
    train(rename_data(tiny_recipe(tiny_data), num_workers=num_workers), tmp_path / "run", console=quiet)
    assert_same_weights(tmp_path / "run", finished_run)
    assert metrics_of(tmp_path / "run") == metrics_of(finished_run)


def test_another_seed_other_weights(tiny_data: Path, tmp_path: Path, finished_run: Path, quiet: Console):
    train(tiny_recipe(tiny_data, seed=1, epochs=1), tmp_path / "run", console=quiet)
    assert not torch.equal(weights_of(tmp_path / "run")["head.weight"], weights_of(finished_run)["head.weight"])


@pytest.mark.parametrize(
    ("step", "done"),
    [(1, "epoch 1 after 1 of 3"), (3, "epoch 1 after 3 of 3"), (5, "epoch 2 after 2 of 3")],
)
def test_interrupted_and_resumed_is_uninterrupted(
    tiny_data: Path, tmp_path: Path, finished_run: Path, quiet: Console, monkeypatch, step: int, done: str
):
    recipe, path = tiny_recipe(tiny_data), tmp_path / "run"
    at_step(monkeypatch, step, interrupt)
    with pytest.raises(TrainingStopped, match=f"vsn train --resume {path}") as stopped:
        train(recipe, path, console=quiet)
    assert stopped.value.place == f"{done} steps"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert len(metrics_of(path) if (path / "metrics.jsonl").exists() else []) == step // 4
    train(recipe, path, resume=True, console=quiet)
    assert_same_weights(path, finished_run)
    assert metrics_of(path) == metrics_of(finished_run)


@pytest.mark.parametrize("step", [2, 3])  # in the middle of an epoch, and before its validation
def test_the_time_before_an_interruption_counts(
    tiny_data: Path, tmp_path: Path, quiet: Console, monkeypatch, step: int
):
    recipe, path = tiny_recipe(tiny_data, epochs=1), tmp_path / "run"
    at_step(monkeypatch, step, interrupt)
    with pytest.raises(TrainingStopped):
        train(recipe, path, console=quiet)
    state = torch.load(path / "state.pt", weights_only=True)
    assert state["progress"]["epoch_seconds"] > 0
    state["progress"]["epoch_seconds"] = 1000.0
    torch.save(state, path / "state.pt")
    train(recipe, path, resume=True, console=quiet)
    (line,) = map(json.loads, (path / "metrics.jsonl").read_text().splitlines())
    summary = json.loads((path / "summary.json").read_text())
    assert line["seconds"] == summary["seconds"] > 1000
    assert line["videos_per_second"] == pytest.approx(12 / 1000, rel=0.2)


def test_interrupted_while_validating(tiny_data: Path, tmp_path: Path, finished_run: Path, quiet: Console, monkeypatch):
    recipe, path = tiny_recipe(tiny_data), tmp_path / "run"

    def stop(*_: object, **__: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(validate_module, "score_videos", stop)
        with pytest.raises(TrainingStopped, match="epoch 1 after 3 of 3"):
            train(recipe, path, console=quiet)
    train(recipe, path, resume=True, console=quiet)
    assert_same_weights(path, finished_run)
    assert metrics_of(path) == metrics_of(finished_run)


def test_killed_between_saving_and_writing_the_line(
    tiny_data: Path, tmp_path: Path, finished_run: Path, quiet: Console
):
    path = tmp_path / "run"
    shutil.copytree(finished_run, path)
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "metrics.jsonl").write_text(lines[0])
    train(tiny_recipe(tiny_data), path, resume=True, console=quiet)
    assert (path / "metrics.jsonl").read_text() == "".join(lines)


def test_bad_video_stops_and_is_named(tiny_data: Path, tmp_path: Path, finished_run: Path, log: Log, quiet: Console):
    root, path = tmp_path / "data", tmp_path / "run"
    shutil.copytree(tiny_data, root)
    recipe = tiny_recipe(root)
    victim = next(r for r in read_records(recipe.data, "train").records).path
    good = victim.read_bytes()
    victim.write_text("no video")
    with pytest.raises(VideoError, match="not a video that FFmpeg can read") as caught:
        train(recipe, path, console=log[0])
    assert caught.value.path == str(victim)
    assert "Stopped in epoch 1 after" in log[1]()
    assert json.loads((path / "bad_videos.json").read_text()) == {str(victim): caught.value.reason}
    victim.write_bytes(good)
    train(recipe, path, resume=True, console=quiet)  # nothing was lost
    assert_same_weights(path, finished_run)


@forks
def test_a_worker_that_dies_loses_nothing(
    tiny_data: Path, tmp_path: Path, finished_run: Path, log: Log, quiet: Console, monkeypatch: pytest.MonkeyPatch
):
    recipe, path = rename_data(tiny_recipe(tiny_data), num_workers=1), tmp_path / "run"
    videos = read_records(recipe.data, "train").records
    getitem = VideoDataset.__getitem__

    def dying(dataset: VideoDataset, key: int | tuple[int, int]) -> Sample:
        if key == (1, 7):  # epoch 2
            os.kill(os.getpid(), signal.SIGKILL)
        return getitem(dataset, key)

    with monkeypatch.context() as patched:
        patched.setattr(VideoDataset, "__getitem__", dying)
        with pytest.raises(WorkerError, match=f"SIGKILL.*{videos[7].shown}"):
            train(recipe, path, console=log[0])
    text = log[1]()
    assert "Stopped in epoch 2 after" in text
    assert f"vsn train --resume {path}" in text
    train(recipe, path, resume=True, console=quiet)
    assert_same_weights(path, finished_run)


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_bad_videos_within_the_limit_are_skipped_counted_and_listed(
    tiny_data: Path, tmp_path: Path, log: Log, cache: str
):
    root, path = tmp_path / "data", tmp_path / "run"
    shutil.copytree(tiny_data, root)
    recipe = rename_data(tiny_recipe(root), bad_videos=0.2, cache=cache)
    victims = [record.path for record in read_records(recipe.data, "train").records[2:9:6]]
    for victim in victims:
        victim.write_text("no video")
    train(recipe, path, console=log[0])
    listed = json.loads((path / "bad_videos.json").read_text())
    assert set(listed) == {str(victim) for victim in victims}
    assert all("not a video" in reason for reason in listed.values())
    assert [line["bad_videos"] for line in metrics_of(path)] == [2, 2]
    assert "2 bad videos skipped" in log[1]()


def test_more_bad_videos_than_allowed_stop_with_the_list(tiny_data: Path, tmp_path: Path, log: Log):
    root, path = tmp_path / "data", tmp_path / "run"
    shutil.copytree(tiny_data, root)
    recipe = rename_data(tiny_recipe(root), bad_videos=0.1)  # 1 of 12
    for record in read_records(recipe.data, "train").records[:2]:
        record.path.write_text("no video")
    with pytest.raises(VideoError, match=r"2 of 12 .*data\.bad_videos = 0\.1 .*bad_videos\.json"):
        train(recipe, path, console=log[0])
    assert f"vsn train --resume {path}" in log[1]()
    assert len(json.loads((path / "bad_videos.json").read_text())) == 2


def test_a_batch_of_bad_videos_only(tiny_data: Path, tmp_path: Path, log: Log):
    root = tmp_path / "data"
    shutil.copytree(tiny_data, root)
    recipe = rename_data(tiny_recipe(root, batch_size=1, epochs=1), bad_videos=0.5)
    read_records(recipe.data, "train").records[0].path.write_text("no video")
    run = train(recipe, tmp_path / "run", console=log[0])
    assert metrics_of(run.path)[0]["bad_videos"] == 1
    assert "1 bad video skipped" in log[1]()


@pytest.mark.parametrize(
    "settings",
    [
        {"augment": AugmentConfig(color_jitter=0.2, rand_augment=1, random_erasing=0.5, mixup=0.4, cutmix=1.0)},
        {"train": {"class_weights": True}},
        {"data": {"balance": True}},
        {"clip": {"sampling": "dense"}},
        {"clip": {"sampling": "rate", "frames_per_second": 6.0}},
    ],
    ids=["augment", "class_weights", "balance", "dense", "rate"],
)
def test_settings_change_training_and_resume_the_same(
    tiny_data: Path, tmp_path: Path, finished_run: Path, quiet: Console, monkeypatch, settings
):
    recipe = tiny_recipe(tiny_data)
    for name, value in settings.items():
        table = value if isinstance(value, AugmentConfig) else replace(getattr(recipe, name), **value)
        recipe = replace(recipe, **{name: table})
    if "class_weights" in str(settings):  # classes of one size have one weight: let one be rare
        root = tmp_path / "data"
        shutil.copytree(tiny_data, root)
        for number in range(3):
            (root / "wave" / f"{number}.mp4").unlink()
        recipe = rename_data(recipe, root=str(root))
        plain = replace(recipe, train=replace(recipe.train, class_weights=False))
        finished_run = train(plain, tmp_path / "plain", console=quiet).path
    whole = train(recipe, tmp_path / "whole", console=quiet).path
    ours, usual = weights_of(whole), weights_of(finished_run)
    assert any(not torch.equal(tensor, usual[name]) for name, tensor in ours.items())
    at_step(monkeypatch, 2, interrupt)
    with pytest.raises(TrainingStopped):
        train(recipe, tmp_path / "parts", console=quiet)
    monkeypatch.undo()
    train(recipe, tmp_path / "parts", resume=True, console=quiet)
    assert_same_weights(tmp_path / "parts", whole)


def test_several_labels_a_video(tiny_data: Path, tmp_path: Path, log: Log):
    rows = [
        f"{tiny_data}/{name}/{i}.mp4,{name}{'|first' if i == 0 else ''},{'val' if i < 2 else 'train'}"
        for name in TINY_CLASSES
        for i in range(5)
    ]
    rows += [f"{tiny_data}/wave/0.mp4,wave|first,train"]
    (tmp_path / "list.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    recipe = rename_data(
        tiny_recipe(tmp_path, epochs=1),
        source="csv",
        task="multilabel",
        test_split="val",
        flip="random",
        allow_overlap=True,
    )
    run = train(recipe, tmp_path / "run", console=log[0])
    assert run.classes == ("first", *TINY_CLASSES)
    assert "val mAP" in log[1]()
    result = evaluate_run(run.path, progress=False)
    assert 0 < result["mean_average_precision"] <= 1
    assert result["mean_average_precision"] == pytest.approx(metrics_of(run.path)[0]["val_map"])
    assert set(result["per_class"]) == set(run.classes)
    predicted = Predictor.from_run(run.path).predict(tiny_data / "wave" / "0.mp4")
    logits = load_scores(run.path / "eval" / "val-fcn-forward.npz")
    row = next(i for i, name in enumerate(logits.video_ids) if name.endswith("wave/0.mp4"))
    wanted = sorted((1 / (1 + np.exp(-logits.logits[row].astype(float)))).tolist())[::-1]
    assert predicted.probabilities == pytest.approx(wanted, abs=1e-5)


def test_existing_run_is_refused_before_anything_is_read(tmp_path: Path, finished_run: Path):
    with pytest.raises(RunError, match="--resume"):
        train(Recipe(), finished_run)


def test_resuming_with_other_settings_is_refused(tiny_data: Path, finished_run: Path, quiet: Console):
    with pytest.raises(RunError, match=r"train\.epochs was 2 and is 3"):
        train(tiny_recipe(tiny_data, epochs=3), finished_run, resume=True, console=quiet)


def test_resuming_on_other_videos_says_so(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quiet: Console, log: Log
):
    root = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    at_step(monkeypatch, 2, interrupt)
    with pytest.raises(TrainingStopped):
        train(tiny_recipe(root), tmp_path / "run", console=quiet)
    videos = json.loads((tmp_path / "run/videos.json").read_text())
    assert {name: len(ids) for name, ids in videos.items()} == {"train": 12, "val": 3, "sizes": 15}
    gone, only_val = next(iter(videos["train"])), next(iter(videos["val"]))
    (root / gone).unlink()
    (root / only_val).unlink()
    write_video(root / "wave/new.mp4", gray_frames(20), frames_per_second=10)
    console, printed = log
    train(tiny_recipe(root), tmp_path / "run", resume=True, console=console)
    text = printed()
    assert "The data has changed since this run began" in text
    assert repr(gone) in text
    assert "'wave/new.mp4'" in text
    assert (
        json.loads((tmp_path / "run/videos.json").read_text()) == videos
    )  # since the run began, not since the last resume


def test_resuming_on_other_classes_is_refused(tiny_data: Path, tmp_path: Path, finished_run: Path, quiet: Console):
    root, path = tmp_path / "data", tmp_path / "run"
    shutil.copytree(tiny_data, root)
    shutil.copytree(finished_run, path)
    (root / "wave").rename(root / "waving")
    text = (path / "recipe.toml").read_text().replace(str(tiny_data), str(root))
    (path / "recipe.toml").write_text(text)
    with pytest.raises(RunError, match=r"'wave'.*'swipe_left', 'swipe_right', 'waving'"):
        train(open_run(path).recipe, path, resume=True, console=quiet)


def test_loss_that_is_not_finite(tiny_data: Path, tmp_path: Path, quiet: Console, monkeypatch):
    path = tmp_path / "run"
    at_step(monkeypatch, 5, lambda loss: loss * float("nan"))
    with pytest.raises(
        TrainingStopped,
        match=r"epoch 2, step 2, at learning rate 0\.01: the loss is not finite .*(\w+/\d\.mp4, ){4}\w+/",
    ):
        train(tiny_recipe(tiny_data), path, console=quiet)
    assert len(metrics_of(path)) == 1
    assert all(tensor.isfinite().all() for tensor in weights_of(path).values())
    assert load_model(open_run(path)) is not None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"partial_bn": True}, r"partial_bn.*model\.weights is 'none'"),
        ({"freeze": ("layer9",)}, r"freeze.*'layer9'.*conv1, bn1,.* layer4"),
        ({"precision": "fp16"}, "'fp16' needs a CUDA device"),
        ({"device": "nonsense"}, "The device is 'nonsense'"),
        ({"batch_size": 11, "model": "tsn_resnet14_tiny"}, r"1 video of 12 \(train\.batch_size = 11"),
        ({"batch_size": 2, "accumulate": 2, "model": "tsn_resnet14_tiny"}, r"train\.accumulate = 2"),
        ({"epochs": 2, "warmup_epochs": 2.5}, r"warmup_epochs is 2.5, .*epochs = 2"),
    ],
)
def test_refusals_leave_no_folder(tiny_data: Path, tmp_path: Path, quiet: Console, settings, message: str):
    recipe = tiny_recipe(tiny_data, **settings)
    if "model" in settings:  # one frame, whose last features are one pixel
        recipe = replace(recipe, model=replace(recipe.model, num_frames=1))
    with pytest.raises(ConfigError, match=message):
        train(recipe, tmp_path / "run", console=quiet)
    assert not (tmp_path / "run").exists()


def test_frozen_parts_stay_bit_equal(tiny_data: Path, tmp_path: Path, quiet: Console):
    recipe = tiny_recipe(tiny_data, freeze=("conv1", "bn1", "layer1"), epochs=1, weight_decay=0.1)
    torch.manual_seed(recipe.train.seed)
    start = build_model(replace(recipe.model, num_classes=3))
    initialize(start, recipe.model)
    before, after = start.state_dict(), weights_of(train(recipe, tmp_path / "run", console=quiet).path)
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    frozen = ("backbone.conv1.", "backbone.bn1.", "backbone.layer1.")
    assert {name for name in changed if name.startswith(frozen)} == set()
    assert {"backbone.layer2.0.conv1.weight", "backbone.layer2.0.bn1.running_mean", "head.bias"} <= changed


def test_partial_bn_keeps_all_statistics_but_the_first(tiny_data: Path, tmp_path: Path, finished_run, quiet):
    recipe = tiny_recipe(tiny_data, partial_bn=True, epochs=1)
    start = {
        name.removeprefix("backbone."): tensor
        for name, tensor in weights_of(finished_run).items()
        if name.startswith("backbone.")
    }
    torch.save(start, tmp_path / "start.pt")
    recipe = replace(recipe, model=replace(recipe.model, weights=str(tmp_path / "start.pt")))
    after = weights_of(train(recipe, tmp_path / "run", console=quiet).path)
    changed = {name for name, tensor in start.items() if not torch.equal(tensor, after[f"backbone.{name}"])}
    norms = {name for name in changed if "bn" in name or "downsample.1" in name}
    assert norms == {f"bn1.{x}" for x in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")}


def test_learning_rate_follows_the_batch_size_and_says_so(tiny_data: Path, tmp_path: Path, log: Log):
    train(tiny_recipe(tiny_data, epochs=1, lr=0.02, lr_batch_size=10), tmp_path / "run", console=log[0])
    assert "Learning rate 0.01: train.lr = 0.02" in log[1]()
    assert metrics_of(tmp_path / "run")[0]["lr"] == 0.01


def test_validation_every_second_epoch_and_after_the_last(tiny_data: Path, tmp_path: Path, quiet: Console):
    recipe = tiny_recipe(tiny_data, epochs=3, val_every=2, batch_size=12)
    train(rename_data(recipe, cache="memory"), tmp_path / "run", console=quiet)
    assert ["val_top1" in line for line in metrics_of(tmp_path / "run")] == [False, True, True]


@pytest.mark.parametrize("saver", ["save_file", "torch.save"])
def test_full_disk_keeps_the_former_file(
    tiny_data: Path, tmp_path: Path, finished_run: Path, quiet: Console, monkeypatch, saver: str
):
    from vsn.models import weights_file
    from vsn.runs import checkpoint

    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_step(patch, 4, interrupt)
        with pytest.raises(TrainingStopped, match="epoch 2 after 1 of 3"):
            train(tiny_recipe(tiny_data), path, console=quiet)
    files = {p: p.read_bytes() for p in path.iterdir() if p.is_file()}

    def full(_: object, file: Path, **__: object) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    holder, name = (checkpoint.torch, "save") if saver == "torch.save" else (weights_file, "save_file")
    with monkeypatch.context() as patch:
        patch.setattr(holder, name, full)
        with pytest.raises(RunError, match=r"cannot be written \(.*No space left.*\); the previous"):
            train(tiny_recipe(tiny_data), path, resume=True, console=quiet)
    kept = {p: p.read_bytes() for p in path.iterdir() if p.is_file()}
    if saver == "torch.save":  # the weights were saved before it
        del files[path / "model.safetensors"], kept[path / "model.safetensors"]
    assert kept == files  # and no temporary file
    train(tiny_recipe(tiny_data), path, resume=True, console=quiet)
    assert_same_weights(path, finished_run)
    assert metrics_of(path) == metrics_of(finished_run)


@pytest.mark.parametrize(("model", "knows"), [("tsn", False), ("tsm", True), ("vsn", True)])
def test_order_of_frames_in_the_scores(model: str, knows: bool):
    config = replace(tiny_recipe(Path()).model, name=f"{model}_resnet14_tiny", num_classes=2)
    torch.manual_seed(0)
    network = build_model(config).eval()
    torch.nn.init.normal_(network.head.weight)
    clip = torch.randint(0, 256, (1, 4, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        difference = (network(clip) - network(clip.flip(1))).abs().max().item()
    assert (difference > 1e-3) if knows else (difference < 1e-5)


@pytest.mark.parametrize(("model", "top1"), [("tsn", 0.5), ("vsn", 1.0)])
def test_vsn_learns_the_arrow_of_time_and_tsn_cannot(
    arrow_data: Path, tmp_path: Path, quiet: Console, model: str, top1: float
):
    recipe = tiny_recipe(
        arrow_data, model=f"{model}_resnet14_tiny", epochs=12, batch_size=8, val_every=12,
        optimizer="adamw", schedule="cosine", head_lr_mult=1.0,
    )  # fmt: skip
    recipe = replace(
        rename_data(
            recipe,
            task="arrow",
            val_split="train",
            test_split="train",
            allow_overlap=True,
            flip="never",
            cache="memory",
        ),
        model=replace(recipe.model, dropout=0.0),
        clip=replace(recipe.clip, short_side=32, crop_scales=(1.0,)),
    )
    run = train(recipe, tmp_path / "run", console=quiet)
    assert evaluate_run(run.path, config=EvalConfig(batch_size=8), progress=False)["top1"] == top1


def test_what_was_drawn_before_changes_nothing(tiny_data: Path, tmp_path: Path, finished_run: Path, quiet: Console):
    torch.rand(1000)
    train(tiny_recipe(tiny_data), tmp_path / "run", console=quiet)
    assert_same_weights(tmp_path / "run", finished_run)


def test_an_epoch_without_a_video_stops(tiny_data: Path, tmp_path: Path, finished_run: Path, log: Log):
    """All training videos are gone, and data.bad_videos allows it; once they are back, the run goes on as if nothing was."""
    root, path = tmp_path / "data", tmp_path / "run"
    shutil.copytree(tiny_data, root)
    recipe = rename_data(tiny_recipe(root), bad_videos=1.0)
    videos = [record.path for record in read_records(recipe.data, "train").records]
    contents = [video.read_bytes() for video in videos]
    for video in videos:
        video.write_bytes(b"")
    console, said = log
    with pytest.raises(VideoError, match=r"None of the 12 training videos"):
        train(recipe, path, console=console)
    assert "nan" not in said()
    assert not (path / "metrics.jsonl").exists()
    for video, content in zip(videos, contents, strict=True):
        video.write_bytes(content)
    train(recipe, path, resume=True, console=console)
    assert_same_weights(path, finished_run)
    assert metrics_of(path) == metrics_of(finished_run)


def test_another_number_of_threads_is_said(tiny_data: Path, tmp_path: Path, log: Log, monkeypatch):
    console, said = log
    at_step(monkeypatch, 1, interrupt)
    with pytest.raises(TrainingStopped) as stopped:
        train(tiny_recipe(tiny_data, epochs=1), tmp_path / "run", console=console)
    assert stopped.value.exit_status == 130
    monkeypatch.undo()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    at_step(monkeypatch, 1, interrupt)
    with pytest.raises(TrainingStopped) as stopped:
        train(tiny_recipe(tiny_data, epochs=1), tmp_path / "second", console=console)
    assert stopped.value.exit_status == 0
    versions = json.loads((tmp_path / "run" / "versions.json").read_text())
    assert versions["num_threads"] == torch.get_num_threads()
    (tmp_path / "run" / "versions.json").write_text(json.dumps(versions | {"num_threads": 63}))
    train(tiny_recipe(tiny_data, epochs=1), tmp_path / "run", resume=True, console=console)
    assert f"trained with 63 threads, and this process has {torch.get_num_threads()}" in said()
