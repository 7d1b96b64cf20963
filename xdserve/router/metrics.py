"""Every metric of the router: its name, its labels and what it counts, in one place."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from xdserve.router.limiter import Limiter

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

CODES = ("1xx", "2xx", "3xx", "4xx", "5xx", "gone")
REASONS = ("queue", "memory")
FAILURES = ("connection", "timeout", "status", "answer")

# Seconds. A small model answers in a millisecond, a long generation takes minutes.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

# Half of all series otherwise. The library has no type for it.
_without_created_series: Callable[[], None] = disable_created_metrics


class RouterMetrics:
    """The metrics of one router, in a registry of their own."""

    def __init__(self, limiter: Limiter, held: Callable[[], int], *, process: bool = True) -> None:
        """Make all of them.

        Args:
            limiter: is asked for what runs and waits when metrics are read.
            held: gives the bytes of request bodies that are held now.
            process: whether to add Python's and the process's own figures (memory, CPU, descriptors).
        """
        _without_created_series()
        self.registry = CollectorRegistry(auto_describe=True)
        if process:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
            GCCollector(registry=self.registry)
        self._gauge("running", "Requests that run now", lambda: limiter.running)
        self._gauge("running_peak", "The most requests that ever ran at once", lambda: limiter.peak)
        self._gauge("queued", "Requests that wait now", lambda: limiter.waiting)
        self._gauge("held_bytes", "Bytes of request bodies held now", held)
        self.requests = self._counter(
            "requests", "Requests answered, by class of code; gone: the client left", code=CODES
        )
        self.refused = self._counter(
            "refused", "Requests refused; queue: nobody more may wait, memory: MAX_HELD_BYTES", reason=REASONS
        )
        self.upstream_failures = self._counter(
            "upstream_failures", "Requests that the real model server did not answer well", kind=FAILURES
        )
        self.request_seconds = self._histogram("request_seconds", "Time from a request's head to its whole answer")
        self.queue_seconds = self._histogram("queue_seconds", "Time that a request waited for its place")

    def answered(self, status: int | None, seconds: float) -> None:
        """Count an answer; status None: the client left before it."""
        self.requests.labels(code=f"{status // 100}xx" if status else "gone").inc()
        self.request_seconds.observe(seconds)

    def render(self) -> bytes:
        """All metrics in the text format of Prometheus (`CONTENT_TYPE`)."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        Gauge(name, text, namespace="xdserve_router", registry=self.registry).set_function(read)

    def _counter(self, name: str, text: str, **labels: tuple[str, ...]) -> Counter:
        counter = Counter(name, text, tuple(labels), namespace="xdserve_router", registry=self.registry)
        for label, values in labels.items():
            for value in values:  # a counter that is absent until it counts hides its first step
                counter.labels(**{label: value})
        return counter

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, namespace="xdserve_router", registry=self.registry, buckets=_BUCKETS)
