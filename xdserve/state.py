"""What the program shows of itself: gateways, Envoys, resources, conditions, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from translator import names
from translator.objects import Object
from translator.objects.gateway import ServiceGateway
from translator.objects.policy import TrafficPolicy
from translator.objects.ref import Ref
from translator.plan import Condition
from translator.planners.indexes import Attached, target_of
from xds.scope import Scope
from xds.server import Consent, NodeView, Server
from xds.types import ResourceType
from xdserve.admin import Condition as ConditionEntry
from xdserve.admin import ErrorEntry, ErrorSource, RejectionEntry, StatusEntry
from xdserve.ledger import Dated, Entry, Ledger, Place
from xdserve.pipeline import TARGET_KINDS, Pipeline
from xdserve.printing import SECTIONS, printable
from xdserve.rejections import Rejections, Standing

GATEWAY_PROGRAMMED = "xdserve.io/GatewayProgrammed"
"""The condition on objects of other projects, which have conditions of their own."""

_SHOWN_KINDS = TARGET_KINDS | {TrafficPolicy.KIND, ServiceGateway.KIND}

PENDING, REJECTED, NO_GATEWAY = "Pending", "Rejected", "NoGateway"


class ProgramState:
    """Reads the parts of a running program; implements what the admin endpoints ask for.

    Its lists may be read with pauses: what goes meanwhile is left out.

    Args:
        pipeline, server, ledger, rejections: the parts.
        is_ready: whether the sources are read and the first pass is done.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        server: Server,
        ledger: Ledger,
        rejections: Rejections,
        is_ready: Callable[[], bool],
    ) -> None:
        self._pipeline = pipeline
        self._server = server
        self._ledger = ledger
        self._rejections = rejections
        self._is_ready = is_ready

    def ready(self) -> bool:
        """Whether the sources are read and the first pass is done."""
        return self._is_ready()

    def gateways(self) -> Iterator[dict[str, Any]]:
        """Every gateway that has a target: what it serves, where it listens, how many Envoys it has, its load."""
        owners = self._pipeline.owners
        return (self._gateway(name, owners[name]) for name in sorted(owners) if name in owners)

    def _gateway(self, name: str, target: Ref) -> dict[str, Any]:
        planned = self._pipeline.units[target].planned
        scope = self._server.scope(name)
        return {
            "name": name,
            "target": str(target),
            "policy": str(planned.accepted.ref) if planned.accepted else None,
            "address": f"{planned.gateway.address}:{planned.gateway.port}" if planned.gateway else None,
            "connected": self._server.connected(name),
            "resources": {SECTIONS[kind]: len(scope.names(kind)) if scope else 0 for kind in SECTIONS},
            "loads": {names.backend(cluster): load for cluster, load in self._server.loads.reports(name).items()},
        }

    def nodes(self) -> Iterator[NodeView]:
        """Every connected Envoy."""
        return self._server.views()

    def resources(self, gateway: str) -> dict[str, list[dict[str, Any]]] | None:
        """What a gateway is to have, by type, each with its version and where it comes from."""
        scope = self._server.scope(gateway)
        if scope is None:
            return None
        return {section: list(_versions(scope, kind)) for kind, section in SECTIONS.items()}

    def errors(self) -> Iterator[ErrorEntry]:
        """All that is not as its user wants it now, the oldest first."""
        return map(_error, self._ledger)

    def rejections(self) -> Iterator[RejectionEntry]:
        """All that Envoys refuse now, by gateway."""
        return (_rejection(one, self._rejections.place(one)) for one in self._rejections)

    def retry(self, gateway: str) -> int | None:
        """Forget what Envoys refused of the gateway, so that it is sent once more: how many versions."""
        return None if self._server.scope(gateway) is None else self._server.retry(gateway)

    def status(self) -> Iterator[StatusEntry]:
        """The conditions of every object that has some."""
        entries = self._ledger.by_object()
        shown = {found.ref: found for found in self._pipeline.objects if found.KIND in _SHOWN_KINDS}
        # Ten thousand joined texts are compared in a third of the time that tuples take.
        for ref in sorted(shown.keys() | entries.keys(), key="\0".join):
            found = shown.get(ref)
            conditions = self._conditions(found, entries) if found else list(_said(entries[ref]))
            yield StatusEntry(object=str(ref), conditions=conditions)

    def _conditions(self, found: Object, entries: dict[Ref, list[Entry]]) -> list[ConditionEntry]:
        said = entries.get(found.ref, [])
        if not isinstance(found, Attached):
            against = _against(said, Condition.PROGRAMMED)
            return [*_said(said), _condition(GATEWAY_PROGRAMMED, *(against or self._programmed(found.ref)))]
        target = target_of(found)
        against = _against([*said, *entries.get(target, [])], Condition.PROGRAMMED)
        if against is None and _against(said, Condition.ACCEPTED):
            against = PENDING, "not accepted, so not in force"
        programmed = against or self._programmed(target)
        return [*_said(said), _condition(Condition.PROGRAMMED.value, *programmed)]

    def _programmed(self, target: Ref) -> tuple[str, str]:
        """The reason and message of whether the target's Envoys have what its gateway is to have."""
        gateway = names.gateway(target)
        scope = self._server.scope(gateway)
        if self._pipeline.owners.get(gateway) != target or scope is None:
            return NO_GATEWAY, f"{target} has no gateway"
        if rejections := self._rejections.of(gateway):
            return REJECTED, "; ".join(one.message for one in rejections)
        connected = self._server.connected(gateway)
        if not connected:
            return NO_GATEWAY, f"no Envoy of {gateway} is connected"
        waiting = sum(
            self._server.acknowledged(gateway, held.type, held.name, held.version) is not Consent.ALL
            for held in scope.resources()
        )
        if waiting:
            return PENDING, f"{waiting} resources are not acknowledged by all {connected} Envoys yet"
        return Condition.PROGRAMMED.value, f"acknowledged by all {connected} Envoys"


def _versions(scope: Scope, kind: ResourceType) -> Iterator[dict[str, Any]]:
    for name in sorted(scope.names(kind)):
        held = scope.get(kind, name)
        if held is not None:
            yield {"name": name, "version": held.version, "origin": str(held.origin), "resource": printable(held)}


def _said(entries: list[Entry]) -> Iterator[ConditionEntry]:
    """Accepted and ResolvedRefs: true unless something is said against them."""
    for condition in (Condition.ACCEPTED, Condition.RESOLVED_REFS):
        against = _against(entries, condition)
        if against is None:
            yield ConditionEntry(type=condition.value, status="True", reason=condition.value, message="")
        else:
            yield ConditionEntry(type=condition.value, status="False", reason=against[0], message=against[1])


def _against(entries: list[Entry], condition: Condition) -> tuple[str, str] | None:
    """The reason and message of what is said against a condition, if anything is."""
    said = [entry for entry in entries if entry.condition is condition]
    return (said[0].reason, "; ".join(f"{entry.field}: {entry.message}" for entry in said)) if said else None


def _condition(kind: str, reason: str, message: str) -> ConditionEntry:
    status = "True" if reason == Condition.PROGRAMMED.value else "False"
    return ConditionEntry(type=kind, status=status, reason=reason, message=message)


def _error(dated: Dated) -> ErrorEntry:
    entry = dated.entry
    return ErrorEntry(
        source=_source(dated.place),
        object=None if entry.object is None else str(entry.object),
        field=entry.field,
        reason=entry.reason,
        message=entry.message,
        since=_time(dated.since),
    )


def _rejection(one: Standing, place: Place | None) -> RejectionEntry:
    found = one.rejection
    return RejectionEntry(
        gateway=one.gateway,
        type=found.type.short,
        name=found.name,
        version=found.refusal.version,
        served=found.served,
        cause=found.refusal.cause.value,
        node=one.node,
        code=found.refusal.code,
        message=one.words,
        since=_time(one.since),
        object=str(one.origin.object) if one.origin else None,
        field=one.origin.field if one.origin else None,
        source=_source(place),
    )


def _source(place: Place | None) -> ErrorSource | None:
    return None if place is None else {"file": place.file, "document": place.document}


def _time(when: datetime) -> str:
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
