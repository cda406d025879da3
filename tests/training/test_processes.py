"""Several processes train and evaluate as one does, with gloo on the CPU."""

import contextlib
import io
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.helpers.ranks import run_ranks, train_quietly
from tests.helpers.tiny_runs import assert_same_weights, metrics_of, rename_data, tiny_recipe, weights_of
from vsn.cli import main
from vsn.config import AugmentConfig, ConfigError, Recipe
from vsn.config.recipes import dump_recipe
from vsn.data.dataset import Sample, VideoDataset
from vsn.data.loader import epoch_keys
from vsn.data.readers import read_records
from vsn.inference.evaluate import evaluate_run
from vsn.models import create_model
from vsn.runs.checkpoint import load_model
from vsn.runs.run import open_run
from vsn.scores.scores import load_scores
from vsn.system.distributed import Distributed
from vsn.training import train as train_module
from vsn.training.batch_norm import synchronize_batch_norm
from vsn.training.job import Job
from vsn.training.train import TrainingStopped, train


def without_dropout(recipe: Recipe) -> Recipe:
    return replace(recipe, model=replace(recipe.model, dropout=0.0))


def assert_close_runs(run: Path, other: Path) -> None:
    for ours, wanted in zip(metrics_of(run), metrics_of(other), strict=True):
        assert ours == {key: pytest.approx(value, rel=1e-4) for key, value in wanted.items()}
    torch.testing.assert_close(weights_of(run), weights_of(other), rtol=1e-3, atol=1e-4)


# --- collectives -------------------------------------------------------------------------


def collectives() -> tuple:
    distributed = Distributed("cpu")
    mine = float(distributed.rank + 1)
    broadcast = distributed.broadcast_from_rank0(lambda: {"by": distributed.rank})
    return (
        distributed.rank,
        distributed.is_rank0,
        distributed.all_reduce_sum([mine, 2**40 + mine]),
        distributed.all_gather(mine),
        broadcast,
    )


def test_collectives():
    first, second = run_ranks(2, collectives)
    assert (first[:2], second[:2]) == ((0, True), (1, False))
    assert first[2:] == second[2:] == ([3.0, 2**41 + 3.0], [1.0, 2.0], {"by": 0})


def test_one_process_needs_no_group():
    distributed = Distributed("cpu")
    assert (distributed.rank, distributed.world_size, distributed.is_rank0) == (0, 1, True)
    assert distributed.all_reduce_sum([1.5]) == [1.5]
    assert distributed.all_gather("x") == ["x"]
    assert distributed.broadcast_from_rank0(lambda: 7) == 7
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda:0", "'cuda:0'.* 2 "), ("cuda", "'cuda'.*'auto'")],
)
def test_unavailable_devices(monkeypatch, device: str, message: str):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        Distributed(device)


# --- batch normalization ------------------------------------------------------------------------------


def normalized(path: Path) -> None:
    """Two steps of a synchronized batch normalization on this process's rows of a batch of 3 and one of 1."""
    distributed = Distributed("cpu")
    layer = torch.nn.Sequential(torch.nn.BatchNorm2d(4, momentum=0.3)).double()
    layer = synchronize_batch_norm(layer, distributed.device)
    outputs, gradients = [], []
    for batch in torch.load(path):
        mine = batch.tensor_split(2)[distributed.rank].requires_grad_()  # of one row the second process gets none
        output = layer(mine)
        (output**3).sum().backward()
        outputs.append(torch.cat(distributed.all_gather(output.detach())))
        gradients.append(torch.cat(distributed.all_gather(mine.grad)))
    weight = sum(distributed.all_gather(layer[0].weight.grad))
    if distributed.is_rank0:
        torch.save((outputs, gradients, weight, layer.state_dict()), path)


def test_synchronized_batch_norm_is_batch_norm_of_all(tmp_path: Path):
    batches = [torch.randn(n, 4, 3, 2, dtype=torch.float64) for n in (3, 1)]
    layer = torch.nn.Sequential(torch.nn.BatchNorm2d(4, momentum=0.3)).double()
    wanted = []
    for batch in batches:
        whole = batch.clone().requires_grad_()
        output = layer(whole)
        (output**3).sum().backward()
        wanted.append((output.detach(), whole.grad))
    torch.save(batches, tmp_path / "data.pt")
    run_ranks(2, normalized, tmp_path / "data.pt")
    outputs, gradients, weight, state = torch.load(tmp_path / "data.pt")
    for output, gradient, (right_output, right_gradient) in zip(outputs, gradients, wanted, strict=True):
        torch.testing.assert_close(output, right_output)
        torch.testing.assert_close(gradient, right_gradient)
    torch.testing.assert_close(weight, layer[0].weight.grad)
    torch.testing.assert_close(state, layer.state_dict())


@pytest.mark.parametrize("block", ["compact", "headtail"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_synchronizing_keeps_names_weights_and_shuffles(block: str, device: str):
    model = create_model("vsn_resnet14_tiny", num_classes=2, num_frames=4, block=block).eval()
    clip = torch.randint(0, 256, (1, 4, 3, 32, 32), dtype=torch.uint8)
    scores, before = model(clip), {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    synchronize_batch_norm(model, torch.device(device))  # for a device that need not be there
    assert not any(type(module) is torch.nn.BatchNorm2d for module in model.modules())
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == before
    torch.testing.assert_close(model.eval()(clip), scores)  # evaluation needs no process group


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_unknown_batch_normalizations_are_not_synchronized(device: str):
    odd = torch.nn.Sequential(type("OddNorm", (torch.nn.BatchNorm2d,), {})(3))
    with pytest.raises(ConfigError, match=rf"OddNorm.*'{device}'.*train\.partial_bn"):
        synchronize_batch_norm(odd, torch.device(device))


# --- training -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 5},  # shares of 3 and 2; the last step's 2 videos, 1 and 1
        {"batch_size": 11, "accumulate": 2, "ema": 0.5},  # the last step has one video: a share and parts without any
        {"batch_size": 5, "class_weights": True, "checkpoint_activations": True, "save_minutes": 0},
    ],
    ids=["plain", "parts", "weights"],
)  # fmt: skip
def test_two_processes_train_as_one(tiny_data: Path, tmp_path: Path, quiet: Console, settings: dict):
    # A small learning rate: what differs in the last digits is not to grow.
    recipe = without_dropout(tiny_recipe(tiny_data, lr=1e-3, **settings))
    recipe = replace(recipe, train=replace(recipe.train, partial_bn=False))
    single = train(recipe, tmp_path / "single", console=quiet).path
    run_ranks(2, train_quietly, recipe, tmp_path / "two")
    assert_close_runs(tmp_path / "two", single)


def test_mixing_over_processes(tiny_data: Path, tmp_path: Path):
    recipe = replace(tiny_recipe(tiny_data, epochs=1, batch_size=11, accumulate=2), augment=AugmentConfig(mixup=0.4))
    run_ranks(2, train_quietly, recipe, tmp_path / "run")  # one process has no video of the last step
    (line,) = metrics_of(tmp_path / "run")
    assert line["step"] == 2
    assert np.isfinite(line["train_loss"])


def train_in_float64(recipe: Recipe, path: Path) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        train_quietly(recipe, path)
    finally:
        torch.set_default_dtype(torch.float32)


def test_the_difference_of_two_processes_is_rounding(tiny_data: Path, tmp_path: Path):
    # AdamW makes much of small gradients, so that in float32 rounding soon grows; float64 has little to grow.
    recipe = without_dropout(tiny_recipe(tiny_data, optimizer="adamw", lr=2e-3, epochs=4))
    train_in_float64(recipe, tmp_path / "single")
    run_ranks(2, train_in_float64, recipe, tmp_path / "two")
    for ours, wanted in zip(metrics_of(tmp_path / "two"), metrics_of(tmp_path / "single"), strict=True):
        assert ours["train_loss"] == pytest.approx(wanted["train_loss"], rel=1e-5)
        assert ours["val_loss"] == pytest.approx(wanted["val_loss"], rel=1e-5)


def interrupted(recipe: Recipe, path: Path, rank: int, num_steps: int) -> str:
    """Train; only one process gets a SIGTERM, in one of its steps."""
    step, count = train_module.train_step, 0

    def counted(job, *arguments):
        nonlocal count
        step(job, *arguments)
        count += 1
        if count == num_steps and job.distributed.rank == rank:
            for process in (*multiprocessing.active_children(), multiprocessing.current_process()):
                os.kill(process.pid, signal.SIGTERM)  # as a cluster does

    train_module.train_step = counted
    try:
        train(recipe, path, console=Console(quiet=True))
    except TrainingStopped as stopped:
        return str(stopped)
    return "not stopped"


@pytest.mark.parametrize(
    ("rank", "num_steps", "place"), [(1, 2, "epoch 1 after 2 of 3"), (0, 3, "epoch 1 after 3 of 3")]
)
def test_all_processes_stop_when_one_is_asked_to(
    tiny_data: Path, tmp_path: Path, rank: int, num_steps: int, place: str
):
    recipe = without_dropout(tiny_recipe(tiny_data, lr=1e-3))
    messages = run_ranks(2, interrupted, recipe, tmp_path / "run", rank, num_steps)
    assert place in messages[0]
    assert messages[1] == ""  # rank 0 prints it
    run_ranks(2, train_quietly, recipe, tmp_path / "whole")
    train_quietly(recipe, tmp_path / "run", resume=True)  # one process can resume what two began
    assert_close_runs(tmp_path / "run", tmp_path / "whole")


def test_a_signal_to_all_processes_of_a_job_ends_no_worker_too_early(
    tiny_data: Path, finished_run: Path, tmp_path: Path
):
    recipe = rename_data(tiny_recipe(tiny_data), num_workers=2)
    (messages,) = run_ranks(1, interrupted, recipe, tmp_path / "run", 0, 1)
    assert "epoch 1 after 1 of 3" in messages
    train_quietly(rename_data(recipe, num_workers=0), tmp_path / "run", resume=True)
    assert_same_weights(tmp_path / "run", finished_run)


def stopped_by(recipe: Recipe, path: Path) -> str:
    try:
        train(recipe, path, console=Console(quiet=True))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "not stopped"


def worker_dies(recipe: Recipe, path: Path, rank: int, victim: str) -> str:
    """Train; a worker of one process dies when it reads the video."""
    getitem = VideoDataset.__getitem__

    def dying(dataset: VideoDataset, key: int | tuple[int, int]) -> Sample:
        index = key if isinstance(key, int) else key[1]
        if os.environ["RANK"] == str(rank) and dataset.records[index].video_id == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return getitem(dataset, key)

    VideoDataset.__getitem__ = dying  # type: ignore[method-assign]
    multiprocessing.set_start_method("fork", force=True)  # the worker has it too
    return stopped_by(recipe, path)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the workers are forked")
@pytest.mark.parametrize(("rank", "split"), [(1, "train"), (0, "val")])
def test_all_processes_save_when_a_worker_of_one_dies(tiny_data: Path, tmp_path: Path, rank: int, split: str):
    recipe = rename_data(without_dropout(tiny_recipe(tiny_data, lr=1e-3)), num_workers=1)
    # Of the last step of the first epoch, or of the first batch of its validation.
    order = [index for _, index in epoch_keys(12, seed=recipe.train.seed, shuffle=True)]
    index = order[-1] if split == "train" else 0
    victim = read_records(recipe.data, split).records[index].video_id
    messages = run_ranks(2, worker_dies, recipe, tmp_path / "run", rank, victim, seconds=60)
    assert "WorkerError: A worker that reads videos died (SIGKILL" in messages[rank]
    assert victim in messages[rank]
    assert messages[1 - rank].startswith("TrainingStopped: " + ("Stopped in epoch 1 after" if rank else ""))
    run_ranks(2, train_quietly, recipe, tmp_path / "whole")
    train_quietly(recipe, tmp_path / "run", resume=True)
    assert_close_runs(tmp_path / "run", tmp_path / "whole")


def test_bad_videos_count_over_all_processes(tiny_data: Path, tmp_path: Path):
    root = tmp_path / "data"
    shutil.copytree(tiny_data, root)
    recipe = rename_data(tiny_recipe(root, epochs=1), bad_videos=0.2)
    records = read_records(recipe.data, "train").records
    for victim in records[:2]:
        victim.path.write_text("no video")
    run_ranks(2, train_quietly, recipe, tmp_path / "run")
    assert len(json.loads((tmp_path / "run" / "bad_videos.json").read_text())) == 2
    assert metrics_of(tmp_path / "run")[0]["bad_videos"] == 2
    records[2].path.write_text("no video")
    messages = run_ranks(2, stopped_by, recipe, tmp_path / "too-many")
    assert messages[0] == messages[1]
    assert "3 of 12 videos" in messages[0]


def diverged(recipe: Recipe, path: Path, step: int) -> str:
    """Train with weights that become NaN in a step; return the message of this rank."""
    usual = train_module.train_step

    def broken(job: Job, *arguments: object) -> None:
        usual(job, *arguments)
        if job.steps_done == step:
            with torch.no_grad():
                job.model.head.weight.fill_(float("nan"))

    train_module.train_step = broken
    return stopped_by(recipe, path)


@pytest.mark.parametrize(("step", "settings"), [(3, {}), (1, {"save_minutes": 0.0})])
def test_all_processes_stop_when_the_weights_diverge(tiny_data: Path, tmp_path: Path, step: int, settings: dict):
    messages = run_ranks(2, diverged, tiny_recipe(tiny_data, **settings), tmp_path / "run", step, seconds=60)
    assert messages[0] == messages[1]
    assert f"diverged in epoch 1, step {step}" in messages[0]
    assert not list((tmp_path / "run").glob("*.safetensors"))


# --- evaluation ---------------------------------------------------------------------------------------


def evaluated(run: Path, root: Path) -> dict:
    return evaluate_run(run, split="train", root=root, device="cpu", progress=False)


@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_score_as_one_to_the_last_digit(
    tiny_data: Path, finished_run: Path, tmp_path: Path, size: int
):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    root = tmp_path / "data"
    shutil.copytree(tiny_data, root)
    (root / "wave" / "0.mp4").unlink()  # 11 videos in batches of 2: no count divides another
    single = evaluate_run(run, split="train", root=root, progress=False)
    (file,) = run.glob("eval/train-fcn-forward@data-*.npz")
    scores = load_scores(file)
    results = run_ranks(size, evaluated, run, root)
    again = load_scores(file)
    assert again.video_ids.tolist() == scores.video_ids.tolist()
    assert np.array_equal(again.logits, scores.logits)
    for result in results:
        assert result | {"seconds": 0, "videos_per_second": 0} == single | {
            "seconds": 0,
            "videos_per_second": 0,
        }


# --- the command --------------------------------------------------------------------------------------


def run_command(*arguments: str) -> str:
    """Return what a command prints on this rank."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main([*arguments])
    return printed.getvalue()


def test_commands_print_on_rank_0_only(tiny_data: Path, tmp_path: Path):
    recipe = without_dropout(tiny_recipe(tiny_data, epochs=1))
    (tmp_path / "mine.toml").write_text(dump_recipe(recipe))
    run_ranks(2, run_command, "train", str(tmp_path / "mine.toml"), "--out", str(tmp_path / "run"))
    first, second = run_ranks(2, run_command, "eval", str(tmp_path / "run"), "--split", "val", "--json")
    assert (json.loads(first)[0]["num_videos"], second) == (3, "")


@pytest.mark.slow
def test_torchrun(tiny_data: Path, tmp_path: Path, quiet: Console):
    recipe = without_dropout(tiny_recipe(tiny_data, lr=1e-3, epochs=1))
    (tmp_path / "mine.toml").write_text(dump_recipe(recipe))
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "vsn",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for command in (["train", "mine.toml", "--out", "run"], ["eval", "run", "--split", "val", "--json"]):
        done = subprocess.run(
            [*torchrun, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["num_videos"] == 3  # only rank 0 prints
    single = train(recipe, tmp_path / "single", console=quiet).path
    assert_close_runs(tmp_path / "run", single)
    assert load_model(open_run(tmp_path / "run")) is not None
