"""Make before break: what must wait for what the client said about another type.

A route configuration waits until the client has its clusters: Envoy acknowledges a cluster when it is warm,
health checks included, and answers 503 to what is routed to it before. A removal waits until nothing that the
client may run points at the name; so does the loss of a cluster's last endpoint, where the routes are to leave it.

One cluster that cannot warm withholds the ACK of all that are sent with it and after it. Once that lasts, clusters
whose assignments the client acknowledged are taken to be warm, and routes that use no other go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from xds.scope import Scope
from xds.session.substream import ABSENT, SubStream
from xds.session.table import State
from xds.session.terms import Terms
from xds.types import ResourceType
from xds.wire.resource import Resource

DOUBT = 1.0
"""Seconds after which a client that asked for assignments and not for clusters is taken to be warming some. An Envoy
that is not sends all its first requests in one go."""

GATED = (ResourceType.CLUSTER, ResourceType.ENDPOINT, ResourceType.ROUTE)
"""The types that wait for one another."""


_NOBODY: frozenset[str] = frozenset()
_NO_ROUTES = "the client to ask for routes"


class Gates:
    """The gates of one session. Times are seconds of the caller's clock.

    `linger` is how long a cluster stays after the last route to it is gone: a request that waits in a filter
    still goes there, though the new routes are acknowledged. `patience` is how long an ACK may be missing.
    """

    __slots__ = (
        "_aggregated", "_clusters", "_doubt", "_endpoints", "_late", "_linger", "_lingering", "_now", "_patience",
        "_resumed_until", "_routes", "_routes_due", "_scope", "_substreams",
    )  # fmt: skip

    def __init__(
        self, scope: Scope, substreams: Mapping[ResourceType, SubStream], terms: Terms, *, aggregated: bool
    ) -> None:
        self._scope = scope
        self._substreams = substreams
        self._clusters = substreams[ResourceType.CLUSTER]
        self._endpoints = substreams[ResourceType.ENDPOINT]
        self._routes = substreams[ResourceType.ROUTE]
        self._aggregated = aggregated
        self._linger = terms.linger
        self._lingering: dict[str, float] = {}
        self._patience = terms.patience
        self._late = _NOBODY
        self._now = 0.0
        self._resumed_until: float | None = None
        self._doubt: float | None = None
        self._routes_due: float | None = None

    # -- Time --------------------------------------------------------------------------------------------------

    def opened(self, sub: SubStream, now: float) -> None:
        """A type was asked for the first time.

        An Envoy that was warming clusters when its stream broke asks for clusters last: it holds back their
        request, as it holds back their ACK. So a client that comes with versions of an earlier stream, and not
        at once with its request for clusters, is taken to be warming:

        - routes go to it after its request for clusters, or after `linger`: one that never asks is not starved;
        - assignments that it lists as known are sent all the same, for a changed cluster waits for its own anew.

        And its request for routes comes after those for what they use: until then they may use everything. On a stream
        of one type no request for another will come, and nothing is waited for.
        """
        if not self._aggregated:
            return
        if sub is self._routes:
            self._routes_due = None
        elif sub.resumed and self._routes.state is State.UNASKED:
            self._routes_due = now + DOUBT
        if sub is self._clusters:
            self._resumed_until = self._doubt = None
        elif self._clusters.state is State.UNASKED:
            if sub is self._endpoints and sub.resumed:
                self._doubt = now + DOUBT
            if sub is self._routes and any(other.resumed for other in self._substreams.values()):
                self._resumed_until = now + self._linger

    def tick(self, now: float) -> None:
        """Time went by."""
        self._now = now
        self._late = self._late_clusters(now) if self._clusters.flights else _NOBODY
        if self._resumed_until is not None and now >= self._resumed_until:
            self._resumed_until = None
        if self._routes_due is not None and now >= self._routes_due:
            self._routes_due = None
        if self._doubt is not None and now >= self._doubt:
            self._doubt = None
            for name in list(self._endpoints.sent):
                self._endpoints.mark(name, force=True)

    def returned(self, names: Iterable[str]) -> None:
        """Clusters changed in the scope: a removal under way starts anew, if it is still wanted."""
        for name in names:
            self._lingering.pop(name, None)

    def wake_at(self) -> float | None:
        """When a gate opens by time alone."""
        removals = self._routes_due if self._clusters.dirty or self._endpoints.dirty else None
        moments = [moment for moment in (self._resumed_until, self._doubt, removals) if moment is not None]
        if self._lingering:
            clusters = self._clusters
            self._lingering = {name: until for name, until in self._lingering.items() if name in clusters.dirty}
            # What could go and did not waits for an answer, not for a time.
            moments.extend(until for until in self._lingering.values() if until > self._now)
        return min(moments) if moments else None

    # -- Routes to clusters ------------------------------------------------------------------------------------

    def holds_back(self, resource: Resource) -> bool:
        """Whether the resource must wait for another type."""
        if resource.type is ResourceType.ENDPOINT:
            return resource.vacant and self._still_needed(resource.name)
        return self._routed(resource) and (
            self._resumed_until is not None or any(self._cold(cluster) for cluster in resource.uses)
        )

    def _routed(self, resource: Resource) -> bool:
        """Whether the resource routes to clusters, and the client may not be running it already."""
        is_route = resource.type is ResourceType.ROUTE
        return is_route and not self._routes.holdings.has(resource.name, resource.version)

    def _cold(self, cluster: str) -> bool:
        """Whether the client is to get the cluster and has not acknowledged it in any version.

        Clusters that it does not subscribe to never hold anything back: no ACK would ever come.
        """
        if cluster in self._clusters.acknowledged or not self._clusters.wants(cluster):
            return False
        return self._scope.get(ResourceType.CLUSTER, cluster) is not None and not self._taken_for_warm(cluster)

    # -- A cluster that does not warm --------------------------------------------------------------------------

    def _late_clusters(self, now: float) -> frozenset[str]:
        """The clusters of responses without an answer for too long."""
        flights = [flight for flight in self._clusters.flights if now >= flight.sent_at + self._patience]
        return frozenset(name for flight in flights for name in flight.versions)

    def _taken_for_warm(self, cluster: str) -> bool:
        """Whether only another cluster can be what keeps the ACK of this one back."""
        return bool(self._late) and self._looks_warm(cluster) and cluster not in self._blamed()

    def _looks_warm(self, cluster: str) -> bool:
        """Whether the client has all that the cluster needs to be warm, as far as this server knows."""
        held, eds = self._scope.get(ResourceType.CLUSTER, cluster), self._endpoints
        pending = cluster in eds.dirty or cluster in eds.forced or eds.flying(cluster)
        told = cluster in eds.acknowledged or eds.sent.get(cluster) == ABSENT
        answered = eds.wants(cluster) and told and not pending
        # The client warms what it was sent last; another version does not tell whether that has health checks.
        warms = held is not None and self._clusters.sent.get(cluster) == held.version and not held.slow
        return answered and self._clusters.flying(cluster) and warms

    def _blamed(self) -> frozenset[str]:
        """The late clusters that cannot be warm; all of them where each looks as if it was."""
        cold = frozenset(name for name in self._late if not self._looks_warm(name))
        return cold or self._late

    # -- The last endpoint -------------------------------------------------------------------------------------

    def _still_needed(self, cluster: str) -> bool:
        """Whether the client has endpoints of a cluster that its routes lead to, and is to get routes that do not.

        A cluster that warms is never kept waiting: it has no endpoints yet, or its assignment is forced. Nor are routes
        waited for that Envoys refuse: until somebody mends them, requests would go where another may listen by now.
        """
        held = self._endpoints.holdings
        if cluster not in held or cluster in self._endpoints.forced or not self.routed_to(cluster):
            return False
        if self._scope.withholds(ResourceType.ROUTE):
            return False
        served = (self._scope.get(ResourceType.ROUTE, name) for name in self._scope.names(ResourceType.ROUTE))
        return not any(route is not None and cluster in route.uses for route in served)

    def routed_to(self, cluster: str) -> bool:
        """Whether the client may be running routes to the cluster."""
        return self._routes_due is not None or self._routes.holdings.used(cluster)

    # -- Removals ----------------------------------------------------------------------------------------------

    def keeps(self, sub: SubStream, name: str, now: float) -> bool:
        """Whether the removal of the name must wait."""
        if sub.type is ResourceType.CLUSTER:
            return self._keeps_cluster(name, now)
        if sub.type is ResourceType.ENDPOINT:
            # Asked for, or following its changed cluster: silence would stall the cluster's warming.
            return name in self._clusters.holdings and name not in sub.forced
        return False

    def _keeps_cluster(self, name: str, now: float) -> bool:
        if self.routed_to(name):
            self._lingering.pop(name, None)
            return True
        if name not in self._clusters.acknowledged:
            # No request can wait for it: routes to it were never sent. While it warms it holds back all ACKs.
            return False
        return now < self._lingering.setdefault(name, now + self._linger)

    # -- Debugging ---------------------------------------------------------------------------------------------

    def explain(self, sub: SubStream, name: str) -> str:
        """What a name that is not sent yet waits for, in words."""
        resource = self._scope.get(sub.type, name)
        if resource is None:
            return self._explain_removal(sub, name)
        if self._routed(resource) and self._resumed_until is not None:
            return "the client to ask for clusters"
        if resource.type is ResourceType.ENDPOINT and self.holds_back(resource):
            return "ACK of routes that leave it" if self._routes_due is None else _NO_ROUTES
        cold = sorted(filter(self._cold, resource.uses)) if self._routed(resource) else []
        if cold:
            late = ", which is late" if self._late.intersection(cold) else ""
            return f"ACK of cluster {', '.join(cold)}{late}"
        return "the answer to the response in flight" if sub.flights else "its turn"

    def _explain_removal(self, sub: SubStream, name: str) -> str:
        if sub.type is ResourceType.CLUSTER and (users := self._routes.holdings.users(name)):
            return "to be removed: ACK of route configuration " + ", ".join(sorted(users))
        if sub.type is ResourceType.CLUSTER and self._routes_due is not None:
            return f"to be removed: {_NO_ROUTES}"
        if sub.type is ResourceType.ENDPOINT and name in self._clusters.holdings:
            return "to be removed: ACK of its cluster's removal"
        return "to be removed: linger" if name in self._lingering else "to be removed: its turn"
