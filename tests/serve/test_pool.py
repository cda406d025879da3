"""Processes that hang, die and raise."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.helpers.planted import shout
from tests.serve.conftest import wait_until
from vsn.serve.pool import DecodePool
from vsn.system.pool import GuardedWorker, WorkerFailure

PRELOAD = "vsn.serve.decoding"  # what the service of the other tests preloads: one parent for all


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool[str, str]]:
    pool = DecodePool(shout, num_workers=2, seconds_limit=1.0, preload=PRELOAD)
    yield pool
    pool.close()


def test_each_job_gets_its_own_result_or_failure(pool: DecodePool[str, str]):
    jobs = ["a", "hang", "b", "die", "c", "raise", "d", "die", "e"]
    results = [future.result(120) for future in [pool.submit(job) for job in jobs]]
    assert results == [
        "A",
        WorkerFailure("it exceeded the limit of 1 s", timed_out=True),
        "B",
        WorkerFailure("its process died (SIGSEGV)", died=True),
        "C",
        WorkerFailure("KeyError: 'no such thing'"),
        "D",
        WorkerFailure("its process died (SIGSEGV)", died=True),
        "E",
    ]


def test_a_job_has_a_limit_of_memory():
    pool = DecodePool(shout, num_workers=1, seconds_limit=60.0, memory_limit=100e6, preload=PRELOAD)
    try:
        first = pool.submit("pid").result(120)
        assert pool.submit("fill").result(120) == WorkerFailure("it exceeded the limit of memory", over_memory=True)
        second = pool.submit("pid").result(120)
        # What a job leaves in its process does not count against the next one.
        assert [pool.submit("keep").result(120) for _ in range(3)] == ["KEEP"] * 3
        third = pool.submit("pid").result(120)
        assert len({first, second, third}) == 3
        assert pool.submit("pid").result(120) == third
    finally:
        pool.close()


def test_a_process_that_dies_while_idle_costs_no_job(pool: DecodePool[str, str]):
    for _ in range(3):
        pid = int(pool.submit("pid").result(120))
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: not is_there(pid), "it is dead")
        assert [pool.submit("a").result(120) for _ in range(3)] == ["A"] * 3


def test_a_process_that_cannot_start_is_tried_again(monkeypatch: pytest.MonkeyPatch):
    failures = [BlockingIOError(11, "Resource temporarily unavailable")]

    def start(*args: object, **settings: object) -> object:
        if failures:
            raise failures.pop()
        return GuardedWorker(*args, **settings)

    monkeypatch.setattr("vsn.serve.pool.GuardedWorker", start)
    pool: DecodePool[str, str] = DecodePool(shout, num_workers=1, seconds_limit=60, preload=PRELOAD)
    try:
        assert pool.submit("a").result(120) == "A"
    finally:
        pool.close()


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_closing_ends_running_and_waiting_jobs():
    pool: DecodePool[str, str] = DecodePool(shout, num_workers=1, seconds_limit=3600, preload=PRELOAD)
    wait_until(lambda: pool.num_ready == 1, "it has started")
    hanging, waiting = pool.submit("hang"), pool.submit("a")
    wait_until(hanging.running, "the first is taken")
    pool.close()
    assert hanging.result(0) == WorkerFailure("the service is being stopped")
    assert waiting.cancelled()
    assert pool.num_ready == 0
    assert pool.submit("a").cancelled()
