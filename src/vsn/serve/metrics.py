"""What the service counts, in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

DECODE_FAILURES = ("not_a_video", "cannot_decode", "decoder_crashed", "decode_timeout")
"""Codes of problems that are the decoder's; a video beyond a limit is none."""


class Metrics:
    """Counters of one service; a registry of its own, so that two services in a process do not mix."""

    def __init__(self, *, max_batch: int) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "vsn_requests",
            "Requests answered; 499: the client went away before",
            ["path", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "vsn_request_seconds",
            "From the first byte of a request to the last of its answer",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "vsn_stage_seconds",
            "Of a prediction: upload, decode and predict, each with its waiting",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "vsn_videos_in_progress",
            "Videos that are arriving, waiting or worked on",
            registry=self.registry,
        )
        self.decode_failures = Counter(
            "vsn_decode_failures",
            "Uploads that no clip could be read from, by reason",
            ["reason"],
            registry=self.registry,
        )
        self.batch_clips = Histogram(
            "vsn_batch_clips",
            "Clips that went to the model together",
            buckets=sorted({1, 2, 4, 8, 16, 32, max_batch}),
            registry=self.registry,
        )
        for reason in DECODE_FAILURES:
            self.decode_failures.labels(reason)

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge that is asked when somebody looks."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
