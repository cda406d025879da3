"""Handle Ctrl-C and SIGTERM so that long work stops between steps, not in the middle of one."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any


@contextlib.contextmanager
def interrupts_blocked(*, terminations: bool = False) -> Iterator[None]:
    """Start processes inside that never receive Ctrl-C; this process receives it when the block ends.

    Args:
        terminations: the same for SIGTERM, which systemd sends to all processes of a service. Only for processes that
            this one kills when it ends.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # Python unblocks both signals when it starts its resource tracker, which it does with the first process.
    resource_tracker.ensure_running()
    # A child inherits the mask. To ignore the signal in the child would be too late: it could arrive during imports.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *([signal.SIGTERM] * terminations)})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM. Ends the process with the status that a shell reports for the signal."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_status = 128 + number


class StopRequest:
    """A signal handler that records whether Ctrl-C, SIGTERM or a failure asked this process to stop.

    Attributes:
        requested: whether a signal arrived, or `fail` was called.
        number: the signal; SIGINT until one arrives.
        failure: the error that work in progress cannot raise at once, because other processes stop with it.
    """

    def __init__(self, *, raises: bool = False) -> None:
        self.requested, self.number, self._raises = False, signal.SIGINT, raises
        self.failure: Exception | None = None
        self._is_signaled = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Record the first request. A second Ctrl-C stops at once, for work that hangs."""
        again, self._is_signaled, self.requested = self._is_signaled, True, True
        if not again:
            self.number = signal.Signals(number)
        if self._raises or (again and number == signal.SIGINT):
            raise Interrupted(self.number)

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Raise `Interrupted` at once inside, also for an earlier request: for a wait that may never end."""
        before = self._raises
        try:
            self._raises = True
            if self.requested:
                raise Interrupted(self.number)
            yield
        finally:
            self._raises = before

    @property
    def exit_status(self) -> int:
        """The status that a shell reports for the signal."""
        return 128 + self.number

    def fail(self, error: Exception) -> None:
        """Request a stop because of an error, which `check` raises."""
        self.requested, self.failure = True, error

    def error(self) -> Exception | Interrupted:
        """Return the exception that ends the process: the failure, or `Interrupted`."""
        return self.failure or Interrupted(self.number)

    def check(self) -> None:
        """Raise `error` if a stop was requested."""
        if self.requested:
            raise self.error()


@contextlib.contextmanager
def stop_requests(*, raises: bool = False) -> Iterator[StopRequest]:
    """Record Ctrl-C and SIGTERM instead of ending the process; long work checks `requested` where it can stop cleanly.

    Handlers that a program has set itself stay. In other threads, which receive no signals, nothing is recorded.

    Args:
        raises: also raise `Interrupted` at once, for work that loses nothing. It must call `check` after each item: PyAV
            discards what a signal raises while it reads the end of a file, Python what it raises in `__del__`.
    """
    request = StopRequest(raises=raises)
    if not _in_main_thread():
        yield request
        return
    defaults: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    replaced = [number for number, handler in defaults.items() if signal.getsignal(number) is handler]
    for number in replaced:
        signal.signal(number, request)
    try:
        yield request
    finally:
        for number in replaced:
            signal.signal(number, defaults[number])


class Stopped(Exception):  # noqa: N818  (no error)
    """This process, or another rank of the run, was asked to stop."""


class _ChildSignals:
    """Holds SIGCHLD back from its handler, and delivers it where the process waits for its workers.

    PyTorch's handler raises when a worker of a `DataLoader` has died: in the middle of an update of the weights, say.
    Python handles signals in the main thread only; in others nothing here has an effect.
    """

    def __init__(self) -> None:
        self._handler: Any = None
        self._num_holders, self._is_held, self._delivers = 0, False, False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the signal back inside, but not inside `delivered`."""
        if not hasattr(signal, "SIGCHLD") or not _in_main_thread():  # Windows has none
            yield
            return
        # Loaders overlap, in any order: a validation reads while the loader of the epoch pauses.
        if callable(handler := signal.getsignal(signal.SIGCHLD)) and handler != self._receive:
            self._handler = handler
            signal.signal(signal.SIGCHLD, self._receive)
        self._num_holders += 1
        try:
            yield
        finally:
            self._num_holders -= 1
            # Python may close a forgotten loader in another thread; then the next one sets the handler back.
            if not self._num_holders and self._handler is not None and _in_main_thread():
                signal.signal(signal.SIGCHLD, self._handler)
                if self._is_held:
                    self._is_held = False
                    with contextlib.suppress(RuntimeError):  # of PyTorch, about a worker that nobody waits for
                        self._handler(signal.SIGCHLD, None)
                self._handler = None

    @contextlib.contextmanager
    def delivered(self) -> Iterator[None]:
        """Let the signal through inside, also one that was held back before."""
        if not _in_main_thread():
            yield
            return
        try:
            self._delivers = True
            if self._is_held:
                self._receive(signal.SIGCHLD, None)
            yield
        finally:
            self._delivers = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._is_held = not self._delivers
        if self._delivers:
            self._handler(number, frame)


child_signals = _ChildSignals()
