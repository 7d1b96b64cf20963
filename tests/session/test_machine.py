"""Random lives of one gateway and its Envoys: whatever happens, at rest each Envoy has what it is to have.

What happens is here, and what must hold is in `life.py`. Three hundred lives in any run; ten thousand by
`make test-long`.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.session.life import TYPES, Life
from tests.support.model_envoy import CLUSTER, ENDPOINT, LISTENER, ROUTE
from xds.session import Variant

NAMES = ["a", "b", "c", "d"]
names = st.sampled_from(NAMES)
some = st.sets(names, max_size=3)
seats = st.integers(0, 5)
variants = st.sampled_from([Variant.DELTA, Variant.SOTW])
good = st.just({})
bad = st.one_of(
    st.fixed_dictionaries({"bad": st.sampled_from(["alone", "all", "late"]), "named": st.booleans()}),
    # Who refuses what others run is understood only if it says what.
    st.fixed_dictionaries({
        "bad": st.sampled_from(["alone", "all", "late"]),
        "bad_for": st.sampled_from([("envoy-0",), ("envoy-1",), ("envoy-1", "envoy-2")]),
    }),
)  # fmt: skip
FAULT = st.one_of(good, good, bad)
MOST_ENVOYS = 3
LIVES = 300
"""Tried in any run, the same each time; the profile `long` has ten thousand, others each time."""


class SessionMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.life = Life()

    def seat(self, number):
        return self.life.seats[number % len(self.life.seats)]

    @initialize(empty=st.sampled_from([False, False, True]), kinds=st.lists(variants, min_size=1, max_size=2))
    def a_gateway_at_work(self, empty, kinds):
        for name in () if empty else ("a", "b", "c"):
            self.life.put(CLUSTER, name)
            self.life.put(ENDPOINT, name)
        if not empty:
            self.life.put(ROUTE, "a", "ab")
            self.life.put(ROUTE, "b", "bc")
            self.life.put(LISTENER, "a", "ab")
        self.life.publish()
        for variant in kinds:
            self.life.envoy_comes(variant)
        self.rest()

    # -- What is wanted ----------------------------------------------------------------------------------------

    @rule(name=names, fault=FAULT, assigned=st.booleans(), health=st.booleans())
    def put_cluster(self, name, fault, assigned, health):
        self.life.put(CLUSTER, name, health=health, **fault)
        if assigned and name not in self.life.wanted[ENDPOINT]:
            self.life.put(ENDPOINT, name)
        self.life.publish()

    @rule(name=names, fault=FAULT)
    def put_assignment(self, name, fault):
        if name in self.life.wanted[CLUSTER]:
            self.life.put(ENDPOINT, name, **fault)
            self.life.publish()

    @rule(name=names, uses=some, fault=FAULT)
    def put_route(self, name, uses, fault):
        self.life.put(ROUTE, name, uses & set(self.life.wanted[CLUSTER]), **fault)
        self.life.publish()

    @rule(name=names, uses=some, fault=FAULT)
    def put_canary(self, name, uses, fault):
        """New clusters and the route to them in one change."""
        for cluster in sorted(uses):
            self.life.put(CLUSTER, cluster, **fault)
            self.life.put(ENDPOINT, cluster)
        self.life.put(ROUTE, name, uses)
        self.life.publish()

    @rule(name=names, uses=some, fault=FAULT)
    def put_listener(self, name, uses, fault):
        self.life.put(LISTENER, name, uses, **fault)
        self.life.publish()

    @rule(gone=some, fault=FAULT)
    def remove_clusters(self, gone, fault):
        wanted = self.life.wanted
        for name in gone:
            wanted[CLUSTER].pop(name, None)
            wanted[ENDPOINT].pop(name, None)
        for name, route in list(wanted[ROUTE].items()):
            if set(route.uses) & gone:
                self.life.put(ROUTE, name, set(route.uses) - gone, **fault)
        self.life.publish()

    @rule(type_=st.sampled_from([LISTENER, ROUTE]), name=names)
    def remove(self, type_, name):
        self.life.wanted[type_].pop(name, None)
        self.life.publish()

    @rule(type_=st.sampled_from(TYPES), name=names, back=st.integers(1, 3))
    def put_back(self, type_, name, back):
        """What was wanted before is wanted again."""
        known = self.life.history.get((type_, name), ())
        if len(known) > back and name in self.life.wanted[type_]:
            earlier = known[-1 - back]
            if type_ is not ROUTE or set(earlier.uses) <= self.life.wanted[CLUSTER].keys():
                self.life.wanted[type_][name] = earlier
                self.life.publish()

    @rule()
    def publish_the_same(self):
        life = self.life
        assert not life.scope.update([life.scope.wanted(*key) for key in life.known_keys()])

    # -- Streams and the server --------------------------------------------------------------------------------

    @precondition(lambda self: len(self.life.seats) < MOST_ENVOYS)
    @rule(variant=variants)
    def an_envoy_comes(self, variant):
        self.life.envoy_comes(variant)

    @rule(number=seats)
    def deliver_request(self, number):
        if self.seat(number).envoy.outbox:
            self.life.deliver_request(self.seat(number))

    @rule(number=seats, most=st.sampled_from([1, 1, 100]))
    def server_sends(self, number, most):
        self.life.send(self.seat(number), most=most)

    @rule(number=seats)
    def deliver_response(self, number):
        if self.seat(number).inbox:
            self.life.deliver_response(self.seat(number))

    @rule(seconds=st.sampled_from([0.1, 4.0, 11.0, 16.0]))
    def time_passes(self, seconds):
        self.life.pass_time(seconds)

    @rule(number=seats, lost=st.booleans())
    def the_stream_breaks(self, number, lost):
        self.life.connect(self.seat(number), lost=lost)

    @rule(remembers=st.booleans())
    def the_server_restarts(self, remembers):
        self.life.restart(remembers=remembers)

    # -- The Envoys --------------------------------------------------------------------------------------------

    @rule(number=seats)
    def warming_gets_slow(self, number):
        self.seat(number).envoy.slow = True

    @rule(number=seats)
    def warming_ends(self, number):
        self.seat(number).envoy.finish_warming()

    @rule(number=seats, name=names)
    def a_cluster_never_warms(self, number, name):
        self.seat(number).envoy.stuck.add(name)

    @rule(number=seats)
    def all_clusters_warm_after_all(self, number):
        self.seat(number).envoy.stuck.clear()

    @rule(number=seats, type_=st.sampled_from([ENDPOINT, ROUTE, CLUSTER]), nonce=st.sampled_from(["", "old"]))
    def the_envoy_asks_again(self, number, type_, nonce):
        envoy = self.seat(number).envoy
        if envoy.variant is Variant.DELTA:
            names = ["a"] if type_ is CLUSTER else sorted(envoy.subscribed[type_])[:1]
            if names and (type_ is CLUSTER or not envoy.withholds_first()):
                envoy.again(type_, names, nonce)

    @rule(number=seats)
    def the_envoy_lets_go_of_a_cluster_beside_the_wildcard(self, number):
        envoy = self.seat(number).envoy
        if envoy.variant is Variant.DELTA:
            envoy.unsubscribe(CLUSTER, ["a"])

    # -- At rest -----------------------------------------------------------------------------------------------

    @rule()
    def rest(self):
        self.life.settle()
        self.life.check_rest()

    @rule(number=seats)
    def an_unchanged_reconnect_gets_nothing(self, number):
        self.rest()
        seat = self.seat(number)
        if seat.envoy.variant is Variant.DELTA and self.life.has_all(seat):
            self.life.connect(seat)
            self.life.settle()
            assert seat.envoy.resources_received == 0

    @invariant()
    def routes_lead_somewhere(self):
        for seat in self.life.seats:
            seat.envoy.check()

    def teardown(self):
        for seat in self.life.seats:
            seat.envoy.stuck.clear()
        if self.life.seats:
            self.rest()


TestSession = SessionMachine.TestCase
LONG = settings.default.max_examples > LIVES
TestSession.settings = settings(
    max_examples=settings.default.max_examples if LONG else LIVES,
    derandomize=not LONG,
    database=settings.default.database if LONG else None,
    stateful_step_count=50,
    deadline=None,
)
