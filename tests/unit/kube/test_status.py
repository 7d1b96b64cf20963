"""What the writers of status, Events and reports decide, without an apiserver."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.wait import wait_until
from translator.objects.ref import KSERVE, XDSERVE, Ref
from xdserve.conditions import GATEWAY_PROGRAMMED, Delivery, Progress, Refused, Verdict
from xdserve.judge import Judgement, Voice
from xdserve.kube import events
from xdserve.kube.events import Occurrence, Recorder, Told, occurrences, remembered
from xdserve.kube.patches import essence
from xdserve.kube.reports import Reporter, Unreadable, packed, unpacked
from xdserve.kube.schedule import Budget, Schedule
from xdserve.kube.status import StatusWriter
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
    assert told(remembered([], [WAITS]), GOOD) == []


NOT_READY = Verdict("ResolvedRefs", "False", "BackendNotReady", "spec.backends[0]: no endpoint is ready")
RESOLVED = Verdict("ResolvedRefs", "True", "ResolvedRefs", "")
NO_ENVOY = Verdict(GATEWAY_PROGRAMMED, "Unknown", "NoGateway", "no Envoy is connected")


def news(object_told, now, *after):
    return [(one.type, one.reason) for one in object_told.news(None, after, (), now)]


def test_what_every_deployment_passes_through_is_told_when_it_has_lasted_a_minute_and_once():
    for trouble, well in ((NOT_READY, RESOLVED), (NO_ENVOY, GOOD)):
        one = Told()
        assert news(one, 0, trouble) == []
        assert one.due(0) == 60
        assert news(one, 59, trouble._replace(message="another word")) == []
        assert news(one, 60, trouble) == [("Warning", trouble.reason)]
        assert one.due(60) is None
        assert news(one, 90, trouble) == []
        assert news(one, 91, well) == [("Normal", well.reason)]


def test_a_backend_that_is_away_for_less_than_a_minute_again_and_again_is_never_told():
    one = Told()
    for start in range(0, 600, 60):
        assert news(one, start, NOT_READY) == []
        assert news(one, start + 59, RESOLVED) == []


def test_what_is_refused_is_told_at_once():
    assert news(Told(), 0, NOT_READY, BAD) == [("Warning", "Rejected")]


def test_a_gateway_that_lacks_envoys_is_told_on_its_target_and_not_on_each_policy():
    waits = Verdict("Programmed", "False", "NoGateway", NO_ENVOY.message)
    one = Told()
    assert news(one, 0, waits) == news(one, 100, waits) == []
    assert one.due(0) is None


def test_a_new_leader_tells_what_lasts_and_not_that_it_is_mended_before_it_was_told():
    status = [NOT_READY]
    assert list(Told().news(status, [RESOLVED], (), 0)) == []
    one = Told()
    assert list(one.news(status, status, (), 0)) == []
    assert [found.reason for found in one.news(status, status, (), 60)] == ["BackendNotReady"]


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
    kept = {"conditions": [{"type": "Ready"}], "observedGeneration": 2}
    status = {**kept, "url": "http://iris", "components": {}}
    document = {"metadata": {**metadata, "labels": {"a": "b"}}, "spec": {"predictor": {}}, "status": status}
    assert essence(document) == {"metadata": metadata, "spec": {}, "status": kept}


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


async def test_an_event_that_waits_to_be_counted_costs_one_look_a_second(monkeypatch):
    """However many others are told meanwhile."""
    monkeypatch.setattr(events, "PER_SECOND", 10_000.0)
    written = []

    async def call(method, path, body=None, **more):
        written.append(path)
        return {}

    recorder, document = Recorder(call, "a"), {"metadata": {"uid": "u"}}
    task = asyncio.create_task(recorder.run())
    flaps, others = POLICY, [POLICY._replace(name=f"iris-{number}") for number in range(50)]
    recorder.tell(flaps, document, Occurrence("Warning", "Rejected", "again"))
    await wait_until(lambda: recorder.written == 1)
    recorder.tell(flaps, document, Occurrence("Warning", "Rejected", "again"))
    for number, one in enumerate(others):
        recorder.tell(one, document, Occurrence("Warning", "Rejected", "one"))
        await wait_until(lambda wanted=number + 2: recorder.written == wanted)
    timers = asyncio.get_running_loop()._scheduled
    assert len([one for one in timers if not one.cancelled()]) < 5
    task.cancel()
    await asyncio.wait([task])


class Faulty:
    """A judge that fails of one object."""

    def refs(self):
        return [POLICY, POLICY._replace(name="wine"), POLICY._replace(name="rose")]

    def judge(self, refs):
        for ref in refs:
            if ref == POLICY:
                raise ValueError("a fault of ours")
            yield ref, Judgement((), Voice.SPEAKS)

    def elsewhere(self, target):
        return False


async def test_an_object_that_cannot_be_judged_harms_no_other():
    looked = []

    class Leads:
        held = True

        async def changes(self):
            yield True
            await asyncio.Event().wait()

    writer = StatusWriter(None, Faulty(), lambda ref: looked.append(ref.name), Leads(), Recorder(None, "a"))
    task = asyncio.create_task(writer.run())
    await wait_until(lambda: {"wine", "rose"} <= set(looked) or task.done())
    assert not task.done()
    assert writer.failures == 1
    assert "iris" not in looked
    task.cancel()
    await asyncio.wait([task])


class FaultyOfOne:
    faulty = True

    def gateways(self):
        return ["models/iris", "models/wine"]

    def delivery(self, gateway):
        if gateway == "models/iris" and self.faulty:
            raise ValueError("a fault of ours")
        return Delivery("digest", Progress.DONE)


async def test_a_gateway_that_cannot_be_reported_harms_no_other():
    """Nor does it count as without Envoys here, where something was said of it before."""
    written, judge = [], FaultyOfOne()

    async def call(method, path, body=None, **more):
        if body is not None:
            written.append(unpacked(body["data"]["report"]).keys())
        return {}

    reporter = Reporter(call, judge, "system", "report")
    task = asyncio.create_task(reporter.publish())
    for faulty, known in ((True, {"models/wine"}), (False, {"models/iris", "models/wine"}), (True, None)):
        judge.faulty, before = faulty, len(written)
        reporter.mark_gateway("models/iris")
        await wait_until(lambda before=before: len(written) > before or task.done())
        assert not task.done()
        assert written[-1] == known or known is None
    assert written[-1] == {"models/iris", "models/wine"}
    assert reporter.failures
    task.cancel()
    await asyncio.wait([task])
