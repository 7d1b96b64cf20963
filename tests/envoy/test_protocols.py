"""The clients that people use, through a gateway: tritonclient over HTTP and gRPC, and openai, on one port.

The model servers are two routers, each in a process of its own, as a pod has it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import numpy as np
import openai
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

from tests.router.rig import routers
from tests.support.documents import endpoints, entrance, isvc, service
from tests.support.plane import HOST, serving
from xdserve.demo.statistics import agrees

WORDS = "Tell me a  story\nof two words "
TENSORS = {
    "INT64": np.array([[1, 2], [3, 100]], "int64"),
    "FP32": np.array([[0.5], [-2]], "float32"),
    "BYTES": np.array(["a", "", "é" * 300], object),
}
ASKED = 200


# -- The clients -----------------------------------------------------------------------------------------------------


class Triton:
    """The open inference protocol; `module` is `tritonclient.http` or `tritonclient.grpc`."""

    def __init__(self, module, port):
        self._module = module
        self._client = module.InferenceServerClient(f"{HOST}:{port}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._client.close()

    def check(self):
        """All that there is to ask of a model."""
        assert self._client.is_server_live()
        assert self._client.is_server_ready()
        assert self._client.is_model_ready("iris")
        for datatype, array in TENSORS.items():
            back = self._infer(datatype, array).as_numpy("x")
            assert back.shape == array.shape
            assert [item.decode() for item in back] == list(array) if datatype == "BYTES" else (back == array).all()

    def variant(self):
        answer = self._infer("INT64", TENSORS["INT64"]).get_response()
        return answer["variant"] if isinstance(answer, dict) else answer.parameters["variant"].string_param

    def _infer(self, datatype, array):
        tensor = self._module.InferInput("x", list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        return self._client.infer("iris", [tensor])


class Chat:
    """OpenAI chat, in one answer or streamed."""

    def __init__(self, port, *, stream):
        self._client = openai.OpenAI(base_url=f"http://{HOST}:{port}/v1", api_key="none", max_retries=0)
        self._stream = stream

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._client.close()

    def check(self):
        """The model by name, and its words as they were said."""
        assert [model.id for model in self._client.models.list()] == ["iris"]
        assert self._talk()[0] == WORDS

    def variant(self):
        (variant,) = self._talk()[1]
        return variant

    def _talk(self):
        """The words of an answer, and who says that it gave them."""
        messages = [{"role": "user", "content": WORDS}]
        answer = self._client.chat.completions.create(model="iris", messages=messages, stream=self._stream)
        if not self._stream:
            return answer.choices[0].message.content, {answer.variant}
        with answer as stream:
            chunks = list(stream)
        assert len(chunks) > len(WORDS.split())  # word by word
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks), {chunk.variant for chunk in chunks}


CLIENTS = {
    "triton-http": lambda port: Triton(triton_http, port),
    "triton-grpc": lambda port: Triton(triton_grpc, port),
    "openai": lambda port: Chat(port, stream=False),
    "openai-stream": lambda port: Chat(port, stream=True),
}


# -- The gateway -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The two model servers, with HTTP and gRPC on ports of their own."""
    with routers(tmp_path_factory.mktemp("models")) as start:
        yield {variant: start(MODEL_REF="iris", VARIANT=variant, GRPC_PORT="0") for variant in ("stable", "v2")}


def two_ports(name, model):
    """A Service as KServe makes it for a predictor that speaks HTTP and gRPC, and the model's one endpoint."""
    made = service(name, http=80, grpc_port=9000)
    made["spec"]["ports"][1]["appProtocol"] = "kubernetes.io/h2c"
    slice_ = endpoints(name, model.port, port_name="http")
    slice_["ports"].append({"name": "grpc-port", "port": model.grpc_port, "protocol": "TCP"})
    return [made, slice_]


def canary(percent):
    """The InferenceService, with a canary that gets so much of the requests."""
    status = {"canaryStatuses": [{"name": "v2", "ready": True}]}
    return isvc(canary=[{"predictor": {"name": "v2"}, "trafficPercent": percent}], status=status)


@asynccontextmanager
async def gateway_of(models, folder, percent):
    predictors = [*two_ports("iris-predictor", models["stable"]), *two_ports("iris-v2-predictor", models["v2"])]
    async with serving(folder, canary(percent), predictors, entrance) as gateway:
        yield gateway


def counted(name, port):
    """Use everything of a client once, and count who answers many requests of it."""
    with CLIENTS[name](port) as client:
        client.check()
        return Counter(client.variant() for _ in range(ASKED))


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_gets_its_answers_and_meets_the_variants_as_the_canary_says(tmp_path, models, client):
    async with gateway_of(models, tmp_path, 30) as gateway:
        assert agrees({"stable": 0.7, "v2": 0.3}, await asyncio.to_thread(counted, client, gateway.port))
        await gateway.edit(canary(100))
        assert await asyncio.to_thread(counted, client, gateway.port) == {"v2": ASKED}


async def test_the_protocols_share_one_port_at_the_same_time(tmp_path, models):
    async with gateway_of(models, tmp_path, 50) as gateway:
        asked = [asyncio.to_thread(counted, client, gateway.port) for client in CLIENTS]
        for found in await asyncio.gather(*asked):
            assert agrees({"stable": 0.5, "v2": 0.5}, found)
