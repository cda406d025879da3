"""Measure models side by side: prepare every model in every variant, then time latency and throughput in turns."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import torch
from rich.console import Console
from torch import Tensor

from vsn.bench.memory import cpu_peak_bytes, cuda_peak_bytes, require_memory, weight_bytes
from vsn.bench.results import BenchError, BenchResults, BenchRow, Speed, paired_ratio, spread
from vsn.bench.rounds import time_rounds
from vsn.bench.runtimes import RUNTIMES, Variant, describe_device, list_variants
from vsn.bench.subjects import Subject, pick_baseline, protocol_costs, read_subjects
from vsn.config import BenchConfig
from vsn.models.measure import count_multiply_adds, count_parameters
from vsn.runs.metadata import versions
from vsn.system.distributed import pick_device
from vsn.system.interrupt import StopRequest, stop_requests
from vsn.system.load import CpuLoad, CpuMeter
from vsn.system.numbers import counted, decimal
from vsn.system.progress import progress_bar
from vsn.system.terminal import print_line, print_note

GPU_BATCHES, CPU_BATCHES = 500, 50
CPU_SECONDS = 120.0
_PAUSE_SECONDS = 0.02


def run_bench(
    names: Sequence[str | Subject],
    config: BenchConfig | None = None,
    *,
    command: str = "",
    console: Console | None = None,
    progress: bool = True,
) -> BenchResults:
    """Measure models side by side, one batch of each in turn, so that a slow phase of the machine affects all of them.

    Latency is of one video, throughput of batches of ``config.batch_size`` videos. Clips are random uint8 tensors on
    the device; the time includes normalization. Ctrl-C ends the measurement, and returns the results so far.

    Args:
        names: model names as `create_model` takes them, or run folders; ``NAME@T`` and ``NAME@TxCLIPS`` set the input.
            A `Subject` may have any model settings.
        config: settings; default those of the paper's Table 6.
        command: the command, for the record.
        console: where failures of single variants are printed; default standard error.
        progress: draw progress bars.

    Other processes that use the cores make the times wrong: see `BenchResults.too_busy`.

    Raises:
        BenchError, ConfigError, RunError: the settings are not possible.
        RuntimeError: nothing could be measured; with the first reason.
    """
    config = config or BenchConfig()
    device = pick_device(config.device)
    # Defaults that depend on the device are filled in, so that the results record what was used.
    cuda = device.type == "cuda"
    config = replace(
        config,
        device=str(device),
        seconds=config.seconds if config.seconds >= 0 else 0.0 if cuda else CPU_SECONDS,
        batches=config.batches or (GPU_BATCHES if cuda else CPU_BATCHES),
    )
    subjects, variants = read_subjects(names, config), list_variants(config)
    baseline = pick_baseline(subjects, config.baseline)
    console = console or Console(stderr=True)
    # A high load tells a reader of the results that another program was running.
    load_before = _load_average()
    threads = 1 if cuda else config.threads or torch.get_num_threads()
    cpu_load: dict[str, CpuLoad | None] = {}
    meter = CpuMeter()
    # Latency of all models first, then throughput: Ctrl-C in between leaves complete latencies.
    with _torch_settings(config, device), stop_requests() as stop:
        rows = _prepare(subjects, variants, config, device, stop, progress)
        # Said before the measurement, which takes minutes, and refused only after it.
        if (load := meter.read()) and load.taken(threads) > config.max_busy:
            busy = f"Other processes use {decimal(load.others)} of {counted(load.cores, 'core')}."
            print_note(console, f"{busy} Stop them, or the result will be refused.")
        for part, num_videos in (("latency", 1), ("throughput", config.batch_size)):
            if num_videos and not stop.requested:
                cpu_load[part] = _measure(rows, part, num_videos, config, device, stop, progress)
        device_settings = describe_device(device)
    for row in rows:
        for part, error in row.errors.items():
            print_line(console, f"{_key(row)}: {part} failed: {error}")
    if rows and not stop.requested and not any(times for row in rows for times in row.times_ms.values()):
        reason = next(iter(rows[0].errors.values()))
        raise RuntimeError(f"Nothing could be measured; first: {_key(rows[0])}: {reason}")
    _summarize(rows, baseline, config)
    return BenchResults(
        command=command,
        date=datetime.now(UTC).date().isoformat(),
        versions=versions(),
        device=device_settings,
        load_average={"before": load_before, "after": _load_average()},
        cpu_load=cpu_load,
        threads=threads,
        settings=config,
        baseline=baseline,
        interrupted=stop.requested,
        rows=rows,
    )


@contextlib.contextmanager
def _record_errors(row: BenchRow, part: str) -> Iterator[None]:
    """Record a failure (no memory, no kernel, no compiler), so that the others are still measured."""
    try:
        yield
    except BenchError:
        raise
    except Exception as error:
        row.errors[part] = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


@contextlib.contextmanager
def _torch_settings(config: BenchConfig, device: torch.device) -> Iterator[None]:
    """Set threads, cuDNN's search for the fastest convolution, and the limit of compiled models; restore them."""
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.backends.cudnn.benchmark = device.type == "cuda"  # pays off, because shapes are fixed
    try:
        # All models share one forward, and by default PyTorch compiles a function at most eight times.
        with torch._dynamo.config.patch(recompile_limit=256) if "compile" in config.modes else contextlib.nullcontext():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = benchmark


def _prepare(
    subjects: Sequence[Subject],
    variants: Sequence[Variant],
    config: BenchConfig,
    device: torch.device,
    stop: StopRequest,
    progress: bool,
) -> list[BenchRow]:
    rows: list[BenchRow] = []
    with progress_bar("models", disable=not progress) as bar:
        task = bar.add_task("preparing", total=len(subjects) * len(variants), note="")
        for subject in subjects:
            # Built once: every variant copies the same weights.
            model, clips = subject.build(config.seed), subject.clips(1, config.seed)
            for variant in variants:
                if stop.requested:
                    return rows
                row = BenchRow(
                    subject=subject,
                    variant=variant,
                    parameters=count_parameters(model),
                    weight_bytes=weight_bytes(model),
                )
                bar.update(task, note=_key(row))
                with _record_errors(row, "prepare"):
                    row.infer = RUNTIMES[variant.runtime](model, subject.config, clips, variant, device)
                rows.append(row)
                bar.advance(task)
    return rows


def _measure(
    rows: Sequence[BenchRow],
    part: str,
    num_videos: int,
    config: BenchConfig,
    device: torch.device,
    stop: StopRequest,
    progress: bool,
) -> CpuLoad | None:
    """Warm up every row and measure its memory, then time all of them in turns, except those that fail.

    Returns what other processes used of the CPU while the times were measured.
    """
    clips: dict[str, Tensor] = {}  # by label: variants of a model share their clips
    calls: dict[str, Callable[[], object]] = {}
    with progress_bar("models", disable=not progress) as bar:
        task = bar.add_task(f"warming up for {part}", total=len(rows), note="")
        for row in rows:
            bar.update(task, note=_key(row))
            subject, variant = row.subject, row.variant
            if row.infer is not None and not stop.requested:
                with _record_errors(row, part):
                    # On CUDA a batch that does not fit raises an error, which is recorded.
                    if device.type == "cpu" and part == "throughput":
                        require_memory(subject, variant, num_videos)
                    if subject.label not in clips:
                        clips[subject.label] = subject.clips(num_videos, config.seed).to(device)
                    call = partial(row.infer, clips[subject.label])
                    # The first calls compile, choose kernels and fill caches.
                    for _ in range(config.warmup):
                        call()
                    # On CUDA free of cost; on a CPU it takes a process, so only with --memory.
                    if device.type == "cuda":
                        weights = row.weight_bytes // (1 if variant.dtype == "fp32" else 2)
                        row.peak_bytes[part] = cuda_peak_bytes(call, device, weights)
                    elif config.memory:
                        row.peak_bytes[part] = cpu_peak_bytes(subject, config, variant, num_videos)
                    calls[_key(row)] = call
            bar.advance(task)
    meter = CpuMeter()
    times_ms = time_rounds(
        calls,
        device,
        rounds=config.batches,
        seconds=config.seconds,
        seed=config.seed,
        title="latency" if part == "latency" else f"batches of {num_videos}",
        stop=stop,
        # Within one runtime the threads are the same ones, and need no pause.
        pause=_PAUSE_SECONDS if len(config.runtimes) > 1 else 0.0,
        progress=progress,
    )
    load = meter.read()
    for row in rows:
        row.times_ms[part] = times_ms.get(_key(row), [])
    return load


def _key(row: BenchRow) -> str:
    return f"{row.label}, {row.variant}"


def _summarize(rows: Sequence[BenchRow], baseline: str, config: BenchConfig) -> None:
    """Count multiply-adds, summarize the times, and compare each row with the baseline in the same variant."""
    baselines = {row.variant: row for row in rows if row.label == baseline}
    # Counted once per subject, not once per variant.
    subjects = {row.label: row.subject for row in rows}
    costs = {label: count_multiply_adds(s.config, size=s.size) for label, s in subjects.items()}
    protocols = {label: protocol_costs(subject) for label, subject in subjects.items()}
    for row in rows:
        row.infer = None  # the results outlive the models, and must not keep them in memory
        row.multiply_adds, row.multiply_adds_of_protocols = costs[row.label], protocols[row.label]
        base = baselines.get(row.variant)
        row.latency = _speed(row, base, "latency", 1)
        row.throughput = _speed(row, base, "throughput", config.batch_size)


def _speed(row: BenchRow, base: BenchRow | None, part: str, batch_size: int) -> Speed | None:
    """Summarize the times of a part: latency as milliseconds, throughput as videos per second."""

    def values(times_ms: Sequence[float]) -> list[float]:
        return list(times_ms) if part == "latency" else [1000 * batch_size / ms for ms in times_ms]

    measured = values(row.times_ms.get(part, ()))
    if not measured:
        return None
    base_values = values(base.times_ms.get(part, ())) if base else []
    return Speed(
        batch_size=batch_size,
        rounds=len(measured),
        unit="ms" if part == "latency" else "videos_per_second",
        spread=spread(measured),
        to_baseline=paired_ratio(measured, base_values) if base_values else None,
    )


def _load_average() -> list[float] | None:
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
