"""One test or more for each rule of the protocol, by its number in the project's list of rules.

The list follows the xDS specification and what stock Envoys were seen to do; each docstring quotes its rule.
"""

from __future__ import annotations

import pytest

from tests.session.harness import CLUSTER, ENDPOINT, LISTENER, ROUTE, Client, make
from xds.session import Acknowledged, ProtocolError, Rejected, Stale, Subscribed, UnknownType
from xds.types import ResourceType
from xds.wire import resource


def gateway(**more):
    """A client over two clusters with assignments, a listener, and a route to both."""
    return Client(
        make(CLUSTER, "a"), make(CLUSTER, "b"), make(ENDPOINT, "a"), make(ENDPOINT, "b"),
        make(LISTENER, "http", uses=["r"]), make(ROUTE, "r", uses=["a", "b"]), **more,
    )  # fmt: skip


def connected(**more):
    """The same, with everything acknowledged."""
    client = gateway(**more)
    client.take(CLUSTER)
    client.take(ENDPOINT, ["a", "b"])
    client.take(LISTENER)
    client.take(ROUTE, ["r"])
    return client


def what(responses):
    return [(got.type.short, got.names, got.removed) for got in responses]


def all_versions(client, type_):
    return {name: client.scope.get(type_, name).version for name in client.scope.names(type_)}


def test_rule_1_node_only_in_the_first_request():
    """Node only in the first request."""
    client = gateway()
    client.say(CLUSTER, node="envoy-1")
    client.say(LISTENER)
    assert client.session.node.id == "envoy-1"
    client.say(ROUTE, ["r"], node="envoy-2")
    assert client.session.node.id == "envoy-1"


@pytest.mark.parametrize("type_", [CLUSTER, LISTENER])
def test_rule_2_an_empty_first_subscribe_means_all(type_):
    """An empty first `resource_names_subscribe` means `*`."""
    client = gateway()
    [got] = client.ask(type_)
    assert got.names == sorted(client.scope.names(type_))
    assert client.view(type_).wildcard


@pytest.mark.parametrize("type_", [ENDPOINT, ROUTE])
def test_rule_2_but_not_for_types_without_a_wildcard(type_):
    client = gateway()
    assert client.ask(type_) == []
    assert not client.view(type_).wildcard


def test_rule_2_a_first_subscribe_with_names_is_no_wildcard():
    assert what(gateway().ask(CLUSTER, ["b"])) == [("cds", ["b"], [])]


def test_rule_2_the_wildcard_stays_beside_names_until_it_is_unsubscribed():
    """That reading ends at the first named subscribe; the wildcard itself stays until `*` is unsubscribed."""
    client = gateway()
    client.take(CLUSTER)
    client.take(CLUSTER, ["a"])
    client.publish(make(CLUSTER, "c"))
    assert what(client.drain()) == [("cds", ["c"], [])]
    client.say(CLUSTER, unsubscribe=["*"])
    client.publish(make(CLUSTER, "a", 2), make(CLUSTER, "c", 2))
    assert what(client.drain()) == [("cds", ["a"], [])]


def test_rule_2_an_explicit_wildcard_may_come_back():
    client = gateway()
    client.take(CLUSTER, ["*"])
    client.take(CLUSTER, unsubscribe=["*"])
    assert what(client.ask(CLUSTER, ["*"])) == [("cds", ["a", "b"], [])]


def test_rule_3_unsubscribing_a_name_beside_the_wildcard_is_answered():
    """Unsubscribing a name while `*` is held needs an answer, in `resources` or in `removed_resources`."""
    client = gateway()
    client.take(CLUSTER)
    client.take(CLUSTER, ["a", "on-demand"])
    assert what(client.ask(CLUSTER, unsubscribe=["a", "on-demand"])) == [("cds", ["a"], ["on-demand"])]


def test_rule_3_names_that_are_not_held_are_ignored():
    """Ignore unsubscribes of names that are not held."""
    client = gateway()
    client.take(CLUSTER)
    client.take(ENDPOINT, ["a"])
    assert client.ask(CLUSTER, unsubscribe=["a", "nobody"]) == []
    assert client.ask(ENDPOINT, unsubscribe=["b", "*"]) == []


def test_rule_4_resubscribing_resends():
    """Resubscribing a held name must resend it, even unchanged."""
    client = connected()
    assert what(client.ask(ENDPOINT, ["a"])) == [("eds", ["a"], [])]


def test_rule_4_resubscribing_the_wildcard_resends():
    assert what(connected().ask(CLUSTER, ["*"]))[0] == ("cds", ["a", "b"], [])


def test_rule_4_initial_versions_count_on_the_first_request_only():
    """Versions listed in `initial_resource_versions` may be skipped, on the first request of a type only."""
    client = gateway()
    versions = all_versions(client, ENDPOINT)
    assert client.ask(ENDPOINT, ["a", "b"], initial=versions) == []
    assert what(client.ask(ENDPOINT, ["a"], initial=versions)) == [("eds", ["a"], [])]


def test_rule_5_an_unknown_name_is_said_to_be_absent_and_sent_when_it_appears():
    """Answer `removed_resources`, keep the subscription, send it when it appears."""
    client = gateway()
    [got] = client.ask(ENDPOINT, ["new"])
    assert (got.names, got.removed) == ([], ["new"])
    client.ack(got)
    client.publish(make(ENDPOINT, "new"))
    assert what(client.get()) == [("eds", ["new"], [])]


def test_rule_5_absence_is_said_once():
    client = gateway()
    client.take(ENDPOINT, ["new"])
    client.publish(remove=[(ENDPOINT, "new")])
    assert client.get() == []


def test_rule_6_a_reconnect_gets_what_changed_and_what_is_gone():
    """Send what changed since `initial_resource_versions`, and `removed` for names now gone."""
    client = connected()
    versions = all_versions(client, LISTENER) | {"old": "1"}
    client.scope.update([make(LISTENER, "new")])
    client.reconnect()
    assert what(client.ask(LISTENER, initial=versions)) == [("lds", ["new"], ["old"])]


def test_rule_6_an_initial_wildcard_is_answered_even_if_empty():
    """Answer an initial wildcard even if the answer is empty."""
    assert what(Client().ask(CLUSTER)) == [("cds", [], [])]
    assert what(Client().ask(LISTENER, ["*"])) == [("lds", [], [])]


def test_rule_6_an_unchanged_reconnect_gets_no_resource():
    """On an unchanged reconnect, nothing is resent."""
    client = connected()
    client.reconnect()
    came = []
    for type_, names in ((CLUSTER, []), (ENDPOINT, ["a", "b"]), (LISTENER, []), (ROUTE, ["r"])):
        came += client.take(type_, names, initial=all_versions(client, type_))
    assert what(came) == [("cds", [], []), ("lds", [], [])]
    assert client.session.acknowledged(ROUTE, "r") == client.scope.get(ROUTE, "r").version


def test_rule_6_versions_are_of_the_content():
    """Versions are content hashes, equal across replicas and restarts."""
    assert make(CLUSTER, "a", 1).version == make(CLUSTER, "a", 1).version != make(CLUSTER, "a", 2).version
    assert resource(CLUSTER, "a", b"content").version == resource(CLUSTER, "b", b"content").version


def test_rule_7_nonces_are_unique_on_a_stream():
    """Nonces are unique per response and stream, not derived from the version."""
    client = connected()
    nonces = []
    for rev in (1, 2, 1, 2):
        client.publish(make(CLUSTER, "a", rev))
        nonces += [got.nonce for got in client.drain()]
    assert len(nonces) == len(set(nonces)) == 8
    assert all(nonce.startswith("s-") for nonce in nonces)


def test_rule_7_a_stale_nonce_still_subscribes():
    """Delta honours subscription changes even when the nonce is stale."""
    client = gateway()
    events = client.say(ENDPOINT, ["a"])
    [flying] = client.get()
    events = client.say(ENDPOINT, ["b"], nonce="s-other", error="of another life")
    assert events[0] == Stale(type=ENDPOINT, nonce="s-other")
    assert client.get() == []
    assert client.view(ENDPOINT).in_flight == (flying.nonce,)
    assert what(client.ack(flying)) == [("eds", ["b"], [])]


def test_rule_8_an_ack_says_what_was_taken():
    client = gateway()
    [got] = client.ask(CLUSTER)
    client.now += 1.5
    [event] = client.say(CLUSTER, nonce=got.nonce)
    assert event == Acknowledged(type=CLUSTER, nonce=got.nonce, versions=got.versions, removed=frozenset(), seconds=1.5)
    assert client.view(CLUSTER).acknowledged == got.versions


def test_rule_8_a_nack_says_what_was_refused_and_why():
    """NACK means `error_detail` is present."""
    client = gateway()
    [got] = client.ask(CLUSTER)
    [event] = client.say(CLUSTER, nonce=got.nonce, error="")
    assert isinstance(event, Rejected)
    [got] = (client.publish(make(CLUSTER, "a", 2)), client.get())[1]
    [event] = client.say(CLUSTER, nonce=got.nonce, error="bad ring")
    assert (event.code, event.message, event.versions) == (13, "bad ring", got.versions)
    assert [(one.name, one.refusal.message) for one in client.gateway.rejections()] == [("a", "bad ring")]
    assert client.view(CLUSTER).acknowledged == {}


def test_rule_8_a_nack_that_subscribes_is_served():
    """Envoy merges subscription changes into ACKs and NACKs, so a NACK that also subscribes must be served."""
    client = gateway()
    [got] = client.ask(ENDPOINT, ["a"])
    assert what(client.nack(got, subscribe=["b"])) == [("eds", ["b"], ["a"])]


def test_rule_8_an_ack_that_subscribes_and_lets_go_is_served():
    client = gateway()
    [got] = client.ask(ENDPOINT, ["a"])
    assert what(client.ack(got, subscribe=["b"], unsubscribe=["a"])) == [("eds", ["b"], [])]
    client.publish(make(ENDPOINT, "a", 2))
    assert client.get() == []


def test_rule_8_refused_content_is_not_sent_again():
    """Never resend identical content after a NACK (endless loop)."""
    client = connected()
    bad = make(LISTENER, "http", 1)
    client.publish(bad)
    [got] = client.get()
    assert what(client.drain(client.nack(got))) == [("lds", ["http"], [])]
    client.publish(bad)
    assert client.get() == []
    client.publish(make(LISTENER, "other"))
    assert what(client.drain()) == [("lds", ["other"], [])]
    client.publish(make(LISTENER, "http", 2))
    assert client.nack(client.get()[0]) != []
    client.drain()
    client.publish(bad)
    assert client.drain() == []


def test_rule_8_a_changed_input_is_tried_again():
    client = connected()
    good, bad = make(LISTENER, "http", 0, ["r"]), make(LISTENER, "http", 1)
    client.publish(bad)
    client.drain(client.nack(client.get()[0]))
    client.publish(good)
    assert client.gateway.rejections() == ()
    client.publish(bad)
    assert what(client.drain()) == [("lds", ["http"], [])]
    assert client.gateway.rejections() == ()


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
