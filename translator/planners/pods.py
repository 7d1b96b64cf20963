"""What a gateway's pods are to be: as its ServiceGateway says, and with the router that a policy asks for."""

from __future__ import annotations

from translator.objects.gateway import Amounts, ServiceGateway
from translator.objects.gateway import Resources as Given
from translator.plan import Amounts as PlannedAmounts
from translator.plan import Families, Pods, Resources, Router


def pods(gateway: ServiceGateway | None, router: Router | None, families: Families | None) -> Pods:
    """The pods of a gateway; what nobody says is the operator's."""
    if gateway is None:
        return Pods(router=router, families=families)
    given = gateway.spec.resources
    return Pods(gateway.spec.replicas, None if given is None else _resources(given), router, families)


def _resources(given: Given) -> Resources:
    return Resources(_amounts(given.requests), _amounts(given.limits))


def _amounts(given: Amounts) -> PlannedAmounts:
    named = {"cpu": given.cpu, "memory": given.memory}
    return tuple((name, quantity) for name, quantity in named.items() if quantity is not None)
