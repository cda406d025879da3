"""Find what this process may use of the machine: a container, or a job of a cluster, is often allowed less than there is.

Linux limits CPUs and memory by control groups, see cgroups(7). `docker run --cpus 2` and CPU limits of Kubernetes are a
quota of time, which neither `os.cpu_count` nor the affinity of the process shows. A library that starts a thread on each of
64 CPUs, with the time of two, mostly waits for threads that the system has paused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_MEMBERSHIP = Path("/proc/self/cgroup")
"""Lists the groups of this process."""
_ROOT = Path("/sys/fs/cgroup")
"""Where groups of version 2 are mounted; those of version 1 in a folder for each of their controllers."""


def num_cpus() -> int:
    """Return the number of CPUs this process may use: in its affinity, and by the quota of its control groups."""
    return thread_limit() or _num_in_affinity()


def thread_limit() -> int:
    """Return how many threads a library should start; 0, for its default, where no quota of CPU time limits them.

    A quota of 7.5 CPUs allows seven: of eight threads, which wait for each other, one would be paused half of the time.
    """
    quota = min((quota for folder, version in _groups("cpu") if (quota := _cpu_quota(folder, version))), default=0.0)
    limit = max(1, int(quota))
    return limit if quota and limit < _num_in_affinity() else 0


def limit_threads() -> None:
    """Have OpenMP start no more threads than a quota allows, here and in child processes; before PyTorch is imported.

    OMP_NUM_THREADS of the user is left as it is.
    """
    if limit := thread_limit():
        os.environ.setdefault("OMP_NUM_THREADS", str(limit))


def available_bytes() -> int:
    """Return how many bytes this process can take before the system ends it, or another one, for want of memory."""
    import psutil  # every command imports this module

    limited = (_memory_left(folder, version) for folder, version in _groups("memory"))
    return min([psutil.virtual_memory().available, *(left for left in limited if left is not None)])


def _num_in_affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _groups(controller: str) -> Iterator[tuple[Path, int]]:
    """Yield the folder and the version of each control group of this process, innermost first; none on other systems."""
    try:
        lines = _MEMBERSHIP.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        version = 1 if controllers else 2
        if version == 2 or controller in controllers.split(","):
            mount = _ROOT / controller if version == 1 else _ROOT
            # A limit of a parent holds too. In a container, the path may be that of the host, and only the mount be seen.
            for folder in (inner := mount / path.lstrip("/"), *inner.parents):
                if folder.is_relative_to(mount):
                    yield folder, version


def _cpu_quota(folder: Path, version: int) -> float:
    """Return how many CPUs a group may use at a time; 0 without a limit, or if it cannot be read."""
    names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    try:
        quota, period = " ".join((folder / name).read_text(encoding="ascii") for name in names).split()
        return max(0.0, int(quota) / int(period))  # "max" or -1: no limit
    except (OSError, ValueError, ZeroDivisionError):
        return 0.0


def _memory_left(folder: Path, version: int) -> int | None:
    """Return the bytes that a group may still take; None without a limit, or if it cannot be read."""
    limit, usage, cached = (
        ("memory.max", "memory.current", "inactive_file")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    try:
        most, used = (int((folder / name).read_text(encoding="ascii")) for name in (limit, usage))  # "max": no limit
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        # Cached files are given up first.
        return max(0, most - used + int(statistics.get(cached, 0)))
    except (OSError, ValueError):
        return None
