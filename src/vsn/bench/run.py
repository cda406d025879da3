"""The measurement itself: subjects times variants, latency and throughput, all in turns."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from vsn.bench.memory import cpu_peak_bytes, cuda_peak_bytes, require_memory, weight_bytes
from vsn.bench.ratios import paired_ratio, spread
from vsn.bench.rounds import time_rounds
from vsn.bench.runtimes import RUNTIMES, Infer, Variant, describe_device, list_variants
from vsn.bench.subjects import BenchError, Subject, pick_baseline, protocol_costs, read_subjects
from vsn.config import BenchConfig
from vsn.models.measure import count_multiply_adds, count_parameters
from vsn.runs.metadata import versions
from vsn.system.distributed import pick_device
from vsn.system.interrupt import StopRequest, stop_requests
from vsn.system.progress import progress_bar

GPU_BATCHES, CPU_BATCHES = 500, 50
CPU_SECONDS = 120.0
_PAUSE = 0.02


@dataclass(kw_only=True)
class _Row:
    """One subject in one variant, and what came of it."""

    subject: Subject
    variant: Variant
    parameters: int
    weights: int
    """Bytes of the weights in fp32."""
    infer: Infer | None = None
    times: dict[str, list[float]] = field(default_factory=dict)
    """Milliseconds of each round, by part: latency, throughput."""
    peak: dict[str, int | None] = field(default_factory=dict)
    """Bytes, by part."""
    errors: dict[str, str] = field(default_factory=dict)
    """By part, or "prepare"."""

    @property
    def key(self) -> str:
        return f"{self.subject.label}, {self.variant}"


def run_bench(
    names: Sequence[str | Subject],
    config: BenchConfig | None = None,
    *,
    command: str = "",
    console: Console | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Measure models side by side: one batch of each in turn, so that a drifting machine harms all alike.

    Latency is of one video, throughput of ``config.batch_size``; clips are random, lie on the device
    as uint8 already, and normalization is part of the time. Ctrl-C ends the measurement, and what was
    measured so far is returned.

    Args:
        names: what `create_model` takes, or run folders; ``NAME@T`` and ``NAME@TxCLIPS`` state the input. A
            `Subject` may have any settings of a model.
        config: settings; default those of the paper's Table 6.
        command: what was typed, for the record.
        console: where failures of single variants are told; default standard error.
        progress: draw progress bars.

    Returns:
        What the JSON holds: command, date, versions, settings, ``interrupted``, and ``rows``, each with
        label, model, input, parameters, multiply-adds, latency (ms), throughput (videos a second), ratios
        to the baseline in the same variant with 95% intervals, peak memory (bytes), and errors.

    Raises:
        BenchError, ConfigError, RunError: what is wrong and what to do.
        RuntimeError: nothing could be measured; the first reason.
    """
    config = config or BenchConfig()
    device = pick_device(config.device)
    config = _resolved(config, device)
    subjects, variants = read_subjects(names, config), list_variants(config)
    baseline = pick_baseline(subjects, config.baseline)
    console = console or Console(stderr=True)
    load_before = _load()
    with _settings(config, device), stop_requests() as stop:
        rows = _prepare(subjects, variants, config, device, stop, progress)
        for part, num_videos in (("latency", 1), ("throughput", config.batch_size)):
            if num_videos and not stop.requested:
                _measure(rows, part, num_videos, config, device, stop, progress)
        facts = describe_device(device)
    measured = [row for row in rows if any(row.times.values())]
    for row in rows:
        for part, error in row.errors.items():
            console.print(f"{row.key}: {part} failed: {error}", highlight=False, soft_wrap=True, markup=False)
    if not measured and not stop.requested and rows:
        raise RuntimeError(f"Nothing could be measured; first: {rows[0].key}: {next(iter(rows[0].errors.values()))}")
    return {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions(),
        "device": facts,
        "load_average": {"before": load_before, "after": _load()},
        "settings": asdict(config),
        "baseline": baseline,
        "interrupted": stop.requested,
        "rows": [_describe(row, rows, baseline, config) for row in rows],
    }


def _resolved(config: BenchConfig, device: torch.device) -> BenchConfig:
    """Settings with what depends on the device filled in."""
    cuda = device.type == "cuda"
    seconds = config.seconds if config.seconds >= 0 else 0.0 if cuda else CPU_SECONDS
    batches = config.batches or (GPU_BATCHES if cuda else CPU_BATCHES)
    return replace(config, device=str(device), seconds=seconds, batches=batches)


@contextlib.contextmanager
def _settings(config: BenchConfig, device: torch.device) -> Iterator[None]:
    """Threads, the choice of convolutions by trial (shapes are fixed), and room for many compiled models."""
    former = torch.get_num_threads(), torch.backends.cudnn.benchmark
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.backends.cudnn.benchmark = device.type == "cuda"
    try:
        # By default the ninth compilation of a forward that models share is refused.
        with torch._dynamo.config.patch(recompile_limit=256) if "compile" in config.modes else contextlib.nullcontext():
            yield
    finally:
        torch.set_num_threads(former[0])
        torch.backends.cudnn.benchmark = former[1]


def _prepare(
    subjects: Sequence[Subject],
    variants: Sequence[Variant],
    config: BenchConfig,
    device: torch.device,
    stop: StopRequest,
    progress: bool,
) -> list[_Row]:
    rows: list[_Row] = []
    with progress_bar("models", disable=not progress) as bar:
        task = bar.add_task("preparing", total=len(subjects) * len(variants), note="")
        for subject in subjects:
            model = subject.build(config.seed)
            for variant in variants:
                if stop.requested:
                    return rows
                row = _Row(
                    subject=subject,
                    variant=variant,
                    parameters=count_parameters(model),
                    weights=weight_bytes(model),
                )
                bar.update(task, note=row.key)
                with _noted(row, "prepare"):
                    clips = subject.clips(1, config.seed)
                    row.infer = RUNTIMES[variant.runtime](model, subject.config, clips, variant, device)
                rows.append(row)
                bar.advance(task)
    return rows


def _measure(
    rows: Sequence[_Row],
    part: str,
    num_videos: int,
    config: BenchConfig,
    device: torch.device,
    stop: StopRequest,
    progress: bool,
) -> None:
    """Warm up every row, then take turns. A row that fails is left out, and says why."""
    clips: dict[str, Tensor] = {}
    calls: dict[str, Callable[[], object]] = {}
    with progress_bar("models", disable=not progress) as bar:
        task = bar.add_task(f"warming up for {part}", total=len(rows), note="")
        for row in rows:
            bar.update(task, note=row.key)
            if row.infer is not None and not stop.requested:
                with _noted(row, part):
                    if device.type == "cpu" and part == "throughput":
                        require_memory(row.subject, row.variant, num_videos)
                    label = row.subject.label
                    if label not in clips:
                        clips[label] = row.subject.clips(num_videos, config.seed).to(device)
                    call = partial(row.infer, clips[label])
                    _warm_up(row, call, part, num_videos, config, device)
                    calls[row.key] = call
            bar.advance(task)
    title = "latency" if part == "latency" else f"batches of {num_videos}"
    found = time_rounds(
        calls, device, rounds=config.batches, seconds=config.seconds, seed=config.seed, title=title, stop=stop,
        pause=_PAUSE if len(config.runtimes) > 1 else 0.0, progress=progress,
    )  # fmt: skip
    for row in rows:
        row.times[part] = found.get(row.key, [])


def _warm_up(
    row: _Row,
    call: Callable[[], object],
    part: str,
    num_videos: int,
    config: BenchConfig,
    device: torch.device,
) -> None:
    """Call it as often as is not counted, and measure its memory where that is asked for."""
    for _ in range(config.warmup):
        call()
    if device.type == "cuda":
        weights = row.weights // (1 if row.variant.dtype == "fp32" else 2)
        row.peak[part] = cuda_peak_bytes(call, device, weights)
    elif config.memory:
        row.peak[part] = cpu_peak_bytes(row.subject, config, row.variant, num_videos)


@contextlib.contextmanager
def _noted(row: _Row, part: str) -> Iterator[None]:
    """One that fails (no memory, no kernel, no compiler) must not cost the others their measurement."""
    try:
        yield
    except BenchError:
        raise
    except Exception as error:
        row.errors[part] = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


def _describe(row: _Row, rows: Sequence[_Row], baseline: str, config: BenchConfig) -> dict[str, Any]:
    subject, variant = row.subject, row.variant
    base = next((r for r in rows if r.subject.label == baseline and r.variant == variant), None)
    clip = count_multiply_adds(subject.config, size=subject.size)
    found: dict[str, Any] = {
        "label": subject.label,
        "model": subject.config.name,
        "run": str(subject.run.path) if subject.run else None,
        "num_frames": subject.config.num_frames,
        "num_clips": subject.num_clips,
        "size": subject.size,
        "runtime": variant.runtime,
        "mode": variant.mode,
        "dtype": variant.dtype,
        "format": variant.format,
        "parameters": row.parameters,
        "multiply_adds": clip,
        "multiply_adds_of_video": clip * subject.num_clips,
        "multiply_adds_of_protocols": protocol_costs(subject),
        "evaluations": list(subject.evaluations),
        "latency": None,
        "throughput": None,
        "peak_bytes": row.peak,
        "errors": row.errors,
    }
    for part, num_videos in (("latency", 1), ("throughput", config.batch_size)):
        times = row.times.get(part)
        if not times:
            continue
        theirs = base.times.get(part) if base is not None else None
        rates = [1000 * num_videos / value for value in times]
        figures = spread(times) if part == "latency" else spread(rates)
        unit = "ms" if part == "latency" else "videos_per_second"
        found[part] = {"batch_size": num_videos, "rounds": len(times), "unit": unit, **figures}
        if theirs:  # how many times the baseline's: milliseconds, or videos a second
            found[part] |= paired_ratio(times, theirs) if part == "latency" else paired_ratio(theirs, times)
    return found


def _load() -> list[float] | None:
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None
