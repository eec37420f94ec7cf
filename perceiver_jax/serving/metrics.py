"""What a server counts and times, as Prometheus reads it."""

from collections.abc import Callable
from typing import Any

import prometheus_client
from prometheus_client import exposition

CONTENT_TYPE = exposition.CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters and histograms of one server, in a registry of its own.

    Attributes:
        requests: by route and status.
        seconds: of requests, by route, from their first byte to their answer.
        in_flight: requests that are accepted and not answered yet.
        examples: that were answered.
        decode_seconds: of what a request holds, with waiting for a process.
        wait_seconds: of the first row of a batch.
        model_seconds: of a batch.
        batch_rows: of a batch, without what fills it up.
        filled_rows: rows that filled batches up.
    """

    def __init__(self, sizes: tuple[int, ...]):
        """Has counted nothing yet.

        Args:
            sizes: of batches.
        """
        self._registry = registry = prometheus_client.CollectorRegistry()

        def make(kind: Any, name: str, doc: str, labels: tuple[str, ...] = (), **options: Any):
            return kind(f"perceiver_{name}", doc, labels, registry=registry, **options)

        counter, histogram = prometheus_client.Counter, prometheus_client.Histogram
        self.requests = make(counter, "requests", "Requests answered.", ("route", "status"))
        self.seconds = make(
            histogram, "request_seconds", "To the answer.", ("route",), buckets=_SECONDS
        )
        self.in_flight = make(prometheus_client.Gauge, "requests_in_flight", "Not answered yet.")
        self.examples = make(counter, "examples", "Examples answered.")
        self.decode_seconds = make(
            histogram, "decode_seconds", "Reading a body, with waiting.", buckets=_SECONDS
        )
        self.wait_seconds = make(
            histogram, "batch_wait_seconds", "Of a batch's first row.", buckets=_SECONDS
        )
        self.model_seconds = make(
            histogram, "model_seconds", "Computing a batch.", buckets=_SECONDS
        )
        self.batch_rows = make(histogram, "batch_rows", "Rows of a batch.", buckets=sizes)
        self.filled_rows = make(counter, "filled_rows", "Rows that filled batches up.")

    def watch(self, name: str, doc: str, function: Callable[[], float]) -> None:
        """Adds a gauge that shows what a function returns."""
        gauge = prometheus_client.Gauge(f"perceiver_{name}", doc, registry=self._registry)
        gauge.set_function(function)

    def batch(self, rows: int, size: int, waited: float, took: float) -> None:
        """Counts a batch; see `batching.Batcher`."""
        self.batch_rows.observe(rows)
        self.filled_rows.inc(size - rows)
        self.wait_seconds.observe(waited)
        self.model_seconds.observe(took)

    def text(self) -> bytes:
        """Returns all of them."""
        return prometheus_client.generate_latest(self._registry)
