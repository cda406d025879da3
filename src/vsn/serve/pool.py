"""Processes that read files, one each, for requests that come at any time; a lost one is replaced."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from typing import Generic, TypeVar

from vsn.system.interrupt import interrupts_blocked
from vsn.system.workers import GuardedWorker, WorkerFailure

Job = TypeVar("Job")
Result = TypeVar("Result")

_LOOK_SECONDS = 0.5
"""How often a waiting thread looks whether the pool is being closed."""


def _context(preload: str) -> BaseContext:
    """How processes start: from one that has imported what they need, so that another is there in no time."""
    if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", preload])
    return context


class DecodePool(Generic[Job, Result]):
    """`work` on jobs in processes of their own, each job within a time limit.

    A job whose process dies, raises, or takes too long gives `WorkerFailure`, and a new process goes on; no other job
    notices. `work`, its jobs and its results are pickled. `preload` is a module that is imported once, before
    the processes part; default that of `work`.

    Example:
        with DecodePool(decode_upload, num_workers=2, seconds_limit=30.0) as pool:
            result = pool.submit(job).result()
    """

    def __init__(
        self, work: Callable[[Job], Result], *, num_workers: int, seconds_limit: float, preload: str = ""
    ) -> None:
        self._work = work
        self._context = _context(preload or work.__module__)
        self._seconds_limit = seconds_limit
        self._jobs: queue.SimpleQueue[tuple[Job, Future[Result | WorkerFailure]] | None] = queue.SimpleQueue()
        self._closing = False
        self._num_ready = 0
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._serve, name=f"decode-{number}", daemon=True) for number in range(num_workers)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> DecodePool[Job, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def num_ready(self) -> int:
        """Processes that have started and live."""
        return self._num_ready

    @property
    def num_waiting(self) -> int:
        """Jobs that no process has taken yet."""
        return self._jobs.qsize()

    def submit(self, job: Job) -> Future[Result | WorkerFailure]:
        """Have a job done; one that is cancelled before its turn is left out.

        Raises `RuntimeError` once the pool is closed.
        """
        if self._closing:
            raise RuntimeError("The pool of decoders is closed.")
        future: Future[Result | WorkerFailure] = Future()
        self._jobs.put((job, future))
        return future

    def close(self) -> None:
        """End every process, whatever it does. Jobs without a result are cancelled, or `WorkerFailure`."""
        self._closing = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        while True:
            try:
                waiting = self._jobs.get_nowait()
            except queue.Empty:
                return
            if waiting is not None:
                waiting[1].cancel()

    def _serve(self) -> None:
        """A thread that owns one process at a time."""
        worker: GuardedWorker[Job, Result] | None = None
        try:
            while not self._closing:
                if worker is None or _is_dead(worker):
                    worker = self._start(worker)
                    continue
                try:
                    waiting = self._jobs.get(timeout=_LOOK_SECONDS)
                except queue.Empty:
                    continue
                if waiting is None:
                    return
                job, future = waiting
                while worker is None or _is_dead(worker):  # it died while it had nothing to do
                    if self._closing:
                        future.cancel()
                        return
                    worker = self._start(worker)
                if future.set_running_or_notify_cancel():
                    future.set_result(self._result(worker, job))
        finally:
            if worker is not None and not worker.is_gone:
                self._drop(worker)

    def _start(self, former: GuardedWorker[Job, Result] | None) -> GuardedWorker[Job, Result] | None:
        """A process that is ready, or None when it did not come to it; then there is a pause."""
        if former is not None and not former.is_gone:  # it died between two jobs
            self._drop(former)
        with interrupts_blocked():
            worker: GuardedWorker[Job, Result] = GuardedWorker(self._work, context=self._context)
        try:
            while not worker.is_free:
                news = wait([worker.connection], _LOOK_SECONDS)
                if self._closing:
                    worker.stop()
                    return None
                worker.outcome(bool(news), self._seconds_limit)
        except RuntimeError:  # it does not start, for want of memory say
            time.sleep(_LOOK_SECONDS)
            return None
        with self._lock:
            self._num_ready += 1
        return worker

    def _drop(self, worker: GuardedWorker[Job, Result]) -> None:
        worker.stop()
        with self._lock:
            self._num_ready -= 1

    def _result(self, worker: GuardedWorker[Job, Result], job: Job) -> Result | WorkerFailure:
        worker.give((0, job), self._seconds_limit)
        while True:
            left = worker.deadline - time.monotonic()
            news = wait([worker.connection], max(0.0, min(left, _LOOK_SECONDS)))
            if self._closing and not news:
                return WorkerFailure("the service is being stopped")
            outcome: tuple[int, Result | WorkerFailure] | None = None
            with contextlib.suppress(RuntimeError):
                outcome = worker.outcome(bool(news), self._seconds_limit)
            if worker.is_gone:
                with self._lock:
                    self._num_ready -= 1
            if outcome is not None:
                return outcome[1]
            if worker.is_gone:
                return WorkerFailure("its process died")


def _is_dead(worker: GuardedWorker[Job, Result]) -> bool:
    """Of a process that has nothing to do and nothing to say: news of it is that it ended."""
    return worker.is_gone or worker.connection.poll()
