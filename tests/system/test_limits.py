"""What control groups of Linux leave to a process: CPUs and memory."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from vsn.system import limits
from vsn.system.limits import available_bytes, limit_threads, num_cpus, thread_limit

PLENTY = 2**62
"""Bytes; version 1 states such a number where there is no limit."""

Groups = Callable[..., None]


@pytest.fixture(params=[1, 2])
def group(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    """Return a function that writes the files of a control group, of version 1 or 2, of this process in job/step."""
    version: int = request.param
    (tmp_path / "cgroup").write_text(
        "9:name=systemd:/other\n"
        + ("4:cpuacct,cpu:/job/step\n5:memory:/job/step\n" if version == 1 else "0::/job/step\n")
    )
    monkeypatch.setattr(limits, "_MEMBERSHIP", tmp_path / "cgroup")
    monkeypatch.setattr(limits, "_ROOT", tmp_path / "root")
    monkeypatch.setattr(limits, "_num_in_affinity", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "")  # restored after the test, which may set it again
    monkeypatch.delenv("OMP_NUM_THREADS")

    def write(path: str, *, cpus: float | None = None, most: int | None = None, used: int = 0, cached: int = 0) -> None:
        quota = "max" if cpus is None else int(100_000 * cpus)
        files = {
            "cpu.max": f"{quota} 100000",
            "memory.max": "max" if most is None else most,
            "memory.current": used,
            "memory.stat": f"anon 1\ninactive_file {cached}",
        }
        if version == 1:
            files = {
                "cpu/cpu.cfs_quota_us": -1 if cpus is None else quota,
                "cpu/cpu.cfs_period_us": 100_000,
                "memory/memory.limit_in_bytes": PLENTY if most is None else most,
                "memory/memory.usage_in_bytes": used,
                "memory/memory.stat": f"rss 1\ninactive_file 0\ntotal_inactive_file {cached}",
            }
        for name, text in files.items():
            folder, _, file = name.rpartition("/")
            place = tmp_path / "root" / folder / path / file
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(f"{text}\n")

    return write


@pytest.mark.parametrize(
    ("quota", "expected"), [(None, 0), (0.5, 1), (1, 1), (1.5, 1), (4, 4), (7.65, 7), (8, 0), (64, 0)]
)
def test_a_quota_limits_the_threads(quota: float | None, expected: int, group: Groups) -> None:
    """Of eight CPUs that the process sees."""
    group("job/step", cpus=quota)
    assert thread_limit() == expected
    assert num_cpus() == (expected or 8)
    limit_threads()
    assert os.environ.get("OMP_NUM_THREADS") == (str(expected) if expected else None)


def test_the_smallest_quota_of_a_group_and_its_parents(group: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    group("job/step", cpus=6)
    group("job", cpus=3)
    group("", cpus=None)
    group("job/other", cpus=1)
    assert thread_limit() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "5"  # the user's


def test_the_smallest_memory_of_a_group_and_its_parents(group: Groups) -> None:
    group("job/step", most=1000, used=700, cached=100)
    assert available_bytes() == 400
    group("job", most=900, used=800, cached=50)
    assert available_bytes() == 150
    group("job", most=900, used=1000)
    assert available_bytes() == 0
    group("job")
    group("job/step")
    assert available_bytes() > 2**20  # of the machine


def test_in_a_container_the_mount_is_the_group(group: Groups) -> None:
    """The path is that of the host, which the container does not see."""
    group("", cpus=2, most=4096, used=96)
    assert (thread_limit(), available_bytes()) == (2, 4000)


@pytest.mark.parametrize("text", ["", "max", "a b", "100000 0", "-1 100000"])
def test_files_that_cannot_be_read_limit_nothing(text: str, group: Groups, tmp_path: Path) -> None:
    group("job/step", cpus=1)
    for file in (tmp_path / "root").rglob("cpu.*"):
        file.write_text(text)
    assert thread_limit() == 0


def test_without_control_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(limits, "_MEMBERSHIP", tmp_path / "none")
    assert thread_limit() == 0
    assert num_cpus() >= 1
    assert available_bytes() > 2**20


@pytest.fixture
def group_of_one_cpu() -> Iterator[Path]:
    """A real control group with the time of one CPU; only root may make one, and not in every container."""
    root = Path("/sys/fs/cgroup")
    version_1 = (root / "cpu/cpu.cfs_quota_us").is_file()
    folder = root / ("cpu" if version_1 else "") / f"vsn-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / ("cpu.cfs_quota_us" if version_1 else "cpu.max")).write_text("100000")
    except OSError as error:
        with suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    yield folder
    for _ in range(100):  # the kernel takes a while to forget the last process
        with suppress(OSError):
            folder.rmdir()
            break
        time.sleep(0.05)


@pytest.mark.slow  # changes the machine: run it by hand
@pytest.mark.skipif(num_cpus() < 2, reason="one CPU is no limit here")
def test_a_command_in_a_real_group_starts_one_thread(group_of_one_cpu: Path) -> None:
    code = "import vsn.cli; vsn.cli.main(['--version']); import torch; print('threads', torch.get_num_threads())"
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    command = f'echo $$ > {group_of_one_cpu}/cgroup.procs && exec "$0" -c "$1"'
    done = subprocess.run(["sh", "-c", command, sys.executable, code], capture_output=True, text=True, env=environment)
    assert done.stdout.split()[-2:] == ["threads", "1"], done.stderr
