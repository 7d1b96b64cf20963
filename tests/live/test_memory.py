"""What Envoys acknowledged and refused, and the policies in force, outlive the program.

What is refused now, by Envoys or by the program itself, is served as it was good.
"""

from __future__ import annotations

from contextlib import asynccontextmanager

import aiohttp
import grpc
import grpc.aio
import pytest
import yaml

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


async def in_force(serve, share=50):
    """The program has run with a policy; gives the versions, and those without one."""
    (serve.objects / "policy.yaml").unlink()
    await serve.started()
    without = await serve.versions()
    serve.write("policy.yaml", shares(100 - share, share))

    async def applied():
        return await serve.versions() != without

    await wait_until(applied, 20, "the policy to be applied")
    return await serve.versions(), without


async def said(serve):
    """File, object and field of all that is wrong."""
    return [(one["source"]["file"], one["object"], one["field"]) for one in await serve.errors()]


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


async def test_what_was_refused_is_sent_once_more_on_request(serve):
    good = await spoiled(serve)
    async with envoy(serve) as newcomer:
        found, response = await routes(newcomer)
        assert found == good
        await newcomer.ack(response)
        url = f"http://127.0.0.1:{serve.admin}/debug/retry?gateway={IRIS}"
        async with aiohttp.ClientSession() as session, session.post(url) as answer:
            assert await answer.json() == {"retried": 1}
        found, response = await routes(newcomer)
        assert found != good
        await newcomer.ack(response)
        assert await refused(serve) == []


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


POLICY = "TrafficPolicy models/iris"
NO_NUMBER = policy(split=[{"backend": "predictor", "weight": "half"}, {"backend": "v2", "weight": 50}])
NO_BACKEND = policy(split=split(predictor=50, v9=50))
MISTAKES = {
    "a bad weight": (yaml.safe_dump(NO_NUMBER), (POLICY, "spec.split[0].weight")),
    "no YAML": ("spec: [half", (None, "")),
    "an empty file": ("", (None, "")),
    "an unknown backend": (yaml.safe_dump(NO_BACKEND), (POLICY, "spec.split[1].backend")),
}


@pytest.fixture(params=MISTAKES)
async def mistaken(serve, request):
    """A policy was in force, and its file was spoilt while nobody ran; gives the versions before."""
    text, where = MISTAKES[request.param]
    before = await in_force(serve)
    assert serve.child.stop() == 0
    serve.write_text("policy.yaml", text)
    return before, [("policy.yaml", *where)]


async def test_a_policy_that_is_invalid_at_the_start_is_replaced_by_the_last_valid_one(serve, mistaken):
    (before, without), wrong = mistaken
    for _ in range(2):
        await serve.started()
        assert await serve.versions() == before
        assert await said(serve) == wrong
        assert serve.child.stop() == 0
    await serve.started()
    serve.write("policy.yaml", shares(60, 40))

    async def mended():
        return not await serve.errors()

    await wait_until(mended, 20, "the error to be over")
    assert await serve.versions() not in (before, without)


async def test_without_a_memory_its_service_is_served_by_its_own_fields(serve, mistaken):
    (_, without), wrong = mistaken
    await serve.started("--no-last-good")
    assert await serve.versions() == without
    assert await said(serve) == wrong


async def test_a_policy_that_is_gone_at_the_start_does_not_come_back(serve):
    _, without = await in_force(serve)
    assert serve.child.stop() == 0
    (serve.objects / "policy.yaml").unlink()
    serve.write_text("other.yaml", "spec: [half")
    await serve.started()
    assert await serve.versions() == without
    serve.write("policy.yaml", NO_NUMBER)
    await wait_until(lambda: _tells(serve, "policy.yaml"), 20, "the mistake to be told")
    assert await serve.versions() == without
    await restarted(serve)
    assert await serve.versions() == without


async def test_a_policy_whose_unreadable_file_goes_goes_with_it(serve):
    before, without = await in_force(serve)
    assert serve.child.stop() == 0
    serve.write_text("policy.yaml", "spec: [half")
    await serve.started()
    assert await serve.versions() == before
    (serve.objects / "policy.yaml").unlink()

    async def gone():
        return await serve.versions() == without

    await wait_until(gone, 20, "the policy to be gone")
    await restarted(serve)
    assert await serve.versions() == without


async def test_a_policy_is_remembered_where_it_was_moved_to(serve):
    before, _ = await in_force(serve)
    (serve.objects / "policy.yaml").rename(serve.objects / "moved.yaml")
    serve.write("twin.yaml", shares(50, 50))

    async def seen():
        return any("already in moved.yaml" in one["message"] for one in await serve.errors())

    await wait_until(seen, 20, "the move to be seen")
    assert serve.child.stop() == 0
    (serve.objects / "twin.yaml").unlink()
    serve.write_text("moved.yaml", "spec: [half")
    await serve.started()
    assert await serve.versions() == before


async def _tells(serve, file):
    return any(one[0] == file for one in await said(serve))


@asynccontextmanager
async def waiting(serve):
    """A client of a gateway that no service makes, which is not answered."""

    async def connected():
        return bool(await serve.json("/debug/nodes")) is expected

    async with grpc.aio.insecure_channel(f"127.0.0.1:{serve.port}") as channel:
        client, expected = Client(channel), True
        await client.say(ResourceType.CLUSTER, gateway=IRIS)
        await wait_until(connected, 20, "the request to be there")
        yield client
        client.call.cancel()
        expected = False
        await wait_until(connected, 20, "the client to be gone")


async def test_a_service_that_is_broken_at_the_start_leaves_its_envoys_what_they_have(serve):
    """Nothing says what it is to be: nobody is answered, and nothing is forgotten."""
    good = await spoiled(serve)
    assert serve.child.stop() == 0
    serve.write("iris.yaml", isvc(canary="v2"), *MODELS)
    serve.write("policy.yaml", NO_BACKEND)
    await serve.started()
    await restarted(serve)
    async with waiting(serve):
        pass  # one that comes and goes takes nothing with it
    await restarted(serve)
    async with waiting(serve) as client:
        serve.write("iris.yaml", TARGET, *MODELS)
        response = await client.get()
        assert sorted(one.name for one in response.resources) == CLUSTERS
        await client.ack(response)
        await client.take(ResourceType.ENDPOINT, CLUSTERS)
        await client.take(ResourceType.LISTENER)
        await client.say(ResourceType.ROUTE, [IRIS])
        found, _ = await routes(client)
        assert found == good
        (told,) = await refused(serve)
        assert (told["object"], told["served"]) == (POLICY, good)
