"""One real server, one client that keeps to the rules, and what must be as before when the others are gone."""

from __future__ import annotations

import asyncio
import gc
from itertools import count

import pytest

from tests.stream.rig import GATEWAY, Record, Rig
from tests.support.model_envoy import make
from tests.support.wait import wait_until as until
from xds.server import Limits, Server
from xds.session import Terms
from xds.types import ResourceType

CLUSTER = ResourceType.CLUSTER


class Beside:
    """A client that must go on getting its edits, whatever others do."""

    def __init__(self, rig):
        self.rig = rig
        self.client = rig.client()
        self.revisions = count(1)

    async def begin(self):
        await self.client.take(CLUSTER, gateway=GATEWAY)

    async def gets_its_edit(self):
        edited = make(CLUSTER, "a", next(self.revisions))
        self.rig.server.publish(GATEWAY, [edited])
        response = await self.client.get()
        await self.client.ack(response)
        assert {entry.name: entry.version for entry in response.resources} == {"a": edited.version}


def left(server):
    """What a server keeps of its clients."""
    gc.collect()
    return {
        "tasks": len(asyncio.all_tasks()),
        "calls": len(server._calls),
        "streams": len(server._streams),
        "gateways": len(server._gateways),
        "members": sum(gateway.connected for gateway in server._gateways.values()),
    }


@pytest.fixture
async def rig():
    record = Record()
    terms = Terms(identifier="xdserve-test", linger=0.05)
    server = Server(terms, record, limits=Limits(first_request=2.0, admission_rate=100_000.0))
    rig = Rig(server, record, await server.start("127.0.0.1:0"))
    server.publish(GATEWAY, [make(CLUSTER, "a"), make(ResourceType.LISTENER, "http")])
    server.open()
    yield rig
    for channel in rig.channels:
        await channel.close()
    await server.stop(1)
    await until(lambda: not server._calls)


@pytest.fixture
async def beside(rig):
    """Goes on getting its edits to the end; and when the others are gone the server keeps nothing of them."""
    beside = Beside(rig)
    await beside.begin()
    await until(lambda: [view.in_flight for node in rig.server.nodes() for view in node.types] == [()])
    before = left(rig.server)
    opened = len(rig.record.streams) - len(rig.record.gone)
    yield beside
    await beside.gets_its_edit()
    await until(lambda: left(rig.server) == before, what=f"to be as before: {before}", every=0.05)
    assert len(rig.record.streams) - len(rig.record.gone) == opened


class Stage:
    """A server in a loop of its own, for tests that Hypothesis runs again and again."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self._begin())

    async def _begin(self):
        server = Server(
            Terms(identifier="xdserve-test", linger=0.05), Record(), limits=Limits(admission_rate=100_000.0)
        )
        self.rig = Rig(server, server._observer, await server.start("127.0.0.1:0"))
        server.publish(GATEWAY, [make(CLUSTER, "a")])
        server.open()
        self.channel = self.rig.channel()

    def run(self, play):
        return self.loop.run_until_complete(play(self.rig))

    def end(self):
        async def end(rig):
            await until(lambda: not rig.server._calls)
            assert len(rig.server._gateways) == 1
            await self.channel.close()
            await rig.server.stop(1)

        self.run(end)
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


@pytest.fixture
def stage():
    stage = Stage()
    yield stage
    stage.end()
