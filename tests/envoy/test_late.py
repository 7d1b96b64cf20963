"""A cluster that cannot warm withholds the ACK of all clusters: it holds up its own routes, and no others for long."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest_asyncio

from tests.support.documents import backend, entrance, isvc, policy, split, to_service
from tests.support.envoy import pick_ports
from tests.support.plane import IRIS, control_plane, gateway
from tests.support.requests import http1
from tests.support.stubs import stub_server
from tests.support.wait import wait_until
from translator import names
from xds.api.envoy.config.cluster.v3 import Cluster
from xds.api.envoy.config.core.v3 import HealthCheck, HealthCheckHttpHealthCheck
from xds.api.envoy.config.endpoint.v3 import ClusterLoadAssignment
from xds.api.envoy.config.listener.v3 import Listener
from xds.api.envoy.config.route.v3 import RouteConfiguration
from xds.api.envoy.extensions.filters.network.http_connection_manager.v3 import HttpConnectionManager
from xds.types import ResourceType
from xds.wire import decode, encode, resource
from xdserve.demo.driver import Traffic, post

STABLE, COLD, WARM = (f"{IRIS}/{name}" for name in ("stable", "cold", "warm"))
OTHER = "gateway/other"
REQUEST = post("iris-models.example.com", "/v1/models/iris:predict", b'{"instances": [1]}')


@pytest_asyncio.fixture
async def mute():
    """The port of a server that takes requests and never answers."""

    async def never(_, __):
        await asyncio.Event().wait()

    async with stub_server(never) as port:
        yield port


@pytest_asyncio.fixture
async def scene(tmp_path, model_servers):
    """A gateway whose requests all go to `stable`, with traffic on it."""

    @asynccontextmanager
    async def start(**how):
        (port,) = pick_ports(1)
        stable = to_service("stable", "iris-predictor")
        async with control_plane(**how) as plane:
            plane.put(isvc(), backend("iris-predictor", model_servers["stable"].port), entrance(port))
            plane.put(policy(backends=[stable], split=split(stable=1)))
            async with gateway(plane, tmp_path, port) as started:
                traffic = Traffic("127.0.0.1", port, REQUEST, connections=4, pause=0.002)
                async with traffic.running():
                    yield started, traffic

    return start


def served(plane, type_, name, message):
    held = plane.server.scope(IRIS).get(type_, name)
    return held, decode(message, held.body)


def cluster(plane, name, port, *, checked=False):
    """A cluster like `stable` and its assignment; `checked` has it wait for a health check that takes a minute."""
    _, made = served(plane, ResourceType.CLUSTER, STABLE, Cluster)
    _, assignment = served(plane, ResourceType.ENDPOINT, STABLE, ClusterLoadAssignment)
    made.name = assignment.cluster_name = name
    assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value = port
    if checked:
        minute = timedelta(minutes=1)
        check = HealthCheckHttpHealthCheck(path="/")
        made.health_checks = [
            HealthCheck(
                timeout=minute, interval=minute, unhealthy_threshold=1, healthy_threshold=1, http_health_check=check
            )
        ]
    encoded = resource(ResourceType.CLUSTER, name, encode(made))
    return [replace(encoded, slow=checked), resource(ResourceType.ENDPOINT, name, encode(assignment))]


def routes(plane, cluster_name, name=IRIS):
    """The routes as they are, but all to one cluster."""
    _, made = served(plane, ResourceType.ROUTE, IRIS, RouteConfiguration)
    made.name = name
    for host in made.virtual_hosts:
        for route in host.routes:
            if route.route is not None:
                route.route.cluster, route.route.weighted_clusters = cluster_name, None
    return resource(ResourceType.ROUTE, name, encode(made), uses=frozenset([cluster_name]))


def listener(plane, port):
    """A second listener like the first, with routes of its own."""
    _, made = served(plane, ResourceType.LISTENER, names.LISTENER, Listener)
    made.name, made.address.socket_address.port_value = OTHER, port
    packed = made.filter_chains[0].filters[0].typed_config
    manager = decode(HttpConnectionManager, packed.value)
    manager.rds.route_config_name = OTHER
    packed.value = encode(manager)
    return resource(ResourceType.LISTENER, OTHER, encode(made))


async def waiting(plane):
    return {name: why for node in plane.server.nodes() for view in node.types for name, why in view.waiting.items()}


async def shares(traffic, requests=200):
    tally = traffic.count()
    await traffic.until(tally, requests=requests)
    return set(tally.shares())


async def test_the_edit_away_from_it_takes_it_back_at_once(scene, model_servers, mute):
    async with scene(patience=600.0) as (started, traffic):
        plane, port = started.plane, model_servers["v2"].port
        plane.server.publish(IRIS, [*cluster(plane, COLD, mute, checked=True), routes(plane, COLD)])
        await wait_until(lambda: waits_for(plane, COLD), 20, "the routes to wait")
        assert await shares(traffic) == {"stable"}
        gone = [(ResourceType.CLUSTER, COLD), (ResourceType.ENDPOINT, COLD)]
        plane.server.publish(IRIS, [*cluster(plane, WARM, port), routes(plane, WARM)], gone)
        await wait_until(plane.programmed, 20, "the edit to be in force")
        await traffic.until(traffic.count(), requests=20)
        assert await shares(traffic) == {"v2"}
        assert COLD not in await started.clusters()
        assert traffic.failed == 0


async def waits_for(plane, name):
    return name in (await waiting(plane)).get(IRIS, "")


async def test_routes_that_do_not_need_it_go_on_when_its_ack_is_late(scene, model_servers, mute):
    async with scene(patience=1.0) as (started, traffic):
        plane, (other,) = started.plane, pick_ports(1)
        plane.server.publish(
            IRIS,
            [
                *cluster(plane, COLD, mute, checked=True),
                *cluster(plane, WARM, model_servers["v2"].port),
                routes(plane, COLD),
                routes(plane, WARM, OTHER),
                listener(plane, other),
            ],
        )

        async def answered():
            try:
                return (await http1(other, "/v1/models/iris")).status == 200
            except OSError:
                return False

        await wait_until(answered, 20, "the routes to the warm cluster")
        assert (await waiting(plane))[IRIS] == f"ACK of cluster {COLD}, which is late"
        assert await shares(traffic) == {"stable"}
        # A later cluster is held up no longer either.
        later = f"{IRIS}/later"
        plane.server.publish(IRIS, [*cluster(plane, later, model_servers["v2"].port), routes(plane, later, OTHER)])
        await wait_until(lambda: used(plane, later), 20, "the routes to a later cluster")
        assert (await http1(other, "/v1/models/iris")).status == 200
        assert traffic.failed == 0


async def used(plane, cluster_name):
    wanted = plane.server.scope(IRIS).get(ResourceType.ROUTE, OTHER)
    (node,) = plane.server.nodes()
    return any(view.acknowledged.get(OTHER) == wanted.version for view in node.types)
