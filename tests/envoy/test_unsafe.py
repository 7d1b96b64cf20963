"""Requests that servers could read in another way are refused; a change of the edge lets no client choose."""

from __future__ import annotations

import json
from functools import partial

import grpc.aio
import pytest
import pytest_asyncio

from tests.support.documents import backend, entrance, isvc, policy, service, split, to_service
from tests.support.models import grpc_ask
from tests.support.plane import serving
from tests.support.requests import http1, http1_bytes, http2
from xdserve.demo.driver import connect

HOST = "iris-models.example.com"
BACKENDS = [to_service("stable", "iris-predictor"), to_service("v2", "iris-v2-predictor")]
ADMIN = {"name": "admin", "matches": [{"path": {"type": "Exact", "value": "/admin"}}], "split": split(v2=1)}
POSTS = {"name": "posts", "matches": [{"method": "POST"}], "split": split(v2=1)}


def keeping(request_id, port):
    return entrance(port, edge={"requestID": request_id})


@pytest.fixture
def models(model_servers):
    ports = {"iris-predictor": "stable", "iris-v2-predictor": "v2"}
    return [one for name, variant in ports.items() for one in backend(name, model_servers[variant].port)]


@pytest_asyncio.fixture
async def gateway(tmp_path, models):
    rules = policy(backends=BACKENDS, split=split(stable=1), rules=[ADMIN, POSTS])
    async with serving(tmp_path, isvc(), models, rules, entrance) as started:
        yield started


@pytest.mark.parametrize("path", ["/admin%0A", "/admin%0a?x=1", "/admin%00", "/%1Fadmin", "/admin%7f/x"])
async def test_a_path_with_an_escaped_control_character_is_refused(gateway, path):
    reply = await gateway.ask(path)
    assert (reply.status, json.loads(reply.body)["error"]["reason"]) == (400, "BadPath")
    assert (await http2(gateway.port, path)).status == 400
    assert await gateway.variant("/admin") == "v2"


async def test_a_service_without_rules_by_path_takes_it(tmp_path, models):
    async with serving(tmp_path, isvc(), models, entrance) as started:
        assert (await started.ask("/echo%0A")).status != 400


@pytest.mark.parametrize("method", ["post", "Post", "trace", "TRACE", "get"])
async def test_a_method_in_another_case_goes_around_no_rule(gateway, method):
    reply = await http2(gateway.port, "/echo", method=method)
    assert (reply.status, json.loads(reply.body)["error"]["reason"]) == (405, "MethodNotAllowed")


async def test_who_asks_by_trace_is_told_what_is_allowed(gateway):
    reply = await http1(gateway.port, "/echo", method="TRACE")
    assert (reply.status, "POST" in reply.header("allow")) == (405, True)


async def test_grpc_clients_read_why_they_are_refused(tmp_path, model_servers):
    port = model_servers["stable"].port
    grpc_port = [service("iris-predictor", http=80, grpc=9000), *backend("iris-predictor", port)[1:]]
    rules = policy(rules=[{**ADMIN, "split": []}])
    async with serving(tmp_path, isvc(), grpc_port, rules, entrance) as started:
        for how in ({"authority": "a,b"}, {"method": "/a/%0A"}):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await grpc_ask(started.port, **how)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert refused.value.details().startswith(("BadHost: ", "BadPath: "))


@pytest.mark.parametrize("turn", [("Replace", "Preserve"), ("Preserve", "Replace")], ids="-".join)
async def test_old_connections_draw_cookies_through_a_change_of_request_ids(tmp_path, models, turn):
    """Their listener is the old one until it has drained, with the routes of now."""
    before, after = turn
    sticky = policy(backends=BACKENDS, split=split(stable=1, v2=1), sticky={"by": "Cookie", "name": "mine"})
    made = [isvc(), *models, sticky]
    forged = "".join(f"{name}: forged\r\n" for name in ("x-request-id", "x-xdserve-unique-id"))
    request = f"GET /v1/models/iris HTTP/1.1\r\nhost: {HOST}\r\n{forged}\r\n".encode()
    async with serving(tmp_path, *made, partial(keeping, before)) as started:
        old = await connect("127.0.0.1", started.port)
        await old.ask(request)
        await started.edit(keeping(after, started.port))
        cookies = [(await old.ask(request)).cookie for _ in range(5) if old.open]
        answer = await http1_bytes(started.port, request.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        cookies.append(answer.header("set-cookie"))
        old.close()
    values = [cookie.partition(";")[0].removeprefix("mine=") for cookie in cookies]
    assert all(len(value) == 36 for value in values), values
    assert len(set(values)) == len(values)
