"""Where a backend's requests can go: what a Service and its EndpointSlices say, once for all who ask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from translator.objects.core import Endpoint as SliceEndpoint
from translator.objects.core import EndpointSlice, Service, ServicePort
from translator.objects.ref import CORE, Ref
from translator.plan import Endpoint, EndpointSource, Protocol
from translator.planners.indexes import SLICES
from translator.view import Absent, Derivation, View

MAIN_PORT = 80
"""KServe gives a component's Service port 80 for the first container port."""

H2C_MARKS = ("grpc", "h2c")
"""KServe marks a port whose name holds one of these with appProtocol ``kubernetes.io/h2c``."""

H2C_PROTOCOLS = frozenset({"kubernetes.io/h2c", "h2c", "http2", "grpc"})


class PortOf(NamedTuple):
    """A port of a Service by number; None for its main one: port 80, else the first."""

    namespace: str
    service: str
    port: int | None

    @property
    def ref(self) -> Ref:
        """The Service."""
        return Ref(CORE, "Service", self.namespace, self.service)


@dataclass(frozen=True, slots=True)
class PortState:
    """What planning needs of a port: where its endpoints are, what it speaks, whether one of them serves."""

    source: EndpointSource
    protocol: Protocol
    ready: bool


@dataclass(frozen=True, slots=True)
class ServiceState:
    """A Service's port, and the port of the same Service that speaks gRPC where that is another one."""

    main: PortState
    grpc: PortState | None


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a Service's port cannot receive traffic, as one line."""

    message: str


def endpoints(view: View, source: EndpointSource | Endpoint) -> tuple[Endpoint, ...]:
    """The endpoints to send to: those ready, or while none is, those that still serve while terminating."""
    if isinstance(source, Endpoint):
        return (source,)
    ready: dict[Endpoint, None] = {}
    leaving: dict[Endpoint, None] = {}
    for found in view.find(SLICES, (source.namespace, source.service)):
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
    ports = [port for port in service.spec.ports if port.protocol == "TCP"]
    main = _choose(ports, wanted.port)
    if main is None:
        listed = ", ".join(str(port.port) for port in ports) or "none"
        return Unusable(f"{wanted.ref} has no port {wanted.port or MAIN_PORT}; its TCP ports: {listed}")
    grpc = None if _speaks_h2c(main) else next((port for port in ports if _speaks_h2c(port)), None)
    return ServiceState(_port_state(view, wanted, main), _port_state(view, wanted, grpc) if grpc else None)


SERVICE_STATE: Derivation[PortOf, ServiceState | Unusable] = Derivation("service state", _state)


def _choose(ports: list[ServicePort], number: int | None) -> ServicePort | None:
    if number is not None:
        return next((port for port in ports if port.port == number), None)
    return _choose(ports, MAIN_PORT) or next(iter(ports), None)


def _port_state(view: View, wanted: PortOf, port: ServicePort) -> PortState:
    source = EndpointSource(wanted.namespace, wanted.service, port.name)
    protocol = Protocol.H2C if _speaks_h2c(port) else Protocol.HTTP
    return PortState(source, protocol, _any(view, source))


def _speaks_h2c(port: ServicePort) -> bool:
    if port.app_protocol is not None:
        return port.app_protocol.lower() in H2C_PROTOCOLS
    return any(mark in port.name for mark in H2C_MARKS)
