"""The delta protocol of one aggregated stream, without I/O: requests in, responses and events out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest
from xds.scope import Changes, Scope
from xds.session.events import (
    Acknowledged,
    Event,
    ProtocolError,
    Refusal,
    Rejected,
    Response,
    Stale,
    Subscribed,
    TypeView,
    UnknownType,
)
from xds.session.gates import Gates
from xds.session.substream import ABSENT, WILDCARD, Flight, SubStream
from xds.session.table import Action, Signal, State
from xds.types import REMOVE_ORDER, SEND_ORDER, ResourceType
from xds.wire.resource import Resource, delta_response

RESPONSE_LIMIT = 2 * 1024 * 1024
"""Bytes of resources in one response; a delta response may be split, one resource may not."""


MOST_NAMES = 100_000
"""Names of one type that a client may ask for at once; each is remembered for as long as its stream lasts."""


@dataclass(slots=True)
class _Batch:
    """What one type could send now: resources, answers about names that the client lacks, removals."""

    put: list[Resource] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    size: int = 0


class DeltaSession:
    """One stream of one client over one scope. Time is an argument: seconds of the caller's clock.

    Call `receive` for each request, `mark` when the scope changed, then `next` (or `respond`) until nothing is
    left to send, and again at `wake_at`. What changes meanwhile is sent once, in its last version.

    Args:
        scope: what the client is to have; the caller updates it and calls `mark` with what it returned.
        linger: seconds that a cluster stays after the routes to it are gone.
        identifier: name of this control plane, told to the client in each response.
        prefix: start of every nonce of this stream.
        limit: bytes of resources in one response.
    """

    __slots__ = ("_count", "_gates", "_identifier", "_limit", "_prefix", "_scope", "_substreams", "node")

    def __init__(
        self, scope: Scope, *, linger: float, identifier: str, prefix: str = "", limit: int = RESPONSE_LIMIT
    ) -> None:
        self.node: Node | None = None
        """Who the client is, from its first request; later ones need not repeat it, and cannot change it."""
        self._scope = scope
        self._identifier = identifier
        self._prefix = prefix
        self._limit = limit
        self._count = 0
        self._substreams = {type_: SubStream(type_) for type_ in SEND_ORDER}
        self._gates = Gates(scope, self._substreams, linger)

    # -- Requests ----------------------------------------------------------------------------------------------

    def receive(self, request: DeltaDiscoveryRequest, now: float) -> list[Event]:
        """Take a request; say what it meant.

        Raises:
            ProtocolError: the request names no type, or too many names; the stream is to end.
        """
        if self.node is None:
            self.node = request.node
        if not request.type_url:
            raise ProtocolError("INVALID_ARGUMENT", "type_url is missing: an aggregated stream needs it")
        try:
            sub = self._substreams[ResourceType(request.type_url)]
        except ValueError:
            return [UnknownType(type_url=request.type_url)]
        if len(sub.names) + len(request.resource_names_subscribe) > MOST_NAMES:
            raise ProtocolError("RESOURCE_EXHAUSTED", f"more than {MOST_NAMES} names of a type on one stream")
        signal = sub.signal(request)
        events = self._act(sub, sub.step(signal), request, now)
        return [Stale(type=sub.type, nonce=request.response_nonce), *events] if signal is Signal.STALE else events

    def _act(self, sub: SubStream, action: Action, request: DeltaDiscoveryRequest, now: float) -> list[Event]:
        if action is Action.OPEN:
            sub.open(request, self._scope)
            self._gates.opened(sub, now)
            return [_subscribed(sub, request, first=True)]
        events: list[Event] = []
        if action is Action.ACKNOWLEDGE:
            events.append(_acknowledged(sub.type, sub.acknowledge(), now))
        elif action is Action.REJECT:
            events.append(_reject(sub, request, now))
        sub.honour(request, self._scope)
        if request.resource_names_subscribe or request.resource_names_unsubscribe:
            events.append(_subscribed(sub, request, first=False))
        return events

    # -- Changes -----------------------------------------------------------------------------------------------

    def mark(self, changes: Changes) -> None:
        """The scope changed; costs as much as changed."""
        for type_, names in changes.items():
            sub = self._substreams[type_]
            for name in names:
                sub.mark(name)
            if type_ is ResourceType.CLUSTER:
                self._gates.returned(names)

    # -- Responses ---------------------------------------------------------------------------------------------

    def respond(self, now: float) -> list[Response]:
        """All responses that may go now, in the order to send them."""
        return list(self._responses(now))

    def _responses(self, now: float) -> Iterator[Response]:
        while response := self.next(now):
            yield response

    def next(self, now: float) -> Response | None:
        """The response to send first, or None while everything is sent or waits.

        Resources go in send order. A type's removals ride with its resources where both may go (a listener's
        address can be taken over only then); removals alone come last, in their own order.
        """
        self._gates.tick(now)
        removals: dict[ResourceType, _Batch] = {}
        for sub in self._ready():
            batch = self._collect(sub, now)
            if batch.put or batch.absent or sub.owed:
                return self._send(sub, batch, now)
            if batch.removed:
                removals[sub.type] = batch
        for type_ in REMOVE_ORDER:
            if type_ in removals:
                return self._send(self._substreams[type_], removals[type_], now)
        return None

    def wake_at(self) -> float | None:
        """The moment when `next` may have something though nothing else happened."""
        return self._gates.wake_at()

    def _ready(self) -> Iterator[SubStream]:
        return (sub for sub in self._substreams.values() if sub.idle() and (sub.dirty or sub.owed))

    def _collect(self, sub: SubStream, now: float) -> _Batch:
        batch = _Batch()
        for name in sorted(sub.dirty):
            if batch.size >= self._limit:
                break
            resource = self._scope.get(sub.type, name)
            if resource is None:
                self._collect_gone(sub, name, batch, now)
            elif not sub.due(name, resource.version):
                sub.settle(name)
            elif batch.size and batch.size + len(resource.frame) > self._limit:
                break
            elif not self._gates.holds_back(resource):
                batch.put.append(resource)
                batch.size += len(resource.frame)
        return batch

    def _collect_gone(self, sub: SubStream, name: str, batch: _Batch, now: float) -> None:
        """A name that the scope does not have: removed if the client may have it, else said to be absent."""
        told = sub.sent.get(name) == ABSENT and name not in sub.forced
        if name in sub.holdings and not told:
            if self._gates.keeps(sub, name, now):
                return
            batch.removed.append(name)
        elif name in sub.forced or (name in sub.names and name not in sub.sent):
            batch.absent.append(name)
        else:
            sub.settle(name)
            return
        batch.size += len(name)

    def _send(self, sub: SubStream, batch: _Batch, now: float) -> Response:
        self._count += 1
        nonce = f"{self._prefix}{self._count}"
        gone = batch.absent + batch.removed
        sub.record(nonce, batch.put, gone, now)
        if sub.type is ResourceType.CLUSTER:
            self._follow(batch.put, gone)
        return Response(
            type=sub.type,
            nonce=nonce,
            frame=delta_response(sub.type, nonce, batch.put, gone, self._identifier),
            resources=len(batch.put),
            removed=len(gone),
        )

    def _follow(self, put: list[Resource], gone: list[str]) -> None:
        """Send assignments again after their clusters: Envoy waits for them and does not ask again."""
        endpoints = self._substreams[ResourceType.ENDPOINT]
        for cluster in put:
            endpoints.mark(cluster.name, force=True)
        if endpoints.state is State.UNASKED:
            endpoints.forced.difference_update(gone)

    # -- Questions ---------------------------------------------------------------------------------------------

    def acknowledged(self, type_: ResourceType, name: str) -> str | None:
        """The version of the resource that the client last said it has."""
        return self._substreams[type_].acknowledged.get(name)

    def view(self) -> list[TypeView]:
        """The state of each type, for debug output."""
        return [self._view(sub) for sub in self._substreams.values()]

    def _view(self, sub: SubStream) -> TypeView:
        return TypeView(
            type=sub.type,
            asked=sub.state is not State.UNASKED,
            wildcard=sub.wildcard,
            subscribed=len(sub.names),
            sent=dict(sub.sent),
            acknowledged=dict(sub.acknowledged),
            rejected=self._refusals(sub),
            in_flight=sub.flight.nonce if sub.flight else None,
            waiting={name: self._gates.explain(sub, name) for name in sorted(sub.dirty)},
        )

    def _refusals(self, sub: SubStream) -> dict[str, Refusal]:
        """What the client refused of what it is to have now."""
        wanted = ((name, self._scope.get(sub.type, name)) for name in sub.refusals)
        found = ((name, sub.refusals[name].get(one.version)) for name, one in wanted if one)
        return {name: refusal for name, refusal in found if refusal}


def _subscribed(sub: SubStream, request: DeltaDiscoveryRequest, *, first: bool) -> Subscribed:
    names = frozenset(request.resource_names_subscribe)
    if first and sub.wildcard:
        names |= {WILDCARD}
    dropped = frozenset(request.resource_names_unsubscribe)
    return Subscribed(type=sub.type, first=first, names=names, dropped=dropped)


def _acknowledged(type_: ResourceType, flight: Flight, now: float) -> Acknowledged:
    return Acknowledged(
        type=type_,
        nonce=flight.nonce,
        versions=flight.versions,
        removed=frozenset(flight.removed),
        seconds=now - flight.sent_at,
    )


def _reject(sub: SubStream, request: DeltaDiscoveryRequest, now: float) -> Rejected:
    error = request.error_detail
    code, message = (error.code, error.message) if error else (0, "")
    flight = sub.reject(code, message)
    return Rejected(
        type=sub.type,
        nonce=flight.nonce,
        versions=flight.versions,
        removed=frozenset(flight.removed),
        seconds=now - flight.sent_at,
        code=code,
        message=message,
    )
