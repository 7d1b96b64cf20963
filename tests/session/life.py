"""One gateway, its Envoys and what is on the way between them; `rest` has what must hold of them in the end."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.session.rest import TYPES, Rest
from tests.support.model_bodies import ENDPOINT, Body, framed, read
from tests.support.model_envoy import ModelEnvoy, Refused
from tests.support.model_variants import DeltaEnvoy, SotwEnvoy
from xds.api.envoy.service.discovery.v3 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from xds.gateway import Gateway
from xds.memory import Cause, Memory
from xds.scope import Key
from xds.session import Response, Session, Terms, Variant
from xds.types import ResourceType
from xds.wire import decode

LINGER, PATIENCE = 10.0, 15.0
TERMS = Terms(identifier="test", linger=LINGER, patience=PATIENCE, limit=500)
REQUESTS = {Variant.DELTA: DeltaDiscoveryRequest, Variant.SOTW: DiscoveryRequest}
MOST_RESPONSES = 300
"""Responses until everything is at rest: far more than are needed."""


@dataclass
class Seat:
    """An Envoy and its stream."""

    envoy: ModelEnvoy
    number: int = 0
    session: Session | None = None
    since: float = 0.0
    inbox: list[bytes] = field(default_factory=list)
    asked: set[Key] = field(default_factory=set)
    """What the server was asked for, in delta, since it mentioned it last: the Envoy may know of an earlier mention."""


class Life:
    """What happens is a method, and so is what must hold. Time is a number."""

    def __init__(self):
        self.gateway = Gateway("models/iris", TERMS)
        self.wanted: dict[ResourceType, dict[str, Body]] = {type_: {} for type_ in TYPES}
        self.history: dict[Key, list[Body]] = {}
        self.seats: list[Seat] = []
        self.memories: dict[Key, Memory] = {}
        self.told: dict[tuple[str, ResourceType, str, str], bool] = {}
        """What the server was told is refused, by node id; whether it was told which version it is."""
        self.now = 0.0
        self.rev = 0
        self.streams = 0

    @property
    def scope(self):
        return self.gateway.scope

    def known_keys(self):
        """Type and name of all that is wanted."""
        return self.scope.keys()

    # -- What is wanted ----------------------------------------------------------------------------------------

    def put(self, type_, name, uses=(), **fault):
        self.rev += 1
        fresh = Body(name=name, rev=self.rev, uses=tuple(sorted(uses)), **fault)
        self.wanted[type_][name] = fresh
        self.history[type_, name] = [*self.history.get((type_, name), ()), fresh][-4:]

    def publish(self):
        put = [framed(type_, one) for type_, wanted in self.wanted.items() for one in wanted.values()]
        remove = [key for key in self.known_keys() if key[1] not in self.wanted[key[0]]]
        for resource in put:
            old = self.scope.wanted(resource.type, resource.name)
            refused = self.scope.is_refused(resource.type, resource.name, resource.version)
            other = old is None or old.version != resource.version
            if other and self.scope.is_good(resource) and not refused:
                self._forgiven(resource.type, resource.name)
        for key in remove:
            self._forgiven(*key)
        self.gateway.publish(put, remove)
        self.keep_memory()

    def _stands_between(self, type_, name, version):
        """Once another version is wanted and good, what was refused before may come again if it is wanted again."""
        wanted = self.scope.wanted(type_, name)
        if wanted is None or wanted.version == version or self.scope.is_refused(type_, name, wanted.version):
            return
        if self.scope.is_good(wanted):
            self._forgiven(type_, name)

    def _forgiven(self, type_, name):
        """What was refused of the name may be tried again."""
        for key in [key for key in self.told if key[1:3] == (type_, name)]:
            del self.told[key]

    # -- Streams -----------------------------------------------------------------------------------------------

    def envoy_comes(self, variant):
        kind = DeltaEnvoy if variant is Variant.DELTA else SotwEnvoy
        self.seats.append(Seat(kind(f"envoy-{len(self.seats)}")))
        self.connect(self.seats[-1])

    def connect(self, seat, *, lost=False):
        if seat.session is not None:
            self.gateway.leave(seat.number, lost=lost)
        self.streams += 1
        seat.number = self.streams
        seat.since = self.now
        seat.inbox.clear()
        seat.asked.clear()
        envoy = seat.envoy
        seat.session = self.gateway.connect(
            seat.number, node_id=envoy.node_id, variant=envoy.variant, prefix=f"{self.streams}-"
        )
        envoy.connect()

    def restart(self, *, remembers):
        """A new server, told what is wanted before anybody connects."""
        self.keep_memory()
        before = {key: self.scope.get(*key) for key in self.known_keys()}
        self.gateway = Gateway("models/iris", TERMS)
        if remembers:
            self.scope.restore(self.memories.values())
        else:
            self.memories.clear()
            self.told.clear()
        self.publish()
        self._forget_who_agreed()
        after = {key: self.scope.get(*key) for key in self.known_keys()}
        for seat in self.seats:
            seat.session = None
            self.connect(seat)
        other = {key for key in before if before[key] != after[key]}
        assert not remembers or not other, f"otherwise served after a restart: {other}"

    def _forget_who_agreed(self):
        """Who refused a version after another had is not remembered: it may be asked once more."""
        for node_id, type_, name, version in list(self.told):
            if (type_, name, version) not in self.scope.refused_by(node_id):
                del self.told[node_id, type_, name, version]

    def keep_memory(self):
        for key in self.scope.drain():
            self.memories[key] = self.scope.remembered(*key)
            if not (self.memories[key].good or self.memories[key].refused):
                del self.memories[key]

    def deliver_request(self, seat):
        said = seat.envoy.outbox.pop(0)
        if said.refused:
            self._note(seat, said.refused)
        request = decode(REQUESTS[seat.envoy.variant], said.frame)
        if seat.envoy.variant is Variant.DELTA:
            names = {*request.resource_names_subscribe, *request.resource_names_unsubscribe}
            seat.asked.update((ResourceType(request.type_url), name) for name in names)
        sub = seat.session._substream(ResourceType(request.type_url))
        before = set(sub.names)
        self.gateway.receive(seat.number, request, self.now)
        if not sub.wildcard:
            self._let_go(seat, sub.type, before - sub.names)
        for _, type_, name, version in list(self.told):
            self._stands_between(type_, name, version)
        self.keep_memory()

    def _let_go(self, seat, type_, names):
        """Of names that an Envoy does not want any more nothing is remembered."""
        for key in [key for key in self.told if key[:2] == (seat.envoy.node_id, type_) and key[2] in names]:
            del self.told[key]

    def _note(self, seat, refused: Refused):
        """Remember what the server is told: of names that the Envoy let go of meanwhile it is told nothing."""
        versions, exact = (refused.told, True) if refused.told else (refused.among, False)
        sub = seat.session._substreams[refused.type]
        flights = [one for one in sub.flights if one.nonce == refused.nonce]
        flown = {name: version for one in flights for name, version in one.versions.items()}
        # A response that lists everything may be refused for any of it that was never taken.
        flown |= {n: made.version for one in flights for n, made in one.listed.items() if not sub._has(made)}
        for name, version in versions.items():
            wanted = self.scope.wanted(refused.type, name)
            current = wanted is not None and wanted.version == version
            exact = exact or (len(flown) == 1 and not any(one.partial for one in flights))
            known = current or self.scope.has_been_good(refused.type, name, version)
            if known and flown.get(name) == version:
                key = (seat.envoy.node_id, refused.type, name, version)
                self.told[key] = exact or self.told.get(key, False)

    def send(self, seat, *, most=MOST_RESPONSES):
        """Let the server send; whether it sent anything."""
        count = 0
        while count < most and (response := seat.session.next(self.now)):
            self._check_response(seat, response)
            seat.inbox.append(response.frame)
            count += 1
        return count

    def _check_response(self, seat, response: Response):
        entries = entries_of(response, seat.envoy.variant)
        whole = seat.envoy.variant is Variant.SOTW and response.type.full_state
        for name, version in entries:
            told = self.told.get((seat.envoy.node_id, response.type, name, version))
            follows = response.type is ENDPOINT  # its cluster comes again, and silence would keep that from warming
            asked = (response.type, name) in seat.envoy.awaited | seat.asked
            assert told is not True or follows or asked, f"{response.type.short} {name} was refused and comes again"
            assert told is not False or len(entries) == 1 or whole, f"{name} is suspect and does not come alone"
            seat.asked.discard((response.type, name))

    def deliver_response(self, seat):
        seat.envoy.receive(seat.inbox.pop(0))

    def pass_time(self, seconds):
        self.now += seconds
        for seat in self.seats:
            if seat.envoy.withholds_first() and self.now - seat.since >= LINGER:
                seat.envoy.impatient = True
            seat.session.overdue(self.now)

    # -- Rest --------------------------------------------------------------------------------------------------

    def settle(self):
        """Let everything happen that is to happen."""
        for seat in self.seats:
            seat.envoy.finish_warming()
        responses = 0
        for _ in range(20_000):
            sent = [self._turn(seat) for seat in self.seats]
            responses += sum(count for _, count in sent)
            assert responses < MOST_RESPONSES * len(self.seats), "no end of responses"
            if any(moved for moved, _ in sent):
                continue
            wakes = [wake for seat in self.seats if (wake := seat.session.wake_at()) is not None]
            if not wakes:
                return
            assert min(wakes) > self.now, "a wake-up that finds nothing to do"
            self.pass_time(min(wakes) - self.now)
        raise AssertionError("never at rest")

    def _turn(self, seat):
        if seat.envoy.outbox:
            self.deliver_request(seat)
            return True, 0
        if seat.inbox:
            self.deliver_response(seat)
            return True, 0
        sent = self.send(seat)
        return bool(sent), sent

    def has_all(self, seat):
        """Whether the Envoy has exactly what it would be sent."""
        envoy = seat.envoy
        return not envoy.warming and all(
            envoy.said[type_]
            == {n: found.version for n in Rest(self, seat).names(type_) if (found := self.scope.get(type_, n))}
            for type_ in TYPES
        )

    def check_rest(self):
        for seat in self.seats:
            Rest(self, seat).check()
        self._check_rejections()

    def _check_rejections(self):
        found = {(one.type, one.name, one.refusal.version): one for one in self.gateway.rejections()}
        for (type_, name, version), rejection in found.items():
            body = self.wanted[type_][name]
            assert framed(type_, body).version == version
            quarantined = rejection.refusal.cause is Cause.QUARANTINED
            assert quarantined or body.fault(rejection.refusal.node), f"{type_.short} {name} is blamed for nothing"
        nodes = {seat.envoy.node_id for seat in self.seats}
        for (node_id, type_, name, version), exact in self.told.items():
            wanted = self.scope.wanted(type_, name)
            current = exact and wanted is not None and wanted.version == version and node_id in nodes
            assert not current or (type_, name, version) in found, f"nobody says that {type_.short} {name} is refused"


def entries_of(response: Response, variant) -> list[tuple[str, str]]:
    """Names and versions of a response."""
    if variant is Variant.DELTA:
        found = decode(DeltaDiscoveryResponse, response.frame)
        return [(entry.name, entry.version) for entry in found.resources]
    bodies = [read(packed.value) for packed in decode(DiscoveryResponse, response.frame).resources]
    return [(name, held.version) for name, held in bodies]
