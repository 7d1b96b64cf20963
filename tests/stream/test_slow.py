"""A client that never reads costs what is on its way to it, and is cut off; nobody else notices."""

from __future__ import annotations

import asyncio
import gc
import resource as limits
import threading
from pathlib import Path

import grpc
import pytest

from tests.stream.rig import DEADLINE, GATEWAY, Client
from tests.support.model_envoy import make
from tests.support.streams import DELTA_ADS, STREAM_ADS
from tests.support.wait import wait_until as until
from xds.hangup import Cutter, hang_up
from xds.types import ResourceType
from xds.wire import resource

CLUSTER, LISTENER, ROUTE = ResourceType.CLUSTER, ResourceType.LISTENER, ResourceType.ROUTE
MB = 1_000_000


def resident():
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * limits.getpagesize()


async def stuck(rig, path=DELTA_ADS):
    """A client that asks for a big listener, and never reads; on a connection of its own."""
    client = Client(rig.channel(options=[("grpc.max_receive_message_length", -1)]), path)
    await (client.say if path is DELTA_ADS else client.sotw)(LISTENER, gateway=GATEWAY, node_id="stuck")
    return client


def publish(rig, size=10 * MB):
    rig.server.publish(GATEWAY, [resource(LISTENER, "http", bytes(size))])


@pytest.mark.parametrize("path", [DELTA_ADS, STREAM_ADS])
async def test_it_is_cut_off_and_counted(start, path):
    rig = await start(write=0.2)
    other = await rig.connected()
    publish(rig)
    client = await stuck(rig, path)
    await until(lambda: rig.server.connected(GATEWAY) == 2)
    await until(lambda: rig.server.connected(GATEWAY) == 1)
    assert rig.record.refusals == {"DEADLINE_EXCEEDED": 1}
    assert rig.record.words == ["did not read a response within 0.2 s"]
    assert (await client.end())[0] is grpc.StatusCode.UNAVAILABLE  # its connection is gone
    await until(lambda: not rig.arriving)
    rig.server.publish(GATEWAY, [make(CLUSTER, "b")])
    assert [entry.name for entry in (await other.get()).resources] == ["b"]


async def test_one_after_another_does_not_heap_up(start):
    """Each holds 10 MB while it is stuck, once in Python and once in gRPC; nothing of it stays."""
    rig = await start(write=0.05)
    publish(rig)
    await cut(rig, 5)
    gc.collect()
    before = resident()
    await cut(rig, 30)
    gc.collect()
    assert resident() - before < 60 * MB


async def cut(rig, times):
    for _ in range(times):
        refused = len(rig.record.words)
        client = await stuck(rig)
        await until(lambda refused=refused: len(rig.record.words) > refused)
        await client.end()
        rig.record.responses.clear()
    await until(lambda: not rig.server.nodes() and not rig.arriving)


async def test_one_that_reads_in_time_is_served(start):
    rig = await start(write=20)
    publish(rig, 20 * MB)
    client = await stuck(rig)
    await until(lambda: rig.record.responses)
    assert [entry.name for entry in (await client.get()).resources] == ["http"]
    assert rig.record.words == []


async def test_it_holds_one_response_whatever_is_published(start):
    rig = await start()
    publish(rig)
    await stuck(rig)
    await until(lambda: rig.record.responses)
    before = resident()
    for number in range(50):
        rig.server.publish(GATEWAY, [resource(LISTENER, "http", bytes([number]) * (10 * MB))])
    assert len(rig.record.responses) == 1
    assert resident() - before < 60 * MB


async def test_a_client_that_goes_while_it_is_stuck_is_no_bug_of_ours(start, caplog):
    rig = await start()
    publish(rig)
    client = await stuck(rig)
    await until(lambda: rig.record.responses)
    client.call.cancel()
    await until(lambda: not rig.server.nodes() and not rig.arriving)
    assert caplog.text == ""
    assert rig.record.words == []


class TestHangingUp:
    async def test_only_that_connection(self, rig):
        one, two = await rig.connected(), await rig.connected()
        peer = rig.record.streams[0].peer
        assert hang_up([peer, "ipv4:127.0.0.1:1"]) == {peer}
        await one.end()
        await until(lambda: rig.server.connected(GATEWAY) == 1)
        rig.server.publish(GATEWAY, [make(CLUSTER, "b")])
        assert [entry.name for entry in (await two.get()).resources] == ["b"]

    @pytest.mark.parametrize("peer", ["ipv4:127.0.0.1:1", "ipv6:%5B::1%5D:1", "unix:", "unix:/tmp/socket", "", "?"])
    def test_nobody(self, peer):
        assert hang_up([peer]) == set()

    async def test_over_ipv6(self, start):
        rig = await start(address="[::1]:0")
        client = Client(rig.channel(host="[::1]"))
        await client.take(CLUSTER, gateway=GATEWAY)
        assert rig.record.streams[0].peer.startswith("ipv6:")
        assert hang_up([rig.record.streams[0].peer])
        await client.end()
        await until(lambda: not rig.server.nodes())

    async def test_one_look_at_a_time_for_all_who_are_stuck(self, monkeypatch):
        looks, going = [], threading.Event()

        def look(peers):
            looks.append(set(peers))
            assert going.wait(DEADLINE)
            return {"a"} & set(peers)

        monkeypatch.setattr("xds.hangup.hang_up", look)
        cutter = Cutter()
        first = asyncio.create_task(cutter.cut("a"))
        await until(lambda: looks)
        rest = [asyncio.create_task(cutter.cut(peer)) for peer in ("b", "c", "c")]
        await asyncio.sleep(0)
        going.set()
        assert await first
        assert not any([await one for one in rest])
        assert looks == [{"a"}, {"b", "c"}]

    async def test_who_asks_is_answered_when_there_is_no_way_to_look(self, monkeypatch, caplog, tmp_path):
        monkeypatch.setattr("xds.hangup._OPEN_FILES", tmp_path / "none")
        assert not await Cutter().cut("ipv4:127.0.0.1:1")
        assert "cannot look for connections to cut" in caplog.text
