"""One thread that owns the model: clips that come within some milliseconds go to it together."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Score = TypeVar("Score")


class Batcher(Generic[Item, Score]):
    """Collects items into batches for a function that is slow to call and not to be called twice at once.

    Args:
        score: a result for each item of a batch, in order. An error of it is the result of the whole batch.
        max_batch: most items of a batch.
        wait_ms: how long the first item of a batch waits for others.
        on_batch: told the number of items of each batch.
    """

    def __init__(
        self,
        score: Callable[[Sequence[Item]], Sequence[Score]],
        *,
        max_batch: int,
        wait_ms: float,
        on_batch: Callable[[int], None] = lambda num_items: None,
    ) -> None:
        self._score = score
        self._max_batch = max_batch
        self._wait_seconds = wait_ms / 1000
        self._on_batch = on_batch
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="model", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether what is handed in will be answered."""
        return self._thread.is_alive() and not self._closing

    @property
    def num_waiting(self) -> int:
        """Items and calls that wait for their turn."""
        return self._waiting.qsize()

    def submit(self, item: Item) -> Future[Score]:
        """Have an item scored; one that is cancelled before its turn is left out."""
        return self._put(item, is_call=False)

    def call(self, work: Callable[[], Any]) -> Future[Any]:
        """Have something else done by the thread that owns the model, between two batches."""
        return self._put(work, is_call=True)

    def close(self) -> None:
        """Finish the batch in hand, cancel what waits, end the thread."""
        self._closing = True
        self._waiting.put(None)
        self._thread.join()
        while True:
            try:
                left = self._waiting.get_nowait()
            except queue.Empty:
                return
            if left is not None:
                left.future.cancel()

    def _put(self, item: Any, *, is_call: bool) -> Future[Any]:
        if self._closing:
            raise RuntimeError("The thread of the model has ended.")
        future: Future[Any] = Future()
        self._waiting.put(_Waiting(item, future, is_call))
        return future

    def _serve(self) -> None:
        following: _Waiting | None = None
        while True:
            first = following or self._waiting.get()
            following = None
            if first is None or self._closing:
                if first is not None:
                    first.future.cancel()
                return
            if first.is_call:
                self._finish([first], _results_of_calls)
                continue
            batch = [first]
            until = time.monotonic() + self._wait_seconds
            while len(batch) < self._max_batch:
                try:
                    following = self._waiting.get(timeout=max(0.0, until - time.monotonic()))
                except queue.Empty:
                    break
                if following is None:  # the end: for the next turn
                    self._waiting.put(None)
                    break
                if following.is_call:
                    break
                batch.append(following)
                following = None
            self._finish(batch, self._scores)

    def _scores(self, items: Sequence[Item]) -> Sequence[Score]:
        self._on_batch(len(items))
        return self._score(items)

    def _finish(self, batch: Sequence[_Waiting], work: Callable[[list[Any]], Sequence[Any]]) -> None:
        wanted = [one for one in batch if one.future.set_running_or_notify_cancel()]
        if not wanted:
            return
        try:
            results = work([one.item for one in wanted])
        except Exception as error:
            for one in wanted:
                one.future.set_exception(error)
            return
        for one, result in zip(wanted, results, strict=True):
            one.future.set_result(result)


class _Waiting(NamedTuple):
    """Something to be scored, or to be called."""

    item: Any
    future: Future[Any]
    is_call: bool


def _results_of_calls(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    return [call() for call in calls]
