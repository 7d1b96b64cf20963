"""A model of what a stock Envoy does with what an ADS stream brings, without I/O; how it talks is for the variants.

It warms a cluster when it has the cluster's assignment (and its health checks passed), holds back what it has to
say about clusters until all are warm, and keeps what it has when its stream breaks. It fails at once when a response
breaks the protocol, or when a route leads to a cluster that is missing or was never warm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tests.support.model_bodies import CLUSTER, ENDPOINT, LISTENER, ROUTE, Body, Held, make
from xds.api.envoy.config.core.v3 import Node
from xds.session import Request, Variant
from xds.types import ResourceType
from xds.wire import encode

__all__ = ["CLUSTER", "ENDPOINT", "LISTENER", "ROUTE", "Body", "Held", "ModelEnvoy", "Refused", "Said", "make"]


@dataclass(frozen=True)
class Refused:
    """What an Envoy refuses of a response: the words, and the versions that they condemn."""

    type: ResourceType
    nonce: str
    words: str
    told: Mapping[str, str] = field(default_factory=dict)
    """Versions by name, as the words have it; without any, one of `among` it was."""
    among: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False
    """Whether nothing of the response is taken."""


@dataclass(frozen=True)
class Said:
    """A request on its way, and what it refuses."""

    frame: bytes
    refused: Refused | None


@dataclass(frozen=True)
class Offer:
    """A response as the client reads it."""

    type: ResourceType
    nonce: str
    held: Mapping[str, Held]
    removed: list[str]
    version: str = ""


@dataclass
class ModelEnvoy:
    node_id: str = "envoy"
    gateway: str = "models/iris"
    slow: bool = False
    """Whether health checks take until `finish_warming`."""
    stuck: set[str] = field(default_factory=set)
    """Clusters whose health checks never pass."""
    outbox: list[Said] = field(default_factory=list)
    held: dict[ResourceType, dict[str, Held]] = field(default_factory=lambda: {t: {} for t in ResourceType})
    active: set[str] = field(default_factory=set)
    """Clusters that were warm once; a changed one serves in its old version until the new one is warm."""
    warming: dict[str, set[str]] = field(default_factory=dict)
    subscribed: dict[ResourceType, set[str]] = field(default_factory=lambda: {t: set() for t in ResourceType})
    awaited: set[tuple[ResourceType, str]] = field(default_factory=set)
    """Names asked for that no response has mentioned since."""
    refused: dict[tuple[ResourceType, str], dict[str, Body]] = field(default_factory=dict)
    """Versions that were refused on this stream."""
    refusals: Counter[tuple[ResourceType, str, str]] = field(default_factory=Counter)
    """How often a version was refused."""
    resources_received: int = 0
    ready: bool = False
    """Whether the clusters were warm once: listeners are asked for only then."""
    impatient: bool = False
    """Whether the server may have given up waiting for this Envoy's request for clusters."""
    fresh: set[tuple[ResourceType, str]] = field(default_factory=set)
    """What came on this stream."""
    _forgiven: set[tuple[str, str]] = field(default_factory=set)
    _before: dict[str, Held | None] = field(default_factory=dict)
    """What warming clusters replace."""
    _asked: set[ResourceType] = field(default_factory=set)
    _introduced: bool = False

    variant = Variant.DELTA

    # -- What the variants say ---------------------------------------------------------------------------------

    def _open(self, type_: ResourceType) -> None:
        """Ask for the type for the first time on the stream."""
        raise NotImplementedError

    def _ask(self, type_: ResourceType, *, names: Iterable[str] = (), dropped: Iterable[str] = ()) -> None:
        """Say that the subscription is another; with neither names, that the same is wanted once more."""
        raise NotImplementedError

    def _answer(self, offer: Offer, refused: Refused | None) -> None:
        """Send ACK or NACK, or keep it until all clusters are warm."""
        raise NotImplementedError

    def _flush(self) -> None:
        """Send what was held back, if nothing warms any more."""
        raise NotImplementedError

    def _read(self, frame: bytes) -> Offer:
        raise NotImplementedError

    # -- Streams -----------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open a new stream; what was on the way on the old one is lost."""
        self.outbox.clear()
        self._asked.clear()
        self.awaited.clear()
        self.refused.clear()
        self.fresh.clear()
        self._introduced = False
        self.impatient = False
        self.resources_received = 0
        self._open(CLUSTER)
        for type_ in (ENDPOINT, LISTENER, ROUTE):
            if self.subscribed[type_] or (type_ is LISTENER and self.ready):
                self._open(type_)

    def withholds_first(self) -> bool:
        """Whether the first request for clusters is held back by warming."""
        return CLUSTER not in self._asked

    def _emit(self, type_: ResourceType, request: Request, refused: Refused | None = None) -> None:
        self._asked.add(type_)
        if not self._introduced:
            self._introduced = True
            request.node = Node(id=self.node_id, cluster=self.gateway)
        self.outbox.append(Said(encode(request), refused))

    # -- Subscriptions -----------------------------------------------------------------------------------------

    def subscribe(self, type_: ResourceType, names: Iterable[str]) -> None:
        names = sorted(names)
        self.subscribed[type_].update(names)
        self.awaited.update((type_, name) for name in names)
        if type_ not in self._asked and type_ is not CLUSTER:
            self._open(type_)
        elif names:
            self._ask(type_, names=names)

    def unsubscribe(self, type_: ResourceType, names: Iterable[str]) -> None:
        names = sorted(set(names) & self.subscribed[type_])
        if not names:
            return
        self.subscribed[type_].difference_update(names)
        if type_ is CLUSTER:
            # Beside the wildcard: whether the name stays is for the server to say.
            self.awaited.update((type_, name) for name in names)
        else:
            self.awaited.difference_update((type_, name) for name in names)
            for name in names:
                self.held[type_].pop(name, None)
        self._ask(type_, dropped=names)

    # -- Responses ---------------------------------------------------------------------------------------------

    def receive(self, frame: bytes) -> None:
        """Take one response and answer it."""
        offer = self._read(frame)
        type_, mentioned = offer.type, [*offer.held, *offer.removed]
        assert offer.nonce
        self.resources_received += len(offer.held)
        self.awaited.difference_update((type_, name) for name in mentioned)
        taken, refused = self._judge(offer)
        for name, held in taken.items():
            self._take(type_, name, held)
        for name in offer.removed if not (refused and refused.whole) else ():
            self._lose(type_, name)
        if type_ is ENDPOINT:
            self._assigned(mentioned)
        self._subscribe_to_what_is_used()
        self._answer(offer, refused)
        self._flush()
        self.check()

    def _judge(self, offer: Offer) -> tuple[Mapping[str, Held], Refused | None]:
        """What of the response is taken, and the refusal of the rest."""
        faults = {name: self._fault(offer.type, held) for name, held in offer.held.items()}
        spoilt = [name for name, fault in faults.items() if fault == "all"]
        bad = spoilt[:1] or [name for name, fault in faults.items() if fault]
        if not bad:
            return offer.held, None
        refused = self._refusal(offer, bad, whole=bool(spoilt))
        return {n: held for n, held in offer.held.items() if not spoilt and faults[n] in {"", "late"}}, refused

    def _fault(self, type_: ResourceType, held: Held) -> str:
        fault = held.body.fault(self.node_id) if held.body else ""
        return "alone" if fault == "late" and type_ is not CLUSTER else fault

    def _refusal(self, offer: Offer, bad: Iterable[str], *, whole: bool) -> Refused:
        culprits = {name: offer.held[name] for name in bad}
        for name, held in culprits.items():
            self._note_refusal(offer.type, name, held)
        names = offer.type in {CLUSTER, LISTENER}  # Envoy names these alone
        told = {name: held.version for name, held in culprits.items() if names and held.body and held.body.named}
        said = ", ".join(f"{name}: no good" for name in told)
        words = f"Error adding/updating {said}" if told else "constraint validation failed"
        among = {name: held.version for name, held in culprits.items()}
        return Refused(offer.type, offer.nonce, words, told, among, whole)

    def _note_refusal(self, type_: ResourceType, name: str, held: Held) -> None:
        assert held.body
        self.refused.setdefault((type_, name), {})[held.version] = held.body
        self.refusals[type_, name, held.version] += 1

    def _take(self, type_: ResourceType, name: str, held: Held) -> None:
        if type_ in {ENDPOINT, ROUTE} and name not in self.subscribed[type_]:
            return
        self.fresh.add((type_, name))
        old = self.held[type_].get(name)
        self.held[type_][name] = held
        if type_ is CLUSTER and (old is None or old.version != held.version):
            self._before.setdefault(name, old if name in self.active else None)
            self.warming[name] = {"assignment", "health"} if self._checks(name, held) else {"assignment"}

    def _checks(self, name: str, held: Held) -> bool:
        return held.body is not None and held.body.health and (self.slow or name in self.stuck)

    def _lose(self, type_: ResourceType, name: str) -> None:
        self.held[type_].pop(name, None)
        if type_ is CLUSTER:
            self._cooled(name)
            self.active.discard(name)

    def _subscribe_to_what_is_used(self) -> None:
        self._follow(ENDPOINT, set(self.held[CLUSTER]))
        if not self.warming and not self.ready and not self.withholds_first():
            self.ready = True
            self._open(LISTENER)
        used = {name for held in self.held[LISTENER].values() if held.body for name in held.body.uses}
        self._follow(ROUTE, used)

    def _follow(self, type_: ResourceType, wanted: set[str]) -> None:
        self.unsubscribe(type_, self.subscribed[type_] - wanted)
        if new := wanted - self.subscribed[type_]:
            self.subscribe(type_, new)

    # -- Warming -----------------------------------------------------------------------------------------------

    def finish_warming(self) -> None:
        """The health checks of all warming clusters pass, but of those that are stuck."""
        self.slow = False
        self._warmed([name for name in self.warming if name not in self.stuck], "health")
        self._subscribe_to_what_is_used()
        self._flush()
        self.check()

    def _assigned(self, names: Iterable[str]) -> None:
        for name in names:
            held = self.held[CLUSTER].get(name)
            if name in self.warming and held and held.body and held.body.fault(self.node_id) == "late":
                self._fall_back(name)
        self._warmed(names, "assignment")

    def _fall_back(self, name: str) -> None:
        before = self._before.get(name)
        self._cooled(name)
        self.held[CLUSTER].pop(name)
        if before is not None:
            self.held[CLUSTER][name] = before

    def _cooled(self, name: str) -> None:
        self.warming.pop(name, None)
        self._before.pop(name, None)

    def _warmed(self, names: Iterable[str], what: str) -> None:
        for name in names:
            needs = self.warming.get(name, set())
            needs.discard(what)
            if name in self.warming and not needs:
                self._cooled(name)
                self.active.add(name)

    # -- Judgement ---------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Every route leads to clusters that are there and were warm."""
        for name, held in self.held[ROUTE].items():
            cold = set(held.body.uses) - self.active if held.body else set()
            assert not cold or self._forgives(name, held), f"route {name} leads to {sorted(cold)}, missing or cold"

    def _forgives(self, route: str, held: Held) -> bool:
        """Whether the server could not know better, then or when it sent this."""
        if self.impatient and (ROUTE, route) in self.fresh:
            self._forgiven.add((route, held.version))
        return (route, held.version) in self._forgiven

    def versions(self, type_: ResourceType) -> dict[str, str]:
        return {name: held.version for name, held in self.held[type_].items()}
