"""What happens on streams, as people read it in the log and in the metrics."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from xds.server import StreamInfo
from xds.session import Overdue, Rejected, Response, Stale, UnknownType, Variant
from xds.types import ResourceType
from xdserve.metrics import Metrics
from xdserve.observer import COMING_AND_GOING, StreamObserver

START = datetime(2026, 11, 1, tzinfo=UTC)


def stream(number=1, **changes):
    given = {"gateway": "models/iris", "node_id": "envoy-1", "peer": "ipv4:127.0.0.1:1", "user_agent": "envoy 1.36.0"}
    return StreamInfo(**(given | {"id": number, "connected_since": START, "known": True} | changes))


class Watched:
    def __init__(self):
        self.now = 0.0
        self.metrics = Metrics(process=False)
        self.left = []
        self.observer = StreamObserver(
            self.metrics, self.left.append, lambda gateway, rejections: None, clock=lambda: self.now
        )

    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(f"xdserve_{name}", labels)


@pytest.fixture
def watched():
    return Watched()


def test_streams_are_counted_by_how_they_speak(watched):
    watched.observer.opened(stream())
    watched.observer.opened(stream(2, variant=Variant.SOTW, service="cds"))
    watched.observer.closed(stream())
    assert watched.value("streams_total", variant="delta", service="ads") == 1
    assert watched.value("streams_total", variant="sotw", service="cds") == 1
    assert watched.value("connected_envoys") == 1
    assert watched.left == ["models/iris"]


def test_what_a_client_calls_itself_does_not_drive_the_terminal(watched):
    with capture_logs() as logs:
        watched.observer.opened(stream(node_id="\x1b[2J", user_agent="a\nb"))
    assert (logs[0]["node"], logs[0]["user_agent"]) == ("\\x1b[2J", "a\\nb")


def test_an_unknown_type_is_logged_once_a_stream_and_counted_each_time(watched):
    with capture_logs() as logs:
        for number in (1, 1, 2):
            watched.observer.event(stream(number), UnknownType(type_url="type.googleapis.com/\n" + "x" * 9999))
        watched.observer.closed(stream(1))
    asked = [line for line in logs if "type_url" in line]
    assert [line["log_level"] for line in asked] == ["info", "info"]
    assert max(len(line["type_url"]) for line in asked) < 300
    assert watched.value("unknown_types_total") == 3


def test_a_missing_answer_is_one_line_that_says_what_it_means(watched):
    names = frozenset(f"models/iris/{number}" for number in range(7))
    with capture_logs() as logs:
        watched.observer.event(stream(), Overdue(type=ResourceType.CLUSTER, nonce="1-1", names=names, seconds=15.0123))
    (line,) = logs
    assert line == {
        "event": "Envoy does not answer: a cluster that cannot warm looks like this; "
        "routes that need it wait, others go on",
        "log_level": "warning",
        "gateway": "models/iris",
        "node": "envoy-1",
        "type": "cds",
        "seconds": 15.0,
        "resources": "models/iris/0, models/iris/1, models/iris/2, models/iris/3, models/iris/4 and 2 more",
    }
    assert watched.value("overdue_total", type="cds") == 1


def test_superfluous_changes_are_counted(watched):
    response = Response(type=ResourceType.ROUTE, nonce="1-1", frame=b"", resources=1, removed=0, coalesced=3)
    watched.observer.sent(stream(), response)
    assert watched.value("pushes_coalesced_total", type="rds") == 3


def test_refused_streams_are_counted_by_status_from_a_closed_set(watched):
    for status in ("PERMISSION_DENIED", "UNAVAILABLE", "DATA_LOSS", "whatever"):
        watched.observer.refused("peer", status, "no")
    assert watched.value("refused_streams_total", status="PERMISSION_DENIED") == 1
    assert watched.value("refused_streams_total", status="UNAVAILABLE") == 1
    assert watched.value("refused_streams_total", status="OTHER") == 2


def test_a_storm_of_refused_streams_does_not_fill_the_log(watched):
    with capture_logs() as logs:
        for _ in range(1000):
            watched.observer.refused("peer", "RESOURCE_EXHAUSTED", "too many")
        watched.observer.refused("peer", "INVALID_ARGUMENT", "x" * 1_000_000)
        watched.now = 1.5
        watched.observer.refused("peer", "RESOURCE_EXHAUSTED", "too many")
        watched.observer.refused("peer", "UNAVAILABLE", "going down")
    assert [(line["status"], line.get("others_before")) for line in logs] == [
        ("RESOURCE_EXHAUSTED", None),
        ("INVALID_ARGUMENT", None),
        ("RESOURCE_EXHAUSTED", 999),
    ]
    assert len(str(logs)) < 10_000


def test_an_envoy_is_counted_once_however_many_streams_it_has(watched):
    apart = [stream(number, service=service) for number, service in enumerate(("cds", "eds", "lds"))]
    others = [stream(7), stream(8), stream(9, service="cds", gateway="models/wine")]
    for one in (*apart, *others):
        watched.observer.opened(one)
    assert watched.value("connected_envoys") == 4
    for one in apart[:2]:
        watched.observer.closed(one)
    assert watched.value("connected_envoys") == 4
    for one in (apart[2], *others):
        watched.observer.closed(one)
    assert watched.value("connected_envoys") == 0


def test_a_storm_of_streams_does_not_fill_the_log(watched):
    with capture_logs() as logs:
        for number in range(1000):
            watched.observer.opened(stream(number, known=False))
        for number in range(1000):
            watched.observer.closed(stream(number))
        watched.now = 1.0
        watched.observer.opened(stream())
    assert len(logs) == 3 * COMING_AND_GOING + 1
    assert (logs[-1]["event"], logs[-1]["others_before"]) == ("Envoy connected", 980)
    assert watched.value("streams_total", variant="delta", service="ads") == 1001


def rejected(type_=ResourceType.ROUTE, **changes):
    given = {"versions": {}, "removed": frozenset(), "seconds": 0.1, "code": 13, "message": "no"}
    return Rejected(type=type_, nonce="1-1", **given | changes)


def test_a_refusal_that_condemns_nothing_is_told(watched):
    with capture_logs() as logs:
        watched.observer.event(stream(), rejected(removed=frozenset({"models/iris"}), message="in\nuse"))
    assert logs == [
        {
            "event": "Envoy refuses a response",
            "log_level": "warning",
            "gateway": "models/iris",
            "node": "envoy-1",
            "type": "rds",
            "resources": "",
            "removed": "models/iris",
            "code": 13,
            "message": "in\\nuse",
        }
    ]
    assert watched.value("rejections_total", type="rds") == 1


def test_refusals_are_told_once_a_second_of_a_gateway_and_type(watched):
    with capture_logs() as logs:
        for _ in range(100):
            watched.observer.event(stream(), rejected(versions={str(number): "1" for number in range(99)}))
            watched.observer.event(stream(), rejected(ResourceType.CLUSTER, message="x" * 1_000_000))
            watched.observer.event(stream(gateway="models/wine"), rejected())
        watched.now = 1.0
        watched.observer.event(stream(), rejected())
    told = [(line["gateway"], line["type"], line.get("others_before")) for line in logs]
    assert told == [
        ("models/iris", "rds", None),
        ("models/iris", "cds", None),
        ("models/wine", "rds", None),
        ("models/iris", "rds", 99),
    ]
    assert len(str(logs)) < 10_000


def test_the_words_of_a_refused_secret_are_not_shown(watched):
    with capture_logs() as logs:
        watched.observer.event(stream(), rejected(ResourceType.SECRET, message='bad key "hunter2"\nmore'))
    assert logs[0]["message"] == "bad key [hidden]"


def test_kinds_of_lines_that_never_come_again_are_forgotten(watched):
    for number in range(5000):
        watched.now = number / 1000
        watched.observer.event(stream(gateway=f"models/m{number}"), rejected())
    assert len(watched.observer._seldom._seconds) <= 2000


def test_answers_to_nothing_are_counted(watched):
    watched.observer.event(stream(), Stale(type=ResourceType.CLUSTER, nonce="1-9"))
    assert watched.value("stale_answers_total", type="cds") == 1
