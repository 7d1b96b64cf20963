"""IPv4 and IPv6: where a gateway listens, and what its own Service has."""

from __future__ import annotations

from translator.objects.gateway import IPV4_ANY, IPV6_ANY, ServiceGateway
from translator.plan import Families
from translator.planners.endpoints import CLUSTER, FAMILIES, SERVICE_STATE, Unusable
from translator.planners.options import Options
from translator.planners.target import Target
from translator.view import View

IPV6 = "IPv6"

_SINGLE = frozenset({"", "SingleStack"})


def of_entrance(view: View, target: Target) -> Families | None:
    """The families of a gateway's own Service: those of the Service behind it; None where they are the cluster's."""
    behind = _behind(view, target)
    primary = (view.derive(FAMILIES, CLUSTER).families or behind.families)[:1]
    return None if behind.policy in _SINGLE and behind.families in {(), primary} else behind


def _behind(view: View, target: Target) -> Families:
    """The families of the Service that requests enter at."""
    entry = target.candidates.get(target.entry) or next(iter(target.candidates.values()), None)
    if entry is None:
        return Families()
    state = view.derive(SERVICE_STATE, entry.port)
    return Families() if isinstance(state, Unusable) else state.families


def address(view: View, found: ServiceGateway | None, entrance: Families | None, options: Options) -> str:
    """Where a gateway listens: as its ServiceGateway says, else the operator, else by what can reach it."""
    said = found.spec.address if found else None
    if said or options.gateway_address:
        return said or options.gateway_address or IPV4_ANY
    reached = entrance or view.derive(FAMILIES, CLUSTER)
    return IPV6_ANY if IPV6 in reached.families else IPV4_ANY
