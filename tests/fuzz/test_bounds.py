"""What one client can make a session remember, or look for, has bounds; and what is within them is taken."""

from __future__ import annotations

import pytest

from tests.support.model_envoy import make
from tests.support.streams import responses
from xds.api.envoy.config.core.v3 import Locality, Node
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest
from xds.api.google.rpc import Status
from xds.gateway import Gateway
from xds.session import MOST_NAMES, ProtocolError, Stale, Terms, Variant
from xds.session.blame import blame
from xds.session.requests import LONGEST_NAME, LONGEST_WORDS
from xds.types import ResourceType
from xds.wire import decode

CLUSTER, ENDPOINT, ROUTE = ResourceType.CLUSTER, ResourceType.ENDPOINT, ResourceType.ROUTE
NAMES = [f"c-{number}" for number in range(MOST_NAMES)]


@pytest.fixture
def gateway():
    gateway = Gateway("models/iris", Terms(identifier="xdserve-test", linger=5))
    gateway.publish([make(CLUSTER, "a"), make(CLUSTER, "b")])
    return gateway


def delta(**fields):
    return DeltaDiscoveryRequest(type_url=CLUSTER, **fields)


def refused(gateway, *requests, variant=Variant.DELTA):
    """The status with which the last of these requests ends a stream."""
    gateway.connect(1, node_id="envoy", variant=variant)
    for request in requests[:-1]:
        gateway.receive(1, request, 0)
    with pytest.raises(ProtocolError) as error:
        gateway.receive(1, requests[-1], 0)
    return error.value.status


def test_more_names_than_a_stream_may_have(gateway):
    assert refused(gateway, delta(resource_names_subscribe=[*NAMES, "x"])) == "RESOURCE_EXHAUSTED"


def test_more_names_little_by_little(gateway):
    half = MOST_NAMES // 2
    requests = [delta(resource_names_subscribe=part) for part in (NAMES[:half], NAMES[half:], ["x"])]
    assert refused(gateway, *requests) == "RESOURCE_EXHAUSTED"


def test_names_that_are_held_count_once_and_those_let_go_not_at_all(gateway):
    gateway.connect(1, node_id="envoy")
    gateway.receive(1, delta(resource_names_subscribe=NAMES), 0)
    gateway.receive(1, delta(resource_names_subscribe=NAMES), 0)
    gateway.receive(1, delta(resource_names_subscribe=["x"], resource_names_unsubscribe=["c-0"]), 0)


def test_all_names_in_each_ack_of_the_state_of_the_world(gateway):
    session = gateway.connect(1, node_id="envoy", variant=Variant.SOTW)
    for _ in range(3):
        nonce = session._substream(ROUTE).last_nonce
        request = DiscoveryRequest(type_url=ROUTE, resource_names=NAMES, response_nonce=nonce)
        gateway.receive(1, request, 0)
        responses(session, 0)
    many = DiscoveryRequest(type_url=ROUTE, resource_names=[*NAMES, "x"])
    assert refused(gateway, many, variant=Variant.SOTW) == "RESOURCE_EXHAUSTED"


def test_assignments_that_there_are_not_come_in_parts(gateway):
    """Making an empty one takes longer than asking for it."""
    session = gateway.connect(1, node_id="envoy", variant=Variant.SOTW)
    gateway.receive(1, DiscoveryRequest(type_url=ENDPOINT, resource_names=NAMES), 0)
    (response,) = responses(session, 0)
    assert 1_000 < response.resources < MOST_NAMES / 5


def test_more_versions_than_a_stream_may_have_names(gateway):
    versions = dict.fromkeys([*NAMES, "x"], "1")
    assert refused(gateway, delta(initial_resource_versions=versions)) == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    "fields",
    [
        {"resource_names_subscribe": ["x" * (LONGEST_NAME + 1)]},
        {"initial_resource_versions": {"x" * (LONGEST_NAME + 1): "1"}},
        {"initial_resource_versions": {"x": "1" * (LONGEST_NAME + 1)}},
    ],
)
def test_names_and_versions_longer_than_any(gateway, fields):
    assert refused(gateway, delta(**fields)) == "INVALID_ARGUMENT"


def test_of_a_node_only_what_is_needed_is_kept(gateway):
    session = gateway.connect(1, node_id="envoy")
    node = Node(id="x" * 10_000, cluster="models/iris", locality=Locality(zone="z"), user_agent_name="y" * 10_000)
    gateway.receive(1, delta(node=node), 0)
    gateway.receive(1, delta(node=node), 0)
    assert session.node == Node(id="x" * LONGEST_NAME, cluster="models/iris")


def test_of_the_words_of_a_refusal_a_part_is_kept(gateway):
    session = gateway.connect(1, node_id="envoy")
    gateway.receive(1, delta(), 0)
    (response,) = responses(session, 0)
    error = Status(code=13, message="cluster a: " + "x" * 1_000_000)
    (event,) = gateway.receive(1, delta(response_nonce=response.nonce, error_detail=error), 0)
    assert len(event.message) == LONGEST_WORDS
    (rejection,) = gateway.rejections()
    assert (rejection.name, len(rejection.refusal.message)) == ("a", LONGEST_WORDS)


def test_an_endless_nonce_is_stale_and_not_repeated(gateway):
    gateway.connect(1, node_id="envoy")
    stale, _ = gateway.receive(1, delta(response_nonce="x" * 1_000_000), 0)
    assert isinstance(stale, Stale)
    assert len(stale.nonce) < 200


def test_a_refusal_of_very_many_names_is_searched_only_for_those_in_it():
    versions = dict.fromkeys(NAMES[:5_000], "1")
    found = blame(versions, "c-17: no good; d.c-18: no good " + "x" * LONGEST_WORDS, lambda name, version: False)
    assert found.culprits == ["c-17"]


def test_a_name_that_another_server_gave_no_version_is_still_removed(gateway):
    session = gateway.connect(1, node_id="envoy")
    gateway.receive(1, delta(initial_resource_versions={"a": "", "gone": ""}), 0)
    came = [decode_delta(response.frame) for response in responses(session, 100)]
    came += [decode_delta(response.frame) for response in responses(session, 200)]
    assert {entry.name for response in came for entry in response.resources} == {"a", "b"}
    assert {name for response in came for name in response.removed_resources} == {"gone"}


def decode_delta(frame):
    return decode(DeltaDiscoveryResponse, frame)


def test_a_refusal_of_names_that_are_gone_suspects_nobody_for_ever(gateway):
    session = gateway.connect(1, node_id="envoy")
    gateway.receive(1, delta(), 0)
    (response,) = responses(session, 0)
    gateway.publish([], [(CLUSTER, "a")])
    gateway.receive(1, delta(response_nonce=response.nonce, error_detail=Status(code=13, message="no")), 0)
    assert gateway.scope.suspects(CLUSTER) == {"b"}
    gateway.publish([], [(CLUSTER, "b")])
    assert not gateway.scope.suspects(CLUSTER)
