"""A stream may send anything: it ends with the right status, it is counted, and all others go on."""

from __future__ import annotations

import grpc
import pytest

from tests.stream.rig import GATEWAY, Client
from tests.support.model_envoy import make
from tests.support.wait import wait_until as until
from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest, DiscoveryRequest
from xds.services import SERVICES, Discovery
from xds.session import Acknowledged, UnknownType, Variant
from xds.streams import LONGEST_TEXT, UNKNOWN_TYPES, Pace, decoded
from xds.types import ResourceType
from xds.wire import encode

CLUSTER, ENDPOINT = ResourceType.CLUSTER, ResourceType.ENDPOINT
MIB = 1024 * 1024
NODE = Node(id="envoy", cluster=GATEWAY)

METHODS = {
    f"/{service}/{name}": method
    for service, methods in SERVICES.items()
    for name, method in methods.items()
    if isinstance(method, Discovery)
}


def first(method, names=(), node=NODE):
    """A first request of the method's variant."""
    if method.variant is Variant.DELTA:
        made = DeltaDiscoveryRequest(node=node, type_url=method.types[0], resource_names_subscribe=list(names))
    else:
        made = DiscoveryRequest(node=node, type_url=method.types[0], resource_names=list(names))
    return encode(made)


BROKEN = {
    "truncated": lambda method: first(method)[:-1],
    "invalid UTF-8": lambda method: first(method) + b"\x22\x02\xff\xfe",
    "a broken tag": lambda method: b"\x00" * 5,
    "an endless number": lambda method: b"\xff" * 100,
    "no node": lambda method: first(method, node=None),
    "no gateway": lambda method: first(method, node=Node(id="envoy")),
    "nothing in it": lambda method: b"",
}


@pytest.mark.parametrize("path", METHODS)
@pytest.mark.parametrize("what", BROKEN)
async def test_a_broken_first_request(rig, path, what):
    client = rig.client(path)
    await client.raw(BROKEN[what](METHODS[path]))
    assert (await client.end())[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert rig.record.refusals == {"INVALID_ARGUMENT": 1}
    assert rig.record.streams == []


@pytest.mark.parametrize("what", ["truncated", "invalid UTF-8", "a broken tag", "an endless number"])
async def test_a_broken_later_request(rig, what):
    other, client = await rig.connected(), await rig.connected()
    await client.raw(BROKEN[what](METHODS["/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters"]))
    assert (await client.end())[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert rig.record.refusals == {"INVALID_ARGUMENT": 1}
    await until(lambda: rig.server.connected(GATEWAY) == 1)
    await still_served(rig, other)


async def test_a_second_node_of_another_gateway(rig):
    client = await rig.connected()
    await client.say(CLUSTER, gateway=GATEWAY)  # the same once more is no harm
    await client.say(CLUSTER, gateway="models/other")
    assert (await client.end())[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert rig.server.scope("models/other") is None


@pytest.mark.parametrize("path", METHODS)
async def test_a_million_names(rig, path):
    other = await rig.connected()
    client = rig.client(path)
    await client.raw(first(METHODS[path], map(str, range(1_000_000))))
    code, _ = await client.end()
    # Too many for the decoder, or for what a stream may hold.
    assert code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert rig.record.refusals == {code.name: 1}
    await still_served(rig, other)


async def test_30_mib_of_what_is_not_known_is_passed_over(rig):
    client = rig.client()
    junk = b"\xfa\x3e" + varint(30 * MIB) + bytes(30 * MIB)  # a field 1007
    await client.raw(encode(DeltaDiscoveryRequest(node=NODE, type_url=CLUSTER)) + junk)
    assert [entry.name for entry in (await client.get()).resources] == ["a"]


async def test_33_mib_are_refused_by_grpc(rig):
    other, client = await rig.connected(), rig.client()
    await client.raw(bytes(33 * MIB))
    assert (await client.end())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    await still_served(rig, other)


class TestSilence:
    async def test_a_first_request_has_a_deadline(self, start):
        rig = await start(first_request=0.05)
        code, message = await rig.client().end()
        assert (code, message) == (grpc.StatusCode.DEADLINE_EXCEEDED, "no request within 0.05 s")
        assert rig.record.refusals == {"DEADLINE_EXCEEDED": 1}

    async def test_a_later_request_has_none(self, start):
        now = 0.0
        rig = await start(clock=lambda: now)
        client = await rig.connected()
        now = 1e6
        await still_served(rig, client)


class TestTypesThatAreNotServed:
    async def test_each_is_told_once(self, rig):
        client = await rig.connected()
        for _ in range(3):
            await client.say("type.googleapis.com/envoy.service.runtime.v3.Runtime")
        await answered(client)
        assert told(rig) == ["type.googleapis.com/envoy.service.runtime.v3.Runtime"]

    async def test_no_more_than_some_are_told(self, rig):
        client = await rig.connected()
        for number in range(100):
            await client.say(f"type.googleapis.com/{number}" + "x" * 10_000)
        await answered(client)
        assert len(told(rig)) == UNKNOWN_TYPES
        assert {len(url) for url in told(rig)} == {LONGEST_TEXT}


async def test_what_a_client_calls_itself_is_cut(rig):
    client = rig.client()
    node = Node(id="x" * 10_000, cluster=GATEWAY, user_agent_name="y" * 10_000)
    await client.raw(encode(DeltaDiscoveryRequest(node=node, type_url=CLUSTER)))
    await client.get()
    [stream] = rig.record.streams
    assert (len(stream.node_id), len(stream.user_agent)) == (LONGEST_TEXT, LONGEST_TEXT)


async def test_a_storm_of_broken_streams_leaves_nothing(rig):
    channel = rig.channel()
    for number in range(200):
        client = Client(channel)
        await client.raw(bytes([number]) * (number + 1))
        assert (await client.end())[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert rig.record.refusals == {"INVALID_ARGUMENT": 200}
    assert rig.server.nodes() == []


def told(rig):
    return [event.type_url for _, event in rig.record.events if isinstance(event, UnknownType)]


def acks(rig):
    return len([event for _, event in rig.record.events if isinstance(event, Acknowledged)])


def varint(value):
    result = b""
    while value >= 128:
        result += bytes([value % 128 + 128])
        value //= 128
    return result + bytes([value])


async def answered(client):
    """What the client said was read, for requests are read in order, and the stream goes on."""
    await client.say(ResourceType.ENDPOINT, ["nobody"])
    assert (await client.get()).removed_resources == ["nobody"]


async def still_served(rig, client):
    """The client gets what is published now."""
    rig.server.publish(GATEWAY, [make(CLUSTER, "after")])
    assert [entry.name for entry in (await client.get()).resources] == ["after"]


class TestPace:
    """What takes long is followed by a rest as long, in which nothing is read of its stream."""

    @pytest.fixture
    async def slow(self, start):
        """A server on which each event of a client `slow` takes a minute, by its clock; and two clients."""
        now = 0.0
        rig = await start(clock=lambda: now)
        told = rig.record.event

        def event(stream, event):
            nonlocal now
            now += rig.minutes * 60 if stream.node_id == "slow" else 0
            told(stream, event)

        rig.record.event, rig.minutes = event, 0
        return rig

    async def test_the_next_request_waits_and_nobody_else_does(self, slow):
        other, client = await slow.connected(), slow.client()
        await client.say(CLUSTER, gateway=GATEWAY, node_id="slow")
        await client.ack(await client.get())
        await until(lambda: acks(slow) == 2)
        slow.minutes = 1
        for number in range(3):
            await client.say(f"type.googleapis.com/{number}")
        await until(lambda: told(slow))
        for number in range(20):
            slow.server.publish(GATEWAY, [make(CLUSTER, "b", number)])
            await other.ack(await other.get())
        assert len(told(slow)) == 1
        await slow.server.stop(10)  # waits for no rest

    async def test_also_after_the_first(self, slow):
        slow.minutes = 1
        client = slow.client()
        await client.say("type.googleapis.com/1", gateway=GATEWAY, node_id="slow")
        await until(lambda: told(slow))
        await client.say("type.googleapis.com/2")
        other = await slow.connected()
        for number in range(20):
            slow.server.publish(GATEWAY, [make(CLUSTER, "b", number)])
            await other.ack(await other.get())
        assert len(told(slow)) == 1

    async def test_and_is_read_then(self, slow, monkeypatch):
        monkeypatch.setattr("xds.streams.LONGEST_REST", 0.05)
        slow.minutes = 1
        client = slow.client()
        await client.say("type.googleapis.com/1", gateway=GATEWAY, node_id="slow")
        for number in range(5):
            await client.say(f"type.googleapis.com/later-{number}")
        await until(lambda: len(told(slow)) == 6)

    @pytest.mark.parametrize("late", [False, True])
    async def test_a_refusal_waits_too(self, start, monkeypatch, late):
        now = 0.0
        rig = await start(clock=lambda: now)

        def slowly(kind, data):
            nonlocal now
            if data == b"\xff":
                now += 60
            return decoded(kind, data)

        monkeypatch.setattr("xds.server.decoded", slowly)
        monkeypatch.setattr("xds.streams.decoded", slowly)
        other, client = await rig.connected(), await rig.connected() if late else rig.client()
        await client.raw(b"\xff")
        await until(lambda: rig.record.refusals == {"INVALID_ARGUMENT": 1})
        for number in range(20):
            rig.server.publish(GATEWAY, [make(CLUSTER, "b", number)])
            await other.ack(await other.get())
        assert not client.call.done()

    def test_it_is_as_long_as_the_work(self):
        now = 0.0
        pace = Pace(lambda: now)
        rests = []
        for took in (0.01, 0.5, 0.009, 1.25, 3600.0, 0.0):
            pace.begin()
            now += took
            pace.done()
            rests.append(pace.rest)
        assert rests == pytest.approx([0, 0.5, 0, 1.25, 5, 0])
