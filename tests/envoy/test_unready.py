"""What a gateway does for backends that cannot serve, and says of itself."""

from __future__ import annotations

import json

import pytest

from tests.support.documents import backend, endpoints, entrance, isvc, policy, service, split, to_service
from tests.support.plane import IRIS, serving
from tests.support.wait import wait_until
from xds.types import ResourceType

STABLE = to_service("stable", "iris-predictor")
V2 = to_service("v2", "iris-v2-predictor")


async def probes(gateway):
    """What /healthz and /readyz answer."""
    return [(await gateway.ask(path)).status for path in ("/healthz", "/readyz")]


async def unavailable(gateway, reason="NoBackendReady", **how):
    """Check that the answer is a 503 which programs and people can read; its words."""
    reply = await gateway.ask(**how)
    error = json.loads(reply.body)["error"]
    assert (reply.status, reply.header("content-type")) == (503, "application/json")
    assert (error["code"], error["reason"]) == (503, reason)
    return error["message"], reply.header("retry-after")


async def answers(gateway, count=40):
    """Who answers some requests, or with which status a request fails."""
    replies = [await gateway.ask() for _ in range(count)]
    return {reply.header("x-variant") or reply.status for reply in replies}


@pytest.fixture
def models(model_servers):
    """The documents of both models' Services."""
    stable, v2 = model_servers["stable"].port, model_servers["v2"].port
    return [*backend("iris-predictor", stable), *backend("iris-v2-predictor", v2)]


async def test_kserves_canary_that_is_not_ready_gives_its_share_back(tmp_path, model_servers):
    canary = {"predictor": {"name": "v2"}, "trafficPercent": 50}
    stable, v2 = model_servers["stable"].port, model_servers["v2"].port
    models = [*backend("iris-predictor", stable), service("iris-v2-predictor")]
    ready = endpoints("iris-v2-predictor", v2)

    def said(**status):
        return isvc(canary=[canary], status={"canaryStatuses": [{"name": "v2", **status}]})

    async with serving(tmp_path, said(ready=True), models, entrance) as gateway:
        assert await answers(gateway) == {"stable"}
        await gateway.edit(ready)
        assert await answers(gateway) == {"stable", "v2"}
        await gateway.edit(said(ready=False))
        assert await answers(gateway) == {"stable"}
        await gateway.edit(said(ready=True))
        assert await answers(gateway) == {"stable", "v2"}
        gateway.plane.remove(ready)
        await gateway.settled()
        assert await answers(gateway) == {"stable"}


async def test_a_backend_without_endpoints_gives_its_share_to_the_others(tmp_path, models, model_servers):
    made = policy(backends=[STABLE, V2], split=split(stable=1, v2=99))
    v2 = model_servers["v2"].port
    async with serving(tmp_path, isvc(), models, made, entrance) as gateway:
        assert "v2" in await answers(gateway)
        await gateway.edit(endpoints("iris-v2-predictor", v2, ready=False))
        assert await answers(gateway) == {"stable"}
        (found,) = [dated.entry for dated in gateway.plane.ledger]
        assert (str(found.object), found.field, found.reason) == (
            "TrafficPolicy models/iris", "spec.backends[1].ref", "BackendNotReady",
        )  # fmt: skip
        await gateway.edit(endpoints("iris-v2-predictor", v2))
        assert "v2" in await answers(gateway)
        assert not list(gateway.plane.ledger)


async def test_without_any_backend_the_gateway_says_so_and_when_to_come_again(tmp_path, model_servers):
    stable = model_servers["stable"].port
    async with serving(tmp_path, isvc(), service("iris-predictor"), entrance) as gateway:
        assert await unavailable(gateway) == ("no backend of iris is ready", "5")
        assert await probes(gateway) == [200, 503]
        await gateway.edit(endpoints("iris-predictor", stable))
        assert await gateway.variant() == "stable"
        assert await probes(gateway) == [200, 200]


async def test_a_gateway_comes_up_before_its_service_has_anything(tmp_path):
    async with serving(tmp_path, isvc(), entrance) as gateway:
        await unavailable(gateway)
        assert await probes(gateway) == [200, 503]


async def test_a_backend_that_keeps_its_share_answers_503(tmp_path, models, model_servers):
    keeping = {**V2, "whenUnready": "Fail"}
    testers = {"name": "testers", "matches": [{"headers": [{"name": "x-tester", "value": "1"}]}], "split": split(v2=1)}
    made = policy(backends=[STABLE, keeping], split=split(stable=1, v2=1), rules=[testers])
    async with serving(tmp_path, isvc(), models, made, entrance) as gateway:
        assert await answers(gateway) == {"stable", "v2"}
        await gateway.edit(endpoints("iris-v2-predictor", model_servers["v2"].port, ready=False))
        assert await answers(gateway) == {"stable", 503}
        _, retry_after = await unavailable(gateway, "BackendFailed", headers=[("x-tester", "1")])
        assert retry_after == "5"
        assert await probes(gateway) == [200, 200]


async def test_weights_of_nought_get_nothing(tmp_path, models):
    made = policy(backends=[STABLE, V2], split=split(stable=1, v2=0))
    async with serving(tmp_path, isvc(), models, made, entrance) as gateway:
        assert await answers(gateway) == {"stable"}
        await gateway.edit(policy(backends=[STABLE, V2], split=split(stable=0, v2=0)))
        await unavailable(gateway)


async def test_a_fallback_serves_while_nothing_before_it_is_ready(tmp_path, models, model_servers):
    shares = [{"backend": "stable", "weight": 1}, {"backend": "v2", "weight": 1, "priority": 1}]
    async with serving(tmp_path, isvc(), models, policy(backends=[STABLE, V2], split=shares), entrance) as gateway:
        stable = model_servers["stable"].port
        assert await answers(gateway) == {"stable"}
        await gateway.edit(endpoints("iris-predictor", stable, ready=False))
        assert await answers(gateway) == {"v2"}
        await gateway.edit(endpoints("iris-predictor", stable))
        assert await answers(gateway) == {"stable"}


async def test_a_rule_may_claim_the_gateways_own_paths(tmp_path, models):
    async with serving(tmp_path, isvc(), models, entrance) as gateway:
        assert (await gateway.ask("/healthz")).header("x-variant") is None
        mine = {"name": "mine", "matches": [{"path": {"value": "/healthz"}}], "split": split(v2=1)}
        await gateway.edit(policy(backends=[STABLE, V2], rules=[mine]))
        assert await gateway.variant("/healthz") == "v2"
        assert (await gateway.ask("/readyz")).header("x-variant") is None


async def test_a_stopped_service_says_that_it_is_stopped(tmp_path, models):
    async with serving(tmp_path, isvc(), models, entrance) as gateway:
        await gateway.edit(isvc(annotations={"serving.kserve.io/stop": "true"}))
        message, retry_after = await unavailable(gateway, "Stopped")
        assert (message, retry_after) == ("iris is stopped", "5")
        assert await probes(gateway) == [200, 503]
        await gateway.edit(isvc())
        assert await gateway.variant() == "stable"


async def test_a_gateway_whose_service_is_deleted_answers_404_until_it_is_back(tmp_path, models):
    async with serving(tmp_path, isvc(), models, entrance) as gateway:
        gateway.plane.remove(isvc())
        await gateway.settled()
        reply = await gateway.ask()
        assert (reply.status, json.loads(reply.body)["error"]["reason"]) == (404, "NotFound")

        async def has_no_clusters():
            return not await gateway.clusters()

        await wait_until(has_no_clusters, 20, "the clusters to go")
        assert gateway.plane.server.scope(IRIS).get(ResourceType.LISTENER, "gateway/http")
        await gateway.edit(isvc())
        assert await gateway.variant() == "stable"


async def test_an_older_rival_of_the_same_name_keeps_the_gateway(tmp_path, models, model_servers):
    """A Service of the target's own name with a policy does not take the gateway over."""
    first = isvc()
    first["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    rival = service("iris")
    rival["metadata"]["creationTimestamp"] = "2026-02-01T00:00:00Z"
    slices = endpoints("iris", model_servers["v2"].port)
    async with serving(tmp_path, first, models, entrance) as gateway:
        for_rival = [policy("iris", "Service"), entrance(gateway.port, "iris", "Service")]
        for document in for_rival:
            document["metadata"]["name"] = "rival"
        await gateway.edit(rival, slices, *for_rival)
        assert await gateway.variant() == "stable"
        assert "Conflicted" in {dated.entry.reason for dated in gateway.plane.ledger}
        gateway.plane.remove(first)
        await gateway.settled()
        assert await gateway.variant() == "v2"
