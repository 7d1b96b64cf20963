"""A version that Envoy refuses does no harm; and what one gateway gets is no matter of another's."""

from __future__ import annotations

import aiohttp
import pytest_asyncio

from tests.support.documents import backend, endpoints, entrance, isvc, policy, split, to_service
from tests.support.envoy import pick_ports
from tests.support.plane import IRIS, control_plane, gateway, serving
from tests.support.wait import wait_until
from xds.api.envoy.config.route.v3 import RouteConfiguration
from xds.types import ResourceType
from xds.wire import decode, encode, resource
from xdserve.demo.driver import Traffic, post

BACKENDS = [to_service("stable", "iris-predictor"), to_service("v2", "iris-v2-predictor")]
REQUEST = post("iris-models.example.com", "/v1/models/iris:predict", b'{"instances": [1]}')
BAD_EXPRESSION = "(unbalanced"


def for_testers(expression):
    matches = [{"headers": [{"name": "x-tester", "type": "RegularExpression", "value": expression}]}]
    return {"name": "testers", "matches": matches, "split": split(v2=1)}


def shares(stable, v2, rules=()):
    return policy(backends=BACKENDS, split=split(stable=stable, v2=v2), rules=list(rules))


@pytest_asyncio.fixture
async def models(model_servers):
    stable, v2 = model_servers["stable"].port, model_servers["v2"].port
    return [*backend("iris-predictor", stable), *backend("iris-v2-predictor", v2)]


def publish_bad_routes(plane):
    """Publish, past all checks, the present routes with an expression that Envoy refuses; gives the version."""
    good = plane.server.scope(IRIS).get(ResourceType.ROUTE, IRIS)
    message = decode(RouteConfiguration, good.body)
    [testers] = [route for route in message.virtual_hosts[0].routes if route.name == "testers"]
    testers.match.headers[0].string_match.safe_regex.regex = BAD_EXPRESSION
    bad = resource(ResourceType.ROUTE, IRIS, encode(message), uses=good.uses, origin=good.origin)
    plane.server.publish(IRIS, [bad])
    return bad.version


async def debug(plane, path):
    """What an admin endpoint says."""
    async with (
        plane.admin() as address,
        aiohttp.ClientSession() as session,
        session.get(f"http://{address}{path}") as answer,
    ):
        return await answer.json()


async def test_a_refused_version_is_told_not_repeated_and_replaced_by_the_next(tmp_path, models, model_servers):
    start = shares(100, 0, [for_testers("a+")])
    async with serving(tmp_path, isvc(), models, start, entrance) as started:
        plane, tester = started.plane, [("x-tester", "aa")]
        good = plane.scope_version(ResourceType.ROUTE)
        traffic = Traffic("127.0.0.1", started.port, REQUEST, connections=2, pause=0.002)
        async with traffic.running():
            bad = publish_bad_routes(plane)
            await wait_until(lambda: plane.rejections()["rds"] == 1, 20, "Envoy to refuse the routes")
            sent = plane.sent()
            # Envoy keeps what it has, and all rules of it.
            assert (await started.envoy.versions("route_configs"))[IRIS] == good
            assert await started.variant(headers=tester) == "v2"
            assert await started.variant() == "stable"
            # Who looks is told, in Envoy's words.
            (rejection,) = plane.server.rejections(IRIS)
            assert (rejection.refusal.version, rejection.served) == (bad, good)
            assert BAD_EXPRESSION in rejection.refusal.message
            listed = {one["object"]: one["conditions"] for one in await debug(plane, "/debug/status")}
            programmed = listed[f"TrafficPolicy {IRIS}"][-1]
            assert (programmed["type"], programmed["reason"]) == ("Programmed", "Rejected")
            assert "missing )" in programmed["message"]
            (error,) = await debug(plane, "/debug/errors")
            assert (error["object"], error["field"], error["reason"]) == (f"TrafficPolicy {IRIS}", "spec", "Rejected")
            assert "missing )" in error["message"]
            # The same content is not sent again, neither by itself nor beside another edit.
            assert publish_bad_routes_again(plane) == bad
            plane.put(endpoints("iris-v2-predictor", model_servers["stable"].port, number=7))
            await wait_until(lambda: plane.sent()["eds"] > sent["eds"], 20, "the endpoints to be sent")
            assert plane.sent()["rds"] == sent["rds"]
            # A good one is taken.
            await started.edit(shares(100, 0, [for_testers("b+")]))
            assert await started.variant(headers=tester) == "stable"
            assert plane.rejections()["rds"] == 1
            assert plane.server.rejections(IRIS) == ()
            assert await debug(plane, "/debug/errors") == []
            assert traffic.failed == 0


def publish_bad_routes_again(plane):
    """Publish once more what is there."""
    same = plane.server.scope(IRIS).wanted(ResourceType.ROUTE, IRIS)
    plane.server.publish(IRIS, [same])
    return same.version


async def test_an_edit_to_one_gateway_sends_nothing_to_another(tmp_path, model_servers):
    first, second = pick_ports(2)
    stable, v2 = model_servers["stable"].port, model_servers["v2"].port
    async with control_plane() as plane:
        plane.put(isvc(), backend("iris-predictor", stable), backend("iris-v2-predictor", v2), entrance(first))
        plane.put(isvc("wine"), backend("wine-predictor", v2), entrance(second, "wine"), shares(9, 1))
        async with (
            gateway(plane, tmp_path, first) as iris,
            gateway(plane, tmp_path, second, name="models/wine", label="wine") as wine,
        ):
            assert await wine.variant(host="wine-models.example.com") == "v2"
            pattern = "^(cluster_manager.cds|listener_manager.lds|http.gateway.rds.*|cluster.*).update_attempt$"
            seen, before = await wine.envoy.stats(pattern), plane.sent()
            for number in range(1, 6):
                await iris.edit(shares(10 - number, number))
            await iris.edit(shares(1, 1), endpoints("iris-predictor", v2, number=number))
            # One is what there was; the Service is two backends', the target's own and the policy's.
            assert plane.sent() - before == {"rds": 5, "eds": 2}
            assert await wine.envoy.stats(pattern) == seen
            iris.plane.remove(isvc())
            await iris.settled()
            assert (await iris.ask()).status == 404
            assert await wine.variant() == "v2"
            assert await wine.envoy.stats(pattern) == seen


async def test_every_envoy_of_a_gateway_gets_an_edit(tmp_path, models):
    """Two on one port, as Linux allows it: a connection goes to either."""
    (port,) = pick_ports(1)
    async with control_plane() as plane:
        plane.put(isvc(), models, shares(100, 0), entrance(port))
        async with gateway(plane, tmp_path, port) as one, gateway(plane, tmp_path, port, label="two") as two:
            for kind in ("listeners", "clusters", "endpoint_configs", "route_configs"):
                assert await one.envoy.versions(kind) == await two.envoy.versions(kind) != {}, kind
            before = plane.sent()
            await one.edit(shares(0, 100))
            assert plane.sent() - before == {"rds": 2}
            assert {await one.variant() for _ in range(40)} == {"v2"}
            assert await one.envoy.versions("route_configs") == await two.envoy.versions("route_configs")
