"""Memory that was freed stays with the process: writing into new blocks costs no page faults."""

import platform
import subprocess
import sys

import pytest

GLIBC = platform.system() == "Linux" and platform.libc_ver()[0] == "glibc"
COUNT_FAULTS = """
import resource
import numpy as np
{first}

def write(size):
    np.ones(size, np.uint8)

for size in (200_000_000, 30_000_000):
    write(size)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    write(200_000_000)
    write(30_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(first: str) -> int:
    return int(subprocess.check_output([sys.executable, "-c", COUNT_FAULTS.format(first=first)]))


@pytest.mark.skipif(not GLIBC, reason="glibc alone is told")
def test_what_was_freed_is_used_again():
    told = "from vsn.system.allocator import keep_freed_memory; assert keep_freed_memory()"
    kept, given_back = faults(told), faults("")
    assert kept < 100
    assert given_back > 5 * kept + 100  # each block comes from the system again; large pages make these fewer


@pytest.mark.skipif(not GLIBC, reason="glibc alone is told")
def test_the_command_tells_the_allocator():
    code = (
        "from vsn import allocator, cli\ntry: cli.main(['--version'])\nfinally: print(allocator.keeps_freed_memory())"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()[-1] == "True"


def test_elsewhere_nothing_changes(monkeypatch: pytest.MonkeyPatch):
    from vsn.system import allocator

    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(allocator, "_kept", False)
    assert not allocator.keep_freed_memory()
    assert not allocator.keeps_freed_memory()
