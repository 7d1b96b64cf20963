"""The state of the world: requests that list all names wanted, responses that list all there is.

Rules of the xDS specification, "State of the World" and "Variants": for clusters, listeners and scopes a response
lists everything and a name left out is removed; for the others a response says nothing of the names it leaves out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from xds.scope import Scope
from xds.session.requests import Ask
from xds.session.substream import WILDCARD, Flight, OfNames, SubStream
from xds.session.table import SOTW, Table
from xds.types import ResourceType
from xds.wire.resource import Resource, empty_assignment, response, version_of


class SotwSubStream(SubStream):
    """State of one type in the state of the world protocol."""

    __slots__ = ("_carried", "_legacy", "_replaced", "_unsure")

    TABLE: ClassVar[Table] = SOTW

    def __init__(self, type_: ResourceType, refusals: OfNames) -> None:
        super().__init__(type_, refusals)
        self._carried: dict[str, Resource] = {}
        """What the client is to have, of a type whose responses list all of it."""
        self._replaced: dict[str, dict[str, Resource | None]] = {}
        """By nonce in flight: what the client had of the names before."""
        self._unsure: set[str] = set()
        """Names of which the client may have another version than it is told: it refused part of a response, or may."""
        self._legacy = False
        """Whether the wildcard came of a request without names."""

    @property
    def whole(self) -> bool:
        """Whether each response must list all that the client is to have."""
        return self.type.full_state

    @property
    def says_gone(self) -> bool:
        """Whether a response can say it: by leaving the name out of all there is."""
        return self.whole

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

    # -- Responses ---------------------------------------------------------------------------------------------

    def absence(self, name: str) -> Resource | None:
        """An empty assignment: an Envoy that hears nothing of one waits 15 s before it goes on."""
        return empty_assignment(name) if self.type is ResourceType.ENDPOINT else None

    def record(self, nonce: str, put: Iterable[Resource], gone: Iterable[str], now: float) -> None:
        """A response leaves: resources `put`, without the names `gone`, and all else that the client has."""
        put, gone = list(put), list(gone)
        super().record(nonce, put, gone, now)
        if self.whole:
            # It lists again what is in flight: a refusal may mean that.
            self.flights[-1].partial = len(self.flights) > 1
            self._unsure.update(name for flight in self.flights[:-1] for name in flight.versions)
            self._replaced[nonce] = {name: self._carried.get(name) for name in [*(made.name for made in put), *gone]}
            self._carried.update((made.name, made) for made in put)
            for name in gone:
                self._carried.pop(name, None)
            # What was removed in a response that was refused came back with it, and is to go again.
            for name in self._carried.keys() - self.sent.keys() - self.acknowledged.keys():
                del self._carried[name]

    def retold(self, put: Iterable[Resource]) -> list[str]:
        """The names of which the response may bring another version than the client has."""
        unsure = self._unsure & self._carried.keys()
        self._unsure.clear()
        return [*super().retold(put), *sorted(unsure)]

    def frame(self, nonce: str, put: list[Resource], gone: list[str], control_plane: str) -> bytes:  # noqa: ARG002
        """The encoded response of what was recorded last."""
        carried = list(self._carried.values()) if self.whole else put
        version = self.flights[-1].version = version_of(carried)
        if self.whole:
            self.flights[-1].listed = {made.name: made.version for made in carried}
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

    def _merge(self) -> None:
        first, second = (self._replaced.pop(flight.nonce, {}) for flight in self.flights[:2])
        self._replaced[self.flights[1].nonce] = second | first
        super()._merge()

    def _land(self, nonce: str) -> Flight:
        flight = super()._land(nonce)
        self._replaced.pop(nonce, None)
        return flight

    def acknowledge(self, nonce: str) -> Flight:
        """The client took a response, and with it all that it lists: also what it refused to say of one before."""
        flight = next(flight for flight in self.flights if flight.nonce == nonce)
        for name, version in flight.listed.items():
            carried = self._carried.get(name)
            if name not in self.sent and carried is not None and carried.version == version:
                flight.versions[name] = self.sent[name] = version
        return super().acknowledge(nonce)

    def reject(self, nonce: str) -> Flight:
        """The client refused a response: of the names that were new in it, it has what it had before."""
        replaced = self._replaced.get(nonce, {})
        flight = super().reject(nonce)
        # Nothing of it may have been taken: all there is, without what was refused, is to be said again.
        self.owed = self.owed or (self.whole and bool(flight.versions))
        self._unsure.update(replaced)
        for name, before in replaced.items():
            if later := next((others for others in self._replaced.values() if name in others), None):
                later[name] = before
            elif any(name in other.listed for other in self.flights):
                pass  # a later response lists it as well, and the answer to that will tell
            elif before is None:
                self._carried.pop(name, None)
            elif self.wants(name):
                self._carried[name] = before
        return flight
