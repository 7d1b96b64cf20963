"""What a stock Envoy reports of its load, and what is made of it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from tests.support.envoy import pick_ports, running_envoy, static_bootstrap
from tests.support.requests import http1
from tests.support.stubs import OK, stub_server
from tests.support.wait import wait_until
from xds.loads import METHOD, SERVICE, Load, Loads, LoadSession, node_of

GATEWAY = "models/iris"
INTERVAL = 0.2
CLUSTERS = {"ok", "failing", "refusing", "holding", "quiet"}


class Reporting:
    """A server of load reports; `cut` ends the streams with their next report."""

    def __init__(self):
        self.loads = Loads(lambda gateway, cluster: cluster in CLUSTERS)
        self.streams = 0
        self.nodes = []
        self.cut = False

    async def stream(self, _, context):
        self.streams += 1
        data = await context.read()
        node = node_of(data)
        self.nodes.append((node.id, node.cluster))
        session = LoadSession(node.cluster, self.loads, interval_seconds=INTERVAL)
        try:
            while data is not grpc.aio.EOF:
                if answer := session.receive(data):
                    await context.write(answer)
                data = await context.read()
                if self.cut:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "come again")
        finally:
            session.close()

    def load(self, cluster):
        """The figures of a cluster; None before any report of it."""
        return self.loads.reports(GATEWAY).get(cluster)

    async def reports(self, count):
        """Wait for so many more reports."""
        told = []
        leave = self.loads.subscribe(GATEWAY, told.append)
        await wait_until(lambda: len(told) >= count, 15, "load reports")
        leave()
        return told


@asynccontextmanager
async def served(reporting):
    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler(
        SERVICE, {METHOD: grpc.stream_stream_rpc_method_handler(reporting.stream)}
    )
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


def reporting_bootstrap(xds, port, admin, endpoints):
    """One path and one cluster for each name of `endpoints`; none of the clusters names a server of load reports."""
    routes = [{"match": {"prefix": f"/{name}"}, "route": {"cluster": name}} for name in endpoints]
    made = static_bootstrap(
        {**{n: [p] for n, p in endpoints.items()}, "xdserve": [xds]}, routes, port=port, admin_port=admin
    )
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    made["static_resources"]["clusters"][-1]["typed_extension_protocol_options"] = {
        options: {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}
    }
    made["node"] = {"id": "envoy-1", "cluster": GATEWAY}
    made["cluster_manager"] = {
        "load_stats_config": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xdserve"}}],
        }
    }
    return made


@pytest.fixture
def refusing_port():
    """A port that refuses connections: bound, so that nobody else gets it, and not listened on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


async def by_path(head, writer):
    """Answer once with the status that the path ends in; hold on to what asks for that."""
    path = head.split()[1]
    try:
        if path == "/holding":
            await asyncio.Event().wait()
        status = path.rpartition("/")[2]
        answer = OK.replace(b"200", status.encode()) if status.isdigit() else OK
        writer.write(answer.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))
    finally:
        writer.close()
    return False


@pytest_asyncio.fixture
async def edge(tmp_path, refusing_port):
    """Where reports go, and a port: what is asked there for `/<cluster>/...` goes to that cluster."""
    reporting = Reporting()
    port, admin = pick_ports(2)
    async with served(reporting) as xds, stub_server(by_path) as model:
        endpoints = dict.fromkeys(sorted(CLUSTERS), model) | {"refusing": refusing_port}
        made = reporting_bootstrap(xds, port, admin, endpoints)
        with running_envoy(tmp_path, made, admin) as envoy:
            await envoy.wait_ready()
            await wait_until(lambda: reporting.load("ok"), 15, "the first report")
            yield reporting, port


async def statuses(port, *paths):
    return [(await http1(port, path)).status for path in paths]


async def held(port):
    """Ask for what is never answered; closing it hangs up."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /holding HTTP/1.1\r\nhost: a\r\n\r\n")
    return writer


async def counted(reporting, cluster, **figures):
    """Wait until the figures of a cluster are these, the others 0."""
    expected = Load(**dict.fromkeys(("issued", "successes", "errors", "dropped", "in_flight"), 0) | figures)

    def same():
        found = reporting.load(cluster)
        assert found is None or found.errors <= expected.errors, found
        return found == expected

    await wait_until(same, 15, f"{cluster} to have {figures}")


async def test_answers_below_500_are_successes(edge):
    reporting, port = edge
    assert await statuses(port, "/ok", "/ok/404", "/ok/429") == [200, 404, 429]
    await counted(reporting, "ok", issued=3, successes=3)
    assert reporting.nodes == [("envoy-1", GATEWAY)]


async def test_answers_from_500_are_errors(edge):
    reporting, port = edge
    assert await statuses(port, "/failing/500", "/failing/503", "/failing") == [500, 503, 200]
    await counted(reporting, "failing", issued=3, successes=1, errors=2)


async def test_what_finds_no_connection_is_an_error_that_was_never_issued(edge):
    reporting, port = edge
    assert await statuses(port, "/refusing", "/refusing") == [503, 503]
    await counted(reporting, "refusing", errors=2)


async def test_a_request_is_in_flight_until_its_client_hangs_up_which_is_no_error(edge):
    reporting, port = edge
    client = await held(port)
    await counted(reporting, "holding", issued=1, in_flight=1)
    await reporting.reports(2)
    await counted(reporting, "holding", issued=1, in_flight=1)
    client.close()
    await counted(reporting, "holding", issued=1)


async def test_clusters_without_traffic_are_reported_and_those_of_the_control_plane_passed_over(edge):
    reporting, _ = edge
    report = (await reporting.reports(1))[0]
    assert {delta.cluster for delta in report.deltas} == CLUSTERS == set(reporting.loads.reports(GATEWAY))
    assert report.seconds > 0
    assert all(not any(delta[1:]) for delta in report.deltas)


async def test_what_happens_while_there_is_no_server_is_told_to_the_next(edge):
    reporting, port = edge
    client = await held(port)
    await counted(reporting, "holding", issued=1, in_flight=1)
    reporting.cut = True
    await counted(reporting, "holding", issued=1)  # what is in flight goes with the stream
    reporting.cut = False
    assert reporting.streams == 1
    assert await statuses(port, *["/ok"] * 7) == [200] * 7
    assert reporting.load("ok").issued == 0
    await counted(reporting, "ok", issued=7, successes=7)
    await counted(reporting, "holding", issued=1, in_flight=1)
    assert reporting.streams == 2
    client.close()
