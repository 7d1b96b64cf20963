"""One type of one stream: what the client asked for, what it was sent, what it said to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest
from xds.scope import Scope
from xds.session.events import LocalError, Refusal
from xds.session.holdings import Holdings
from xds.session.table import TABLE, Action, Signal, State
from xds.types import ResourceType
from xds.wire.resource import Resource

WILDCARD = "*"
ABSENT = ""
"""The version of a name that the client was told does not exist."""

_REFUSALS_KEPT = 8
"""Refused versions remembered per name: enough for an edit and its undoing, and bounded."""


@dataclass(slots=True)
class Flight:
    """A response that waits for its ACK or NACK. A name leaves it when the client drops the name meanwhile."""

    nonce: str
    versions: dict[str, str]
    removed: set[str]
    sent_at: float


class SubStream:
    """State of one type; what goes out when is the session's to decide.

    Public fields are read by the session and the gates, and changed here alone, but for `dirty` and `forced`,
    which shrink as names turn out to need nothing.
    """

    __slots__ = (
        "acknowledged", "dirty", "flight", "forced", "holdings", "names", "owed", "refusals", "resumed",
        "sent", "state", "type", "wildcard",
    )  # fmt: skip

    def __init__(self, type_: ResourceType) -> None:
        self.type = type_
        self.state = State.UNASKED
        self.wildcard = False
        self.names: set[str] = set()
        self.sent: dict[str, str] = {}
        self.acknowledged: dict[str, str] = {}
        self.refusals: dict[str, dict[str, Refusal]] = {}
        self.holdings = Holdings()
        self.dirty: set[str] = set()
        self.forced: set[str] = set()
        """Names to be answered even if nothing changed."""
        self.owed = False
        """Whether a wildcard waits for its first answer, which may be empty."""
        self.resumed = False
        """Whether the client came with versions of an earlier stream."""
        self.flight: Flight | None = None

    def wants(self, name: str) -> bool:
        """Whether the client subscribes to the name."""
        return self.wildcard or name in self.names

    def idle(self) -> bool:
        """Whether a response may leave."""
        return self.state is State.IDLE

    # -- The state table ---------------------------------------------------------------------------------------

    def signal(self, request: DeltaDiscoveryRequest) -> Signal:
        """What a request is to this sub-stream, told by its nonce and its error."""
        refused = request.error_detail is not None
        if not request.response_nonce:
            return Signal.STALE if refused else Signal.SUBSCRIBE
        if self.flight is None or self.flight.nonce != request.response_nonce:
            return Signal.STALE
        return Signal.NACK if refused else Signal.ACK

    def step(self, signal: Signal) -> Action:
        """Go to the next state and say what to do.

        Raises:
            LocalError: the signal is one that only a bug of ours can cause in this state.
        """
        action, state = TABLE[self.state, signal]
        if action is Action.IMPOSSIBLE:
            raise LocalError(f"{self.type.short}: {signal.name} in state {self.state.name}")
        self.state = state
        return action

    # -- Subscriptions -----------------------------------------------------------------------------------------

    def open(self, request: DeltaDiscoveryRequest, scope: Scope) -> None:
        """Take the first request of the type.

        An empty subscribe means `*` where the type allows it (the specification's legacy wildcard). Versions of
        an earlier stream count for the names asked for: those are not sent again.
        """
        asked = request.resource_names_subscribe or ([WILDCARD] if self.type.wildcard else [])
        self.names = set(asked) - {WILDCARD}
        if WILDCARD in asked:
            self._ask_all(scope)
        self.dirty |= self.names
        self.forced = {name for name in self.forced if self.wants(name)}
        for name, version in request.initial_resource_versions.items():
            if self.wants(name):
                self._resume(name, version, scope.get(self.type, name))

    def _resume(self, name: str, version: str, current: Resource | None) -> None:
        self.resumed = True
        self.sent[name] = self.acknowledged[name] = version
        known = current is not None and current.version == version
        self.holdings.add(name, version, current.uses if current and known else None)
        self.dirty.add(name)

    def honour(self, request: DeltaDiscoveryRequest, scope: Scope) -> None:
        """Take a request's subscription changes: first what is let go, then what is asked for."""
        for name in request.resource_names_unsubscribe:
            self._let_go(name)
        for name in request.resource_names_subscribe:
            if name == WILDCARD:
                self._ask_all(scope)
            else:
                self._ask(name)

    def _ask(self, name: str) -> None:
        self.names.add(name)
        self.mark(name, force=True)

    def _ask_all(self, scope: Scope) -> None:
        if self.wildcard:
            self.forced |= scope.names(self.type)
        self.wildcard = self.owed = True
        self.dirty |= scope.names(self.type)

    def _let_go(self, name: str) -> None:
        if name == WILDCARD:
            self._let_go_all()
        elif name in self.names:
            self.names.discard(name)
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
            for versions in (self.sent, self.acknowledged, self.refusals):
                versions.pop(name, None)
            self.holdings.drop(name)
            self.dirty.discard(name)
            self.forced.discard(name)
            if self.flight:
                self.flight.versions.pop(name, None)
                self.flight.removed.discard(name)

    # -- What is to be sent ------------------------------------------------------------------------------------

    def mark(self, name: str, *, force: bool = False) -> None:
        """Look at the name before the next response; with `force`, answer it even if nothing changed."""
        if force and (self.state is State.UNASKED or self.wants(name)):
            self.forced.add(name)
        if self.wants(name):
            self.dirty.add(name)

    def settle(self, name: str) -> None:
        """Nothing is to be sent for the name."""
        self.dirty.discard(name)
        self.forced.discard(name)

    def due(self, name: str, version: str) -> bool:
        """Whether the version is to be sent: it is another one, and the client did not refuse it."""
        if name in self.forced:
            return True
        return self.sent.get(name) != version and version not in self.refusals.get(name, ())

    def record(self, nonce: str, put: Iterable[Resource], gone: Iterable[str], now: float) -> None:
        """A response leaves: resources `put`, and names `gone` that the client is told do not exist."""
        self.step(Signal.SEND)
        self.owed = False
        self.flight = Flight(nonce, {}, set(), now)
        for resource in put:
            self.flight.versions[resource.name] = self.sent[resource.name] = resource.version
            self.holdings.add(resource.name, resource.version, resource.uses)
            self.settle(resource.name)
        for name in gone:
            self.flight.removed.add(name)
            self.acknowledged.pop(name, None)
            self._told_absent(name)
            self.settle(name)

    def _told_absent(self, name: str) -> None:
        """Remember it for names asked for; of the others nothing is kept, or old names would heap up."""
        if name in self.names:
            self.sent[name] = ABSENT
        else:
            self.sent.pop(name, None)
            self.refusals.pop(name, None)

    # -- What the client said ----------------------------------------------------------------------------------

    def acknowledge(self) -> Flight:
        """The client took what was in flight."""
        flight = self._land()
        for name, version in flight.versions.items():
            self.acknowledged[name] = version
            self.holdings.settle(name, version)
            self.refusals.get(name, {}).pop(version, None)
        for name in flight.removed:
            self.holdings.drop(name)
        return flight

    def reject(self, code: int, message: str) -> Flight:
        """The client refused what was in flight; what it had acknowledged before stays so."""
        flight = self._land()
        for name, version in flight.versions.items():
            refused = self.refusals.setdefault(name, {})
            refused.pop(version, None)
            refused[version] = Refusal(version=version, code=code, message=message)
            while len(refused) > _REFUSALS_KEPT:
                del refused[next(iter(refused))]
        return flight

    def _land(self) -> Flight:
        if self.flight is None:
            raise LocalError(f"{self.type.short}: an answer without a response in flight")
        flight, self.flight = self.flight, None
        return flight
