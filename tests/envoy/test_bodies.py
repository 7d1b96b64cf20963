"""Retries hold for bodies of all sizes: an endpoint that has just gone fails nothing, and no model gets one twice."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from zlib import crc32

import grpc.aio
import h2.connection
import h2.events
import pytest
import pytest_asyncio
from aiohttp import web

from tests.support.documents import endpoints, entrance, isvc, policy, service
from tests.support.model import serve
from tests.support.plane import HOST, serving
from tests.support.requests import Reply, http1, http1_bytes

KIB, MIB = 1 << 10, 1 << 20
REQUESTS = {KIB: 24, 100 * KIB: 24, MIB: 20, 8 * MIB: 10}
LARGE = 3 * MIB
SMALL_BUFFER, LARGE_BUFFER = {"maxRequestBytes": "1Mi"}, {"maxRequestBytes": "8Mi"}
FAST = {"connect": "100ms"}
PREDICT = "/v1/models/iris:predict"
UNARY, STREAM = "/tests.Model/Unary", "/tests.Model/Stream"
UNLIMITED = [("grpc.max_receive_message_length", -1)]

LOST = ("lost", "")
"""The connection or the stream ended without an answer; grpc.aio says INTERNAL if a call ends while it still writes."""

UNREACHED = {LOST} | {
    (status, reason)
    for statuses, reason in (
        ((503, grpc.StatusCode.UNAVAILABLE), "BackendFailed"),
        ((507, grpc.StatusCode.UNAVAILABLE), "BodyTooLargeToRetry"),
    )
    for status in statuses
}


def body_of(size):
    return (b"%08x" % size * (size // 8 + 1))[:size]


def said(body):
    """The answer of a model to a body that it got whole."""
    return f"{len(body)} {crc32(body)}"


# -- Models that count -----------------------------------------------------------------------------------------------


class Counted:
    """A model over HTTP: counts a request by its number as soon as it has begun, and says what it got of it."""

    def __init__(self):
        self.seen = Counter()

    def application(self):
        app = web.Application(client_max_size=64 * MIB)
        app.router.add_route("*", "/{path:.*}", self.answer)
        return app

    async def answer(self, request):
        self.seen[int(request.headers["x-number"])] += 1
        return web.Response(text=said(await request.read()))


class CountedGrpc:
    """The same over gRPC: one method takes one message, the other a stream of them."""

    def __init__(self):
        self.seen = Counter()

    def service(self, details):
        if details.method == UNARY:
            return grpc.unary_unary_rpc_method_handler(self.unary)
        return grpc.stream_unary_rpc_method_handler(self.stream)

    async def unary(self, request, context):
        self._count(context)
        return said(request).encode()

    async def stream(self, requests, context):
        self._count(context)
        return said(b"".join([request async for request in requests])).encode()

    def _count(self, context):
        self.seen[int(dict(context.invocation_metadata())["x-number"])] += 1


@asynccontextmanager
async def counted():
    """A running model over HTTP, and its port."""
    model = Counted()
    async with serve(model) as port:
        yield model, port


@asynccontextmanager
async def counted_grpc():
    """A running model over gRPC, and its port."""
    model, server = CountedGrpc(), grpc.aio.server(options=UNLIMITED)
    server.add_generic_rpc_handlers((model,))
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    try:
        yield model, port
    finally:
        await server.stop(None)


# -- Clients ---------------------------------------------------------------------------------------------------------


async def whole(port, number, *, body, path=PREDICT):
    """HTTP/1.1 with the length known."""
    headers = [("x-number", str(number))]
    return await http1(port, path, method="POST", headers=headers, body=body, seconds=30)


async def chunked(port, number, *, body, path=PREDICT):
    """HTTP/1.1 with the length not known."""
    head = f"POST {path} HTTP/1.1\r\nhost: iris.models\r\nx-number: {number}\r\ntransfer-encoding: chunked\r\n\r\n"
    pieces = [body[at : at + 64 * KIB] for at in range(0, len(body), 64 * KIB)]
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    return await http1_bytes(port, b"".join([head.encode(), *chunks, b"0\r\n\r\n"]), seconds=30)


class Upload:
    """HTTP/2: one request on a connection of its own, sent as far as the gateway's windows go."""

    def __init__(self, reader, writer):
        self._reader, self._writer = reader, writer
        self._http = h2.connection.H2Connection()
        self._reply, self._ended = Reply(0), False

    async def run(self, headers, body):
        self._http.initiate_connection()
        self._http.send_headers(1, headers)
        left = memoryview(body)
        while not self._ended:
            left = self._send(left)
            self._writer.write(self._http.data_to_send())
            for event in self._http.receive_data(await self._reader.read(64 * KIB)):
                self._take(event)
        return self._reply

    def _send(self, left):
        while left and (size := min(self._http.local_flow_control_window(1), self._http.max_outbound_frame_size)):
            self._http.send_data(1, left[:size].tobytes(), end_stream=size >= len(left))
            left = left[size:]
        return left

    def _take(self, event):
        """A reset after a whole answer only says that no more of the body is wanted (RFC 9113, 8.1)."""
        if isinstance(event, h2.events.ResponseReceived):
            self._reply.status = int(dict(event.headers)[b":status"])
        elif isinstance(event, h2.events.DataReceived):
            self._reply.body += event.data
        elif isinstance(event, h2.events.StreamEnded):
            self._ended = True
        elif isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated) and not self._ended:
            raise ConnectionResetError(event)


async def http2(port, number, *, body, path=PREDICT):
    """HTTP/2 without gRPC."""
    headers = [(":method", "POST"), (":scheme", "http"), (":authority", "iris.models"), (":path", path)]
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            return await Upload(reader, writer).run([*headers, ("x-number", str(number))], body)
        finally:
            writer.close()


async def unary(port, number, *, body):
    """One message of gRPC."""
    async with grpc.aio.insecure_channel(f"{HOST}:{port}") as channel:
        metadata = [("x-number", str(number))]
        return Reply(200, body=await channel.unary_unary(UNARY)(body, metadata=metadata, timeout=30))


async def streamed(port, number, *, body):
    """Up to 16 messages of gRPC in one call."""
    size = -(-len(body) // 16)
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    async with grpc.aio.insecure_channel(f"{HOST}:{port}") as channel:
        metadata = [("x-number", str(number))]
        return Reply(200, body=await channel.stream_unary(STREAM)(pieces, metadata=metadata, timeout=30))


CLIENTS = {"http1": whole, "http1-chunked": chunked, "http2": http2, "grpc": unary, "grpc-stream": streamed}


async def outcome(asking):
    """Status and what was said; of an error, its reason."""
    try:
        reply = await asking
    except (OSError, asyncio.IncompleteReadError):
        return LOST
    except grpc.aio.AioRpcError as error:
        return LOST if error.code() is grpc.StatusCode.INTERNAL else (error.code(), error.details().partition(":")[0])
    text = reply.body.decode()
    return reply.status, text if reply.status == 200 else json.loads(text)["error"]["reason"]


async def ask_all(ask, requests):
    """How often each outcome came, of requests that are numbered from 0, four at a time."""
    outcomes, numbers = Counter(), iter(range(requests))

    async def work():
        for number in numbers:
            outcomes[await outcome(ask(number))] += 1

    async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(work())
    return outcomes


# -- Endpoints that have just gone -----------------------------------------------------------------------------------


@contextmanager
def refusing():
    """An address that refuses connections: bound, so that nobody else gets it, and not listened on."""
    with socket.socket() as held:
        held.bind(("127.0.0.61", 0))
        yield held.getsockname()


@contextmanager
def black_hole():
    """An address that never answers: whoever listens there takes nobody, and its backlog is full."""
    with socket.socket() as held, socket.socket() as first:
        held.bind(("127.0.0.62", 0))
        held.listen(0)
        first.connect(held.getsockname())
        with pytest.raises(TimeoutError):
            socket.create_connection(held.getsockname(), timeout=0.05)
        yield held.getsockname()


GONE = {"refusing": refusing, "black-hole": black_hole}


def predictor(*addresses, grpc=False):
    """The predictor's Service with an endpoint at each of the addresses."""
    made = service("iris-predictor", **({"h2c": 80} if grpc else {}))
    port_name = made["spec"]["ports"][0]["name"]
    slices = [endpoints("iris-predictor", at[1], number=n, port_name=port_name) for n, at in enumerate(addresses)]
    for one, address in zip(slices, addresses, strict=True):
        one["endpoints"][0]["addresses"] = [address[0]]
    return [made, *slices]


@pytest_asyncio.fixture
async def scene(tmp_path):
    """Starts a gateway in front of a model that counts, and of further addresses."""

    @asynccontextmanager
    async def start(*others, grpc=False, **spec):
        async with counted_grpc() if grpc else counted() as (model, port):
            made = predictor((HOST, port), *others, grpc=grpc)
            async with serving(tmp_path, isvc(), made, policy(**spec), entrance) as gateway:
                yield gateway, model

    return start


async def failed_connections(gateway):
    return sum((await gateway.envoy.stats("predictor.upstream_cx_connect_(fail|timeout)$")).values())


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("gone", GONE)
async def test_an_endpoint_that_is_gone_fails_no_request_of_any_size(scene, gone, client):
    with GONE[gone]() as address:
        async with scene(address, grpc="grpc" in client, timeouts=FAST) as (gateway, model):
            for size, requests in REQUESTS.items():
                found = await ask_all(partial(CLIENTS[client], gateway.port, body=body_of(size)), requests)
                assert found == {(200, said(body_of(size))): requests}
                assert model.seen == dict.fromkeys(range(requests), 1)
                model.seen.clear()
            # The promise means something: connections did fail.
            assert await failed_connections(gateway) > 0


# -- Beyond the limit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_body_beyond_the_limit_streams_through_and_is_sent_once(scene, client):
    async with scene(grpc="grpc" in client, buffer=SMALL_BUFFER) as (gateway, model):
        found = await ask_all(partial(CLIENTS[client], gateway.port, body=body_of(LARGE)), 12)
        assert found == {(200, said(body_of(LARGE))): 12}
        assert model.seen == dict.fromkeys(range(12), 1)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("gone", GONE)
async def test_beyond_the_limit_a_failed_try_is_an_error_and_no_model_gets_a_body_twice(scene, gone, client):
    with GONE[gone]() as address:
        async with scene(address, grpc="grpc" in client, buffer=SMALL_BUFFER, timeouts=FAST) as (gateway, model):
            found = await ask_all(partial(CLIENTS[client], gateway.port, body=body_of(LARGE)), 32)
            served = found.pop((200, said(body_of(LARGE))), 0)
            assert set(found) <= UNREACHED
            assert (len(model.seen), set(model.seen.values())) == (served, {1})
            # The limit means something: some could not be sent again.
            assert served < 32


async def all_served(gateway, path):
    """True if all of many uploads that only the larger limit takes are answered 200."""
    found = await ask_all(partial(http2, gateway.port, body=body_of(LARGE), path=path), 32)
    return {status for status, _ in found} == {200}


async def test_a_rules_own_limit_counts_before_the_policys(scene):
    rules = [{"name": "large", "matches": [{"path": {"value": "/large"}}], "buffer": LARGE_BUFFER}]
    rules += [{"name": "small", "matches": [{"path": {"value": "/small"}}], "buffer": SMALL_BUFFER}]
    with refusing() as address:
        async with scene(address, rules=rules, buffer=SMALL_BUFFER) as (gateway, _):
            assert await all_served(gateway, "/large")
            assert not await all_served(gateway, "/other")
            await gateway.edit(policy(rules=rules, buffer=LARGE_BUFFER))
            assert await all_served(gateway, "/other")
            assert not await all_served(gateway, "/small")


# -- When nothing can be reached -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client", "size"),
    [("http1-chunked", KIB), ("http2", MIB), ("grpc", KIB), ("grpc-stream", MIB)],
)
async def test_when_all_endpoints_are_black_holes_the_answer_comes_after_nine_tries(tmp_path, client, size):
    with black_hole() as one, black_hole() as other:
        made = predictor(one, other, grpc="grpc" in client)
        async with serving(tmp_path, isvc(), made, policy(timeouts={"connect": "50ms"}), entrance) as gateway:
            found = await outcome(CLIENTS[client](gateway.port, 1, body=body_of(size)))
            assert found == (grpc.StatusCode.UNAVAILABLE if "grpc" in client else 503, "BackendFailed")
            stats = await gateway.envoy.stats("predictor.upstream_(cx_connect_timeout|rq_retry|rq_total)$")
            assert list(stats.values()) == [9, 8, 0]


async def test_when_all_endpoints_are_black_holes_the_answer_says_when_to_come_again(tmp_path):
    with black_hole() as address:
        spec = policy(timeouts={"connect": "50ms"})
        async with serving(tmp_path, isvc(), predictor(address), spec, entrance) as gateway:
            reply = await gateway.ask(PREDICT, method="POST", body=body_of(MIB))
            assert (reply.status, reply.header("content-type")) == (503, "application/json")
            assert reply.header("retry-after") == "5"


# -- What reached a model --------------------------------------------------------------------------------------------


@asynccontextmanager
async def breaking(share):
    """A model that breaks the connection after a share of a body; the block gets its address and what came."""
    seen = []

    async def connection(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        await reader.readexactly(int(int(re.search(r"content-length: (\d+)", head)[1]) * share))
        seen.append(int(re.search(r"x-number: (\d+)", head)[1]))
        writer.close()

    async with await asyncio.start_server(connection, HOST, 0) as server:
        yield server.sockets[0].getsockname(), seen


@pytest.mark.parametrize("share", [0, 0.5, 1])
@pytest.mark.parametrize("size", [KIB, MIB])
async def test_what_reached_a_model_is_not_repeated_whatever_its_size(scene, size, share):
    async with breaking(share) as (address, broken), scene(address) as (gateway, model):
        found = await ask_all(partial(whole, gateway.port, body=body_of(size)), 40)
        assert found == {(503, "BackendFailed"): len(broken), (200, said(body_of(size))): 40 - len(broken)}
        assert len(broken) > 0
        assert Counter(broken) + model.seen == dict.fromkeys(range(40), 1)
