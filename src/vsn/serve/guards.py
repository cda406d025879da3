"""Check, count and add headers to every request, as plain ASGI middleware so that bodies still stream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vsn.config import ServeConfig
from vsn.serve.keys import CHALLENGES, CLIENT, ApiKeys
from vsn.serve.metrics import Metrics
from vsn.serve.origins import Origins
from vsn.serve.problems import MEDIA_TYPE, Problem

SECURITY_HEADERS = {
    # The page loads its own script and style, shows frames from responses (data:), and plays the chosen video (blob:).
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
log = logging.getLogger("vsn.serve")
NO_RESPONSE = 499
"""Counted as the status if the client leaves before a response, as by nginx."""
SENT_STATUS = "vsn_sent_status"
"""Key of a request's state: the status that the server sent in place of the application's."""
_DRAIN_SECONDS = 2.0
NO_KEY_NEEDED = frozenset({"/healthz", "/readyz"})
"""Probes of a system that starts services send none, and learn nothing else."""


def problem_response(problem: Problem) -> JSONResponse:
    """Return the response of a problem."""
    response = JSONResponse(problem.body(), problem.status, headers=problem.headers, media_type=MEDIA_TYPE)
    for challenge in CHALLENGES if problem.code == "no_key" else ():
        response.headers.append("WWW-Authenticate", challenge)
    return response


class Guards:
    """Middleware: add security headers, refuse requests of other sites' pages, count responses.

    Args:
        app, metrics: the application, and where its requests are counted.
        paths: known paths; all others are counted as "other", so that a scanner cannot fill memory with labels.
        config: names of the service, its public URL, and who may show its page in a frame.
        keys: of which a request must have one; None: no key is needed.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        paths: Sequence[str],
        config: ServeConfig,
        keys: ApiKeys | None = None,
    ) -> None:
        self._app, self._metrics, self._keys = app, metrics, keys
        self._paths, self._origins = frozenset(paths), Origins(config)
        self._headers = dict(SECURITY_HEADERS)
        if config.frame_ancestors:
            policy, _, _ = SECURITY_HEADERS["Content-Security-Policy"].rpartition(" ")
            self._headers["Content-Security-Policy"] = " ".join([policy, *config.frame_ancestors])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = NO_RESPONSE
        headers = Headers(scope=scope)
        body_left = "content-length" in headers or "transfer-encoding" in headers

        async def tracked_receive() -> Message:
            nonlocal body_left
            message = await receive()
            body_left = body_left and message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def guarded_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                response_headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    response_headers.setdefault(name, value)
                # Closing a connection with unread data resets it, and the sender of a refused upload might never see
                # the response. So read what still arrives, for a bounded time.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_DRAIN_SECONDS):
                        while body_left:
                            await tracked_receive()
            await send(message)

        # A refused request never reaches the application, but gets the same headers and is counted.
        prefix = self._origins.prefix
        inner = {**scope, "path": self._origins.inner_path(scope["path"])}
        path = inner["path"] if inner["path"] in self._paths else "other"
        # The server leaves out the body of a response to HEAD.
        if scope.get("method") == "HEAD":
            inner["method"] = "GET"
        app = self._app
        peer = (scope.get("client") or ("",))[0]
        problem = self._origins.refusal(headers, peer=peer) or self._key_refusal(headers, inner["path"])
        if problem is not None:
            app = problem_response(problem)
        elif prefix and scope["path"] == prefix:
            # URLs of the page are relative. Without a host, which behind a proxy would be that of the service itself.
            app = RedirectResponse(f"{prefix}/", 308)
        try:
            await app(inner, tracked_receive, guarded_send)
        except Exception as error:
            # Here, not in the application: outside of this middleware it would be neither counted nor guarded.
            if status != NO_RESPONSE:
                raise
            # The text of the exception is for the log: it may contain paths.
            log.error("A request of %s failed", CLIENT.get(), exc_info=error)
            problem = Problem("internal", "The service failed on this request.")
            await problem_response(problem)(scope, tracked_receive, guarded_send)
        finally:
            status = scope.get("state", {}).get(SENT_STATUS, status)
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.request_seconds.labels(path).observe(time.perf_counter() - start)

    def _key_refusal(self, headers: Headers, path: str) -> Problem | None:
        if self._keys is None or path in NO_KEY_NEEDED:
            return None
        authorization = headers.get("authorization", "")
        name = self._keys.name_of(authorization)
        if name is None:
            self._metrics.key_requests.labels("").inc()
            # Without what was sent, which may be a key of something else.
            received = "The key of the request is not valid." if authorization else "The request has no key."
            return Problem("no_key", received)
        CLIENT.set(name)
        self._metrics.key_requests.labels(name).inc()
        return None
