"""How the model Envoys talk: delta, and the state of the world."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.support.model_bodies import CLUSTER, ENDPOINT, LISTENER, ROUTE, Held, read
from tests.support.model_envoy import ModelEnvoy, Offer, Refused
from xds.api.envoy.service.discovery.v3 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from xds.api.google.rpc import Status
from xds.session import Variant
from xds.types import ResourceType
from xds.wire import decode


def error_of(refused: Refused | None) -> Status | None:
    return Status(code=13, message=refused.words) if refused else None


@dataclass
class DeltaEnvoy(ModelEnvoy):
    """Every answer to a response is sent, in order; those about clusters when all are warm."""

    said: dict[ResourceType, dict[str, str]] = field(default_factory=lambda: {t: {} for t in ResourceType})
    """Versions that it tells on its next stream: those of responses that it took whole."""
    untold: set[tuple[ResourceType, str]] = field(default_factory=set)
    """Names of which it may have another version than it tells: they came in a response that it refused in part."""
    _withheld: list[tuple[DeltaDiscoveryRequest, Refused | None]] = field(default_factory=list)

    variant = Variant.DELTA

    def connect(self) -> None:
        self._withheld.clear()
        super().connect()

    def _open(self, type_: ResourceType) -> None:
        names = sorted(self.subscribed[type_])
        versions = {name: said for name, said in self.said[type_].items() if self._wants(type_, name)}
        self.said[type_] = dict(versions)
        if type_ is CLUSTER and names:
            names.append("*")
        self._send(type_, resource_names_subscribe=names, initial_resource_versions=versions)

    def _ask(self, type_: ResourceType, *, names: Iterable[str] = (), dropped: Iterable[str] = ()) -> None:
        for name in dropped if type_ is not CLUSTER else ():
            self.said[type_].pop(name, None)
        self._send(type_, resource_names_subscribe=list(names), resource_names_unsubscribe=list(dropped))

    def again(self, type_: ResourceType, names: Iterable[str], nonce: str) -> None:
        """Ask for names that are held, with any nonce."""
        self.awaited.update((type_, name) for name in names)
        self.subscribed[type_].update(names)
        self._send(type_, resource_names_subscribe=list(names), response_nonce=nonce)

    def _answer(self, offer: Offer, refused: Refused | None) -> None:
        mentioned = {(offer.type, name) for name in (*offer.held, *offer.removed)}
        self.untold = self.untold | mentioned if refused else self.untold - mentioned
        if refused is None:
            taken = {name: held.version for name, held in offer.held.items() if self._wants(offer.type, name)}
            self.said[offer.type].update(taken)
            for name in offer.removed:
                self.said[offer.type].pop(name, None)
        self._send(offer.type, refused, response_nonce=offer.nonce, error_detail=error_of(refused))

    def _wants(self, type_: ResourceType, name: str) -> bool:
        return type_ in {CLUSTER, LISTENER} or name in self.subscribed[type_]

    def _send(self, type_: ResourceType, refused: Refused | None = None, **fields) -> None:
        request = DeltaDiscoveryRequest(type_url=type_, **fields)
        if type_ is CLUSTER and self.warming:
            self._withheld.append((request, refused))
        else:
            self._emit(type_, request, refused)

    def _flush(self) -> None:
        if not self.warming:
            withheld, self._withheld = self._withheld, []
            for request, refused in withheld:
                self._emit(CLUSTER, request, refused)

    def _read(self, frame: bytes) -> Offer:
        response = decode(DeltaDiscoveryResponse, frame)
        names = [entry.name for entry in response.resources]
        mentioned = names + list(response.removed_resources)
        assert len(set(mentioned)) == len(mentioned), f"a name twice: {mentioned}"
        held = {
            entry.name: read(entry.resource.value if entry.resource else b"", entry.version)[1]
            for entry in response.resources
        }
        return Offer(ResourceType(response.type_url), response.nonce, held, list(response.removed_resources))


@dataclass
class SotwEnvoy(ModelEnvoy):
    """Every request lists all names that are wanted; of what is held back only the last request is ever sent.

    So an answer about clusters that waited answers the last response alone, and an error stays in it though a later
    response was taken: as in Envoy's own code (`GrpcMuxImpl`).
    """

    _nonce: dict[ResourceType, str] = field(default_factory=dict)
    _version: dict[ResourceType, str] = field(default_factory=dict)
    _error: dict[ResourceType, Refused] = field(default_factory=dict)
    _pending: bool = False
    _rewatched: bool = False

    variant = Variant.SOTW

    def connect(self) -> None:
        self._nonce.clear()
        self._error.clear()
        self._pending = False
        super().connect()

    def _open(self, type_: ResourceType) -> None:
        self._queue(type_)

    def _ask(self, type_: ResourceType, *, names: Iterable[str] = (), dropped: Iterable[str] = ()) -> None:
        self._queue(type_)

    def _queue(self, type_: ResourceType) -> None:
        if type_ is CLUSTER and self.warming:
            self._pending = True
            return
        refused = self._error.pop(type_, None)
        request = DiscoveryRequest(
            type_url=type_,
            resource_names=sorted(self.subscribed[type_]),
            version_info=self._version.get(type_, ""),
            response_nonce=self._nonce.get(type_, ""),
            error_detail=error_of(refused),
        )
        self._emit(type_, request, refused)

    def _answer(self, offer: Offer, refused: Refused | None) -> None:
        self._nonce[offer.type] = offer.nonce
        if refused is None:
            self._version[offer.type] = offer.version
        else:
            self._error[offer.type] = refused
        self._queue(offer.type)

    def _flush(self) -> None:
        if self._rewatched:
            self._rewatched = False
            self._queue(ENDPOINT)
        if self._pending and not self.warming:
            self._pending = False
            self._queue(CLUSTER)

    def _take(self, type_: ResourceType, name: str, held: Held) -> None:
        if held.body is None:
            self.held[type_].pop(name, None)
            self.fresh.add((type_, name))
            return
        old = self.held[type_].get(name)
        super()._take(type_, name, held)
        if type_ is CLUSTER and old is not None and old.version != held.version:
            # A changed cluster watches its assignment anew: the same names are asked for once more.
            self._rewatched = True
            self.awaited.add((ENDPOINT, name))

    def _forgives(self, route: str, held: Held) -> bool:
        """A server cannot know what an Envoy holds of an earlier stream in this variant."""
        return super()._forgives(route, held) or (ROUTE, route) not in self.fresh

    def _read(self, frame: bytes) -> Offer:
        response = decode(DiscoveryResponse, frame)
        type_ = ResourceType(response.type_url)
        entries = [read(packed.value) for packed in response.resources]
        held = dict(entries)
        assert len(held) == len(entries), f"a name twice: {[name for name, _ in entries]}"
        whole = type_ in {CLUSTER, LISTENER}
        removed = [name for name in self.held[type_] if name not in held] if whole else []
        return Offer(type_, response.nonce, held, removed, response.version_info)
