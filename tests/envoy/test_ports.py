"""Which port of a Service gets what: told by what the ports speak, whichever stands first."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import aiohttp
import grpc.aio
import pytest_asyncio

from tests.support.documents import endpoints, entrance, isvc, service
from tests.support.grpc_streams import CALL
from tests.support.http2_model import http2_model
from tests.support.models import grpc_ask, grpc_model, model_server
from tests.support.plane import HOST, serving

H2C = "kubernetes.io/h2c"
CALLS = 200
CANARY = [{"predictor": {"name": "v2"}, "trafficPercent": 30}]


@pytest_asyncio.fixture
async def model():
    """The ports of a model server with HTTP/1.1 and gRPC: `http` and `grpc`."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(model_server("stable"))
        grpc_ = await stack.enter_async_context(grpc_model("stable"))
        yield {"http": http.port, "grpc": grpc_.port}


def predictor(name, *ports):
    """A Service and its endpoint; each port is its number, its name, where it is served, and its appProtocol if any."""
    made, slice_ = service(name), endpoints(name, 1)
    made["spec"]["ports"] = [
        {"port": number, "name": port} | ({"appProtocol": said[0]} if said else {}) for number, port, _, *said in ports
    ]
    slice_["ports"] = [{"name": port, "port": served} for _, port, served, *_ in ports]
    return [made, slice_]


@asynccontextmanager
async def gateway_of(folder, *documents):
    async with serving(folder, *documents, entrance) as started:
        yield started


async def test_rest_goes_to_the_port_for_http_where_the_one_for_grpc_is_first(tmp_path, model):
    """As KServe writes it for a container whose first port is named h2c."""
    ports = (80, "h2c", model["grpc"], H2C), (8080, "http", model["http"])
    async with gateway_of(tmp_path, isvc(), predictor("iris-predictor", *ports)) as started:
        assert await started.variant() == "stable"
        assert (await started.ask(method="POST", body=b"x" * (1 << 20))).status == 200
        assert await grpc_ask(started.port) == "stable"


async def test_a_service_that_speaks_grpc_alone_gets_rest_by_h2c(tmp_path):
    async with http2_model("rest") as first, grpc_model("second") as second:
        ports = (9000, "h2c", first, H2C), (9001, "grpc", second.port)
        async with gateway_of(tmp_path, isvc(), predictor("iris-predictor", *ports)) as started:
            assert await started.variant(method="POST", body=b"x" * (1 << 20)) == "rest"


async def test_a_port_named_http2_takes_grpc(tmp_path, model):
    """The name of Istio and Knative, without appProtocol."""
    ports = (80, "http", model["http"]), (81, "http2", model["grpc"])
    async with gateway_of(tmp_path, isvc(), predictor("iris-predictor", *ports)) as started:
        assert await started.variant() == "stable"
        assert await grpc_ask(started.port) == "stable"


async def test_a_canary_without_grpc_gets_no_share_of_grpc_calls_and_it_is_said(tmp_path, model, model_servers):
    stable = predictor("iris-predictor", (80, "http", model["http"]), (9000, "grpc-predict", model["grpc"], H2C))
    v2 = predictor("iris-v2-predictor", (80, "iris-v2-predictor", model_servers["v2"].port))
    async with gateway_of(tmp_path, isvc(canary=CANARY), stable, v2) as started:
        assert await called(started.port) == {b"stable": CALLS}
        answered = Counter([await started.variant() for _ in range(60)])
        assert set(answered) == {"stable", "v2"}
        (found,) = [one for one in await errors(started.plane) if one["reason"] == "UnsupportedProtocol"]
        assert (found["object"], found["field"]) == ("InferenceService models/iris", "spec.canary[0]")
        assert "backend v2 (Service models/iris-v2-predictor) has no port for gRPC" in found["message"]


async def called(port):
    """The variants that answer many calls over a few connections."""
    async with grpc.aio.insecure_channel(f"{HOST}:{port}") as channel:
        call = channel.unary_unary(CALL)
        return Counter(await asyncio.gather(*(call(b"", timeout=20) for _ in range(CALLS))))


async def errors(plane):
    """The entries of `/debug/errors`."""
    async with plane.admin() as address, aiohttp.request("GET", f"http://{address}/debug/errors") as reply:
        return json.loads(await reply.text())
