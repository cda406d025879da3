"""Define where a model is served over HTTP and what a request may cost."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

from vsn.config.errors import ConfigError, check_range, require

_ORIGIN = r"https?://([\w.-]+|\[[\da-f:.]+\])(:\d+)?"
# Without %-encoding, which some proxies decode, and without the names "." and "..".
_PATH = r"(/(?!\.{1,2}(/|$))[\w.~-]+)*/?"


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Where the service listens, and its limits. A request beyond a limit is answered with the limit."""

    host: str = "127.0.0.1"
    """Address to listen on; the default accepts only this machine."""
    port: int = 8000
    """Port to listen on; 0: any free one."""
    public_url: str | None = None
    """URL of the page behind a proxy, such as https://example.com/vsn/; default: the service is its own, without a proxy.
    Requests for other names and pages of other origins are refused. The command also reads VSN_PUBLIC_URL."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies whose X-Forwarded-Host and X-Forwarded-Proto are believed, such as 10.0.0.0/8."""
    frame_ancestors: tuple[str, ...] = ()
    """Origins whose pages may show the page in a frame, such as https://huggingface.co."""
    api_key_file: Path | None = None
    """File of the keys that requests must have, one NAME:KEY a line; default: no key is needed. Read at startup."""
    max_connections: int = 256
    """Maximum open connections; beyond it the one that has waited longest for its request is closed."""
    header_seconds: float = 10.0
    """Maximum time for the headers of a request."""
    shutdown_seconds: float = 20.0
    """Time that requests have to finish after Ctrl-C or SIGTERM; then they get 503."""
    top_k: int = 5
    """Default number of labels per answer."""
    max_upload_mb: float = 100.0
    """Maximum size of an uploaded video, megabytes (10^6 bytes)."""
    upload_seconds: float = 120.0
    """Maximum duration of an upload."""
    max_seconds: float = 600.0
    """Maximum duration of a video."""
    max_pixels: int = 4096 * 2304
    """Maximum pixels of a frame, height times width."""
    max_model_pixels: int | None = None
    """Maximum pixels that the model computes for a video: of a resized frame, times frames, times views; default 4 times
    those of a square video."""
    decode_seconds: float = 30.0
    """Maximum time to decode a video; then its process is replaced."""
    decode_memory_mb: float = 1000.0
    """Maximum memory that decoding a video adds to its process, megabytes; then the process is replaced."""
    decode_workers: int = 2
    """Processes that decode videos."""
    predict_seconds: float = 60.0
    """Maximum time of a request in the model, waiting for other requests included."""
    max_requests: int = 32
    """Maximum concurrent requests: uploading, waiting and computed. More are rejected."""
    max_batch: int = 8
    """Maximum clips per batch."""
    batch_wait_ms: float = 5.0
    """Milliseconds that a clip waits for a batch to fill."""
    timeline_seconds: float = 20.0
    """Duration above which a video gets a timeline, if requested: as `vsn predict --windows`."""
    window_seconds: float | None = None
    """Seconds of a window of a timeline; default that of the clips the model was trained on."""
    max_windows: int = 32
    """Maximum windows of a timeline; for longer videos they are further apart."""

    def __post_init__(self) -> None:
        require(self.host != "", "host is empty; it must be an address such as 127.0.0.1, or 0.0.0.0 for all.")
        check_range(self, "[0, 65535]", "port")
        if self.public_url is not None:
            require(
                _is_url(self.public_url, _ORIGIN + _PATH),
                f"public_url is {self.public_url!r}; it must be the URL of the page, such as https://example.com/ or "
                "https://example.com/vsn/, in ASCII and without user, query and %.",
            )
            require(
                not urlsplit(self.public_url + "/").path.startswith("/v1/"),
                f"public_url is {self.public_url!r}; /v1/ is part of the API: serve it at another path.",
            )
        for network in self.trusted_proxies:
            try:
                ip_network(network)
            except ValueError as error:
                expected = "Expected addresses such as 127.0.0.1, or networks such as 10.0.0.0/8."
                raise ConfigError(f"trusted_proxies has {network!r}: {error}. {expected}") from None
        for origin in self.frame_ancestors:
            expected = "expected origins without a path, such as https://huggingface.co."
            require(_is_url(origin, _ORIGIN), f"frame_ancestors has {origin!r}; {expected}")
        check_range(
            self,
            "[1, inf)",
            "top_k",
            "max_pixels",
            "max_model_pixels",
            "decode_workers",
            "max_requests",
            "max_batch",
            "max_connections",
            "max_windows",
        )
        # Closed at infinity: these limits may be turned off with inf.
        check_range(
            self,
            "(0, inf]",
            "max_upload_mb",
            "upload_seconds",
            "max_seconds",
            "decode_seconds",
            "decode_memory_mb",
            "predict_seconds",
        )
        check_range(self, "[0.01, inf]", "window_seconds")
        check_range(self, "(0, inf)", "header_seconds")
        check_range(self, "[0, inf)", "shutdown_seconds")
        check_range(self, "[0, inf]", "batch_wait_ms", "timeline_seconds")

    @property
    def max_upload_bytes(self) -> int:
        """`max_upload_mb` in bytes."""
        return int(self.max_upload_mb * 1_000_000)


def _is_url(url: str, pattern: str) -> bool:
    try:
        # Raises ValueError for a port or an IPv6 address that cannot be.
        _ = urlsplit(url).port
    except ValueError:
        return False
    return re.fullmatch(pattern, url, re.ASCII | re.IGNORECASE) is not None
