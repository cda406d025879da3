"""Freed memory stays with the process: writing into new blocks takes few page faults."""

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

for size in (60_000_000, 10_000_000):
    write(size)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    write(60_000_000)
    write(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def num_page_faults(first: str) -> int:
    return int(subprocess.check_output([sys.executable, "-c", COUNT_FAULTS.format(first=first)]))


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_freed_memory_is_used_again():
    kept = num_page_faults("from vsn.system.allocator import keep_freed_memory; assert keep_freed_memory()")
    assert kept < 100
    assert num_page_faults("") > 5 * kept + 100  # with transparent huge pages one fault covers many pages


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_commands_that_run_a_network_keep_it():
    code = (
        "from vsn import cli\n"
        "from vsn.system.allocator import keeps_freed_memory\n"
        "for command in ('runs', 'serve'):\n"
        "    try: cli.main([command, '--help'])\n"
        "    except SystemExit: pass\n"
        "    print('kept' if keeps_freed_memory() else 'returned')\n"
    )
    lines = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    assert [line for line in lines if line in ("kept", "returned")] == ["returned", "kept"]


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    from vsn.system import allocator

    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(allocator, "_kept", False)
    assert not allocator.keep_freed_memory()
    assert not allocator.keeps_freed_memory()
