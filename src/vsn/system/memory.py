"""Find how much memory a process may still take: a container, or a job of a cluster, is often allowed less than there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

# Names of the limit and the usage of a control group, and of the cached files in its statistics, which are given up first.
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")


def available_bytes() -> int:
    """Return how many bytes this process can take before the system ends it, or another one, for want of memory."""
    return min([psutil.virtual_memory().available, *_left_in_groups(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _left_in_groups(membership: Path, root: Path) -> Iterator[int]:
    """Yield what each control group that has a limit leaves to this process; nothing on other systems.

    Args:
        membership: lists the groups of this process, see cgroups(7).
        root: the folder in which groups of version 2 are mounted, and those of version 1 in its folder "memory".
    """
    try:
        lines = membership.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount, names = root, _VERSION_2
        elif "memory" in controllers.split(","):
            mount, names = root / "memory", _VERSION_1
        else:
            continue
        # A limit of a parent holds too. In a container the path may be that of the host, of which only the mount is seen.
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(mount) and (left := _left_in_group(folder, *names)) is not None:
                yield left


def _left_in_group(folder: Path, limit: str, usage: str, cached: str) -> int | None:
    """Return what a control group leaves; None for one without a limit, or that cannot be read."""
    try:
        most = (folder / limit).read_text(encoding="ascii").strip()
        used = int((folder / usage).read_text(encoding="ascii"))
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return None
    return None if most == "max" else max(0, int(most) - used + int(statistics.get(cached, 0)))
