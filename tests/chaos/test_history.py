"""The judge of the minute of chaos is itself tried: what it must let pass, and what not."""

from __future__ import annotations

import math

import pytest

from tests.chaos.history import History
from tests.chaos.traffic import Asked


def history():
    """All goes to `a`, whose process is m1; from 10 on to `b`, with m2; from 20 on `b` has m3."""
    found = History()
    a, b = ({"plain": {name}} for name in "ab")
    for since, routes, endpoints, edition in [
        (0.0, a, {"a": {"m1"}}, "edition-1"),
        (10.0, b, {"a": {"m1"}, "b": {"m2"}}, "edition-2"),
        (20.0, b, {"b": {"m3"}}, "edition-2"),
    ]:
        found.record(routes, endpoints, edition, since)
        found.written(since)
    return found


def age(variant, sent, edition="", found=None):
    asked = Asked("plain", sent, sent + 0.1, status=200, variant=variant, edition=edition)
    return (found or history()).staleness(asked)


def test_what_is_true_now_is_not_old():
    assert age("m1", 5.0) == age("m2", 15.0) == age("m3", 25.0) == 0.0


def test_what_was_true_is_as_old_as_its_end():
    assert age("m1", 13.0) == 3.0
    assert age("m2", 24.0) == 4.0


def test_what_comes_true_while_the_request_runs_is_not_old():
    assert age("m2", 9.95) == 0.0


def test_what_was_never_true_is_never_right():
    assert age("m2", 5.0) == age("m9", 15.0) == math.inf


def test_an_answer_that_tells_its_policy_is_judged_by_that():
    assert age("m1", 15.0, "edition-1") == 5.0
    assert age("m1", 15.0, "edition-2") == math.inf


def test_nothing_that_was_over_comes_back_after_all_have_agreed():
    found = history()
    found.settle(22.0)
    assert age("m2", 22.1, found=found) == pytest.approx(2.1)
    assert age("m2", 23.0, found=found) == math.inf
    assert age("m3", 23.0, found=found) == 0.0
