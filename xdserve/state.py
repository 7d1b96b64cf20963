"""What the program shows of itself: gateways, Envoys, resources, conditions, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from translator import names
from translator.objects import Object
from translator.objects.ref import Ref
from translator.plan import Condition
from translator.planners.indexes import Attached, target_of
from xds.scope import Scope
from xds.server import Consent, NodeView, Server
from xds.types import ResourceType
from xdserve.admin import Condition as ConditionEntry
from xdserve.admin import ErrorEntry, StatusEntry
from xdserve.ledger import Dated, Entry, Ledger, rejected
from xdserve.pipeline import TARGET_KINDS, Pipeline
from xdserve.printing import SECTIONS, printable

GATEWAY_PROGRAMMED = "xdserve.io/GatewayProgrammed"
"""The condition on objects of other projects, which have conditions of their own."""

PENDING, REJECTED, NO_GATEWAY = "Pending", "Rejected", "NoGateway"


class ProgramState:
    """Reads the parts of a running program; implements what the admin endpoints ask for."""

    def __init__(self, pipeline: Pipeline, server: Server, ledger: Ledger, is_ready: Callable[[], bool]) -> None:
        self._pipeline = pipeline
        self._server = server
        self._ledger = ledger
        self._is_ready = is_ready

    def ready(self) -> bool:
        """Whether the sources are read and the first pass is done."""
        return self._is_ready()

    def gateways(self) -> list[dict[str, Any]]:
        """Every gateway that has a target: what it serves, where it listens, how many Envoys it has."""
        return [self._gateway(name, target) for name, target in sorted(self._pipeline.owners.items())]

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
        }

    def nodes(self) -> list[NodeView]:
        """Every connected Envoy."""
        return self._server.nodes()

    def resources(self, gateway: str) -> dict[str, list[dict[str, Any]]] | None:
        """What a gateway is to have, by type, each with its version and where it comes from."""
        scope = self._server.scope(gateway)
        if scope is None:
            return None
        return {section: list(_versions(scope, kind)) for kind, section in SECTIONS.items()}

    def errors(self) -> list[ErrorEntry]:
        """All that is not as its user wants it now, the oldest first."""
        return [_error(dated) for dated in sorted(self._ledger, key=lambda dated: dated.since)]

    def status(self) -> list[StatusEntry]:
        """The conditions of every object that has some."""
        entries: dict[Ref, list[Entry]] = {}
        for dated in self._ledger:
            if dated.entry.object is not None:
                entries.setdefault(dated.entry.object, []).append(dated.entry)
        shown = {found.ref: self._conditions(found, entries) for found in self._shown()}
        for ref, said in entries.items():
            if ref not in shown:
                shown[ref] = list(_said(said))
        return [StatusEntry(object=str(ref), conditions=shown[ref]) for ref in sorted(shown)]

    def _shown(self) -> Iterator[Object]:
        return (found for found in self._pipeline.objects if found.KIND in TARGET_KINDS or isinstance(found, Attached))

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
        if rejections := self._server.rejections(gateway):
            return REJECTED, "; ".join(map(rejected, rejections))
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
        source=None if dated.place is None else {"file": dated.place.file, "document": dated.place.document},
        object=None if entry.object is None else str(entry.object),
        field=entry.field,
        reason=entry.reason,
        message=entry.message,
        since=dated.since.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    )
