"""One test or more for each rule of the protocol, by its number in the project's list of rules.

The list follows the xDS specification and what stock Envoys were seen to do; each docstring quotes its rule.
"""

from __future__ import annotations

import pytest

from tests.session.harness import CLUSTER, ENDPOINT, LISTENER, ROUTE, Client, connected, make, what
from xds.session import Acknowledged, Rejected, Stale
from xds.wire import resource


def gateway(**more):
    """A client over two clusters with assignments, a listener, and a route to both."""
    return Client(
        make(CLUSTER, "a"), make(CLUSTER, "b"), make(ENDPOINT, "a"), make(ENDPOINT, "b"),
        make(LISTENER, "http", uses=["r"]), make(ROUTE, "r", uses=["a", "b"]), **more,
    )  # fmt: skip


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
