"""`spec.edge` of a ServiceGateway, `buffer` of a TrafficPolicy, and the headers that no rule can see."""

from __future__ import annotations

import pytest

from tests.unit.objects.mistakes import GATEWAY, POLICY, changed, problems
from translator.objects import parse
from translator.objects.fields import DROPPED_HEADERS
from translator.planners.edge import DEFAULT_EDGE, planned_edge

WINDOWS = "allowed 64Ki to 1Gi, in whole Ki, Mi or Gi"
BODIES = "allowed 1Mi to 1Gi, in whole Mi or Gi"


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("http10", "allow", 'spec.edge.http10: found "allow", allowed Allow or Reject'),
        ("http10", True, None),
        ("upgradeTLS", "Drop", None),
        ("upgradeTls", "Ignore", None),
        ("trailingDot", "", None),
        ("requestID", "Keep", None),
        ("underscores", "Refuse", 'spec.edge.underscores: found "Refuse", allowed Reject, Drop or Allow'),
        ("escapedSlashes", ["Keep"], None),
        ("headerCase", "Upper", None),
        *(
            ("streamWindow", size, f'spec.edge.streamWindow: found "{size}", {WINDOWS}')
            for size in ("63Ki", "0", "1.5Mi", "1025Mi", "2Gi", "1M", "1000000Ki", "-1Mi", "1Mi ")
        ),
        ("connectionWindow", 1048576, f"spec.edge.connectionWindow: found 1048576, {WINDOWS}"),
        ("concurrentStreams", 0, "spec.edge.concurrentStreams: found 0, allowed 1..100000"),
        ("concurrentStreams", 100_001, None),
        ("requestTimeout", "5", "spec.edge.requestTimeout: found \"5\", allowed a duration such as 300ms, 5m or 0s"),
        ("window", "1Mi", None),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(field, value, line):
    [found] = problems(changed(GATEWAY, "spec.edge", {field: value}))
    assert found.startswith(f"spec.edge.{field}: ")
    assert line is None or found == line


def test_what_is_left_out_has_the_documented_default():
    assert planned_edge(parse(changed(GATEWAY, "spec.edge", {})).spec.edge) == DEFAULT_EDGE
    assert (DEFAULT_EDGE.stream_window, DEFAULT_EDGE.connection_window) == (1 << 20, 16 << 20)
    assert (DEFAULT_EDGE.concurrent_streams, DEFAULT_EDGE.request_timeout) == (100, 300_000)


@pytest.mark.parametrize("size", ["64Ki", "999999Ki", "1Mi", "100Mi", "1024Mi", "1Gi"])
def test_a_window_may_be(size):
    gateway = parse(changed(GATEWAY, "spec.edge", {"streamWindow": size}))
    assert gateway.spec.edge.stream_window == size


@pytest.mark.parametrize("place", ["spec", "spec.rules.0"])
@pytest.mark.parametrize("size", ["1023Ki", "512Ki", "1025Mi", "16M", 16777216])
def test_a_buffer_has_bounds(place, size):
    [line] = problems(changed(POLICY, f"{place}.buffer", {"maxRequestBytes": size}))
    shown = size if isinstance(size, int) else f'"{size}"'
    assert line == f"{place.replace('.0', '[0]')}.buffer.maxRequestBytes: found {shown}, {BODIES}"


@pytest.mark.parametrize("name", [*DROPPED_HEADERS, "X-Original-URL", "knative-serving-revision", "x-envoy-retry-on"])
def test_a_rule_on_a_header_that_gateways_drop_is_refused(name):
    match = {"headers": [{"name": name, "value": "x"}]}
    [line] = problems(changed(POLICY, "spec.rules.0.matches.0", match))
    assert line.endswith(
        "allowed any header but x-original-url, x-rewrite-url, k-network-hash, x-envoy-*, knative-serving-*, "
        "which gateways drop"
    )
