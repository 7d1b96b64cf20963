"""Scopes: what changed is what is told."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.model_envoy import CLUSTER, ENDPOINT, ROUTE, make
from xds.scope import Scope


def test_only_other_versions_are_changes():
    scope = Scope("models/iris")
    assert scope.update([make(CLUSTER, "a"), make(ROUTE, "r")]) == {CLUSTER: {"a"}, ROUTE: {"r"}}
    assert scope.update([make(CLUSTER, "a"), make(ROUTE, "r", 1)]) == {ROUTE: {"r"}}
    assert scope.update([], [(CLUSTER, "a"), (CLUSTER, "b")]) == {CLUSTER: {"a"}}
    assert scope.get(CLUSTER, "a") is None
    assert list(scope.names(ROUTE)) == ["r"]
    assert len(scope) == 1


def test_equal_content_keeps_its_bytes_and_takes_the_newer_origin():
    scope = Scope("models/iris")
    old = replace(make(CLUSTER, "a"), origin="object 1, field x")
    scope.update([old])
    scope.update([replace(make(CLUSTER, "a"), origin="object 1, field y")])
    kept = scope.get(CLUSTER, "a")
    assert kept.frame is old.frame
    assert kept.origin == "object 1, field y"
    scope.update([kept])
    assert scope.get(CLUSTER, "a") is kept


def test_what_is_removed_and_put_is_put():
    scope = Scope("models/iris")
    scope.update([make(CLUSTER, "a")])
    assert scope.update([make(CLUSTER, "a", 1)], [(CLUSTER, "a")]) == {CLUSTER: {"a"}}
    assert scope.update([make(CLUSTER, "a", 1)], [(CLUSTER, "a")]) == {}


def test_a_change_and_its_undoing_in_one_update_is_none():
    scope = Scope("models/iris")
    scope.update([make(CLUSTER, "a")])
    assert scope.update([make(CLUSTER, "a", 1), make(CLUSTER, "a", 0)]) == {}


keys = st.tuples(st.sampled_from([CLUSTER, ENDPOINT]), st.sampled_from("abc"))
edits = st.tuples(st.lists(st.tuples(keys, st.integers(0, 2))), st.lists(keys))


@settings(deadline=None)
@given(st.lists(edits))
def test_changes_are_the_difference(steps):
    scope, model = Scope("models/iris"), {}
    for put, remove in steps:
        before = dict(model)
        for key in remove:
            model.pop(key, None)
        model.update(dict(put))
        changes = scope.update([make(*key, rev) for key, rev in put], remove)
        changed = {key for key in before.keys() | model.keys() if before.get(key) != model.get(key)}
        assert {(type_, name) for type_, names in changes.items() for name in names} == changed
        assert all(changes.values())
        held = {(one.type, one.name): one.version for one in scope.resources()}
        assert held == {key: make(*key, rev).version for key, rev in model.items()}
