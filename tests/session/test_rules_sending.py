"""The rules of the protocol in delta from the ninth on, by their numbers in the project's list; see `test_rules.py`."""

from __future__ import annotations

import pytest

from tests.session.harness import (
    CLUSTER,
    ENDPOINT,
    EXTENSION,
    LISTENER,
    ROUTE,
    SCOPED_ROUTE,
    SECRET,
    Client,
    connected,
    make,
    what,
)
from tests.support.streams import responses
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryResponse
from xds.session import ProtocolError, Stale, Subscribed, UnknownType
from xds.types import ResourceType
from xds.wire import decode, resource


def gateway(**more):
    """A client over two clusters with assignments, a listener, and a route to both."""
    return Client(
        make(CLUSTER, "a"), make(CLUSTER, "b"), make(ENDPOINT, "a"), make(ENDPOINT, "b"),
        make(LISTENER, "http", uses=["r"]), make(ROUTE, "r", uses=["a", "b"]), **more,
    )  # fmt: skip


def all_versions(client, type_):
    return {name: client.scope.get(type_, name).version for name in client.scope.names(type_)}


def test_rule_9_sent_and_acknowledged_are_apart():
    """Keep *sent* and *acked* versions apart."""
    client = connected()
    old = client.scope.get(ROUTE, "r").version
    client.publish(make(ROUTE, "r", 1, ["a"]))
    [got] = client.get()
    assert (client.view(ROUTE).sent["r"], client.view(ROUTE).acknowledged["r"]) == (got.versions["r"], old)
    client.nack(got)
    assert client.view(ROUTE).acknowledged["r"] == old


def test_rule_9_a_missing_ack_holds_its_own_type_only():
    client = gateway()
    client.ask(CLUSTER)
    assert what(client.take(ENDPOINT, ["a", "b"])) == [("eds", ["a", "b"], [])]
    assert what(client.take(LISTENER)) == [("lds", ["http"], [])]


def test_rule_10_a_name_comes_once():
    """No duplicate name in a response, nor a name both in `resources` and `removed_resources`."""
    client = gateway()
    [got] = client.ask(ENDPOINT, ["a", "a", "x", "x"], unsubscribe=["x"])
    assert (got.names, got.removed) == (["a"], ["x"])
    client.publish(make(ENDPOINT, "x"), remove=[(ENDPOINT, "a"), (ENDPOINT, "x")])
    [got] = client.ack(got)
    assert (got.names, got.removed) == (["x"], ["a"])


def test_rule_13_an_assignment_follows_its_changed_cluster():
    """Resend EDS after its cluster changed."""
    client = connected()
    client.publish(make(CLUSTER, "a", 2))
    assert what(client.get()) == [("cds", ["a"], []), ("eds", ["a"], [])]


def test_rule_13_also_when_an_assignment_is_in_flight():
    client = connected()
    client.publish(make(ENDPOINT, "a", 2))
    [flying] = client.get()
    client.publish(make(CLUSTER, "a", 2))
    assert what(client.get()) == [("cds", ["a"], [])]
    assert what(client.ack(flying)) == [("eds", ["a"], [])]


@pytest.mark.parametrize("asked_before", [False, True])
def test_rule_13_also_on_a_reconnect(asked_before):
    """An Envoy asks for its assignments before it read of the changed cluster, and lists them as known."""
    client = connected()
    clusters, assignments = all_versions(client, CLUSTER), all_versions(client, ENDPOINT)
    client.scope.update([make(CLUSTER, "a", 2)])
    client.reconnect()
    came = []
    if asked_before:
        came += client.ask(ENDPOINT, ["a", "b"], initial=assignments)
    came += client.ask(CLUSTER, initial=clusters)
    if not asked_before:
        came += client.ask(ENDPOINT, ["a", "b"], initial=assignments)
    assert what(came) == [("cds", ["a"], []), ("eds", ["a"], [])]


def test_rule_13_an_absent_assignment_is_said_to_be_absent_again():
    """Silence for an EDS name stalls Envoy."""
    client = connected()
    client.take(ENDPOINT, ["c"])
    client.publish(make(CLUSTER, "c"))
    assert what(client.get()) == [("cds", ["c"], []), ("eds", [], ["c"])]


def test_rule_14_assignments_and_routes_only_on_request():
    """EDS/RDS/SDS only on request, remembered until unsubscribed."""
    client = gateway()
    client.take(CLUSTER)
    client.take(LISTENER)
    client.take(ENDPOINT, ["a"])
    client.publish(make(ENDPOINT, "a", 2), make(ENDPOINT, "b", 2), make(ROUTE, "r", 2, ["a"]))
    assert what(client.drain()) == [("eds", ["a"], [])]
    client.take(ENDPOINT, unsubscribe=["a"])
    client.publish(make(ENDPOINT, "a", 3))
    assert client.get() == []


def test_rule_15_the_order_is_clusters_endpoints_listeners_routes():
    """CDS, EDS, LDS, RDS, then removals."""
    client = connected(linger=0.0)
    client.publish(
        make(ROUTE, "r", 2, ["a"]), make(LISTENER, "http", 2, ["r"]), make(ENDPOINT, "a", 2), make(CLUSTER, "a", 2)
    )
    assert [got.type for got in client.get()] == [CLUSTER, ENDPOINT, LISTENER, ROUTE]


def test_rule_15_removals_come_last_and_the_other_way():
    client = connected(linger=0.0)
    client.take(ENDPOINT, ["x"])
    client.publish(remove=[(ROUTE, "r"), (LISTENER, "http")])
    client.publish(make(CLUSTER, "a", 2), make(ENDPOINT, "x"))
    assert what(client.get()) == [
        ("cds", ["a"], []), ("eds", ["a", "x"], []), ("rds", [], ["r"]), ("lds", [], ["http"]),
    ]  # fmt: skip


def test_rule_16_each_type_is_a_stream_of_its_own():
    """Each type is its own sub-stream with its own version and nonce."""
    client = gateway()
    [clusters] = client.ask(CLUSTER)
    [listeners] = client.ask(LISTENER)
    [event] = client.say(LISTENER, nonce=clusters.nonce)
    assert event == Stale(type=LISTENER, nonce=clusters.nonce)
    assert client.view(CLUSTER).in_flight == (clusters.nonce,)
    assert client.view(LISTENER).in_flight == (listeners.nonce,)


def test_rule_16_a_missing_type_is_an_invalid_argument():
    """A missing `type_url` is InvalidArgument."""
    with pytest.raises(ProtocolError, match="type_url is missing") as caught:
        gateway().say("")
    assert caught.value.status == "INVALID_ARGUMENT"


def test_rule_16_an_unknown_type_harms_nothing():
    client = gateway()
    assert client.say("type.googleapis.com/my.Own") == [UnknownType(type_url="type.googleapis.com/my.Own")]
    assert client.get() == []
    assert what(client.ask(CLUSTER)) == [("cds", ["a", "b"], [])]


def test_rule_17_one_response_in_flight_and_the_rest_in_one():
    """One response in flight per type; what changes meanwhile is coalesced into the next one."""
    client = connected()
    client.publish(make(LISTENER, "http", 1))
    [flying] = client.get()
    for rev in range(2, 50):
        client.publish(make(LISTENER, "http", rev))
        client.publish(make(LISTENER, "more", rev))
        assert client.get() == []
    [got] = client.ack(flying)
    assert got.versions == all_versions(client, LISTENER)
    assert client.ack(got) == []


def test_rule_17_a_change_and_its_undoing_in_flight_send_nothing():
    client = connected()
    client.publish(make(LISTENER, "http", 1))
    [flying] = client.get()
    client.publish(make(LISTENER, "http", 2))
    client.publish(make(LISTENER, "http", 1))
    assert client.ack(flying) == []


def test_rule_18_only_what_changed_is_sent():
    """Send only what changed."""
    client = connected()
    client.publish(*(client.scope.get(type_, name) for type_ in ResourceType for name in client.scope.names(type_)))
    assert client.get() == []
    client.publish(make(ENDPOINT, "a"), make(ENDPOINT, "b", 2))
    assert what(client.get()) == [("eds", ["b"], [])]


def test_rule_19_a_large_answer_is_split():
    """Delta responses may be split."""
    big = [resource(CLUSTER, f"c{i}", bytes([i]) * 1000) for i in range(10)]
    client = Client(*big, resource(CLUSTER, "huge", bytes(9000)), limit=4000)
    came = client.take(CLUSTER)
    assert [len(got.names) for got in came] == [3, 3, 3, 1, 1]
    assert sorted(name for got in came for name in got.names) == sorted(client.scope.names(CLUSTER))


def test_rule_19_a_million_unknown_names_are_answered_in_parts():
    client = Client(limit=4000)
    came = client.take(ENDPOINT, [f"name-{i:04}" for i in range(1000)])
    assert len(came) == 3
    assert sum(len(got.removed) for got in came) == 1000


def test_rule_22_the_control_plane_says_who_it_is():
    """`control_plane.identifier` is set."""
    assert [got.control_plane for got in gateway().ask(CLUSTER)] == ["xdserve-test"]


def test_what_was_asked_for_is_told():
    client = gateway()
    assert client.say(CLUSTER) == [Subscribed(type=CLUSTER, first=True, names=frozenset({"*"}), dropped=frozenset())]
    client.say(ENDPOINT, ["a"])
    assert client.say(ENDPOINT, ["b"], ["a"]) == [
        Subscribed(type=ENDPOINT, first=False, names=frozenset({"b"}), dropped=frozenset({"a"}))
    ]


def test_a_client_keeps_nothing_alive_that_it_let_go():
    """Names that come and go leave nothing behind."""
    client = Client(linger=0.0)
    client.take(CLUSTER)
    client.take(ENDPOINT)
    for round_ in range(20):
        client.publish(make(CLUSTER, f"c{round_}"), make(ENDPOINT, f"c{round_}"))
        client.take(ENDPOINT, [f"c{round_}"])
        client.drain()
        client.publish(remove=[(CLUSTER, f"c{round_}"), (ENDPOINT, f"c{round_}")])
        client.drain()
        client.take(ENDPOINT, unsubscribe=[f"c{round_}"])
    for type_ in (CLUSTER, ENDPOINT):
        view = client.view(type_)
        assert (view.sent, view.acknowledged, view.waiting) == ({}, {}, {})


def test_rule_20_no_resource_is_ever_sent_without_its_body():
    """TTL/heartbeat: same version, no body. None is used: an Envoy that asks again gets the whole."""
    client = connected()
    client.say(ENDPOINT, ["a"])
    [response] = responses(client.session, client.now)
    assert [entry.resource.value for entry in decode(DeltaDiscoveryResponse, response.frame).resources] == [
        make(ENDPOINT, "a").body
    ]


@pytest.mark.parametrize(
    "type_url", ["type.googleapis.com/envoy.config.route.v3.VirtualHost", "type.googleapis.com/envoy.api.v2.Cluster"]
)
def test_rule_21_types_of_others_harm_nothing(type_url):
    """Aliases, xdstp, VHDS: not needed now; they must not crash the server."""
    client = gateway()
    assert client.say(type_url, ["r/host"], ["x"]) == [UnknownType(type_url=type_url)]
    assert client.get() == []


def test_rule_21_new_style_names_are_names():
    name = "xdstp://authority/envoy.config.cluster.v3.Cluster/a?x=y"
    client = gateway()
    assert what(client.take(CLUSTER, [name])) == [("cds", [], [name])]
    client.publish(make(CLUSTER, name))
    assert what(client.take(CLUSTER, ["xdstp://authority/envoy.config.cluster.v3.Cluster/*"])) != []
    assert client.held(CLUSTER).keys() == {name}


def test_rule_23_on_demand_names_beside_the_wildcard():
    """The request waits until the server sends the cluster and its endpoints."""
    client = connected()
    [got] = client.ask(CLUSTER, ["sleeper"])
    assert (got.names, got.removed) == ([], ["sleeper"])
    assert client.ack(got) == []
    client.publish(make(CLUSTER, "sleeper"), make(ENDPOINT, "sleeper"))
    [clusters] = client.get()
    assert clusters.names == ["sleeper"]
    assert what(client.ask(ENDPOINT, ["sleeper"])) == [("eds", ["sleeper"], [])]


def test_rule_23_one_that_is_there_is_sent_again():
    assert what(connected().ask(CLUSTER, ["a"]))[0] == ("cds", ["a"], [])


class TestTheOtherTypes:
    @pytest.mark.parametrize("type_", [SECRET, EXTENSION])
    def test_of_what_there_is_not_nothing_is_said(self, type_):
        """Exceptions: ECDS, and SDS (an empty reply is NACKed)."""
        client = Client()
        assert client.ask(type_, ["x"]) == []
        client.publish(make(type_, "x"))
        assert what(client.drain()) == [(type_.short, ["x"], [])]

    @pytest.mark.parametrize("type_", [SECRET, EXTENSION])
    def test_nor_of_what_is_removed(self, type_):
        client = Client(make(type_, "x"))
        client.take(type_, ["x"])
        client.publish(remove=[(type_, "x")])
        assert client.get() == []
        client.publish(make(type_, "x", 1))
        assert what(client.drain()) == [(type_.short, ["x"], [])]

    def test_scopes_have_a_wildcard_and_are_removed(self):
        client = Client(make(SCOPED_ROUTE, "x"), make(SCOPED_ROUTE, "y"))
        assert what(client.take(SCOPED_ROUTE)) == [("srds", ["x", "y"], [])]
        client.publish(remove=[(SCOPED_ROUTE, "x")])
        assert what(client.drain()) == [("srds", [], ["x"])]

    def test_secrets_go_first_and_routes_last(self):
        client = Client()
        for type_ in ResourceType:
            client.take(type_, [] if type_.wildcard else ["x"])
        client.publish(*(make(type_, "x") for type_ in reversed(ResourceType)))
        assert [got.type.short for got in client.get()] == ["sds", "cds", "eds", "ecds", "lds", "srds", "rds"]

    @pytest.mark.parametrize("type_", ResourceType)
    def test_each_has_a_stream_of_its_own(self, type_):
        client = Client(make(type_, "x"), types=(type_,))
        client.say("", [] if type_.wildcard else ["x"])
        assert what(client.drain()) == [(type_.short, ["x"], [])]
        other = next(found for found in ResourceType if found is not type_)
        with pytest.raises(ProtocolError, match="which is all that this stream serves"):
            client.say(other)
