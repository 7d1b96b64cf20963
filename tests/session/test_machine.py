"""Random lives of one gateway and one Envoy: whatever happens, at rest the Envoy has exactly what the scope has."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.model_envoy import CLUSTER, ENDPOINT, LISTENER, ROUTE, ModelEnvoy, make
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest
from xds.scope import Scope
from xds.session import DeltaSession
from xds.types import ResourceType
from xds.wire import decode

LINGER = 10.0
NAMES = ["a", "b", "c", "d"]
BAD = st.sampled_from(["", "", "", "", "alone", "all"])
names = st.sampled_from(NAMES)
some = st.sets(names, max_size=3)


@dataclass
class Wanted:
    rev: int
    uses: tuple[str, ...] = ()
    bad: str = ""


def what_is(type_):
    return type_.rsplit(".", 1)[-1]


class SessionMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.scope = Scope("models/iris")
        self.wanted: dict[ResourceType, dict[str, Wanted]] = {type_: {} for type_ in ResourceType}
        self.now = 0.0
        self.rev = 0
        self.streams = 0
        self.envoy = ModelEnvoy()
        self.inbox: list[bytes] = []
        self._new_stream()

    def _new_stream(self):
        self.streams += 1
        self.inbox.clear()
        self.session = DeltaSession(self.scope, linger=LINGER, identifier="test", prefix=f"{self.streams}-", limit=400)
        self.envoy.connect()

    @initialize(empty=st.sampled_from([False, False, True]))
    def a_gateway_at_work(self, empty):
        if empty:
            return
        for name in ("a", "b", "c"):
            self._put(CLUSTER, name)
            self._put(ENDPOINT, name)
        self._put(ROUTE, "a", "ab")
        self._put(ROUTE, "b", "bc")
        self._put(LISTENER, "a", "ab")
        self._publish()
        self.rest()

    # -- The scope ---------------------------------------------------------------------------------------------

    def _publish(self):
        put = [
            make(type_, name, one.rev, one.uses, one.bad)
            for type_, wanted in self.wanted.items()
            for name, one in wanted.items()
        ]
        remove = [
            (type_, name)
            for type_ in ResourceType
            for name in self.scope.names(type_)
            if name not in self.wanted[type_]
        ]
        self.session.mark(self.scope.update(put, remove))

    def _put(self, type_, name, uses=(), bad=""):
        self.rev += 1
        self.wanted[type_][name] = Wanted(self.rev, tuple(sorted(uses)), bad)

    @rule(name=names, bad=BAD, assigned=st.booleans())
    def put_cluster(self, name, bad, assigned):
        self._put(CLUSTER, name, bad=bad)
        if assigned and name not in self.wanted[ENDPOINT]:
            self._put(ENDPOINT, name)
        self._publish()

    @rule(name=names, bad=BAD)
    def put_assignment(self, name, bad):
        if name in self.wanted[CLUSTER]:
            self._put(ENDPOINT, name, bad=bad)
            self._publish()

    @rule(name=names, uses=some, bad=BAD)
    def put_route(self, name, uses, bad):
        self._put(ROUTE, name, uses & set(self.wanted[CLUSTER]), bad)
        self._publish()

    @rule(name=names, uses=some, bad=BAD)
    def put_canary(self, name, uses, bad):
        """New clusters and the route to them in one change."""
        for cluster in uses:
            self._put(CLUSTER, cluster, bad=bad)
            self._put(ENDPOINT, cluster)
        self._put(ROUTE, name, uses)
        self._publish()

    @rule(name=names, uses=some, bad=BAD)
    def put_listener(self, name, uses, bad):
        self._put(LISTENER, name, uses, bad)
        self._publish()

    @rule(gone=some, bad=BAD)
    def remove_clusters(self, gone, bad):
        for name in gone:
            self.wanted[CLUSTER].pop(name, None)
            self.wanted[ENDPOINT].pop(name, None)
        for name, route in list(self.wanted[ROUTE].items()):
            if set(route.uses) & gone:
                self._put(ROUTE, name, set(route.uses) - gone, bad)
        self._publish()

    @rule(type_=st.sampled_from([LISTENER, ROUTE]), name=names)
    def remove(self, type_, name):
        self.wanted[type_].pop(name, None)
        self._publish()

    @rule()
    def publish_the_same(self):
        changes = self.scope.update([self.scope.get(t, n) for t in ResourceType for n in self.scope.names(t)])
        assert not changes

    # -- The stream --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.envoy.outbox)
    @rule()
    def deliver_request(self):
        request = decode(DeltaDiscoveryRequest, self.envoy.outbox.pop(0))
        self.session.receive(request, self.now)

    @rule()
    def server_sends(self):
        self.inbox.extend(response.frame for response in self.session.respond(self.now))

    @rule()
    def server_sends_one(self):
        if response := self.session.next(self.now):
            self.inbox.append(response.frame)

    @precondition(lambda self: self.inbox)
    @rule()
    def deliver_response(self):
        self.envoy.receive(self.inbox.pop(0))

    @precondition(lambda self: not self.envoy.withholds_first())
    @rule(seconds=st.sampled_from([0.1, 4.0, 11.0]))
    def time_passes(self, seconds):
        self.now += seconds

    @rule()
    def the_stream_breaks(self):
        self._new_stream()

    # -- The Envoy ---------------------------------------------------------------------------------------------

    @rule()
    def warming_gets_slow(self):
        self.envoy.slow = True

    @rule()
    def warming_ends(self):
        self.envoy.finish_warming()

    @rule(type_=st.sampled_from([ENDPOINT, ROUTE, CLUSTER]), nonce=st.sampled_from(["", "old"]))
    def the_envoy_asks_again(self, type_, nonce):
        if type_ is CLUSTER:
            self.envoy.subscribe(type_, ["a"], nonce=nonce)
        elif self.envoy.subscribed[type_]:
            self.envoy.subscribe(type_, sorted(self.envoy.subscribed[type_])[:1], nonce=nonce)

    @rule()
    def the_envoy_lets_go_of_a_cluster_beside_the_wildcard(self):
        self.envoy.unsubscribe(CLUSTER, ["a"])

    # -- At rest -----------------------------------------------------------------------------------------------

    def _settle(self):
        self.envoy.finish_warming()
        for _ in range(500):
            if self.envoy.outbox:
                self.deliver_request()
            elif self.inbox:
                self.deliver_response()
            elif responses := self.session.respond(self.now):
                self.inbox.extend(response.frame for response in responses)
            elif (wake := self.session.wake_at()) is not None:
                assert wake > self.now, "a wake-up that finds nothing to do"
                self.now = wake
            else:
                return
        raise AssertionError("never at rest")

    @rule()
    def rest(self):
        self._settle()
        for type_ in ResourceType:
            self._same(type_)
        for type_, name in self.envoy.awaited:
            resource = self.scope.get(type_, name)
            if resource is None:
                waits = name in self.envoy.held[type_] and self._kept_for_a_reason(type_, name)
                assert waits, f"{what_is(type_)} {name} is not there, and nobody said so"
            else:
                answered = self._excused(type_, name, resource)
                assert answered, f"{what_is(type_)} {name} was asked for and never answered"

    def _same(self, type_):
        has = self.envoy.versions(type_)
        for name in self._expected(type_):
            resource = self.scope.get(type_, name)
            if has.get(name) == resource.version or self._excused(type_, name, resource):
                continue
            raise AssertionError(f"{what_is(type_)} {name}: has {has.get(name)}, wanted {resource.version}")
        for name in has.keys() - self.scope.names(type_):
            assert self._kept_for_a_reason(type_, name), f"{what_is(type_)} {name} is left over"

    def _expected(self, type_):
        if type_ in {CLUSTER, LISTENER}:
            return list(self.scope.names(type_))
        return [name for name in self.envoy.subscribed[type_] if self.scope.get(type_, name)]

    def _excused(self, type_, name, resource):
        """A version that was refused, or a route to a cluster that was: nothing is to come of its own."""
        if resource.version in self.envoy.refused.get((type_, name), ()):
            return True
        return type_ is ROUTE and any((CLUSTER, used) in self.envoy.refused for used in resource.uses)

    def _kept_for_a_reason(self, type_, name):
        """A route that the Envoy refused to give up still uses the cluster."""
        if type_ is ENDPOINT:
            return name in self.envoy.held[CLUSTER]
        return bool(self.envoy.refused)

    @rule()
    def an_unchanged_reconnect_gets_nothing(self):
        self.rest()
        if not self.envoy.refused and all(
            self.envoy.versions(type_).keys() == set(self._expected(type_)) for type_ in ResourceType
        ):
            self._new_stream()
            self._settle()
            assert self.envoy.resources_received == 0

    @invariant()
    def routes_lead_somewhere(self):
        self.envoy.check()

    def teardown(self):
        self.rest()


TestSession = SessionMachine.TestCase
TestSession.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
