"""Regular expressions are what Envoy takes them for: bytes."""

from __future__ import annotations

import pytest

from tests.unit.pipeline import documents as d
from tests.unit.pipeline.recorder import Run

GATEWAY = "models/iris"


@pytest.mark.parametrize("value", [r"/(\pL{100}){9}", "/[ü-é]", "/[é-ü]"])
def test_what_envoy_takes_is_planned(value):
    """As text they are too large or no expression; Envoy takes the bytes."""
    run = Run()
    rule = {"name": "a", "matches": [{"path": {"type": "RegularExpression", "value": value}}]}
    run.put(*d.served("iris", "10.0.0.1"), d.policy("iris", d.KSERVE, rules=[rule]))
    assert (run.said.faults, run.split(GATEWAY)) == ([], {"predictor": 1})
