"""Every metric of the program but those of each gateway: its name, its labels and what it counts, in one place.

Labels take their values from closed sets, so that nobody can make the number of series grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import TypeVar

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
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from xds.session import Variant
from xds.types import ResourceType

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

TYPES = tuple(type_.short for type_ in ResourceType)
VARIANTS = tuple(Variant)
AGGREGATED = "ads"
SERVICES = (AGGREGATED, *TYPES)
OTHER = "OTHER"
STATUSES = (
    "INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAVAILABLE",
    "DEADLINE_EXCEEDED", "INTERNAL", OTHER,
)  # fmt: skip
"""How the server ends streams (the names of gRPC's statuses)."""
KINDS = ("InferenceService", "Inference", "Service", "EndpointSlice", "TrafficPolicy", "ServiceGateway")

# Seconds. Planning a service takes some 100 µs; the tail is what a full pass of thousands takes.
_PLAN_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
# Seconds. Envoy needs some 3 ms for a cluster; warming may take as long as a health check does.
_ACK_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)

# Half of all series otherwise, for times that Prometheus sees itself. The library has no type for it.
_without_created_series: Callable[[], None] = disable_created_metrics

M = TypeVar("M", Counter, Gauge, Histogram)


class Metrics:
    """The metrics of one program, in a registry of their own."""

    def __init__(self, *, process: bool = True) -> None:
        """Make all of them.

        Args:
            process: whether to add Python's and the process's own figures (memory, CPU, descriptors).
        """
        _without_created_series()
        self.registry = CollectorRegistry(auto_describe=True)
        if process:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
            GCCollector(registry=self.registry)

        self.gateways = self._gauge("gateways", "Gateways that have resources")
        self.services = self._gauge("services", "Services that are planned")
        self.connected_envoys = self._gauge(
            "connected_envoys", "Envoys that are connected; those with a stream for each type by their node ids"
        )
        self.objects = self._gauge("objects", "Objects held, by kind", kind=KINDS)
        self.errors = self._gauge("errors", "Findings present now: what /debug/errors lists")
        self.refused_resources = self._gauge(
            "refused_resources",
            "Resources of which Envoys refuse the present version: what /debug/rejections lists",
            type=TYPES,
        )

        self.edits = self._counter("edits", "Changes of objects taken in")
        self.planned_services = self._counter("planned_services", "Services planned, again or for the first time")
        self.encoded_assignments = self._counter("encoded_assignments", "Endpoint assignments encoded")
        self.plan_failures = self._counter("plan_failures", "Plans that failed by a fault of the program's own")
        self.plan_seconds = self._histogram("plan_seconds", "Time from a change to its resources", _PLAN_BUCKETS)

        self.resources_sent = self._counter("resources_sent", "Resources sent to Envoys", type=TYPES)
        self.resources_removed = self._counter("resources_removed", "Removals sent to Envoys", type=TYPES)
        self.bytes_sent = self._counter("bytes_sent", "Bytes of responses sent to Envoys", type=TYPES)
        self.responses = self._counter("responses", "Responses sent to Envoys", type=TYPES)
        self.acks = self._counter("acks", "Responses that Envoys accepted", type=TYPES)
        self.rejections = self._counter("rejections", "Responses that Envoys refused", type=TYPES)
        self.ack_seconds = self._histogram("ack_seconds", "Time from a response to its ACK", _ACK_BUCKETS, type=TYPES)
        self.stale_answers = self._counter(
            "stale_answers", "Answers of Envoys to responses that were not waiting for one", type=TYPES
        )
        self.quarantined = self._counter("quarantined", "Versions taken for what Envoys were lost by")
        self.overdue = self._counter("overdue", "Responses that Envoys did not answer in time", type=TYPES)
        self.pushes_coalesced = self._counter(
            "pushes_coalesced",
            "Changes never sent to a stream by themselves: a later one of the same resource came first",
            type=TYPES,
        )
        self.streams = self._counter(
            "streams", "Streams opened, by protocol and discovery service", variant=VARIANTS, service=SERVICES
        )
        self.refused_streams = self._counter(
            "refused_streams", "Streams refused, or ended by the server, by gRPC status", status=STATUSES
        )
        self.unknown_types = self._counter(
            "unknown_types", "Requests for types that this server does not have, ten a stream at most"
        )
        self.credential_failures = self._counter(
            "credential_failures", "Changes of certificates, keys or tokens that could not be used; the last good stay"
        )
        self.store_failures = self._read("store_failures", "Writes of last good versions that failed")

    def render(self) -> bytes:
        """All metrics in the text format of Prometheus (`CONTENT_TYPE`)."""
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str, **labels: tuple[str, ...]) -> Gauge:
        metric = Gauge(name, text, tuple(labels), namespace="xdserve", registry=self.registry)
        return _with_all(metric, labels)

    def _counter(self, name: str, text: str, **labels: tuple[str, ...]) -> Counter:
        metric = Counter(name, text, tuple(labels), namespace="xdserve", registry=self.registry)
        return _with_all(metric, labels)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], **labels: tuple[str, ...]) -> Histogram:
        metric = Histogram(name, text, tuple(labels), namespace="xdserve", registry=self.registry, buckets=buckets)
        return _with_all(metric, labels)

    def _read(self, name: str, text: str) -> Reading:
        reading = Reading(f"xdserve_{name}", text)
        self.registry.register(reading)
        return reading


class Reading(Collector):
    """A counter that another part of the program keeps; 0 until it is said who."""

    def __init__(self, name: str, text: str) -> None:
        self._name, self._text = name, text
        self._read: Callable[[], float] = lambda: 0

    def set_function(self, read: Callable[[], float]) -> None:
        """Read it there."""
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """What it says now."""
        yield CounterMetricFamily(self._name, self._text, value=self._read())


def _with_all(metric: M, labels: dict[str, tuple[str, ...]]) -> M:
    """Make the series of every label value at once: a counter that is absent until it counts hides its first step."""
    if labels:
        for values in product(*labels.values()):
            metric.labels(*values)
    return metric
