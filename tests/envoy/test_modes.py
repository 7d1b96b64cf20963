"""The mode of an InferenceService decides whether it has a gateway, also while an Envoy serves it."""

from __future__ import annotations

import json

import pytest

from tests.support.documents import backend, entrance, isvc
from tests.support.plane import serving


def in_mode(mode):
    return isvc(status={"deploymentMode": mode})


@pytest.mark.parametrize("mode", ["Knative", "ModelMesh", "Serverless"])
async def test_a_service_that_leaves_standard_mode_loses_its_gateway_until_it_is_back(tmp_path, model_servers, mode):
    models = backend("iris-predictor", model_servers["stable"].port)
    async with serving(tmp_path, in_mode("Standard"), models, entrance) as started:
        assert await started.variant() == "stable"
        await started.edit(in_mode(mode))
        reply = await started.ask()
        error = json.loads(reply.body)["error"]
        assert (reply.status, error["reason"]) == (404, "NotFound")
        assert error["message"] == "iris is in a mode that gateways do not serve"
        (said,) = [dated.entry for dated in started.plane.ledger]
        assert (said.reason, said.field) == ("UnsupportedMode", "status.deploymentMode")
        await started.edit(in_mode("Standard"))
        assert await started.variant() == "stable"
        assert not list(started.plane.ledger)
