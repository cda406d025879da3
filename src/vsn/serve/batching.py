"""Batch clips for the model: one thread owns it, and clips that arrive within some milliseconds run together."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Score = TypeVar("Score")


class Batcher(Generic[Item, Score]):
    """Collect items into batches for a function that must not run twice at once.

    Args:
        score: returns a result for each item of a batch, in order. Its exception is the result of the whole batch.
        max_batch: most items of a batch.
        wait_ms: how long the first item of a batch waits for others.
        on_batch: receives the number of items of each batch.
    """

    def __init__(
        self,
        score: Callable[[Sequence[Item]], Sequence[Score]],
        *,
        max_batch: int,
        wait_ms: float,
        on_batch: Callable[[int], None] = lambda num_items: None,
    ) -> None:
        self._score, self._on_batch = score, on_batch
        self._max_batch, self._wait_seconds = max_batch, wait_ms / 1000
        self._items: queue.SimpleQueue[tuple[Item, Future[Score]]] = queue.SimpleQueue()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    @property
    def num_waiting(self) -> int:
        """Items in the queue."""
        return self._items.qsize()

    def submit(self, item: Item) -> Future[Score]:
        """Queue an item. Cancelling its future before its batch starts leaves it out."""
        future: Future[Score] = Future()
        self._items.put((item, future))
        # One call per item, of which the first may take several items: the others then find nothing to do.
        if self.call(self._run_batch).cancelled():
            future.cancel()
        return future

    def call(self, work: Callable[[], Any]) -> Future[Any]:
        """Call a function in the thread that owns the model, between two batches."""
        try:
            return self._thread.submit(work)
        except RuntimeError:  # closed
            future: Future[Any] = Future()
            future.cancel()
            return future

    def close(self) -> None:
        """Finish the running batch, cancel the queue, end the thread. Later items and calls are cancelled."""
        self._thread.shutdown(cancel_futures=True)
        while not self._items.empty():
            self._items.get()[1].cancel()

    def _run_batch(self) -> None:
        batch: list[tuple[Item, Future[Score]]] = []
        deadline = time.monotonic() + self._wait_seconds
        while len(batch) < self._max_batch:
            try:
                batch.append(self._items.get(timeout=max(0.0, deadline - time.monotonic()) if batch else 0.0))
            except queue.Empty:
                break
        # A client that has gone cancels its future: its clip costs nothing.
        batch = [(item, future) for item, future in batch if future.set_running_or_notify_cancel()]
        if not batch:
            return
        try:
            self._on_batch(len(batch))
            results = self._score([item for item, _ in batch])
            # strict: a model that loses a clip must not give the scores of one video to another.
            pairs = list(zip(batch, results, strict=True))
        except Exception as error:
            # The thread lives on: the next batch may be fine.
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), result in pairs:
            future.set_result(result)
