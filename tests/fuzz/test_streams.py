"""Whole streams over gRPC that keep to no rule: each ends with a clean status, and nobody else notices."""

from __future__ import annotations

import asyncio
import tracemalloc

import grpc
import grpc.aio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.test_decoder import mutated
from tests.stream.rig import DEADLINE, GATEWAY, Client
from tests.support.streams import DELTA_ADS, STREAM_ADS
from tests.support.wait import wait_until as until
from xds import loads
from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest, DiscoveryRequest
from xds.services import SERVICES
from xds.session import MOST_NAMES
from xds.types import ResourceType
from xds.wire import encode
from xds.wire.varint import delimited

CLUSTER = ResourceType.CLUSTER
LRS = f"/{loads.SERVICE}/{loads.METHOD}"
PATHS = [f"/{service}/{method}" for service, methods in SERVICES.items() for method in methods]

CODE = grpc.StatusCode
CLEAN = {
    CODE.OK, CODE.CANCELLED, CODE.INVALID_ARGUMENT, CODE.RESOURCE_EXHAUSTED, CODE.UNIMPLEMENTED, CODE.UNAVAILABLE,
    CODE.DEADLINE_EXCEEDED,
}  # fmt: skip
WROTE_TOO_LATE = "Internal error from Core"
"""What grpc.aio says at the client, whatever the server's status, when it writes into a stream that has ended."""

NODE = Node(id="envoy", cluster=GATEWAY)
MIB = 1 << 20


def delta(**fields):
    return encode(DeltaDiscoveryRequest(node=NODE, **{"type_url": CLUSTER, **fields}))


def names(number):
    return [f"n{index}" for index in range(number)]


GOOD = delta()
# What a client says, and how it ends; None: by gRPC itself, of which the observer is not told.
BAD = {
    "truncated": (lambda: GOOD[:-1], CODE.INVALID_ARGUMENT),
    "random": (lambda: bytes(range(256)), CODE.INVALID_ARGUMENT),
    "not utf-8": (lambda: GOOD + b"\x1a\x02\xff\xfe", CODE.INVALID_ARGUMENT),
    "groups in groups": (lambda: GOOD + b"\x7b" * 100_000, CODE.INVALID_ARGUMENT),
    "a huge length": (lambda: GOOD + b"\x1a\xff\xff\xff\xff\x0f", CODE.INVALID_ARGUMENT),
    "no type": (lambda: delta(type_url=""), CODE.INVALID_ARGUMENT),
    "a name of 30 MiB": (lambda: GOOD + b"\x1a" + delimited(b"x" * 30 * MIB), CODE.INVALID_ARGUMENT),
    "30 MiB of nothing": (lambda: GOOD + b"\x1a\x00" * 15 * MIB, CODE.INVALID_ARGUMENT),
    "30 MiB of nodes": (lambda: GOOD + b"\x0a\x00" * 15 * MIB, CODE.INVALID_ARGUMENT),
    "a million names": (lambda: delta(resource_names_subscribe=names(1_000_000)), CODE.INVALID_ARGUMENT),
    "too many names": (lambda: delta(resource_names_subscribe=names(MOST_NAMES + 1)), CODE.RESOURCE_EXHAUSTED),
    "33 MiB": (lambda: bytes(33 * MIB), None),
}
FIRST_ONLY = {
    "empty": (lambda: b"", CODE.INVALID_ARGUMENT),
    "no node": (lambda: encode(DeltaDiscoveryRequest(type_url=CLUSTER)), CODE.INVALID_ARGUMENT),
    "no gateway": (lambda: encode(DeltaDiscoveryRequest(node=Node(id="x"))), CODE.INVALID_ARGUMENT),
}
OTHER = Node(id="envoy", cluster="models/other")
LATE_ONLY = {
    "another gateway": (lambda: encode(DeltaDiscoveryRequest(node=OTHER, type_url=CLUSTER)), CODE.INVALID_ARGUMENT),
}
CASES = {
    **{f"{name}, first": (*case, False) for name, case in (BAD | FIRST_ONLY).items()},
    **{f"{name}, late": (*case, True) for name, case in (BAD | LATE_ONLY).items()},
}


@pytest.mark.parametrize(("said", "status", "late"), CASES.values(), ids=CASES)
async def test_a_bad_request_ends_its_stream_alone(rig, beside, said, status, late):
    client = rig.client()
    if late:
        await client.take(CLUSTER, gateway=GATEWAY)
    told = dict(rig.record.refusals)
    await client.raw(said())
    ended, _ = await client.end()
    assert ended is (status or CODE.RESOURCE_EXHAUSTED)
    new = {name: number - told.get(name, 0) for name, number in rig.record.refusals.items()}
    assert new == ({status.name: 1} if status else {})
    await beside.gets_its_edit()


@pytest.mark.parametrize("path", PATHS)
async def test_every_method_refuses_what_is_no_request(rig, beside, path):
    channel = rig.channel()
    for number, data in enumerate((b"\xff" * 20, b"\x0a\x05ab", b"", b"\x0a\x04\x0a\x02\xff\xff"), 1):
        client = Client(channel, path)
        await client.raw(data)
        assert (await client.end())[0] is CODE.INVALID_ARGUMENT
        assert rig.record.refusals == {"INVALID_ARGUMENT": number}


@given(st.lists(mutated(), max_size=6), st.sampled_from(PATHS), st.booleans())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_streams(stage, requests, path, introduced):
    async def run(rig):
        client = Client(stage.channel, path)
        if introduced:
            await client.raw(GOOD if path != LRS else encode(DeltaDiscoveryRequest(node=NODE)))
        for _, data in requests:
            try:
                await client.raw(data)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
                break
        await client.call.done_writing()
        return await client.end()

    status, words = stage.run(run)
    assert status in CLEAN or words == WROTE_TOO_LATE
    assert {CODE[name] for name in stage.rig.record.refusals} <= CLEAN


@pytest.mark.parametrize("path", [DELTA_ADS, STREAM_ADS, LRS])
class TestPhases:
    async def test_half_closed_at_once(self, rig, beside, path):
        client = rig.client(path)
        await client.call.done_writing()
        assert (await client.end())[0] is CODE.OK

    async def test_nothing_at_all(self, rig, beside, path):
        client = rig.client(path)
        assert (await client.end())[0] is CODE.DEADLINE_EXCEEDED
        assert rig.record.refusals == {"DEADLINE_EXCEEDED": 1}

    async def test_cancelled_in_every_phase(self, rig, beside, path):
        channel = rig.channel()
        first = encode(DiscoveryRequest(node=NODE, type_url=CLUSTER)) if path == STREAM_ADS else GOOD
        first = encode(DeltaDiscoveryRequest(node=NODE)) if path == LRS else first
        for round_ in range(60):
            client = Client(channel, path)
            if round_ % 3:
                await client.raw(first)
            if round_ % 3 > 1:
                async with asyncio.timeout(DEADLINE):
                    await client.call.read()
            client.call.cancel()
        await beside.gets_its_edit()

    async def test_a_connection_cut_under_it(self, rig, beside, path):
        for _ in range(5):
            channel = rig.channel()
            for _ in range(4):
                await Client(channel, path).raw(GOOD)
            await channel.close()


@pytest.mark.parametrize(
    "path",
    [
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/Nothing",
        "/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters",
        "/no.such.Service/StreamClusters",
        "/",
        "//",
        "/é",
        "/" + "x" * 4_000,
    ],
)
async def test_methods_that_there_are_not(rig, beside, path):
    client = rig.client(path)
    assert (await client.end())[0] is CODE.UNIMPLEMENTED


@pytest.mark.parametrize("path", [DELTA_ADS, STREAM_ADS])
async def test_large_requests_are_not_held_while_their_streams_last(rig, beside, path):
    channel = rig.channel()
    small = delta() if path == DELTA_ADS else encode(DiscoveryRequest(node=NODE, type_url=CLUSTER))
    large = small + b"\xfa\x07" + delimited(bytes(4 * MIB))  # an unknown field
    clients = [Client(channel, path) for _ in range(5)]
    tracemalloc.start()
    try:
        for client in clients:
            await client.raw(large)
            await client.raw(large)
        await until(lambda: len(rig.server._streams) == 6)
        # One may be on its way, and one in a step of the loop that is not over.
        await until(lambda: tracemalloc.get_traced_memory()[0] < 2.5 * len(large), what="the requests to be let go")
    finally:
        tracemalloc.stop()
    for client in clients:
        client.call.cancel()


async def test_200_streams_on_one_connection(rig, beside):
    channel = rig.channel()
    clients = [Client(channel, path) for path in (DELTA_ADS, STREAM_ADS) for _ in range(100)]
    for number, client in enumerate(clients):
        gateway = GATEWAY if number % 2 else f"models/unknown-{number}"
        await (client.say if number < 100 else client.sotw)(CLUSTER, gateway=gateway, node_id=str(number))
    await until(lambda: len(rig.server._streams) == 201)
    await beside.gets_its_edit()
    for client in clients:
        client.call.cancel()


@pytest.mark.parametrize(
    "metadata",
    [
        (("authorization", "Bearer " + "x" * 4_000),),
        (("authorization", ""), ("authorization", "Basic x"), ("authorization", "bearer")),
        (("x-bin", b"\x00\xff" * 100), ("user-agent", ""), ("grpc-timeout-x", "0")),
        tuple((f"x-{number}", "y") for number in range(50)),
    ],
    ids=["a long token", "many tokens", "binary", "many"],
)
async def test_nonsense_metadata(rig, beside, metadata):
    client = rig.client(metadata=metadata)
    await client.say(CLUSTER, gateway=GATEWAY)
    await client.call.done_writing()
    assert (await client.end())[0] is CODE.OK


async def test_more_metadata_than_grpc_takes(rig, beside):
    client = rig.client(metadata=(("x", "y" * 100_000),))
    assert (await client.end())[0] is CODE.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("path", [DELTA_ADS, STREAM_ADS])
async def test_a_storm_of_requests_without_reading(rig, beside, path):
    client = rig.client(path)

    async def storm():
        for number in range(5_000):
            some = [f"{number % 7}-{index}" for index in range(20)]
            if path == DELTA_ADS:
                data = delta(resource_names_subscribe=some, response_nonce=str(number))
            else:
                data = encode(DiscoveryRequest(node=NODE, type_url=ResourceType.ENDPOINT, resource_names=some))
            await client.raw(data)

    task = asyncio.create_task(storm())
    edits = 0
    while not task.done():
        await beside.gets_its_edit()
        edits += 1
    await task
    assert edits > 5
    client.call.cancel()
