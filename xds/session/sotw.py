"""The state of the world: requests that list all names wanted, responses that list all there is.

Rules of the xDS specification, "State of the World" and "Variants": for clusters, listeners and scopes a response
lists everything and a name left out is removed; for the others a response says nothing of the names it leaves out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

from xds.scope import Scope
from xds.session.requests import Ask
from xds.session.substream import WILDCARD, Flight, OfNames, SubStream
from xds.session.table import SOTW, Table
from xds.types import ResourceType
from xds.wire.resource import Resource, empty_assignment, response, version_of


class SotwSubStream(SubStream):
    """State of one type in the state of the world protocol."""

    __slots__ = ("_carried", "_legacy", "_proven", "_unsure", "needed")

    TABLE: ClassVar[Table] = SOTW

    def __init__(self, type_: ResourceType, refusals: OfNames) -> None:
        super().__init__(type_, refusals)
        self._carried: dict[str, Resource] = {}
        """What the client is to have, of a type whose responses list all of it."""
        self._proven: dict[str, Resource] = {}
        """What it said that it has: by this a name goes back when a response is refused."""
        self._unsure: set[str] = set()
        """Names of which it may have another version than it said last: it refused a response that listed them."""
        self._legacy = False
        """Whether the wildcard came of a request without names."""
        self.needed: Callable[[str], bool] = lambda _: False
        """Whether something else that the client may be running needs the name: to leave it out would harm."""

    @property
    def whole(self) -> bool:
        """Whether each response must list all that the client is to have."""
        return self.type.full_state

    @property
    def says_gone(self) -> bool:
        """Whether a response can say it: by leaving the name out of all there is."""
        return self.whole

    def lists(self, name: str) -> bool:
        """Whether the name is in a response that waits for its answer, or in all that are to come."""
        flying = any(name in flight.listed for flight in self.flights)
        return flying or name in self._carried or super().lists(name)

    # -- Subscriptions -----------------------------------------------------------------------------------------

    def open(self, ask: Ask, scope: Scope) -> None:
        """Take the first request of the type; versions of an earlier stream say nothing of single resources."""
        self._legacy = self.type.wildcard and not ask.names
        super().open(ask, scope)
        self.resumed = bool(ask.version)

    def honour(self, ask: Ask, scope: Scope, *, again: bool = False) -> None:
        """Take the names of a request in place of those before it.

        With `again`, a request that changes nothing wants the same once more: so does Envoy for the assignment of a
        changed cluster.
        """
        if not ask.names and self._legacy:
            return
        self._legacy = False
        asked = set(ask.names) - {WILDCARD}
        if again and asked == self.names:
            for name in asked:
                self.mark(name, force=True)
        self._replace(asked, scope, wildcard=WILDCARD in ask.names)

    def _replace(self, asked: set[str], scope: Scope, *, wildcard: bool) -> None:
        dropped, new = self.names - asked, asked - self.names
        self.names -= dropped
        if self.wildcard and not wildcard:
            self._let_go_all()
        elif not self.wildcard:
            self._forget(dropped)
        for name in sorted(new):
            self._ask(name)
        if wildcard and not self.wildcard:
            self._ask_all(scope)
        # All that there is says at once what of the new names there is not.
        self.owed = self.owed or (bool(new) and self.whole)

    def _forget(self, names: Iterable[str]) -> None:
        names = list(names)
        super()._forget(names)
        for name in names:
            self._carried.pop(name, None)
            self._proven.pop(name, None)
            self._unsure.discard(name)

    # -- Responses ---------------------------------------------------------------------------------------------

    def absence(self, name: str) -> Resource | None:
        """An empty assignment: an Envoy that hears nothing of one waits 15 s before it goes on."""
        return empty_assignment(name) if self.type is ResourceType.ENDPOINT else None

    def record(self, nonce: str, put: Iterable[Resource], gone: Iterable[str], now: float) -> None:
        """A response leaves: resources `put`, without the names `gone`, and all else that the client is to have."""
        put, gone = list(put), list(gone)
        super().record(nonce, put, gone, now)
        if self.whole:
            self._leave_out_refused()
            self._carried.update((made.name, made) for made in put)
            for name in gone:
                self._carried.pop(name, None)
            self.flights[-1].listed = dict(self._carried)

    def _leave_out_refused(self) -> None:
        """A response in flight may have kept it here when it was refused: the answer to that was to tell."""
        for name in self.refusals.keys() & self._carried.keys():
            if self.surely_refused(name, self._carried[name].version):
                self._take_back(name)

    def order(self, names: Iterable[str]) -> list[str]:
        """First what is listed all the same: while others wait, only that can be what is refused."""
        listed = {name for name, made in self._carried.items() if not self._has(made)}
        return sorted(super().order(names), key=lambda name: name not in listed)

    def retold(self, put: Iterable[Resource]) -> list[str]:
        """The names of which the response may bring another version than the client has."""
        unsure = {name for name, made in self._carried.items() if name in self._unsure or not self._has(made)}
        return sorted(unsure.union(super().retold(put)))

    def _has(self, made: Resource) -> bool:
        """Whether the client said so."""
        return self.acknowledged.get(made.name) == made.version

    def frame(self, nonce: str, put: list[Resource], gone: list[str], control_plane: str) -> bytes:  # noqa: ARG002
        """The encoded response of what was recorded last."""
        carried = list(self._carried.values()) if self.whole else put
        version = self.flights[-1].version = version_of(carried)
        return response(self.type, nonce, carried, version, control_plane)

    # -- What the client said ----------------------------------------------------------------------------------

    def superseded(self, ask: Ask) -> list[str]:
        """Nonces of the responses before the one answered: there will be no other answer to them.

        An Envoy that warms clusters keeps one answer, and sends it for the last response when they are warm.
        """
        nonces = [flight.nonce for flight in self.flights]
        return nonces[: nonces.index(ask.nonce)] if ask.nonce in nonces[1:] else []

    def took(self, ask: Ask) -> bool:
        """Whether the client took the response that it answers, and the error is that of one before it.

        The answer that an Envoy keeps has the error of any response, and the version of the last one that it took.
        """
        later = self.flights[1:]
        return any(flight.nonce == ask.nonce and flight.version == ask.version for flight in later)

    def took_earlier(self, ask: Ask, nonce: str) -> bool:
        """Whether the response is the last that the client took: its version says so, whatever the error means."""
        return self._flight(nonce).version == ask.version

    def _merge(self) -> None:
        super()._merge()
        self.flights[0].partial = self.flights[0].partial or self.whole

    def acknowledge(self, nonce: str) -> Flight:
        """The client took a response, and with it all that it lists: also what it refused to say of one before."""
        flight = self._flight(nonce)
        for name, made in flight.listed.items():
            self._prove(flight, name, made)
        super().acknowledge(nonce)
        for name in flight.removed:
            self._proven.pop(name, None)
        return flight

    def _prove(self, flight: Flight, name: str, made: Resource) -> None:
        self._proven[name] = made
        self._unsure.discard(name)
        if not self._has(made):
            flight.versions[name] = made.version
        if name not in self.sent and self._carried.get(name) is made:
            self.sent[name] = made.version

    def reject(self, nonce: str) -> Flight:
        """The client refused a response: any version may be meant that it lists and the client never said it has.

        Those go back to what it said that it has, and are said anew. Names that it was to lose stay away.
        """
        flight = self._flight(nonce)
        doubted = [made for made in flight.listed.values() if not self._has(made)]
        flight.versions.update((made.name, made.version) for made in doubted)
        super().reject(nonce)
        self.owed = self.owed or bool(doubted)
        for made in doubted:
            self._unsure.add(made.name)
            if not self._stays(made):
                self._take_back(made.name)
        return flight

    def _stays(self, made: Resource) -> bool:
        """Whether what was refused among others is to be listed again: a second time nothing would end that."""
        name = made.name
        if self._carried.get(name) is not made or any(name in other.listed for other in self.flights):
            return True  # it is another already, or the answer to a later response will tell
        return name not in self._proven and not self.refused(name, made.version) and self.needed(name)

    def _take_back(self, name: str) -> None:
        if (before := self._proven.get(name)) is None:
            del self._carried[name]
        else:
            self._carried[name] = before

    def _flight(self, nonce: str) -> Flight:
        return next(flight for flight in self.flights if flight.nonce == nonce)
