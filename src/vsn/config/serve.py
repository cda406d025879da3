"""Define where a model is served over HTTP and what a request may cost."""

from __future__ import annotations

from dataclasses import dataclass

from vsn.config.errors import check_range, require


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Where the service listens, and its limits. A request beyond one is answered with what is allowed."""

    host: str = "127.0.0.1"
    """Address to listen on; the default is reached from this machine alone."""
    port: int = 8000
    """Port to listen on; 0: any free one."""
    top_k: int = 5
    """Labels of an answer, where the request does not say."""
    max_upload_mb: float = 100.0
    """Megabytes (10^6 bytes) of an uploaded video."""
    upload_seconds: float = 120.0
    """Seconds an upload may take."""
    max_seconds: float = 600.0
    """Seconds a video may last."""
    max_pixels: int = 4096 * 2304
    """Pixels a frame may have, height times width."""
    decode_seconds: float = 30.0
    """Seconds that reading a video may take; then its process is ended and another started."""
    decode_workers: int = 2
    """Processes that read videos."""
    max_requests: int = 32
    """Videos taken at once: arriving, waiting and being worked on. More are turned away until there is room."""
    max_batch: int = 8
    """Clips that go to the model together."""
    batch_wait_ms: float = 5.0
    """Milliseconds a clip waits for others to go with."""
    timeline_seconds: float = 20.0
    """Videos that last longer get a timeline too, where it is asked for: that of `vsn predict --windows`."""
    window_seconds: float | None = None
    """Seconds of a window of a timeline; default that of the clips the model was trained on."""
    max_windows: int = 32
    """Windows of a timeline; they lie further apart where there would be more."""

    def __post_init__(self) -> None:
        require((self.host != "", "host is empty; it must be an address such as 127.0.0.1, or 0.0.0.0 for all."))
        check_range(self, "[0, 65535]", "port")
        check_range(
            self, "[1, inf)", "top_k", "max_pixels", "decode_workers", "max_requests", "max_batch", "max_windows"
        )
        check_range(self, "(0, inf]", "max_upload_mb", "upload_seconds", "max_seconds", "decode_seconds")
        check_range(self, "[0.01, inf]", "window_seconds")
        check_range(self, "[0, inf]", "batch_wait_ms", "timeline_seconds")

    @property
    def max_upload_bytes(self) -> int:
        """`max_upload_mb` in bytes."""
        return int(self.max_upload_mb * 1_000_000)
