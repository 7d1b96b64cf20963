"""The router beside a gateway's Envoy: where it listens, what it is told, and which requests it is given.

It calls the model through the gateway's own listener, at a path that is never its own: no request goes in a circle.
"""

from __future__ import annotations

from typing import NamedTuple

from translator import names
from translator.objects.policy import TrafficPolicy
from translator.objects.ref import Origin
from translator.plan import Backend, Comparison, Endpoint, Match, PathMatch, Protocol, Route, Router, Share, Split
from translator.planners.policy import Applied

PATH = "/infer"
LOOPBACK = "127.0.0.1"

_AWAY = 20_000
_LARGEST = 65_535
_MATCH = Match(path=PathMatch(Comparison.EXACT, PATH), method="POST")


class Beside(NamedTuple):
    """What a router adds to a service's plan."""

    routes: tuple[Route, ...] = ()
    backends: tuple[Backend, ...] = ()


def port(gateway: int) -> int:
    """Where the router of a gateway at this port listens: 20,000 above, or below where there is nothing above.

    So gateways on one machine have one each, none needs a privilege, and none is a pod's own for probes and admin.
    """
    return gateway + _AWAY if gateway + _AWAY <= _LARGEST else gateway - _AWAY


def planned(policy: TrafficPolicy | None, gateway: int) -> Router | None:
    """The router that a policy asks for, beside a gateway at this port."""
    if policy is None or policy.spec.router is None:
        return None
    asked = policy.spec.router
    return Router(
        model=asked.model_ref or policy.spec.target_ref.name,
        protocol=asked.protocol,
        max_concurrency=asked.max_concurrency,
        overflow=asked.overflow,
        kv_endpoints=asked.kv_endpoints,
        port=port(gateway),
    )


def beside(router: Router | None, accepted: TrafficPolicy | None, applied: Applied) -> Beside:
    """The route to the router of the policy in force, with the default route's timeouts, and the backend that it is."""
    if router is None or accepted is None:
        return Beside()
    origin = Origin(accepted.ref, "spec.router")
    here = Endpoint("", LOOPBACK, router.port)
    backend = Backend(names.ROUTER, Protocol.HTTP, here, applied.connect_timeout, origin)
    *_, default = applied.rules
    route = Route("router", _MATCH, Split((Share(names.ROUTER, 1),)), default.timeouts, origin)
    return Beside((route,), (backend,))
