"""Where a backend's requests can go: what a Service and its EndpointSlices say, once for all who ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from translator.objects.core import Endpoint as SliceEndpoint
from translator.objects.core import EndpointSlice, Service, ServicePort
from translator.objects.ref import CORE, Ref
from translator.plan import Endpoint, EndpointSource, Families, Protocol
from translator.planners.indexes import SLICES
from translator.planners.options import listed
from translator.planners.ports import MAIN_PORT, grpc_port, numbered, protocol_of, rest_port, with_tls
from translator.view import Absent, Derivation, View

EXTERNAL_NAME = "ExternalName"

NO_ENDPOINT = "has no ready endpoint"


class PortOf(NamedTuple):
    """A port of a Service by number; None for the one that takes REST. With ``tls`` only ports with TLS count."""

    namespace: str
    service: str
    port: int | None
    tls: bool = False

    @property
    def ref(self) -> Ref:
        """The Service."""
        return Ref(CORE, "Service", self.namespace, self.service)


@dataclass(frozen=True, slots=True)
class PortState:
    """What planning needs of a port: where its endpoints are, what it speaks, and why none serves, if none does."""

    source: EndpointSource
    protocol: Protocol
    unready: str = ""

    @property
    def ready(self) -> bool:
        """Whether there is an endpoint to send to."""
        return not self.unready


@dataclass(frozen=True, slots=True)
class ServiceState:
    """A Service's port for REST, and the port of the same Service that speaks gRPC where that is another one."""

    main: PortState
    grpc: PortState | None
    families: Families


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a Service's port cannot receive traffic, as one line."""

    message: str


def endpoints(view: View, source: EndpointSource | Endpoint) -> tuple[Endpoint, ...]:
    """The endpoints to send to: those ready, or while none is, those that still serve while terminating."""
    if isinstance(source, Endpoint):
        return (source,)
    slices: tuple[EndpointSlice, ...] = view.find(SLICES, (source.namespace, source.service))
    return _endpoints_of(_of_one_family(view, slices), source) or _endpoints_of(slices, source)


def _of_one_family(view: View, slices: tuple[EndpointSlice, ...]) -> Sequence[EndpointSlice]:
    """Slices of two families have the same pods, and not every pod of a gateway reaches both: the cluster's first."""
    if len({found.address_type for found in slices}) < 2:
        return slices
    first = view.derive(FAMILIES, CLUSTER).families[:1]
    return [found for found in slices if found.address_type in first]


def _endpoints_of(slices: Iterable[EndpointSlice], source: EndpointSource) -> tuple[Endpoint, ...]:
    ready: dict[Endpoint, None] = {}
    leaving: dict[Endpoint, None] = {}
    for found in slices:
        for port in _numbers(found, source.port):
            _collect(found, port, ready, leaving)
    return tuple(ready or leaving)


def _numbers(found: EndpointSlice, name: str) -> Iterator[int]:
    return (port.port for port in found.ports if port.name == name and port.port is not None)


def _collect(found: EndpointSlice, port: int, ready: dict[Endpoint, None], leaving: dict[Endpoint, None]) -> None:
    for endpoint in found.endpoints:
        said = endpoint.conditions
        # An unset condition counts as true for `ready` (EndpointConditions of discovery.k8s.io/v1).
        if said.ready is not False:
            chosen = ready
        elif said.serving and said.terminating:
            chosen = leaving
        else:
            continue
        for address in endpoint.addresses:
            chosen[Endpoint(endpoint.zone or "", address, port)] = None


def _any(view: View, source: EndpointSource) -> bool:
    """Whether there are endpoints to send to. Most often the first one says so."""
    return any(
        _serves(endpoint)
        for found in view.find(SLICES, (source.namespace, source.service))
        if next(_numbers(found, source.port), None) is not None
        for endpoint in found.endpoints
    )


def _serves(endpoint: SliceEndpoint) -> bool:
    said = endpoint.conditions
    return bool(endpoint.addresses) and (said.ready is not False or bool(said.serving and said.terminating))


def _state(view: View, wanted: PortOf) -> ServiceState | Unusable:
    service = view.get(wanted.ref, Service)
    if isinstance(service, Absent):
        return Unusable(f"{wanted.ref} " + ("not found" if service is Absent.MISSING else "is not readable"))
    if service.spec.type == EXTERNAL_NAME:
        return Unusable(f"{wanted.ref} is of type {EXTERNAL_NAME}, which has no endpoints")
    tcp = [port for port in service.spec.ports if port.protocol == "TCP"]
    ports = with_tls(tcp) if wanted.tls else tcp
    main = rest_port(ports) if wanted.port is None else numbered(ports, wanted.port)
    if main is None:
        return Unusable(f"{wanted.ref} has no port {_asked(wanted)}; its TCP ports: {_listed(tcp)}")
    grpc = None if len(ports) == 1 or protocol_of(main).http2 else grpc_port(ports)
    speaks_grpc = _port_state(view, service, grpc) if grpc else None
    return ServiceState(_port_state(view, service, main), speaks_grpc, families_of(service))


SERVICE_STATE: Derivation[PortOf, ServiceState | Unusable] = Derivation("service state", _state)


def _of_cluster(view: View, cluster: Ref) -> Families:
    found = view.get(cluster, Service)
    return Families() if isinstance(found, Absent) else families_of(found)


CLUSTER = Ref(CORE, Service.KIND, "default", "kubernetes")
"""The cluster's own Service, which has the primary family of all Services."""

FAMILIES: Derivation[Ref, Families] = Derivation("IP families of the cluster", _of_cluster)


def families_of(service: Service) -> Families:
    """The IP families of a Service."""
    return _families(service.spec.ip_families, service.spec.ip_family_policy or "")


@lru_cache(64)
def _families(families: tuple[str, ...], policy: str) -> Families:
    """Nearly all Services have the same: they share one."""
    return Families(families, policy)


def _asked(wanted: PortOf) -> str:
    return "with TLS" if wanted.tls else str(wanted.port or MAIN_PORT)


def _listed(ports: Sequence[ServicePort]) -> str:
    return listed([f"{port.port} {port.name}".strip() for port in ports]) or "none"


def _port_state(view: View, service: Service, port: ServicePort) -> PortState:
    source = EndpointSource(service.ref.namespace, service.ref.name, port.name)
    return PortState(source, protocol_of(port), "" if _any(view, source) else _unready(view, service, source))


def _unready(view: View, service: Service, source: EndpointSource) -> str:
    """Why nothing serves a port. It names no numbers of endpoints, so that a change of them plans nothing anew."""
    slices = view.find(SLICES, (source.namespace, source.service))
    if not slices and not service.spec.selector:
        return f"{NO_ENDPOINT}: the Service has no selector, and no EndpointSlice is there for it"
    serving = [found for found in slices if any(map(_serves, found.endpoints))]
    ports = sorted({port.name for found in serving for port in found.ports})
    if not serving or source.port in ports:
        return NO_ENDPOINT
    return f"{NO_ENDPOINT}: its EndpointSlices have no port {_name(source.port)}; their ports: {listed(_names(ports))}"


def _name(port: str) -> str:
    return f"named {port}" if port else "without a name"


def _names(ports: Iterable[str]) -> list[str]:
    return [port or "one without a name" for port in ports] or ["none"]
