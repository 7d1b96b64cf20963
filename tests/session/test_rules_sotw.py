"""The rules of the protocol in the state of the world, by their numbers in the project's list; see `test_rules.py`."""

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
    SotwClient,
    connected,
    make,
    what,
)
from xds.session import Acknowledged, ProtocolError, Rejected, Stale, UnknownType
from xds.wire import resource


def gateway(**more):
    return SotwClient(
        make(CLUSTER, "a"), make(CLUSTER, "b"), make(ENDPOINT, "a"), make(ENDPOINT, "b"),
        make(LISTENER, "http", uses=["r"]), make(ROUTE, "r", uses=["a", "b"]), **more,
    )  # fmt: skip


def world(**more):
    return connected(SotwClient, **more)


def test_rule_1_node_only_in_the_first_request():
    client = gateway()
    client.say(CLUSTER, node="envoy-1")
    client.say(LISTENER)
    assert client.session.node.id == "envoy-1"


@pytest.mark.parametrize("type_", [CLUSTER, LISTENER, SCOPED_ROUTE])
def test_rule_2_a_first_request_without_names_means_all(type_):
    client = gateway()
    client.publish(make(SCOPED_ROUTE, "scope"))
    [got] = client.ask(type_)
    assert got.names == sorted(client.scope.names(type_))


@pytest.mark.parametrize("type_", [ENDPOINT, ROUTE, SECRET, EXTENSION])
def test_rule_2_but_not_for_types_without_a_wildcard(type_):
    client = gateway()
    client.publish(make(SECRET, "s"), make(EXTENSION, "e"))
    assert client.ask(type_) == []


def test_rule_2_names_end_the_legacy_wildcard():
    """That reading ends at the first named request: in the state of the world the names replace it."""
    client = gateway()
    client.take(CLUSTER)
    assert what(client.take(CLUSTER, ["a"])) == [("cds", ["a"], [])]
    client.publish(make(CLUSTER, "b", 1))
    assert client.get() == []


def test_rule_2_the_explicit_wildcard_beside_names_ends_and_comes_back():
    client = gateway()
    assert what(client.take(CLUSTER, ["*", "x"])) == [("cds", ["a", "b"], [])]
    client.take(CLUSTER, ["a"])
    client.publish(make(CLUSTER, "b", 1), make(CLUSTER, "a", 1))
    assert what(client.drain()) == [("cds", ["a"], [])]
    assert what(client.take(CLUSTER, ["*"])) == [("cds", ["a", "b"], [])]


def test_rule_4_a_name_asked_for_anew_is_sent():
    client = world()
    client.take(ENDPOINT, ["b"])
    assert what(client.take(ENDPOINT, ["a", "b"])) == [("eds", ["a"], [])]


def test_rule_5_an_unknown_assignment_is_answered_with_an_empty_one():
    """Silence for an EDS name stalls Envoy 15 s."""
    client = gateway()
    [got] = client.ask(ENDPOINT, ["new"])
    assert got.names == ["new"]
    assert client.ack(got) == []
    client.publish(make(ENDPOINT, "new"))
    assert what(client.get()) == [("eds", ["new"], [])]


@pytest.mark.parametrize("type_", [SECRET, EXTENSION, ROUTE])
def test_rule_5_but_of_other_types_nothing_is_said(type_):
    """Exceptions: ECDS, and SDS (an empty reply is NACKed); of routes there is no way to say it."""
    client = gateway()
    assert client.ask(type_, ["new"]) == []
    client.publish(make(type_, "new"))
    assert what(client.get()) == [(type_.short, ["new"], [])]


def test_rule_6_an_initial_wildcard_is_answered_even_if_empty():
    assert what(SotwClient().ask(CLUSTER)) == [("cds", [], [])]
    assert what(SotwClient().ask(LISTENER, ["*"])) == [("lds", [], [])]


def test_rule_6_an_unchanged_reconnect_gets_the_same_version():
    client = world()
    before = dict(client.taken)
    client.reconnect()
    came = [*client.take(CLUSTER), *client.take(ENDPOINT, ["a", "b"]), *client.take(LISTENER)]
    assert [got.version for got in came] == [before[got.type] for got in came]


def test_rule_7_nonces_are_unique_on_a_stream():
    client = world()
    nonces = []
    for rev in (1, 2, 1, 2):
        client.publish(make(CLUSTER, "a", rev))
        nonces += [got.nonce for got in client.drain()]
    assert len(nonces) == len(set(nonces)) >= 8


def test_rule_7_a_stale_nonce_is_ignored():
    """SotW ignores requests with a stale nonce."""
    client = gateway()
    [flying] = client.ask(ENDPOINT, ["a"])
    assert client.say(ENDPOINT, ["b"], nonce="s-other", error="of another life") == [
        Stale(type=ENDPOINT, nonce="s-other")
    ]
    assert client.get() == []
    assert client.ack(flying, ["a"]) == []


def test_rule_7_the_nonce_of_another_type_in_a_first_request_is_stale():
    client = gateway()
    [clusters] = client.ask(CLUSTER)
    assert client.say(LISTENER, nonce=clusters.nonce) == [Stale(type=LISTENER, nonce=clusters.nonce)]
    assert client.get() == []
    assert what(client.ask(LISTENER, nonce="")) == [("lds", ["http"], [])]


def test_rule_8_an_ack_says_what_was_taken():
    client = gateway()
    [got] = client.ask(CLUSTER)
    client.now += 1.5
    [event] = client.say(CLUSTER, nonce=got.nonce, version=got.version)
    assert event == Acknowledged(type=CLUSTER, nonce=got.nonce, versions=got.versions, removed=frozenset(), seconds=1.5)


def test_rule_8_a_nack_says_what_was_refused_and_why():
    client = world()
    client.publish(make(CLUSTER, "a", 1))
    got = client.get()[0]
    [event] = client.say(CLUSTER, nonce=got.nonce, error="bad ring")
    assert isinstance(event, Rejected)
    assert event.versions == {"a": got.versions["a"]}
    assert [(one.name, one.refusal.message) for one in client.gateway.rejections()] == [("a", "bad ring")]


def test_rule_8_a_nack_that_subscribes_is_served():
    client = world()
    client.take(ENDPOINT, ["a"])
    client.publish(make(ENDPOINT, "a", 1))
    [got] = client.get()
    assert sorted(name for came in client.nack(got, names=["a", "b"]) for name in came.names) == ["a", "b"]


def test_rule_8_an_ack_that_subscribes_and_lets_go_is_served():
    client = gateway()
    [got] = client.ask(ENDPOINT, ["a"])
    assert what(client.ack(got, ["b"])) == [("eds", ["b"], [])]
    client.publish(make(ENDPOINT, "a", 2))
    assert client.get() == []


def test_rule_8_refused_content_is_not_sent_again():
    client = world()
    bad = make(LISTENER, "http", 1)
    client.publish(bad)
    [got] = client.get()
    [back] = client.drain(client.nack(got))
    assert back.versions != got.versions
    client.publish(make(LISTENER, "other"))
    [got] = client.drain()
    assert got.names == ["http", "other"]
    assert bad.version not in got.versions.values()


def test_rule_9_sent_and_acknowledged_are_apart():
    client = world()
    old = client.held(ROUTE)["r"]
    client.publish(make(ROUTE, "r", 1, ["a"]))
    [got] = client.get()
    assert (client.view(ROUTE).sent["r"], client.view(ROUTE).acknowledged["r"]) == (got.versions["r"], old)


def test_rule_10_a_name_comes_once():
    client = gateway()
    [got] = client.ask(ENDPOINT, ["a", "a", "x", "x"])
    assert sorted(got.names) == ["a", "x"]


@pytest.mark.parametrize("type_", [CLUSTER, LISTENER, SCOPED_ROUTE])
def test_rule_11_of_some_types_all_is_listed(type_):
    """SotW LDS/CDS are full state; an empty one deletes all."""
    client = SotwClient(make(type_, "a"), make(type_, "b"), linger=0.0)
    client.take(type_)
    client.publish(make(type_, "a", 1))
    assert what(client.drain()) == [(type_.short, ["a", "b"], [])]
    client.publish(remove=[(type_, "a")])
    assert what(client.drain()) == [(type_.short, ["b"], [])]
    client.publish(remove=[(type_, "b")])
    assert what(client.drain()) == [(type_.short, [], [])]


@pytest.mark.parametrize("type_", [ENDPOINT, ROUTE, SECRET, EXTENSION])
def test_rule_11_of_others_what_changed(type_):
    """For other types an empty list means nothing."""
    client = SotwClient(make(type_, "a"), make(type_, "b"))
    client.take(type_, ["a", "b"])
    client.publish(make(type_, "a", 1))
    assert what(client.drain()) == [(type_.short, ["a"], [])]
    client.publish(remove=[(type_, "b")])
    assert client.get() == []


def test_rule_12_names_replace_those_before_and_none_lets_go_of_all():
    """SotW names replace the set; empty after named means unsubscribed."""
    client = world()
    client.take(ENDPOINT, ["b"])
    client.take(ENDPOINT, [])
    client.publish(make(ENDPOINT, "a", 1), make(ENDPOINT, "b", 1))
    assert client.get() == []


def test_rule_12_of_clusters_too():
    client = gateway()
    client.take(CLUSTER, ["a"])
    client.take(CLUSTER, [])
    client.publish(make(CLUSTER, "a", 1), make(CLUSTER, "b", 1))
    assert client.get() == []


def test_rule_12_what_waits_for_a_name_let_go_is_dropped():
    """Drop queued replies after an unsubscribe."""
    client = gateway()
    [flying] = client.ask(ENDPOINT, ["a", "b"])
    client.publish(make(ENDPOINT, "b", 1))
    assert client.ack(flying, ["a"]) == []


def test_rule_13_a_repeat_that_looks_like_an_ack_is_answered():
    """Envoy repeats an EDS request that looks like an ACK."""
    client = world()
    assert what(client.take(ENDPOINT)) == [("eds", ["a", "b"], [])]


def test_rule_13_an_assignment_follows_its_changed_cluster():
    client = world()
    client.publish(make(CLUSTER, "a", 1))
    assert what(client.get()) == [("cds", ["a", "b"], []), ("eds", ["a"], [])]


def test_rule_14_assignments_and_routes_only_on_request():
    client = gateway()
    client.take(CLUSTER)
    client.take(ENDPOINT, ["a"])
    client.publish(make(ENDPOINT, "a", 2), make(ENDPOINT, "b", 2), make(ROUTE, "r", 2, ["a"]))
    assert what(client.drain()) == [("eds", ["a"], [])]


def test_rule_15_clusters_endpoints_listeners_routes_and_removals_last():
    client = world(linger=3.0)
    client.publish(
        make(ROUTE, "r", 2, ["a"]), make(LISTENER, "http", 2, ["r"]), make(ENDPOINT, "a", 2), make(CLUSTER, "a", 2),
        remove=[(CLUSTER, "b"), (ENDPOINT, "b")],
    )  # fmt: skip
    came = client.get()
    assert [got.type for got in came] == [CLUSTER, ENDPOINT, LISTENER, ROUTE]
    assert came[0].names == ["a", "b"]
    assert client.drain(came[1:]) == came[1:]
    assert client.drain(came[:1]) == came[:1]
    assert what(client.later(3.0)) == [("cds", ["a"], [])]


def test_rule_15_a_route_waits_for_its_new_cluster():
    client = world()
    client.publish(make(CLUSTER, "c"), make(ROUTE, "r", 1, ["c"]))
    [clusters] = client.get()
    assert what(client.ack(clusters)) == [("rds", ["r"], [])]


def test_rule_15_a_route_of_a_client_that_warms_since_before_waits_for_its_request_for_clusters():
    """It comes with the version of an earlier stream, and holds back its first request for clusters."""
    client = world()
    client.scope.update([make(CLUSTER, "c"), make(ROUTE, "r", 1, ["c"])])
    client.reconnect()
    assert client.ask(ROUTE, ["r"]) == []
    [clusters] = client.ask(CLUSTER)
    assert what(client.ack(clusters)) == [("rds", ["r"], [])]


def test_rule_16_each_type_is_a_stream_of_its_own():
    client = gateway()
    [clusters] = client.ask(CLUSTER)
    [listeners] = client.ask(LISTENER)
    assert client.say(LISTENER, nonce=clusters.nonce) == [Stale(type=LISTENER, nonce=clusters.nonce)]
    assert client.view(CLUSTER).in_flight == (clusters.nonce,)
    assert client.view(LISTENER).in_flight == (listeners.nonce,)


def test_rule_16_a_missing_type_is_an_invalid_argument():
    with pytest.raises(ProtocolError, match="type_url is missing"):
        gateway().say("")


def test_rule_16_but_a_stream_of_one_type_need_not_name_it():
    client = gateway(types=(CLUSTER,))
    client.say("")
    assert what(client.get()) == [("cds", ["a", "b"], [])]
    with pytest.raises(ProtocolError, match="which is all that this stream serves"):
        client.say(LISTENER)


def test_rule_17_one_response_in_flight_and_the_rest_in_one():
    client = world()
    client.publish(make(LISTENER, "http", 1))
    [flying] = client.get()
    for rev in range(2, 20):
        client.publish(make(LISTENER, "http", rev), make(LISTENER, "more", rev))
        assert client.get() == []
    [got] = client.ack(flying)
    assert got.names == ["http", "more"]
    assert client.ack(got) == []


def test_rule_17_a_rollback_goes_out_at_once():
    client = world()
    good = client.scope.get(CLUSTER, "a")
    client.publish(make(CLUSTER, "a", 1))
    client.get()
    client.publish(good)
    back = client.get()[0]
    assert (back.type, back.versions["a"]) == (CLUSTER, good.version)


def test_rule_17_one_answer_stands_for_all_before_it():
    """An Envoy that warms clusters keeps one answer only, that to the last response."""
    client = world()
    good = client.scope.get(CLUSTER, "a")
    client.publish(make(CLUSTER, "a", 1), make(CLUSTER, "c"))
    client.get()
    client.publish(good)
    last = client.get()[0]
    client.drain(client.ack(last))
    assert client.view(CLUSTER).in_flight == ()
    assert client.held(CLUSTER)["c"] == client.scope.get(CLUSTER, "c").version


def test_rule_17_and_an_error_in_it_may_be_of_one_before():
    """The version that it tells says that it took the last one."""
    client = world()
    good = client.scope.get(CLUSTER, "a")
    client.publish(make(CLUSTER, "a", 1))
    client.get()
    client.publish(good)
    last = client.get()[0]
    events = client.say(CLUSTER, nonce=last.nonce, version=last.version, error="cluster a: no good")
    assert [type(event) for event in events] == [Rejected, Acknowledged]
    assert client.gateway.rejections() == ()
    assert client.scope.has_been_good(CLUSTER, "a", good.version)
    assert not client.scope.is_refused(CLUSTER, "a", good.version)
    assert client.view(CLUSTER).in_flight == ()


def test_rule_18_equal_content_is_not_sent():
    client = world()
    client.publish(make(ENDPOINT, "a"), make(ENDPOINT, "b", 2))
    assert what(client.get()) == [("eds", ["b"], [])]


def test_rule_19_all_there_is_is_never_split():
    """SotW LDS/CDS may not."""
    client = SotwClient(*(make(CLUSTER, f"c{i}") for i in range(50)), limit=100)
    [got] = client.ask(CLUSTER)
    assert len(got.names) == 50


def test_rule_19_but_assignments_may():
    names = [f"c{i}" for i in range(50)]
    client = SotwClient(*(make(ENDPOINT, name) for name in names), limit=500)
    came = client.take(ENDPOINT, names)
    assert len(came) > 1
    assert sorted(name for got in came for name in got.names) == sorted(names)


@pytest.mark.parametrize(
    "type_url", ["type.googleapis.com/envoy.config.route.v3.VirtualHost", "type.googleapis.com/my.Own"]
)
def test_rule_21_types_of_others_harm_nothing(type_url):
    client = gateway()
    assert client.say(type_url, ["x"]) == [UnknownType(type_url=type_url)]
    assert client.get() == []


def test_rule_21_new_style_names_are_names():
    name = "xdstp://authority/envoy.config.cluster.v3.Cluster/a?x=y"
    client = gateway()
    client.publish(resource(CLUSTER, name, make(CLUSTER, name).body))
    assert what(client.take(CLUSTER, [name])) == [("cds", [name], [])]


def test_rule_22_the_control_plane_says_who_it_is():
    assert [got.control_plane for got in gateway().ask(CLUSTER)] == ["xdserve-test"]
