"""The model server of the tests speaks v1 and v2, and says who answered."""

from __future__ import annotations

import aiohttp
import pytest

from tests.support.models import grpc_ask, grpc_model, model_server

MODEL = "/v1/models/iris"


async def ask(method, path, body=None, **headers):
    async with (
        model_server("v2") as server,
        aiohttp.ClientSession() as session,
        session.request(method, f"http://{server.address}{path}", data=body, headers=headers) as response,
    ):
        assert response.headers["x-variant"] == "v2"
        answer = await response.json()
        assert answer.pop("variant") == "v2"
        return response.status, answer


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", MODEL, None, {"name": "iris", "ready": True}),
        ("POST", f"{MODEL}:predict", '{"instances": [[1], [2]]}', {"predictions": [0, 0]}),
        ("POST", f"{MODEL}:explain", '{"instances": [[1]]}', {"explanations": [0]}),
        ("GET", "/v2/health/ready", None, {"ready": True}),
        (
            "POST",
            "/v2/models/iris/infer",
            '{"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": []}]}',
            {
                "model_name": "iris",
                "outputs": [{"name": "predict", "datatype": "INT64", "shape": [2], "data": [0, 0]}],
            },
        ),
    ],
)
async def test_answers_the_inference_protocols(method, path, body, expected):
    assert await ask(method, path, body) == (200, expected)


@pytest.mark.parametrize("body", ["", "[1]", "{", '{"instances": 1}', "\xff"])
async def test_a_body_that_is_none_of_them_is_refused(body):
    assert (await ask("POST", f"{MODEL}:predict", body))[0] == 400
    assert (await ask("POST", "/v2/models/iris/infer", body))[0] == 400


async def test_anything_else_is_given_back_as_it_arrived():
    status, answer = await ask("PUT", "/some/where?a=1", "text", **{"X-Tester": "true"})
    headers = answer.pop("headers")
    assert (status, answer) == (200, {"method": "PUT", "path": "/some/where?a=1", "body": "text"})
    assert headers["x-tester"] == "true"


async def test_the_grpc_server_of_the_tests_says_who_answered():
    async with grpc_model("v2") as model:
        assert await grpc_ask(model.port, metadata=(("x-tester", "true"),)) == "v2"
    method, metadata, _ = model.calls[0]
    assert method == "/inference.GRPCInferenceService/ModelInfer"
    assert metadata["x-tester"] == "true"
