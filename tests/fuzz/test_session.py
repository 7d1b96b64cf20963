"""Clients that say anything, in any order: a session ends with a clean status or goes on, and keeps no more than it was
asked for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.service.discovery.v3 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from xds.api.google.rpc import Status
from xds.gateway import Gateway
from xds.session import ProtocolError, Session, Terms, Variant
from xds.types import SEND_ORDER, ResourceType
from xds.wire import decode, resource

CLEAN = {None, "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
TERMS = Terms(identifier="xdserve-test", linger=5, patience=15, limit=300)

NAMES = ["a", "b", "c", "*", "", "a.b", "x\0y", "é\n", "\ud7ff", ".*", "a" * 200, "xdstp://a/b"]
names = st.sampled_from(NAMES)
lists = st.lists(names, max_size=5)
types = st.sampled_from(SEND_ORDER)
type_urls = types | st.sampled_from(["", "*", "type.googleapis.com/x", ResourceType.CLUSTER + "x"])
errors = st.none() | st.builds(
    Status,
    code=st.sampled_from([0, 13, -1, (1 << 31) - 1]),
    message=st.sampled_from(["", "a", "a: no, b: no", "c", "\0", "(" * 9]) | st.text(max_size=5),
)
nodes = st.sampled_from([
    None, None, None, Node(), Node(id="e", cluster="models/iris"), Node(id="f", cluster="models/iris"),
    Node(cluster="models/other"),
])  # fmt: skip


@dataclass(eq=False)
class Peer:
    """A stream, and what is known of it."""

    number: int
    session: Session
    asked: set[str] = field(default_factory=set)
    """All names that it ever mentioned, by whatever request."""
    nonces: list[str] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    """Names that any response mentioned."""


class HostileMachine(RuleBasedStateMachine):
    """One gateway; up to four streams, of which none keeps to any rule."""

    def __init__(self):
        super().__init__()
        self.gateway = Gateway("models/iris", TERMS)
        self.peers: list[Peer] = []
        self.now = 0.0
        self.numbers = 0
        self.nonces = ["", "x", "0"]
        self.published: set[str] = set()

    @initialize(published=st.booleans())
    def begin(self, published):
        if published:
            self.put([(type_, name, 0) for type_ in SEND_ORDER for name in ("a", "b")])

    # -- The gateway -------------------------------------------------------------------------------------------

    def put(self, wanted, remove=()):
        made = [
            resource(type_, name, f"{name} {rev}".encode(), uses=frozenset("ab") if type_ is SEND_ORDER[-1] else set())
            for type_, name, rev in wanted
        ]
        self.published |= {one.name for one in made}
        self.gateway.publish(made, remove)

    @rule(wanted=st.lists(st.tuples(types, names, st.integers(0, 3)), max_size=5))
    def publish(self, wanted):
        self.put(wanted)

    @rule(gone=st.lists(st.tuples(types, names), max_size=5))
    def remove(self, gone):
        self.put([], gone)

    @rule()
    def forget(self):
        self.gateway.forget()

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 15.0, 100.0]))
    def wait(self, seconds):
        self.now += seconds
        for peer in self.peers:
            peer.session.overdue(self.now)

    # -- Streams -----------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.peers) < 4)
    @rule(variant=st.sampled_from(Variant), only=st.none() | types)
    def connect(self, variant, only):
        self.numbers += 1
        served = SEND_ORDER if only is None else (only,)
        session = self.gateway.connect(
            self.numbers, node_id="e", variant=variant, types=served, prefix=f"{self.numbers}-"
        )
        self.peers.append(Peer(self.numbers, session))

    @precondition(lambda self: self.peers)
    @rule(data=st.data(), lost=st.booleans())
    def leave(self, data, lost):
        self.drop(data.draw(st.sampled_from(self.peers)), lost=lost)

    def drop(self, peer, *, lost):
        self.gateway.leave(peer.number, lost=lost)
        self.peers.remove(peer)

    @precondition(lambda self: self.peers)
    @rule(
        data=st.data(), type_url=type_urls, subscribe=lists, unsubscribe=lists, error=errors, node=nodes,
        initial=st.dictionaries(names, st.sampled_from(["", "1", "x"]), max_size=3),
    )  # fmt: skip
    def say(self, data, type_url, subscribe, unsubscribe, error, node, initial):
        """Anything at all; half of the time the nonce is a real one, of whatever stream."""
        peer = data.draw(st.sampled_from(self.peers))
        nonce = data.draw(st.sampled_from([*self.nonces[:3], *peer.nonces[-3:], *self.nonces[-3:]]))
        self.request(peer, type_url, subscribe, unsubscribe, nonce, error, node, initial)

    @precondition(lambda self: any(peer.nonces for peer in self.peers))
    @rule(data=st.data(), error=errors, subscribe=lists)
    def answer(self, data, error, subscribe):
        """A response of this stream, and often the right one."""
        peer = data.draw(st.sampled_from([peer for peer in self.peers if peer.nonces]))
        nonce = data.draw(st.sampled_from(peer.nonces[-4:]))
        flying = [view.type for view in peer.session.view() if nonce in view.in_flight]
        self.request(peer, flying[0] if flying else data.draw(types), subscribe, [], nonce, error)

    def request(self, peer, type_url, subscribe=(), unsubscribe=(), nonce="", error=None, node=None, initial=()):
        if peer.session.variant is Variant.DELTA:
            request = DeltaDiscoveryRequest(
                node=node,
                type_url=str(type_url),
                resource_names_subscribe=list(subscribe),
                resource_names_unsubscribe=list(unsubscribe),
                initial_resource_versions=dict(initial),
                response_nonce=nonce,
                error_detail=error,
            )
        else:
            request = DiscoveryRequest(
                node=node,
                type_url=str(type_url),
                resource_names=list(subscribe),
                response_nonce=nonce,
                error_detail=error,
            )
        peer.asked.update(subscribe, initial)
        status = None
        try:
            self.gateway.receive(peer.number, request, self.now)
        except ProtocolError as refusal:
            status = refusal.status
            self.drop(peer, lost=False)
        assert status in CLEAN

    @precondition(lambda self: self.peers)
    @rule(data=st.data(), most=st.integers(1, 5))
    def read(self, data, most):
        peer = data.draw(st.sampled_from(self.peers))
        for _ in range(most):
            if (response := peer.session.next(self.now)) is None:
                break
            self.check(peer, response)

    def check(self, peer, response):
        if peer.session.variant is Variant.DELTA:
            said = decode(DeltaDiscoveryResponse, response.frame)
            told = [one.name for one in said.resources] + said.removed_resources
        else:
            said = decode(DiscoveryResponse, response.frame)
            told = [bytes(one.value) for one in said.resources]
        assert max(Counter(told).values(), default=0) <= 1
        assert said.type_url == response.type in peer.session.types
        assert said.nonce == response.nonce not in self.nonces
        peer.nonces.append(said.nonce)
        self.nonces.append(said.nonce)

    @precondition(lambda self: self.peers)
    @rule(data=st.data())
    def let_go_of_all(self, data):
        """After that nothing is kept of any name."""
        peer = data.draw(st.sampled_from(self.peers))
        if peer.session.variant is Variant.SOTW:
            return
        for type_ in peer.session.types:
            for _ in range(2):  # the first may open the type
                self.request(peer, type_, unsubscribe=NAMES)
            sub = peer.session._substreams[type_]
            held = (sub.names, sub.sent, sub.acknowledged, sub.dirty, sub.forced, sub.holdings.names())
            assert not any(held)
            assert not any(flight.versions or flight.removed for flight in sub.flights)

    # -- What always holds -------------------------------------------------------------------------------------

    @invariant()
    def sessions_keep_what_they_were_asked_for(self):
        for peer in self.peers:
            known = peer.asked | self.published
            for sub in peer.session._substreams.values():
                assert sub.names <= peer.asked
                kept = set().union(sub.sent, sub.acknowledged, sub.dirty, sub.forced, sub.holdings.names())
                assert kept <= known
                assert len(sub.flights) <= len(peer.nonces)
                if not sub.wildcard and sub.state.name != "UNASKED":
                    assert set(sub.sent) | sub.dirty | sub.forced <= sub.names
                assert set(getattr(sub, "_replaced", ())) <= {one.nonce for one in sub.flights}

    @invariant()
    def the_gateway_keeps_what_is_wanted(self):
        scope = self.gateway.scope
        kept = set(scope.keys()) | set(scope._retired)
        assert {(type_, name) for type_, held in scope._suspects.items() for name in held} <= kept
        assert scope._refused.keys() <= kept
        assert {(type_, name) for type_, held in scope._good.items() for name in held} <= kept
        assert scope._instead.keys() <= kept
        assert scope._withheld <= scope._wanted[ResourceType.CLUSTER].keys()

    @invariant()
    def what_is_shown_can_be_shown(self):
        for peer in self.peers:
            peer.session.view()
            peer.session.wake_at()
            list(peer.session.unanswered())


TestHostile = HostileMachine.TestCase
TestHostile.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
