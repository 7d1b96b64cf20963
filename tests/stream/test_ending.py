"""How streams end: by the client, by the server's age or end, by too many new ones; and what is remembered of it."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import grpc
import pytest

from tests.stream.rig import DEADLINE, GATEWAY, Client
from tests.support.model_envoy import make
from tests.support.streams import STREAM_ADS
from tests.support.wait import wait_until as until
from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.service.load_stats.v3 import LoadStatsRequest
from xds.call import Call, Ended, Limits
from xds.gateway import LOSSES
from xds.hangup import Cutter
from xds.loads import METHOD, SERVICE
from xds.memory import Cause
from xds.session import ProtocolError
from xds.types import ResourceType
from xds.wire import encode

CLUSTER, ENDPOINT, LISTENER = ResourceType.CLUSTER, ResourceType.ENDPOINT, ResourceType.LISTENER
HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What a client of HTTP/2 says first: the preface, and settings with nothing in them."""
GOING = (grpc.StatusCode.UNAVAILABLE, "this server is going down")


class TestAdmission:
    async def test_a_storm_is_let_in_at_a_rate(self, start):
        now = 100.0
        rig = await start(clock=lambda: now, admission_rate=3)
        clients = [await rig.connected() for _ in range(3)]
        code, message = await rig.client().end()
        assert (code, message) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many new streams; try again")
        assert rig.record.refusals == {"RESOURCE_EXHAUSTED": 1}
        now += 1
        clients += [await rig.connected() for _ in range(3)]
        assert rig.server.connected(GATEWAY) == len(clients)

    async def test_by_every_method(self, start):
        rig = await start(clock=lambda: 0.0, admission_rate=1)
        await rig.connected()
        assert (await rig.client(STREAM_ADS).end())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED

    async def test_load_reports_have_a_rate_of_their_own(self, start):
        rig = await start(clock=lambda: 0.0, admission_rate=1)
        reports = rig.client(f"/{SERVICE}/{METHOD}")
        await reports.raw(report())
        assert await reports.got_something()
        await rig.connected()
        assert (await rig.client(f"/{SERVICE}/{METHOD}").end())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


class TestDraining:
    async def test_all_are_told_at_moments_of_their_own(self, start, monkeypatch):
        monkeypatch.setattr("xds.server.DRAIN_RATE", 100)
        rig = await start()
        clients = [await rig.connected() for _ in range(20)]
        moments = []

        async def ended(client):
            assert await client.end() == GOING
            moments.append(time.monotonic())

        async with asyncio.TaskGroup() as tasks:
            for client in clients:
                tasks.create_task(ended(client))
            tasks.create_task(rig.server.stop(10))
        assert moments[-1] - moments[0] > 0.02  # of 0.2 s; that all fell into a tenth of it has a chance of 1e-17
        assert rig.server.nodes() == []
        assert len(rig.record.gone) == 20
        assert rig.record.words == []

    async def test_a_call_whose_deadline_is_over_in_the_same_moment_is_told_without_a_fault_of_ours(self):
        call = Call(SimpleNamespace(peer=lambda: "ipv4:127.0.0.1:1"), Limits(), Cutter())
        waiting = asyncio.create_task(call.within(0, asyncio.Event().wait(), ProtocolError("DEADLINE_EXCEEDED", "")))
        for _ in range(2):  # it begins to wait; its deadline cancels it
            await asyncio.sleep(0)
        call.end(Ended("this server is going down"))
        with pytest.raises(Ended):
            await waiting

    async def test_with_nobody_there_it_is_over_at_once(self, start):
        rig = await start()
        async with asyncio.timeout(5):
            await rig.server.stop(60)

    async def test_with_few_it_does_not_take_all_its_time(self, start):
        rig = await start()
        client = await rig.connected()
        async with asyncio.timeout(5):
            await rig.server.stop(60)
        assert await client.end() == GOING

    async def test_who_says_nothing_is_ended_too(self, start):
        rig = await start()
        client = rig.client()
        await until(lambda: rig.arriving == 1)
        async with asyncio.timeout(5):
            await rig.server.stop(60)
        assert await client.end() == GOING

    async def test_nobody_new_is_let_in(self, start, monkeypatch):
        monkeypatch.setattr("xds.server.DRAIN_RATE", 0.1)
        rig = await start()
        client = await rig.connected()
        stopping = asyncio.create_task(rig.server.stop(1))
        await asyncio.sleep(0)
        late = Client(rig.channel())
        assert (await late.end())[0] is grpc.StatusCode.UNAVAILABLE
        assert (await client.end())[0] is grpc.StatusCode.UNAVAILABLE
        await stopping

    async def test_load_reports_end_too(self, start):
        rig = await start()
        client = rig.client(f"/{SERVICE}/{METHOD}")
        await until(lambda: rig.arriving == 1)
        await rig.server.stop(10)
        assert await client.end() == GOING


class TestConnections:
    async def test_one_that_says_nothing_or_has_no_stream_is_closed(self, start):
        rig = await start(handshake=0.1, idle=1.0)
        in_use = rig.client()
        await in_use.take(CLUSTER, gateway=GATEWAY)
        for hello in (b"", HELLO):
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            writer.write(hello)
            async with asyncio.timeout(DEADLINE):
                await reader.read()  # to its end
            writer.close()
            await writer.wait_closed()
        assert await in_use.take(ENDPOINT, ["nobody"]) == {}


class TestAge:
    async def test_a_stream_moves_to_a_new_connection_and_nothing_is_sent_again(self, start):
        rig = await start(connection_age=0.2)
        channel = rig.channel()
        client = Client(channel)
        versions = await client.take(CLUSTER, gateway=GATEWAY)
        old = rig.record.streams[0].peer
        code, message = await client.end()
        assert (code, message) == (
            grpc.StatusCode.UNAVAILABLE,
            "this connection is old; another server may have room",
        )
        again = Client(channel)  # the same channel: gRPC itself makes the new connection
        await again.say(CLUSTER, gateway=GATEWAY, initial=versions)
        response = await again.get()
        assert (response.resources, response.removed_resources) == ([], [])
        assert rig.record.streams[1].peer != old
        assert rig.record.words == []

    async def test_load_reports_move_too(self, start):
        rig = await start(connection_age=0.1)
        client = rig.client(f"/{SERVICE}/{METHOD}")
        await client.raw(report())
        assert (await client.end())[0] is grpc.StatusCode.UNAVAILABLE

    async def test_by_default_never(self, start):
        now = 0.0
        rig = await start(clock=lambda: now)
        client = await rig.connected()
        now = 1e9
        rig.server.publish(GATEWAY, [make(CLUSTER, "b")])
        assert [entry.name for entry in (await client.get()).resources] == ["b"]


class TestWhoIsLost:
    """A version that is unanswered when its Envoy is lost, again and again, goes into quarantine."""

    async def with_a_doubtful_version(self, rig):
        client = await rig.connected()
        rig.server.publish(GATEWAY, [make(CLUSTER, "a", 1)])
        assert [entry.name for entry in (await client.get()).resources] == ["a"]
        return client

    async def lose(self, rig, leave, times=LOSSES):
        await rig.connected()  # holds on to what is good
        for number in range(times):
            client = await (self.with_a_doubtful_version(rig) if not number else self.unanswered(rig))
            await leave(client)
            await until(lambda: rig.server.connected(GATEWAY) == 1)
        return rig.server.rejections(GATEWAY)

    async def unanswered(self, rig):
        client = rig.client()
        await client.say(CLUSTER, gateway=GATEWAY)
        await client.get()
        return client

    async def test_a_client_that_vanishes(self, rig):
        async def vanish(client):
            client.call.cancel()

        [rejection] = await self.lose(rig, vanish)
        assert rejection.refusal.cause is Cause.QUARANTINED
        assert rig.record.rejected[GATEWAY] == (rejection,)

    async def test_its_quarantine_ends_though_no_envoy_says_anything(self, start, monkeypatch):
        monkeypatch.setattr("xds.gateway.QUARANTINE", 0.2)
        now = 0.0
        rig = await start(clock=lambda: now)

        async def vanish(client):
            client.call.cancel()

        [rejection] = await self.lose(rig, vanish)
        silent = rig.client()
        await silent.take(CLUSTER, gateway=GATEWAY)
        await until(lambda: any(not view.in_flight for node in rig.server.nodes() for view in node.types))
        now += 0.2
        assert [entry.version for entry in (await silent.get()).resources] == [rejection.refusal.version]
        assert rig.record.rejected[GATEWAY] == ()

    async def test_a_client_that_ends_its_stream(self, rig):
        async def end(client):
            await client.call.done_writing()
            await client.end()

        assert await self.lose(rig, end)

    async def test_not_one_whose_stream_the_server_ends(self, rig):
        async def break_the_rules(client):
            await client.raw(b"\xff")
            await client.end()

        assert await self.lose(rig, break_the_rules) == ()

    async def test_not_one_whose_connection_is_old(self, start):
        rig = await start(connection_age=0.2)

        async def age(client):
            await client.end()

        for number in range(LOSSES):
            if not number:
                await rig.connected()
                client = await self.with_a_doubtful_version(rig)
            else:
                client = await self.unanswered(rig)
            await age(client)
        await until(lambda: not rig.server.nodes())
        assert rig.server.rejections(GATEWAY) == ()

    async def test_not_one_that_is_cut_when_the_server_stops(self, start):
        rig = await start()
        await rig.connected()
        clients = [await self.with_a_doubtful_version(rig)]
        clients += [await self.unanswered(rig) for _ in range(LOSSES)]
        await rig.server.stop(0)
        await until(lambda: not rig.server.nodes())
        assert rig.server.rejections(GATEWAY) == ()


def report():
    """The first request of a stream of load reports."""
    return encode(LoadStatsRequest(node=Node(id="envoy", cluster=GATEWAY)))
