"""Whom a NACK means, in words and in sessions."""

from __future__ import annotations

from tests.session.harness import CLUSTER, ENDPOINT, LISTENER, ROUTE, Client, make
from xds.session.blame import Blame, blame

NEW = {"a": "1", "b": "1"}


def nobody(name, version):
    return False


def rejected(client):
    return sorted(one.name for one in client.gateway.rejections())


def test_the_words_say_whom():
    assert blame(NEW, "Error adding/updating cluster(s) b: no good", nobody) == Blame(["b"], [])


def test_a_name_inside_another_is_not_it():
    names = {"iris": "1", "iris-v2": "1", "models/iris": "1"}
    assert blame(names, "cluster iris-v2: no good", nobody).culprits == ["iris-v2"]
    assert blame(names, "cluster(s) models/iris: no good", nobody).culprits == ["models/iris"]


def test_who_is_alone_is_it():
    assert blame({"a": "1"}, "no good", nobody) == Blame(["a"], [])


def test_of_several_it_is_one():
    assert blame(NEW, "no good", nobody) == Blame([], ["a", "b"])


def test_what_runs_somewhere_is_blamed_last():
    def is_good(name, version):
        return name == "a"

    assert blame(NEW, "no good", is_good) == Blame(["b"], [])


def test_but_words_count_more():
    """One Envoy may refuse what another runs."""

    def is_good(name, version):
        return name == "a"

    assert blame(NEW, "cluster a: no good", is_good) == Blame(["a"], [])


def test_what_a_user_wrote_is_no_name():
    """Of routes Envoy names none, but it quotes a bad expression; and an error may quote anything."""
    assert blame(NEW, "bad expression '(a: b'", nobody, named=False) == Blame([], ["a", "b"])
    assert blame(NEW, "cluster(s) b: 'a' is no good", nobody) == Blame(["b"], [])


def test_what_is_new_is_meant_before_what_runs():
    def is_good(name, version):
        return name == "a"

    assert blame(NEW, "cluster(s) b: it says a: no good", is_good) == Blame(["b"], [])


def test_who_is_left_of_several_may_be_innocent():
    assert blame({"a": "1"}, "no good", nobody, partial=True) == Blame([], ["a"])
    assert blame({"a": "1"}, "a: no good", nobody, partial=True) == Blame(["a"], [])


def test_a_name_that_was_let_go_of_leaves_the_other_suspect_only():
    client = Client(make(LISTENER, "http", uses=["r", "s"]), make(ROUTE, "r"), make(ROUTE, "s"))
    client.take(CLUSTER)
    client.take(ROUTE, ["r", "s"])
    client.publish(make(ROUTE, "r", 1), make(ROUTE, "s", 1))
    [routes] = client.get()
    client.ask(ROUTE, unsubscribe=["s"])
    [alone] = client.nack(routes, "one of them is no good")
    assert (alone.names, rejected(client)) == (["r"], [])
    assert client.ack(alone) == []
    assert rejected(client) == []


def test_a_cluster_that_was_removed_before_it_was_tried_is_kept_in_its_good_version():
    """The routes are back on it, for those that leave it were refused."""
    client = Client(make(CLUSTER, "a"), make(ENDPOINT, "a"), make(ROUTE, "r", 0, ["a"]))
    client.take(CLUSTER)
    client.take(ENDPOINT, ["a"])
    client.take(ROUTE, ["r"])
    good = client.scope.get(CLUSTER, "a").version
    client.publish(make(CLUSTER, "a", 1), make(ROUTE, "r", 1))
    client.publish(make(ROUTE, "r", 1), remove=[(CLUSTER, "a")])
    client.drain(client.nack(client.get()[-1]))
    assert client.scope.get(CLUSTER, "a").version == good


def test_a_retired_version_that_is_refused_is_not_sent_again():
    client = Client(make(CLUSTER, "a"), make(ROUTE, "r"))
    other = client.another()
    client.publish(make(ROUTE, "r", 0, ["a"]))
    client.take(ROUTE, ["r"])
    client.publish(make(ROUTE, "r", 1), remove=[(CLUSTER, "a")])
    client.nack(client.get()[-1])
    [clusters] = other.ask(CLUSTER)
    assert clusters.names == ["a"]
    assert [(got.names, got.removed) for got in other.drain(other.nack(clusters))] == [([], ["a"])]
    assert client.scope.get(CLUSTER, "a") is None
