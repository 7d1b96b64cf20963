"""20,000 connections that come and go, in every phase and both variants, at a server in a process of its own.

    python -m tests.fuzz.soak [cycles]

Prints the server's resident memory as it goes, and its slope over the second half.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import grpc
import grpc.aio

from tests.stream.rig import GATEWAY, Record
from tests.support.model_envoy import make
from tests.support.streams import DELTA_ADS, STREAM_ADS
from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.service.discovery.v3 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    DiscoveryRequest,
    DiscoveryResponse,
)
from xds.api.google.rpc import Status
from xds.server import Limits, Server
from xds.session import Terms
from xds.types import ResourceType
from xds.wire import decode, encode

tell = partial(print, flush=True)

CYCLES = 20_000
STEPS = 10
AT_ONCE = 16
DEADLINE = 30.0
CLUSTER = ResourceType.CLUSTER
STATE = "/soak/State"
PHASES = ["silent", "asked", "in flight", "acknowledged", "refused", "stranger", "broken", "done"]


# -- The server --------------------------------------------------------------------------------------------------------


class Forgetful(Record):
    """An observer that keeps numbers alone."""

    def __init__(self):
        super().__init__()
        self.opened_streams = self.closed_streams = 0

    def opened(self, stream):
        self.opened_streams += 1

    def closed(self, stream):
        self.closed_streams += 1

    def event(self, stream, event):
        pass

    def sent(self, stream, response):
        pass

    def refused(self, peer, status, message):
        self.refusals[status] += 1


def resident():
    """Resident memory of this process in KB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def state(server, record):
    """What the server keeps; objects are counted after a collection, so that no cycle is taken for a leak."""
    gc.collect()
    scope = server.scope(GATEWAY)
    return {
        "rss": resident(),
        "tasks": len(asyncio.all_tasks()),
        "calls": len(server._calls),
        "streams": len(server._streams),
        "gateways": len(server._gateways),
        "members": sum(gateway.connected for gateway in server._gateways.values()),
        "losses": sum(len(gateway._losses) for gateway in server._gateways.values()),
        "refused": len(scope._refused) + sum(map(len, scope._suspects.values())),
        "objects": len(gc.get_objects()),
        "blocks": sys.getallocatedblocks(),
        "opened": record.opened_streams,
        "closed": record.closed_streams,
        "refusals": dict(record.refusals),
    }


async def serve():
    record = Forgetful()
    limits = Limits(admission_rate=1_000_000.0)
    server = Server(Terms(identifier="soak", linger=0.05), record, limits=limits)
    port = await server.start("127.0.0.1:0")
    revisions = count()
    over = asyncio.Event()

    async def answer():
        loop = asyncio.get_running_loop()
        while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
            if line == "state":
                server.changed_scopes()
                tell(json.dumps(state(server, record)))
            else:
                server.publish(GATEWAY, [make(CLUSTER, name, next(revisions)) for name in "ab"])
        over.set()

    server.publish(GATEWAY, [make(CLUSTER, name, next(revisions)) for name in "abc"])
    server.open()
    tell(port)
    answering = asyncio.create_task(answer())
    await over.wait()
    await answering
    await server.stop(1)


# -- The clients -------------------------------------------------------------------------------------------------------


@dataclass
class Soak:
    """What was seen."""

    cycles: int
    seconds: float = 0.0
    states: list[dict] = field(default_factory=list)
    """After each step; the first after a warm-up of one step."""
    ends: Counter = field(default_factory=Counter)

    @property
    def slope(self):
        """KB in 1,000 cycles, by least squares over the second half."""
        step = self.cycles / STEPS / 1_000
        half = self.states[len(self.states) // 2 :]
        points = [(index * step, one["rss"]) for index, one in enumerate(half)]
        x_mean = sum(x for x, _ in points) / len(points)
        y_mean = sum(y for _, y in points) / len(points)
        spread = sum((x - x_mean) ** 2 for x, _ in points)
        return sum((x - x_mean) * (y - y_mean) for x, y in points) / spread


def request(sotw, gateway=None, nonce="", error=None):
    kind = DiscoveryRequest if sotw else DeltaDiscoveryRequest
    node = Node(id="envoy", cluster=gateway) if gateway else None
    return encode(kind(node=node, type_url=CLUSTER, response_nonce=nonce, error_detail=error))


async def ended(call):
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
        return (await call.code()).name
    except grpc.aio.AioRpcError as error:
        return error.code().name


async def cycle(channel, number):
    """One stream, to the end of its phase; how it ended."""
    phase, sotw = PHASES[number % len(PHASES)], number // len(PHASES) % 2
    call = channel.stream_stream(STREAM_ADS if sotw else DELTA_ADS)()
    gateway = f"models/stranger-{number}" if phase == "stranger" else GATEWAY
    if phase == "broken":
        await call.write(b"\xff")
        return await ended(call)
    if phase != "silent":
        await call.write(request(sotw, gateway))
    if phase in {"in flight", "acknowledged", "refused", "done"}:
        response = decode(DiscoveryResponse if sotw else DeltaDiscoveryResponse, await call.read())
        error = Status(code=13, message="cluster a: no") if phase == "refused" else None
        if phase != "in flight":
            await call.write(request(sotw, nonce=response.nonce, error=error))
    if phase == "done":
        await call.done_writing()
        return await ended(call)
    call.cancel()
    return "CANCELLED"


async def cycles(channel, numbers, ends):
    """Several at once, each after the one before."""
    numbers = iter(numbers)

    async def work():
        for number in numbers:
            async with asyncio.timeout(DEADLINE):
                ends[await cycle(channel, number)] += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(work())


class Child:
    """The server's process."""

    async def start(self):
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.fuzz.soak", "serve",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        return int(await self.process.stdout.readline())

    async def say(self, line):
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()

    async def state(self):
        await self.say("state")
        return json.loads(await self.process.stdout.readline())

    async def settled(self, tasks):
        """The state when no call is left, and no more than these tasks: gRPC's own end a little later."""
        async with asyncio.timeout(DEADLINE):
            while (found := await self.state())["calls"] or found["tasks"] > tasks:
                pass
        return found

    async def stop(self):
        self.process.stdin.close()
        async with asyncio.timeout(DEADLINE):
            await self.process.wait()


async def soak(number=CYCLES, say=lambda line: None):
    """Run so many cycles, in steps, after one step to warm up; a new connection for each step."""
    child, found, step = Child(), Soak(number), number // STEPS
    port = await child.start()
    idle = (await child.state())["tasks"]
    started = time.monotonic()
    for index in range(-1, STEPS):
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            await cycles(channel, range(index * step, (index + 1) * step), found.ends)
        await child.say("publish")
        found.states.append(state := await child.settled(idle))
        figures = f"{state['rss']:>8,} KB  {state['objects']:>8,} objects  {state['blocks']:>8,} blocks"
        say(f"{(index + 1) * step:>7,} cycles  {figures}")
    found.seconds = time.monotonic() - started
    await child.stop()
    return found


async def main(number):
    found = await soak(number, tell)
    tell(f"slope over the second half: {found.slope:+.1f} KB in 1,000 cycles")
    tell(f"{(number + number // STEPS) / found.seconds:,.0f} cycles/s; ends {dict(found.ends)}")
    tell(f"left at the end: {found.states[-1]}")


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1:] == ["serve"] else main(int((sys.argv[1:] or [CYCLES])[0])))
