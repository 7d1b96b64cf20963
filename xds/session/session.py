"""One stream without I/O: requests in, responses and events out; delta and state of the world on the same core."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from xds.api.envoy.config.core.v3 import Node
from xds.scope import Changes, Scope
from xds.session.events import (
    Acknowledged,
    Event,
    Overdue,
    ProtocolError,
    Rejected,
    Response,
    Stale,
    Subscribed,
    TypeView,
    UnknownType,
)
from xds.session.gates import GATED, Gates
from xds.session.requests import LONGEST_NAME, MOST_NAMES, Ask, Request, ask
from xds.session.sotw import SotwSubStream
from xds.session.substream import ABSENT, WILDCARD, Flight, OfNames, SubStream
from xds.session.table import Action, Signal, State
from xds.session.terms import Terms
from xds.types import REMOVE_ORDER, SEND_ORDER, ResourceType
from xds.wire.resource import Resource

Refusals = dict[ResourceType, OfNames]
"""What a client refused, by type."""

REFUSALS_KEPT = 8
"""Refused versions of a name that are remembered of a client."""


class Variant(StrEnum):
    """How a stream speaks (the xDS specification, "Variants of the xDS Transport Protocol")."""

    DELTA = "delta"
    SOTW = "sotw"


_BY_URL: dict[str, ResourceType] = {type_.value: type_ for type_ in ResourceType}
_SUBSTREAMS = {Variant.DELTA: SubStream, Variant.SOTW: SotwSubStream}
_ANSWERS_OF_LAST = {Signal.ACK_OF_SOME: Signal.ACK, Signal.NACK_OF_SOME: Signal.NACK}


@dataclass(slots=True)
class _Batch:
    """What one type could send now: resources, answers about names that the client lacks, removals."""

    put: list[Resource] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    size: int = 0


class Session:
    """One stream of one client over one scope. Time is an argument: seconds of the caller's clock.

    Call `receive` for each request, `mark` when the scope changed, then `next` until nothing is left
    to send, and again at `wake_at`. What changes meanwhile is sent once, in its last version.

    Args:
        scope: what the client is to have; the caller updates it and calls `mark` with what it returned.
        terms: what all sessions have in common.
        variant: how the stream speaks.
        types: what may be asked for: all of an aggregated stream, one of another.
        prefix: start of every nonce of this stream.
        refusals: what the client refused on earlier streams; the session keeps it up to date.
    """

    __slots__ = (
        "_count",
        "_gates",
        "_prefix",
        "_scope",
        "_substreams",
        "_terms",
        "node",
        "refusals",
        "types",
        "variant",
    )

    def __init__(  # noqa: PLR0913 - what a stream is
        self,
        scope: Scope,
        terms: Terms,
        *,
        variant: Variant = Variant.DELTA,
        types: Collection[ResourceType] = SEND_ORDER,
        prefix: str = "",
        refusals: Refusals | None = None,
    ) -> None:
        self.node: Node | None = None
        """Who the client is, from its first request; later ones need not repeat it, and cannot change it."""
        self.refusals: Refusals = {} if refusals is None else refusals
        self.variant = variant
        self.types = types
        self._scope = scope
        self._terms = terms
        self._prefix = prefix
        self._count = 0
        self._substreams: dict[ResourceType, SubStream] = {}
        for type_ in GATED:
            self._substream(type_)
        self._gates = Gates(scope, self._substreams, terms, aggregated=len(types) > 1)
        if isinstance(clusters := self._substreams[ResourceType.CLUSTER], SotwSubStream):
            clusters.needed = self._gates.routed_to

    # -- Requests ----------------------------------------------------------------------------------------------

    def receive(self, request: Request, now: float) -> list[Event]:
        """Take a request; say what it meant.

        Raises:
            ProtocolError: the request names no type, a type of another service, another gateway, or too many names;
                the stream is to end.
        """
        asked = ask(request)
        self._check_node(asked.node)
        type_ = self._type(asked)
        if type_ is None:
            return [UnknownType(type_url=asked.type_url)]
        sub = self._substream(type_)
        self._check_names(sub, asked)
        signal = sub.signal(asked)
        events = self._supersede(sub, signal, asked, now)
        if len(sub.flights) == 1:
            signal = _ANSWERS_OF_LAST.get(signal, signal)
        events += self._act(sub, sub.step(signal), asked, now)
        return [Stale(type=sub.type, nonce=asked.nonce), *events] if signal is Signal.STALE else events

    def _supersede(self, sub: SubStream, signal: Signal, asked: Ask, now: float) -> list[Event]:
        """What the answer says of responses before its own. Of a NACK of its own nobody knows: they are sent anew."""
        before = sub.superseded(asked)
        events: list[Event] = []
        for nonce in before:
            taken = not asked.error or sub.took_earlier(asked, nonce)
            sub.step(Signal.ACK_OF_SOME if taken else Signal.NACK_OF_SOME)
            if taken:
                events.append(_acknowledged(sub.type, sub.acknowledge(nonce), now))
            elif signal is Signal.ACK_OF_SOME:
                events.append(_rejected(sub, asked, nonce, now, partial=len(before) > 1))
            else:
                sub.reject(nonce)
        return events

    def _check_names(self, sub: SubStream, asked: Ask) -> None:
        """In the state of the world, names come in place of those before: with each ACK come all of them once more."""
        if self.variant is Variant.SOTW or len(sub.names) + len(asked.names) <= MOST_NAMES:
            return
        if len(sub.names - set(asked.dropped) | set(asked.names)) > MOST_NAMES:
            raise ProtocolError("RESOURCE_EXHAUSTED", f"more than {MOST_NAMES} names of a type on one stream")

    def _substream(self, type_: ResourceType) -> SubStream:
        """The sub-stream of a type; made when it is needed, for a stream costs memory, and kept in send order."""
        if type_ not in self._substreams:
            refusals = self.refusals.setdefault(type_, {})
            made = [*self._substreams.values(), _SUBSTREAMS[self.variant](type_, refusals)]
            self._substreams.clear()
            self._substreams.update((sub.type, sub) for sub in sorted(made, key=lambda sub: SEND_ORDER.index(sub.type)))
        return self._substreams[type_]

    def _check_node(self, node: Node | None) -> None:
        if node is None:
            return
        if self.node is None:
            # What else a node says may be large, and is not needed again.
            self.node = Node(id=node.id[:LONGEST_NAME], cluster=node.cluster[:LONGEST_NAME])
        elif node.cluster != self.node.cluster:
            raise ProtocolError("INVALID_ARGUMENT", "node.cluster is another than in the first request of the stream")

    def _type(self, asked: Ask) -> ResourceType | None:
        """The type that is asked for; on a stream of one type the request need not name it."""
        aggregated = len(self.types) > 1
        if not asked.type_url and aggregated:
            raise ProtocolError("INVALID_ARGUMENT", "type_url is missing: an aggregated stream needs it")
        type_ = _BY_URL.get(asked.type_url) if asked.type_url else next(iter(self.types))
        if type_ not in self.types and not aggregated:
            [only] = self.types
            raise ProtocolError("INVALID_ARGUMENT", f"type_url is not {only}, which is all that this stream serves")
        return type_

    def _act(self, sub: SubStream, action: Action, asked: Ask, now: float) -> list[Event]:
        if action is Action.IGNORE:
            return []
        if action is Action.OPEN:
            sub.open(asked, self._scope)
            self._gates.opened(sub, now)
            return [_subscribed(sub, asked, first=True)]
        events: list[Event] = []
        if action is Action.ACKNOWLEDGE:
            events.append(_acknowledged(sub.type, sub.acknowledge(asked.nonce), now))
        elif action is Action.REJECT:
            events.append(_rejected(sub, asked, asked.nonce, now))
        sub.honour(asked, self._scope, again=action is Action.REPEAT)
        if asked.dropped or (asked.names and self.variant is Variant.DELTA):
            events.append(_subscribed(sub, asked, first=False))
        return events

    def note_refusal(self, type_: ResourceType, name: str, version: str, *, sure: bool) -> None:
        """Remember that the client refused a version, or that it was this one or another of the same response."""
        versions = self.refusals.setdefault(type_, {}).setdefault(name, {})
        versions[version] = versions.pop(version, False) or sure
        while len(versions) > REFUSALS_KEPT:
            del versions[next(iter(versions))]

    # -- Changes -----------------------------------------------------------------------------------------------

    def mark(self, changes: Changes) -> None:
        """The scope changed; costs as much as changed."""
        for type_, names in changes.items():
            if sub := self._substreams.get(type_):
                if self._unknown(sub):
                    sub.clear_doubts()  # something is another: all there is can be tried again
                sub.coalesced += len(sub.dirty & names)
                for name in names:
                    sub.mark(name)
            if type_ is ResourceType.CLUSTER:
                self._gates.returned(names)

    # -- Responses ---------------------------------------------------------------------------------------------

    def next(self, now: float) -> Response | None:
        """The response to send first, or None while everything is sent or waits.

        Resources go in send order. A type's removals ride with its resources where both may go (a listener's
        address can be taken over only then); removals alone come last, in their own order.
        """
        self._gates.tick(now)
        removals: dict[ResourceType, _Batch] = {}
        for sub in self._substreams.values():
            if not (sub.dirty or sub.owed) or (names := self._ready(sub, now)) is None or self._would_empty(sub):
                continue
            batch = self._collect(sub, names, now)
            if batch.put or batch.absent or (sub.owed and sub.idle()):
                return self._send(sub, batch, now)
            if batch.removed:
                removals[sub.type] = batch
        if removals:
            first = next(type_ for type_ in REMOVE_ORDER if type_ in removals)
            return self._send(self._substreams[first], removals[first], now)
        return None

    def wake_at(self) -> float | None:
        """The moment when `next` or `overdue` may have something though nothing else happened."""
        earliest = self._gates.wake_at()
        for sub in self._substreams.values():
            for flight in sub.flights:
                moment = flight.sent_at + self._terms.patience
                if not flight.overdue and (earliest is None or moment < earliest):
                    earliest = moment
        return earliest

    def overdue(self, now: float) -> list[Event]:
        """Responses that have waited too long for their answer; each is said once."""
        events: list[Event] = []
        for sub in self._substreams.values():
            for flight in sub.flights:
                if not flight.overdue and now >= flight.sent_at + self._terms.patience:
                    flight.overdue = True
                    names = frozenset(flight.versions) | flight.removed
                    seconds = now - flight.sent_at
                    events.append(Overdue(type=sub.type, nonce=flight.nonce, names=names, seconds=seconds))
        return events

    def _unknown(self, sub: SubStream) -> bool:
        """Whether to list all there is may take away what the client has of an earlier stream: nobody knows what."""
        return sub.whole and sub.resumed and not sub.answered

    def _would_empty(self, sub: SubStream) -> bool:
        """Whether all there is would lack what was refused, and the client may have an earlier version of that."""
        if not self._unknown(sub):
            return False
        return sub.doubts or self._scope.withholds(sub.type)

    def _ready(self, sub: SubStream, now: float) -> Collection[str] | None:
        """The names to look at, or None where the type may send nothing now.

        While a response waits for its answer its type waits too, but for what cannot: a rollback, and, when the
        answer is late, everything.
        """
        if sub.idle():
            return sub.dirty
        if not sub.flights:
            return None
        if now >= sub.flights[-1].sent_at + self._terms.patience:
            return sub.dirty
        return [name for name in sub.dirty if self._rolls_back(sub, name)] or None

    def _rolls_back(self, sub: SubStream, name: str) -> bool:
        """Whether a version of the name is taken back that is in flight, or was just refused.

        Sending the version before, or removing the name, is what makes an Envoy answer that waits for a cluster
        which cannot warm.
        """
        flying = [flight.versions[name] for flight in sub.flights if name in flight.versions]
        taken_back = flying[-1] if flying else sub.urgent.get(name)
        if taken_back is None:
            return False
        served = self._scope.get(sub.type, name)
        return served is None or (self._scope.is_good(served) and served.version != taken_back)

    def _collect(self, sub: SubStream, names: Collection[str], now: float) -> _Batch:
        batch = _Batch()
        suspects = self._scope.suspects(sub.type)
        for name in sub.order(names):
            if batch.size >= self._terms.limit and not sub.whole:
                break
            resource = self._scope.get(sub.type, name)
            if resource is None:
                self._collect_gone(sub, name, batch, now)
            elif not sub.due(name, resource.version):
                sub.content(resource)
            elif self._content(sub, resource) or self._refused(sub, resource):
                sub.settle(name)
            elif batch.size and batch.size + resource.size > self._terms.limit and not sub.whole:
                break
            elif not self._gates.holds_back(resource):
                alone = (name in suspects or sub.refused(name, resource.version)) and not self._unknown(sub)
                if not (alone and batch.put):
                    batch.put.append(resource)
                    batch.size += resource.size
                if alone:
                    break
        return batch

    def _refused(self, sub: SubStream, resource: Resource) -> bool:
        """Whether the client itself refused what others have, and what is served where nothing else is good."""
        name, version = resource.name, resource.version
        own = sub.surely_refused(name, version) and name not in sub.forced
        return own and self._scope.is_refused(sub.type, name, version)

    def _content(self, sub: SubStream, resource: Resource) -> bool:
        """Whether the client has taken the version that is wanted, though another Envoy refused it."""
        wanted = self._scope.wanted(sub.type, resource.name)
        if wanted is resource or wanted is None or resource.name in sub.forced:
            return False
        return sub.acknowledged.get(resource.name) == wanted.version == sub.sent.get(resource.name)

    def _collect_gone(self, sub: SubStream, name: str, batch: _Batch, now: float) -> None:
        """A name that the scope does not have: removed if the client may have it, else said to be absent."""
        told = sub.sent.get(name) == ABSENT and name not in sub.forced
        if self._keeps_earlier(sub, name):
            sub.settle(name)
        elif name in sub.holdings and not told and sub.says_gone:
            if self._gates.keeps(sub, name, now):
                return
            batch.removed.append(name)
        elif name in sub.forced or (name in sub.names and name not in sub.sent):
            self._collect_absent(sub, name, batch)
        else:
            sub.settle(name)
            return
        batch.size += len(name)

    def _keeps_earlier(self, sub: SubStream, name: str) -> bool:
        """Whether what is wanted was refused, nothing good is known, and the client has an earlier version."""
        held = name in sub.acknowledged and name not in sub.forced
        return held and self._scope.wanted(sub.type, name) is not None

    def _collect_absent(self, sub: SubStream, name: str, batch: _Batch) -> None:
        if self.variant is Variant.SOTW and not sub.whole and self._scope.wanted(sub.type, name) is not None:
            sub.settle(name)  # it was refused: an empty one would take away what the client may have
        elif (said := sub.absence(name)) is not None:
            batch.put.append(said)
            batch.size += len(said.frame)
        elif sub.says_gone:
            batch.absent.append(name)
        else:
            sub.settle(name)

    def _send(self, sub: SubStream, batch: _Batch, now: float) -> Response:
        self._count += 1
        nonce = f"{self._prefix}{self._count}"
        gone = batch.absent + batch.removed
        sub.record(nonce, batch.put, gone, now)
        coalesced, sub.coalesced = sub.coalesced, 0
        if sub.type is ResourceType.CLUSTER:
            self._follow(sub.retold(batch.put), gone)
        return Response(
            type=sub.type,
            nonce=nonce,
            frame=sub.frame(nonce, batch.put, gone, self._terms.identifier),
            resources=len(batch.put),
            removed=len(gone),
            coalesced=coalesced,
        )

    def _follow(self, put: list[str], gone: list[str]) -> None:
        """Send assignments again after their clusters: Envoy waits for them and does not ask again."""
        endpoints = self._substreams[ResourceType.ENDPOINT]
        for cluster in put:
            endpoints.mark(cluster, force=True)
        if endpoints.state is State.UNASKED:
            for name in gone:
                endpoints.settle(name)

    # -- Questions ---------------------------------------------------------------------------------------------

    def acknowledged(self, type_: ResourceType, name: str) -> str | None:
        """The version of the resource that the client last said it has."""
        sub = self._substreams.get(type_)
        return sub.acknowledged.get(name) if sub else None

    def lists(self, type_: ResourceType, name: str) -> bool:
        """Whether a response says or will say something of the name that the client may refuse."""
        sub = self._substreams.get(type_)
        return sub is not None and sub.lists(name)

    def unanswered(self) -> Iterator[tuple[ResourceType, str, str]]:
        """Type, name and version of all that was sent and neither acknowledged nor refused."""
        for sub in self._substreams.values():
            for flight in sub.flights:
                yield from ((sub.type, name, version) for name, version in flight.versions.items())

    def view(self) -> list[TypeView]:
        """The state of each type, for debug output."""
        return [self._view(sub) for sub in self._substreams.values() if sub.state is not State.UNASKED]

    def _view(self, sub: SubStream) -> TypeView:
        return TypeView(
            type=sub.type,
            wildcard=sub.wildcard,
            subscribed=len(sub.names),
            sent=dict(sub.sent),
            acknowledged=dict(sub.acknowledged),
            in_flight=tuple(flight.nonce for flight in sub.flights),
            waiting=self._held_up(sub) | {name: self._explain(sub, name) for name in sorted(sub.dirty)},
        )

    def _explain(self, sub: SubStream, name: str) -> str:
        if self._would_empty(sub):
            return "what was refused to be mended: no version of it is known to be good, and the client may have one"
        return self._gates.explain(sub, name)

    def _held_up(self, sub: SubStream) -> dict[str, str]:
        """The routes that the client is to have, and what they lack: nothing is to be sent until it is mended."""
        found = self._scope.held_up() if sub.type is ResourceType.ROUTE else {}
        words = "to be mended, which is refused: no version of it is known to be good"
        return {name: f"cluster {', '.join(lacks)} {words}" for name, lacks in found.items() if sub.wants(name)}


def _subscribed(sub: SubStream, asked: Ask, *, first: bool) -> Subscribed:
    names = frozenset(asked.names)
    if first and sub.wildcard:
        names |= {WILDCARD}
    held = dict(sub.acknowledged) if first and asked.initial else {}
    return Subscribed(type=sub.type, first=first, names=names, dropped=frozenset(asked.dropped), held=held)


def _acknowledged(type_: ResourceType, flight: Flight, now: float) -> Acknowledged:
    return Acknowledged(
        type=type_,
        nonce=flight.nonce,
        versions=flight.versions,
        removed=frozenset(flight.removed),
        seconds=now - flight.sent_at,
    )


def _rejected(sub: SubStream, asked: Ask, nonce: str, now: float, *, partial: bool = False) -> Rejected:
    flight = sub.reject(nonce)
    return Rejected(
        type=sub.type,
        nonce=flight.nonce,
        versions=flight.versions,
        removed=frozenset(flight.removed),
        seconds=now - flight.sent_at,
        code=asked.error.code if asked.error else 0,
        message=asked.error.message if asked.error else "",
        partial=partial or flight.partial,
    )
