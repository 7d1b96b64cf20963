"""A real model server in place of the simulation, in three protocols; what it does wrong is 502 or 504."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import web
from multidict import CIMultiDict

from tests.router.rig import HOST, Client, Model, cancelled
from tests.support.processes import free_ports
from tests.support.wait import wait_until

PROTOCOLS = ("v1", "v2", "openai")
PROMPT = "héllo \n wörld \U0001f600"


@pytest.mark.parametrize("model", ["iris", "org/model: a?b#c%2F"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_the_output_is_the_models(start, shared, protocol, model):
    behind = shared
    front = start(MODEL_REF=model, UPSTREAM_URL=behind.url, UPSTREAM_PROTOCOL=protocol)
    async with Client(front) as client:
        assert (await client.ask("GET", "/readyz"))[:2] == (200, {"status": "ready"})
        status, answer, headers = await client.infer(PROMPT)
    assert status == 200
    assert (answer["output"], answer["prompt"], answer["modelRef"]) == (PROMPT, PROMPT, model)
    assert "x-variant" not in headers


async def test_openais_base_url_may_have_its_version(start):
    behind = start()
    async with Client(start(UPSTREAM_URL=f"{behind.url}/v1/", UPSTREAM_PROTOCOL="openai")) as client:
        assert (await client.infer("a"))[1]["output"] == "a"


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_ready_only_when_the_model_server_is(start, protocol):
    (port,) = free_ports(1)
    front = start(UPSTREAM_URL=f"http://{HOST}:{port}", UPSTREAM_PROTOCOL=protocol)
    async with Client(front) as client:
        assert (await client.ask("GET", "/healthz"))[0] == 200
        assert (await client.ask("GET", "/readyz"))[:2] == (503, {"status": "the model server is not ready"})
        behind = start(PORT=str(port))
        assert (await client.ask("GET", "/readyz"))[0] == 200
        behind.child.kill()
        assert (await client.ask("GET", "/readyz"))[0] == 503


async def test_a_model_that_says_it_is_not_ready_is_not(start):
    async with Model() as model, Client(start(**model.variables)) as client:
        for said, status in ((True, 200), (False, 503), ("True", 200), ("False", 503)):
            model.ready = said
            assert (await client.ask("GET", "/readyz"))[0] == status


async def test_the_simulation_is_not_there_beside_a_model(start):
    async with Model() as model, Client(start(**model.variables)) as client:
        for path in ("/v1/models", "/v2", "/echo"):
            assert (await client.ask("GET", path))[0] == 404


async def test_trace_and_id_go_on_to_the_model(start):
    sent = {"traceparent": "00-0af7-b7ad-01", "tracestate": "a=1,b=2", "x-request-id": "mine", "x-other": "stays"}
    async with Model() as model, Client(start(**model.variables)) as client:
        await client.infer("a", headers=sent)
        made = (await client.infer("b"))[2]["x-request-id"]
    first, second = ({name.lower(): value for name, value in headers.items()} for headers in model.headers)
    assert {name: first.get(name) for name in sent} == sent | {"x-other": None}
    assert second["x-request-id"] == made


async def test_all_of_the_clients_headers_go_on_where_that_is_asked_for(start):
    """But those of the connection and of the body, which are the router's own."""
    sent = {"Host": "iris.models", "Cookie": "xdserve=a; b=c", "Authorization": "Bearer x", "X-Tester": "true",
            "traceparent": "00-0af7-b7ad-01", "x-request-id": "mine", "User-Agent": "test"}  # fmt: skip
    kept = {"Connection": "keep-alive, X-Hop", "X-Hop": "1", "TE": "trailers", "Accept": "text/plain",
            "Accept-Language": "de", "If-None-Match": "1", "Range": "bytes=0-1", "Keep-Alive": "y"}  # fmt: skip
    async with Model() as model, Client(start(UPSTREAM_HEADERS="all", **model.variables)) as client:
        status, answer, _ = await client.ask("POST", "/infer?debug=a%26b&x", json={"prompt": "a"}, headers=sent | kept)
        assert (status, answer["output"]) == (200, "a")
    (headers,), (path,) = model.headers, model.paths
    found = CIMultiDict(headers)
    assert {name: found.get(name) for name in sent} == sent
    assert [name for name in kept if name in found and name not in {"Accept", "Connection"}] == []
    assert (found["Accept"], found["Content-Type"]) == ("application/json", "application/json")
    assert path.endswith(":predict?debug=a%26b&x")


async def test_a_head_may_be_as_long_as_envoy_lets_it_be(start):
    """A large token or cookie, or a long query."""
    front = start(UPSTREAM_HEADERS="all", UPSTREAM_URL=start().url)
    async with Client(front) as client:
        for path, headers in (("/infer", {"Cookie": "a=" + "x" * 55_000}), ("/infer?" + "a" * 55_000, {})):
            status, answer, _ = await client.ask("POST", path, json={"prompt": "a"}, headers=headers)
            assert (status, answer["output"]) == (200, "a")


@pytest.mark.parametrize(("which", "expected"), [("trace", []), ("all", ["xdserve=1; Path=/", "b=2"])])
async def test_cookies_come_back_to_the_client_alone(start, which, expected):
    """No client has another one's."""
    async with Model() as model:
        url = model.variables["UPSTREAM_URL"].replace(HOST, "localhost")  # nobody keeps cookies of an address
        async with Client(start(UPSTREAM_HEADERS=which, UPSTREAM_URL=url)) as client:
            for _ in range(2):
                model.answer = web.json_response({"predictions": ["a"]})
                model.answer.headers.extend([("Set-Cookie", "xdserve=1; Path=/"), ("Set-Cookie", "b=2")])
                assert (await client.infer("a"))[2].getall("Set-Cookie", []) == expected
    assert ["Cookie" in headers for headers in model.headers] == [False, False]


async def test_a_model_server_that_is_not_there_is_502(start):
    (port,) = free_ports(1)
    async with Client(start(UPSTREAM_URL=f"http://{HOST}:{port}")) as client:
        status, answer, _ = await client.infer("a")
        assert (status, answer) == (502, {"error": "the model server cannot be reached: Connection refused"})
        assert await client.metric("upstream_failures_total", kind="connection") == 1


async def test_a_name_that_is_none_is_502(start):
    async with Client(start(UPSTREAM_URL="http://no-such-host.invalid")) as client:
        status, answer, _ = await client.infer("a")
    assert status == 502
    assert answer["error"].startswith("the model server cannot be reached: ")


async def test_a_model_server_that_takes_too_long_is_504(start):
    async with Model() as model:
        model.go.clear()
        async with Client(start(UPSTREAM_TIMEOUT_SECONDS="0.2", MAX_CONCURRENCY="1", **model.variables)) as client:
            status, answer, _ = await client.infer("a")
            assert (status, answer) == (504, {"error": "the model server gave no answer in 0.2 s"})
            model.go.set()
            assert (await client.infer("b"))[0] == 200
            assert await client.metric("upstream_failures_total", kind="timeout") == 1


async def test_an_error_of_the_model_server_is_502_with_its_words(start):
    async with Model() as model, Client(start(**model.variables)) as client:
        for status in (300, 302, 400, 404, 429, 500, 503):
            text, headers = "out of  memory\n" * 1000, {"Location": "/elsewhere"}
            model.answer = web.Response(status=status, text=text, headers=headers)
            got, answer, _ = await client.infer("a")
            assert (got, answer["upstreamStatus"]) == (502, status)
            assert answer["error"].startswith(f"the model server answered {status}: out of memory out of")
            assert len(answer["error"]) < 400


async def test_an_answer_in_another_form_is_502(start):
    bodies = (
        b"", b"{", b"[]", b"null", b'"a"', b"{}", b"\xff", b"[" * 100_000,
        b'{"predictions": []}', b'{"predictions": 1}', b'{"predictions": null}', b'{"predictions": [NaN]}',
    )  # fmt: skip
    async with Model() as model, Client(start(**model.variables)) as client:
        for body in bodies:
            model.answer = web.Response(body=body)
            status, answer, _ = await client.infer("a")
            assert (status, answer["upstreamStatus"]) == (502, 200)
            assert answer["error"].startswith("the model server answered in no form of its protocol")
        assert await client.metric("upstream_failures_total", kind="answer") == len(bodies)


async def test_an_output_may_be_any_json(start):
    async with Model() as model, Client(start(**model.variables)) as client:
        for body, output in ((b'{"predictions": [{"a": [1.5]}]}', {"a": [1.5]}), (b'{"predictions": [null, 1]}', None)):
            model.answer = web.Response(body=body)
            assert (await client.infer("a"))[1]["output"] == output


async def test_a_model_server_that_speaks_no_http_is_502(start):
    async def rubbish(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"rubbish\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(rubbish, HOST, 0, family=socket.AF_INET)
    async with server, Client(start(UPSTREAM_URL=f"http://{HOST}:{server.sockets[0].getsockname()[1]}")) as client:
        assert (await client.ask("GET", "/readyz"))[0] == 503
        status, answer, _ = await client.infer("a")
    assert (status, list(answer)) == (502, ["error"])
    assert "\n" not in answer["error"]


async def test_who_leaves_takes_the_request_from_the_model(start):
    async with Model() as model:
        model.go.clear()
        async with Client(start(**model.variables)) as client:
            task = asyncio.ensure_future(client.infer("a"))
            await wait_until(lambda: model.running == 1)
            await cancelled(task)
            await wait_until(lambda: model.running == 0)
            await client.until("running", 0)
