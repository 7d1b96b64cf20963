"""Every method of the table, over real gRPC."""

from __future__ import annotations

import grpc
import pytest

from tests.stream.rig import GATEWAY
from tests.support.model_envoy import make
from tests.support.streams import DELTA_ADS, STREAM_ADS
from tests.support.wait import wait_until as until
from xds.api.envoy.service.discovery.v3 import DiscoveryResponse
from xds.loads import METHOD, SERVICE
from xds.server import OPTIONS
from xds.services import SERVICES
from xds.session import Variant
from xds.types import ResourceType

CLUSTER, LISTENER = ResourceType.CLUSTER, ResourceType.LISTENER

# As Envoy's API writes them; the last word of each is what follows Stream, Delta and Fetch.
PER_TYPE = {
    ResourceType.SECRET: ("envoy.service.secret.v3.SecretDiscoveryService", "Secrets"),
    ResourceType.CLUSTER: ("envoy.service.cluster.v3.ClusterDiscoveryService", "Clusters"),
    ResourceType.ENDPOINT: ("envoy.service.endpoint.v3.EndpointDiscoveryService", "Endpoints"),
    ResourceType.EXTENSION: ("envoy.service.extension.v3.ExtensionConfigDiscoveryService", "ExtensionConfigs"),
    ResourceType.LISTENER: ("envoy.service.listener.v3.ListenerDiscoveryService", "Listeners"),
    ResourceType.SCOPED_ROUTE: ("envoy.service.route.v3.ScopedRoutesDiscoveryService", "ScopedRoutes"),
    ResourceType.ROUTE: ("envoy.service.route.v3.RouteDiscoveryService", "Routes"),
}


def path(type_, prefix):
    service, what = PER_TYPE[type_]
    return f"/{service}/{prefix}{what}"


def test_the_table_is_the_whole_of_it():
    served = {f"/{service}/{method}" for service, methods in SERVICES.items() for method in methods}
    per_type = {path(type_, prefix) for type_ in ResourceType for prefix in ("Stream", "Delta")}
    assert served == per_type | {DELTA_ADS, STREAM_ADS, f"/{SERVICE}/{METHOD}"}


@pytest.mark.parametrize("type_", ResourceType)
async def test_a_type_alone_by_delta(rig, type_):
    rig.server.publish(GATEWAY, [make(type_, "one")])
    client = rig.client(path(type_, "Delta"))
    await client.say(type_, ["one"], gateway=GATEWAY)
    response = await client.get()
    assert (response.type_url, [entry.name for entry in response.resources]) == (type_, ["one"])
    await client.say("", nonce=response.nonce)  # on such a stream the type goes without saying
    await until(lambda: rig.server.nodes()[0].types[0].acknowledged.keys() == {"one"})
    [node] = rig.server.nodes()
    assert (node.stream.service, node.stream.variant) == (type_.short, Variant.DELTA)


@pytest.mark.parametrize("type_", ResourceType)
async def test_a_type_alone_in_the_state_of_the_world(rig, type_):
    rig.server.publish(GATEWAY, [made := make(type_, "one")])
    client = rig.client(path(type_, "Stream"))
    await client.sotw(type_, ["one"], gateway=GATEWAY)
    response = await client.got(DiscoveryResponse)
    assert response.type_url == type_
    assert [entry.value for entry in response.resources] == [made.body]
    [node] = rig.server.nodes()
    assert (node.stream.service, node.stream.variant) == (type_.short, Variant.SOTW)


async def test_all_types_in_the_state_of_the_world(rig):
    client = rig.client(STREAM_ADS)
    await client.sotw(CLUSTER, gateway=GATEWAY)
    clusters = await client.got(DiscoveryResponse)
    await client.sotw(CLUSTER, nonce=clusters.nonce, version=clusters.version_info)
    await client.sotw(LISTENER)
    assert (await client.got(DiscoveryResponse)).type_url == LISTENER
    [node] = rig.server.nodes()
    assert (node.stream.service, node.stream.variant) == ("ads", Variant.SOTW)


@pytest.mark.parametrize("prefix", ["Stream", "Delta"])
async def test_a_type_of_another_service_ends_the_stream(rig, prefix):
    client = rig.client(path(CLUSTER, prefix))
    await (client.say if prefix == "Delta" else client.sotw)(LISTENER, gateway=GATEWAY)
    code, message = await client.end()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert CLUSTER in message


async def test_an_envoy_with_a_stream_for_each_type_gets_all(rig):
    clusters, listeners = rig.client(path(CLUSTER, "Delta")), rig.client(path(LISTENER, "Delta"))
    assert set(await clusters.take(CLUSTER, gateway=GATEWAY)) == {"a"}
    assert set(await listeners.take(LISTENER, gateway=GATEWAY)) == {"http"}
    rig.server.publish(GATEWAY, [make(CLUSTER, "b"), make(LISTENER, "https")])
    assert [entry.name for entry in (await clusters.get()).resources] == ["b"]
    assert [entry.name for entry in (await listeners.get()).resources] == ["https"]


@pytest.mark.parametrize("type_", ResourceType)
async def test_polling_is_not_served(rig, type_):
    call = rig.channel().unary_unary(path(type_, "Fetch"))
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call(b"")
    assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_keepalive_finds_a_client_that_is_gone():
    """A stopped process answers no ping, so that its connection ends within 40 s."""
    options = dict(OPTIONS)
    assert options["grpc.keepalive_time_ms"] + options["grpc.keepalive_timeout_ms"] <= 40_000
