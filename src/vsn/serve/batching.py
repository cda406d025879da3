"""Batch clips for the model: one thread owns it, and clips that arrive within some milliseconds run together."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Score = TypeVar("Score")


class _Entry(NamedTuple):
    item: Any
    future: Future[Any]
    is_call: bool
    """Whether `item` is a function to call, not an item to score."""


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
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether submitted items will be scored."""
        return self._thread.is_alive() and not self._closing

    @property
    def num_waiting(self) -> int:
        """Items and calls in the queue."""
        return self._queue.qsize()

    def submit(self, item: Item) -> Future[Score]:
        """Queue an item. Cancelling its future before its batch starts leaves it out."""
        return self._put(item, is_call=False)

    def call(self, work: Callable[[], Any]) -> Future[Any]:
        """Call a function in the thread that owns the model, between two batches."""
        return self._put(work, is_call=True)

    def close(self) -> None:
        """Finish the running batch, cancel the queue, end the thread. What is submitted later is cancelled."""
        self._closing = True
        self._queue.put(None)
        self._thread.join()
        while not self._queue.empty():
            if (entry := self._queue.get()) is not None:
                entry.future.cancel()

    def _put(self, item: Any, *, is_call: bool) -> Future[Any]:
        future: Future[Any] = Future()
        if self._closing:
            future.cancel()
        else:
            self._queue.put(_Entry(item, future, is_call))
        return future

    def _run(self) -> None:
        entry: _Entry | None = None
        while True:
            first = entry or self._queue.get()
            entry = None
            if first is None or self._closing:
                if first is not None:
                    first.future.cancel()
                return
            batch = [first]
            deadline = time.monotonic() + self._wait_seconds
            while not first.is_call and len(batch) < self._max_batch:
                try:
                    entry = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    break
                if entry is None:  # close() was called: finish this batch, then read the mark again
                    self._queue.put(None)
                    break
                if entry.is_call:  # keeps its place: it runs next
                    break
                batch.append(entry)
                entry = None
            self._finish(batch)

    def _finish(self, batch: Sequence[_Entry]) -> None:
        # A client that has gone cancels its future: its clip costs nothing.
        wanted = [entry for entry in batch if entry.future.set_running_or_notify_cancel()]
        if not wanted:
            return
        items = [entry.item for entry in wanted]
        try:
            if wanted[0].is_call:
                results: Sequence[Any] = [items[0]()]
            else:
                self._on_batch(len(items))
                results = self._score(items)
        except Exception as error:
            for entry in wanted:
                entry.future.set_exception(error)
            return
        for entry, result in zip(wanted, results, strict=True):
            entry.future.set_result(result)
