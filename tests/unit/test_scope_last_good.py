"""What a scope serves when Envoys refuse what is wanted, and what it remembers."""

from __future__ import annotations

from tests.support.model_envoy import CLUSTER, ENDPOINT, LISTENER, ROUTE, make
from xds.memory import Cause, Refusal
from xds.scope import REFUSALS_KEPT, Scope


def scope_with(*resources, acknowledged=True):
    scope = Scope("models/iris")
    scope.update(resources)
    if acknowledged:
        for one in resources:
            scope.acknowledge(one.type, {one.name: one.version})
    return scope


def refuse(scope, resource, message="no", cause=Cause.REFUSED):
    refusal = Refusal(version=resource.version, code=13, message=message, node="envoy", cause=cause)
    return scope.refuse(resource.type, resource.name, refusal)


def served(scope, type_, name):
    found = scope.get(type_, name)
    return found.version if found else None


GOOD, BAD, NEXT = make(LISTENER, "http", 0), make(LISTENER, "http", 1), make(LISTENER, "http", 2)


class TestARefusedVersion:
    def test_is_replaced_by_the_last_good_one(self):
        scope = scope_with(GOOD)
        assert scope.update([BAD]) == {LISTENER: {"http"}}
        assert scope.get(LISTENER, "http") is BAD
        assert refuse(scope, BAD) == {LISTENER: {"http"}}
        assert scope.get(LISTENER, "http") is GOOD
        assert scope.wanted(LISTENER, "http") is BAD
        assert list(scope.resources()) == [GOOD]

    def test_is_replaced_by_nothing_where_nothing_is_good(self):
        scope = scope_with(BAD, acknowledged=False)
        assert refuse(scope, BAD) == {LISTENER: {"http"}}
        assert scope.get(LISTENER, "http") is None
        assert list(scope.names(LISTENER)) == []
        assert scope.wanted(LISTENER, "http") is BAD

    def test_is_told_with_its_origin_until_something_else_is_wanted(self):
        scope = scope_with(GOOD)
        scope.update([BAD])
        refuse(scope, BAD, "bad regex")
        (found,) = scope.rejections()
        assert (found.name, found.refusal.message, found.served) == ("http", "bad regex", GOOD.version)
        assert scope.update([NEXT]) == {LISTENER: {"http"}}
        assert scope.rejections() == ()
        assert scope.get(LISTENER, "http") is NEXT

    def test_stays_refused_when_it_is_wanted_again_after_another_bad_one(self):
        scope = scope_with(GOOD)
        scope.update([BAD])
        refuse(scope, BAD)
        scope.update([NEXT])
        refuse(scope, NEXT)
        scope.update([BAD])
        assert scope.get(LISTENER, "http") is GOOD
        assert [one.refusal.version for one in scope.rejections()] == [BAD.version]

    def test_is_tried_again_when_a_good_one_was_wanted_in_between(self):
        scope = scope_with(GOOD)
        scope.update([BAD])
        refuse(scope, BAD)
        assert scope.update([GOOD]) == {LISTENER: {"http"}}, "an Envoy may have taken what another refused"
        assert scope.update([BAD]) == {LISTENER: {"http"}}
        assert scope.get(LISTENER, "http") is BAD

    def test_that_nobody_wants_any_more_is_no_matter(self):
        scope = scope_with(GOOD)
        scope.update([BAD])
        scope.update([NEXT])
        assert refuse(scope, BAD) == {}
        assert scope.rejections() == ()

    def test_goes_with_its_name(self):
        scope = scope_with(GOOD)
        scope.update([BAD])
        refuse(scope, BAD)
        assert scope.update([], [(LISTENER, "http")]) == {LISTENER: {"http"}}
        assert scope.get(LISTENER, "http") is None
        assert scope.rejections() == ()
        scope.update([BAD])
        assert scope.get(LISTENER, "http") is BAD

    def test_of_which_another_envoy_says_that_it_is_good_stays_refused(self):
        scope = scope_with(GOOD)
        scope.update([BAD])
        refuse(scope, BAD)
        assert scope.acknowledge(LISTENER, {"http": BAD.version}) == {}
        assert scope.get(LISTENER, "http") is GOOD

    def test_which_the_same_envoy_takes_after_all_is_good(self):
        scope = scope_with(GOOD)
        scope.update([BAD])
        refuse(scope, BAD)
        assert scope.acknowledge(LISTENER, {"http": BAD.version}, "envoy") == {LISTENER: {"http"}}
        assert scope.get(LISTENER, "http") is BAD
        assert scope.rejections() == ()

    def test_may_be_the_good_one_of_another_envoy(self):
        scope = scope_with(GOOD)
        scope.update([BAD])
        scope.acknowledge(LISTENER, {"http": BAD.version})
        assert refuse(scope, BAD) == {LISTENER: {"http"}}
        assert scope.get(LISTENER, "http") is GOOD

    def test_is_told_in_the_words_of_the_first(self):
        scope = scope_with(GOOD)
        scope.update([BAD])
        refuse(scope, BAD, "first")
        assert refuse(scope, BAD, "second") == {}
        assert [one.refusal.message for one in scope.rejections()] == ["first"]

    def test_refusals_are_bounded(self):
        scope = scope_with(GOOD)
        for rev in range(1, 100):
            bad = make(LISTENER, "http", rev)
            scope.update([bad])
            refuse(scope, bad)
        assert len(scope.remembered(LISTENER, "http").refused) == REFUSALS_KEPT


class TestQuarantine:
    def test_ends_when_an_envoy_acknowledges_the_version(self):
        scope = scope_with(GOOD)
        scope.update([BAD])
        assert scope.doubtful(LISTENER, "http", BAD.version)
        refuse(scope, BAD, cause=Cause.QUARANTINED)
        assert scope.get(LISTENER, "http") is GOOD
        assert scope.acknowledge(LISTENER, {"http": BAD.version}) == {LISTENER: {"http"}}
        assert scope.get(LISTENER, "http") is BAD
        assert scope.rejections() == ()

    def test_nothing_is_doubtful_that_is_proven_or_without_alternative(self):
        assert not scope_with(GOOD).doubtful(LISTENER, "http", GOOD.version)
        assert not scope_with(GOOD, acknowledged=False).doubtful(LISTENER, "http", GOOD.version)


A, B = make(CLUSTER, "a"), make(CLUSTER, "b")
EA, EB = make(ENDPOINT, "a"), make(ENDPOINT, "b")
TO_A, TO_B = make(ROUTE, "r", 0, ["a"]), make(ROUTE, "r", 1, ["b"])


def moved():
    """Routes to a are good; then the routes lead to b, and a is gone."""
    scope = scope_with(A, EA, TO_A)
    scope.update([B, EB, TO_B], [(CLUSTER, "a"), (ENDPOINT, "a")])
    return scope


class TestClustersOfRoutes:
    def test_are_served_again_with_the_last_good_routes(self):
        scope = moved()
        assert (served(scope, CLUSTER, "a"), served(scope, ENDPOINT, "a")) == (None, None)
        assert refuse(scope, TO_B) == {ROUTE: {"r"}, CLUSTER: {"a"}, ENDPOINT: {"a"}}
        assert (scope.get(ROUTE, "r"), scope.get(CLUSTER, "a"), scope.get(ENDPOINT, "a")) == (TO_A, A, EA)
        assert set(scope.names(CLUSTER)) == {"a", "b"}

    def test_go_when_the_next_routes_are_taken(self):
        scope = moved()
        refuse(scope, TO_B)
        again = make(ROUTE, "r", 2, ["b"])
        assert scope.update([again]) == {ROUTE: {"r"}, CLUSTER: {"a"}, ENDPOINT: {"a"}}
        assert (scope.get(ROUTE, "r"), scope.get(CLUSTER, "a")) == (again, None)
        scope.acknowledge(ROUTE, {"r": again.version})
        last = make(ROUTE, "r", 3, ["b"])
        scope.update([last])
        scope.acknowledge(ROUTE, {"r": last.version})
        assert scope.remembered(CLUSTER, "a").good == ()

    def test_that_are_wanted_again_are_served_as_wanted(self):
        scope = moved()
        refuse(scope, TO_B)
        newer = make(CLUSTER, "a", 7)
        assert scope.update([newer]) == {CLUSTER: {"a"}}
        assert scope.get(CLUSTER, "a") is newer

    def test_of_which_none_is_good_keep_the_old_routes(self):
        scope = scope_with(A, EA, TO_A)
        scope.update([B, EB, TO_B])
        assert refuse(scope, B) == {CLUSTER: {"b"}, ROUTE: {"r"}}
        assert (scope.get(CLUSTER, "b"), scope.get(ROUTE, "r")) == (None, TO_A)
        fixed = make(CLUSTER, "b", 1)
        assert scope.update([fixed]) == {CLUSTER: {"b"}, ROUTE: {"r"}}
        assert (scope.get(CLUSTER, "b"), scope.get(ROUTE, "r")) == (fixed, TO_B)

    def test_that_are_good_in_an_older_version_serve_the_new_routes(self):
        scope = scope_with(A, EA, TO_A, B, EB)
        bad = make(CLUSTER, "b", 1)
        scope.update([bad, TO_B])
        assert refuse(scope, bad) == {CLUSTER: {"b"}}
        assert (scope.get(CLUSTER, "b"), scope.get(ROUTE, "r")) == (B, TO_B)

    def test_routes_that_are_gone_are_served_no_more_though_others_are_refused(self):
        scope = scope_with(A, EA, B, EB, TO_A, make(ROUTE, "s", 0, ["b"]))
        scope.update([make(ROUTE, "s", 1), TO_B], [(CLUSTER, "a"), (ENDPOINT, "a")])
        refuse(scope, TO_B)
        refuse(scope, make(ROUTE, "s", 1))
        scope.update([], [(ROUTE, "s"), (CLUSTER, "b"), (ENDPOINT, "b")])
        assert scope.get(ROUTE, "s") is None

    def test_routes_whose_clusters_are_gone_are_not_good_any_more(self):
        scope = scope_with(A, EA, TO_A)
        scope.update([B, EB], [(CLUSTER, "a"), (ENDPOINT, "a")])
        scope.update([TO_B])
        refuse(scope, TO_B)
        assert scope.get(ROUTE, "r") is None


class TestMemory:
    def test_tells_what_is_new_once(self):
        scope = moved()
        assert set(scope.drain()) == {(CLUSTER, "a"), (ENDPOINT, "a"), (ROUTE, "r")}
        assert scope.drain() == []
        scope.acknowledge(ROUTE, {"r": TO_B.version})
        assert scope.drain() == [(ROUTE, "r")]
        scope.acknowledge(ROUTE, {"r": TO_B.version})
        assert scope.drain() == []
        assert scope.remembered(ROUTE, "r").good == (TO_B, TO_A)

    def test_outlives_a_restart(self):
        before = moved()
        refuse(before, TO_B)
        memories = [before.remembered(*key) for key in before.drain()]
        scope = Scope("models/iris")
        scope.restore(memories)
        assert list(scope.resources()) == []
        scope.update([B, EB, TO_B])
        assert (scope.get(ROUTE, "r"), scope.get(CLUSTER, "a"), scope.get(ENDPOINT, "a")) == (TO_A, A, EA)
        assert [one.name for one in scope.rejections()] == ["r"]

    def test_of_what_some_have_outlives_a_restart_beside_good_versions(self):
        before = scope_with(GOOD)
        before.update([BAD])
        before.acknowledge(LISTENER, {"http": BAD.version})
        before.update([NEXT])
        refuse(before, NEXT)
        before.acknowledge(LISTENER, {"http": NEXT.version})
        refuse(before, GOOD)
        refuse(before, BAD)
        memories = [before.remembered(*key) for key in before.drain()]
        for wanted in (NEXT, make(LISTENER, "http", 3)):
            before.update([wanted])
            refuse(before, wanted)
            scope = Scope("models/iris")
            scope.restore(memories)
            scope.update([wanted])
            refuse(scope, wanted)
            assert served(scope, LISTENER, "http") == served(before, LISTENER, "http") == NEXT.version

    def test_that_fits_what_is_wanted_changes_nothing(self):
        before = scope_with(A, EA, TO_A)
        memories = [before.remembered(*key) for key in before.drain()]
        scope = Scope("models/iris")
        scope.restore(memories)
        scope.update([TO_A, A, EA])
        scope.acknowledge(CLUSTER, {"a": A.version})
        assert list(scope.resources()) == [A, EA, TO_A]
        assert scope.drain() == []
        assert scope.remembered(CLUSTER, "a").good == (A,)

    def test_of_what_went_while_no_server_ran_is_dropped(self):
        before = scope_with(GOOD, A, EA, TO_A)
        other = make(ROUTE, "s", 0, ["b"])
        before.update([B, EB, other])
        before.acknowledge(ROUTE, {"s": other.version})
        refuse(before, B)
        memories = [before.remembered(*key) for key in before.drain()]
        scope = Scope("models/iris")
        scope.restore(memories)
        scope.update([A, EA, TO_A])
        assert set(scope.drain()) == {(LISTENER, "http"), (ROUTE, "s"), (CLUSTER, "b")}
        assert list(scope.resources()) == [A, EA, TO_A]

    def test_of_names_that_are_gone_is_dropped(self):
        scope = scope_with(GOOD)
        scope.drain()
        scope.update([], [(LISTENER, "http")])
        assert scope.drain() == [(LISTENER, "http")]
        assert scope.remembered(LISTENER, "http").good == ()
