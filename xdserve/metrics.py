"""Every metric of the program but those of each gateway: its name, its labels and what it counts, in one place.

Labels take their values from closed sets, so that nobody can make the number of series grow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
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
KINDS = (
    "InferenceService", "Inference", "Service", "EndpointSlice", "ConfigMap", "TrafficPolicy", "ServiceGateway",
    "ReferenceGrant",
)  # fmt: skip
"""Kinds of objects that are read."""
REPORTS = "ConfigMap"
"""What replicas tell the leader with; followed as the kinds are, and nobody's object."""
LIST, WATCH, LOOK = "list", "watch", "look"
TROUBLES = ("away", "expired", "forbidden", "not found", "broken")
"""Why a list or a watch fails: the values of `xdserve.kube.course.Trouble`."""
WRITTEN, CONFLICT, ERROR, DROPPED = "written", "conflict", "error", "dropped"
FOUND, MISSING, FORBIDDEN, UNANSWERED = "found", "missing", "forbidden", "unanswered"
PROVISIONER_REQUESTS = ("list", "get", "apply", "delete")

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
        self._add_what_there_is()
        self._add_planning()
        self._add_streams()

    def _add_what_there_is(self) -> None:
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

    def _add_planning(self) -> None:
        self.edits = self._counter("edits", "Changes of objects taken in")
        self.planned_services = self._counter("planned_services", "Services planned, again or for the first time")
        self.encoded_assignments = self._counter("encoded_assignments", "Endpoint assignments encoded")
        self.plan_failures = self._counter("plan_failures", "Plans that failed by a fault of the program's own")
        self.plan_seconds = self._histogram("plan_seconds", "Time from a change to its resources", _PLAN_BUCKETS)

    def _add_streams(self) -> None:
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
        self.tls_handshakes = self._counter(
            "tls_handshakes", "TLS handshakes begun on the xDS port, also those that fail"
        )
        self.store_failures = self.count("store_failures", "Writes of last good versions that failed")

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

    def count(self, name: str, text: str, **labels: tuple[str, ...]) -> Reading:
        """Add a counter that another part of the program keeps."""
        return self._read(CounterMetricFamily, name, text, labels)

    def level(self, name: str, text: str) -> Reading:
        """Add a gauge that another part of the program keeps."""
        return self._read(GaugeMetricFamily, name, text, {})

    def _read(self, family: type[Kept], name: str, text: str, labels: Mapping[str, tuple[str, ...]]) -> Reading:
        reading = Reading(family, f"xdserve_{name}", text, labels)
        self.registry.register(reading)
        return reading


class KubernetesMetrics:
    """Those of a program whose objects come from a cluster, added to its others; its parts keep the figures."""

    def __init__(self, metrics: Metrics) -> None:
        kinds = tuple(dict.fromkeys((*KINDS, REPORTS)))
        self.reflector_requests = metrics.count(
            "reflector_requests",
            "Requests to the apiserver that follow objects: pages of lists, watches, looks whether a CRD is installed",
            kind=kinds,
            request=(LIST, WATCH, LOOK),
        )
        self.reflector_failures = metrics.count(
            "reflector_failures",
            "Such requests that failed; `expired` is 410: the apiserver has forgotten, and all is listed again",
            kind=kinds,
            trouble=TROUBLES,
        )
        self.config_map_reads = metrics.count(
            "config_map_reads",
            "ConfigMaps got by their names, by the answer; `forbidden`: a right is missing",
            answer=(FOUND, MISSING, FORBIDDEN, UNANSWERED),
        )
        self.status_writes = metrics.count(
            "status_writes", "Writes of objects' status, by what became of them", outcome=(WRITTEN, CONFLICT, ERROR)
        )
        self.events = metrics.count("events", "Kubernetes Events, by what became of them", outcome=(WRITTEN, DROPPED))
        self.provisioner_requests = metrics.count(
            "provisioner_requests", "Requests to the apiserver that provision gateways", request=PROVISIONER_REQUESTS
        )
        self.provisioner_failures = metrics.count("provisioner_failures", "Tries to provision a gateway that failed")
        self.wanted_gateways = metrics.level("wanted_gateways", "Gateways that are to run in pods")
        self.applied_gateways = metrics.level(
            "applied_gateways", "Of those, the ones that the cluster has as they are wanted; the leader alone knows"
        )
        self.leader = metrics.level("leader", "Whether this replica leads: 1 or 0")
        self.leader_changes = metrics.count("leader_changes", "How often this replica began or ceased to lead")
        self.certificate_expiry = metrics.level(
            "certificate_expiry_timestamp_seconds",
            "When the certificate of the xDS port expires, in seconds since 1970; 0 without one",
        )


Kept = CounterMetricFamily | GaugeMetricFamily


class Reading(Collector):
    """A figure that another part of the program keeps, or one for each value of its labels; 0 until it is said who."""

    def __init__(self, family: type[Kept], name: str, text: str, labels: Mapping[str, tuple[str, ...]]) -> None:
        self._family, self._name, self._text, self._labels = family, name, text, labels
        self._read: Callable[[], Mapping[tuple[str, ...], float]] = dict

    def set_function(self, read: Callable[[], float]) -> None:
        """Read the one figure there."""
        self._read = lambda: {(): read()}

    def set_functions(self, read: Callable[[], Mapping[tuple[str, ...], float]]) -> None:
        """Read the figures there, by their labels' values; what is not there is 0."""
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """What it says now."""
        family, found = self._family(self._name, self._text, labels=tuple(self._labels)), self._read()
        for values in product(*self._labels.values()):
            family.add_metric(values, found.get(values, 0))
        yield family


def _with_all(metric: M, labels: dict[str, tuple[str, ...]]) -> M:
    """Make the series of every label value at once: a counter that is absent until it counts hides its first step."""
    if labels:
        for values in product(*labels.values()):
            metric.labels(*values)
    return metric
