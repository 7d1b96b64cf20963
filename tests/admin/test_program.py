"""What a whole program shows over HTTP: of Envoys that refuse, of those that wait, and of what they report."""

from __future__ import annotations

from contextlib import asynccontextmanager

import grpc.aio
import pytest
from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from tests.stream.rig import Client
from tests.support.documents import backend, isvc, policy, split, to_service
from tests.support.plane import HOST, IRIS, control_plane
from tests.support.wait import wait_until
from xds import loads
from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.config.endpoint.v3 import ClusterStats, UpstreamLocalityStats
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest
from xds.api.envoy.service.load_stats.v3 import LoadStatsRequest
from xds.api.google.rpc import Status
from xds.types import ResourceType
from xds.wire import encode

PREDICTOR = f"{IRIS}/predictor"


def shares(weight):
    both = [to_service("stable", "iris-predictor"), to_service("v2", "iris-v2-predictor")]
    return policy(backends=both, split=split(stable=weight, v2=100))


class Program:
    def __init__(self, plane, http, channel):
        self.plane, self.http, self.channel = plane, http, channel

    async def debug(self, path):
        async with self.http.get(f"/debug/{path}") as answer:
            assert answer.status == 200
            return await answer.json()

    async def metrics(self):
        async with self.http.get("/metrics") as answer:
            families = text_string_to_metric_families(await answer.text())
            return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}

    async def refuses(self, type_, name, message):
        """A client that takes no resource of the type, and says why."""
        client = Client(self.channel)
        await client.say(type_, [name], gateway=IRIS, node_id="envoy-1")
        response = await client.get()
        error = Status(code=13, message=message)
        nack = DeltaDiscoveryRequest(type_url=type_, response_nonce=response.nonce, error_detail=error)
        await client.raw(encode(nack))
        await wait_until(lambda: self.plane.server.rejections(IRIS), 20, "the refusal")
        return client

    async def reports(self, *clusters):
        """Say once how these clusters do; gives the call, which is to be kept."""
        locality = UpstreamLocalityStats(
            total_issued_requests=9,
            total_successful_requests=7,
            total_error_requests=2,
            total_requests_in_progress=3,
        )
        stats = [
            ClusterStats(cluster_name=name, upstream_locality_stats=[locality], total_dropped_requests=1)
            for name in clusters
        ]
        call = self.channel.stream_stream(f"/{loads.SERVICE}/{loads.METHOD}")()
        await call.write(encode(LoadStatsRequest(node=Node(id="envoy-1", cluster=IRIS), cluster_stats=stats)))
        await wait_until(lambda: self.plane.server.loads.reports(IRIS), 20, "the report")
        return call


@asynccontextmanager
async def running(*documents):
    async with control_plane() as plane:
        plane.put(isvc(), *backend("iris-predictor", 9001), *backend("iris-v2-predictor", 9002), *documents)
        async with (
            plane.admin() as address,
            ClientSession(f"http://{address}") as http,
            grpc.aio.insecure_channel(f"{HOST}:{plane.port}") as channel,
        ):
            yield Program(plane, http, channel)


async def test_a_refusal_names_the_object_and_what_is_served_and_goes_with_its_cause():
    async with running(shares(1)) as program:
        good = program.plane.scope_version(ResourceType.ROUTE)
        client = Client(program.channel)
        await client.take(ResourceType.ROUTE, [IRIS], gateway=IRIS)
        await wait_until(lambda: program.plane.metrics.render().count(b'acks_total{type="rds"} 1.0'), 20, "the ACK")
        program.plane.put(shares(2))
        bad = program.plane.scope_version(ResourceType.ROUTE)
        response = await client.get()
        error = Status(code=13, message="no such \x1b[31mthing " + "x" * 100_000)
        nack = DeltaDiscoveryRequest(type_url=ResourceType.ROUTE, response_nonce=response.nonce, error_detail=error)
        await client.raw(encode(nack))
        await wait_until(lambda: program.plane.server.rejections(IRIS), 20, "the refusal")

        (entry,) = await program.debug("rejections")
        assert entry.pop("since").endswith("Z")
        message = entry.pop("message")
        assert message.startswith("no such \\x1b[31mthing xxx")
        assert len(message) < 2100
        assert entry == {
            "gateway": IRIS,
            "type": "rds",
            "name": IRIS,
            "version": bad,
            "served": good,
            "cause": "refused",
            "node": "envoy",
            "code": 13,
            "object": f"TrafficPolicy {IRIS}",
            "field": "spec",
            "source": None,
        }
        (error,) = await program.debug("errors")
        assert (error["object"], error["reason"]) == (f"TrafficPolicy {IRIS}", "Rejected")
        found = await program.metrics()
        assert (found["xdserve_refused_resources", "rds"], found["xdserve_rejections_total", "rds"]) == (1, 1)

        program.plane.put(shares(3))
        assert await program.debug("rejections") == []
        assert await program.debug("errors") == []
        assert (await program.metrics())["xdserve_refused_resources", "rds"] == 0


async def test_what_is_gone_is_not_refused_any_more():
    async with running() as program:
        await program.refuses(ResourceType.ROUTE, IRIS, "no")
        assert [entry["served"] for entry in await program.debug("rejections")] == [None]
        program.plane.remove(isvc())
        await wait_until(lambda: not len(program.plane.rejected), 20, "the refusal to go")
        assert await program.debug("rejections") == []


async def test_nodes_say_what_they_wait_for_and_how_they_speak():
    async with running() as program:
        client = Client(program.channel)
        await client.say(ResourceType.CLUSTER, gateway=IRIS, node_id="envoy-1")
        response = await client.get()
        (node,) = await program.debug("nodes")
        stream = node["stream"]
        assert (stream["node_id"], stream["variant"], stream["service"]) == ("envoy-1", "delta", "ads")
        (clusters,) = node["types"]
        assert clusters["in_flight"] == [response.nonce]
        assert set(clusters["sent"]) == {PREDICTOR}
        assert clusters["acknowledged"] == {}
        assert (await program.metrics())["xdserve_gateway_connected_envoys", IRIS] == 1


async def test_load_reports_are_shown_by_backend_of_known_gateways_and_clusters_alone():
    async with running() as program:
        call = await program.reports(PREDICTOR, "evil", f"{IRIS}/other")
        (gateway,) = await program.debug("gateways")
        assert gateway["loads"] == {
            "predictor": {"issued": 9, "successes": 7, "errors": 2, "dropped": 1, "in_flight": 3}
        }
        assert {key[1:]: value for key, value in (await program.metrics()).items() if "_backend_" in key[0]} == {
            (IRIS, "predictor", "success"): 7,
            (IRIS, "predictor", "error"): 2,
            (IRIS, "predictor"): 1,
        }
        call.cancel()
        await wait_until(lambda: not program.plane.server.loads.reports(IRIS)[PREDICTOR].in_flight, 20, "the end")
        assert (await program.metrics())["xdserve_backend_requests_in_flight", IRIS, "predictor"] == 0


async def test_a_gateway_that_a_client_invents_has_no_series():
    async with running() as program:
        client = Client(program.channel)
        await client.say(ResourceType.CLUSTER, gateway="evil/one")
        await wait_until(program.plane.server.nodes, 20, "the stream")
        assert [key for key in await program.metrics() if "evil/one" in key] == []


@pytest.mark.parametrize("edits", [1, 5])
async def test_changes_that_one_response_makes_superfluous_are_counted(edits):
    async with running(shares(1)) as program:
        client = Client(program.channel)
        await client.say(ResourceType.ROUTE, [IRIS], gateway=IRIS)
        first = await client.get()  # not acknowledged, so what changes waits
        for weight in range(edits):
            program.plane.put(shares(weight + 2))
        await client.ack(first)
        await client.get()
        assert (await program.metrics())["xdserve_pushes_coalesced_total", "rds"] == edits - 1
