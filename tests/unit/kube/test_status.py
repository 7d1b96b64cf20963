"""What the writers of status, Events and reports decide, without an apiserver."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from translator.objects.ref import KSERVE, XDSERVE, Ref
from xdserve.conditions import GATEWAY_PROGRAMMED, Delivery, Progress, Refused, Verdict
from xdserve.kube.events import occurrences, remembered
from xdserve.kube.patches import essence
from xdserve.kube.reports import Unreadable, packed, unpacked
from xdserve.kube.schedule import Budget, Schedule
from xdserve.ledger import Entry

POLICY = Ref(XDSERVE, "TrafficPolicy", "models", "iris")
GOOD = Verdict(GATEWAY_PROGRAMMED, "True", "Programmed", "all have it")
BAD = Verdict(GATEWAY_PROGRAMMED, "False", "Rejected", "one refuses it")
WAITS = Verdict(GATEWAY_PROGRAMMED, "Unknown", "Pending", "not all yet")


def told(before, *after, warnings=()):
    return [(one.type, one.reason) for one in occurrences(before, after, warnings)]


def test_what_becomes_worse_is_a_warning_and_what_is_mended_is_told():
    assert told([GOOD], BAD) == [("Warning", "Rejected")]
    assert told([BAD], BAD) == []
    assert told([BAD], GOOD) == [("Normal", "Programmed")]
    assert told([BAD], BAD._replace(message="another")) == [("Warning", "Rejected")]


def test_what_passes_by_itself_is_no_event():
    assert told([GOOD], WAITS) == []
    assert told([WAITS], GOOD) == []


def test_that_something_is_mended_is_told_also_where_it_waited_meanwhile():
    assert told(remembered([BAD], [WAITS]), GOOD) == [("Normal", "Programmed")]
    assert told(remembered([BAD], [WAITS]), BAD) == []
    assert told(remembered([GOOD], [WAITS]), GOOD) == []
    assert told(remembered([BAD], [GOOD]), GOOD) == []


def test_of_what_is_seen_first_only_what_is_wrong_is_told():
    assert told(None, GOOD) == []
    assert told(None, BAD) == [("Warning", "Rejected")]


def test_what_is_mended_says_what_is_so_now():
    missing = Verdict("ResolvedRefs", "False", "BackendNotFound", "spec.split[0]: no such Service")
    resolved = Verdict("ResolvedRefs", "True", "ResolvedRefs", "")
    assert list(occurrences([missing], [resolved], ())) == [
        ("Normal", "ResolvedRefs", "every backend exists and is ready")
    ]
    # Without a target nothing is mended, and nothing new is wrong with the backends.
    unseen = Verdict("ResolvedRefs", "Unknown", "Pending", "not accepted (see Accepted), so not looked at")
    assert told([missing], unseen) == []
    assert told(remembered([missing], [unseen]), resolved) == [("Normal", "ResolvedRefs")]


def test_a_field_without_effect_is_a_warning():
    ignored = Entry(None, POLICY, "spec.predictor.canaryTrafficPercent", "FieldIgnored", "there is no second revision")
    (found,) = occurrences([GOOD], [GOOD], [ignored])
    assert found == ("Warning", "FieldIgnored", "spec.predictor.canaryTrafficPercent: there is no second revision")


def test_what_is_marked_is_due_after_a_quiet_moment_and_not_much_later_than_it_was_marked_first():
    schedule = Schedule(0.1, 1.0)
    schedule.mark("a", 0)
    assert schedule.take(0.09, 9) == []
    schedule.mark("a", 0.09)
    assert schedule.take(0.15, 9) == []
    assert schedule.take(0.19, 9) == ["a"]
    for tenth in range(11, 22):
        schedule.mark("b", tenth / 11)
    assert schedule.wait(2.0) == pytest.approx(0.0)
    schedule.later("c", 50)
    schedule.mark("c", 10)
    assert schedule.take(10.1, 9) == ["b", "c"]
    assert schedule.wait(0) is None


def test_a_budget_lets_a_burst_through_and_then_one_at_a_time():
    budget = Budget(2, 0.5, 0)
    assert [budget.take(0), budget.take(0), budget.take(0)] == [0, 0, 0.5]
    assert budget.take(0.5) == 0
    assert budget.take(0.5) == 0.5


def test_what_a_source_keeps_of_a_document_is_what_is_written_by():
    metadata = {"name": "iris", "namespace": "models", "uid": "u", "resourceVersion": "7", "generation": 2}
    status = {"conditions": [{"type": "Ready"}], "url": "http://iris", "components": {}}
    document = {"metadata": {**metadata, "labels": {"a": "b"}}, "spec": {"predictor": {}}, "status": status}
    assert essence(document) == {"metadata": metadata, "spec": {}, "status": {"conditions": [{"type": "Ready"}]}}


REFS = st.builds(lambda name: Ref(KSERVE, "InferenceService", "models", name), st.text(max_size=5))
LINES = st.builds(Refused, st.none() | REFS, st.text(max_size=9), st.text(max_size=30))
DELIVERIES = st.builds(
    Delivery, st.text("abc0", max_size=12), st.sampled_from(Progress), st.lists(LINES, max_size=3).map(tuple)
)


@given(st.dictionaries(st.text(max_size=12), DELIVERIES, max_size=5))
def test_a_report_is_read_as_it_was_written(report):
    assert unpacked(packed(report)) == report
    assert {one.version for one in unpacked(packed(report), "v2").values()} <= {"v2"}


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: data.hex()))
def test_what_is_no_report_is_told_to_be_none(text):
    with pytest.raises(Unreadable):
        unpacked(text)
