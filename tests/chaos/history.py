"""What was right when: which process may answer a request of a kind, by all that was written so far."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

KINDS = ("plain", "tester", "beta", "component")
"""Requests that a rule may treat in its own way; the last goes to the host of the predictor itself."""

MARGIN = 0.5
"""Seconds that workers may take to see what the main thread of Envoy has acknowledged."""


@dataclass(slots=True)
class Version:
    """What the files say from one write to the next.

    `routes`: backends by kind of request; `endpoints`: names of processes by backend; `edition`: which policy it is,
    where its answers tell.
    """

    since: float
    routes: dict
    endpoints: dict
    edition: str
    until: float = math.inf


class History:
    """All versions, and the moments when Envoy surely had the newest of them."""

    def __init__(self):
        self.versions = []
        self.settled = []

    def record(self, routes, endpoints, edition, now):
        """A file is about to be written; the version before may be believed until `written`."""
        self.versions.append(Version(now, routes, endpoints, edition))

    def written(self, now):
        if len(self.versions) > 1:
            self.versions[-2].until = now

    def settle(self, now):
        """Both servers and the Envoy have the newest version: none before it can come back."""
        self.settled.append(now)

    def staleness(self, request):
        """How long ago the newest versions by which the answer is right were over; inf if none is.

        Routes may be of one version and endpoints of another: they travel apart.
        """
        floor = max((moment for moment in self.settled if moment + MARGIN < request.sent), default=-math.inf)
        newest_first = reversed(self.versions)
        alive = [one for one in newest_first if one.until > floor and one.since <= request.answered]
        routed = [one for one in alive if request.edition in {"", one.edition}]
        best = math.inf
        for routes, places in product(routed, alive):
            age = max(request.sent - routes.until, request.sent - places.until, 0.0)
            if age < best and _allows(routes, places, request):
                best = age
                if not age:
                    break
        return best


def _allows(routes, places, request):
    return any(request.variant in places.endpoints.get(name, ()) for name in routes.routes[request.kind])
