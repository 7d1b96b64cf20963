"""Endpoints to assignments."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from translator import names
from translator.envoy.rendered import Rendered
from translator.objects.ref import Ref
from translator.plan import Backend, Endpoint
from xds.api.envoy.config.core.v3 import Address, Locality, SocketAddress
from xds.api.envoy.config.endpoint.v3 import ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints
from xds.api.envoy.config.endpoint.v3 import Endpoint as EnvoyEndpoint
from xds.types import ResourceType

ENDPOINTS = 1 << 13
"""Endpoints kept as messages, for what changes now: each costs 0.7 KB, and bytes are kept anyway."""


def assignment(service: Ref, backend: Backend, endpoints: Iterable[Endpoint]) -> Rendered:
    """The assignment of a backend's cluster, by zone."""
    zones: dict[str, list[LbEndpoint]] = {}
    for zone, address, port in endpoints:
        zones.setdefault(zone, []).append(lb_endpoint(address, port))
    name = names.cluster(service, backend.name)
    message = ClusterLoadAssignment(cluster_name=name, endpoints=[_zone(zone, zones[zone]) for zone in sorted(zones)])
    return Rendered(ResourceType.ENDPOINT, name, message, backend.origin)


@lru_cache(maxsize=ENDPOINTS)
def lb_endpoint(address: str, port: int) -> LbEndpoint:
    """One endpoint. Shared and never changed, so that an encoder may keep its bytes."""
    socket = SocketAddress(address=address, port_value=port)
    return LbEndpoint(endpoint=EnvoyEndpoint(address=Address(socket_address=socket)))


def _zone(zone: str, endpoints: list[LbEndpoint]) -> LocalityLbEndpoints:
    return LocalityLbEndpoints(locality=Locality(zone=zone) if zone else None, lb_endpoints=endpoints)
