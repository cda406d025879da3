"""Shape what the command line prints: help wrapped between words, warnings as notes, and what a slow start waits for."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import TextIO

_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_BOX = tuple("│╭╰┌└─")
QUIET_SECONDS = 0.4
"""A start that takes longer says what it waits for."""


class _Collected(io.StringIO):
    """Collects text for another stream, whose properties decide about colors and box characters."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the other stream."""
        return self._stream.encoding

    def isatty(self) -> bool:
        """Whether the other stream is a terminal."""
        return self._stream.isatty()


@contextlib.contextmanager
def help_wrapped_by_words() -> Iterator[None]:
    """Wrap lines of help that are wider than the terminal; tyro wraps those in its boxes only."""
    stdout = sys.stdout
    collected = _Collected(stdout)
    try:
        with contextlib.redirect_stdout(collected):
            yield
    finally:
        width = shutil.get_terminal_size().columns
        for line in collected.getvalue().splitlines():
            stdout.write("".join(f"{part}\n" for part in wrap_words(line, width)))


def wrap_words(line: str, width: int) -> list[str]:
    """Break a line after spaces and commas so that it fits, apart from words that are longer.

    >>> wrap_words("usage: vsn {train,eval}", 18)
    ['usage: vsn {train,', 'eval}']
    """
    lines = [""]
    words = [line] if line.startswith(_BOX) else re.split(r"(?<=[ ,])", line)
    for word in words:
        if lines[-1] and len(_STYLE.sub("", lines[-1] + word).rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return [part.rstrip() for part in lines]


@contextlib.contextmanager
def warnings_as_notes() -> Iterator[None]:
    """Print warnings as notes: a path and a line of our code say nothing to somebody who runs a command."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, UserWarning):
            print(f"Note: {' '.join(str(message).split())}", file=file or sys.stderr)
        else:  # of a library, to its users
            usual(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        usual, warnings.showwarning = warnings.showwarning, show
        yield


@contextlib.contextmanager
def waiting_for_torch(prog: str) -> Iterator[None]:
    """Say in a terminal that a command loads PyTorch, as soon as that takes a while; the line disappears afterwards."""
    if not sys.stderr.isatty() or "torch" in sys.modules:
        yield
        return
    stopped = threading.Event()

    def watch() -> None:
        shown = False
        try:
            # PyTorch is imported where a command first needs it, so only its entry tells that it is being loaded.
            while not stopped.wait(0.1 if shown else QUIET_SECONDS):
                module = sys.modules.get("torch")
                loading = module is not None and getattr(getattr(module, "__spec__", None), "_initializing", False)
                if loading and not shown:
                    sys.stderr.write(f"{prog}: loading PyTorch ...")
                    sys.stderr.flush()
                    shown = True
                elif module is not None and not loading:
                    return
        finally:
            if shown:
                sys.stderr.write("\r\x1b[2K")
                sys.stderr.flush()

    thread = threading.Thread(target=watch, name="vsn-waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
