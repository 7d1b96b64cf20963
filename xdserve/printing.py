"""Resources as Envoy's own configuration has them: plain data, field names as in the protobuf files."""

from __future__ import annotations

from typing import Any

from betterproto2 import Casing, Message

from xds.api.envoy.config.cluster.v3 import Cluster
from xds.api.envoy.config.core.v3 import TypedExtensionConfig
from xds.api.envoy.config.endpoint.v3 import ClusterLoadAssignment
from xds.api.envoy.config.listener.v3 import Listener
from xds.api.envoy.config.route.v3 import RouteConfiguration, ScopedRouteConfiguration
from xds.api.envoy.extensions.transport_sockets.tls.v3 import Secret
from xds.types import ResourceType
from xds.wire import Resource, decode

CLASSES: dict[ResourceType, type[Message]] = {
    ResourceType.SECRET: Secret,
    ResourceType.CLUSTER: Cluster,
    ResourceType.ENDPOINT: ClusterLoadAssignment,
    ResourceType.EXTENSION: TypedExtensionConfig,
    ResourceType.LISTENER: Listener,
    ResourceType.SCOPED_ROUTE: ScopedRouteConfiguration,
    ResourceType.ROUTE: RouteConfiguration,
}

SECTIONS = {
    ResourceType.CLUSTER: "clusters",
    ResourceType.ENDPOINT: "endpoints",
    ResourceType.LISTENER: "listeners",
    ResourceType.ROUTE: "routes",
}
"""What people call the resources of a type."""

NOUNS = {
    ResourceType.SECRET: "secret",
    ResourceType.CLUSTER: "cluster",
    ResourceType.ENDPOINT: "endpoints",
    ResourceType.EXTENSION: "extension",
    ResourceType.LISTENER: "listener",
    ResourceType.SCOPED_ROUTE: "scoped routes",
    ResourceType.ROUTE: "routes",
}
"""What people call one resource of a type."""


def printable(resource: Resource) -> dict[str, Any]:
    """One resource as plain data."""
    return decode(CLASSES[resource.type], resource.body).to_dict(casing=Casing.SNAKE)
