"""Stock Envoys that speak the state of the world, or to a service for each type: they get what the others get."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import pytest_asyncio

import bootstrap
from tests.support.documents import backend, endpoints, entrance, isvc, policy, split, to_service
from tests.support.envoy import pick_ports, running_envoy
from tests.support.plane import HOST, IRIS, Gateway, control_plane
from tests.support.wait import wait_until
from translator import names
from xds.api.envoy.config.cluster.v3 import Cluster
from xds.api.envoy.config.core.v3 import (
    ApiConfigSource,
    ApiConfigSourceApiType,
    ConfigSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
)
from xds.api.envoy.config.listener.v3 import Listener
from xds.api.envoy.config.route.v3 import RouteConfiguration
from xds.api.envoy.extensions.filters.network.http_connection_manager.v3 import HttpConnectionManager
from xds.session import Variant
from xds.types import ResourceType
from xds.wire import decode, encode, resource
from xdserve.demo.driver import Traffic, post

BACKENDS = [to_service("stable", "iris-predictor"), to_service("v2", "iris-v2-predictor")]
REQUEST = post("iris-models.example.com", "/v1/models/iris:predict", b'{"instances": [1]}')
API_TYPES = {Variant.DELTA: "DELTA_GRPC", Variant.SOTW: "GRPC"}


def shares(stable, v2, **more):
    return policy(backends=BACKENDS, split=split(stable=stable, v2=v2), **more)


@pytest_asyncio.fixture
async def models(model_servers):
    stable, v2 = model_servers["stable"].port, model_servers["v2"].port
    return [*backend("iris-predictor", stable), *backend("iris-v2-predictor", v2)]


@asynccontextmanager
async def envoy(plane, folder, port, change, *, label="envoy"):
    """An Envoy of the gateway, with its bootstrap changed."""
    (admin,) = pick_ports(1)
    made = bootstrap.render(IRIS, f"{HOST}:{plane.port}", node_id=label, admin_address=f"{HOST}:{admin}")
    change(made)
    with running_envoy(folder, bootstrap.to_json(made), admin, name=label) as started:
        await started.wait_ready()
        yield Gateway(started, port, plane)


def state_of_the_world(made):
    made["dynamic_resources"]["ads_config"]["api_type"] = "GRPC"


def says(plane):
    return {(node.stream.service, node.stream.variant) for node in plane.server.nodes()}


async def seen(traffic, requests=200):
    tally = traffic.count()
    await traffic.until(tally, requests=requests)
    return set(tally.shares())


async def test_state_of_the_world_through_all_kinds_of_edits(tmp_path, models, model_servers):
    (port,) = pick_ports(1)
    async with control_plane() as plane:
        plane.put(isvc(), models, entrance(port), policy(backends=BACKENDS[:1], split=split(stable=1)))
        async with envoy(plane, tmp_path, port, state_of_the_world) as started:
            await started.settled()
            assert says(plane) == {("ads", Variant.SOTW)}
            traffic = Traffic(HOST, port, REQUEST, connections=4, pause=0.002)
            async with traffic.running():
                assert await seen(traffic) == {"stable"}
                await started.edit(shares(0, 100))  # a new cluster, and the routes to it
                await traffic.until(traffic.count(), requests=20)
                assert await seen(traffic) == {"v2"}
                await started.edit(endpoints("iris-v2-predictor", model_servers["stable"].port))
                await traffic.until(traffic.count(), requests=20)
                assert await seen(traffic) == {"stable"}
                await started.edit(policy(backends=BACKENDS[:1], split=split(stable=1)))

                async def gone():
                    return f"{IRIS}/v2" not in await started.clusters()

                await wait_until(gone, 20, "the cluster to go")
                assert await seen(traffic) == {"stable"}
                # One that reconnects goes on with what it has.
                await started.edit(shares(50, 50), endpoints("iris-v2-predictor", model_servers["v2"].port))
                await wait_until(plane.programmed, 20, "all to be acknowledged")
                assert await seen(traffic) == {"stable", "v2"}
            assert traffic.failed == 0
        assert plane.rejections().total() == 0


async def test_a_refusal_in_the_state_of_the_world(tmp_path, models):
    (port,) = pick_ports(1)
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(control_plane())
        plane.put(isvc(), models, entrance(port), shares(1, 1))
        first = await stack.enter_async_context(envoy(plane, tmp_path, port, state_of_the_world))
        await first.settled()
        for kind, name, message, spoil in (
            (ResourceType.CLUSTER, f"{IRIS}/stable", Cluster, lambda made: setattr(made, "lb_policy", 6)),
            (ResourceType.LISTENER, names.LISTENER, Listener, lambda made: setattr(made, "filter_chains", [])),
            (ResourceType.ROUTE, IRIS, RouteConfiguration, lambda made: setattr(made.virtual_hosts[0], "name", "")),
        ):
            served = plane.server.scope(IRIS).get(kind, name)
            made = decode(message, served.body)
            spoil(made)
            plane.server.publish(IRIS, [resource(kind, name, encode(made), uses=served.uses, origin=served.origin)])
            await wait_until(lambda: plane.server.rejections(IRIS), 20, "the refusal")
            await wait_until(plane.programmed, 20, "the last good one to be taken again")
            (told,) = plane.server.rejections(IRIS)
            assert (told.type, told.served) == (kind, served.version)
            later = envoy(plane, tmp_path, port, state_of_the_world, label=f"later-{kind.short}")
            async with later as newcomer:
                await newcomer.settled()
                assert (await newcomer.ask()).status == 200
            plane.server.publish(IRIS, [served])
            assert plane.server.rejections(IRIS) == ()
        assert (await first.ask()).status == 200


# -- A service for each type ---------------------------------------------------------------------------------------


def source(variant):
    """A config source that speaks to a type's own service."""
    kind = ApiConfigSourceApiType.DELTA_GRPC if variant is Variant.DELTA else ApiConfigSourceApiType.GRPC
    grpc = GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=bootstrap.envoy.XDS_CLUSTER))
    made = ApiConfigSource(api_type=kind, transport_api_version=2, grpc_services=[grpc])
    return ConfigSource(api_config_source=made, resource_api_version=2)


def without_ads(plane, variant):
    """Publish the gateway's clusters and its listener as an Envoy without an aggregated stream wants them."""
    scope = plane.server.scope(IRIS)
    put = []
    for name in scope.names(ResourceType.CLUSTER):
        held = scope.get(ResourceType.CLUSTER, name)
        cluster = decode(Cluster, held.body)
        cluster.eds_cluster_config.eds_config = source(variant)
        put.append(resource(held.type, name, encode(cluster), origin=held.origin))
    held = scope.get(ResourceType.LISTENER, names.LISTENER)
    listener = decode(Listener, held.body)
    packed = listener.filter_chains[0].filters[0].typed_config
    manager = decode(HttpConnectionManager, packed.value)
    manager.rds.config_source = source(variant)
    packed.value = encode(manager)
    put.append(resource(held.type, held.name, encode(listener), origin=held.origin))
    plane.server.publish(IRIS, put)


@pytest.mark.parametrize("variant", Variant)
async def test_a_service_for_each_type(tmp_path, models, variant):
    (port,) = pick_ports(1)
    own = {
        "api_config_source": {
            "api_type": API_TYPES[variant],
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": bootstrap.envoy.XDS_CLUSTER}}],
        },
        "resource_api_version": "V3",
    }

    def separate(made):
        made["dynamic_resources"] = {"cds_config": own, "lds_config": own}

    async with control_plane() as plane:
        plane.put(isvc(), models, entrance(port), shares(1, 1))
        without_ads(plane, variant)
        async with envoy(plane, tmp_path, port, separate) as started:
            await wait_until(plane.programmed, 20, "all to be acknowledged")
            assert says(plane) == {(short, variant) for short in ("cds", "eds", "lds", "rds")}
            traffic = Traffic(HOST, port, REQUEST, connections=2, pause=0.002)
            async with traffic.running():
                assert await seen(traffic) == {"stable", "v2"}
                await started.edit(shares(0, 100))
                await traffic.until(traffic.count(), requests=20)
                assert await seen(traffic) == {"v2"}
            assert traffic.failed == 0
