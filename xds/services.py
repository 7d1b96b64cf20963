"""The gRPC methods served, in one table: how a stream of each speaks, and what may be asked for on it. Pure.

The Fetch methods of the same services, which are for polling, are not served: gRPC answers UNIMPLEMENTED.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from xds import loads
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest, DiscoveryRequest
from xds.session import Variant
from xds.types import SEND_ORDER, ResourceType


class Discovery(NamedTuple):
    """A method that serves resources."""

    service: str
    """Short name, for logs, metrics and debug output."""
    variant: Variant
    types: tuple[ResourceType, ...]

    @property
    def request(self) -> type[DeltaDiscoveryRequest | DiscoveryRequest]:
        """The message that its clients send."""
        return DeltaDiscoveryRequest if self.variant is Variant.DELTA else DiscoveryRequest


class LoadReporting(NamedTuple):
    """The method that takes load reports."""

    service: str


Method = Discovery | LoadReporting

# Full name of the service, what it serves in the names of its methods, the types, the short name.
_DISCOVERY = (
    ("envoy.service.discovery.v3.AggregatedDiscoveryService", "AggregatedResources", SEND_ORDER, "ads"),
    *(
        (name, resources, (type_,), type_.short)
        for name, resources, type_ in (
            ("envoy.service.secret.v3.SecretDiscoveryService", "Secrets", ResourceType.SECRET),
            ("envoy.service.cluster.v3.ClusterDiscoveryService", "Clusters", ResourceType.CLUSTER),
            ("envoy.service.endpoint.v3.EndpointDiscoveryService", "Endpoints", ResourceType.ENDPOINT),
            ("envoy.service.extension.v3.ExtensionConfigDiscoveryService", "ExtensionConfigs", ResourceType.EXTENSION),
            ("envoy.service.listener.v3.ListenerDiscoveryService", "Listeners", ResourceType.LISTENER),
            ("envoy.service.route.v3.ScopedRoutesDiscoveryService", "ScopedRoutes", ResourceType.SCOPED_ROUTE),
            ("envoy.service.route.v3.RouteDiscoveryService", "Routes", ResourceType.ROUTE),
        )
    ),
)


def _methods() -> Iterator[tuple[str, Mapping[str, Method]]]:
    for name, resources, types, short in _DISCOVERY:
        yield (
            name,
            {
                f"Stream{resources}": Discovery(short, Variant.SOTW, types),
                f"Delta{resources}": Discovery(short, Variant.DELTA, types),
            },
        )
    yield loads.SERVICE, {loads.METHOD: LoadReporting("lrs")}


SERVICES: Mapping[str, Mapping[str, Method]] = dict(_methods())
"""Methods by full name of their service and by their own."""
