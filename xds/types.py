"""The resource types served, what is particular to each, and the one order in which changes of them are sent.

Make before break: what is pointed at goes before what points at it (the xDS specification, "Eventual
consistency considerations"); removals go the other way.
"""

from __future__ import annotations

from enum import StrEnum

TYPE_URL_PREFIX = "type.googleapis.com/"


class ResourceType(StrEnum):
    """A resource type: equal to its type URL; the order of the members is the order of sending."""

    SECRET = TYPE_URL_PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
    CLUSTER = TYPE_URL_PREFIX + "envoy.config.cluster.v3.Cluster"
    ENDPOINT = TYPE_URL_PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
    EXTENSION = TYPE_URL_PREFIX + "envoy.config.core.v3.TypedExtensionConfig"
    LISTENER = TYPE_URL_PREFIX + "envoy.config.listener.v3.Listener"
    SCOPED_ROUTE = TYPE_URL_PREFIX + "envoy.config.route.v3.ScopedRouteConfiguration"
    ROUTE = TYPE_URL_PREFIX + "envoy.config.route.v3.RouteConfiguration"

    @property
    def short(self) -> str:
        """The name of the type's discovery service, for logs, metrics and debug output."""
        return _SHORT[self]

    @property
    def wildcard(self) -> bool:
        """Whether an empty first subscribe means `*` (the xDS specification, "How the client specifies")."""
        return self in _WILDCARD

    @property
    def full_state(self) -> bool:
        """Whether a state-of-the-world response lists all that the client is to have: names left out are removed."""
        return self in _FULL_STATE

    @property
    def says_absent(self) -> bool:
        """Whether a client is told that a name it asked for does not exist.

        Envoy refuses an empty answer for secrets, and takes an extension's for its removal; both wait in silence.
        """
        return self not in _SILENT


_SHORT = {
    ResourceType.SECRET: "sds",
    ResourceType.CLUSTER: "cds",
    ResourceType.ENDPOINT: "eds",
    ResourceType.EXTENSION: "ecds",
    ResourceType.LISTENER: "lds",
    ResourceType.SCOPED_ROUTE: "srds",
    ResourceType.ROUTE: "rds",
}
_WILDCARD = frozenset({ResourceType.CLUSTER, ResourceType.LISTENER, ResourceType.SCOPED_ROUTE})
_FULL_STATE = frozenset({ResourceType.CLUSTER, ResourceType.LISTENER, ResourceType.SCOPED_ROUTE})
_SILENT = frozenset({ResourceType.SECRET, ResourceType.EXTENSION})

SEND_ORDER = tuple(ResourceType)
REMOVE_ORDER = SEND_ORDER[::-1]
