"""A model of what a stock Envoy does with delta ADS, without I/O: requests in its outbox, responses in by `receive`.

It warms a cluster when it has the cluster's assignment (and its health checks passed), holds back what it has to
say about clusters until all are warm, and keeps what it has when its stream breaks. It fails at once when a response
breaks the protocol, or when a route leads to a cluster that is missing or was never warm.

The bodies of the resources are not Envoy's messages but `Body` as JSON.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from xds.api.google.rpc import Status
from xds.types import ResourceType
from xds.wire import Resource, decode, encode, resource

CLUSTER, ENDPOINT = ResourceType.CLUSTER, ResourceType.ENDPOINT
LISTENER, ROUTE = ResourceType.LISTENER, ResourceType.ROUTE


@dataclass(frozen=True)
class Body:
    """Content of a resource: a revision, the names it uses (routes: clusters; listeners: routes), and its fault.

    `bad`: "" for good; "alone" is refused while the rest of its response is taken; "all" spoils the whole response.
    """

    rev: int = 0
    uses: tuple[str, ...] = ()
    bad: str = ""


def make(type_: ResourceType, name: str, rev: int = 0, uses: Iterable[str] = (), bad: str = "") -> Resource:
    """A resource with such a body; a route's uses are told to the server too."""
    body = Body(rev, tuple(uses), bad)
    told = frozenset(body.uses) if type_ is ROUTE else frozenset()
    return resource(type_, name, json.dumps(asdict(body)).encode(), uses=told)


@dataclass
class Held:
    version: str
    body: Body


@dataclass
class ModelEnvoy:
    gateway: str = "models/iris"
    slow: bool = False
    """Whether health checks take until `finish_warming`."""
    outbox: list[bytes] = field(default_factory=list)
    held: dict[ResourceType, dict[str, Held]] = field(default_factory=lambda: {t: {} for t in ResourceType})
    active: set[str] = field(default_factory=set)
    """Clusters that were warm once; a changed one serves in its old version until the new one is warm."""
    warming: dict[str, set[str]] = field(default_factory=dict)
    subscribed: dict[ResourceType, set[str]] = field(default_factory=lambda: {t: set() for t in ResourceType})
    awaited: set[tuple[ResourceType, str]] = field(default_factory=set)
    """Names asked for that no response has mentioned since."""
    asks: Counter[tuple[ResourceType, str]] = field(default_factory=Counter)
    """How often a name was asked for, on this stream; each may bring a refused version once more."""
    refused: dict[tuple[ResourceType, str], set[str]] = field(default_factory=dict)
    """Versions in responses that were refused on this stream."""
    resources_received: int = 0
    ready: bool = False
    """Whether the clusters were warm once: listeners are asked for only then."""
    _withheld: list[DeltaDiscoveryRequest] = field(default_factory=list)
    _asked: set[ResourceType] = field(default_factory=set)
    _introduced: bool = False

    # -- Streams -----------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Open a new stream; what was on the way on the old one is lost."""
        self.outbox.clear()
        self._withheld.clear()
        self._asked.clear()
        self.awaited.clear()
        self.asks.clear()
        self.refused.clear()
        self._introduced = False
        self.resources_received = 0
        self._open(CLUSTER)
        for type_ in (ENDPOINT, LISTENER, ROUTE):
            if self.subscribed[type_] or (type_ is LISTENER and self.ready):
                self._open(type_)

    def withholds_first(self) -> bool:
        """Whether the first request for clusters is held back by warming."""
        return CLUSTER not in self._asked

    def _open(self, type_: ResourceType) -> None:
        versions = {name: held.version for name, held in self.held[type_].items()}
        names = sorted(self.subscribed[type_])
        if type_ is CLUSTER and names:
            names.append("*")
        self._send(type_, resource_names_subscribe=names, initial_resource_versions=versions)

    def _send(self, type_: ResourceType, **fields) -> None:
        request = DeltaDiscoveryRequest(type_url=type_, **fields)
        if type_ is CLUSTER and self.warming:
            self._withheld.append(request)
        else:
            self._emit(type_, request)

    def _emit(self, type_: ResourceType, request: DeltaDiscoveryRequest) -> None:
        self._asked.add(type_)
        if not self._introduced:
            self._introduced = True
            request.node = Node(id="envoy", cluster=self.gateway)
        self.outbox.append(encode(request))

    # -- Subscriptions -----------------------------------------------------------------------------------------

    def subscribe(self, type_: ResourceType, names: Iterable[str], *, nonce: str = "") -> None:
        names = sorted(names)
        self.subscribed[type_].update(names)
        self._await(type_, names)
        if type_ not in self._asked and type_ is not CLUSTER:
            self._open(type_)
        elif names:
            self._send(type_, resource_names_subscribe=names, response_nonce=nonce)

    def _await(self, type_: ResourceType, names: Iterable[str]) -> None:
        for name in names:
            self.awaited.add((type_, name))
            self.asks[type_, name] += 1

    def unsubscribe(self, type_: ResourceType, names: Iterable[str]) -> None:
        names = sorted(set(names) & self.subscribed[type_])
        if not names:
            return
        self.subscribed[type_].difference_update(names)
        if type_ is CLUSTER:
            # Beside the wildcard: whether the name stays is for the server to say.
            self._await(type_, names)
        else:
            self.awaited.difference_update((type_, name) for name in names)
            for name in names:
                self.held[type_].pop(name, None)
        self._send(type_, resource_names_unsubscribe=names)

    # -- Responses ---------------------------------------------------------------------------------------------

    def receive(self, frame: bytes) -> None:
        """Take one response and answer it."""
        response = decode(DeltaDiscoveryResponse, frame)
        type_ = ResourceType(response.type_url)
        names = [entry.name for entry in response.resources]
        mentioned = names + list(response.removed_resources)
        assert len(set(mentioned)) == len(mentioned), f"a name twice: {mentioned}"
        assert response.nonce
        self.resources_received += len(names)
        self._resent(type_, response)
        self.awaited.difference_update((type_, name) for name in mentioned)
        taken, error = self._judge(type_, response)
        for name in taken:
            self._take(type_, name, taken[name])
        for name in response.removed_resources if error != "all" else ():
            self._lose(type_, name)
        if type_ is ENDPOINT:
            self._warmed(mentioned, "assignment")
        self._subscribe_to_what_is_used()
        self._send(
            type_,
            response_nonce=response.nonce,
            error_detail=Status(code=13, message=f"refused: {error}") if error else None,
        )
        self._flush()
        self.check()

    def _resent(self, type_: ResourceType, response: DeltaDiscoveryResponse) -> None:
        """What was refused comes again only if it was asked for, or as the assignment of a changed cluster."""
        for entry in response.resources:
            again = entry.version in self.refused.get((type_, entry.name), ())
            if again and type_ is not ENDPOINT:
                self.asks[type_, entry.name] -= 1
                assert self.asks[type_, entry.name] >= 0, f"{entry.name} was refused and came again"

    def _judge(self, type_: ResourceType, response: DeltaDiscoveryResponse) -> tuple[dict[str, Held], str]:
        offered = {
            entry.name: Held(entry.version, _body(entry.resource.value if entry.resource else b""))
            for entry in response.resources
        }
        faults = {held.body.bad for held in offered.values()} - {""}
        if not faults:
            return offered, ""
        for name, held in offered.items():
            self.refused.setdefault((type_, name), set()).add(held.version)
        if "all" in faults:
            return {}, "all"
        return {name: held for name, held in offered.items() if not held.body.bad}, "alone"

    def _take(self, type_: ResourceType, name: str, held: Held) -> None:
        if type_ in {ENDPOINT, ROUTE} and name not in self.subscribed[type_]:
            return
        old = self.held[type_].get(name)
        self.held[type_][name] = held
        if type_ is CLUSTER and (old is None or old.version != held.version):
            self.warming[name] = {"assignment", "health"} if self.slow else {"assignment"}

    def _lose(self, type_: ResourceType, name: str) -> None:
        self.held[type_].pop(name, None)
        if type_ is CLUSTER:
            self.warming.pop(name, None)
            self.active.discard(name)

    def _subscribe_to_what_is_used(self) -> None:
        self._follow(ENDPOINT, set(self.held[CLUSTER]))
        if not self.warming and not self.ready:
            self.ready = True
            self._open(LISTENER)
        self._follow(ROUTE, {name for held in self.held[LISTENER].values() for name in held.body.uses})

    def _follow(self, type_: ResourceType, wanted: set[str]) -> None:
        self.unsubscribe(type_, self.subscribed[type_] - wanted)
        if new := wanted - self.subscribed[type_]:
            self.subscribe(type_, new)

    # -- Warming -----------------------------------------------------------------------------------------------

    def finish_warming(self) -> None:
        """The health checks of all warming clusters pass."""
        self.slow = False
        self._warmed(list(self.warming), "health")
        self._subscribe_to_what_is_used()
        self._flush()
        self.check()

    def _warmed(self, names: Iterable[str], what: str) -> None:
        for name in names:
            needs = self.warming.get(name, set())
            needs.discard(what)
            if name in self.warming and not needs:
                del self.warming[name]
                self.active.add(name)

    def _flush(self) -> None:
        if not self.warming:
            withheld, self._withheld = self._withheld, []
            for request in withheld:
                self._emit(CLUSTER, request)

    # -- Judgement ---------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Every route leads to clusters that are there and were warm."""
        for name, held in self.held[ROUTE].items():
            cold = set(held.body.uses) - self.active
            assert not cold, f"route {name} leads to {sorted(cold)}, missing or cold"

    def versions(self, type_: ResourceType) -> dict[str, str]:
        return {name: held.version for name, held in self.held[type_].items()}


def _body(data: bytes) -> Body:
    fields = json.loads(data)
    return Body(fields["rev"], tuple(fields["uses"]), fields["bad"])
