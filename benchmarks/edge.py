"""A gateway before and after its edge was made for the clients that people use: what requests cost, and its memory.

Both are stock Envoys with a static configuration: what xdserve made of the same objects at 0e07cee
(`data/edge-before.yaml`), and what it makes of them now. Model servers are processes of their own, the client is here.
"""

from __future__ import annotations

import asyncio
import json
import math
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import yaml

import bootstrap
from benchmarks.answer import launched
from benchmarks.envoys import open_files
from benchmarks.measure import Figure, quantile, resident
from tests.support.requests import _PREFACE, _frame, _literal
from translator.planners.options import Options
from xdserve.demo.driver import connect, post
from xdserve.demo.processes import Children, free_ports
from xdserve.demo.waiting import until
from xdserve.offline import static, translate

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[1]
GATEWAY, AUTHORITY = "models/iris", "iris-models.example.com"
BEFORE, AFTER = "before", "after"

ROUNDS, SLICES, REQUESTS, CONNECTIONS = 9, 75, 200, 16
"""A round is slices of requests by turns, so that what else the machine does meets both gateways alike."""
BODY = bytes(1024)
REQUEST = post(AUTHORITY, "/v1/models/iris:predict", BODY)
ANSWER = b'{"predictions": [0]}'

MOST = 3e9
"""Bytes of memory with which a case ends, wherever it is."""
KERNEL = 4096
"""Bytes that sockets hold between Envoy and the model that never reads, so that the rest is in Envoy's own memory."""

Sections = dict[str, list[dict[str, Any]]]


def sections() -> dict[str, Sections]:
    """Listener, routes and cluster for the same objects, as they were and as they are."""
    now = translate([ROOT / "tests/golden/plain/in.yaml"], GATEWAY, Options()).resources[GATEWAY]
    return {BEFORE: yaml.safe_load((ROOT / "benchmarks/data/edge-before.yaml").read_text()), AFTER: now}


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running Envoy."""

    port: int
    pid: int
    stats: Callable[[str], Awaitable[dict[str, int]]]

    def cpu(self) -> float:
        """Seconds of CPU that all its threads have used."""
        return time.clock_gettime(~self.pid << 3 | 2)  # as clock_getcpuclockid(3) names the clock of another process


@asynccontextmanager
async def gateway(made: Sections, upstream: int) -> AsyncIterator[Gateway]:
    """An Envoy of one worker inside the block."""
    with TemporaryDirectory(prefix="xdserve-bench-") as folder, Children(Path(folder)) as children:
        port, admin = free_ports(2, HOST)
        envoy = launched(children, json.dumps(_config(made, port, admin, upstream)), admin, "envoy")
        await envoy.wait_ready()
        yield Gateway(port, _envoy_in(envoy.child.pid), envoy.stats)


@asynccontextmanager
async def model(kind: str) -> AsyncIterator[int]:
    """A model server inside the block, which gets its port."""
    with TemporaryDirectory(prefix="xdserve-bench-") as folder, Children(Path(folder)) as children:
        (port,) = free_ports(1, HOST)
        children.start("model", [sys.executable, "-m", "benchmarks.edge", kind, str(port)])
        await until(partial(_listens, port), "the model to listen")
        yield port


def _envoy_in(pid: int) -> int:
    """The child itself may be what ties Envoy to this process."""
    below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(below[0]) if below else pid


async def _listens(port: int) -> bool:
    try:
        (await connect(HOST, port)).close()
    except OSError:
        return False
    return True


def _config(made: Sections, port: int, admin: int, upstream: int) -> dict[str, Any]:
    """The bootstrap of a gateway, with all in it that comes over xDS otherwise."""
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(upstream)}}]}]
    assignment = {"cluster_name": made["clusters"][0]["name"], "endpoints": endpoints}
    part = static.everything(GATEWAY, {**made, "endpoints": [assignment]})  # each is there twice, first as it is
    option = {"level": socket.SOL_SOCKET, "name": socket.SO_SNDBUF, "int_value": KERNEL, "state": "STATE_PREBIND"}
    cluster = {**part.clusters[-1], "upstream_bind_config": {"socket_options": [option]}}
    listener = {**part.listeners[-1], "address": _address(port)}
    found = bootstrap.render(GATEWAY, f"{HOST}:1", admin_address=f"{HOST}:{admin}")
    del found["dynamic_resources"], found["cluster_manager"]
    return {**found, "static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": HOST, "port_value": port}}


class Light(asyncio.Protocol):
    """A model that answers each request with a body of `BODY`'s length at once, and looks at nothing."""

    def connection_made(self, transport: Any) -> None:
        self._transport, self._received = transport, b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if 0 <= end <= len(self._received) - 4 - len(BODY):
            self._received = b""
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER))


async def light(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Light, HOST, port)
    await server.serve_forever()


async def mute(port: int) -> None:
    """A model that accepts all connections and never reads."""
    open_files()
    server = socket.create_server((HOST, port), backlog=4096)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL)
    kept = []
    while True:
        kept.append(server.accept())


class Asker(asyncio.Protocol):
    """A connection that asks again as soon as it is answered, while there is more to ask."""

    def __init__(self, load: Load) -> None:
        self._load, self._received = load, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(ANSWER):
            assert self._received.startswith(b"HTTP/1.1 200"), self._received
            self._received = b""
            self._load.answered(self, time.perf_counter() - self._asked)


class Load:
    """Requests to one gateway over some connections, and what they took: slice by slice, and each."""

    def __init__(self, to: Gateway) -> None:
        self._to = to
        self.seconds, self.cpu, self.latencies = list[float](), list[float](), list[float]()

    async def connect(self) -> Load:
        loop, make = asyncio.get_running_loop(), partial(Asker, self)
        self._askers = [(await loop.create_connection(make, HOST, self._to.port))[1] for _ in range(CONNECTIONS)]
        return self

    async def ask(self, *, counted: bool) -> None:
        """A slice of requests, as fast as they are answered."""
        self._found, self._left = [], REQUESTS - CONNECTIONS
        self._over = asyncio.get_running_loop().create_future()
        cpu, start = self._to.cpu(), time.perf_counter()
        for asker in self._askers:
            asker.ask()
        found = await asyncio.wait_for(self._over, 30)
        if counted:
            self.seconds.append(time.perf_counter() - start)
            self.cpu.append(self._to.cpu() - cpu)
            self.latencies += found

    def answered(self, asker: Asker, seconds: float) -> None:
        self._found.append(seconds)
        if self._left:
            self._left -= 1
            asker.ask()
        elif len(self._found) == REQUESTS:
            self._over.set_result(self._found)


MEASURES: dict[str, tuple[str, str, Callable[[Load], float]]] = {
    "requests of 1 KiB": ("/s", ">= 0.95", lambda load: REQUESTS / median(load.seconds)),
    "their p99": ("ms", "", lambda load: quantile(load.latencies, 0.99) * 1e3),
    "Envoy's CPU for one": ("µs CPU", "", lambda load: median(load.cpu) / REQUESTS * 1e6),
}


async def _requests() -> list[Figure]:
    async with model("light") as upstream:
        rounds = [await _round(sections(), upstream) for _ in range(ROUNDS)]
    return [one for name in MEASURES for one in _compared(name, rounds)]


async def _round(made: dict[str, Sections], upstream: int) -> tuple[Load, Load]:
    """Both gateways, started anew."""
    async with gateway(made[BEFORE], upstream) as before, gateway(made[AFTER], upstream) as after:
        loads = await Load(before).connect(), await Load(after).connect()
        for turn in range(-5, SLICES):
            for load in loads[:: -1 if turn % 2 else 1]:
                await load.ask(counted=turn >= 0)  # those before warm up
    return loads


def _compared(name: str, rounds: list[tuple[Load, Load]]) -> list[Figure]:
    unit, target, value = MEASURES[name]
    before, after = ([value(loads[which]) for loads in rounds] for which in (0, 1))
    ratios = [later / earlier for earlier, later in zip(before, after, strict=True)]
    spread = f"the median of {ROUNDS} rounds, each with new Envoys; {min(ratios):.2f} to {max(ratios):.2f}"
    how = f"{SLICES} times {REQUESTS} requests a round by {CONNECTIONS} connections"
    return [
        Figure(f"{name}, before", median(before), unit, "", how),
        Figure(f"{name}, after", median(after), unit),
        Figure(f"{name}, after over before", median(ratios), "x", target, spread),
    ]


class Uploads(asyncio.Protocol):
    """An HTTP/2 connection with some requests, whose bodies go on in turns until flow control or a budget ends it."""

    def __init__(self, streams: int, budget: float) -> None:
        self.sent, self.settled = 0, asyncio.Event()
        self._streams, self._budget = range(1, 2 * streams, 2), budget
        self._initial, self._windows = 65_535, {0: 65_535}
        self._turns: deque[int] = deque()
        self._received, self._may_write = bytearray(), True

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(_PREFACE + _frame(4))

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        self.send()

    def begin(self) -> None:
        """Open all requests, without a byte of their bodies."""
        head = [(":method", "POST"), (":scheme", "http"), (":path", "/upload"), (":authority", AUTHORITY)]
        for stream in self._streams:
            self._windows[stream] = self._initial
            self.transport.write(_frame(1, 4, stream, b"".join(map(_literal, head))))

    def send(self) -> None:
        """Send on from now on, and as much as may be sent now."""
        self._turns = self._turns or deque(self._streams)
        stopped = 0
        while self._may_write and stopped < len(self._turns):
            stopped = 0 if self._sent_frame(self._turns[0]) else stopped + 1
            self._turns.rotate(-1)

    def _sent_frame(self, stream: int) -> bool:
        size = int(min(16_384, self._windows[stream], self._windows[0], self._budget - self.sent))
        if size <= 0:
            return False
        self.transport.write(_frame(0, 0, stream, bytes(size)))
        self._windows[stream] -= size
        self._windows[0] -= size
        self.sent += size
        return True

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= 9:
            length, kind, flags, stream = struct.unpack("!IBBI", b"\0" + self._received[:9])
            if len(self._received) < 9 + length:
                break
            self._take(kind, flags, stream, bytes(self._received[9 : 9 + length]))
            del self._received[: 9 + length]
        if self._turns:
            self.send()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == 4 and flags & 1:
            self.settled.set()
        elif kind == 4:
            self._initial = dict(struct.iter_unpack("!HI", payload)).get(4, self._initial)
            self.transport.write(_frame(4, 1))
        elif kind == 8:
            self._windows[stream] += int.from_bytes(payload, "big")
        else:
            raise RuntimeError(f"a frame of type {kind} for stream {stream}: {payload!r}")


@dataclass(frozen=True, slots=True)
class Case:
    """Connections of a gateway, the uploads of each, and the bytes that each connection sends, 0 for its window."""

    name: str
    connections: int
    streams: int = 0
    budget: float = 0
    note: str = ""


CASES = (
    Case("memory, 100 idle HTTP/2 connections", 100),
    Case("memory, 100 stalled uploads", 1, 100, math.inf, "one connection, until flow control stops it"),
    Case("memory, 100 x 100 stalled uploads of 10 KiB", 100, 100, 2**20, "1 MiB of each connection"),
    Case("memory, 100 x 100 stalled uploads of a window", 100, 100, 0, "as much of each connection as its window"),
)


async def _memories(case: Case) -> list[Figure]:
    figures = []
    for name, made in sections().items():
        manager = made["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        budget = case.budget or manager["http2_protocol_options"]["initial_connection_window_size"]
        async with model("mute") as upstream, gateway(made, upstream) as one:
            held, note = await _memory(one, case, budget)
        figures.append(Figure(f"{case.name}, {name}", held / 1e6, "MB", "", note))
    before, after = figures
    return [before, after, Figure(f"{case.name}, after over before", after.value / before.value, "x")]


async def _memory(of: Gateway, case: Case, budget: float) -> tuple[float, str]:
    """Bytes that an Envoy holds in the end, and a note."""
    clients = [await _connected(of, Uploads(case.streams, budget)) for _ in range(case.connections)]
    for number, client in enumerate(clients, 1):
        client.begin()
        # Were they opened all at once, some connections to the model would time out.
        await until(partial(_arrived, of, number * case.streams), "the uploads to be at the model")
    for client in clients:
        client.send()
    held = await _steady(of, clients)
    sent = sum(client.sent for client in clients) / 1e6
    for client in clients:
        client.transport.abort()
    note = f"{case.note}: {sent:,.0f} MB sent" if case.streams else case.note
    return held, f"{note}; ended at {MOST / 1e9:g} GB" if held > MOST else note


async def _connected(to: Gateway, client: Uploads) -> Uploads:
    await asyncio.get_running_loop().create_connection(lambda: client, HOST, to.port)
    await asyncio.wait_for(client.settled.wait(), 10)
    return client


async def _arrived(at: Gateway, wanted: int) -> bool:
    (active,) = (await at.stats("^cluster.*upstream_cx_active$")).values()
    return active >= wanted


async def _steady(of: Gateway, clients: list[Uploads]) -> float:
    """The memory once neither it nor what was sent has changed by a megabyte for a second, or it is too much."""
    seen: deque[tuple[float, int]] = deque(maxlen=20)

    async def steady() -> float | None:
        held = resident(of.pid)
        seen.append((held // 1e6, sum(client.sent for client in clients)))
        return held if held > MOST or (len(seen) == 20 and len(set(seen)) == 1) else None

    return await until(steady, "the memory to be steady", 60, every=0.05)


async def _run() -> list[Figure]:
    return [*await _requests(), *[one for case in CASES for one in await _memories(case)]]


def figures() -> list[Figure]:
    """The lines of the table."""
    open_files()
    return asyncio.run(_run())


if __name__ == "__main__":
    asyncio.run({"light": light, "mute": mute}[sys.argv[1]](int(sys.argv[2])))
