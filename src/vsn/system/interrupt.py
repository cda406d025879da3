"""Handle Ctrl-C and SIGTERM so that long work stops between steps, not in the middle of one."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Start processes inside that never receive Ctrl-C; this process receives it when the block ends."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # A child inherits the mask. To ignore the signal in the child would be too late: it could arrive during imports.
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


class StopRequest:
    """A signal handler that records whether Ctrl-C or SIGTERM asked this process to stop."""

    requested = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Record the first request. A second Ctrl-C stops at once, for work that hangs."""
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Record Ctrl-C and SIGTERM instead of ending the process; long work checks `requested` where it can stop cleanly.

    Handlers that a program has set itself stay. In other threads, which receive no signals, nothing is recorded.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
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
