"""The metrics of each gateway, in the text that Prometheus reads."""

from __future__ import annotations

import asyncio

from prometheus_client.parser import text_string_to_metric_families

from xds.loads import Load
from xdserve.series import FAMILIES, GatewaySeries

LOAD = Load(issued=9, successes=5, errors=2, dropped=1, in_flight=3)


def read(gateways, loads):
    series = GatewaySeries(lambda: gateways, len, lambda gateway: loads.get(gateway, {}))
    text = asyncio.run(series.render()).decode()
    return {
        sample.name: {tuple(s.labels.values()): s.value for s in family.samples}
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_each_gateway_and_each_backend_with_reports_has_its_series():
    loads = {"models/iris": {"models/iris/stable": LOAD, "models/iris/v2/grpc": LOAD}}
    assert read({"models/iris": 0, "models/w": 0}, loads) == {
        "xdserve_gateway_connected_envoys": {("models/iris",): 11, ("models/w",): 8},
        "xdserve_backend_requests_total": {
            ("models/iris", backend, outcome): value
            for backend in ("stable", "v2/grpc")
            for outcome, value in (("success", 5), ("error", 2))
        },
        "xdserve_backend_requests_in_flight": {("models/iris", "stable"): 3, ("models/iris", "v2/grpc"): 3},
        "xdserve_backend_dropped_total": {("models/iris", "stable"): 1, ("models/iris", "v2/grpc"): 1},
    }


def test_what_others_report_of_is_not_shown():
    assert read(["models/iris"], {"evil/one": {"evil/one/a": LOAD}}) == {
        "xdserve_gateway_connected_envoys": {("models/iris",): 11}
    }


def test_odd_names_stay_in_their_label():
    odd = 'a"\\\nb'
    assert read([odd], {odd: {f"x/y/{odd}": LOAD}})["xdserve_backend_dropped_total"] == {(odd, odd): 1}


def test_every_family_is_described_once():
    text = asyncio.run(GatewaySeries(lambda: (), lambda gateway: 0, lambda gateway: {}).render()).decode()
    assert [(f.name, f.type, f.documentation) for f in text_string_to_metric_families(text)] == [
        (family.name.removesuffix("_total"), family.kind, family.text) for family in FAMILIES
    ]
