"""One type of one stream: what the client asked for, what it was sent, what it said to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import ClassVar

from xds.scope import Scope
from xds.session.events import LocalError
from xds.session.holdings import Holdings
from xds.session.requests import Ask
from xds.session.table import DELTA, Action, Signal, State, Table
from xds.types import ResourceType
from xds.wire.resource import Resource, delta_response

WILDCARD = "*"
_NONE: frozenset[str] = frozenset()
ABSENT = ""
"""The version of a name that the client was told does not exist."""

MOST_FLIGHTS = 16
"""Responses of one type that wait for their answers, each told apart from the others."""

OfNames = dict[str, dict[str, bool]]
"""Versions by name that a client refused, and whether it surely did."""


@dataclass(slots=True)
class Flight:
    """A response that waits for its ACK or NACK. A name leaves it when the client drops the name meanwhile."""

    nonce: str
    sent_at: float
    versions: dict[str, str] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    overdue: bool = False
    """Whether it was said that the answer is missing."""
    partial: bool = False
    """Whether it puts more than is told in `versions`."""
    version: str = ""
    """The version of the whole response, in the state of the world."""
    listed: Mapping[str, Resource] = field(default_factory=dict)
    """All that it lists by name, where that is more than what is new."""

    def drop(self, name: str) -> None:
        """The client does not want the name any more."""
        self.partial = self.versions.pop(name, None) is not None or self.partial
        self.removed.discard(name)

    def mentions(self, name: str) -> bool:
        """Whether the response says anything of the name."""
        return name in self.versions or name in self.removed


class SubStream:
    """State of one type in the delta protocol; what goes out when is the session's to decide.

    Public fields are read by the session and the gates, and changed here alone, but for `dirty` and `forced`,
    which shrink as names turn out to need nothing.
    """

    __slots__ = (
        "acknowledged", "answered", "coalesced", "dirty", "flights", "forced", "holdings", "last_nonce", "names",
        "owed", "refusals", "resumed", "sent", "state", "type", "urgent", "wildcard",
    )  # fmt: skip

    TABLE: ClassVar[Table] = DELTA

    def __init__(self, type_: ResourceType, refusals: OfNames) -> None:
        self.type = type_
        self.state = State.UNASKED
        self.wildcard = False
        self.names: AbstractSet[str] = _NONE
        self.sent: dict[str, str] = {}
        self.acknowledged: dict[str, str] = {}
        self.holdings = Holdings()
        self.dirty: AbstractSet[str] = _NONE
        self.forced: AbstractSet[str] = _NONE
        """Names to be answered even if nothing changed."""
        self.coalesced = 0
        """Changes since the last response that came while an earlier one of the same name was still to be sent."""
        self.owed = False
        """Whether a wildcard waits for its first answer, which may be empty."""
        self.resumed = False
        """Whether the client came with versions of an earlier stream."""
        self.answered = False
        """Whether the client took a response of this stream."""
        self.flights: list[Flight] = []
        """Responses that wait for their answer, the oldest first; more than one only where one had to overtake."""
        self.last_nonce = ""
        self.refusals = refusals
        """Versions of names that the client refused, also on streams before; False where one of several it was."""
        self.urgent: dict[str, str] = {}
        """Versions of names that were just refused: what takes one back waits for no other answer."""

    @property
    def whole(self) -> bool:
        """Whether each response must list all that the client is to have, so that none can be split."""
        return False

    @property
    def says_gone(self) -> bool:
        """Whether the client can be told that a name does not exist, or not any more."""
        return self.type.says_absent

    def wants(self, name: str) -> bool:
        """Whether the client subscribes to the name."""
        return self.wildcard or name in self.names

    def idle(self) -> bool:
        """Whether no response waits for its answer."""
        return self.state is State.IDLE

    def flying(self, name: str) -> bool:
        """Whether a response that says something of the name waits for its answer."""
        return bool(self.flights) and any(flight.mentions(name) for flight in self.flights)

    def lists(self, name: str) -> bool:
        """Whether something is said of the name in a response that waits for its answer, or in all that are to come."""
        return self.flying(name)

    # -- The state table ---------------------------------------------------------------------------------------

    def signal(self, ask: Ask) -> Signal:
        """What a request is to this sub-stream, told by its nonce and its error."""
        refused = ask.error is not None and not self.took(ask)
        if not ask.nonce:
            return Signal.STALE if refused else Signal.SUBSCRIBE
        if any(flight.nonce == ask.nonce for flight in self.flights):
            if len(self.flights) > 1:
                return Signal.NACK_OF_SOME if refused else Signal.ACK_OF_SOME
            return Signal.NACK if refused else Signal.ACK
        return Signal.AGAIN if ask.nonce == self.last_nonce and not refused else Signal.STALE

    def superseded(self, ask: Ask) -> list[str]:  # noqa: ARG002 - delta answers each response for itself
        """Nonces of the responses before the one answered: there will be no other answer to them."""
        return []

    def took(self, ask: Ask) -> bool:  # noqa: ARG002 - delta answers each response for itself
        """Whether the client took the response that it answers, and the error is that of one before it."""
        return False

    def took_earlier(self, ask: Ask, nonce: str) -> bool:  # noqa: ARG002 - delta answers each response for itself
        """Whether the answer to a later response says that the client took this one."""
        return False

    def step(self, signal: Signal) -> Action:
        """Go to the next state and say what to do.

        Raises:
            LocalError: the signal is one that only a bug of ours can cause in this state.
        """
        action, state = self.TABLE[self.state, signal]
        if action is Action.IMPOSSIBLE:
            raise LocalError(f"{self.type.short}: {signal.name} in state {self.state.name}")
        self.state = state
        return action

    # -- Subscriptions -----------------------------------------------------------------------------------------

    def open(self, ask: Ask, scope: Scope) -> None:
        """Take the first request of the type.

        An empty subscribe means `*` where the type allows it (the specification's legacy wildcard). Versions of
        an earlier stream count for the names asked for: those are not sent again.
        """
        names = ask.names or ([WILDCARD] if self.type.wildcard else [])
        self.names = (set(names) - {WILDCARD}) or _NONE
        if WILDCARD in names:
            self._ask_all(scope)
        self.dirty = {*self.dirty, *self.names} or _NONE
        self.forced = {name for name in self.forced if self.wants(name)} or _NONE
        for name, version in ask.initial.items():
            if self.wants(name):
                self._resume(name, version, scope.known(self.type, name, version))

    def _resume(self, name: str, version: str, known: Resource | None) -> None:
        self.resumed = True
        self.acknowledged[name] = version
        if version != ABSENT:  # another server may give no versions
            self.sent[name] = version
        self.holdings.add(name, version, known.uses if known else None)
        self.dirty = _with(self.dirty, name)

    def honour(self, ask: Ask, scope: Scope, *, again: bool = False) -> None:  # noqa: ARG002 - only the state of the world repeats
        """Take a request's subscription changes: first what is let go, then what is asked for."""
        for name in ask.dropped:
            self._let_go(name)
        for name in ask.names:
            if name == WILDCARD:
                self._ask_all(scope)
            else:
                self._ask(name)

    def _ask(self, name: str) -> None:
        self.names = _with(self.names, name)
        self.mark(name, force=True)

    def _ask_all(self, scope: Scope) -> None:
        names = scope.names(self.type)
        if self.wildcard:
            self.forced = {*self.forced, *names} or _NONE
        self.wildcard = self.owed = True
        self.dirty = {*self.dirty, *names} or _NONE

    def _let_go(self, name: str) -> None:
        if name == WILDCARD:
            self._let_go_all()
        elif name in self.names:
            self.names = _without(self.names, name)
            if self.wildcard:
                self.mark(name, force=True)
            else:
                self._forget([name])

    def _let_go_all(self) -> None:
        if self.wildcard:
            self.wildcard = self.owed = False
            self._forget((self.sent.keys() | self.dirty | self.holdings.names()) - self.names)

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            self.sent.pop(name, None)
            self.acknowledged.pop(name, None)
            self.refusals.pop(name, None)
            self.holdings.drop(name)
            self.settle(name)
            for flight in self.flights:
                flight.drop(name)

    # -- What is to be sent ------------------------------------------------------------------------------------

    def mark(self, name: str, *, force: bool = False) -> None:
        """Look at the name before the next response; with `force`, answer it even if nothing changed."""
        if force and (self.state is State.UNASKED or self.wants(name)):
            self.forced = _with(self.forced, name)
        if self.wants(name):
            self.dirty = _with(self.dirty, name)

    def settle(self, name: str) -> None:
        """Nothing is to be sent for the name."""
        self.dirty = _without(self.dirty, name)
        self.forced = _without(self.forced, name)
        self.urgent.pop(name, None)

    def due(self, name: str, version: str) -> bool:
        """Whether the version is to be sent: the client was sent another one, or asks for it once more."""
        return name in self.forced or self.sent.get(name) != version

    def content(self, resource: Resource) -> None:
        """The client has what it would be sent; what that uses may not have been known when it said so."""
        if self.holdings.guesses and self.holdings.has(resource.name, resource.version):
            self.holdings.add(resource.name, resource.version, resource.uses)
        self.settle(resource.name)

    def refused(self, name: str, version: str) -> bool:
        """Whether the client refused this version of the name, or may have: one of several it was."""
        return version in self.refusals.get(name, ())

    def surely_refused(self, name: str, version: str) -> bool:
        """Whether the client refused this version of the name."""
        return self.refusals.get(name, {}).get(version, False)

    @property
    def doubts(self) -> bool:
        """Whether the client refused one of several versions, and it is not known which."""
        return any(not sure for versions in self.refusals.values() for sure in versions.values())

    def clear_doubts(self) -> None:
        """Forget what the client only may have refused."""
        for versions in self.refusals.values():
            for version in [version for version, sure in versions.items() if not sure]:
                del versions[version]

    def order(self, names: Iterable[str]) -> list[str]:
        """In which order names are to be tried."""
        return sorted(names)

    def absence(self, name: str) -> Resource | None:  # noqa: ARG002 - delta says it without a resource
        """The resource that tells the client of a name that there is none, where the protocol has no word for it."""
        return None

    def record(self, nonce: str, put: Iterable[Resource], gone: Iterable[str], now: float) -> None:
        """A response leaves: resources `put`, and names `gone` that the client is told do not exist."""
        self.step(Signal.OVERTAKE if self.flights else Signal.SEND)
        self.owed = False
        self.last_nonce = nonce
        flight = Flight(nonce, now)
        self.flights.append(flight)
        if len(self.flights) > MOST_FLIGHTS:
            self._merge()
        for resource in put:
            flight.versions[resource.name] = self.sent[resource.name] = resource.version
            self.holdings.add(resource.name, resource.version, resource.uses)
            self.settle(resource.name)
        for name in gone:
            flight.removed.add(name)
            self.acknowledged.pop(name, None)
            self._told_absent(name)
            self.settle(name)

    def _merge(self) -> None:
        """Let the second response that waits stand for the first too: clients answer in order."""
        first, second = self.flights[0], self.flights[1]
        for name, version in first.versions.items():
            if not second.mentions(name):
                second.versions[name] = version
        second.removed |= {name for name in first.removed if not second.mentions(name)}
        del self.flights[0]

    def _told_absent(self, name: str) -> None:
        """Remember it for names asked for; of the others nothing is kept, or old names would heap up."""
        if name in self.names:
            self.sent[name] = ABSENT
        else:
            self.sent.pop(name, None)

    def retold(self, put: Iterable[Resource]) -> list[str]:
        """The names of which the response that was recorded last may bring another version than the client has."""
        return [made.name for made in put]

    def frame(self, nonce: str, put: list[Resource], gone: list[str], control_plane: str) -> bytes:
        """The encoded response of what was recorded last."""
        return delta_response(self.type, nonce, put, gone, control_plane)

    # -- What the client said ----------------------------------------------------------------------------------

    def acknowledge(self, nonce: str) -> Flight:
        """The client took a response. What one before it said of the same names is out of date, answered or not."""
        earlier = (
            self.flights[: [flight.nonce for flight in self.flights].index(nonce)] if len(self.flights) > 1 else ()
        )
        flight = self._land(nonce)
        self.answered = True
        for other in earlier:
            for name in (*flight.versions, *flight.removed):
                other.drop(name)
        for name, version in flight.versions.items():
            # What a later response replaces or removes may be gone before it was ever warm.
            if name in self.acknowledged or not self.flying(name):
                self.acknowledged[name] = version
            self.refusals.get(name, {}).pop(version, None)
            if not self.flying(name):
                self.holdings.settle(name, version)
        for name in flight.removed:
            if not self.flying(name):
                self.holdings.drop(name)
        return flight

    def reject(self, nonce: str) -> Flight:
        """The client refused a response. A refusal is not atomic, so every name of it is to be answered anew.

        What the client had acknowledged before stays acknowledged. Removals alone are not said again: nothing would
        end that. What another response in flight says is said anew already.
        """
        flight = self._land(nonce)
        for name in [*flight.versions, *flight.removed] if flight.versions or flight.partial else ():
            if not self.flying(name):
                self.sent.pop(name, None)
                self.mark(name)
                self.urgent[name] = flight.versions.get(name, ABSENT)
        return flight

    def _land(self, nonce: str) -> Flight:
        for index, flight in enumerate(self.flights):
            if flight.nonce == nonce:
                return self.flights.pop(index)
        raise LocalError(f"{self.type.short}: an answer without a response in flight")


# Most sets of most streams are empty most of the time: 200 bytes each, of which there would be a dozen a stream. A set
# is either a set of its own, or the one that nobody may change.


def _with(names: AbstractSet[str], name: str) -> AbstractSet[str]:
    if isinstance(names, set):
        names.add(name)
        return names
    return {*names, name}


def _without(names: AbstractSet[str], name: str) -> AbstractSet[str]:
    if isinstance(names, set):
        names.discard(name)
    return names or _NONE
