"""Hold the results of a measurement, and compute medians, spread and ratios. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from vsn.scores.intervals import median_interval
from vsn.system.load import CpuLoad

if TYPE_CHECKING:
    from vsn.bench.runtimes import Infer, Variant
    from vsn.bench.subjects import Subject
    from vsn.config import BenchConfig

FEW_ROUNDS = 6
"""With fewer there is no 95% interval of a median, only the range."""
DISAGREEMENT = 0.05
"""The ratio of the medians and the median of the ratios differ by more than this only where the machine's speed changed."""

_EVALUATION_KEYS = (
    "split", "protocol", "num_views", "multiply_adds", "top1", "top1_interval", "num_videos",
)  # fmt: skip
"""Of the evaluations of a run, what is saved with its costs."""


class BenchError(ValueError):
    """A measurement is not possible with these settings; the message says what to do."""


class Spread(TypedDict):
    """Median, 10th and 90th percentile, in the unit of the values."""

    median: float
    p10: float
    p90: float


class Ratio(TypedDict):
    """How many times the baseline's: the median over rounds, with its 95% interval ``[low, high]``."""

    ratio: float
    interval: list[float]
    ratio_of_medians: float
    """Of the two medians over all rounds, which are what a table shows side by side."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Latency or throughput of a model."""

    batch_size: int
    """Videos in a batch."""
    rounds: int
    unit: str
    """"ms" or "videos_per_second"."""
    spread: Spread
    to_baseline: Ratio | None
    """How many times the baseline's value, over the rounds in which both were measured."""

    @property
    def is_consistent(self) -> bool:
        """Whether the two ratios to the baseline agree, within `DISAGREEMENT`."""
        if self.to_baseline is None:
            return True
        return abs(self.to_baseline["ratio_of_medians"] / self.to_baseline["ratio"] - 1) <= DISAGREEMENT

    def to_json(self) -> dict[str, Any]:
        """Return the fields for JSON, flat; ratio and interval only where there is a baseline."""
        fields = {"batch_size": self.batch_size, "rounds": self.rounds, "unit": self.unit}
        return {**fields, **self.spread, **(self.to_baseline or {})}


@dataclass(kw_only=True)
class BenchRow:
    """One model in one variant: runtime, mode, data type and memory format. Parts are latency and throughput."""

    subject: Subject
    variant: Variant
    parameters: int
    weight_bytes: int
    """In fp32."""
    infer: Infer | None = None
    """Maps clips to scores; None if preparing failed, and after the measurement."""
    times_ms: dict[str, list[float]] = field(default_factory=dict)
    """Times of each round, by part."""
    peak_bytes: dict[str, int | None] = field(default_factory=dict)
    """Peak memory by part."""
    errors: dict[str, str] = field(default_factory=dict)
    """Failures by part, or "prepare"."""
    # Set after the measurement.
    multiply_adds: int = 0
    """Of one clip."""
    multiply_adds_of_protocols: dict[str, int] = field(default_factory=dict)
    """Of a video under each protocol, for a run."""
    latency: Speed | None = None
    throughput: Speed | None = None

    @property
    def label(self) -> str:
        """Name of the model, or of the run folder."""
        return self.subject.label

    @property
    def multiply_adds_of_video(self) -> int:
        """Multiply-adds of all clips of a video."""
        return self.multiply_adds * self.subject.num_clips

    def to_json(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        subject, evaluations = self.subject, [result.to_json() for result in self.subject.evaluations]
        return {
            "label": self.label,
            "model": subject.config.name,
            "run": str(subject.run.path) if subject.run else None,
            "num_frames": subject.config.num_frames,
            "num_clips": subject.num_clips,
            "size": subject.size,
            **asdict(self.variant),
            "parameters": self.parameters,
            "multiply_adds": self.multiply_adds,
            "multiply_adds_of_video": self.multiply_adds_of_video,
            "multiply_adds_of_protocols": self.multiply_adds_of_protocols,
            "evaluations": [{k: v for k, v in values.items() if k in _EVALUATION_KEYS} for values in evaluations],
            "latency": self.latency and self.latency.to_json(),
            "throughput": self.throughput and self.throughput.to_json(),
            "peak_bytes": self.peak_bytes,
            "errors": self.errors,
        }


@dataclass(frozen=True, kw_only=True)
class BenchResults:
    """A measurement of several models. The fields are the keys of the JSON file."""

    command: str
    date: str
    versions: dict[str, str]
    device: dict[str, str | int | bool | None]
    load_average: dict[str, list[float] | None]
    """Of the system, before and after."""
    cpu_load: dict[str, CpuLoad | None]
    """What other processes used meanwhile, by part; None where it was measured too briefly to tell."""
    threads: int
    """Threads that computed; 1 on a GPU, where a CPU only starts kernels."""
    settings: BenchConfig
    baseline: str
    """Label of the model that ratios refer to."""
    interrupted: bool
    rows: list[BenchRow]

    @property
    def hardware(self) -> str:
        """Name of the GPU, or of the CPU."""
        return str(self.device.get("gpu") or self.versions["processor"])

    @property
    def too_busy(self) -> dict[str, float]:
        """The parts whose times are no result: the share of the threads that other processes took, above the limit."""
        shares = {part: load.taken(self.threads) for part, load in self.cpu_load.items() if load}
        return {part: share for part, share in shares.items() if share > self.settings.max_busy}

    def to_json(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        loads = {part: load and asdict(load) for part, load in self.cpu_load.items()}
        rows = [row.to_json() for row in self.rows]
        settings = asdict(self.settings)
        return {**vars(self), "cpu_load": loads, "settings": settings, "rows": rows, "too_busy": list(self.too_busy)}


def spread(values: Sequence[float]) -> Spread:
    """Compute median, 10th and 90th percentile."""
    # Percentiles, not mean and deviation: a busy machine makes a few times very long.
    low, middle, high = np.percentile(np.asarray(values, np.float64), [10, 50, 90])
    return {"median": float(middle), "p10": float(low), "p90": float(high)}


def paired_ratio(times: Sequence[float], base: Sequence[float]) -> Ratio:
    """Compute the median over rounds of ``times[i] / base[i]``, with its 95% interval.

    Fewer than `FEW_ROUNDS` have their range instead.

    Both times of a round were measured shortly after each other, so that a slow phase of the machine cancels out:

        times   10  20  10        a machine half as fast in round 2
        base     5  10   5
        ratio    2   2   2        no effect

    Beside it the ratio of the two medians. It loses the pairs, so that the two differ where the machine's speed changed
    from round to round.

    Raises:
        ValueError: there are no rounds, or different numbers of them.
    """
    if len(times) != len(base) or not times:
        raise ValueError(f"Expected the same rounds of both, 1 or more; got {len(times)} and {len(base)}.")
    ratios = np.asarray(times, np.float64) / np.asarray(base, np.float64)
    return {
        "ratio": float(np.median(ratios)),
        "interval": list(median_interval(ratios.tolist())),
        "ratio_of_medians": float(np.median(times) / np.median(base)),
    }
