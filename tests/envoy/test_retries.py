"""What a gateway repeats by itself: only what has never reached a model."""

from __future__ import annotations

import json
import socket

import pytest
import pytest_asyncio

from tests.support.documents import backend, entrance, isvc
from tests.support.plane import serving
from tests.support.stubs import stub_server
from xdserve.demo.driver import Traffic, post

REQUEST = post("iris-models.example.com", "/v1/models/iris:predict", b'{"instances": [1]}')


@pytest.fixture
def refusing_port():
    """A port that refuses connections: bound, so that nobody else gets it, and not listened on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest_asyncio.fixture
async def breaking():
    """The port of a model that takes requests and breaks the connection, and what it took."""
    seen = []

    async def handle(head, _):
        seen.append(head)
        return False

    async with stub_server(handle) as port:
        yield port, seen


async def test_an_endpoint_that_refuses_fails_no_request(tmp_path, model_servers, refusing_port):
    model = model_servers["stable"]
    async with serving(tmp_path, isvc(), backend("iris-predictor", refusing_port, model.port), entrance) as gateway:
        traffic = Traffic("127.0.0.1", gateway.port, REQUEST)
        async with traffic.running():
            tally = traffic.count()
            await traffic.until(tally, requests=400)
        assert (traffic.failed, set(tally.statuses)) == (0, {200})
        # The promise means something: connections were refused.
        (refused,) = (await gateway.envoy.stats("predictor.upstream_cx_connect_fail$")).values()
        assert refused > 0


async def test_when_all_endpoints_refuse_the_answer_says_so(tmp_path, refusing_port):
    async with serving(tmp_path, isvc(), backend("iris-predictor", refusing_port), entrance) as gateway:
        reply = await gateway.ask()
        assert (reply.status, reply.header("content-type")) == (503, "application/json")
        assert json.loads(reply.body)["error"]["reason"] == "BackendFailed"
        assert reply.header("retry-after") == "5"


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_what_reached_a_model_is_not_repeated(tmp_path, model_servers, breaking, method):
    port, seen = breaking
    async with serving(tmp_path, isvc(), backend("iris-predictor", port), entrance) as gateway:
        reply = await gateway.ask(method=method, body=b"expensive")
        assert (reply.status, len(seen)) == (503, 1)
        assert json.loads(reply.body)["error"]["reason"] == "BackendFailed"


async def test_what_reached_a_model_is_not_repeated_at_another_endpoint(tmp_path, model_servers, breaking):
    port, seen = breaking
    model = model_servers["stable"]
    async with serving(tmp_path, isvc(), backend("iris-predictor", port, model.port), entrance) as gateway:
        statuses = [(await gateway.ask("/echo", method="POST", body=b"x")).status for _ in range(40)]
        assert statuses.count(503) == len(seen) > 0
        assert statuses.count(200) == model.requests == 40 - len(seen)


async def test_an_answer_of_a_model_is_passed_on_as_it_is(tmp_path):
    seen = []

    async def failing(head, writer):
        seen.append(head)
        writer.write(b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\nx-model: 1\r\n\r\nbusy")

    async with (
        stub_server(failing) as port,
        serving(tmp_path, isvc(), backend("iris-predictor", port), entrance) as gateway,
    ):
        reply = await gateway.ask(method="POST")
        assert (reply.status, reply.body, reply.header("x-model"), len(seen)) == (503, b"busy", "1", 1)
        assert reply.header("retry-after") is None
