"""A backend gets requests when its cluster is warm, and loses them before its cluster goes."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest_asyncio

from tests.support.documents import backend, endpoints, entrance, isvc, policy, split, to_service
from tests.support.eds_hold import eds_hold
from tests.support.envoy import pick_ports
from tests.support.plane import IRIS, control_plane, gateway
from tests.support.wait import wait_until
from xds.types import ResourceType
from xdserve.demo.driver import Traffic, post

STABLE = to_service("stable", "iris-predictor")
V2 = to_service("v2", "iris-v2-predictor")
V2_CLUSTER = "models/iris/v2"
REQUEST = post("iris-models.example.com", "/v1/models/iris:predict", b'{"instances": [1]}')


@pytest_asyncio.fixture
async def scene(tmp_path, model_servers):
    """A gateway with all of its requests to `stable`, traffic on it, and a proxy that can hold endpoints back."""

    @asynccontextmanager
    async def start(*documents, linger=0.2):
        (port,) = pick_ports(1)
        models = [*backend("iris-predictor", model_servers["stable"].port)]
        models += backend("iris-v2-predictor", model_servers["v2"].port)
        async with control_plane(linger=linger) as plane, eds_hold(plane.port) as proxy:
            plane.put(isvc(), models, entrance(port), *documents)
            async with gateway(plane, tmp_path, port, xds_port=proxy.port) as started:
                traffic = Traffic("127.0.0.1", port, REQUEST, connections=4, pause=0.002)
                async with traffic.running():
                    yield started, proxy, traffic

    return start


async def observe(traffic, requests=300):
    """What the next requests met."""
    tally = traffic.count()
    await traffic.until(tally, requests=requests)
    return tally


async def test_a_backend_that_warms_slowly_gets_no_request_before_it_is_warm(scene):
    async with scene(policy(backends=[STABLE], split=split(stable=1))) as (started, proxy, traffic):
        proxy.hold(V2_CLUSTER)
        started.plane.put(policy(backends=[STABLE, V2], split=split(stable=50, v2=50)))
        await proxy.held.wait()
        while_held = await observe(traffic, 500)
        assert dict(while_held.shares()) == {"stable": 1.0}
        (node,) = started.plane.server.nodes()
        waiting = {name: why for view in node.types for name, why in view.waiting.items()}
        assert waiting == {IRIS: f"ACK of cluster {V2_CLUSTER}"}
        proxy.release()
        await started.settled()
        after = await observe(traffic)
        assert set(after.shares()) == {"stable", "v2"}
        assert traffic.failed == 0


async def test_an_edit_during_the_warming_counts_and_the_one_before_it_never_shows(scene):
    async with scene(policy(backends=[STABLE], split=split(stable=1))) as (started, proxy, traffic):
        proxy.hold(V2_CLUSTER)
        started.plane.put(policy(backends=[STABLE, V2], split=split(v2=1)))
        await proxy.held.wait()
        started.plane.put(policy(backends=[STABLE], split=split(stable=1)))
        await observe(traffic)
        proxy.release()
        await wait_until(started.plane.programmed, 20, "the edit to be in force")
        assert set((await observe(traffic)).shares()) == {"stable"}
        assert traffic.failed == 0
        assert started.plane.server.scope(IRIS).get(ResourceType.CLUSTER, V2_CLUSTER) is None
        await wait_until(lambda: gone(started, V2_CLUSTER), 20, "the cluster to go")


async def test_a_backend_that_becomes_unready_fails_nothing(scene, model_servers):
    """Its endpoints stay until no route leads to it any more, however slowly the new routes come."""
    port = model_servers["v2"].port
    ready, unready = (endpoints("iris-v2-predictor", port, ready=ready) for ready in (True, False))
    members = "^cluster.models/iris/v2.membership_total$"
    async with scene(policy(backends=[STABLE, V2], split=split(stable=1, v2=1))) as (started, proxy, traffic):
        for _ in range(3):
            proxy.hold(IRIS, ResourceType.ROUTE)
            started.plane.put(unready)
            await proxy.held.wait()
            assert set((await observe(traffic)).shares()) == {"stable", "v2"}
            assert list((await started.envoy.stats(members)).values()) == [1]
            proxy.release()
            await started.settled()
            assert list((await started.envoy.stats(members)).values()) == [0]
            assert set((await observe(traffic, 100)).shares()) == {"stable"}
            await started.edit(ready)
            assert set((await observe(traffic)).shares()) == {"stable", "v2"}
            assert traffic.failed == 0


async def test_a_backend_that_keeps_its_share_loses_its_endpoints_at_once(scene, model_servers):
    keeping = {**V2, "whenUnready": "Fail"}
    async with scene(policy(backends=[STABLE, keeping], split=split(stable=1, v2=1))) as (started, _, traffic):
        await started.edit(endpoints("iris-v2-predictor", model_servers["v2"].port, ready=False))
        assert set((await observe(traffic)).statuses) == {200, 503}


async def gone(started, cluster):
    return cluster not in await started.clusters()


async def test_a_removed_backend_fails_nothing_and_its_cluster_lingers(scene):
    both = policy(backends=[STABLE, V2], split=split(stable=1, v2=1))
    async with scene(both, linger=2.0) as (started, _, traffic):
        assert set((await observe(traffic)).shares()) == {"stable", "v2"}
        members = "^cluster.models/iris/v2.membership_total$"
        assert list((await started.envoy.stats(members)).values()) == [1]
        await started.edit(policy(backends=[STABLE], split=split(stable=1)))
        assert V2_CLUSTER in await started.clusters()
        assert set((await observe(traffic, 100)).shares()) == {"stable"}
        await wait_until(lambda: gone(started, V2_CLUSTER), 20, "the cluster to go")
        assert started.plane.rejections().total() == 0
        assert await started.envoy.stats(members) == {}
        assert traffic.failed == 0


async def test_a_backend_that_comes_back_while_it_lingers_is_never_gone(scene):
    both = policy(backends=[STABLE, V2], split=split(stable=1, v2=1))
    async with scene(both, linger=0.3) as (started, _, traffic):
        for _ in range(5):
            await started.edit(policy(backends=[STABLE], split=split(stable=1)))
            await started.edit(both)
        assert V2_CLUSTER in await started.clusters()
        assert set((await observe(traffic)).shares()) == {"stable", "v2"}
        assert traffic.failed == 0
