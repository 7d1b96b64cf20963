"""The tests' own tools against a stock Envoy: raw requests of both kinds, and gRPC."""

from __future__ import annotations

import json

import pytest
import pytest_asyncio

from tests.support.envoy import pick_ports, running_envoy, static_bootstrap
from tests.support.requests import http1, http1_bytes, http2


@pytest_asyncio.fixture
async def gateway(tmp_path, model_servers):
    """The port of an Envoy in front of both model servers, with answers of its own under /status."""
    port, admin = pick_ports(2)
    statuses = (200, 201, 404, 429, 503, 599)
    routes = [{"match": {"path": f"/status/{code}"}, "direct_response": {"status": code}} for code in statuses]
    routes.append({"match": {"prefix": "/"}, "route": {"cluster": "stable"}})
    clusters = {name: [server.port] for name, server in model_servers.items()}
    with running_envoy(tmp_path, static_bootstrap(clusters, routes, port=port, admin_port=admin), admin) as envoy:
        await envoy.wait_ready()
        yield port


async def test_http1_has_status_headers_and_body(gateway):
    reply = await http1(gateway, "/where", method="POST", headers=[("x-a", "1"), ("x-a", "2")], body=b"text")
    echoed = json.loads(reply.body)
    assert (reply.status, reply.header("x-variant"), echoed["body"]) == (200, "stable", "text")
    assert echoed["headers"]["host"] == "iris-models.example.com"


async def test_http2_has_status_and_body(gateway):
    reply = await http2(gateway, "/where", method="POST", headers=[("x-long", "v" * 300)], body=b"text")
    echoed = json.loads(reply.body)
    assert (reply.status, echoed["body"], echoed["headers"]["x-long"]) == (200, "text", "v" * 300)


@pytest.mark.parametrize("status", [200, 201, 404, 429, 503, 599])
async def test_statuses_are_read_in_both(gateway, status):
    assert (await http1(gateway, f"/status/{status}")).status == status
    assert (await http2(gateway, f"/status/{status}")).status == status


async def test_bytes_that_are_no_http_get_an_answer(gateway):
    assert (await http1_bytes(gateway, b"nonsense\r\n\r\n")).status == 400
