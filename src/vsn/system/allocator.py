"""How glibc's allocator treats memory that was freed; on a CPU it decides what a step costs.

By default it gives large blocks back to the system, and the next step pays for each of their pages again: a
network's features are large blocks, written anew for every clip. Kept, they are at hand. What a process holds does not
shrink then until it ends.
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of <malloc.h>
_PAD_BYTES = 64 * 2**20
_kept = False


def keep_freed_memory() -> bool:
    """Let this process keep the memory it frees; the `vsn` command does, for itself.

    Returns:
        Whether it does now: with glibc on Linux; elsewhere, and under another allocator, nothing changes.
    """
    global _kept
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # Blocks of any size from the heap, which is never cut back, and grows in large pieces.
    _kept = all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, -1), mallopt(_TOP_PAD, _PAD_BYTES)])
    return _kept


def keeps_freed_memory() -> bool:
    """Whether `keep_freed_memory` was called here, and had effect."""
    return _kept
