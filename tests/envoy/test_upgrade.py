"""One version of xdserve takes the place of another, whose listener is not the same, while streams and requests run.

`upgrade/before.yaml` is what a former commit served for `upgrade/objects.yaml`, byte for byte. One server serves that,
another what is translated now: one after the other, at the same port. The Envoy drains for `DRAIN` seconds; in a
gateway's pod it is a minute.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import grpc.aio
import pytest
import yaml
from google.protobuf.json_format import ParseDict

from tests.support.envoy import envoy_binary, pick_ports
from tests.support.grpc_streams import GrpcStream, GrpcStreamer, calls
from tests.support.plane import IRIS, Gateway, control_plane, gateway
from tests.support.steady import Steady
from tests.support.stubs import EventStream, Streamer, stub_server
from tests.support.wait import wait_until
from tests.unit.wire.reference import POOL, google_class, serialize
from xds.types import ResourceType
from xds.wire import resource
from xdserve.demo.driver import Connection, connect, post
from xdserve.printing import CLASSES, SECTIONS

FOLDER = Path(__file__).with_name("upgrade")
PORTS = ("61001", "61002", "61003", "61004", "61005")
DRAIN = 5
STREAMS = 8
USERS = 20
PER_SECOND = 100
KEPT = 8
HOST = "iris-models.example.com"
PATH = "/v1/models/iris:predict"
BODY, LARGE = (b'{"instances": [1], "padding": "%s"}' % (b"x" * size) for size in (1 << 10, 1 << 20))
TLS = [("connection", "Upgrade"), ("upgrade", "TLS/1.2")]
ANSWER_TO_TLS = {"before": 403, "now": 200}
LISTENER_STATS = r"^listener_manager\.(listener_(added|modified|removed|in_place_updated)|lds\.update_rejected)$"


# -- What is served ------------------------------------------------------------------------------------------------


def read(file, ports):
    """The documents of a file, with the ports of this run where others stand for them."""
    text = (FOLDER / file).read_text()
    for stands, port in zip(PORTS, ports, strict=True):
        text = text.replace(stands, str(port))
    return list(yaml.safe_load_all(text))


def before(ports):
    """The resources of the former commit, as Google's Protobuf encodes them."""
    (sections,) = read("before.yaml", ports)
    clusters = frozenset(one["name"] for one in sections["clusters"])
    for kind, section in SECTIONS.items():
        for one in sections[section]:
            body = serialize(ParseDict(one, google_class(CLASSES[kind])(), descriptor_pool=POOL))
            uses = clusters if kind is ResourceType.ROUTE else frozenset()
            yield resource(kind, one.get("name") or one["cluster_name"], body, uses=uses)


def requests():
    """One of ten is large."""
    return [post(HOST, PATH, body) for body in (*[BODY] * 9, LARGE)]


@asynccontextmanager
async def version(name, xds, ports):
    """A plane at the port `xds` that serves a version, all of it from the first answer."""
    async with control_plane(port=xds, opened=False) as plane:
        if name == "now":
            plane.put(read("objects.yaml", ports))
        else:
            plane.server.publish(IRIS, before(ports))
        plane.server.open()
        yield plane


# -- Who streams, who asks -----------------------------------------------------------------------------------------


@dataclass
class Models:
    """The models that stream: those at `/stream/short` end by the test's word, the others never."""

    short: Streamer = field(default_factory=Streamer)
    long: Streamer = field(default_factory=Streamer)
    grpc: GrpcStreamer = field(default_factory=GrpcStreamer)

    async def handle(self, head, writer):
        await (self.short if head.startswith("GET /stream/short") else self.long).handle(head, writer)

    def send(self, event):
        for model in (self.short, self.long, self.grpc):
            model.send(event)


async def users(port, cookies):
    """The variant that each user meets, by cookie; one without a cookie is given one."""
    met, connection = {}, await connect("127.0.0.1", port)
    for cookie in cookies:
        if not connection.open:
            connection = await connect("127.0.0.1", port)
        answer = await connection.ask(post(HOST, PATH, BODY, {"cookie": cookie} if cookie else None))
        assert answer.status == 200, answer
        met[cookie or answer.cookie.partition(";")[0]] = answer.variant
    connection.close()
    return met


async def hears(streams, event):
    return {await stream.event() for stream in streams} == {event}


async def cut(stream):
    """When the gateway cuts a stream."""
    with pytest.raises((ValueError, ConnectionError, asyncio.IncompleteReadError, grpc.aio.AioRpcError)):
        await stream.event()
    return datetime.now(UTC)


async def changed(started):
    """When Envoy took the listener that it has."""
    (listener,) = await started.dump("dynamic_listeners")
    return datetime.fromisoformat(listener["active_state"]["last_updated"])


async def listener_stats(started):
    stats = await started.envoy.stats(LISTENER_STATS)
    return Counter({name.removeprefix("listener_manager."): value for name, value in stats.items()})


@pytest.fixture(autouse=True)
def draining(tmp_path, monkeypatch):
    """The Envoy of these tests drains for a shorter time."""
    script = tmp_path / "draining-envoy"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(str(envoy_binary()))} --drain-time-s {DRAIN} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("XDSERVE_ENVOY", str(script))


# -- What is cut, and what is not ----------------------------------------------------------------------------------


@dataclass
class Scene:
    """An Envoy with what the older version served, and everybody who uses it."""

    started: Gateway
    models: Models
    load: Steady
    called: Counter
    idle: Connection
    short: EventStream
    streams: list

    @property
    def port(self):
        return self.started.port

    async def go_on(self, requests=PER_SECOND):
        """Wait until as many more requests have been answered, and a call too."""
        until, called = self.load.answers.total() + requests, self.called.total()
        await wait_until(lambda: self.load.answers.total() >= until and self.called.total() > called, 20, "the load")


@asynccontextmanager
async def scene(started, models):
    """Streams and a load through a gateway."""
    port, load = started.port, Steady(started.port, requests(), per_second=PER_SECOND, kept=KEPT)
    async with AsyncExitStack() as stack:
        short = await EventStream.open(port, "/stream/short")
        over_grpc = await GrpcStream.open(port)
        stack.push_async_callback(over_grpc.close)
        streams = [over_grpc, *[await EventStream.open(port, "/stream") for _ in range(STREAMS)]]
        for stream in (short, *streams[1:]):
            stack.callback(stream.close)
        idle = await connect("127.0.0.1", port)
        assert (await idle.ask(post(HOST, PATH, BODY))).status == 200
        await stack.enter_async_context(load.running())
        yield Scene(started, models, load, await stack.enter_async_context(calls(port)), idle, short, streams)


@asynccontextmanager
async def backends(model_servers):
    """The models that stream, and the ports of all models."""
    models = Models()
    async with stub_server(models.handle) as stream, models.grpc.serving() as over_grpc:
        yield models, [model_servers["stable"].port, model_servers["v2"].port, stream, over_grpc]


@pytest.mark.parametrize(("old", "new"), [("before", "now"), ("now", "before")], ids=["upgrade", "downgrade"])
async def test_a_version_with_another_listener_fails_no_request(tmp_path, model_servers, old, new):
    port, xds = pick_ports(2)
    async with AsyncExitStack() as stack:
        models, others = await stack.enter_async_context(backends(model_servers))
        first = await stack.enter_async_context(version(old, xds, [port, *others]))
        started = await stack.enter_async_context(gateway(first, tmp_path, port))
        assert (await started.ask(headers=TLS)).status == ANSWER_TO_TLS[old]
        met = await users(port, [""] * USERS)
        assert len(met) == USERS
        running = await stack.enter_async_context(scene(started, models))
        await running.go_on()
        stats = await listener_stats(started)
        await first.server.stop(0.1)
        await running.go_on()
        started.plane = await stack.enter_async_context(version(new, xds, [port, *others]))
        await started.settled(30)
        await goes_on(running)
        assert (await started.ask(headers=TLS)).status == ANSWER_TO_TLS[new]
        assert await users(port, met) == met
        ends = await ended_by_the_drain(running)
        await running.go_on()
        assert await listener_stats(started) - stats == Counter(listener_modified=1, listener_in_place_updated=1)
        assert started.plane.sent() == Counter(lds=1, rds=1)
        assert started.plane.rejections().total() == 0
    assert set(running.load.answers) == {200}, running.load.answers
    assert set(running.called) == {"OK"}, running.called
    said(running, ends)


async def goes_on(running):
    """Every stream has what is said after the change, and one that ends is whole."""
    running.models.send("after")
    assert await hears([running.short, *running.streams], "after")
    running.models.short.finish()
    assert await running.short.event() == ""


async def ended_by_the_drain(running):
    """When streams of the old listener end, in seconds since it was changed.

    By then answers have ended the connections that are in use. A stream that began after the change goes on.
    """
    late = await EventStream.open(running.port, "/stream")
    cuts = [asyncio.create_task(cut(stream)) for stream in running.streams]
    await wait_until(lambda: running.load.closed >= KEPT, DRAIN, "the kept connections to end")
    assert running.idle.open
    assert not any(task.done() for task in cuts)
    since = [(one - await changed(running.started)).total_seconds() for one in await asyncio.gather(*cuts)]
    running.models.send("later")
    assert await late.event() == "later"
    late.close()
    assert min(since) > DRAIN - 0.5, since
    assert max(since) < DRAIN + 3, since
    await wait_until(lambda: not running.idle.open, 10, "the idle connection to end")
    return since


def said(running, ends):
    load = running.load
    sys.stdout.write(
        f"\n{load.answers.total()} requests in {load.took:.1f} s, the slowest took {load.slowest * 1000:.0f} ms; "
        f"{running.called.total()} gRPC calls; none failed; {load.closed} kept connections ended; "
        f"{len(ends)} streams cut {min(ends):.2f} to {max(ends):.2f} s after the change\n"
    )
