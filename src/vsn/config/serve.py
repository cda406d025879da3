"""Define where a model is served over HTTP and what a request may cost."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vsn.config.errors import check_range, require


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Where the service listens, and its limits. A request beyond a limit is answered with the limit."""

    host: str = "127.0.0.1"
    """Address to listen on; the default accepts only this machine."""
    port: int = 8000
    """Port to listen on; 0: any free one."""
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
            self, "(0, inf]", "max_upload_mb", "upload_seconds", "max_seconds", "decode_seconds", "predict_seconds"
        )
        check_range(self, "[0.01, inf]", "window_seconds")
        check_range(self, "(0, inf)", "header_seconds")
        check_range(self, "[0, inf)", "shutdown_seconds")
        check_range(self, "[0, inf]", "batch_wait_ms", "timeline_seconds")

    @property
    def max_upload_bytes(self) -> int:
        """`max_upload_mb` in bytes."""
        return int(self.max_upload_mb * 1_000_000)
