"""The admin endpoints, over a real socket, from a state that is a plain value."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from bootstrap.address import Address
from xds.types import ResourceType
from xdserve.admin import AdminError, AdminServer, ErrorEntry, RejectionEntry, StatusEntry
from xdserve.metrics import Metrics

ERROR: ErrorEntry = {
    "source": {"file": "iris/policy.yaml", "document": 1},
    "object": "TrafficPolicy models/iris",
    "field": "spec.split[0].weight",
    "reason": "Invalid",
    "message": "found -1, allowed 0..1000000",
    "since": "2026-11-01T12:00:00Z",
}
REJECTION: RejectionEntry = {
    "gateway": "models/iris",
    "type": "rds",
    "name": "models/iris",
    "version": "b2",
    "served": None,
    "cause": "refused",
    "node": "envoy-1",
    "code": 13,
    "message": "missing )",
    "since": "2026-11-01T12:00:00Z",
    "object": "TrafficPolicy models/iris",
    "field": "spec",
    "source": {"file": "iris/policy.yaml", "document": 1},
}
STATUS: StatusEntry = {
    "object": "TrafficPolicy models/iris",
    "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "größer"}],
}


@dataclass(frozen=True, slots=True)
class Node:
    """What the xDS server's own view of a node looks like: dataclasses, enums and sets."""

    id: str
    connected_since: datetime
    sent: Mapping[ResourceType, Mapping[str, str]]
    waiting: frozenset[str] = frozenset()


@dataclass
class FakeState:
    awaited_: str = ""
    nodes_: list[Node] = field(default_factory=list)
    gateways_: Sequence[Any] = ({"name": "models/iris"},)
    retried: list[str] = field(default_factory=list)

    def awaited(self) -> str:
        return self.awaited_

    def gateways(self) -> Sequence[Any]:
        return self.gateways_

    def nodes(self) -> Sequence[Any]:
        return self.nodes_

    def resources(self, gateway: str) -> Mapping[str, Any] | None:
        return {"clusters": [{"name": "models/iris/stable"}]} if gateway == "models/iris" else None

    def status(self) -> Sequence[StatusEntry]:
        return [STATUS]

    def errors(self) -> Sequence[ErrorEntry]:
        return [ERROR]

    def rejections(self) -> Iterator[RejectionEntry]:
        return iter([REJECTION])

    def retry(self, gateway: str) -> int | None:
        self.retried.append(gateway)
        return 2 if gateway == "models/iris" else None


@pytest.fixture
def state() -> FakeState:
    return FakeState()


@pytest.fixture
async def client(state: FakeState) -> AsyncIterator[ClientSession]:
    server = AdminServer(Address("127.0.0.1", 0), state, Metrics())
    address = await server.start()
    async with ClientSession(f"http://{address}") as session:
        yield session
    await server.stop()


async def get(client: ClientSession, path: str, **options: Any) -> tuple[int, Any]:
    async with client.get(path, **options) as response:
        assert response.content_type == "application/json"
        return response.status, await response.json()


async def test_lives_before_it_is_ready(client: ClientSession, state: FakeState) -> None:
    state.awaited_ = "the first list of services"
    assert (await get(client, "/healthz"))[0] == 200
    assert await get(client, "/readyz") == (503, {"status": "waiting for the first list of services"})
    state.awaited_ = ""
    assert await get(client, "/readyz") == (200, {"status": "ready"})


async def test_the_index_lists_every_endpoint(client: ClientSession) -> None:
    status, index = await get(client, "/")
    assert status == 200
    assert set(index) == {
        "/healthz",
        "/readyz",
        "/metrics",
        "/debug/gateways",
        "/debug/nodes",
        "/debug/resources",
        "/debug/status",
        "/debug/errors",
        "/debug/rejections",
        "/debug/retry",
    }
    others = {"/debug/resources": 400, "/debug/retry": 405}
    for path in index:
        async with client.get(path) as response:
            assert response.status == others.get(path, 200)


async def test_metrics_are_what_prometheus_reads(client: ClientSession) -> None:
    async with client.get("/metrics") as response:
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        families = {family.name for family in text_string_to_metric_families(await response.text())}
    assert {"xdserve_gateways", "xdserve_acks", "process_cpu_seconds"} <= families


async def test_status_and_errors_have_their_documented_shapes(client: ClientSession) -> None:
    assert await get(client, "/debug/status") == (200, [STATUS])
    assert await get(client, "/debug/errors") == (200, [ERROR])
    assert await get(client, "/debug/rejections") == (200, [REJECTION])


async def test_a_node_is_shown_from_its_dataclass(client: ClientSession, state: FakeState) -> None:
    state.nodes_ = [
        Node(
            "iris-1",
            datetime(2026, 11, 1, 12, tzinfo=UTC),
            {ResourceType.CLUSTER: {"models/iris/stable": "a1"}},
            frozenset({"b", "a"}),
        )
    ]
    expected = {
        "id": "iris-1",
        "connected_since": "2026-11-01T12:00:00.000Z",
        "sent": {ResourceType.CLUSTER.value: {"models/iris/stable": "a1"}},
        "waiting": ["a", "b"],
    }
    assert await get(client, "/debug/nodes") == (200, [expected])


async def test_resources_of_one_gateway(client: ClientSession) -> None:
    assert await get(client, "/debug/resources?gateway=models/iris") == (
        200,
        {"clusters": [{"name": "models/iris/stable"}]},
    )
    assert await get(client, "/debug/resources?gateway=models/none") == (404, {"error": "no gateway models/none"})


@pytest.mark.parametrize(
    "query", ["", "?gateway=", "?gateway=iris", "?gateway=a/b/c", "?gateway=a%20/b", "?gatway=a/b"]
)
async def test_resources_want_a_gateway(client: ClientSession, query: str) -> None:
    assert await get(client, f"/debug/resources{query}") == (
        400,
        {"error": "gateway is missing: ?gateway=NAMESPACE/NAME"},
    )


async def test_what_a_gateway_refused_is_tried_again_on_request_alone(client: ClientSession, state: FakeState) -> None:
    async def post(query: str, **headers: str) -> tuple[int, Any]:
        async with client.post(f"/debug/retry{query}", headers=headers) as response:
            return response.status, await response.json()

    async with client.get("/debug/retry?gateway=models/iris") as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
    assert (await post("?gateway=models/iris", Origin="http://evil.example"))[0] == 403
    assert await post("") == (400, {"error": "gateway is missing: ?gateway=NAMESPACE/NAME"})
    assert state.retried == []
    assert await post("?gateway=models/iris") == (200, {"retried": 2})
    assert await post("?gateway=models/none") == (404, {"error": "no gateway models/none"})


async def test_unknown_paths_and_methods_are_json_errors(client: ClientSession) -> None:
    browser = {"Accept": "text/html"}
    assert await get(client, "/nope", headers=browser) == (404, {"error": "no such endpoint: /nope (/ lists them)"})
    assert (await get(client, "/debug/nodes/"))[0] == 404
    async with client.post("/metrics", data=b"x") as response:
        assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")
        assert await response.json() == {"error": "POST is not allowed here, only GET, HEAD"}
    async with client.head("/healthz") as response:
        assert (response.status, await response.read()) == (200, b"")


async def test_pretty_on_request_and_for_browsers(client: ClientSession) -> None:
    async def text(path: str, **headers: str) -> str:
        async with client.get(path, headers=headers) as response:
            return await response.text()

    pretty = json.dumps([ERROR], indent=2) + "\n"
    assert await text("/debug/errors?pretty") == pretty
    assert await text("/debug/errors?pretty=1") == pretty
    assert await text("/debug/errors", Accept="text/html,*/*") == pretty
    assert await text("/debug/errors?pretty=false", Accept="text/html") == json.dumps([ERROR]) + "\n"
    assert await text("/debug/errors") == json.dumps([ERROR]) + "\n"


@pytest.mark.parametrize("count", [0, 1, 49, 50, 51, 1000])
async def test_long_lists_are_whole(client: ClientSession, state: FakeState, count: int) -> None:
    state.gateways_ = tuple({"name": f"models/m{number}"} for number in range(count))
    expected = list(state.gateways_)
    assert await get(client, "/debug/gateways") == (200, expected)
    async with client.get("/debug/gateways?pretty") as response:
        assert await response.text() == json.dumps(expected, indent=2) + "\n"


async def test_our_fault_is_a_json_error_and_goes_to_the_log(client: ClientSession, state: FakeState) -> None:
    state.gateways_ = (object(),)
    with structlog.testing.capture_logs() as logs:
        status, body = await get(client, "/debug/gateways")
    assert (status, body) == (500, {"error": "internal error; the log of xdserve has its cause"})
    assert [(entry["event"], entry["path"]) for entry in logs] == [("admin request failed", "/debug/gateways")]
    assert (await get(client, "/healthz"))[0] == 200


async def test_an_address_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = Address("127.0.0.1", other.getsockname()[1])
        with pytest.raises(AdminError, match=rf"^admin_address {address}: .*address already in use"):
            await AdminServer(address, FakeState(), Metrics()).start()


async def test_nonsense_instead_of_http_harms_nobody(client: ClientSession) -> None:
    host, port = client._base_url.host, client._base_url.port
    for nonsense in (b"\x00\xff\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n"):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(nonsense)
        answer = await asyncio.wait_for(reader.readline(), 5)
        assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer
        writer.close()
    assert (await get(client, "/healthz"))[0] == 200


async def test_stop_closes_and_frees_the_address() -> None:
    server = AdminServer(Address("127.0.0.1", 0), FakeState(), Metrics())
    address = await server.start()
    await server.stop()
    await server.stop()
    again = AdminServer(address, FakeState(), Metrics())
    assert await again.start() == address
    await again.stop()
