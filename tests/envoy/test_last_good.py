"""Three Envoys of one gateway, and a version that Envoy refuses, put in below all checks: it harms nobody.

All three go on with the last good version, one that comes later gets it too, who looks is told the object and its
field, and the fix reaches all four.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from tests.support.certificates import Authority
from tests.support.documents import backend, entrance, isvc, policy, split, to_service
from tests.support.envoy import pick_ports
from tests.support.plane import IRIS, control_plane, gateway
from tests.support.wait import wait_until
from translator import names
from xds.api.envoy.config.cluster.v3 import Cluster, ClusterLbPolicy
from xds.api.envoy.config.core.v3 import AggregatedConfigSource, ConfigSource, DataSource, TransportSocket
from xds.api.envoy.config.listener.v3 import Listener
from xds.api.envoy.config.route.v3 import RouteConfiguration
from xds.api.envoy.extensions.filters.network.http_connection_manager.v3 import HttpConnectionManager
from xds.api.envoy.extensions.transport_sockets.tls.v3 import (
    CommonTlsContext,
    DownstreamTlsContext,
    SdsSecretConfig,
    Secret,
    TlsCertificate,
)
from xds.api.google.protobuf import Any as Packed
from xds.server import Consent
from xds.types import ResourceType
from xds.wire import decode, encode, resource
from xdserve.demo.driver import Traffic, post

STABLE = f"{IRIS}/stable"
BACKENDS = [to_service("stable", "iris-predictor"), to_service("v2", "iris-v2-predictor")]
TESTERS = {"headers": [{"name": "x-tester", "type": "RegularExpression", "value": "a+"}]}
RULES = [{"name": "testers", "matches": [TESTERS], "split": split(v2=1)}]
REQUEST = post("iris-models.example.com", "/v1/models/iris:predict", b'{"instances": [1]}')


def bad_expression(message):
    [testers] = [route for route in message.virtual_hosts[0].routes if route.name == "testers"]
    testers.match.headers[0].string_match.safe_regex.regex = "(unbalanced"


def policy_that_is_missing(message):
    message.lb_policy = ClusterLbPolicy.LOAD_BALANCING_POLICY_CONFIG


def timeout_of_zero(message):
    """A rule of the message itself: Envoy takes nothing of such a response, and names no cluster."""
    message.connect_timeout = timedelta()


def no_router(message):
    """Filters without an end."""
    packed = message.filter_chains[0].filters[0].typed_config
    manager = decode(HttpConnectionManager, packed.value)
    manager.http_filters.pop()
    packed.value = encode(manager)


def one_more_route(message):
    message.response_headers_to_remove.append("x-fixed")


def larger_buffer(message):
    message.per_connection_buffer_limit_bytes = 1 + (message.per_connection_buffer_limit_bytes or 1 << 20)


@dataclass(frozen=True)
class Case:
    """A type, a resource of it, what spoils it, what Envoy says of that, and a change that it takes."""

    type: ResourceType
    name: str
    message: Any
    spoil: Any
    words: str
    change: Any
    dump: str
    fields: tuple[str, str] = field(default=("TrafficPolicy models/iris", "spec"))


CLUSTERS = ("TrafficPolicy models/iris", "spec.backends[0].ref")
LISTENERS = ("ServiceGateway models/iris", "spec")
CASES = {
    "routes": Case(
        ResourceType.ROUTE, IRIS, RouteConfiguration, bad_expression, "missing )", one_more_route, "route_configs"
    ),
    "cluster": Case(
        ResourceType.CLUSTER, STABLE, Cluster, policy_that_is_missing, "load_balancing_policy", larger_buffer,
        "clusters", CLUSTERS,
    ),
    "cluster-against-the-rules": Case(
        ResourceType.CLUSTER, STABLE, Cluster, timeout_of_zero, "ConnectTimeout", larger_buffer, "clusters", CLUSTERS
    ),
    "listener": Case(
        ResourceType.LISTENER, names.LISTENER, Listener, no_router, "terminal filter", larger_buffer, "listeners",
        LISTENERS,
    ),
}  # fmt: skip


def publish(plane, case, change):
    """Publish the resource as it is served, but for a change, below all checks; gives the version."""
    served = plane.server.scope(IRIS).get(case.type, case.name)
    message = decode(case.message, served.body)
    change(message)
    made = resource(case.type, case.name, encode(message), uses=served.uses, origin=served.origin)
    plane.server.publish(IRIS, [made])
    return made.version


@pytest_asyncio.fixture
async def models(model_servers):
    stable, v2 = model_servers["stable"].port, model_servers["v2"].port
    return [*backend("iris-predictor", stable), *backend("iris-v2-predictor", v2)]


async def refused_by(plane, count, case):
    """Wait until what was refused is known, and nothing of it is under way any more."""

    async def calm():
        return bool(plane.server.rejections(IRIS)) and plane.programmed(IRIS)

    await wait_until(calm, 20, "the refusal to be known and undone")
    assert 1 <= plane.rejections()[case.type.short] <= count


@pytest.mark.parametrize("name", CASES)
async def test_a_refused_version_harms_nobody(tmp_path, models, name):
    case, (port,) = CASES[name], pick_ports(1)
    start = policy(backends=BACKENDS, split=split(stable=1, v2=0), rules=RULES)
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(control_plane())
        plane.put(isvc(), models, start, entrance(port))
        envoys = AsyncExitStack()
        await stack.enter_async_context(envoys)
        three = [
            await envoys.enter_async_context(gateway(plane, tmp_path, port, label=f"envoy-{number}"))
            for number in range(3)
        ]
        good = plane.scope_version(case.type, case.name)
        traffic = Traffic("127.0.0.1", port, REQUEST, connections=4, pause=0.002)
        async with traffic.running():
            bad = publish(plane, case, case.spoil)
            await refused_by(plane, 3, case)
            (told,) = plane.server.rejections(IRIS)
            assert (told.type, told.name, told.refusal.version, told.served) == (case.type, case.name, bad, good)
            assert case.words in told.refusal.message
            assert (str(told.origin.object), told.origin.field) == case.fields
            for one in three:
                assert (await one.envoy.versions(case.dump))[case.name] == good
            fourth = await stack.enter_async_context(gateway(plane, tmp_path, port, label="envoy-3"))
            assert (await fourth.envoy.versions(case.dump))[case.name] == good
            assert plane.rejections()[case.type.short] <= 3
            fixed = publish(plane, case, case.change)
            await fourth.settled()
            assert plane.server.acknowledged(IRIS, case.type, case.name, fixed) is Consent.ALL
            for one in (*three, fourth):
                assert (await one.envoy.versions(case.dump))[case.name] == fixed
        assert plane.server.rejections(IRIS) == ()
        assert traffic.failed == 0
        await envoys.aclose()
        assert (await fourth.ask()).status == 200


# -- Secrets -------------------------------------------------------------------------------------------------------

CERTIFICATE = "gateway/certificate"


def secret(pair):
    """The certificate of the listener, as SDS has it."""
    made = Secret(
        name=CERTIFICATE,
        tls_certificate=TlsCertificate(
            certificate_chain=DataSource(inline_bytes=pair.certificate), private_key=DataSource(inline_bytes=pair.key)
        ),
    )
    return resource(ResourceType.SECRET, CERTIFICATE, encode(made), origin="Secret models/certificate")


def with_tls(plane):
    """The gateway's listener with its certificate by SDS."""
    served = plane.server.scope(IRIS).get(ResourceType.LISTENER, names.LISTENER)
    message = decode(Listener, served.body)
    source = ConfigSource(ads=AggregatedConfigSource(), resource_api_version=2)
    context = DownstreamTlsContext(
        common_tls_context=CommonTlsContext(
            tls_certificate_sds_secret_configs=[SdsSecretConfig(name=CERTIFICATE, sds_config=source)]
        )
    )
    kind = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    message.filter_chains[0].transport_socket = TransportSocket(
        name="envoy.transport_sockets.tls",
        typed_config=Packed(type_url=f"type.googleapis.com/{kind}", value=encode(context)),
    )
    return resource(ResourceType.LISTENER, names.LISTENER, encode(message), origin=served.origin)


async def test_a_refused_secret_harms_nobody(tmp_path, models):
    authority, (port,) = Authority("test"), pick_ports(1)
    good, fixed = secret(authority.server()), secret(authority.server())
    bad = secret(replace(authority.server(), certificate=b"no certificate"))
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(control_plane())
        plane.put(isvc(), models, entrance(port))
        plane.server.publish(IRIS, [with_tls(plane), good])
        envoys = [
            await stack.enter_async_context(gateway(plane, tmp_path, port, label=f"envoy-{number}"))
            for number in range(3)
        ]
        plane.server.publish(IRIS, [bad])
        await wait_until(lambda: plane.server.rejections(IRIS), 20, "the secret to be refused")
        await wait_until(lambda: plane.programmed(IRIS), 20, "the good one to be taken again")
        (told,) = plane.server.rejections(IRIS)
        assert (told.type, told.refusal.version, told.served) == (ResourceType.SECRET, bad.version, good.version)
        envoys.append(await stack.enter_async_context(gateway(plane, tmp_path, port, label="envoy-3")))
        assert await presented(envoys) == {good.version}
        plane.server.publish(IRIS, [fixed])
        await wait_until(lambda: plane.programmed(IRIS), 20, "the new one to be taken")
        assert plane.server.rejections(IRIS) == ()
        assert await presented(envoys) == {fixed.version}


async def presented(envoys):
    """The versions of the secret that Envoys have."""
    found = [entry for one in envoys for entry in await one.dump("dynamic_active_secrets")]
    assert len(found) == len(envoys), found
    return {entry["version_info"] for entry in found}
