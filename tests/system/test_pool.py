import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from vsn.config import ConfigError
from vsn.system.limits import num_cpus
from vsn.system.pool import WorkerError, WorkerFailure, check_num_workers, run_guarded, run_in_processes


@dataclass(frozen=True)
class Job:
    path: Path
    number: int


def jobs(count: int) -> list[Job]:
    return [Job(Path(f"{number}.mp4"), number) for number in range(count)]


class OddError(ValueError):
    """An error with its own constructor, as `VideoError` has."""

    def __init__(self, path: Path, number: int) -> None:
        super().__init__(path, number)
        self.number = number


def half(job: Job) -> int:
    if job.number == 5:
        raise OddError(job.path, job.number)
    return job.number // 2


def die_on_2(job: Job) -> None:
    if job.number == 2:
        os._exit(3)


def hang_or_half(number: int) -> float:
    if number == 1:
        time.sleep(60)
    if number == 2:
        raise OSError("no")
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number / 2


@pytest.fixture
def no_new_children() -> Iterator[None]:
    """Fail if the test leaves a process; other tests' session fixtures (the served model) may have some."""
    before = {process.pid for process in multiprocessing.active_children()}
    yield
    assert {process.pid for process in multiprocessing.active_children()} <= before


# --- every job has to succeed ----------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_every_job_gives_its_result(num_workers: int) -> None:
    results = {job.number: result for job, result in run_in_processes(half, jobs(5), num_workers=num_workers)}
    assert results == {0: 0, 1: 0, 2: 1, 3: 1, 4: 2}


@pytest.mark.usefixtures("no_new_children")
def test_an_error_keeps_its_type_its_attributes_and_its_traceback() -> None:
    with pytest.raises(OddError) as caught:
        list(run_in_processes(half, jobs(6), num_workers=2))
    assert caught.value.number == 5
    assert "in half" in caught.value.__notes__[0]


@pytest.mark.usefixtures("no_new_children")
def test_a_worker_that_dies_names_the_file() -> None:
    with pytest.raises(WorkerError, match=r"2\.mp4: .*exit status 3"):
        list(run_in_processes(die_on_2, jobs(3), num_workers=2))


@pytest.mark.usefixtures("no_new_children")
def test_a_worker_that_does_not_start_stops_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    start, num_started = SpawnProcess.start, 0

    def start_once(process: SpawnProcess) -> None:
        nonlocal num_started
        num_started += 1
        if num_started > 1:
            raise OSError(11, "Resource temporarily unavailable")
        start(process)

    monkeypatch.setattr(SpawnProcess, "start", start_once)
    with pytest.raises(OSError, match="Resource temporarily unavailable"):
        list(run_in_processes(half, jobs(4), num_workers=2))


@pytest.mark.usefixtures("no_new_children")
def test_leaving_the_loop_stops_the_workers() -> None:
    for _ in run_in_processes(half, jobs(5), num_workers=2):
        break


@pytest.mark.parametrize(("num_workers", "expected"), [(None, num_cpus()), (0, 0), (7, 7)])
def test_number_of_workers(num_workers: int | None, expected: int) -> None:
    assert check_num_workers(num_workers) == expected
    with pytest.raises(ConfigError, match=r"num_workers.*-1"):
        check_num_workers(-1)


# --- jobs may fail ---------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_job_that_hangs_raises_or_dies_fails_and_the_others_go_on() -> None:
    results = dict(run_guarded(hang_or_half, range(6), num_workers=2, seconds_limit=2))
    assert {index: results[index] for index in (0, 4, 5)} == {0: 0.0, 4: 2.0, 5: 2.5}
    assert results[1] == WorkerFailure("it exceeded the limit of 2 s", timed_out=True)
    assert results[2] == WorkerFailure("OSError: no")
    assert isinstance(results[3], WorkerFailure)
    assert "SIGKILL" in results[3].reason


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT to a process group")
def test_ctrl_c_ends_the_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, time\n"
        "from vsn.system.pool import run_guarded\n"
        "def sleep(job):\n"
        "    print(os.getpid(), flush=True)\n"
        "    time.sleep(100)\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "    list(run_guarded(sleep, range(4), num_workers=2, seconds_limit=90))\n",
        encoding="utf-8",
    )
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    workers = [int(process.stdout.readline()) for _ in range(2)]
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, errors = process.communicate(timeout=20)
    assert process.returncode != 0
    assert errors.strip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
