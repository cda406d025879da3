"""Check that a GPU computes what a CPU does: operations, models, training, resuming, flow, decoding.

    pytest -m gpu

Without a CUDA device all of it is skipped. `VSN_TEST_DEVICE=cpu` runs it on the CPU against itself, which shows
that the tests run, and nothing of a GPU.
"""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from tests.data.video.test_torchcodec import UNUSABLE
from tests.helpers.motions import end_point_error, moved_pair, moving_video, translation
from tests.helpers.ranks import run_ranks
from tests.helpers.tiny_runs import tiny_recipe, weights_of
from tests.training.test_train import at_step, interrupt
from vsn.bench.run import run_bench
from vsn.config import BenchConfig, Recipe
from vsn.data.flow.tvl1 import tvl1_flow
from vsn.data.video import open_video
from vsn.data.video.torchcodec_reader import TorchCodecReader
from vsn.inference.evaluate import evaluate_run
from vsn.models import create_model
from vsn.ops import temporal_shift, video_shuffle
from vsn.runs.run import read_metrics
from vsn.scores.scores import load_scores
from vsn.training.batch_norm import synchronize_batch_norm
from vsn.training.batch_size import TrialStep, find_batch_size
from vsn.training.train import TrainingStopped, train

pytestmark = pytest.mark.gpu

DEVICE = os.environ.get("VSN_TEST_DEVICE", "cuda")
OPERATIONS = {"video_shuffle": video_shuffle, "temporal_shift": temporal_shift}
FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


@pytest.fixture(scope="module", autouse=True)
def device() -> Iterator[torch.device]:
    """The GPU, computing fp32 in fp32: no TF32, which has ten bits of fraction."""
    if DEVICE == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield torch.device(DEVICE)
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture
def quiet() -> Console:
    return Console(quiet=True)


def on_device(recipe: Recipe, **train_settings: Any) -> Recipe:
    return replace(recipe, train=replace(recipe.train, device=DEVICE, **train_settings))


# --- operations ------------------------------------------------------------------------------------


def random_frames(channels: int, dtype: torch.dtype, layout: torch.memory_format, *, seed: int) -> Tensor:
    values = torch.randn(8, channels, 6, 5, generator=torch.Generator().manual_seed(seed))
    return values.to(dtype).contiguous(memory_format=layout)


def values_and_gradient(function: Any, frames: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    frames = frames.clone(memory_format=torch.preserve_format).requires_grad_()
    out = function(frames, 4)
    [back] = torch.autograd.grad(out, frames, gradient)
    return out.detach(), back


@pytest.mark.parametrize("channels", [32, 30])  # 30: groups of 7 and two channels over
@pytest.mark.parametrize("layout", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_the_cpus_to_the_bit(
    device: torch.device, name: str, dtype: torch.dtype, layout: torch.memory_format, channels: int
):
    function = OPERATIONS[name]
    frames, gradient = (random_frames(channels, dtype, layout, seed=seed) for seed in (0, 1))
    expected = values_and_gradient(function, frames, gradient)
    found = values_and_gradient(function, frames.to(device), gradient.to(device))
    for ours, wanted in zip(found, expected, strict=True):
        assert ours.device.type == device.type
        assert torch.equal(ours.cpu(), wanted)
    assert found[0].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("channels", [32, 30])
@pytest.mark.parametrize("layout", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_compiled_operations_too(device: torch.device, name: str, layout: torch.memory_format, channels: int):
    frames, gradient = (random_frames(channels, torch.bfloat16, layout, seed=seed) for seed in (0, 1))
    expected = values_and_gradient(OPERATIONS[name], frames, gradient)
    compiled = torch.compile(OPERATIONS[name], fullgraph=True, dynamic=False)
    found = values_and_gradient(compiled, frames.to(device), gradient.to(device))
    assert all(torch.equal(ours.cpu(), wanted) for ours, wanted in zip(found, expected, strict=True))


def test_large_operations_reach_every_value(device: torch.device):
    """More values than one block of threads, an odd number of them: 16 clips of ResNet-50's stage 2."""
    frames = torch.arange(128 * 64 * 55 * 55, dtype=torch.float32).view(128, 64, 55, 55)
    for function in OPERATIONS.values():
        assert torch.equal(function(frames.to(device), 8).cpu(), function(frames, 8))


# --- models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tsn_resnet18", {}),
        ("tsm_resnet18", {}),
        ("vsn_resnet18", {}),
        ("vsn_resnet50", {}),
        ("vsn_resnet50", {"block": "headtail"}),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value.values()),
)
def test_models_compute_what_they_do_on_a_cpu(
    device: torch.device, name: str, settings: dict[str, Any], layout: torch.memory_format
):
    torch.manual_seed(0)
    model = create_model(name, num_classes=7, num_frames=4, **settings).eval()
    clip = torch.randint(0, 256, (2, 4, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        expected = model(clip)
        found = model.to(device, memory_format=layout)(clip.to(device)).cpu()
    scale = expected.abs().max()
    torch.testing.assert_close(found / scale, expected / scale, atol=2e-4, rtol=0)


def test_evaluation_gives_the_cpus_scores(device: torch.device, tiny_data: Path, tmp_path: Path, quiet: Console):
    run = train(tiny_recipe(tiny_data), tmp_path / "run", console=quiet).path
    scores = {}
    for where in ("cpu", DEVICE):
        evaluate_run(run, split="val", device=where, progress=False)
        scores[where] = load_scores(run / "eval" / "val-fcn-forward.npz").logits
    np.testing.assert_allclose(scores[DEVICE], scores["cpu"], atol=1e-4)


# --- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_training_in_each_precision_is_finite(
    device: torch.device, tiny_data: Path, tmp_path: Path, quiet: Console, precision: str, channels_last: bool
):
    if precision == "fp16" and DEVICE == "cpu":
        pytest.skip("fp16 needs CUDA")
    recipe = on_device(tiny_recipe(tiny_data), precision=precision, channels_last=channels_last)
    run = train(recipe, tmp_path / "run", console=quiet).path
    lines = read_metrics(run)
    assert all(math.isfinite(line[key]) for line in lines for key in ("train_loss", "val_loss"))
    assert all(torch.isfinite(tensor.float()).all() for tensor in weights_of(run).values())


def test_the_first_loss_is_the_cpus(device: torch.device, tiny_data: Path, tmp_path: Path, quiet: Console):
    """The same clips, weights and order; without dropout, whose draws are the device's own."""
    recipe = tiny_recipe(tiny_data, epochs=1, lr=1e-9)
    recipe = replace(recipe, model=replace(recipe.model, dropout=0.0))
    losses = [
        read_metrics(train(one, tmp_path / name, console=quiet).path)[0]["train_loss"]
        for name, one in (("cpu", recipe), ("device", on_device(recipe)))
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_interrupted_and_resumed_is_uninterrupted(
    device: torch.device, tiny_data: Path, tmp_path: Path, quiet: Console, monkeypatch: pytest.MonkeyPatch
):
    # cuDNN picks its algorithms by trial, so that no two trainings need be equal to the bit.
    monkeypatch.setattr(torch.backends.cudnn, "enabled", False)
    recipe = on_device(tiny_recipe(tiny_data), channels_last=False)
    for name in ("whole", "again"):
        train(recipe, tmp_path / name, console=quiet)
    whole, again = weights_of(tmp_path / "whole"), weights_of(tmp_path / "again")
    if not all(torch.equal(whole[key], again[key]) for key in whole):
        pytest.skip("two uninterrupted trainings differ on this device already")
    at_step(monkeypatch, 5, interrupt)
    with pytest.raises(TrainingStopped, match="epoch 2 after 2 of 3"):
        train(recipe, tmp_path / "parts", console=quiet)
    train(recipe, tmp_path / "parts", resume=True, console=quiet)
    parts = weights_of(tmp_path / "parts")
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []


def test_compiled_training_step(device: torch.device, tiny_data: Path, tmp_path: Path, quiet: Console):
    if DEVICE == "cpu":
        pytest.skip("compiling for a CPU takes minutes")
    recipe = tiny_recipe(tiny_data, epochs=1)
    recipe = replace(recipe, model=replace(recipe.model, dropout=0.0))
    losses = [
        read_metrics(train(on_device(recipe, compile=on), tmp_path / str(on), console=quiet).path)[0]["train_loss"]
        for on in (False, True)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


# --- several processes on one GPU ------------------------------------------------------------------


def ddp_step(folder: str, where: str) -> dict[str, Any]:
    """Loss and gradients of a step, plain and through DistributedDataParallel."""
    device, backend = torch.device(where), "nccl" if where == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, init_method=f"file://{folder}/meet", rank=0, world_size=1)
    torch.manual_seed(0)
    model = create_model("vsn_resnet14_tiny", num_classes=3, num_frames=4, dropout=0.0).to(device).eval()
    clip = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8).to(device)
    found = {}
    for name, network in (("plain", model), ("ddp", nn.parallel.DistributedDataParallel(model))):
        model.zero_grad()
        network(clip).logsumexp(dim=1).sum().backward()
        found[name] = {key: value.grad.cpu().numpy() for key, value in model.named_parameters()}
    return found


def test_one_process_of_ddp_has_the_plain_gradients(device: torch.device, tmp_path: Path):
    [found] = run_ranks(1, ddp_step, str(tmp_path), DEVICE)
    assert found["plain"].keys() == found["ddp"].keys()
    for name, gradient in found["plain"].items():
        np.testing.assert_allclose(found["ddp"][name], gradient, rtol=1e-4, atol=1e-6, err_msg=name)


def share_step(where: str, shares: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Running mean and gradient after a step of which this process has its share, perhaps none."""
    # Both processes are on one GPU, which NCCL refuses.
    torch.distributed.init_process_group("gloo")
    rank, device = torch.distributed.get_rank(), torch.device(where)
    norm = synchronize_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), device).to(device).train()
    values = torch.randn(sum(shares), 3, 4, 4, generator=torch.Generator().manual_seed(0))
    ours = values.split(list(shares))[rank].to(device)
    (norm(ours) ** 3).sum().backward()
    # PyTorch's gives no gradient to a process without a video; `DistributedDataParallel` fills in zeros.
    gradient = torch.zeros(3, device=device) if norm[0].weight.grad is None else norm[0].weight.grad
    torch.distributed.all_reduce(gradient)
    return norm[0].running_mean.cpu().numpy(), gradient.cpu().numpy()


@pytest.mark.parametrize("shares", [(3, 3), (5, 1), (4, 0)])
def test_batch_statistics_are_those_of_all_processes(device: torch.device, shares: tuple[int, ...]):
    """Of a process without a video too, as in the last step of an epoch."""
    norm = nn.BatchNorm2d(3).train()
    (norm(torch.randn(sum(shares), 3, 4, 4, generator=torch.Generator().manual_seed(0))) ** 3).sum().backward()
    for mean, gradient in run_ranks(2, share_step, DEVICE, shares):
        np.testing.assert_allclose(mean, norm.running_mean.numpy(), atol=1e-6)
        np.testing.assert_allclose(gradient, norm.weight.grad.numpy(), rtol=1e-3, atol=1e-3)


# --- memory and speed ------------------------------------------------------------------------------


def test_batch_size_is_found_by_trying(device: torch.device, tiny_data: Path):
    if DEVICE == "cuda":  # a small share of the card is enough to run out of
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(2**30 / torch.cuda.get_device_properties(0).total_memory)
    recipe = on_device(tiny_recipe(tiny_data))
    try:
        text = find_batch_size(recipe)
        found = re.match(r"(\d+) videos fit into", text)
        assert found is not None, text
        if DEVICE == "cuda":
            assert 0 < int(found[1]) < 4096
            TrialStep(recipe, 3, device)(int(found[1]))
    finally:
        if DEVICE == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(1.0)


def test_bench_measures_time_and_memory(device: torch.device):
    config = BenchConfig(
        size=32, num_frames=4, num_classes=5, batches=4, batch_size=8, dtypes=("fp32", "bf16"), device=DEVICE
    )  # fmt: skip
    rows = run_bench(["tsn_resnet14_tiny", "vsn_resnet14_tiny"], config, progress=False).rows
    assert [row.errors for row in rows] == [{}] * 4
    assert all(row.latency.spread["median"] > 0 and row.throughput.spread["median"] > 0 for row in rows)
    if DEVICE == "cuda":  # on a CPU it takes a process each
        assert all(row.peak_bytes["throughput"] > row.peak_bytes["latency"] > 0 for row in rows)


# --- flow and decoding -----------------------------------------------------------------------------


@pytest.mark.parametrize("motion", [(1.5, 0.0), (-2.0, 3.0)])
def test_flow_is_the_cpus(device: torch.device, motion: tuple[float, float]):
    first, second, truth = moved_pair(translation(*motion), height=96, width=128)
    pairs = torch.from_numpy(np.stack([first, second]))[None]
    flows = [tvl1_flow(pairs.to(where))[0].permute(1, 2, 0).cpu().numpy() for where in ("cpu", device)]
    assert end_point_error(flows[1], truth, border=8) < 0.3
    assert np.linalg.norm(flows[1] - flows[0], axis=2).mean() < 0.02


@pytest.mark.skipif(bool(UNUSABLE), reason=UNUSABLE or "usable")
def test_torchcodec_decodes_on_the_gpu(device: torch.device, tmp_path: Path):
    path = moving_video(tmp_path / "moving.mp4", 40, size=(128, 160))

    def choose(num_frames: int) -> list[int]:
        return list(range(0, num_frames, 7))

    decoder = "torchcodec-cuda" if DEVICE == "cuda" else "torchcodec"
    video = open_video(path, decoder=decoder)
    assert isinstance(video, TorchCodecReader)
    assert video._decoder is not None, "PyAV would read it"
    frames = video.sample(choose).astype(int)
    wanted = open_video(path).sample(choose).astype(int)
    assert frames.shape == wanted.shape
    assert np.abs(frames - wanted).mean() < 2
