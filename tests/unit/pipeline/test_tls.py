"""TLS to backends: what is never spoken to in plain text, and how much of certificates a service may carry."""

from __future__ import annotations

import pytest

from tests.support.certificates import Authority
from tests.support.documents import backend, config_map, isvc, policy
from tests.unit.pipeline.recorder import Run
from translator.objects import Ref
from translator.objects.ref import KSERVE
from translator.plan import Protocol
from translator.planners.tls import MOST_CA_BYTES, MOST_CA_BYTES_OF_SERVICE

TARGET = Ref(KSERVE, "InferenceService", "models", "iris")
PREDICTOR = {"group": KSERVE, "kind": "InferenceService", "name": "iris", "sectionName": "predictor"}
PEM = Authority().certificate.decode()


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


def test_a_service_carries_so_many_certificates_and_backends_beyond_answer_503(run):
    bundle = PEM * (MOST_CA_BYTES // len(PEM))
    names = [f"b{number}" for number in range(5)]
    ref, tls = {"name": "web", "port": 80}, {"caRef": {"name": "ca"}}
    asked = [{"name": name, "ref": ref, "protocol": "HTTPS", "tls": tls} for name in names]
    run.put(config_map("ca", ca_crt=bundle), *backend("web", 9001))
    run.put(policy(backends=asked, split=[{"backend": name} for name in names]))
    carried = [found.tls.ca for found in backends(run).values() if found.tls]
    assert len(carried) == MOST_CA_BYTES_OF_SERVICE // len(bundle) == 2
    assert [name for name in names if f"CAs: backend {name} answers 503" in str(run.reasons())] == names[2:]
