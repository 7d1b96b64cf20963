"""Make before break: what waits for what, and what does not."""

from __future__ import annotations

from dataclasses import replace

from tests.session.harness import CLUSTER, ENDPOINT, LISTENER, ROUTE, Client, make
from xds.session.gates import DOUBT
from xds.session.substream import MOST_FLIGHTS


def what(responses):
    return [(got.type.short, got.names, got.removed) for got in responses]


def connected(**more):
    client = Client(
        make(CLUSTER, "a"), make(ENDPOINT, "a"), make(LISTENER, "http", uses=["r"]), make(ROUTE, "r", 0, ["a"]),
        **more,
    )  # fmt: skip
    client.take(CLUSTER)
    client.take(ENDPOINT, ["a"])
    client.take(LISTENER)
    client.take(ROUTE, ["r"])
    return client


class TestRoutesWaitForTheirClusters:
    def test_a_route_to_a_new_cluster_goes_out_with_the_cluster_s_ack(self):
        client = connected()
        client.publish(make(CLUSTER, "b"), make(ROUTE, "r", 1, ["a", "b"]))
        [clusters] = client.get()
        assert client.view(ROUTE).waiting == {"r": "ACK of cluster b"}
        assert client.later(3600) == []
        assert what(client.ack(clusters)) == [("rds", ["r"], [])]

    def test_other_routes_go_on(self):
        client = connected()
        client.take(ROUTE, ["s"])
        client.publish(make(CLUSTER, "b"), make(ROUTE, "r", 1, ["b"]), make(ROUTE, "s", 1, ["a"]))
        assert what(client.get()) == [("cds", ["b"], []), ("rds", ["s"], [])]

    def test_a_changed_cluster_that_was_acknowledged_holds_nothing_back(self):
        client = connected()
        client.publish(make(CLUSTER, "a", 1), make(ROUTE, "r", 1, ["a"]))
        assert what(client.get()) == [("cds", ["a"], []), ("eds", ["a"], []), ("rds", ["r"], [])]

    def test_a_cluster_that_was_refused_holds_its_routes_back_until_a_newer_one_is_taken(self):
        client = connected()
        client.publish(make(CLUSTER, "b"), make(ROUTE, "r", 1, ["b"]))
        [clusters] = client.get()
        assert what(client.drain(client.nack(clusters))) == [("cds", [], ["b"])]
        client.publish(make(CLUSTER, "b", 1))
        [clusters] = client.get()
        assert what(client.ack(clusters)) == [("rds", ["r"], [])]

    def test_a_refused_change_of_an_acknowledged_cluster_holds_nothing_back(self):
        client = connected()
        client.publish(make(CLUSTER, "a", 1))
        client.nack(client.get()[0])
        client.publish(make(ROUTE, "r", 1, ["a"]))
        assert what(client.get()) == [("rds", ["r"], [])]

    def test_a_cluster_that_was_removed_and_came_back_is_cold_again(self):
        client = connected(linger=0.0)
        client.publish(make(ROUTE, "r", 1), remove=[(CLUSTER, "a")])
        client.drain()
        client.publish(make(CLUSTER, "a"), make(ROUTE, "r", 2, ["a"]))
        assert what(client.get())[0] == ("cds", ["a"], [])
        assert client.view(ROUTE).waiting == {"r": "ACK of cluster a"}

    def test_clusters_that_the_scope_lacks_hold_nothing_back(self):
        client = connected()
        client.publish(make(ROUTE, "r", 1, ["nowhere"]))
        assert what(client.get()) == [("rds", ["r"], [])]

    def test_a_client_without_clusters_is_not_held_back(self):
        client = Client(make(CLUSTER, "a"), make(ROUTE, "r", 0, ["a"]))
        assert what(client.ask(ROUTE, ["r"])) == [("rds", ["r"], [])]

    def test_a_client_that_names_other_clusters_is_not_held_back(self):
        """One that learns its clusters from its routes could never ask for them."""
        client = Client(make(CLUSTER, "a"), make(CLUSTER, "b"), make(ROUTE, "r", 0, ["a"]))
        client.take(CLUSTER, ["b"])
        assert what(client.ask(ROUTE, ["r"])) == [("rds", ["r"], [])]

    def test_a_route_that_the_client_runs_is_sent_again_when_asked_for(self):
        client = connected()
        assert what(client.ask(ROUTE, ["r"])) == [("rds", ["r"], [])]


class TestALateCluster:
    def test_it_is_as_slow_as_what_was_sent_of_it_whatever_is_to_come(self):
        """A cluster with health checks never warms; one without is to take its place, and does not fit in yet."""
        client = connected(patience=1.0, limit=1)
        client.publish(replace(make(CLUSTER, "d"), slow=True), make(ENDPOINT, "d"))
        client.get()
        [endpoints] = client.ask(ENDPOINT, ["d"])
        client.ack(endpoints)
        client.publish(*(make(CLUSTER, name, 1) for name in "abcd"), make(ROUTE, "r", 1, ["d"]))
        seen = []
        while pending := client.get() or client.later(1.0):
            seen += [(got.type.short, *got.names) for got in pending]
            for got in pending:
                if got.type is not CLUSTER and got.names != ["a"]:
                    client.say(got.type, nonce=got.nonce)
        assert [one for one in seen if "d" in one or "r" in one] == [("cds", "d"), ("eds", "d"), ("rds", "r")]


class TestAfterABreakWhileWarming:
    """An Envoy that warms clusters asks for them last, since it holds back all it has to say about clusters."""

    def reconnected(self):
        client = connected()
        route = client.scope.get(ROUTE, "r")
        client.scope.update([make(CLUSTER, "b"), make(ROUTE, "r", 1, ["b"])])
        client.reconnect()
        assert client.ask(ROUTE, ["r"], initial={"r": route.version}) == []
        assert client.view(ROUTE).waiting == {"r": "the client to ask for clusters"}
        return client

    def test_routes_wait_for_the_request_for_clusters(self):
        client = self.reconnected()
        [clusters] = client.ask(CLUSTER)
        assert clusters.names == ["a", "b"]
        assert what(client.ack(clusters)) == [("rds", ["r"], [])]

    def test_but_not_for_ever(self):
        client = self.reconnected()
        assert client.session.wake_at() == client.now + client.linger
        [routes] = client.later(client.linger)
        assert what([routes]) == [("rds", ["r"], [])]
        assert client.ack(routes) == []
        assert client.session.wake_at() is None

    def test_assignments_that_it_waits_for_anew_are_sent_though_it_lists_them(self):
        """Without them its clusters never warm, and it never asks for clusters."""
        client = connected()
        client.reconnect()
        assert client.ask(ENDPOINT, ["a"], initial={"a": client.scope.get(ENDPOINT, "a").version}) == []
        assert client.session.wake_at() == client.now + DOUBT
        [assignment] = client.later(DOUBT)
        assert assignment.names == ["a"]
        assert client.ack(assignment) == []
        assert client.session.wake_at() is None

    def test_but_not_to_one_that_asks_for_clusters_at_once(self):
        client = connected()
        client.reconnect()
        client.say(ENDPOINT, ["a"], initial={"a": client.scope.get(ENDPOINT, "a").version})
        client.take(CLUSTER, initial={"a": client.scope.get(CLUSTER, "a").version})
        assert client.session.wake_at() is None
        assert client.later(3600) == []


class TestClustersStayWhileRoutesMayUseThem:
    def moved_away(self, **more):
        """The scope gave up cluster a, and no route of it uses a any more."""
        client = connected(**more)
        client.publish(make(ROUTE, "r", 1), remove=[(CLUSTER, "a"), (ENDPOINT, "a")])
        return client

    def test_until_the_routes_are_acknowledged_and_the_linger_is_over(self):
        client = self.moved_away()
        [routes] = client.get()
        assert client.view(CLUSTER).waiting == {"a": "to be removed: ACK of route configuration r"}
        assert client.later(3600) == []
        assert client.ack(routes) == []
        assert client.view(CLUSTER).waiting == {"a": "to be removed: linger"}
        assert client.session.wake_at() == client.now + client.linger
        assert client.later(client.linger - 0.1) == []
        [removal] = client.later(0.1)
        assert what([removal]) == [("cds", [], ["a"])]
        client.drain([removal])
        assert client.session.wake_at() is None

    def test_the_assignment_goes_after_its_cluster(self):
        client = self.moved_away(linger=0.0)
        [routes] = client.get()
        [clusters] = client.ack(routes)
        assert clusters.removed == ["a"]
        assert client.view(ENDPOINT).waiting == {"a": "to be removed: ACK of its cluster's removal"}
        assert what(client.ack(clusters)) == [("eds", [], ["a"])]

    def test_a_route_that_was_refused_may_leave_the_old_one_running(self):
        client = self.moved_away(linger=0.0)
        assert what(client.drain(client.nack(client.get()[0]))) == [("rds", ["r"], [])]
        assert client.later(3600) == []
        client.publish(make(ROUTE, "r", 2))
        assert what(client.drain()) == [("rds", ["r"], []), ("cds", [], ["a"]), ("eds", [], ["a"])]

    def test_a_cluster_that_comes_back_is_not_removed(self):
        client = self.moved_away()
        client.drain()
        client.later(1)
        client.publish(make(CLUSTER, "a"), make(ENDPOINT, "a"))
        assert client.later(3600) == []
        assert client.view(CLUSTER).waiting == {}

    def test_one_that_comes_back_and_goes_again_lingers_anew(self):
        client = self.moved_away()
        client.drain()
        client.now += 4
        client.publish(make(CLUSTER, "a"))
        client.publish(remove=[(CLUSTER, "a")])
        assert client.get() == []
        assert client.later(4) == []
        assert what(client.later(1)) == [("cds", [], ["a"])]

    def test_a_route_that_comes_back_stops_the_linger(self):
        client = self.moved_away()
        client.drain()
        client.now += 4
        client.publish(make(ROUTE, "r", 2, ["a"]))
        client.drain()
        assert client.later(3600) == []
        assert client.session.wake_at() is None

    def test_removed_routes_release_their_clusters(self):
        client = connected(linger=0.0)
        client.publish(remove=[(ROUTE, "r"), (CLUSTER, "a")])
        [routes] = client.get()
        assert routes.removed == ["r"]
        assert what(client.ack(routes)) == [("cds", [], ["a"])]

    def test_routes_of_an_earlier_stream_in_an_unknown_version_may_use_everything(self):
        client = connected(linger=0.0)
        client.scope.update([make(ROUTE, "r", 1)], [(CLUSTER, "a")])
        client.reconnect()
        client.say(CLUSTER, initial={"a": "1"})
        client.say(ROUTE, ["r"], initial={"r": "old"})
        empty, routes = client.get()
        assert what([empty, routes]) == [("cds", [], []), ("rds", ["r"], [])]
        assert client.ack(empty) == []
        assert what(client.ack(routes)) == [("cds", [], ["a"])]

    def test_routes_of_an_earlier_stream_in_a_known_version_use_what_they_use(self):
        client = connected(linger=0.0)
        route = client.scope.get(ROUTE, "r")
        client.reconnect()
        client.say(CLUSTER, initial={"a": client.scope.get(CLUSTER, "a").version, "old": "1"})
        client.say(ROUTE, ["r"], initial={"r": route.version})
        assert what(client.get()) == [("cds", [], ["old"])]

    def test_names_of_an_earlier_stream_wait_for_the_client_to_tell_its_routes(self):
        client = connected()
        client.reconnect()
        client.scope.update([], [(CLUSTER, "a")])
        assert what(client.take(CLUSTER, initial={"a": "1"})) == [("cds", [], [])]
        client.now += client.linger - 1
        client.say(ROUTE, ["r"], initial={"r": client.scope.get(ROUTE, "r").version})
        assert client.later(3600) == []


class TestListeners:
    def test_one_that_takes_over_an_address_comes_with_the_removal_of_the_other(self):
        """Envoy refuses a second listener on an address, and takes removals before additions."""
        client = connected()
        client.publish(make(LISTENER, "new"), remove=[(LISTENER, "http")])
        assert what(client.get()) == [("lds", ["new"], ["http"])]


def test_a_client_that_never_answers_is_sent_no_more_after_some():
    client = connected(patience=1.0)
    for rev in range(1, 100):
        client.publish(make(CLUSTER, "a", rev))
        client.later(1.0)
    assert len(client.view(CLUSTER).in_flight) == MOST_FLIGHTS


def test_a_stream_of_routes_alone_waits_for_no_clusters():
    """It can never ask for them, also not when it comes with versions of an earlier stream."""
    client = Client(make(CLUSTER, "a"), make(ROUTE, "r", 1, ["a"]), types=(ROUTE,))
    assert what(client.ask(ROUTE, ["r"], initial={"r": "older"})) == [("rds", ["r"], [])]
