"""One gateway: what it is to have, and the sessions of its Envoys. What one Envoy says changes what the others get.

Pure: the caller brings requests and the time, and sends what the sessions give.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from xds.memory import Cause, Refusal, Rejection
from xds.scope import Changes, Scope
from xds.session import Acknowledged, Event, Rejected, Request, Session, Subscribed, Terms, Variant
from xds.session.blame import blame
from xds.session.session import Refusals
from xds.types import SEND_ORDER, ResourceType
from xds.wire.resource import Resource

LOSSES = 2
"""Streams of one Envoy that end while a version is unanswered, until that version is taken to be the cause."""

_MOST_LOSSES = 1_000
"""Versions of which losses are remembered."""

_MOST_REFUSERS = 1_000
"""Envoys of which it is remembered what they refused."""

QUARANTINE = 600.0
"""Seconds until a version in quarantine may be tried again: a broken network looks like a version that kills."""

_NAMED = frozenset({ResourceType.CLUSTER, ResourceType.LISTENER})
"""The types of which Envoy names what it refuses."""


@dataclass(slots=True)
class Member:
    """An Envoy of the gateway: its session, its name, and how to say that the session has something to do."""

    session: Session
    node_id: str
    wake: Callable[[], None]


class Gateway:
    """A scope and the sessions over it. Nobody knows what it is to have until something was `published`.

    Args:
        name: `<namespace>/<name>`, what its Envoys say in `node.cluster`.
        terms: what all sessions have in common.
    """

    __slots__ = ("_losses", "_members", "_now", "_quarantines", "_refusals", "_terms", "published", "scope")

    def __init__(self, name: str, terms: Terms) -> None:
        self.scope = Scope(name)
        self.published = False
        self._terms = terms
        self._members: dict[int, Member] = {}
        self._losses: Counter[tuple[str, ResourceType, str, str]] = Counter()
        self._quarantines: dict[tuple[ResourceType, str, str], float] = {}
        self._refusals: dict[str, Refusals] = {}
        self._now = 0.0

    @property
    def deserted(self) -> bool:
        """Whether no Envoy is connected; asked for each stream that ends, so not by counting them."""
        return not self._members

    @property
    def connected(self) -> int:
        """How many Envoys are connected."""
        return len({_envoy(number, member) for number, member in self._members.items()})

    def consent(self, type_: ResourceType, name: str, version: str) -> list[bool]:
        """Of each connected Envoy that speaks of the type, whether it said that it has this version."""
        said: dict[object, bool] = {}
        for number, member in self._members.items():
            if type_ in member.session.types:
                envoy = _envoy(number, member)
                said[envoy] = said.get(envoy, False) or member.session.acknowledged(type_, name) == version
        return list(said.values())

    # -- Streams -----------------------------------------------------------------------------------------------

    def connect(  # noqa: PLR0913 - what a stream is
        self,
        number: int,
        *,
        node_id: str,
        variant: Variant = Variant.DELTA,
        types: Collection[ResourceType] = SEND_ORDER,
        wake: Callable[[], None] = lambda: None,
        prefix: str = "",
    ) -> Session:
        """A stream came. `number` is unlike that of any other stream; `prefix` starts its nonces."""
        refusals = self._refusals.get(node_id) or self._remembered(node_id)
        self._forget_outdated(node_id, refusals)
        session = Session(self.scope, self._terms, variant=variant, types=types, prefix=prefix, refusals=refusals)
        self._members[number] = Member(session, node_id, wake)
        return session

    def _remembered(self, node_id: str) -> Refusals:
        """What an earlier server knew that this Envoy refuses."""
        refusals: Refusals = {}
        for type_, name, version in self.scope.refused_by(node_id):
            refusals.setdefault(type_, {}).setdefault(name, {})[version] = True
        return refusals

    def _forget_outdated(self, node_id: str, refusals: Refusals) -> None:
        """Of what cannot be sent any more nothing is remembered: a doubt about it would hold up what can."""
        if not any(refusals.values()):
            return  # as of most: a thousand Envoys that come back do not look at one another
        sessions = [member.session for member in self._members.values() if member.node_id == node_id]
        for type_, names in refusals.items():
            for name in [name for name in names if not any(session.lists(type_, name) for session in sessions)]:
                versions = names.pop(name)
                if kept := {v: sure for v, sure in versions.items() if self._may_come(type_, name, v, sure=sure)}:
                    names[name] = kept

    def _may_come(self, type_: ResourceType, name: str, version: str, *, sure: bool) -> bool:
        known = self.scope.known(type_, name, version) is not None
        return known or (sure and self.scope.is_refused(type_, name, version))

    def receive(self, number: int, request: Request, now: float) -> list[Event]:
        """Take a request of a stream, and what it says of the gateway's resources.

        Raises:
            ProtocolError: the stream is to end.
        """
        member = self._members[number]
        self.tick(now)
        events = member.session.receive(request, now)
        for event in events:
            match event:
                case Acknowledged():
                    self._tell(self.scope.acknowledge(event.type, event.versions, member.node_id))
                case Subscribed(held=held) if held:
                    self._tell(self.scope.acknowledge(event.type, held, member.node_id))
                case Rejected():
                    self._refused(member, event)
                case _:
                    pass
        member.wake()
        return events

    def tick(self, now: float) -> None:
        """Time went by: versions may have been in quarantine for long enough."""
        self._now = now
        for key in [key for key, until in self._quarantines.items() if now >= until]:
            del self._quarantines[key]
            self._tell(self.scope.acquit(*key))

    def wake_at(self) -> float | None:
        """The moment when `tick` may change what is served though no Envoy says anything."""
        return min(self._quarantines.values(), default=None)

    def leave(self, number: int, *, lost: bool) -> None:
        """A stream is over. `lost`: its client ended it, or went away."""
        member = self._members.pop(number)
        if lost:
            for type_, name, version in member.session.unanswered():
                self._count_loss(member.node_id, type_, name, version)

    # -- What is served ----------------------------------------------------------------------------------------

    def publish(self, put: Iterable[Resource], remove: Iterable[tuple[ResourceType, str]] = ()) -> Changes:
        """Change what the gateway is to have, and wake its streams; say what is served otherwise now."""
        changes = self.scope.update(put, remove)
        if changes or not self.published:
            self.published = True
            self._tell(changes, always=True)
        return changes

    def refresh(self, assignment: Resource) -> None:
        """The endpoints of a cluster that only good routes still need are others now."""
        self._tell(self.scope.refresh(assignment))

    def forget(self) -> None:
        """The gateway is gone: its Envoys lose everything."""
        self.publish((), self.scope.keys())

    def rejections(self) -> tuple[Rejection, ...]:
        """What its Envoys refuse of what it is to have."""
        return self.scope.rejections()

    def _tell(self, changes: Changes, *, always: bool = False) -> None:
        if changes or always:
            for member in self._members.values():
                member.session.mark(changes)
                member.wake()

    # -- Refusals ----------------------------------------------------------------------------------------------

    def _refused(self, member: Member, event: Rejected) -> None:
        type_ = event.type
        named = type_ in _NAMED

        def has(name: str, version: str) -> bool:
            return member.session.acknowledged(type_, name) == version

        versions = event.versions
        found = blame(versions, event.message, has, named=named, partial=event.partial)
        for name in found.culprits:
            refusal = Refusal(version=versions[name], code=event.code, message=event.message, node=member.node_id)
            self._tell(self.scope.refuse(type_, name, refusal))
        self.scope.suspect(type_, found.suspects)
        for name in (*found.culprits, *found.suspects):
            member.session.note_refusal(type_, name, versions[name], sure=name in found.culprits)
        self._forget_outdated(member.node_id, member.session.refusals)
        self._refusals[member.node_id] = member.session.refusals
        while len(self._refusals) > _MOST_REFUSERS:
            del self._refusals[next(iter(self._refusals))]

    def _count_loss(self, node_id: str, type_: ResourceType, name: str, version: str) -> None:
        """An Envoy was lost while it had a version unanswered: twice, and it may be what kills it.

        Only where something else is known to be good: an Envoy that dies of another cause is served. No Envoy dies
        of endpoints, and those that were good before may be gone.
        """
        if type_ is ResourceType.ENDPOINT or not self.scope.doubtful(type_, name, version):
            return
        self._losses[node_id, type_, name, version] += 1
        if self._losses[node_id, type_, name, version] >= LOSSES:
            del self._losses[node_id, type_, name, version]
            message = f"{node_id} was lost {LOSSES} times before it answered"
            refusal = Refusal(version=version, code=0, message=message, node=node_id, cause=Cause.QUARANTINED)
            self._quarantines[type_, name, version] = self._now + QUARANTINE
            self._tell(self.scope.refuse(type_, name, refusal))
        while len(self._losses) > _MOST_LOSSES:
            del self._losses[next(iter(self._losses))]

    def retry(self) -> int:
        """Forget what was refused, for what was at fault may be mended; how much that was."""
        refused = len(self.rejections())
        self._quarantines.clear()
        self._tell(self.scope.pardon())
        return refused


def _envoy(number: int, member: Member) -> object:
    """Who an Envoy is: an aggregated stream is one; of streams of single types one Envoy has many."""
    return number if len(member.session.types) > 1 else member.node_id
