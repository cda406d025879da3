"""A batch that does not fit into memory is refused, before the system kills the process."""

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from vsn.bench import memory
from vsn.bench.memory import activation_bytes
from vsn.bench.run import run_bench
from vsn.bench.runtimes import list_variants
from vsn.bench.subjects import read_subjects
from vsn.config import BenchConfig

SMALL = BenchConfig(size=32, num_classes=5, num_frames=4, batches=3, warmup=1, batch_size=2, device="cpu")


def test_bytes_that_live_at_one_time():
    """Of ResNet-18 most live where the stem's convolution becomes its normalized output: two maps of 64 channels."""
    config = BenchConfig(size=64, num_frames=8, device="cpu")
    (subject,) = read_subjects(["tsn_resnet18"], config)
    stem = 8 * 64 * 32 * 32 * 4
    assert 2 * stem <= activation_bytes(subject, 1) <= 2.3 * stem
    assert activation_bytes(subject, 3) == 3 * activation_bytes(subject, 1)


def test_a_batch_without_room_costs_its_throughput_alone(monkeypatch: pytest.MonkeyPatch):
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=5_000))
    # In this module alone: the load of the machine is read from psutil too.
    monkeypatch.setattr(memory, "psutil", SimpleNamespace(Process=lambda: process))
    monkeypatch.setattr(memory, "available_bytes", lambda: 10_000)
    (row,) = run_bench(["tsn_resnet14_tiny"], SMALL, progress=False).rows
    assert row.latency.rounds == 3
    assert row.throughput is None
    assert re.search(r"2 videos.* 0\.0 GB .*--batch-size", row.errors["throughput"])
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**12)
    (row,) = run_bench(["tsn_resnet14_tiny"], SMALL, progress=False).rows
    assert row.throughput.rounds == 3


def test_half_precision_wants_half_and_other_runtimes_are_not_asked(monkeypatch: pytest.MonkeyPatch):
    (subject,) = read_subjects(["tsn_resnet14_tiny"], SMALL)
    needed = 1.2 * activation_bytes(subject, 2)
    monkeypatch.setattr(memory, "available_bytes", lambda: 0.7 * needed)
    nothing = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=0))
    monkeypatch.setattr(memory.psutil, "Process", lambda: nothing)
    fp32 = list_variants(SMALL)[0]
    with pytest.raises(MemoryError, match="2 videos"):
        memory.require_memory(subject, fp32, 2)
    memory.require_memory(subject, replace(fp32, dtype="bf16"), 2)
    memory.require_memory(subject, replace(fp32, runtime="openvino"), 2)
