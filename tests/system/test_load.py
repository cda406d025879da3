import subprocess
import sys
import time
from typing import Any

import psutil
import pytest

from vsn.system import load
from vsn.system.load import CpuLoad, CpuMeter


@pytest.mark.parametrize(
    ("cores", "others", "threads", "expected"),
    [
        (2, 0.0, 2, 0.0),
        (2, 1.0, 2, 0.5),
        (2, 1.0, 1, 0.0),  # a core is left
        (64, 30.0, 32, 0.0),
        (64, 40.0, 32, 0.25),
        (2, 2.0, 4, 1.0),  # never more than all
    ],
)
def test_share_that_others_take(cores: int, others: float, threads: int, expected: float):
    assert CpuLoad(cores=cores, others=others).taken(threads) == expected


def test_time_of_this_process_and_its_children_is_not_that_of_others(monkeypatch: pytest.MonkeyPatch):
    """The system counts what this process and a child compute, and 0.3 cores of somebody else."""
    started = time.perf_counter()

    def cpu_times(percpu: bool) -> list[Any]:
        process, others = psutil.Process(), 0.3 * (time.perf_counter() - started)
        own = sum(process.cpu_times()[:4]) + sum(sum(child.cpu_times()[:2]) for child in process.children())
        zero = type(real(percpu=True)[0])(*[0.0] * len(real(percpu=True)[0]))
        return [zero._replace(user=own + others, idle=1e6)] + [zero] * 200

    real = psutil.cpu_times
    monkeypatch.setattr(psutil, "cpu_times", cpu_times)
    monkeypatch.setattr(load, "_cpus", lambda: [0, 1])
    meter = CpuMeter()
    assert meter.read() is None  # too short to tell
    burn = "import time; end = time.time() + 9\nwhile time.time() < end: pass"
    with subprocess.Popen([sys.executable, "-c", burn]) as child:
        while time.perf_counter() - started < load.MIN_SECONDS + 0.1:
            sum(range(1000))
        found = meter.read()
        child.kill()
    assert found is not None
    assert found.cores == 2
    assert found.others == pytest.approx(0.3, abs=0.05)
