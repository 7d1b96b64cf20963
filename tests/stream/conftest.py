"""A real server and real clients on loopback."""

from __future__ import annotations

import pytest

from tests.stream.rig import GATEWAY, Record, Rig
from tests.support.model_envoy import make
from tests.support.wait import wait_until as until
from xds.server import Server
from xds.session import Terms
from xds.types import ResourceType


@pytest.fixture
async def rig():
    record = Record()
    server = Server(Terms(identifier="xdserve-test", linger=0.05), record)
    port = await server.start("127.0.0.1:0")
    rig = Rig(server, record, port)
    server.publish(GATEWAY, [make(ResourceType.CLUSTER, "a"), make(ResourceType.LISTENER, "http")])
    server.open()
    yield rig
    for channel in rig.channels:
        await channel.close()
    await server.stop(5)
    await until(lambda: not server.nodes())
