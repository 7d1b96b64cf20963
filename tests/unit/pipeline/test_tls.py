"""TLS to backends: what is never spoken to in plain text."""

from __future__ import annotations

import pytest

from tests.support.documents import backend, isvc, policy
from tests.unit.pipeline.recorder import Run
from translator.objects import Ref
from translator.objects.ref import KSERVE
from translator.plan import Protocol

TARGET = Ref(KSERVE, "InferenceService", "models", "iris")
PREDICTOR = {"group": KSERVE, "kind": "InferenceService", "name": "iris", "sectionName": "predictor"}


@pytest.fixture
def run():
    run = Run()
    run.put(isvc(), *backend("iris-predictor", 9000))
    return run


def backends(run):
    return run.pipeline.backends(TARGET)


@pytest.mark.parametrize("says", [{"protocol": "HTTPS"}, {"protocol": "HTTP2"}, {"tls": {}}])
def test_a_policy_that_is_invalid_and_was_never_valid_does_not_lead_to_plain_text(run, says):
    asked = [{"name": "predictor", "ref": PREDICTOR, **says}]
    run.put(policy(backends=asked, split=[{"backend": "predictor"}, {"backend": "nobody"}]))
    assert "found nobody" in str(run.reasons())
    assert backends(run)["predictor"].tls is not None
    run.put(policy(backends=[{"name": "predictor", "ref": PREDICTOR}], split=[{"backend": "nobody"}]))
    assert backends(run)["predictor"].protocol is Protocol.HTTP
