"""Whether the Envoys of a gateway listen where it is to listen: what they have acknowledged, to whichever replica."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from translator import names
from translator.objects.ref import Origin, Ref
from xds.api.envoy.config.listener.v3 import Listener
from xds.scope import Scope
from xds.server import Consent
from xds.types import ResourceType
from xds.wire import Resource, decode
from xdserve.conditions import Delivery, Progress, digest


class Acknowledging(Protocol):
    """Knows what gateways are to have, and what Envoys have taken; `xds.server.Server`."""

    def scope(self, gateway: str) -> Scope | None:
        """What a gateway is to have."""

    def acknowledged(self, gateway: str, type_: ResourceType, name: str, version: str) -> Consent:
        """How many of the gateway's Envoys that are connected here have a version."""


class Listening:
    """Asks the server, and what other replicas say.

    Args:
        server: of this replica.
        elsewhere: what other replicas say of a gateway.
    """

    def __init__(self, server: Acknowledging, elsewhere: Callable[[str], Sequence[Delivery]]) -> None:
        self._server, self._elsewhere = server, elsewhere

    def at(self, target: Ref, port: int) -> bool:
        """Whether there are Envoys of a target's gateway, and all have taken the listener that is planned there.

        While none is connected that is not known: those that run may be on their way back.
        """
        gateway = names.gateway(target)
        scope = self._server.scope(gateway)
        listener = scope.wanted(ResourceType.LISTENER, names.LISTENER) if scope else None
        if scope is None or listener is None or _port(listener) != port:
            return False
        others = [one for one in self._elsewhere(gateway) if one.progress is not Progress.ABSENT]
        here = digest(scope)
        if any(_refuses(one, listener.origin) for one in others if one.digest == here):
            return False
        match self._server.acknowledged(gateway, ResourceType.LISTENER, names.LISTENER, listener.version):
            case Consent.ALL:
                return True
            case Consent.NO_ENVOY:
                done = [one.digest == here and one.progress is Progress.DONE for one in others]
                return bool(done) and all(done)
        return False


def _port(listener: Resource) -> int:
    address = decode(Listener, listener.body).address
    return (address.socket_address.port_value or 0) if address and address.socket_address else 0


def _refuses(delivery: Delivery, origin: object) -> bool:
    """Whether Envoys refuse what comes from the object that the listener comes from."""
    return isinstance(origin, Origin) and any(line.object == origin.object for line in delivery.refused)
