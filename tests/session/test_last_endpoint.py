"""A backend that loses its last endpoint: the routes leave first, as with a cluster that is removed."""

from __future__ import annotations

from dataclasses import replace

from tests.session.harness import CLUSTER, ENDPOINT, LISTENER, ROUTE, Client, make
from xds.session.gates import DOUBT

FILLED = make(ENDPOINT, "b")
VACANT = replace(make(ENDPOINT, "b", 1), vacant=True)
BOTH, FIRST = make(ROUTE, "r", 0, ["a", "b"]), make(ROUTE, "r", 1, ["a"])


def what(responses):
    return [(got.type.short, got.names, got.removed) for got in responses]


def connected():
    clusters = [make(CLUSTER, "a"), make(CLUSTER, "b")]
    client = Client(*clusters, make(ENDPOINT, "a"), FILLED, make(LISTENER, "http", uses=["r"]), BOTH)
    client.take(CLUSTER)
    client.take(ENDPOINT, ["a", "b"])
    client.take(LISTENER)
    client.take(ROUTE, ["r"])
    return client


def test_it_goes_when_the_routes_that_leave_it_are_acknowledged():
    client = connected()
    client.publish(VACANT, FIRST)
    [routes] = client.get()
    assert what([routes]) == [("rds", ["r"], [])]
    assert client.view(ENDPOINT).waiting == {"b": "ACK of routes that leave it"}
    assert client.later(3600) == []
    assert what(client.ack(routes)) == [("eds", ["b"], [])]


def test_it_goes_when_the_routes_that_leave_it_are_refused():
    """Nobody knows when they are mended, and until then another pod may have the addresses."""
    client = connected()
    client.publish(VACANT, FIRST)
    [routes] = client.get()
    assert what(client.drain(client.nack(routes))) == [("eds", ["b"], []), ("rds", ["r"], [])]


def test_it_goes_when_routes_are_refused_and_none_are_known_to_be_good():
    """As after a restart that knows nothing: the client keeps the routes that it came with."""
    before = connected()
    clusters = [make(CLUSTER, "a"), make(CLUSTER, "b")]
    client = Client(*clusters, make(ENDPOINT, "a"), FILLED, make(LISTENER, "http", uses=["r"]), FIRST)
    for type_, names in ((CLUSTER, ()), (ENDPOINT, ["a", "b"]), (LISTENER, ())):
        client.take(type_, names, initial=before.held(type_))
    [routes] = client.ask(ROUTE, ["r"], initial=before.held(ROUTE))
    assert client.nack(routes) == []
    client.publish(VACANT)
    assert what(client.drain()) == [("eds", ["b"], [])]


def test_it_goes_when_its_cluster_is_kept_for_the_routes_that_are_served():
    client = connected()
    client.publish(FIRST, remove=[(CLUSTER, "b"), (ENDPOINT, "b")])
    client.drain(client.nack(client.get()[0]))
    client.gateway.refresh(VACANT)
    assert what(client.drain()) == [("eds", ["b"], [])]


def test_where_the_routes_stay_it_goes_at_once():
    client = connected()
    client.publish(VACANT)
    assert what(client.get()) == [("eds", ["b"], [])]


def test_endpoints_that_come_back_meanwhile_are_sent():
    client = connected()
    client.publish(VACANT, FIRST)
    [routes] = client.get()
    client.publish(make(ENDPOINT, "b", 2), make(ROUTE, "r", 3, ["a", "b"]))
    assert what(client.get()) == [("eds", ["b"], [])]
    assert what(client.ack(routes)) == [("rds", ["r"], [])]


def test_what_only_loses_some_endpoints_does_not_wait():
    client = connected()
    client.publish(make(ENDPOINT, "b", 1), FIRST)
    assert what(client.get()) == [("eds", ["b"], []), ("rds", ["r"], [])]


def test_a_cluster_that_warms_gets_its_assignment_at_once():
    client = connected()
    client.publish(make(CLUSTER, "b", 1), VACANT, FIRST)
    assert what(client.get()) == [("cds", ["b"], []), ("eds", ["b"], []), ("rds", ["r"], [])]


def test_who_asks_gets_it_at_once():
    client = connected()
    client.publish(VACANT, FIRST)
    assert what(client.get()) == [("rds", ["r"], [])]
    assert what(client.ask(ENDPOINT, ["b"])) == [("eds", ["b"], [])]


def test_a_client_that_comes_back_with_routes_nobody_knows_keeps_its_endpoints_until_it_has_the_new_ones():
    client = connected()
    versions = {type_: dict(client.view(type_).acknowledged) for type_ in (CLUSTER, ENDPOINT, LISTENER, ROUTE)}
    client.scope.update([VACANT, FIRST])
    client.reconnect()
    client.say(CLUSTER, initial=versions[CLUSTER])
    client.say(ENDPOINT, ["a", "b"], initial=versions[ENDPOINT])
    client.say(LISTENER, initial=versions[LISTENER])
    client.say(ROUTE, ["r"], initial=versions[ROUTE])
    seen = client.drain()
    kinds = [kind for kind, names, _ in what(seen) if names]
    assert kinds == ["rds", "eds"]


def test_a_client_that_comes_back_keeps_its_endpoints_though_it_asks_for_routes_later():
    """Each request is answered as it comes: the one for routes may still be on its way."""
    client = connected()
    versions = {type_: client.held(type_) for type_ in (CLUSTER, ENDPOINT, LISTENER, ROUTE)}
    client.scope.update([VACANT, FIRST])
    client.reconnect()
    client.take(CLUSTER, initial=versions[CLUSTER])
    assert client.take(ENDPOINT, ["a", "b"], initial=versions[ENDPOINT]) == []
    assert client.view(ENDPOINT).waiting == {"b": "the client to ask for routes"}
    client.take(LISTENER, initial=versions[LISTENER])
    assert what(client.take(ROUTE, ["r"], initial=versions[ROUTE])) == [("rds", ["r"], []), ("eds", ["b"], [])]


def test_a_client_that_comes_back_and_never_asks_for_routes_is_told():
    client = connected()
    versions = {type_: client.held(type_) for type_ in (CLUSTER, ENDPOINT)}
    client.scope.update([VACANT, FIRST])
    client.reconnect()
    client.take(CLUSTER, initial=versions[CLUSTER])
    client.take(ENDPOINT, ["a", "b"], initial=versions[ENDPOINT])
    assert client.session.wake_at() == client.now + DOUBT
    assert what(client.later(DOUBT)) == [("eds", ["b"], [])]
