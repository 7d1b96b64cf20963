"""A refused version does no harm: who gets what instead, in sessions of both variants."""

from __future__ import annotations

import pytest

from tests.session.harness import CLUSTER, ENDPOINT, LISTENER, ROUTE, Client, SotwClient, connected, make, what
from xds.gateway import Gateway
from xds.memory import Cause
from xds.session import Overdue

GOOD, BAD = make(LISTENER, "http", 0, ["r"]), make(LISTENER, "http", 1)
both = pytest.mark.parametrize("kind", [Client, SotwClient], ids=["delta", "sotw"])


def refused(client):
    return [(one.type, one.name, one.refusal.cause, one.served) for one in client.gateway.rejections()]


def came_versions(responses):
    return {name: version for got in responses for name, version in got.versions.items()}


@both
def test_who_refuses_gets_the_last_good_version_at_once(kind):
    client = connected(kind)
    client.publish(BAD)
    [got] = client.get()
    assert came_versions(client.nack(got)) == {"http": GOOD.version}
    assert refused(client) == [(LISTENER, "http", Cause.REFUSED, GOOD.version)]


@both
def test_who_comes_later_gets_it_too(kind):
    client = connected(kind)
    client.publish(BAD)
    client.drain(client.nack(client.get()[0]))
    assert came_versions(client.another().take(LISTENER)) == {"http": GOOD.version}


@both
def test_who_took_the_refused_version_keeps_it(kind):
    client = connected(kind)
    other = client.another()
    other.take(LISTENER)
    client.publish(BAD)
    assert came_versions(other.drain()) == {"http": BAD.version}
    client.drain(client.nack(client.get()[0], "listener http: no good"))
    assert other.drain() == []
    client.publish(make(LISTENER, "http", 2))
    assert came_versions(other.drain()) == {"http": make(LISTENER, "http", 2).version}


def test_who_has_it_still_in_flight_is_sent_the_good_one():
    client = connected()
    other = client.another()
    other.take(LISTENER)
    client.publish(BAD)
    [flying] = other.get()
    client.drain(client.nack(client.get()[0]))
    [back] = other.get()
    assert back.versions == {"http": GOOD.version}
    assert other.nack(flying) == []
    assert other.ack(back) == []


@both
def test_of_several_each_is_tried_alone_where_no_name_is_said(kind):
    names = ["p", "q", "r"]
    client = kind(*(make(ROUTE, name) for name in names))
    client.take(ROUTE, names)
    client.publish(*(make(ROUTE, name, 1) for name in names))
    [got] = client.get()
    tried, waiting = [], client.nack(got, "no good")
    while waiting:
        got = waiting.pop(0)
        tried.append(got.names)
        bad = got.versions == {"q": make(ROUTE, "q", 1).version}
        waiting += client.nack(got, "no good") if bad else client.ack(got)
    assert tried[:2] == [["p"], ["q"]]
    assert sorted(name for names in tried for name in names) == ["p", "q", "q", "r"]
    assert refused(client) == [(ROUTE, "q", Cause.REFUSED, make(ROUTE, "q").version)]
    assert client.held(ROUTE)["r"] == make(ROUTE, "r", 1).version


def test_of_all_there_is_one_new_thing_at_a_time_is_tried():
    """A response of the state of the world lists all clusters; what is new in it is one."""
    client = connected(SotwClient)
    client.publish(make(CLUSTER, "c"), make(CLUSTER, "d"))
    [got] = client.nack(client.get()[0], "no good")
    assert got.names == ["a", "b", "c"]
    [got] = client.ack(got)
    assert got.names == ["a", "b", "c", "d"]
    [got] = client.nack(got, "no good")
    assert got.names == ["a", "b", "c"]
    assert client.ack(got) == []
    assert [one[:2] for one in refused(client)] == [(CLUSTER, "d")]


def test_names_that_are_said_are_refused_and_the_rest_is_taken():
    client = connected()
    client.publish(make(CLUSTER, "a", 1), make(CLUSTER, "b", 1))
    clusters = client.get()[0]
    again = client.nack(clusters, "Error adding/updating cluster(s) b: no good")[0]
    assert again.versions == {"a": make(CLUSTER, "a", 1).version, "b": make(CLUSTER, "b").version}


@both
def test_an_undoing_overtakes_what_is_in_flight(kind):
    """A cluster that cannot warm keeps its own ACK back, until the one before it is sent again."""
    client = connected(kind)
    client.publish(make(CLUSTER, "a", 1))
    assert client.get()[0].type is CLUSTER
    client.publish(make(CLUSTER, "a"))
    back = client.get()[0]
    assert back.versions["a"] == make(CLUSTER, "a").version
    assert client.view(CLUSTER).in_flight[-1] == back.nonce


def test_a_removal_overtakes_too():
    client = connected(linger=0.0)
    client.publish(make(CLUSTER, "c"))
    client.get()
    client.publish(remove=[(CLUSTER, "c")])
    assert what(client.get()) == [("cds", [], ["c"])]


def test_a_removed_cluster_that_comes_back_is_cold_though_an_old_answer_tells_of_it():
    client = connected(linger=0.0)
    client.publish(make(CLUSTER, "c"))
    [first] = client.get()
    client.publish(remove=[(CLUSTER, "c")])
    [removal] = client.get()
    client.ack(first)
    client.ack(removal)
    client.publish(make(CLUSTER, "c", 1), make(ROUTE, "r", 1, ["c"]))
    assert what(client.get()) == [("cds", ["c"], [])]


class TestQuarantine:
    def lost_twice(self, client):
        client.publish(BAD)
        for _ in range(2):
            client.get()
            client.reconnect()
            client.ask(LISTENER)

    def test_an_envoy_lost_twice_with_a_version_unanswered_gets_the_good_one(self):
        client = connected()
        other = client.another("careful")
        self.lost_twice(client)
        assert refused(client) == [(LISTENER, "http", Cause.QUARANTINED, GOOD.version)]
        assert came_versions(other.take(LISTENER)) == {"http": GOOD.version}

    def test_once_is_none(self):
        client = connected()
        client.publish(BAD)
        client.get()
        client.reconnect()
        assert came_versions(client.take(LISTENER)) == {"http": BAD.version}

    def test_streams_that_the_server_ends_do_not_count(self):
        client = connected()
        client.publish(BAD)
        for _ in range(3):
            client.get()
            client.reconnect(lost=False)
            client.ask(LISTENER)
        assert refused(client) == []

    def test_it_ends_when_an_envoy_takes_the_version(self):
        client = connected()
        other = client.another("slow")
        other.take(LISTENER)
        client.publish(BAD)
        [flying] = other.get()
        self.lost_twice(client)
        other.ack(flying)
        assert refused(client) == []
        client.reconnect()
        assert came_versions(client.take(LISTENER)) == {"http": BAD.version}

    def test_and_when_something_else_is_wanted(self):
        client = connected()
        self.lost_twice(client)
        client.publish(make(LISTENER, "http", 2))
        client.reconnect()
        assert came_versions(client.take(LISTENER)) == {"http": make(LISTENER, "http", 2).version}
        assert refused(client) == []


class TestNothingGoodIsKnown:
    def forgetful(self):
        """An Envoy with a version of a former server, and a server that knows no good one: the next is refused."""
        client = Client(BAD)
        client.say(LISTENER, initial={"http": "former"})
        [got] = client.get()
        assert what(client.nack(got)) == []
        return client

    def test_what_the_client_has_is_not_taken_away(self):
        client = self.forgetful()
        client.publish(make(CLUSTER, "a"))
        assert client.later(3600) == []

    def test_who_comes_new_gets_nothing(self):
        assert what(self.forgetful().another().take(LISTENER)) == [("lds", [], [])]

    def test_a_removal_takes_it_away(self):
        client = self.forgetful()
        client.publish(remove=[(LISTENER, "http")])
        assert what(client.get()) == [("lds", [], ["http"])]

    def test_a_change_is_tried(self):
        client = self.forgetful()
        client.publish(make(LISTENER, "http", 2))
        assert came_versions(client.drain()) == {"http": make(LISTENER, "http", 2).version}
        assert refused(client) == []


def test_a_restart_with_its_memory_serves_the_last_good_version():
    client = connected()
    client.publish(BAD)
    client.drain(client.nack(client.get()[0]))
    memories = [client.scope.remembered(*key) for key in client.scope.drain()]
    again = Gateway("models/iris", client.session._terms)
    again.scope.restore(memories)
    again.publish([BAD])
    assert [one.served for one in again.rejections()] == [GOOD.version]
    assert came_versions(Client(gateway=again).take(LISTENER)) == {"http": GOOD.version}


def test_what_one_envoy_runs_and_another_refuses_stays_refused_after_a_restart():
    client = connected()
    other = client.another()
    other.take(LISTENER)
    client.publish(BAD)
    client.get()
    other.drain()
    client.drain(client.ask(LISTENER, nonce=client.view(LISTENER).in_flight[0], error="no good"))
    again = Gateway("models/iris", client.session._terms)
    again.scope.restore([client.scope.remembered(*key) for key in client.scope.drain()])
    again.publish([BAD])
    assert again.scope.get(LISTENER, "http") == GOOD


class TestAnswersThatDoNotCome:
    def stalled(self):
        """Cluster slow does not warm; its ACK and that of cluster quick, in the same response, are kept back."""
        client = connected()
        slow, quick = make(CLUSTER, "slow", health=True), make(CLUSTER, "quick")
        client.publish(slow, quick, make(ENDPOINT, "slow"), make(ENDPOINT, "quick"))
        client.get()
        client.take(ENDPOINT, ["slow", "quick"])
        client.take(ROUTE, ["s"])
        client.publish(make(ROUTE, "r", 1, ["quick"]), make(ROUTE, "s", 0, ["slow"]))
        return client

    def test_it_is_said_once(self):
        client = self.stalled()
        assert client.session.wake_at() == client.now + 15
        client.now += 15
        [event] = client.session.overdue(client.now)
        assert isinstance(event, Overdue)
        assert (event.type, event.names, event.seconds) == (CLUSTER, {"slow", "quick"}, 15)
        assert client.session.overdue(client.now + 100) == []

    def test_routes_that_do_not_use_it_go_on_and_those_that_do_wait(self):
        client = self.stalled()
        assert client.get() == []
        assert client.view(ROUTE).waiting == {"r": "ACK of cluster quick", "s": "ACK of cluster slow"}
        assert what(client.later(15)) == [("rds", ["r"], [])]
        assert client.view(ROUTE).waiting == {"s": "ACK of cluster slow, which is late"}

    def test_nothing_is_refused_for_it(self):
        client = self.stalled()
        client.later(3600)
        assert refused(client) == []

    def test_a_cluster_that_was_not_asked_about_is_not_taken_for_warm(self):
        """Its assignment is not even on the way."""
        client = self.stalled()
        client.later(15)
        client.publish(make(CLUSTER, "new"), make(ENDPOINT, "new"), make(ROUTE, "r", 2, ["new"]))
        assert what(client.get()) == [("cds", ["new"], [])]
        assert "r" in client.view(ROUTE).waiting


def test_routes_that_wait_for_a_cluster_of_which_nothing_is_good_are_listed():
    """By their own names: the cluster may be another's, and nothing is said of them elsewhere."""
    client = connected()
    client.publish(make(CLUSTER, "new"), make(ENDPOINT, "new"), make(ROUTE, "r", 1, ["new"]), make(ROUTE, "s"))
    [clusters] = client.get()
    client.drain(client.nack(clusters, "new: no good"))
    said = "cluster new to be mended, which is refused: no version of it is known to be good"
    assert client.view(ROUTE).waiting == {"r": said}
    client.publish(make(CLUSTER, "new", 1))
    client.drain(client.ask(ENDPOINT, ["new"]))
    assert client.view(ROUTE).waiting == {}
    assert client.held(ROUTE)["r"] == make(ROUTE, "r", 1, ["new"]).version


def test_a_doubt_about_what_is_gone_holds_nothing_up():
    """One of two was refused; both were taken back while the client was away, and another one came."""
    client = connected(SotwClient)
    doubtful = [make(type_, name) for type_ in (CLUSTER, ENDPOINT) for name in "xy"]
    client.publish(*doubtful)
    client.say(CLUSTER, nonce=client.get()[0].nonce, error="no good")
    client.gateway.leave(client.number, lost=False)
    client.number = None
    client.publish(make(CLUSTER, "new"), make(ENDPOINT, "new"), remove=[(one.type, one.name) for one in doubtful])
    client.reconnect()
    assert what(client.take(CLUSTER, nonce="")) == [("cds", ["a", "b", "new"], [])]


def test_refusals_of_names_that_are_gone_are_forgotten():
    client = connected(linger=0.0)
    for number in range(20):
        name = f"new-{number}"
        client.publish(make(CLUSTER, name))
        client.drain(client.nack(client.get()[0], f"{name}: no good"))
        client.publish(remove=[(CLUSTER, name)])
        client.drain()
    assert len(client.session.refusals[CLUSTER]) == 1
    client.reconnect()
    assert not client.session.refusals[CLUSTER]


def test_who_took_what_another_refused_follows_when_it_is_undone():
    """What is served does not change thereby, but what this one has is not it."""
    client = connected()
    other = client.another()
    other.take(LISTENER)
    client.publish(BAD)
    other.drain()
    client.drain(client.nack(client.get()[0], "listener http: no good"))
    assert other.get() == []
    client.publish(GOOD)
    assert came_versions(other.drain()) == {"http": GOOD.version}
    assert client.drain() == []


def test_retired_clusters_go_when_the_routes_that_need_them_go():
    client = connected(linger=0.0)
    client.publish(make(ROUTE, "r", 1, ["a"]), remove=[(CLUSTER, "b"), (ENDPOINT, "b")])
    client.drain(client.nack(client.get()[0]))
    assert client.scope.get(CLUSTER, "b") is not None
    client.publish(remove=[(ROUTE, "r")])
    assert what(client.drain()) == [("rds", [], ["r"]), ("cds", [], ["b"]), ("eds", [], ["b"])]


def test_all_there_is_after_a_refusal_is_followed_by_the_assignments_of_what_may_have_been_taken():
    """Envoy takes what is good of a refused response: what it is told instead warms anew, and waits for this."""
    client = connected(SotwClient)
    client.publish(make(CLUSTER, "a", 1), make(CLUSTER, "b", 1))
    clusters, *assignments = client.get()
    client.drain(assignments)
    came = client.nack(clusters, "no good")
    assert came[0].versions == {"a": make(CLUSTER, "a", 1).version, "b": make(CLUSTER, "b").version}
    assert what(came[1:]) == [("eds", ["a", "b"], [])]


def test_a_retired_cluster_that_was_refused_in_a_later_version_outlives_two_restarts():
    client = connected(linger=0.0)
    client.publish(make(CLUSTER, "b", 1))
    client.drain(client.nack(client.get()[0]))
    routes, cluster = make(ROUTE, "r", 1, ["a"]), make(CLUSTER, "a")
    client.publish(routes, remove=[(CLUSTER, "b"), (ENDPOINT, "b")])
    client.drain(client.nack(client.get()[0]))
    scope, memories = client.scope, {}
    for _ in range(2):
        memories |= {key: scope.remembered(*key) for key in scope.drain()}
        again = Gateway("models/iris", client.session._terms)
        again.scope.restore(memories.values())
        again.publish([cluster, make(ENDPOINT, "a"), routes])
        scope = again.scope
    assert scope.get(ROUTE, "r").uses == {"a", "b"}
    assert scope.get(CLUSTER, "b") == make(CLUSTER, "b")


def test_what_is_listed_again_while_it_is_in_flight_is_followed_by_its_assignment_again():
    """Envoy may have refused it and not said so yet: then it warms anew."""
    client = connected(SotwClient)
    client.publish(make(CLUSTER, "a", 1), make(CLUSTER, "b", 1))
    _, *assignments = client.get()
    client.drain(assignments)
    client.publish(make(CLUSTER, "b"))
    assert what(client.get()) == [("cds", ["a", "b"], []), ("eds", ["a", "b"], [])]
