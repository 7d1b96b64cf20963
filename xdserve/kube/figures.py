"""What the parts that are on Kubernetes alone have counted, as metrics: read when somebody asks for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from cryptography import x509

from xdserve.kube.config_maps import ConfigMaps
from xdserve.kube.events import Recorder
from xdserve.kube.leader import Leadership
from xdserve.kube.provision import Provisioner
from xdserve.kube.reflector import Counts
from xdserve.kube.reports import Reporter
from xdserve.kube.status import StatusWriter
from xdserve.metrics import CONFLICT, DROPPED, ERROR, LIST, LOOK, WATCH, WRITTEN, KubernetesMetrics

Figures = Counter[tuple[str, ...]]


def show_following(metrics: KubernetesMetrics, counts: Callable[[], Iterable[tuple[str, Counts]]]) -> None:
    """How objects are followed; `counts` gives the figures of each reflector with the kind that it follows."""
    metrics.reflector_requests.set_functions(lambda: requests(counts()))
    metrics.reflector_failures.set_functions(lambda: failures(counts()))


def show_reading(metrics: KubernetesMetrics, config_maps: ConfigMaps) -> None:
    """What becomes of the ConfigMaps that are got by their names."""
    metrics.config_map_reads.set_functions(lambda: {(answer,): number for answer, number in config_maps.reads.items()})


def requests(counts: Iterable[tuple[str, Counts]]) -> Figures:
    """Requests by kind and what was asked for."""
    found = Figures()
    for kind, one in counts:
        found.update({(kind, LIST): one.pages, (kind, WATCH): one.watches, (kind, LOOK): one.looks})
    return found


def failures(counts: Iterable[tuple[str, Counts]]) -> Figures:
    """Failures by kind and trouble."""
    found = Figures()
    for kind, one in counts:
        found.update({(kind, trouble.value): number for trouble, number in one.failures.items()})
    return found


def show_writing(metrics: KubernetesMetrics, writer: StatusWriter, recorder: Recorder, reporter: Reporter) -> None:
    """What is written into and about users' objects, and what another replica could not be told for it."""
    metrics.status_writes.set_functions(
        lambda: {
            (WRITTEN,): writer.writes,
            (CONFLICT,): writer.conflicts,
            (ERROR,): writer.failures - writer.conflicts + reporter.failures,
        }
    )
    metrics.events.set_functions(lambda: {(WRITTEN,): recorder.written, (DROPPED,): recorder.dropped})


def show_gateways(metrics: KubernetesMetrics, provisioner: Provisioner) -> None:
    """What becomes of the gateways that are to run in pods."""
    metrics.wanted_gateways.set_function(lambda: provisioner.wanted)
    metrics.applied_gateways.set_function(lambda: provisioner.applied)
    metrics.provisioner_failures.set_function(lambda: provisioner.failures)
    metrics.provisioner_requests.set_functions(
        lambda: {(what,): number for what, number in provisioner.requests.items()}
    )


def show_replica(metrics: KubernetesMetrics, leadership: Leadership, certificate: Callable[[], Path]) -> None:
    """Which replica this is, and until when Envoys believe it."""
    metrics.leader.set_function(lambda: leadership.held)
    metrics.leader_changes.set_function(lambda: leadership.turns)
    metrics.certificate_expiry.set_function(lambda: expiry(certificate()))


def expiry(certificate: Path) -> float:
    """When a certificate (the first of a file, PEM) expires, in seconds since 1970; 0 if there is none."""
    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc.timestamp()
    except (OSError, ValueError):
        return 0.0
