"""The resource types served, and the one order in which changes of them are sent.

Make before break: what is pointed at goes before what points at it (the xDS specification, "Eventual
consistency considerations"); removals go the other way.
"""

from __future__ import annotations

from enum import StrEnum

TYPE_URL_PREFIX = "type.googleapis.com/"


class ResourceType(StrEnum):
    """A resource type: equal to its type URL; the order of the members is the order of sending."""

    CLUSTER = TYPE_URL_PREFIX + "envoy.config.cluster.v3.Cluster"
    ENDPOINT = TYPE_URL_PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
    LISTENER = TYPE_URL_PREFIX + "envoy.config.listener.v3.Listener"
    ROUTE = TYPE_URL_PREFIX + "envoy.config.route.v3.RouteConfiguration"

    @property
    def short(self) -> str:
        """The name of the type's discovery service, for logs, metrics and debug output."""
        return _SHORT[self]

    @property
    def wildcard(self) -> bool:
        """Whether an empty first subscribe means `*` (the xDS specification, "How the client specifies")."""
        return self in _WILDCARD


_SHORT = {
    ResourceType.CLUSTER: "cds",
    ResourceType.ENDPOINT: "eds",
    ResourceType.LISTENER: "lds",
    ResourceType.ROUTE: "rds",
}
_WILDCARD = frozenset({ResourceType.CLUSTER, ResourceType.LISTENER})

SEND_ORDER = tuple(ResourceType)
REMOVE_ORDER = SEND_ORDER[::-1]
