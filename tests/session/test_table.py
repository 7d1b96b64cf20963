"""The state tables, walked whole: every state, every signal, both variants of the protocol."""

from __future__ import annotations

import itertools

import pytest

from tests.support.model_envoy import make
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest
from xds.api.google.rpc import Status
from xds.scope import Scope
from xds.session import LocalError
from xds.session.requests import ask
from xds.session.sotw import SotwSubStream
from xds.session.substream import SubStream
from xds.session.table import DELTA, SOTW, Action, Signal, State
from xds.types import ResourceType

ALL = list(itertools.product(State, Signal))
REFUSED = Status(code=13, message="no")
VARIANTS = pytest.mark.parametrize("variant", [SubStream, SotwSubStream], ids=["delta", "sotw"])


def request(**fields):
    return ask(DeltaDiscoveryRequest(**fields))


def in_state(state, variant=SubStream, flights=1):
    """A sub-stream that came to the state by the ways there are; with several responses in flight if wanted."""
    sub = variant(ResourceType.CLUSTER, {})
    if state is not State.UNASKED:
        assert sub.step(Signal.SUBSCRIBE) is Action.OPEN
        sub.open(request(), Scope("a/b"))
    if state is State.IN_FLIGHT:
        for number in range(flights):
            sub.record(str(7 + number), [make(ResourceType.CLUSTER, "a")], ["b"], 1.0)
    return sub


REQUESTS = {
    Signal.SUBSCRIBE: request(resource_names_subscribe=["a"]),
    Signal.ACK: request(response_nonce="7"),
    Signal.NACK: request(response_nonce="7", error_detail=REFUSED),
    Signal.STALE: request(response_nonce="6"),
}


@pytest.mark.parametrize("table", [DELTA, SOTW])
def test_every_combination_is_in_the_table(table):
    assert set(table) == set(ALL)


def test_every_action_and_state_is_reached():
    steps = [*DELTA.values(), *SOTW.values()]
    assert {action for action, _ in steps} == set(Action)
    assert {state for _, state in steps} == set(State)


@VARIANTS
@pytest.mark.parametrize(("state", "signal"), ALL, ids=lambda value: value.name)
def test_each_step(state, signal, variant):
    sub = in_state(state, variant)
    action, after = variant.TABLE[state, signal]
    if action is Action.IMPOSSIBLE:
        with pytest.raises(LocalError, match=rf"cds: {signal.name} in state {state.name}"):
            sub.step(signal)
        assert sub.state is state
    else:
        assert sub.step(signal) is action
        assert sub.state is after


@VARIANTS
@pytest.mark.parametrize(("state", "signal"), [pair for pair in ALL if pair[1] in REQUESTS], ids=lambda v: v.name)
def test_no_request_of_a_client_is_impossible(state, signal, variant):
    """What a request is depends on what is in flight, so a client cannot reach our bugs by what it sends."""
    sub = in_state(state, variant)
    seen = sub.signal(REQUESTS[signal])
    assert sub.TABLE[state, seen][0] is not Action.IMPOSSIBLE
    answers = signal in {Signal.ACK, Signal.NACK}
    assert seen is (signal if state is State.IN_FLIGHT or not answers else Signal.STALE)


def test_an_answer_to_one_of_many_leaves_the_others_in_flight():
    sub = in_state(State.IN_FLIGHT, flights=2)
    seen = sub.signal(REQUESTS[Signal.ACK])
    assert seen is Signal.ACK_OF_SOME
    assert sub.step(seen) is Action.ACKNOWLEDGE
    sub.acknowledge("7")
    assert sub.state is State.IN_FLIGHT
    assert sub.signal(request(response_nonce="8")) is Signal.ACK


def test_the_last_response_answered_once_more_is_told_apart():
    sub = in_state(State.IN_FLIGHT)
    sub.step(sub.signal(REQUESTS[Signal.ACK]))
    sub.acknowledge("7")
    assert sub.signal(REQUESTS[Signal.ACK]) is Signal.AGAIN
    assert sub.signal(REQUESTS[Signal.NACK]) is Signal.STALE


def test_an_error_without_a_nonce_is_stale():
    assert in_state(State.IN_FLIGHT).signal(request(error_detail=REFUSED)) is Signal.STALE


def test_an_answer_to_nothing_is_our_bug():
    with pytest.raises(LocalError, match="without a response in flight"):
        in_state(State.IDLE).acknowledge("7")
