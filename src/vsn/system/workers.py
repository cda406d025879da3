"""Work on files that may hang or kill a process: spawned workers, one file each, replaced when lost."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any, Generic, TypeVar

from vsn.system.interrupt import interrupts_blocked

Job = TypeVar("Job")
Result = TypeVar("Result")

_MOST_WORKERS = 60  # Windows waits for no more than 63 things at once
_READY = "ready"
_START_SECONDS = 120.0


@dataclass(frozen=True)
class WorkerFailure:
    """A job without a result: its worker died, or was stopped at the time limit."""

    reason: str
    timed_out: bool = False


def num_cpus() -> int:
    """CPUs this process may use; containers and schedulers may allow fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_guarded(
    work: Callable[[Job], Result], jobs: Sequence[Job], *, num_workers: int, seconds_limit: float
) -> Generator[tuple[int, Result | WorkerFailure], None, None]:
    """`(index of the job, work(job))` as results come, from `num_workers` spawned processes.

    A job whose worker dies, raises, or takes over `seconds_limit` gives `WorkerFailure`; a new worker goes on.
    With `num_workers` 0 the jobs run in this process, without that protection. `work`, its jobs and its
    results are pickled. As with any spawned processes, a script that comes here keeps the call under
    `if __name__ == "__main__":`. Closing the iterator, and Ctrl-C, stop every worker.

    Raises:
        RuntimeError: no worker can start.
    """
    if num_workers <= 0:
        for index, job in enumerate(jobs):
            yield index, work(job)
        return
    left = iter(enumerate(jobs))
    workers: list[GuardedWorker[Job, Result]] = []
    try:
        with interrupts_blocked():
            workers = [GuardedWorker(work) for _ in range(min(num_workers, len(jobs), _MOST_WORKERS))]
        while workers:
            soonest = min(worker.deadline for worker in workers)
            ready = set(wait([worker.connection for worker in workers], max(0.0, soonest - time.monotonic())))
            for worker in list(workers):
                outcome = worker.outcome(worker.connection in ready, seconds_limit)
                if outcome is not None:
                    yield outcome
                if worker.is_free:
                    worker.give(next(left, None), seconds_limit)
                if worker.is_gone:
                    workers.remove(worker)
                    following = next(left, None)
                    if following is not None:
                        with interrupts_blocked():
                            workers.append(GuardedWorker(work, following))
    finally:
        for worker in workers:
            worker.stop()


class GuardedWorker(Generic[Job, Result]):
    """A spawned process that takes one job at a time.

    Whoever owns it waits for `connection` to have news, until `deadline`, and asks for the `outcome`; it is
    free for a job once it has told that it started.
    """

    def __init__(
        self,
        work: Callable[[Job], Result],
        first: tuple[int, Job] | None = None,
        *,
        context: BaseContext | None = None,
    ) -> None:
        context = context or multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(  # type: ignore[attr-defined]  # every context has one
            target=_serve, args=(theirs, work), daemon=True
        )
        self.process.start()
        theirs.close()  # so that the death of the process ends the connection
        self.deadline = time.monotonic() + _START_SECONDS
        self.is_free = False
        self.is_gone = False
        self._started = False
        self._first = first
        self._index: int | None = None

    def give(self, job: tuple[int, Job] | None, seconds_limit: float) -> None:
        """Send a job, or end the worker when there is none."""
        self.is_free = False
        if job is None:
            self.stop()
            return
        self._index = job[0]
        self.deadline = time.monotonic() + seconds_limit
        with contextlib.suppress(OSError):  # it died between two jobs; reading from it will say so
            self.connection.send(job[1])

    def outcome(self, has_news: bool, seconds_limit: float) -> tuple[int, Result | WorkerFailure] | None:
        """The result, or the loss, of the job in hand, once there is one."""
        index = self._index
        if has_news:
            try:
                answer: Any = self.connection.recv()
            except (EOFError, OSError):
                self.process.join(5)
                manner = _manner_of_death(self.process.exitcode)
                self.stop()
                if not self._started:
                    raise _not_starting(manner) from None
                return None if index is None else (index, WorkerFailure(f"its process died ({manner})"))
            self.deadline = float("inf")
            if not self._started:
                self._started = True
                self.is_free = self._first is None
                if self._first is not None:
                    self.give(self._first, seconds_limit)
                return None
            self._index = None
            self.is_free = True
            assert index is not None
            return index, answer
        if time.monotonic() < self.deadline:
            return None
        self.stop()
        if not self._started:
            raise _not_starting(f"nothing came for {_START_SECONDS:g} s")
        assert index is not None
        return index, WorkerFailure(f"it takes over {seconds_limit:g} s", timed_out=True)

    def stop(self) -> None:
        """End the process, whatever it does."""
        self.is_gone, self.is_free = True, False
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection, work: Callable[[Any], Any]) -> None:
    """Work on jobs as they come, until killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked
    with contextlib.suppress(EOFError, OSError):  # who asked is gone
        connection.send(_READY)
        while True:
            job = connection.recv()
            try:
                answer = work(job)
            except Exception as error:
                answer = WorkerFailure(f"{type(error).__name__}: {error}")
            connection.send(answer)


def _not_starting(reason: str) -> RuntimeError:
    return RuntimeError(
        f"A process for checking files does not start ({reason}). In a script, make this call under "
        '`if __name__ == "__main__":`, or pass num_workers=0.'
    )


def _manner_of_death(exit_code: int | None) -> str:
    if exit_code is None:
        return "it no longer answers"
    if exit_code >= 0 or sys.platform == "win32":
        return f"exit status {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return f"{name}, as when memory runs out" if name == "SIGKILL" else name
