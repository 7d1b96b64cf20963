"""Load reports on the port of the server: one stream an Envoy, bound to its gateway like any other."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest

from tests.stream.rig import GATEWAY
from tests.support.model_envoy import make
from tests.support.wait import wait_until as until
from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.config.endpoint.v3 import ClusterStats, UpstreamLocalityStats
from xds.api.envoy.service.load_stats.v3 import LoadStatsRequest, LoadStatsResponse
from xds.call import Call
from xds.loads import METHOD, SERVICE
from xds.types import ResourceType
from xds.wire import encode

LRS = f"/{SERVICE}/{METHOD}"


def report(cluster="a", *, gateway=GATEWAY, issued=10, errors=1, in_flight=2):
    locality = UpstreamLocalityStats(
        total_issued_requests=issued,
        total_successful_requests=issued - errors,
        total_error_requests=errors,
        total_requests_in_progress=in_flight,
    )
    stats = ClusterStats(cluster_name=cluster, upstream_locality_stats=[locality])
    return encode(LoadStatsRequest(node=Node(id="envoy", cluster=gateway), cluster_stats=[stats]))


async def reporting(rig, data=None):
    client = rig.client(LRS)
    await client.raw(data or report())
    return client, await client.got(LoadStatsResponse)


async def test_an_envoy_is_asked_once_and_its_figures_are_added_up(start):
    rig = await start(load_interval=7)
    client, asked = await reporting(rig)
    assert (asked.send_all_clusters, asked.load_reporting_interval) == (True, timedelta(seconds=7))
    await client.raw(report(issued=5, errors=0, in_flight=1))
    await until(lambda: rig.server.loads.reports(GATEWAY)["a"].issued == 15)
    load = rig.server.loads.reports(GATEWAY)["a"]
    assert (load.successes, load.errors, load.in_flight) == (14, 1, 1)
    client.call.cancel()
    await until(lambda: rig.server.loads.reports(GATEWAY)["a"].in_flight == 0)


async def test_only_clusters_that_the_gateway_has_count(rig):
    rig.server.publish(GATEWAY, [make(ResourceType.CLUSTER, "b")])
    client, _ = await reporting(rig, report("unknown"))
    await client.raw(report("b"))
    await until(lambda: rig.server.loads.reports(GATEWAY))
    assert rig.server.loads.reports(GATEWAY).keys() == {"b"}
    rig.server.forget(GATEWAY)
    assert rig.server.loads.gateways() == []


async def test_an_unknown_gateway_leaves_nothing(rig):
    await reporting(rig, report(gateway="models/nobody"))
    assert rig.server.scope("models/nobody") is None
    assert rig.server.loads.gateways() == []


async def test_it_is_no_connected_envoy(rig):
    await reporting(rig)
    assert rig.server.nodes() == []
    assert rig.record.streams == []


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("broken", [b"\x0a\xff", b"\xff" * 20, b"\x12" + b"\x80\x80\x84\x02" + bytes(4 * 1024 * 1024)])
async def test_what_is_no_report_ends_that_stream_alone(rig, late, broken):
    other = await rig.connected()
    client = (await reporting(rig))[0] if late else rig.client(LRS)
    await client.raw(broken)
    code, message = await client.end()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("not a LoadStatsRequest: ")
    assert rig.record.refusals == {"INVALID_ARGUMENT": 1}
    rig.server.publish(GATEWAY, [make(ResourceType.CLUSTER, "b")])
    assert [entry.name for entry in (await other.get()).resources] == ["b"]


async def test_a_report_without_a_node(rig):
    client = rig.client(LRS)
    await client.raw(encode(LoadStatsRequest()))
    assert (await client.end())[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_silence_has_a_deadline(start):
    rig = await start(first_request=0.05)
    assert (await rig.client(LRS).end())[0] is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_client_that_is_done(rig):
    client, _ = await reporting(rig)
    await client.call.done_writing()
    assert await client.end() == (grpc.StatusCode.OK, "")


async def test_a_report_that_took_long_is_followed_by_a_rest(start, monkeypatch):
    monkeypatch.setattr("xds.streams.LONGEST_REST", 0.05)
    now = 0.0
    rests = []
    rig = await start(clock=lambda: now)
    resting = Call.rest

    async def rest(call, seconds):
        rests.append(seconds)
        await resting(call, seconds)

    def take(report):
        nonlocal now
        now += 60 if report.deltas[0].issued == 1 else 0.001

    monkeypatch.setattr(Call, "rest", rest)
    rig.server.loads.subscribe(GATEWAY, take)
    client, _ = await reporting(rig, report(issued=1))
    for issued in (2, 1, 3):
        await client.raw(report(issued=issued))
    await until(lambda: len(rests) == 4)
    assert rests == [0.05, 0.0, 0.05, 0.0]
    assert rig.server.loads.reports(GATEWAY)["a"].issued == 7
