"""Measure how many CPU cores other processes use, which makes timings unreliable."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

import psutil

MIN_SECONDS = 1.0
"""The system counts CPU time in steps of 10 ms, so a shorter time says little."""


@dataclass(frozen=True, kw_only=True)
class CpuLoad:
    """Average use of the cores that this process may use."""

    cores: int
    others: float
    """Cores that other processes used, or that a virtual machine did not get from its host."""

    def taken(self, threads: int) -> float:
        """Return the share of ``threads`` for which other processes left no core, 0 to 1.

        >>> CpuLoad(cores=2, others=1.0).taken(2), CpuLoad(cores=2, others=1.0).taken(1)
        (0.5, 0.0)
        """
        return min(1.0, max(0.0, (threads + self.others - self.cores) / threads))


class CpuMeter:
    """Compares the CPU time of this process and its children with that of the whole system, since it was made."""

    def __init__(self) -> None:
        self._start, self._busy, self._own = time.perf_counter(), _busy_seconds(), _own_seconds()

    def read(self) -> CpuLoad | None:
        """Return the load since the start; None if that is less than `MIN_SECONDS` ago."""
        seconds = time.perf_counter() - self._start
        if seconds < MIN_SECONDS:
            return None
        others = _busy_seconds() - self._busy - (_own_seconds() - self._own)
        return CpuLoad(cores=len(_cpus()), others=max(0.0, others / seconds))


def _cpus() -> list[int]:
    # In a container or under a scheduler, those that this process may use.
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _busy_seconds() -> float:
    times = psutil.cpu_times(percpu=True)
    # Fields differ between systems. Time of guests is part of "user" already.
    idle = ("idle", "iowait", "guest", "guest_nice")
    return sum(
        value for cpu in _cpus() if cpu < len(times) for name, value in times[cpu]._asdict().items() if name not in idle
    )


def _own_seconds() -> float:
    process = psutil.Process()
    total = sum(process.cpu_times()[:4])  # user and system, of the process and of its children that have ended
    for child in process.children(recursive=True):
        try:
            total += sum(child.cpu_times()[:2])
        except psutil.Error:  # it has just ended
            continue
    return total
