"""The state table, walked whole: every state, every signal."""

from __future__ import annotations

import itertools

import pytest

from tests.support.model_envoy import make
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest
from xds.api.google.rpc import Status
from xds.scope import Scope
from xds.session import LocalError
from xds.session.substream import SubStream
from xds.session.table import TABLE, Action, Signal, State
from xds.types import ResourceType

ALL = list(itertools.product(State, Signal))
REFUSED = Status(code=13, message="no")


def in_state(state):
    """A sub-stream that came to the state by the ways there are."""
    sub = SubStream(ResourceType.CLUSTER)
    if state is not State.UNASKED:
        assert sub.step(Signal.SUBSCRIBE) is Action.OPEN
        sub.open(DeltaDiscoveryRequest(), Scope("a/b"))
    if state is State.IN_FLIGHT:
        sub.record("7", [make(ResourceType.CLUSTER, "a")], ["b"], 1.0)
    return sub


REQUESTS = {
    Signal.SUBSCRIBE: DeltaDiscoveryRequest(resource_names_subscribe=["a"]),
    Signal.ACK: DeltaDiscoveryRequest(response_nonce="7"),
    Signal.NACK: DeltaDiscoveryRequest(response_nonce="7", error_detail=REFUSED),
    Signal.STALE: DeltaDiscoveryRequest(response_nonce="6"),
}


def test_every_combination_is_in_the_table():
    assert set(TABLE) == set(ALL)


def test_every_action_and_state_is_reached():
    assert {action for action, _ in TABLE.values()} == set(Action)
    assert {state for _, state in TABLE.values()} == set(State)


@pytest.mark.parametrize(("state", "signal"), ALL, ids=lambda value: value.name)
def test_each_step(state, signal):
    sub = in_state(state)
    action, after = TABLE[state, signal]
    if action is Action.IMPOSSIBLE:
        with pytest.raises(LocalError, match=rf"cds: {signal.name} in state {state.name}"):
            sub.step(signal)
        assert sub.state is state
    else:
        assert sub.step(signal) is action
        assert sub.state is after


@pytest.mark.parametrize(("state", "signal"), [pair for pair in ALL if pair[1] in REQUESTS], ids=lambda v: v.name)
def test_no_request_of_a_client_is_impossible(state, signal):
    """What a request is depends on what is in flight, so a client cannot reach our bugs by what it sends."""
    sub = in_state(state)
    seen = sub.signal(REQUESTS[signal])
    assert TABLE[state, seen][0] is not Action.IMPOSSIBLE
    answers = signal in {Signal.ACK, Signal.NACK}
    assert seen is (signal if state is State.IN_FLIGHT or not answers else Signal.STALE)


def test_an_error_without_a_nonce_is_stale():
    assert in_state(State.IN_FLIGHT).signal(DeltaDiscoveryRequest(error_detail=REFUSED)) is Signal.STALE


def test_an_answer_to_nothing_is_our_bug():
    with pytest.raises(LocalError, match="without a response in flight"):
        in_state(State.IDLE).acknowledge()
