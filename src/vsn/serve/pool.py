"""Run jobs in worker processes that may hang or crash: each job has a time limit, a lost process is replaced."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from typing import Generic, TypeVar

import psutil

from vsn.system.interrupt import interrupts_blocked
from vsn.system.pool import GuardedWorker, WorkerError, WorkerFailure

Job = TypeVar("Job")
Result = TypeVar("Result")
_Entry = tuple[Job, "Future[Result | WorkerFailure]"]

_POLL_SECONDS = 0.5
"""How often a waiting thread checks its process, and whether the pool is closing."""
_MEMORY_SECONDS = 0.02
"""How often it checks the memory of a process that works: a decoder can take a gigabyte in a second."""


class DecodePool(Generic[Job, Result]):
    """Processes that call `work` on jobs which arrive at any time, each job within `seconds_limit`.

    A job whose process dies, raises, or times out results in `WorkerFailure`, and a new process starts; other jobs
    are not affected. (`concurrent.futures.ProcessPoolExecutor` breaks as a whole when one process dies.) `work`, jobs
    and results are pickled. Each process is owned by a thread.

    Args:
        work: what to do with a job.
        num_workers: processes.
        seconds_limit: of a job, without its time in the queue.
        memory_limit: bytes that a job may add to its process; checked every 20 ms. (A limit of the system instead would make
            allocations fail, which decoders take for damaged frames.)
        preload: module that is imported once, before processes fork; default the module of `work`.

    Example:
        pool = DecodePool(decode_upload, num_workers=2, seconds_limit=30.0)
        result = pool.submit(job).result()
    """

    def __init__(
        self,
        work: Callable[[Job], Result],
        *,
        num_workers: int,
        seconds_limit: float,
        memory_limit: float = math.inf,
        preload: str = "",
    ) -> None:
        self._work, self._seconds_limit, self._memory_limit = work, seconds_limit, memory_limit
        # A start method by which a replacement is ready in milliseconds, not in the seconds of an import. Not "fork": this
        # process has threads, whose locks a child would inherit in an unknown state.
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"  # Windows
        self._context: BaseContext = multiprocessing.get_context(method)
        if method == "forkserver":
            self._context.set_forkserver_preload(["__main__", preload or work.__module__])
        self._jobs: queue.SimpleQueue[_Entry[Job, Result] | None] = queue.SimpleQueue()
        self._workers: dict[int, GuardedWorker[Job, Result]] = {}
        self._initial_bytes: dict[int, int] = {}
        """Memory of the process of each slot before its first job."""
        self._closing = False
        self._threads = [
            threading.Thread(target=self._run, args=(slot,), name=f"decode-{slot}", daemon=True)
            for slot in range(num_workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def num_ready(self) -> int:
        """Processes that have started and are alive."""
        return sum(not worker.is_gone for worker in list(self._workers.values()))

    @property
    def num_busy(self) -> int:
        """Processes that work on a job, also of a client that has left."""
        return sum(not worker.is_free and not worker.is_gone for worker in list(self._workers.values()))

    @property
    def num_waiting(self) -> int:
        """Jobs in the queue."""
        return self._jobs.qsize()

    def submit(self, job: Job) -> Future[Result | WorkerFailure]:
        """Queue a job. Cancelling its future before a process takes it leaves it out."""
        future: Future[Result | WorkerFailure] = Future()
        if self._closing:
            future.cancel()
        else:
            self._jobs.put((job, future))
        return future

    def close(self) -> None:
        """Kill every process. Running jobs result in `WorkerFailure`; waiting and later ones are cancelled."""
        self._closing = True
        # None wakes a thread that waits for a job.
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        # All threads have ended: nobody else takes from the queue.
        while not self._jobs.empty():
            if (entry := self._jobs.get()) is not None:
                entry[1].cancel()

    def _run(self, slot: int) -> None:
        worker: GuardedWorker[Job, Result] | None = None
        entry: _Entry[Job, Result] | None = None
        try:
            while not self._closing:
                # News of a process without a job means that it died.
                if worker is None or worker.is_gone or worker.connection.poll():
                    worker = self._start(slot)
                elif entry is None:
                    # Then check the process again before it gets the job: it may have died while this thread waited.
                    with contextlib.suppress(queue.Empty):
                        entry = self._jobs.get(timeout=_POLL_SECONDS)
                else:
                    (job, future), entry = entry, None
                    if future.set_running_or_notify_cancel():
                        future.set_result(self._result(slot, worker, job))
                        # What it keeps for later allocations would count against the next job.
                        if self._added_bytes(slot, worker) > self._memory_limit / 2:
                            worker.stop()
        finally:
            if entry is not None:
                entry[1].cancel()
            if slot in self._workers:
                self._workers[slot].stop()

    def _start(self, slot: int) -> GuardedWorker[Job, Result] | None:
        """Replace the process of a slot and wait until it is ready; None, after a pause, if it does not start."""
        if slot in self._workers:
            self._workers.pop(slot).stop()
        try:
            # Ctrl-C goes to the whole process group, and so does the SIGTERM of systemd: what is decoded may finish.
            with interrupts_blocked(terminations=True):
                worker = GuardedWorker(self._work, seconds_limit=self._seconds_limit, context=self._context)
            while not worker.is_free:
                wait([worker.connection], _POLL_SECONDS)
                if self._closing:
                    worker.stop()
                    return None
                worker.poll()
        except (WorkerError, OSError):
            # For example out of memory, which may pass: the thread must live on.
            time.sleep(_POLL_SECONDS)
            return None
        self._workers[slot] = worker
        self._initial_bytes[slot] = _resident_bytes(worker)
        return worker

    def _added_bytes(self, slot: int, worker: GuardedWorker[Job, Result]) -> int:
        return _resident_bytes(worker) - self._initial_bytes[slot]

    def _result(self, slot: int, worker: GuardedWorker[Job, Result], job: Job) -> Result | WorkerFailure:
        worker.give(0, job)
        # Never longer than the poll interval: a job may take minutes, and `close` must not wait for it.
        interval = _POLL_SECONDS if math.isinf(self._memory_limit) else _MEMORY_SECONDS
        while True:
            timeout = max(0.0, min(worker.deadline - time.monotonic(), interval))
            has_news = wait([worker.connection], timeout)
            if self._closing and not has_news:
                return WorkerFailure("the service is being stopped")
            if not has_news and self._added_bytes(slot, worker) > self._memory_limit:
                worker.stop()
                return WorkerFailure("it exceeded the limit of memory", over_memory=True)
            if (outcome := worker.poll()) is not None:
                return outcome[1]


def _resident_bytes(worker: GuardedWorker[Job, Result]) -> int:
    """Return the memory of a process, 0 for one that has ended."""
    try:
        return int(psutil.Process(worker.process.pid).memory_info().rss)
    except psutil.Error:
        return 0
