"""A real server and real clients on loopback."""

from __future__ import annotations

import pytest

from tests.stream.rig import GATEWAY, Record, Rig
from tests.support.model_envoy import make
from tests.support.wait import wait_until as until
from xds.server import Limits, Server
from xds.session import Terms
from xds.types import ResourceType


@pytest.fixture
async def start():
    """Starts a server with one gateway; takes what `Server` takes, and the fields of `Limits`."""
    rigs = []

    async def started(
        *, address="127.0.0.1:0", credentials=None, clock=None, authenticator=None, load_interval=10.0, **limits
    ):
        record = Record()
        how = {"clock": clock} if clock else {}
        server = Server(
            Terms(identifier="xdserve-test", linger=0.05),
            record,
            authenticator=authenticator,
            load_interval=load_interval,
            limits=Limits(**limits),
            **how,
        )
        rig = Rig(server, record, await server.start(address, credentials))
        rigs.append(rig)
        server.publish(GATEWAY, [make(ResourceType.CLUSTER, "a"), make(ResourceType.LISTENER, "http")])
        server.open()
        return rig

    yield started
    for rig in rigs:
        for channel in rig.channels:
            await channel.close()
        await rig.server.stop(5)
        await until(lambda rig=rig: not rig.server.nodes())


@pytest.fixture
async def rig(start):
    return await start()
