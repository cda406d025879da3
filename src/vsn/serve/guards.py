"""What holds for every request: headers, who may ask, and counting. Plain ASGI, so that bodies stream."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vsn.serve.metrics import Metrics
from vsn.serve.problems import Problem

SECURITY_HEADERS = {
    # The page loads its own script and style, shows frames that come in answers, and plays the chosen video.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
_LINGER_SECONDS = 2.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    return host in LOOPBACK or host.startswith("127.")


class _Body:
    """The body of a request, read to its end even where the answer does not need it.

    A connection that is closed on unread data is reset, and the sender of an upload that is refused
    might never see why.
    """

    def __init__(self, receive: Receive, *, expected: bool) -> None:
        self._receive = receive
        self._is_whole = not expected

    async def receive(self) -> Message:
        """The next piece."""
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._is_whole = True
        return message

    async def drain(self) -> None:
        """Read what still comes, and forget it, for up to two seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                while not self._is_whole:
                    await self.receive()


class Guards:
    """Adds the headers, refuses what other sites' pages send, counts answers.

    Args:
        app: what answers.
        metrics: where requests are counted.
        paths: known paths; others are counted as "other".
        hosts: names under which the service may be asked; empty: any. A page of another site whose name
            was made to point here is refused by it.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, paths: Sequence[str], hosts: Sequence[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._paths = frozenset(paths)
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 499  # nothing was sent
        headers = Headers(scope=scope)
        body = _Body(receive, expected="content-length" in headers or "transfer-encoding" in headers)

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answered = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    answered.setdefault(name, value)
                await body.drain()
            await send(message)

        refused = self._refusal(headers)
        answer: Callable[[Scope, Receive, Send], object] = self._app
        if refused is not None:
            answer = JSONResponse(refused.body(), refused.status)
        path = scope["path"] if scope["path"] in self._paths else "other"
        try:
            await answer(scope, body.receive, counted)  # type: ignore[misc]
        finally:
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.request_seconds.labels(path).observe(time.perf_counter() - start)

    def _refusal(self, headers: Headers) -> Problem | None:
        host = headers.get("host", "")
        if self._hosts and urlsplit(f"//{host}").hostname not in self._hosts:
            return Problem(
                421,
                "unknown_host",
                came=f"The request is for the host {host[:80]!r}.",
                allowed="This service answers to " + ", ".join(sorted(self._hosts)) + ".",
                advice="Start it with --host to be asked from elsewhere.",
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return Problem(
                403,
                "other_origin",
                came=f"The request comes from a page of {origin[:80]!r}.",
                allowed="Pages of this service alone may ask it.",
                advice="Ask it from a program, or put a proxy before it that serves your page too.",
            )
        return None
