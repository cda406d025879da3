"""Count requests, stages and failures, and export them in the format of Prometheus."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable, Collection

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

# Seconds: from a small clip on a GPU to a long video in a full queue.
_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

DECODE_FAILURES = (
    "not_a_video",
    "cannot_decode",
    "decoder_crashed",
    "decoder_killed",
    "decode_timeout",
    "decode_memory",
)
"""Codes of problems that count as failures of the decoder; a video beyond a limit does not."""


class Metrics:
    """Metrics of one service, in a separate registry: two services of a process do not mix."""

    def __init__(self, *, max_batch: int) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "vsn_requests", "Responses; status 499: the client left before", ["path", "status"], registry=registry
        )
        self.key_requests = Counter(
            "vsn_key_requests",
            "Requests by the name of their key; without a valid one the name is empty",
            ["name"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "vsn_request_seconds",
            "From the first byte of a request to the last of its response",
            ["path"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "vsn_stage_seconds",
            "Stages of a prediction: upload, decode and predict, waiting included",
            ["stage"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.in_progress = Gauge(
            "vsn_videos_in_progress", "Videos that are uploaded, waiting or processed", registry=registry
        )
        self.decode_failures = Counter(
            "vsn_decode_failures",
            "Uploads from which no clip could be decoded, by reason",
            ["reason"],
            registry=registry,
        )
        self.batch_clips = Histogram(
            "vsn_batch_clips", "Clips of a batch", buckets=sorted({1, 2, 4, 8, 16, 32, max_batch}), registry=registry
        )
        # Zeros before the first failure: a rate over a series that does not exist yet is undefined.
        for reason in DECODE_FAILURES:
            self.decode_failures.labels(reason)

    def add_gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a gauge that is computed when it is read."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def answers(self, paths: Collection[str]) -> dict[int, int]:
        """Return how often each status was the response of these paths, ascending."""
        (family,) = self.requests.collect()
        counts: Counts[int] = Counts()
        for sample in family.samples:
            if sample.name.endswith("_total") and sample.labels["path"] in paths:
                counts[int(sample.labels["status"])] += int(sample.value)
        return dict(sorted(counts.items()))

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self.registry)
