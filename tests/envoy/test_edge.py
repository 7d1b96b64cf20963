"""What a gateway does with requests that mean no good, and with many at once."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from tests.support.documents import backend, entrance, isvc, policy, split, to_service
from tests.support.plane import serving
from tests.support.requests import http1_bytes, http2
from tests.support.stubs import OK, stub_server
from tests.support.wait import wait_until
from translator.planners.options import Options
from xdserve.demo.driver import connect, post

HOST = "iris-models.example.com"
FORGED = {
    "x-envoy-upstream-rq-timeout-ms": "1",
    "x-envoy-upstream-rq-per-try-timeout-ms": "1",
    "x-envoy-expected-rq-timeout-ms": "1",
    "x-envoy-retry-on": "5xx",
    "x-envoy-retry-grpc-on": "unavailable",
    "x-envoy-max-retries": "7",
    "x-envoy-upstream-alt-stat-name": "forged",
    "x-envoy-external-address": "192.0.2.77",
    "x-envoy-internal": "true",
    "x-envoy-original-path": "/forged",
    "x-envoy-original-dst-host": "127.0.0.1:1",
    "x-envoy-decorator-operation": "forged",
    "x-envoy-force-trace": "true",
    "x-envoy-ip-tags": "forged",
    "x-envoy-anything": "forged",
}
OWN = {"x-envoy-external-address"}


@pytest_asyncio.fixture
async def gateway(tmp_path, model_servers):
    """A gateway of one model that echoes what reaches it."""
    async with serving(tmp_path, isvc(), backend("iris-predictor", model_servers["stable"].port), entrance) as started:
        yield started


@pytest_asyncio.fixture
async def stubbed(tmp_path):
    """Starts a gateway in front of a stub."""

    @asynccontextmanager
    async def start(handle):
        async with (
            stub_server(handle) as port,
            serving(tmp_path, isvc(), backend("iris-predictor", port), entrance) as started,
        ):
            yield started

    return start


async def echoed(gateway, path="/echo", **how):
    """What reached the model."""
    reply = await gateway.ask(path, **how)
    assert reply.status == 200, reply
    return json.loads(reply.body)


async def ask_from(gateway, address, headers):
    """The headers that reach the model of a client at another address."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, local_addr=(address, 0))
    lines = ["GET /echo HTTP/1.1", f"host: {HOST}", "connection: close", *(f"{k}: {v}" for k, v in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return json.loads(answer.partition(b"\r\n\r\n")[2])["headers"]


async def test_no_header_of_envoys_own_comes_from_outside_or_gets_there(gateway):
    headers = (await echoed(gateway, headers=list(FORGED.items())))["headers"]
    reached = {name: value for name, value in headers.items() if name.startswith("x-envoy-")}
    assert set(reached) <= OWN
    assert not set(reached.values()) & set(FORGED.values())
    seen = json.loads((await http2(gateway.port, "/echo", headers=list(FORGED.items()))).body)["headers"]
    assert {name for name in seen if name.startswith("x-envoy-")} <= OWN


async def test_answers_do_not_say_that_envoy_gave_them(gateway):
    replies = [await gateway.ask(path, headers=list(FORGED.items())) for path in ("/echo", "/healthz", "/a%2Fb")]
    replies.append(await gateway.ask(headers=[("under_score", "1")]))
    assert [reply.status for reply in replies] == [200, 200, 307, 400]
    named = [name for reply in replies for name in reply.headers if "envoy" in name]
    assert not named
    assert "envoy" not in {reply.header("server") for reply in replies[:1]}


async def test_answers_do_not_tell_of_an_envoy_beside_the_model(stubbed):
    async def handle(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nx-envoy-upstream-service-time: 3\r\nx-kept: 1\r\ncontent-length: 0\r\n\r\n")

    async with stubbed(handle) as started:
        reply = await started.ask()
        assert (reply.status, reply.header("x-kept")) == (200, "1")
        assert not [name for name in reply.headers if name.startswith("x-envoy-")]


async def test_a_client_cannot_shorten_the_time_a_model_has(stubbed):
    waiting, answer = asyncio.Event(), asyncio.Event()

    async def slow(_, writer):
        waiting.set()
        await answer.wait()
        writer.write(OK)

    async with stubbed(slow) as gateway:
        asking = asyncio.create_task(gateway.ask(headers=list(FORGED.items())))
        await waiting.wait()
        for _ in range(50):  # far more than the millisecond that was asked for
            await gateway.ask("/healthz")
        answer.set()
        assert (await asking).status == 200


async def test_a_client_cannot_make_the_gateway_repeat_a_request(stubbed):
    seen = []

    async def failing(head, writer):
        seen.append(head)
        writer.write(b"HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n")

    async with stubbed(failing) as gateway:
        assert (await gateway.ask(headers=list(FORGED.items()))).status == 503
        assert len(seen) == 1


async def test_the_request_id_is_the_gateways_own(gateway):
    headers = (await echoed(gateway, headers=[("x-request-id", "mine")]))["headers"]
    assert len(headers["x-request-id"]) == 36


async def test_the_client_is_who_connected_not_who_it_says(gateway):
    told = {"x-forwarded-for": "192.0.2.77", "x-forwarded-proto": "https", "x-forwarded-host": "forged"}
    seen = await ask_from(gateway, "127.0.0.2", told)
    assert seen["x-forwarded-for"].replace(" ", "").split(",")[-1] == "127.0.0.2"
    assert seen["x-envoy-external-address"] == "127.0.0.2"
    assert seen["x-forwarded-proto"] == "http"
    assert (await ask_from(gateway, "127.0.0.2", {}))["x-forwarded-for"] == "127.0.0.2"


async def test_trusted_hops_say_who_the_client_is(tmp_path, model_servers):
    models = backend("iris-predictor", model_servers["stable"].port)
    async with serving(tmp_path, isvc(), models, entrance, options=Options(trusted_hops=1)) as gateway:
        seen = await ask_from(gateway, "127.0.0.2", {"x-forwarded-for": "198.51.100.1, 192.0.2.77"})
        assert seen["x-envoy-external-address"] == "192.0.2.77"


@pytest.mark.parametrize(
    ("sent", "reaches"),
    {
        "/a/../b": "/b",
        "/a/./b": "/a/b",
        "//a///b": "/a/b",
        "/a/%2e%2e/b": "/b",
        "/%61": "/a",
        "/../../etc": "/etc",
        "/a/../b?c=/../d": "/b?c=/../d",
    }.items(),
)
async def test_paths_reach_the_model_in_one_form(gateway, sent, reaches):
    assert (await echoed(gateway, sent))["path"] == reaches


@pytest.mark.parametrize(("sent", "location"), {"/a%2Fb": "/a/b", "/a%2fb?c=1": "/a/b?c=1", "/a%5cb": "/a/b"}.items())
async def test_escaped_slashes_are_redirected(gateway, sent, location):
    reply = await gateway.ask(sent)
    assert (reply.status, reply.header("location")) == (307, location)


async def test_a_rule_on_a_path_cannot_be_passed_by_other_spellings(tmp_path, model_servers):
    models = backend("iris-predictor", model_servers["stable"].port)
    models += backend("iris-v2-predictor", model_servers["v2"].port)
    backends = [to_service("stable", "iris-predictor"), to_service("v2", "iris-v2-predictor")]
    rule = {"name": "admin", "matches": [{"path": {"value": "/admin"}}], "split": split(v2=1)}
    made = policy(backends=backends, split=split(stable=1), rules=[rule])
    async with serving(tmp_path, isvc(), models, made, entrance) as gateway:
        for spelling in ("/admin", "//admin", "/x/../admin", "/./admin/", "/%61dmin", "/x/%2e%2e/admin/y"):
            assert await gateway.variant(spelling) == "v2", spelling


async def test_a_header_with_an_underscore_is_refused(gateway):
    assert (await gateway.ask(headers=[("x_user_id", "1")])).status == 400
    assert (await gateway.ask(headers=[("x-user-id", "a_b")])).status == 200


@pytest.mark.parametrize("headers", [[("x-long", "v" * 70_000)], [(f"x-{number}", "1") for number in range(200)]])
async def test_headers_over_the_limit_are_refused(gateway, headers):
    assert (await gateway.ask(headers=headers)).status == 431


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"GET / HTTP/1.1\r\nhost: a\r\nx-bad: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nx-no-host: 1\r\n\r\n",
    ],
)
async def test_requests_that_servers_could_read_in_two_ways_are_refused(gateway, request_):
    assert (await http1_bytes(gateway.port, request_)).status == 400


async def test_more_requests_at_once_than_envoys_own_limit_are_all_answered(stubbed):
    """Envoy lets 1,024 through unless told otherwise, and answers 503 to the rest."""
    many, waiting = 1_200, []

    async def together(_, writer):
        waiting.append(writer)
        if len(waiting) == many:
            for one in waiting:
                one.write(OK)

    async with stubbed(together) as gateway:
        request = post(HOST, "/slow", b"")
        connections = [await connect("127.0.0.1", gateway.port) for _ in range(many)]
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*(connection.ask(request) for connection in connections))
        for connection in connections:
            connection.close()
        assert {answer.status for answer in answers} == {200}
        stats = await gateway.envoy.stats("cluster.models/iris/predictor.upstream_rq_(pending_overflow|total)$")
        assert stats == {
            "cluster.models/iris/predictor.upstream_rq_pending_overflow": 0,
            "cluster.models/iris/predictor.upstream_rq_total": many,
        }


async def test_a_websocket_passes(stubbed):
    async def upgrade(head, writer):
        assert "upgrade: websocket" in head.lower()
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello")

    async with stubbed(upgrade) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        lines = ["GET /ws HTTP/1.1", f"host: {HOST}", "connection: upgrade", "upgrade: websocket", "", ""]
        writer.write("\r\n".join(lines).encode())
        async with asyncio.timeout(10):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            assert await reader.readexactly(5) == b"hello"
        writer.close()


async def test_a_model_that_ends_within_its_answer_harms_that_answer_alone(stubbed):
    async def half(_, writer):
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        await writer.drain()
        return False

    async with stubbed(half) as gateway:
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await gateway.ask()
        assert (await gateway.ask("/healthz")).status == 200
        await wait_until(lambda: no_requests(gateway), 10, "no request to be left")


async def no_requests(gateway):
    (active,) = (await gateway.envoy.stats("cluster.models/iris/predictor.upstream_rq_active$")).values()
    return active == 0
