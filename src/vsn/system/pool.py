"""Run jobs in spawned worker processes that may fail, crash or hang.

- `run_in_processes`: every job has to succeed, and the first error is raised (packing, flow extraction, rendering).
- `run_guarded`: a job that crashes its process or takes too long fails, and the others go on (the doctor).

Both start `GuardedWorker` processes. So does the service (`vsn.serve.pool`), whose jobs arrive from threads.
`concurrent.futures.ProcessPoolExecutor` does not fit: a dead process breaks its whole pool without naming the job, a
running job cannot be stopped, and on Ctrl-C it waits for the running jobs.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from vsn.config import ConfigError
from vsn.system.interrupt import interrupts_blocked
from vsn.system.limits import num_cpus

Job = TypeVar("Job")
Result = TypeVar("Result")


class HasPath(Protocol):
    """A job about a file."""

    @property
    def path(self) -> Path:
        """The file that the job reads or writes."""


PathJob = TypeVar("PathJob", bound=HasPath)

_MAX_WORKERS = 60  # Windows cannot wait for more than 63 handles at once
_READY = "ready"
_START_SECONDS = 120.0


class WorkerError(RuntimeError):
    """A worker process died, or did not start."""


@dataclass(frozen=True)
class WorkerFailure:
    """The result of a job whose worker raised, died, or was stopped at the time limit."""

    reason: str
    timed_out: bool = False
    died: bool = False
    """The process ended by itself: the decoder crashed, or the system killed it for lack of memory."""
    killed: bool = False
    """It died of a signal from outside, not of its job: of the system for lack of memory, or of an operator."""
    over_memory: bool = False
    """Its owner stopped it at a limit of memory."""


def check_num_workers(num_workers: int | None) -> int:
    """Return `num_workers`, or one worker per CPU for None. Raises `ConfigError` when it is negative."""
    if num_workers is None:
        return num_cpus()
    if num_workers < 0:
        raise ConfigError(f"num_workers is {num_workers}; it must be 0 or more, or None for one per CPU.")
    return num_workers


def run_in_processes(
    work: Callable[[PathJob], Result], jobs: Sequence[PathJob], *, num_workers: int
) -> Generator[tuple[PathJob, Result], None, None]:
    """Yield `(job, work(job))` as jobs finish; the first error that a job raises is raised here.

    `work`, jobs and results are pickled. As with any spawned processes, a script keeps the call under
    `if __name__ == "__main__":`. Ctrl-C, an error and closing the generator kill the workers at once, so `work` has
    to write files atomically (`vsn.system.files`).

    Args:
        work: Function of one job, importable from its module.
        jobs: Arguments of `work`; an error message names the `path` of a job whose process died.
        num_workers: Processes, at most one per job; 0 or 1 to run in this process.

    Raises:
        WorkerError: A process died, for example for lack of memory, or did not start.
    """
    if min(num_workers, len(jobs)) <= 1:
        for job in jobs:
            yield job, work(job)
        return
    # Leaving this loop early closes `run_guarded`, which kills the workers.
    for index, outcome in run_guarded(partial(_attempt, work), jobs, num_workers=num_workers):
        if isinstance(outcome, WorkerFailure):
            raise WorkerError(
                f"{jobs[index].path}: {outcome.reason}. Finished work is kept; run again with fewer workers if memory "
                "ran out, or without the video that crashes the decoder (`vsn data doctor` names it)."
            )
        result, error = outcome
        if error is not None:
            raise error
        yield jobs[index], result  # type: ignore[misc]  # there is a result where there is no error


def _attempt(work: Callable[[Job], Result], job: Job) -> tuple[Result | None, Exception | None]:
    """Return `work(job)` and None, or None and the exception, which keeps its type across processes."""
    try:
        return work(job), None
    except Exception as error:
        # Pickling drops the traceback, so it travels as a note.
        error.add_note(f"In the worker process:\n{traceback.format_exc()}")
        return None, error


def run_guarded(
    work: Callable[[Job], Result], jobs: Sequence[Job], *, num_workers: int, seconds_limit: float = math.inf
) -> Generator[tuple[int, Result | WorkerFailure], None, None]:
    """Yield `(index, work(jobs[index]))` as jobs finish in `num_workers` spawned processes.

    A job that raises, kills its process, or takes more than `seconds_limit` gives a `WorkerFailure`; a new process
    replaces a lost one. With `num_workers=0` the jobs run in this process, without that protection. See
    `run_in_processes` for what `work` has to be. Ctrl-C and closing the generator kill every worker.

    Raises:
        WorkerError: No process can start.
    """
    if num_workers <= 0:
        for index, job in enumerate(jobs):
            yield index, work(job)
        return
    pending = deque(enumerate(jobs))
    num_unfinished = len(jobs)
    workers: list[GuardedWorker[Job, Result]] = []
    try:
        with interrupts_blocked():
            for _ in range(min(num_workers, len(jobs), _MAX_WORKERS)):
                # Not a comprehension: when the third process fails to start, the first two must be stopped below.
                workers.append(GuardedWorker(work, seconds_limit=seconds_limit))  # noqa: PERF401
        while num_unfinished:
            # Wake up for a result, or for the first worker that exceeds its time.
            deadline = min(worker.deadline for worker in workers)
            timeout = None if math.isinf(deadline) else max(0.0, deadline - time.monotonic())
            wait([worker.connection for worker in workers], timeout)
            for worker in list(workers):
                outcome = worker.poll()
                if outcome is not None:
                    num_unfinished -= 1
                    yield outcome
                if worker.is_gone:
                    workers.remove(worker)
                    # A new process costs seconds of imports: only if there is work left for it.
                    if pending:
                        with interrupts_blocked():
                            workers.append(GuardedWorker(work, seconds_limit=seconds_limit))
                elif worker.is_free and pending:
                    worker.give(*pending.popleft())
    finally:
        for worker in workers:
            worker.stop()


class GuardedWorker(Generic[Job, Result]):
    """A spawned process that takes one job at a time.

    The owner waits until `connection` is readable or `deadline` passes, then calls `poll`. A job may be given while
    `is_free`, which becomes true once the process has started.
    """

    def __init__(
        self, work: Callable[[Job], Result], *, seconds_limit: float, context: BaseContext | None = None
    ) -> None:
        # Spawned by default: a fork copies the locks that threads of this process hold, and can deadlock.
        context = context or multiprocessing.get_context("spawn")
        self.connection, child_connection = context.Pipe()
        self.process = context.Process(  # type: ignore[attr-defined]  # every context has one
            target=_worker_main, args=(child_connection, work), daemon=True
        )
        self.process.start()
        child_connection.close()  # now only the child holds that end, so its death closes the pipe
        self.deadline = time.monotonic() + _START_SECONDS
        self.is_free = False
        self.is_gone = False
        self._seconds_limit = seconds_limit
        self._started = False
        self._index: int | None = None

    def give(self, index: int, job: Job) -> None:
        """Send a job; `poll` returns its result with this index."""
        self.is_free = False
        self._index = index
        self.deadline = time.monotonic() + self._seconds_limit
        with contextlib.suppress(OSError):  # the process died between two jobs: `poll` reports it
            self.connection.send(job)

    def poll(self) -> tuple[int, Result | WorkerFailure] | None:
        """Return `(index, result)` when the current job has finished, crashed or exceeded its time, else None.

        Raises:
            WorkerError: The process did not start.
        """
        try:
            answer: Any = self.connection.recv() if self.connection.poll() else None
        except (EOFError, OSError):
            self.process.join(5)  # the pipe closes a moment before the exit code is known
            code = self.process.exitcode
            return self._fail(f"its process died ({exit_reason(code)})", died=True, killed=_is_killed(code))
        # No answer yet: wait on, unless the time is over.
        if answer is None:
            if time.monotonic() < self.deadline:
                return None
            seconds = self._seconds_limit if self._started else _START_SECONDS
            return self._fail(f"it exceeded the limit of {seconds:g} s", timed_out=True)
        self.deadline = math.inf
        self.is_free = True
        # The first message says that the process has started and imported `work`.
        if not self._started:
            self._started = True
            return None
        index, self._index = self._index, None
        assert index is not None
        return index, answer[0]

    def _fail(
        self, reason: str, *, timed_out: bool = False, died: bool = False, killed: bool = False
    ) -> tuple[int, WorkerFailure] | None:
        """Stop the process and return the failure of its job, None if it had none."""
        self.stop()
        if not self._started:
            raise WorkerError(
                f"A worker process did not start: {reason}. In a script, make this call under "
                '`if __name__ == "__main__":`, or pass num_workers=0.'
            )
        return None if self._index is None else (self._index, WorkerFailure(reason, timed_out, died, killed))

    def stop(self) -> None:
        """Kill the process."""
        self.is_gone, self.is_free = True, False
        # Not terminate: a decoder that hangs in C code never runs a Python signal handler.
        self.process.kill()
        self.process.join()
        self.connection.close()


def _worker_main(connection: Connection, work: Callable[[Any], Any]) -> None:
    """Work on jobs as they arrive, until killed: the main function of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to every process; the parent handles it
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        connection.send(_READY)
        while True:
            job = connection.recv()
            try:
                result = work(job)
            except Exception as error:
                result = WorkerFailure(f"{type(error).__name__}: {error}")
            # In a tuple, for a job may return None, which `poll` takes for "no answer yet".
            connection.send((result,))


_CRASHES = ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP")
"""Signals that a process causes by what it does."""


def _is_killed(exit_code: int | None) -> bool:
    if exit_code is None or exit_code >= 0 or sys.platform == "win32":
        return False
    return -exit_code not in {getattr(signal, name, None) for name in _CRASHES}


def exit_reason(exit_code: int | None) -> str:
    """Say in words how a process ended, "SIGSEGV" or "exit status 1"; None: it did not."""
    if exit_code is None:
        return "it does not respond"
    if exit_code >= 0 or sys.platform == "win32":
        return f"exit status {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    # The kernel's out-of-memory killer sends SIGKILL.
    return f"{name}, as when memory runs out" if name == "SIGKILL" else name
