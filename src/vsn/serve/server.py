"""Run the HTTP server: listen, bound connections and the log, stop without losing requests."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time
from collections.abc import Callable

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from vsn.config import ConfigError, ServeConfig
from vsn.serve.app import create_app
from vsn.serve.guards import SECURITY_HEADERS, SENT_STATUS, problem_response
from vsn.serve.metrics import Metrics
from vsn.serve.problems import Problem
from vsn.serve.service import Service

_ACCEPTED_AT_ONCE = 16
_RESERVED_HANDLES = 64 + 3 * _ACCEPTED_AT_ONCE
"""Open files besides connections and uploads: pipes to the decoders, the model, listening, and connections that are
accepted before earlier ones are closed: the event loop takes three rounds for that."""
_WAITING = 256
"""Connections that wait in the system to be accepted."""
_SEND_SECONDS = 30.0
"""Maximum time for a client to take what was sent."""
_ANSWER_SECONDS = 5.0
"""Time for the answers to requests that are stopped."""


def listen(config: ServeConfig) -> socket.socket:
    """Return a listening socket. Raises `ConfigError` when the port is taken."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family, backlog=_WAITING)
    except OSError as error:
        raise ConfigError(f"Cannot listen: {error.strerror}. Choose another --port, or 0 for any free one.") from error


def run_service(service: Service, sock: socket.socket, *, on_stop: Callable[[], None] = lambda: None) -> None:
    """Serve until Ctrl-C or SIGTERM; requests then have `shutdown_seconds` to finish, and `on_stop` is called."""
    make_server(service, on_stop=on_stop).run(sockets=[sock])


def make_server(service: Service, *, on_stop: Callable[[], None] = lambda: None) -> uvicorn.Server:
    """Return the server of a service, not yet running; `on_stop` is called after the last response."""
    config = service.config

    class Connection(_Connection):
        max_connections = connections_allowed(config, _raise_handles(config))
        header_seconds = config.header_seconds
        metrics = service.metrics

    settings = uvicorn.Config(
        create_app(service),
        http=Connection,
        ws="none",
        log_level="warning",
        # asyncio accepts as many connections in a row before it looks at the first of them.
        backlog=_ACCEPTED_AT_ONCE,
        server_header=False,
        # Anybody can send X-Forwarded-For; nothing here needs the address of a client.
        proxy_headers=False,
        # Only a safeguard: `Service.stop_requests` answers them before.
        timeout_graceful_shutdown=math.ceil(config.shutdown_seconds + _ANSWER_SECONDS),
        timeout_keep_alive=5,
    )
    # After uvicorn has configured its loggers.
    for name in ("uvicorn.error", "asyncio", "vsn.serve"):
        logging.getLogger(name).addFilter(_SPARINGLY)
    return _Server(settings, service, on_stop)


class _Server(uvicorn.Server):
    """A server that answers the requests it cannot finish, rather than closing their connections."""

    def __init__(self, settings: uvicorn.Config, service: Service, on_stop: Callable[[], None]) -> None:
        super().__init__(settings)
        self._service, self._on_stop = service, on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # More connections may wait in the system than are accepted at once.
        for sock in sockets or []:
            sock.listen(_WAITING)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.refuse_requests()
        asyncio.get_running_loop().call_later(self._service.config.shutdown_seconds, self._service.stop_requests)
        await super().shutdown(sockets)
        # Here, for SIGTERM ends the process as soon as the server has stopped.
        self._on_stop()


class _Connection(H11Protocol):
    """A connection whose headers must arrive in time, and which gives way to a new one while it waits for them."""

    max_connections: int
    header_seconds: float
    metrics: Metrics
    _headers_due: asyncio.TimerHandle | None = None
    _sent_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            waiting = [one for one in self.connections if isinstance(one, _Connection) and one._headers_due is not None]
            # Of all that say nothing the one that has done so longest; without one, the new connection.
            oldest = min(waiting, key=lambda one: one._headers_due.when() if one._headers_due else 0.0, default=self)
            oldest._abort()
        if not transport.is_closing():
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timers()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect_headers()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect_headers()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, in the form of every other error."""
        is_processing = self.cycle is not None and not self.cycle.response_complete
        # After the beginning of another response nothing can be said.
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = problem_response(Problem("bad_request", "What was received is not a valid request of HTTP."))
            headers = {**SECURITY_HEADERS, **response.headers, "connection": "close"}
            for event in (
                h11.Response(status_code=response.status_code, headers=list(headers.items()), reason=b"Bad Request"),
                h11.Data(data=bytes(response.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
            # A request in progress is counted when it ends, with this status.
            if is_processing:
                self.scope["state"][SENT_STATUS] = response.status_code
            else:
                self.metrics.requests.labels("other", str(response.status_code)).inc()
        self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._sent_due is None:
            self._sent_due = self.loop.call_later(_SEND_SECONDS, self._abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._sent_due is not None:
            self._sent_due.cancel()
            self._sent_due = None

    def _expect_headers(self) -> None:
        """Start the time limit of headers, unless it runs; end it while a request is processed."""
        is_processing = self.cycle is not None and not self.cycle.response_complete
        if is_processing or self.transport.is_closing():
            if self._headers_due is not None:
                self._headers_due.cancel()
            self._headers_due = None
        elif self._headers_due is None:
            self._headers_due = self.loop.call_later(self.header_seconds, self._abort)

    def _abort(self) -> None:
        # At once: a closed connection would keep its handle until what was sent has arrived. uvicorn forgets it only
        # in the next round of the event loop, after more connections.
        self.connections.discard(self)
        self._cancel_timers()
        self.transport.abort()

    def _cancel_timers(self) -> None:
        for timer in (self._headers_due, self._sent_due):
            if timer is not None:
                timer.cancel()
        self._headers_due = self._sent_due = None


def connections_allowed(config: ServeConfig, num_handles: float) -> int:
    """Return how many connections fit with the uploads into the open files that the system allows a process."""
    # Without a free handle a server cannot accept a connection, and the event loop reports each attempt.
    free = num_handles - config.max_requests - _RESERVED_HANDLES
    return int(max(1, min(config.max_connections, free)))


def _raise_handles(config: ServeConfig) -> float:
    """Raise the limit of open files to what the service needs, where the system allows it; return the limit."""
    try:
        import resource
    except ImportError:  # Windows
        return math.inf
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = config.max_connections + config.max_requests + _RESERVED_HANDLES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return needed
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    except (ValueError, OSError):  # macOS states no hard limit, and refuses more than the kernel has for a process
        return soft
    return limit


class Sparingly(logging.Filter):
    """Let each message pass `most` times in `seconds`: clients cause messages, and must not fill the disk."""

    def __init__(self, *, most: int = 10, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most, self._seconds, self._clock = most, seconds, clock
        self._passed: dict[str, tuple[float, int]] = {}
        """Message without its values -> when its count began, and the count."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write a message. The first one after a pause states how many were left out."""
        message, now = str(record.msg)[:200], self._clock()
        began, count = self._passed.get(message, (now, 0))
        if now - began >= self._seconds:
            if count > self._most:
                record.msg = f"{record.msg} ({count - self._most} such messages were left out)"
            began, count = now, 0
        # Messages that hold values are many: forget all rather than fill the memory.
        if len(self._passed) > 1000:
            self._passed.clear()
        self._passed[message] = (began, count + 1)
        return count < self._most


_SPARINGLY = Sparingly()
