"""Edits of every kind while requests and streams run: nothing fails, nothing is cut, the listener stays."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest_asyncio

from tests.support.documents import backend, endpoints, entrance, isvc, policy, service, split, to_service
from tests.support.envoy import pick_ports
from tests.support.models import model_server
from tests.support.plane import serving
from tests.support.stubs import EventStream, Streamer, stub_server
from tests.support.wait import wait_until
from xdserve.demo.driver import Traffic, post

STABLE = to_service("stable", "iris-predictor")
V2 = to_service("v2", "iris-v2-predictor")
STREAM = to_service("stream", "iris-stream")
REQUEST = post("iris-models.example.com", "/v1/models/iris:predict", b'{"instances": [1]}')
TO_STREAM = {"name": "stream", "matches": [{"path": {"value": "/stream"}}], "split": split(stream=1)}


def edited(*, backends=(STABLE, V2), rules=(), **spec):
    """The policy, which always has the rule for the stream."""
    return policy(backends=[*backends, STREAM], rules=[TO_STREAM, *rules], **spec)


def for_testers(name):
    """A rule that gives testers one backend."""
    matches = [{"headers": [{"name": "x-tester", "value": "1"}]}]
    return {"name": "testers", "matches": matches, "split": [{"backend": name, "weight": 1}]}


@pytest_asyncio.fixture
async def stable_ports():
    """Three model servers that can be endpoints of one backend."""
    async with AsyncExitStack() as stack:
        yield [(await stack.enter_async_context(model_server("stable"))).port for _ in range(3)]


def weights():
    """Twelve shares, from one end to the other."""
    for v2 in (0, 1, 5, 10, 25, 50, 75, 90, 99, 100, 50, 10):
        yield [edited(split=split(stable=100 - v2, v2=v2))]


def rules():
    """Rules come, change their order and their conditions, and go."""
    paths = {"name": "paths", "matches": [{"path": {"value": "/v2"}}], "split": split(v2=1)}
    for listed in ([for_testers("v2")], [for_testers("v2"), paths], [paths, for_testers("v2")], [paths], []):
        yield [edited(split=split(stable=9, v2=1), rules=listed)]
    yield [edited(split=split(stable=9, v2=1), sticky={"by": "Cookie", "ttl": "1h"})]
    yield [edited(split=split(stable=9, v2=1), timeouts={"request": "30s"})]


def backends():
    """A backend goes, comes back, and is renamed with its rule."""
    renamed = to_service("canary", "iris-v2-predictor")
    yield [edited(backends=[STABLE], split=split(stable=1))]
    yield [edited(split=split(stable=1, v2=1))]
    yield [edited(backends=[STABLE, renamed], split=split(stable=1, canary=1), rules=[for_testers("canary")])]
    yield [edited(split=split(stable=1, v2=1), rules=[for_testers("v2")])]


def scale(ports):
    """One endpoint becomes three and one again; the one that stays is another."""
    listed = [endpoints("iris-predictor", port, number=at) for at, port in enumerate(ports)]
    unready = [endpoints("iris-predictor", port, number=at, ready=False) for at, port in enumerate(ports)]
    yield [listed[1]]
    yield [listed[2]]
    yield [unready[0]]
    yield [unready[1]]
    yield [listed[0]]
    yield [unready[1], unready[2]]


def readiness(port):
    """The other backend loses its only endpoint and gets it back, twice."""
    for ready in (False, True, False, True):
        yield [endpoints("iris-v2-predictor", port, ready=ready)]


async def listeners(gateway):
    """Version and date of each listener, as Envoy says them."""
    dump = await gateway.dump("dynamic_listeners")
    return [(one["active_state"]["version_info"], one["active_state"]["last_updated"]) for one in dump]


async def test_edits_of_every_kind_fail_no_request_and_cut_no_stream(tmp_path, model_servers, stable_ports):
    streamer, v2 = Streamer(), model_servers["v2"].port
    async with AsyncExitStack() as stack:
        models = [*backend("iris-v2-predictor", v2), service("iris-predictor"), service("iris-stream")]
        models += [endpoints("iris-predictor", stable_ports[0])]
        models += [endpoints("iris-stream", await stack.enter_async_context(stub_server(streamer.handle)))]
        start = edited(split=split(stable=9, v2=1))
        gateway = await stack.enter_async_context(serving(tmp_path, isvc(), models, start, entrance))
        traffic = await stack.enter_async_context(
            Traffic("127.0.0.1", gateway.port, REQUEST, connections=6, pause=0.001).running()
        )
        stream = await EventStream.open(gateway.port, "/stream")
        stack.callback(stream.close)
        before = await listeners(gateway)
        assert len(before) == 1
        edits = [*weights(), *rules(), *backends(), *scale(stable_ports), *readiness(v2), *weights()]
        assert len(edits) >= 30
        for number, documents in enumerate(edits):
            tally = traffic.count()
            await gateway.edit(*documents)
            streamer.send(number)
            assert await stream.event() == str(number)
            await traffic.until(tally, requests=20)
            assert traffic.failed == 0, documents
        streamer.finish()
        assert await stream.event() == ""
        assert await listeners(gateway) == before
        assert gateway.plane.rejections().total() == 0
        assert gateway.plane.sent()["lds"] == 1


async def test_a_stream_outlives_its_own_backend(tmp_path, model_servers):
    """A running answer ends when the model ends it, also when nothing new goes there any more."""
    streamer = Streamer()
    async with stub_server(streamer.handle) as port:
        models = [*backend("iris-predictor", model_servers["stable"].port), *backend("iris-stream", port)]
        rule = {"name": "stream", "matches": [{"path": {"value": "/stream"}}], "split": split(stream=1)}
        with_stream = policy(backends=[STABLE, STREAM], split=split(stable=1), rules=[rule])
        async with serving(tmp_path, isvc(), models, with_stream, entrance, linger=3600) as gateway:
            stream = await EventStream.open(gateway.port, "/stream")
            await gateway.edit(policy(backends=[STABLE], split=split(stable=1)))
            assert await gateway.variant("/stream") == "stable"
            streamer.send("still here")
            assert await stream.event() == "still here"
            streamer.finish()
            assert await stream.event() == ""
            stream.close()


async def test_a_listener_moves_when_the_platform_says_so(tmp_path, model_servers):
    """The one edit that is meant to change a listener: another port."""
    models = backend("iris-predictor", model_servers["stable"].port)
    async with serving(tmp_path, isvc(), models, entrance) as gateway:
        first, (second,) = gateway.port, pick_ports(1)
        assert await gateway.variant() == "stable"
        gateway.plane.put(entrance(second))
        gateway.port = second
        await wait_until(gateway.plane.programmed, 20, "the listener to be programmed")
        await wait_until(lambda: serves(gateway), 20, "the new port to serve")
        await wait_until(lambda: refuses(first), 20, "the old port to be closed")


async def serves(gateway):
    try:
        return await gateway.variant() == "stable"
    except OSError:
        return False


async def refuses(port):
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False
