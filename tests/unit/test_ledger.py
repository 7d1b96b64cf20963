"""What the log says of what is not as its user wants it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from translator.objects.ref import XDSERVE, Ref
from xdserve.ledger import Entry, Ledger, Place

POLICY = Ref(XDSERVE, "TrafficPolicy", "models", "iris")


@pytest.mark.parametrize(
    ("place", "ref", "said"),
    [
        (Place("a.yaml", 2), POLICY, {"file": "a.yaml", "document": 2, "object": "TrafficPolicy models/iris"}),
        (Place("trafficpolicies/models/iris", 0), POLICY, {"object": "TrafficPolicy models/iris"}),
        (Place("broken.yaml", 0), None, {"file": "broken.yaml", "document": 0}),
        (None, POLICY, {"object": "TrafficPolicy models/iris"}),
    ],
    ids=["in a file", "in a cluster", "a whole file", "nowhere"],
)
def test_the_log_says_where_it_stands(place, ref, said):
    ledger = Ledger(lambda: datetime.now(UTC), lambda _: None)
    with capture_logs() as logs:
        ledger.say("source", [Entry(place, ref, "spec", "Invalid", "found 1, allowed 2")])
        ledger.say("source", [])
    what = {"reason": "Invalid", "field": "spec", "message": "found 1, allowed 2"} | said
    assert logs == [
        {"event": "not as wanted", "log_level": "warning", **what},
        {"event": "as wanted again", "log_level": "info", **what},
    ]
