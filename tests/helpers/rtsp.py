"""RTSP cameras for tests: a real server, that can be killed, restarted, and made to hang."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.external import program

_SERVER = Path(__file__).with_name("rtsp_server.py")


class RtspServer:
    """GStreamer's server in a process of its own, on a port that it keeps over restarts."""

    def __init__(self, login: tuple[str, str] | None = None) -> None:
        self._login = login
        # GStreamer's packages of the system belong to the Python of the system.
        self._python = program("rtsp")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def url(self, gray: int, login: str = "") -> str:
        """The address of a camera that shows one gray: 32, 64, ... 224. `login` is user:password, if any."""
        return f"rtsp://{login + '@' if login else ''}127.0.0.1:{self.port}/gray/{gray}"

    def start(self) -> None:
        command = [self._python, str(_SERVER), str(self.port), *(self._login or ())]
        # Only PATH and what GStreamer reads: PYTHONPATH is that of another Python.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        """Kill the server, as when the camera loses its power."""
        assert self._process is not None
        self._process.kill()
        # Also closes its pipes.
        self._process.communicate()

    def hang(self) -> None:
        """Stop the server without closing a connection, as when the network drops packets."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def wake(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)


@contextmanager
def rtsp_server(login: tuple[str, str] | None = None) -> Iterator[RtspServer]:
    """Start a server, with user and password if any; without GStreamer the test is skipped."""
    server = RtspServer(login)
    try:
        yield server
    finally:
        server.kill()
