"""Every field of `spec.edge`: what clients and models see with each of its values."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager, closing
from functools import partial

import h2.config
import h2.connection
import h2.events
import pytest
import pytest_asyncio

from tests.support.documents import backend, entrance, isvc, policy, split, to_service
from tests.support.plane import HOST, serving
from tests.support.requests import http1_bytes, http2
from tests.support.stubs import stub_server
from translator.names import LISTENER
from xds.types import ResourceType
from xdserve.demo.statistics import agrees

KIB, MIB = 1 << 10, 1 << 20
SIZES = (0, KIB, MIB)
LOCAL = isvc(labels={"networking.kserve.io/visibility": "cluster-local"})


OK = b"HTTP/1.1 200 OK\r\nX-Model-Case: 1\r\ncontent-length: 2\r\n\r\nok"
CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


@pytest_asyncio.fixture
async def scene(tmp_path):
    """Starts a gateway with an edge, in front of a model that keeps the heads of requests as they arrive."""

    @asynccontextmanager
    async def start(target=None, answer=OK, **edge):
        heads = []

        async def handle(head, writer):
            heads.append(head)
            writer.write(answer)

        async with stub_server(handle) as port:
            opened = partial(entrance, edge=edge)
            async with serving(tmp_path, target or isvc(), backend("iris-predictor", port), opened) as gateway:
                yield gateway, heads

    return start


async def sent(gateway, first, *lines, body=b""):
    """Status and reason of the answer to a request of these lines; no reason if a model answered."""
    said = [first, *lines, *([f"content-length: {len(body)}"] if body else []), "", ""]
    reply = await http1_bytes(gateway.port, "\r\n".join(said).encode() + body)
    return reply.status, json.loads(reply.body)["error"]["reason"] if reply.status >= 400 else ""


def names(head):
    """The names of the headers that reached a model, as they arrived."""
    return [line.partition(":")[0] for line in head.split("\r\n")[1:-2]]


@asynccontextmanager
async def session(gateway):
    """A connection of HTTP/2 to a gateway."""
    reader, writer = await asyncio.open_connection(HOST, gateway.port)
    with closing(writer):
        yield Session(reader, writer)


class Session:
    """May send what no client should."""

    def __init__(self, reader, writer):
        self._reader, self._writer = reader, writer
        how = h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
        self.http = h2.connection.H2Connection(how)
        self.http.initiate_connection()
        self._ends = {}

    def begin(self, *headers, body=b"", ended=True, **pseudo):
        """Begin a request; its stream."""
        stream = self.http.get_next_available_stream_id()
        said = {"method": "GET", "scheme": "http", "path": "/", "authority": "iris.models"} | pseudo
        first = [(f":{name}", value) for name, value in said.items() if value is not None]
        self.http.send_headers(stream, [*first, *headers], end_stream=ended and not body)
        return stream

    async def send(self, stream, body):
        """Send the rest of a request, as far as windows go at a time."""
        while body:
            while not (window := self.http.local_flow_control_window(stream)):
                await self._read()
            size = min(window, self.http.max_outbound_frame_size, len(body))
            self.http.send_data(stream, body[:size], end_stream=size == len(body))
            body = body[size:]

    async def outcome(self, stream):
        """Wait for a stream's answer: its status, or the code of its reset."""
        async with asyncio.timeout(10):
            while stream not in self._ends:
                await self._read()
        return self._ends[stream]

    async def _read(self):
        self._writer.write(self.http.data_to_send())
        data = await self._reader.read(1 << 16)
        assert data, "the connection has ended"
        for event in self.http.receive_data(data):
            if isinstance(event, h2.events.StreamReset):
                self._ends.setdefault(event.stream_id, event.error_code.name)
            elif isinstance(event, h2.events.ResponseReceived):
                self._ends.setdefault(event.stream_id, int(dict(event.headers)[b":status"]))


# -- HTTP/1.0 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", [{}, {"http10": "Allow"}])
async def test_http_1_0_is_served_with_and_without_a_host(scene, edge):
    async with scene(**edge) as (gateway, heads):
        for size in SIZES:
            assert await sent(gateway, "POST /a HTTP/1.0", body=bytes(size)) == (200, "")
            assert await sent(gateway, "POST /a HTTP/1.0", "Host: any.host", body=bytes(size)) == (200, "")
        assert {"host: any.host" in head for head in heads} == {True, False}
        assert all(names(head).count("host") == 1 for head in heads)


async def test_http_1_0_without_a_host_means_the_service_that_is_for_the_cluster_alone(scene):
    async with scene(LOCAL) as (gateway, heads):
        assert await sent(gateway, "GET /a HTTP/1.0") == (200, "")
        assert await sent(gateway, "GET /a HTTP/1.0", "Host: iris.models.svc.cluster.local") == (200, "")
        assert await sent(gateway, "GET /a HTTP/1.0", "Host: other.models") == (404, "NotFound")
        assert "host: iris.models\r\n" in heads[0]


async def test_http_1_0_keeps_a_connection_that_is_asked_for(scene):
    async with scene() as (gateway, _):
        reader, writer = await asyncio.open_connection(HOST, gateway.port)
        for _ in range(2):
            writer.write(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.0 200")
        writer.close()


async def test_http_1_0_gets_no_chunks(scene):
    async with scene(answer=CHUNKS) as (gateway, _):
        reply = await http1_bytes(gateway.port, b"GET /a HTTP/1.0\r\n\r\n")
        assert (reply.body, reply.header("transfer-encoding")) == (b"abcde", None)


async def test_http_1_0_can_be_refused(scene):
    async with scene() as (gateway, heads):
        await gateway.edit(entrance(gateway.port, edge={"http10": "Reject"}))
        for size in SIZES:
            assert await sent(gateway, "POST /a HTTP/1.0", body=bytes(size)) == (426, "UpgradeRequired")
            assert await sent(gateway, "POST /a HTTP/1.0", "Host: a", body=bytes(size)) == (426, "UpgradeRequired")
        assert not heads
        assert await sent(gateway, "GET /a HTTP/1.1", "Host: a") == (200, "")


# -- Upgrades --------------------------------------------------------------------------------------------------------


async def upgrading(gateway, protocol, body=b"", connection="Upgrade"):
    """The answer to a request that offers an upgrade."""
    lines = ["Host: a", f"Connection: {connection}", f"Upgrade: {protocol}"]
    return await sent(gateway, "POST /a HTTP/1.1", *lines, body=body)


OTHERS = ("h2c", "H2C", "HTTP/2.0", "h2c, TLS/1.2")


@pytest.mark.parametrize("edge", [{}, {"upgradeTLS": "Ignore"}])
async def test_an_upgrade_that_nobody_needs_is_ignored(scene, edge):
    async with scene(**edge) as (gateway, heads):
        for protocol in ("TLS/1.2", "TLS/1.3", "TLS/1.0, TLS/1.2", "TLS/1.2, HTTP/1.1", "HTTP/1.1,tls/1.3", *OTHERS):
            for size in SIZES:
                assert await upgrading(gateway, protocol, bytes(size)) == (200, "")
            assert await upgrading(gateway, protocol, connection="keep-alive, upgrade") == (200, "")
        assert not {"upgrade", "connection"} & {name for head in heads for name in names(head)}


@pytest.mark.parametrize("protocol", ["TLS/1.2", "TLS/1.3", "TLS/1.2, HTTP/1.1"])
async def test_an_upgrade_to_tls_can_be_refused(scene, protocol):
    async with scene(upgradeTLS="Reject") as (gateway, heads):
        for size in SIZES:
            assert await upgrading(gateway, protocol, bytes(size)) == (403, "UpgradeRefused")
        assert not heads
        assert await upgrading(gateway, "h2c") == (200, "")


@pytest.mark.parametrize("edge", [{}, {"upgradeTLS": "Reject"}])
async def test_websocket_is_the_only_other_upgrade(scene, edge):
    async with scene(answer=SWITCHED, **edge) as (gateway, _):
        for protocol in ("unknown/1.0", "TLSv1.2", "TLS/1.2, unknown", "websocket2"):
            assert await upgrading(gateway, protocol) == (403, "UpgradeRefused")
        reader, writer = await asyncio.open_connection(HOST, gateway.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        writer.close()


# -- Hosts -----------------------------------------------------------------------------------------------------------


async def both(gateway, host):
    """The statuses over HTTP/1 and HTTP/2."""
    return (await gateway.ask(host=host)).status, (await http2(gateway.port, authority=host)).status


@pytest.mark.parametrize(
    ("edge", "status"), [({}, 200), ({"trailingDot": "Strip"}, 200), ({"trailingDot": "Keep"}, 404)]
)
async def test_a_dot_at_the_end_of_a_host(scene, edge, status):
    async with scene(LOCAL, **edge) as (gateway, _):
        for host in ("iris.models.", "iris.models.svc.cluster.local.", "iris-gateway.models.svc."):
            assert await both(gateway, host) == (status, status), host
            assert await both(gateway, f"{host}:8080") == (status, status), host
        for host in ("other.models.", "iris.models..", "."):
            assert await both(gateway, host) == (404, 404), host
        assert await both(gateway, "iris.models") == (200, 200)


@pytest.mark.parametrize(("edge", "reached"), [({}, "v2"), ({"trailingDot": "Keep"}, "stable")])
async def test_the_dot_of_a_components_host(tmp_path, model_servers, edge, reached):
    models = backend("iris-predictor", model_servers["stable"].port)
    models += backend("iris-explainer", model_servers["v2"].port)
    async with serving(tmp_path, isvc(explainer={}), models, partial(entrance, edge=edge)) as gateway:
        for host in ("iris-explainer-models.example.com.", "iris-explainer-models.example.com.:8080"):
            assert await gateway.variant(host=host) == reached
        assert await gateway.variant(host="iris-explainer-models.example.com") == "v2"


# -- Request ids -----------------------------------------------------------------------------------------------------

IDS = [("x-request-id", "mine"), ("x-xdserve-unique-id", "mine")]


@pytest.mark.parametrize(("edge", "kept"), [({}, False), ({"requestID": "Preserve"}, True)])
async def test_who_says_the_id_of_a_request(tmp_path, model_servers, edge, kept):
    models = backend("iris-predictor", model_servers["stable"].port)
    async with serving(tmp_path, isvc(), models, partial(entrance, edge=edge)) as gateway:
        replies = [await gateway.ask("/echo", headers=IDS), await http2(gateway.port, "/echo", headers=IDS)]
        for headers in (json.loads(reply.body)["headers"] for reply in replies):
            assert (headers["x-request-id"] == "mine") == kept
            assert (len(headers.get("x-xdserve-unique-id", "")) == 36) == kept
        assert len(json.loads((await gateway.ask("/echo")).body)["headers"]["x-request-id"]) == 36


@pytest.mark.parametrize("edge", [{}, {"requestID": "Preserve"}])
async def test_no_id_of_a_clients_choice_chooses_its_backend(tmp_path, model_servers, edge):
    models = backend("iris-predictor", model_servers["stable"].port)
    models += backend("iris-v2-predictor", model_servers["v2"].port)
    backends = [to_service("stable", "iris-predictor"), to_service("v2", "iris-v2-predictor")]
    made = policy(backends=backends, split=split(stable=1, v2=1), sticky={"by": "Cookie", "name": "mine"})
    async with serving(tmp_path, isvc(), models, made, partial(entrance, edge=edge)) as gateway:
        replies = [await gateway.ask(headers=IDS) for _ in range(200)]
        assert agrees({"stable": 0.5, "v2": 0.5}, Counter(reply.header("x-variant") for reply in replies))
        cookies = [reply.header("set-cookie").partition(";")[0] for reply in replies]
        assert len(set(cookies)) == 200
        for reply, cookie in zip(replies[:40], cookies, strict=False):
            again = await gateway.ask(headers=[*IDS, ("cookie", cookie)])
            assert (again.header("x-variant"), again.header("set-cookie")) == (reply.header("x-variant"), None)


# -- Headers and paths -----------------------------------------------------------------------------------------------


REFUSED = ((400, "UnderscoreInHeader"), "INTERNAL_ERROR", [])  # over HTTP/1, over HTTP/2, and what the model gets
SLASHES = ["/a%2Fb", "/a%2fb?c=%2F", "/a%5Cb", "/a%5cb"]
LOWER, KEPT = ("x-mixed", "x-model-case"), ("X-MiXed", "X-Model-Case")


@pytest.mark.parametrize(
    ("edge", "found"),
    [
        ({}, REFUSED),
        ({"underscores": "Reject"}, REFUSED),
        ({"underscores": "Drop"}, ((200, ""), 200, [False, False])),
        ({"underscores": "Allow"}, ((200, ""), 200, [True, True])),
    ],
)
async def test_headers_with_an_underscore(scene, edge, found):
    async with scene(**edge) as (gateway, heads), session(gateway) as client:
        one = await sent(gateway, "GET /a HTTP/1.1", "host: a", "x_user_id: 1", "x-other: a_b")
        two = await client.outcome(client.begin(("x_user_id", "1"), ("x-other", "a_b")))
        assert (one, two, ["x_user_id: 1" in head for head in heads]) == found
        assert all("x-other: a_b" in head for head in heads)


@pytest.mark.parametrize(("said", "answer"), [(None, 307), ("Redirect", 307), ("Keep", 200), ("Reject", 400)])
async def test_escaped_slashes(scene, said, answer):
    async with scene(**({"escapedSlashes": said} if said else {})) as (gateway, heads):
        for path in SLASHES:
            reply = await gateway.ask(path)
            assert (reply.status, reply.header("location")) == (answer, "/a/b" + path[6:] if answer == 307 else None)
            assert answer != 400 or json.loads(reply.body)["error"]["reason"] == "BadRequest"
        assert [head.split()[1] for head in heads] == (SLASHES if answer == 200 else [])
        assert (await http2(gateway.port, "/a%2Fb")).status == answer
        assert (await gateway.ask("/a%252Fb?c=%2F")).status == 200


@pytest.mark.parametrize(("said", "found"), [(None, LOWER), ("Lower", LOWER), ("Preserve", KEPT)])
async def test_the_case_of_header_names(scene, said, found):
    async with scene(**({"headerCase": said} if said else {})) as (gateway, heads):
        for size in SIZES:
            reader, writer = await asyncio.open_connection(HOST, gateway.port)
            head = f"POST /a HTTP/1.1\r\nHost: a\r\nX-MiXed: 1\r\nContent-Length: {size}\r\n\r\n"
            writer.write(head.encode() + bytes(size))
            assert found[1] in names((await reader.readuntil(b"\r\n\r\n")).decode())
            assert found[0] in names(heads.pop())
            writer.close()
        assert (await http2(gateway.port, headers=[("x-mixed", "1")])).status == 200


# -- HTTP/2 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edge", "stream", "connection", "streams"),
    [
        ({}, MIB, 16 * MIB, 100),
        ({"streamWindow": "64Ki", "connectionWindow": "128Ki", "concurrentStreams": 2}, 64 * KIB, 128 * KIB, 2),
        ({"streamWindow": "3Mi", "connectionWindow": "1Gi", "concurrentStreams": 100_000}, 3 * MIB, 1 << 30, 100_000),
    ],
)
async def test_windows_and_streams_that_the_gateway_tells_clients(scene, edge, stream, connection, streams):
    async with scene(**edge) as (gateway, _), session(gateway) as client:
        assert await client.outcome(client.begin()) == 200
        settings = client.http.remote_settings
        assert (settings.initial_window_size, settings.max_concurrent_streams) == (stream, streams)
        assert client.http.outbound_flow_control_window == connection
        for size in (KIB, MIB):
            large = client.begin(("content-length", str(size)), method="POST", ended=False)
            await client.send(large, bytes(size))
            assert await client.outcome(large) == 200


async def test_of_a_client_that_does_not_know_the_limit_yet_the_streams_beyond_it_are_refused(scene):
    async with scene(concurrentStreams=2) as (gateway, _), session(gateway) as client:
        first, second, third = [client.begin(("content-length", "3"), ended=False) for _ in range(3)]
        assert await client.outcome(third) == "REFUSED_STREAM"
        for stream in (first, second):
            await client.send(stream, b"abc")
            assert await client.outcome(stream) == 200


MALFORMED = [
    ([("X-Upper-Case", "1")], {}), ([("connection", "close")], {}), ([("transfer-encoding", "chunked")], {}),
    ([("te", "gzip")], {}), ([("x-bad", "a\0b")], {}), ([(":path", "/twice")], {}), ([("content-length", "5")], {}),
    ([("x_user", "1")], {}), ([], {"path": None}), ([], {"path": "no-slash"}), ([], {"authority": "a b"}),
    ([], {"method": "G T"}),
]  # fmt: skip


@pytest.mark.parametrize("size", [KIB, MIB])
async def test_a_malformed_request_resets_its_own_stream_alone(scene, size):
    async with scene() as (gateway, heads), session(gateway) as client:
        good = client.begin(("content-length", str(size)), method="POST", ended=False)
        for headers, pseudo in MALFORMED:
            end = await client.outcome(client.begin(*headers, **pseudo))
            assert end in {"PROTOCOL_ERROR", "INTERNAL_ERROR"}, (headers, pseudo)
        await client.send(good, bytes(size))
        assert await client.outcome(good) == 200
        assert len(heads) == 1


# -- What a change is ------------------------------------------------------------------------------------------------

CHANGES = {
    "http10": "Reject", "upgradeTLS": "Reject", "trailingDot": "Keep", "requestID": "Preserve", "underscores": "Drop",
    "escapedSlashes": "Keep", "headerCase": "Preserve", "streamWindow": "2Mi", "connectionWindow": "32Mi",
    "concurrentStreams": 101, "requestTimeout": "6m",
}  # fmt: skip


async def test_an_edit_of_edge_changes_the_listener_and_one_of_a_policy_does_not(scene):
    """By xdserve's versions: in its config dump Envoy keeps the old one when filter chains alone have changed."""
    rule = {"name": "a", "matches": [{"path": {"value": "/a:b"}}], "buffer": {"maxRequestBytes": "1Mi"}}
    async with scene() as (gateway, _):
        version = partial(gateway.plane.scope_version, ResourceType.LISTENER, LISTENER)
        found = [version()]
        for name, value in CHANGES.items():
            gateway.plane.put(entrance(gateway.port, edge={name: value}))
            found.append(version())
            gateway.plane.put(policy(timeouts={"request": "9s"}, sticky={"by": "Cookie"}, rules=[rule]))
            gateway.plane.put(policy(timeouts={"connect": "9s"}, buffer={"maxRequestBytes": "2Mi"}))
            assert version() == found[-1]
        assert len(set(found)) == 1 + len(CHANGES)
        await gateway.settled()
