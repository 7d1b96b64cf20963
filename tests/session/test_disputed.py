"""Envoys of one gateway that do not agree: what one has and another refused, and what nobody could judge yet."""

from __future__ import annotations

import pytest

from tests.session.harness import CLUSTER, ENDPOINT, LISTENER, ROUTE, Client, SotwClient, make
from xds.gateway import QUARANTINE

WANTED = make(LISTENER, "http", 1)


def names(responses):
    return [(got.type.short, got.names, got.removed) for got in responses]


def disputed(speaks=Client):
    """One Envoy has taken the only version there ever was, the other refused it; both answered all."""
    took = speaks(WANTED, node_id="took")
    took.take(LISTENER)
    refused = took.another("refused")
    [got] = refused.ask(LISTENER)
    refused.drain(refused.nack(got, "http: cannot bind"))
    return took, refused


def test_who_comes_later_gets_what_another_has():
    took, _ = disputed()
    assert names(took.another("later").ask(LISTENER)) == [("lds", ["http"], [])]
    (told,) = took.gateway.rejections()
    assert told.served == told.refusal.version == WANTED.version


def test_who_refused_it_is_not_asked_again():
    _, refused = disputed()
    assert refused.get() == []
    refused.publish(make(LISTENER, "other"))
    assert names(refused.drain()) == [("lds", ["other"], [])]
    refused.reconnect()
    assert names(refused.ask(LISTENER)) == [("lds", ["other"], [])]


@pytest.mark.parametrize("speaks", [Client, SotwClient])
def test_who_has_it_keeps_it_when_its_stream_moves(speaks):
    took, _ = disputed(speaks)
    took.reconnect(lost=False)
    held = {"http": WANTED.version}
    came = took.ask(LISTENER, initial=held) if speaks is Client else took.ask(LISTENER, version="1")
    assert not any("http" in got.removed for got in came)
    if speaks is SotwClient:
        assert names(came) == [("lds", ["http"], [])]


def test_an_earlier_good_version_is_better_than_a_disputed_one():
    took = Client(make(LISTENER, "http", 0), node_id="took")
    took.take(LISTENER)
    refused = took.another("refused")
    refused.take(LISTENER)
    took.publish(WANTED)
    took.drain()
    refused.drain(refused.nack(refused.get()[0], "no"))
    assert took.another("later").ask(LISTENER)[0].versions == {"http": make(LISTENER, "http", 0).version}
    assert took.get() == []


def test_a_cluster_that_some_have_keeps_its_routes_going():
    took = Client(make(CLUSTER, "a"), make(ENDPOINT, "a"), make(ROUTE, "r", 0, ["a"]), node_id="took")
    took.take(CLUSTER)
    took.take(ENDPOINT, ["a"])
    took.take(ROUTE, ["r"])
    refused = took.another("refused")
    refused.drain(refused.nack(refused.ask(CLUSTER)[0], "cluster(s) a: no"))
    took.publish(make(ROUTE, "r", 1, ["a"]))
    assert names(took.drain()) == [("rds", ["r"], [])]
    refused.say(ROUTE, ["r"])
    assert refused.get() == []
    assert refused.view(ROUTE).waiting == {"r": "ACK of cluster a"}


def test_all_there_is_waits_while_it_may_take_away_what_nobody_could_judge():
    """After a restart nothing is known to be good: what was refused may be an edit of what the client has."""
    refused = SotwClient(WANTED, make(LISTENER, "other"), node_id="refused")
    refused.drain(refused.nack(refused.ask(LISTENER)[0], "listener(s) http: no"))
    assert refused.scope.get(LISTENER, "http") is None
    older = refused.another("older")
    older.say(LISTENER, version="of an earlier server")
    assert older.get() == []
    assert "to be mended" in older.view(LISTENER).waiting["other"]
    assert names(refused.another("new").ask(LISTENER)) == [("lds", ["other"], [])]
    refused.publish(make(LISTENER, "http", 2))
    assert names(older.drain()) == [("lds", ["http", "other"], [])]


def test_an_assignment_that_was_refused_is_not_said_to_be_empty():
    client = SotwClient(make(ENDPOINT, "a"))
    client.drain(client.nack(client.ask(ENDPOINT, ["a"])[0]))
    other = client.another()
    assert other.ask(ENDPOINT, ["a"]) == []


def test_what_takes_back_waits_for_no_other_answer():
    """The answer to an earlier response comes while a later one, of another name, is in flight."""
    client = Client(make(CLUSTER, "a"), make(CLUSTER, "b"), patience=1.0)
    client.take(CLUSTER)
    client.publish(make(CLUSTER, "a", 1))
    [first] = client.get()
    client.publish(make(CLUSTER, "b", 1))
    [second] = client.later(1.0)
    assert (first.names, second.names) == (["a"], ["b"])
    assert names(client.nack(first, "cluster(s) a: no")) == [("cds", ["a"], [])]


def test_a_client_that_answers_after_all_has_answered_all():
    """More responses wait than are told apart; an Envoy answers in their order."""
    client = Client(make(CLUSTER, "a"), make(CLUSTER, "b"), patience=1.0, linger=0.0)
    client.take(CLUSTER)
    responses = []
    for rev in range(1, 30):
        client.publish(make(CLUSTER, "ab"[rev % 2], rev))
        responses += client.later(1.0)
    client.publish(remove=[(CLUSTER, "b")])
    responses += client.later(1.0)
    assert responses[-1].removed == ["b"]
    for got in responses:
        client.ack(got)
    assert client.held(CLUSTER) == {"a": client.scope.get(CLUSTER, "a").version}
    assert client.view(CLUSTER).in_flight == ()


def test_a_quarantine_ends():
    client = Client(make(LISTENER, "http", 0))
    client.take(LISTENER)
    client.publish(WANTED)
    for _ in range(2):
        client.get()
        client.reconnect()
        client.ask(LISTENER, initial={"http": make(LISTENER, "http", 0).version})
    assert [one.name for one in client.gateway.rejections()] == ["http"]
    assert client.scope.remembered(LISTENER, "http").refused == ()
    client.now += QUARANTINE
    client.reconnect(lost=False)
    came = client.drain(client.ask(LISTENER, initial={"http": make(LISTENER, "http", 0).version}))
    assert came[0].versions == {"http": WANTED.version}
    assert client.gateway.rejections() == ()


def test_endpoints_are_never_in_quarantine():
    """An Envoy that dies again and again, of whatever it is, does not hold the others at addresses that are gone."""
    client = Client(make(CLUSTER, "a"), make(ENDPOINT, "a", 0))
    client.take(CLUSTER)
    client.take(ENDPOINT, ["a"])
    wanted = make(ENDPOINT, "a", 1)
    client.publish(wanted)
    client.get()
    for _ in range(3):
        client.reconnect()
        client.take(CLUSTER, initial={"a": make(CLUSTER, "a").version})
        came = client.ask(ENDPOINT, ["a"], initial={"a": make(ENDPOINT, "a", 0).version})
        assert [got.versions for got in came] == [{"a": wanted.version}]
    assert client.gateway.rejections() == ()


def test_what_was_refused_can_be_tried_again():
    client = Client(make(LISTENER, "http", 0))
    client.take(LISTENER)
    client.publish(WANTED)
    client.drain(client.nack(client.get()[0], "address in use"))
    assert client.gateway.retry() == 1
    assert client.gateway.rejections() == ()
    assert client.get()[0].versions == {"http": WANTED.version}
    assert client.gateway.retry() == 0


def test_what_is_tried_alone_takes_nothing_away_from_who_came_with_more():
    """A refusal that names nobody, of the first answer: to leave the others out would remove them."""
    good = [make(CLUSTER, name) for name in "ab"]
    client = SotwClient(*good)
    client.publish(make(CLUSTER, "c", 1))
    client.say(CLUSTER, version="of an earlier server")
    [first] = client.get()
    assert first.names == ["a", "b", "c"]
    assert client.nack(first, "constraint validation failed") == []
    assert "to be mended" in client.view(CLUSTER).waiting["a"]
    client.publish(make(CLUSTER, "c", 2))
    [again] = client.get()
    assert again.names == ["a", "b", "c"]
    assert client.ack(again) == []


def test_what_a_later_response_lists_is_taken_with_it():
    """The refusal of the first answer comes when a later one, which lists all of it again, is in flight."""
    client = SotwClient(make(CLUSTER, "a"), make(CLUSTER, "b"), patience=1.0)
    client.say(CLUSTER, version="of an earlier server")
    [first] = client.get()
    client.publish(make(CLUSTER, "c"))
    [second] = client.later(1.0)
    assert (first.names, second.names) == (["a", "b"], ["a", "b", "c"])
    came = client.nack(first, "constraint validation failed")
    came += client.drain(client.ack(second))
    assert all({"a", "b"} <= set(got.names) for got in came)
    assert client.held(CLUSTER).keys() == {"a", "b", "c"}


def test_what_was_refused_is_not_listed_again():
    """Of the cluster nothing good is known to the gateway, and a later response that lists it is in flight."""
    client = SotwClient(make(CLUSTER, "b", 0), patience=1.0)
    [first] = client.ask(CLUSTER)
    client.publish(make(CLUSTER, "b", 1))
    [second] = client.ack(first)
    client.publish(make(CLUSTER, "c"))
    [third] = client.later(1.0)
    assert third.versions["b"] == second.versions["b"]
    client.nack(second, "constraint validation failed")
    client.publish(make(CLUSTER, "d"))
    [fourth] = client.later(1.0)
    assert fourth.names == ["b", "c", "d"]
    assert fourth.versions["b"] == first.versions["b"]


def test_a_refusal_may_mean_all_that_is_listed_and_was_never_taken():
    """The second response puts `b` alone, and lists `a` again, of which the first was never answered."""
    client = SotwClient(make(CLUSTER, "a", 0), make(CLUSTER, "b", 0), patience=1.0)
    client.take(CLUSTER)
    client.publish(make(CLUSTER, "a", 1))
    client.get()
    client.publish(make(CLUSTER, "b", 1))
    [second] = client.later(1.0)
    [alone] = client.nack(second, "constraint validation failed")
    assert client.gateway.rejections() == ()
    assert alone.versions == {"a": second.versions["a"], "b": make(CLUSTER, "b", 0).version}


def test_a_refusal_says_which_response_was_taken_last():
    """One answer for two responses: its version is that of the first, so its error means the second."""
    client = SotwClient(make(CLUSTER, "a"), make(CLUSTER, "b"), patience=1.0)
    [first] = client.ask(CLUSTER)
    client.publish(make(CLUSTER, "c", 1))
    [second] = client.later(1.0)
    client.say(CLUSTER, nonce=second.nonce, version=first.version, error="constraint validation failed")
    assert client.held(CLUSTER) == first.versions
    assert [(one.name, one.refusal.version) for one in client.gateway.rejections()] == [("c", second.versions["c"])]


def test_a_removal_is_said_again_though_the_rest_was_let_go_of():
    """The client refuses a response of which it does not want the name any more that it put."""
    client = Client(make(ROUTE, "a"))
    client.take(ROUTE, ["a", "b"])
    client.publish(make(ROUTE, "b"), remove=[(ROUTE, "a")])
    [got] = client.get()
    client.ask(ROUTE, unsubscribe=["b"])
    assert names(client.nack(got)) == [("rds", [], ["a"])]


def test_a_cluster_that_was_replaced_while_it_warmed_may_never_have_been_warm():
    """Both answers come together: the first version was taken, and went when the second came, which was refused."""
    client = Client(make(CLUSTER, "a"), make(ROUTE, "r", 0, ["a"]), patience=1.0)
    client.take(CLUSTER)
    client.take(ROUTE, ["r"])
    client.publish(make(CLUSTER, "d", 1), make(ROUTE, "r", 1, ["d"]))
    [first] = client.get()
    client.publish(make(CLUSTER, "d", 2))
    [second] = client.later(1.0)
    client.publish(make(CLUSTER, "d", 1))
    [third] = client.ack(first)
    assert names([third, *client.nack(second, "constraint validation failed")]) == [("cds", ["d"], [])]
    assert names(client.ack(third)) == [("rds", ["r"], [])]


def test_a_cluster_that_routes_use_stays_listed_though_it_may_be_what_was_refused():
    """Routes went to it while another cluster kept the answer back: to leave it out would take it from under them."""
    client = SotwClient(make(CLUSTER, "a", 0), make(ENDPOINT, "a"), patience=1.0)
    client.take(CLUSTER)
    client.take(ENDPOINT, ["a"])
    client.publish(
        make(CLUSTER, "a", 1, health=True), make(CLUSTER, "d"), make(ENDPOINT, "d"), make(ROUTE, "r", 0, ["d"])
    )
    [clusters, assignment] = client.get()
    client.ack(assignment)
    client.take(ENDPOINT, ["a", "d"])
    assert client.ask(ROUTE, ["r"]) == []
    [routes] = client.later(1.0)
    client.ack(routes)
    [again, _] = client.nack(clusters, "constraint validation failed")
    assert again.versions == {"a": make(CLUSTER, "a", 0).version, "d": clusters.versions["d"]}
    assert again.names[-1] == "d"
    assert names(client.ack(again))[0] == ("cds", ["a", "d"], [])
