"""Let glibc keep freed memory, which makes training on a CPU faster.

By default glibc returns large freed blocks to the system, and the next step takes a page fault for each of their pages:
the activations of a network are such blocks, allocated again for every clip. Measured (`results/allocator-cpu.json`):
500 page faults a training step in place of 8,000 to 19,000, and a tenth less time; inference of a large network gains
nothing. Only commands that run a network call it. The price: the process does not shrink until it ends.

The environment variables of glibc (`MALLOC_TRIM_THRESHOLD_` and others) do the same, but have to be set before the
process starts.
"""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # from <malloc.h>
_PAD_BYTES = 64 * 2**20
_kept = False


def keep_freed_memory() -> bool:
    """Let this process keep the memory it frees; return whether it does, which needs glibc on Linux."""
    global _kept
    if not _has_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # All blocks come from the heap (no mmap), which is never trimmed and grows in large pieces.
    _kept = all([mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, -1), mallopt(_M_TOP_PAD, _PAD_BYTES)])
    return _kept


def return_freed_memory() -> None:
    """Return to the system what this process has freed: large blocks stay on the heap of the thread that freed them."""
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _has_glibc() -> bool:
    return platform.system() == "Linux" and platform.libc_ver()[0] == "glibc"


def keeps_freed_memory() -> bool:
    """Return whether `keep_freed_memory` took effect in this process; `versions.json` records it."""
    return _kept
