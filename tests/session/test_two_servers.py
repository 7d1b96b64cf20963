"""Two servers of one gateway have read the same edits up to different ones, and an Envoy moves between them.

Each request is answered as it comes, as streams do it: what the Envoy says later is not known yet.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.session.harness import CLUSTER, ENDPOINT, LISTENER, ROUTE, Client, make

LISTENERS = make(LISTENER, "http", uses=["r"])
OLD = [make(CLUSTER, "old"), make(ENDPOINT, "old"), make(ROUTE, "r", 1, ["old"])]
NEW = [make(CLUSTER, "new"), make(ENDPOINT, "new"), make(ROUTE, "r", 2, ["new"])]


def what(responses):
    return [(got.type.short, got.names, got.removed) for got in responses if got.names or got.removed]


def holding(resources, linger=5.0):
    """An Envoy that has all of these from the other server; and what it says that it has."""
    client = Client(LISTENERS, *resources, linger=linger)
    client.take(CLUSTER)
    client.take(ENDPOINT, [one.name for one in resources if one.type is ENDPOINT])
    client.take(LISTENER)
    client.take(ROUTE, ["r"])
    return {type_: client.held(type_) for type_ in (CLUSTER, ENDPOINT, LISTENER, ROUTE)}


def moved(held, *resources, linger=5.0):
    """The Envoy comes to a server that has these: the client, and what it was sent upon its requests."""
    client = Client(LISTENERS, *resources, linger=linger)
    seen = client.take(CLUSTER, initial=held[CLUSTER])
    seen += client.take(ENDPOINT, list(held[ENDPOINT]), initial=held[ENDPOINT])
    seen += client.take(LISTENER, initial=held[LISTENER])
    return client, seen + client.take(ROUTE, ["r"], initial=held[ROUTE])


@pytest.mark.parametrize("linger", [0.0, 5.0])
@pytest.mark.parametrize(("has", "gets"), [(NEW, OLD), (OLD, NEW)], ids=["to the older", "to the newer"])
def test_it_is_led_away_before_anything_is_taken(has, gets, linger):
    here, there = has[0].name, gets[0].name
    client, seen = moved(holding(has, linger), *gets, linger=linger)
    seen += client.drain(client.later(linger))
    told = what(seen)
    assert told[0] == ("cds", [there], [])
    assert told[-2:] == [("cds", [], [here]), ("eds", [], [here])]
    assert ("rds", ["r"], []) in told[1:-2]


@pytest.mark.parametrize("linger", [0.0, 5.0])
def test_a_cluster_that_this_server_does_not_know_stays_while_its_routes_may_run(linger):
    held = holding([*OLD, *NEW], linger)
    client = Client(LISTENERS, *OLD, linger=linger)
    assert what(client.take(CLUSTER, initial=held[CLUSTER])) == []
    assert what(client.take(ENDPOINT, ["old", "new"], initial=held[ENDPOINT])) == []
    client.take(LISTENER, initial=held[LISTENER])
    [routes] = client.ask(ROUTE, ["r"], initial=held[ROUTE])
    assert what([routes]) == [("rds", ["r"], [])]
    assert client.later(3600) == []
    if linger:
        assert client.ack(routes) == []
        assert what(client.drain(client.later(linger))) == [("cds", [], ["new"]), ("eds", [], ["new"])]
    else:
        assert what(client.drain(client.ack(routes))) == [("cds", [], ["new"]), ("eds", [], ["new"])]


def test_when_the_server_reads_on_before_the_linger_is_over_nothing_is_taken():
    held = holding([*OLD, *NEW])
    client, seen = moved(held, *OLD)
    assert what(seen) == [("rds", ["r"], [])]
    client.publish(*NEW)
    assert what(client.drain()) == [("rds", ["r"], [])]
    client.publish(remove=[(CLUSTER, "old"), (ENDPOINT, "old")])
    assert client.get() == []
    assert client.later(4.9) == []
    assert what(client.drain(client.later(0.2))) == [("cds", [], ["old"]), ("eds", [], ["old"])]


def test_equal_servers_send_nothing():
    _, seen = moved(holding([*OLD, *NEW]), *OLD, *NEW)
    assert what(seen) == []


def test_endpoints_that_are_gone_here_stay_until_the_routes_have_left():
    vacant = replace(make(ENDPOINT, "old", 1), vacant=True)
    held = holding([*OLD, *NEW[:2]])
    client, seen = moved(held, OLD[0], vacant, *NEW)
    assert what(seen) == [("rds", ["r"], []), ("eds", ["old"], [])]
    assert client.get() == []
