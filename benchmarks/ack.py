"""From an edit to the ACK on the wire: the real server, and a model of an Envoy at the other end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import cycle

from benchmarks import fleet
from benchmarks.envoys import Crowd, play
from benchmarks.measure import Figure, quantile
from benchmarks.plane import DEADLINE, Plane, serving
from xds.types import ResourceType
from xds.wire import resource

HELD = (10, 1_000, 10_000)
EDITS = 300
GATEWAY = f"{fleet.NAMESPACE}/iris-1"


async def measure(plane: Plane, change: Callable[[], None], type_: ResourceType, count: int) -> list[float]:
    """Seconds from each change to its ACK."""
    seconds = []
    for _ in range(count):
        acknowledged = plane.acks.expect(type_)
        start = time.perf_counter()
        change()
        seconds.append(await asyncio.wait_for(acknowledged, DEADLINE) - start)
    return seconds


def publishing(plane: Plane) -> Callable[[], None]:
    """Publish a changed cluster of some 500 bytes, made before."""
    name = f"{GATEWAY}/predictor"
    turn = cycle([resource(ResourceType.CLUSTER, name, bytes([65 + number]) * 500) for number in range(2)])
    return lambda: plane.server.publish(GATEWAY, [next(turn)])


def editing(plane: Plane) -> Callable[[], None]:
    """Change the weight of a canary."""
    turn = cycle([fleet.puts(fleet.service(1, weight=weight)[:1]) for weight in (20, 30)])
    return lambda: plane.apply(next(turn))


async def _run() -> list[Figure]:
    figures: list[Figure] = []
    medians: dict[str, list[float]] = {}
    async with serving() as (plane, port):
        await plane.grow(HELD[0])
        first = plane.acks.expect(ResourceType.ROUTE)
        client = asyncio.create_task(play(Crowd(port=port, gateway=GATEWAY)))
        await asyncio.wait_for(first, DEADLINE)
        for held in HELD:
            await plane.grow(held)
            for name, change, type_ in (
                ("publish", publishing(plane), ResourceType.CLUSTER),
                ("edit", editing(plane), ResourceType.ROUTE),
            ):
                seconds = await measure(plane, change, type_, EDITS)
                median = quantile(seconds, 0.5)
                medians.setdefault(name, []).append(median)
                note = f"{held:,} gateways held; p99 {quantile(seconds, 0.99) * 1e3:.2f} ms"
                figures.append(Figure(f"{name} -> ACK, median", median * 1e3, "ms", "", note))
        client.cancel()
        await asyncio.wait([client])
    for name, values in medians.items():
        figures.append(Figure(f"{name} -> ACK, {HELD[-1]:,} over {HELD[0]} held", values[-1] / values[0], "x", "~ 1"))
    return figures


def figures() -> list[Figure]:
    """The lines of the table."""
    return asyncio.run(_run())
