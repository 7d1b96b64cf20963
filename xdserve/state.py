"""What the program shows of itself: gateways, Envoys, resources, conditions, errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from translator import names
from translator.objects.ref import Ref
from xds.scope import Scope
from xds.server import NodeView, Server
from xds.types import ResourceType
from xdserve.admin import Condition as ConditionEntry
from xdserve.admin import ErrorEntry, ErrorSource, RejectionEntry, StatusEntry
from xdserve.conditions import Verdict
from xdserve.judge import Judge
from xdserve.ledger import Dated, Ledger, Place
from xdserve.pipeline import Pipeline
from xdserve.printing import SECTIONS, printable
from xdserve.rejections import Rejections, Standing


class ProgramState:
    """Reads the parts of a running program; implements what the admin endpoints ask for.

    Its lists may be read with pauses: what goes meanwhile is left out.

    Args:
        pipeline, server, ledger, rejections: the parts.
        awaited: what is waited for before Envoys are served, in words; empty when they are.
        judge: says the conditions; one that knows of this replica alone if none is given.
    """

    def __init__(  # noqa: PLR0913 - what a program is made of
        self,
        pipeline: Pipeline,
        server: Server,
        ledger: Ledger,
        rejections: Rejections,
        awaited: Callable[[], str],
        *,
        judge: Judge | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._server = server
        self._ledger = ledger
        self._rejections = rejections
        self._awaited = awaited
        self._judge = judge or Judge(pipeline, server, ledger, rejections)

    def awaited(self) -> str:
        """What is waited for before Envoys are served, in words; empty when they are."""
        return self._awaited()

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
            "url": planned.service.url if planned.service else None,
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
        for ref, judgement in self._judge.judge():
            yield StatusEntry(object=str(ref), conditions=[_condition(found) for found in judgement.verdicts])


def _versions(scope: Scope, kind: ResourceType) -> Iterator[dict[str, Any]]:
    for name in sorted(scope.names(kind)):
        held = scope.get(kind, name)
        if held is not None:
            yield {"name": name, "version": held.version, "origin": str(held.origin), "resource": printable(held)}


def _condition(found: Verdict) -> ConditionEntry:
    return ConditionEntry(type=found.type, status=found.status, reason=found.reason, message=found.message)


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
