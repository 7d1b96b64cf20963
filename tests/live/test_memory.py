"""What Envoys acknowledged and refused outlives the program: what is refused now is served as it was good."""

from __future__ import annotations

from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from tests.stream.rig import Client
from tests.support.documents import backend, isvc, policy, split
from tests.support.serve import Serve
from tests.support.wait import wait_until
from xds.types import ResourceType

IRIS = "models/iris"
CLUSTERS = ["models/iris/predictor", "models/iris/v2"]
TARGET = isvc(canary=[{"predictor": {"name": "v2"}, "trafficPercent": 10}])
MODELS = [*backend("iris-predictor", 9001), *backend("iris-v2-predictor", 9002)]


def shares(predictor, v2):
    return policy(split=split(predictor=predictor, v2=v2))


@asynccontextmanager
async def envoy(serve):
    """A client of the gateway that has acknowledged all but the routes, which it has asked for."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{serve.port}") as channel:
        client = Client(channel)
        clusters = await client.take(ResourceType.CLUSTER, gateway=IRIS)
        await client.take(ResourceType.ENDPOINT, list(clusters))
        await client.take(ResourceType.LISTENER)
        await client.say(ResourceType.ROUTE, [IRIS])
        yield client


async def routes(client):
    """The next routes that come, and the response to answer."""
    response = await client.get()
    (found,) = response.resources
    assert found.name == IRIS
    return found.version, response


async def refused(serve):
    return await serve.json("/debug/rejections")


@pytest.fixture
def serve(tmp_path):
    with Serve(tmp_path) as program:
        program.write("iris.yaml", TARGET, *MODELS)
        program.write("policy.yaml", shares(80, 20))
        yield program


async def spoiled(serve):
    """One Envoy takes the routes of the policy, and refuses those after an edit; gives the good version."""
    await serve.started()
    async with envoy(serve) as client:
        good, response = await routes(client)
        await client.ack(response)
        serve.write("policy.yaml", shares(50, 50))
        bad, response = await routes(client)
        await client.say(response.type_url, nonce=response.nonce, error="no such thing")
        again, response = await routes(client)
        assert again == good != bad
        await client.ack(response)
        await wait_until(lambda: refused(serve), 20, "the refusal to be known")
        return good


async def restarted(serve, *flags):
    assert serve.child.stop() == 0
    await serve.started(*flags)


async def test_a_refused_edit_is_still_refused_after_a_restart_and_the_good_one_served(serve):
    good = await spoiled(serve)
    await restarted(serve)
    (told,) = await refused(serve)
    assert (told["object"], told["field"], told["served"]) == ("TrafficPolicy models/iris", "spec", good)
    assert "no such thing" in told["message"]
    async with envoy(serve) as newcomer:
        found, response = await routes(newcomer)
        assert found == good
        await newcomer.ack(response)
        serve.write("policy.yaml", shares(60, 40))
        fixed, response = await routes(newcomer)
        assert fixed != good
        await newcomer.ack(response)

        async def forgiven():
            return not await refused(serve)

        await wait_until(forgiven, 20, "the refusal to be over")


async def test_without_a_memory_it_is_tried_again(serve):
    good = await spoiled(serve)
    await restarted(serve, "--no-last-good")
    async with envoy(serve) as newcomer:
        found, _ = await routes(newcomer)
        assert found != good
        assert await refused(serve) == []


async def test_a_service_that_went_while_nobody_ran_is_forgotten(serve):
    await spoiled(serve)
    assert serve.child.stop() == 0
    (serve.objects / "policy.yaml").unlink()
    (serve.objects / "iris.yaml").unlink()
    serve.write("wine.yaml", isvc("wine"), *backend("wine-predictor", 9003))
    await serve.started()
    assert await refused(serve) == []
    await restarted(serve)
    serve.write("policy.yaml", shares(50, 50))
    serve.write("iris.yaml", TARGET, *MODELS)
    async with envoy(serve) as newcomer:
        _, response = await routes(newcomer)
        await newcomer.ack(response)
        assert await refused(serve) == []
