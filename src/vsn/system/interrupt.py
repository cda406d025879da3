"""Ctrl-C and SIGTERM that wait for the end of what must not be cut in two."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any


@contextlib.contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Processes begun here never see Ctrl-C, not even while they import; ours comes when the block is over."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


class StopRequest:
    """Whether somebody asked this process to stop, by Ctrl-C or SIGTERM."""

    requested = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """The signal handler: note the first request; a second Ctrl-C stops at once."""
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note Ctrl-C and SIGTERM instead of dying of them: long work looks at `requested` where it can stop cleanly.

    A program that treats these signals in a way of its own keeps it, and so do threads, which signals
    never reach.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    usual: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
    }
    taken = [number for number, handler in usual.items() if signal.getsignal(number) is handler]
    for number in taken:
        signal.signal(number, request)
    try:
        yield request
    finally:
        for number in taken:
            signal.signal(number, usual[number])


class Stopped(Exception):  # noqa: N818  (no error)
    """Somebody asked this process, or another of the run, to stop."""
