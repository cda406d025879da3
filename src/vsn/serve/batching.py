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
        score: returns a result for each item of a batch, in order. After an exception the items of the batch run one by
            one: only those that fail alone get it.
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
        self._busy_since: float | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    @property
    def num_waiting(self) -> int:
        """Items in the queue."""
        return self._items.qsize()

    @property
    def busy_seconds(self) -> float:
        """How long the running batch or call has taken; 0.0 while there is none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

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
            return self._thread.submit(self._work, work)
        except RuntimeError:  # closed
            future: Future[Any] = Future()
            future.cancel()
            return future

    def close(self) -> None:
        """Finish the running batch, cancel the queue, end the thread. Later items and calls are cancelled."""
        self._thread.shutdown(cancel_futures=True)
        while not self._items.empty():
            self._items.get()[1].cancel()

    def _work(self, work: Callable[[], Any]) -> Any:
        self._busy_since = time.monotonic()
        try:
            return work()
        finally:
            self._busy_since = None

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
        self._score_all(batch)

    def _score_all(self, batch: list[tuple[Item, Future[Score]]]) -> None:
        if not batch:
            return
        try:
            self._on_batch(len(batch))
            results = self._score([item for item, _ in batch])
            # strict: a model that loses a clip must not give the scores of one video to another.
            pairs = list(zip(batch, results, strict=True))
        except Exception as error:
            # The thread lives on: the next batch may be fine. So may the other items of this one.
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                for entry in batch:
                    self._score_all([entry])
            return
        for (_, future), result in pairs:
            future.set_result(result)
