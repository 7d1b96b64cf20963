"""What Envoys refuse, as the log, the ledger, the metrics and subscribers have it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from structlog.testing import capture_logs

from translator.objects.ref import XDSERVE, Origin, Ref
from xds.memory import Cause, Refusal, Rejection
from xds.types import ResourceType
from xdserve.ledger import Ledger, Place
from xdserve.metrics import Metrics
from xdserve.rejections import Rejections

IRIS = "models/iris"
POLICY = Ref(XDSERVE, "TrafficPolicy", "models", "iris")
START = datetime(2026, 11, 1, tzinfo=UTC)
ROUTES = Rejection(
    type=ResourceType.ROUTE,
    name=IRIS,
    refusal=Refusal(version="7", code=13, message="missing )", node="envoy-1"),
    origin=Origin(POLICY, "spec.rules[0]"),
    served="6",
)
CLUSTER = replace(ROUTES, type=ResourceType.CLUSTER, name="models/iris/v2", origin=None, served=None)


def refused(found=ROUTES, **changes):
    return replace(found, refusal=replace(found.refusal, **changes))


class Program:
    def __init__(self):
        seconds = count()
        self.metrics = Metrics(process=False)
        self.ledger = Ledger(lambda: START, lambda ref: Place("a.yaml", 2))
        self.rejections = Rejections(self.ledger, self.metrics, lambda: START + timedelta(seconds=next(seconds)))
        self.say = self.rejections.say

    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(f"xdserve_{name}", labels)


@pytest.fixture
def program():
    return Program()


def test_the_log_says_once_what_it_means_and_once_that_it_is_over(program):
    where = {
        "gateway": IRIS, "type": "rds", "name": IRIS, "version": "7", "served": "6", "file": "a.yaml", "document": 2,
        "object": "TrafficPolicy models/iris", "field": "spec.rules[0]",
    }  # fmt: skip
    with capture_logs() as logs:
        program.say(IRIS, [ROUTES])
        program.say(IRIS, [refused(node="envoy-2", message="missing ) too")])
        program.say(IRIS, [])
    meaning = "an Envoy refuses this version: the last good version is served instead, until the object changes"
    said = {"node": "envoy-1", "code": 13, "message": "missing )"}
    assert logs == [
        {"event": meaning, "log_level": "warning", **where, **said},
        {"event": "refused no more", "log_level": "info", **where},
    ]


def test_the_log_says_when_nothing_is_served_instead(program):
    with capture_logs() as logs:
        program.say(IRIS, [CLUSTER])
    (line,) = logs
    assert line["event"].endswith(
        "no version is known to be good, so Envoys keep what they have, and new ones get none"
    )
    assert line["served"] is None
    assert "object" not in line


def test_another_envoys_refusal_keeps_the_date_and_a_new_version_begins_anew(program):
    program.say(IRIS, [ROUTES])
    program.say(IRIS, [refused(node="envoy-2")])
    (one,) = program.rejections
    assert (one.since, one.node) == (START, "envoy-2")
    ((dated,),) = [program.ledger]
    assert dated.since == START
    program.say(IRIS, [refused(version="8")])
    (one,) = program.rejections
    assert one.since > START


def test_the_ledger_has_those_that_come_from_an_object(program):
    program.say(IRIS, [CLUSTER, ROUTES])
    (dated,) = program.ledger
    assert (dated.entry.object, dated.entry.field, dated.entry.reason) == (POLICY, "spec.rules[0]", "Rejected")
    refuses = "Envoy envoy-1 refuses the routes models/iris (version 7)"
    assert dated.entry.message == f"{refuses}, version 6 is served instead: missing )"
    program.say(IRIS, [])
    assert not list(program.ledger)


def test_they_are_listed_by_gateway_in_send_order(program):
    program.say("models/wine", [ROUTES])
    program.say(IRIS, [ROUTES, replace(CLUSTER, name="b"), replace(CLUSTER, name="a")])
    assert [(one.gateway, one.rejection.type.short, one.rejection.name) for one in program.rejections] == [
        (IRIS, "cds", "a"),
        (IRIS, "cds", "b"),
        (IRIS, "rds", IRIS),
        ("models/wine", "rds", IRIS),
    ]
    assert len(program.rejections) == 4
    assert (program.value("refused_resources", type="cds"), program.value("refused_resources", type="rds")) == (2, 2)
    program.say(IRIS, [ROUTES])
    assert (program.value("refused_resources", type="cds"), program.value("refused_resources", type="rds")) == (0, 2)


def test_a_list_that_is_being_read_may_change(program):
    program.say(IRIS, [ROUTES])
    program.say("models/wine", [ROUTES])
    reading = iter(program.rejections)
    assert next(reading).gateway == IRIS
    program.say("models/wine", [])
    program.say("models/pear", [ROUTES])
    assert list(reading) == []


def test_quarantine_is_counted_once_and_said_as_such(program):
    lost = refused(cause=Cause.QUARANTINED, code=0, message="envoy-1 was lost 2 times before it answered")
    with capture_logs() as logs:
        program.say(IRIS, [lost])
        program.say(IRIS, [replace(lost, served="5")])
    assert [line["event"].partition(":")[0] for line in logs] == ["Envoys were lost with this version"]
    assert program.value("quarantined_total") == 1
    (one,) = program.rejections
    assert one.message.startswith(
        "In quarantine: the routes models/iris (version 7), version 5 is served instead: envoy-1 was lost"
    )


def test_a_subscriber_is_told_all_of_a_gateway_until_it_leaves(program):
    told = []
    leave = program.rejections.subscribe(lambda gateway, standing: told.append((gateway, standing)))
    program.say(IRIS, [CLUSTER, ROUTES])
    program.say(IRIS, [])
    leave()
    leave()
    program.say(IRIS, [ROUTES])
    assert [(gateway, [one.rejection for one in standing]) for gateway, standing in told] == [
        (IRIS, [CLUSTER, ROUTES]),
        (IRIS, []),
    ]
    assert told[0][1][1].origin == Origin(POLICY, "spec.rules[0]")


def test_words_are_fit_to_be_shown(program):
    odd = refused(message="\x1b[31m" + "x" * 10_000, node="a\nb")
    secret = replace(refused(message='key "hunter2" is bad\nhunter2'), type=ResourceType.SECRET)
    with capture_logs() as logs:
        program.say(IRIS, [odd, secret])
    for text in (*(str(line) for line in logs), *(dated.entry.message for dated in program.ledger)):
        assert "hunter2" not in text
        assert "\x1b" not in text
        assert len(text) < 3000
    assert {one.node for one in program.rejections} == {"a\\nb", "envoy-1"}


def test_a_version_that_others_have_is_not_said_to_be_replaced(program):
    with capture_logs() as logs:
        program.say(IRIS, [replace(ROUTES, served=ROUTES.refusal.version)])
    assert (
        logs[0]["event"] == "an Envoy refuses this version, which others have: it is served, for nothing else is good"
    )
    (one,) = program.rejections
    assert one.message == (
        "Envoy envoy-1 refuses the routes models/iris (version 7), and others have it, so it stays where nothing else "
        "is good: missing )"
    )
