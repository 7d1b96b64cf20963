"""The store of last good versions: written at first, found unchanged, and read at start."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.measure import Figure
from translator.objects.ref import Origin, Ref
from xds.memory import Memory
from xds.scope import Scope
from xds.types import ResourceType
from xds.wire.resource import Resource, resource
from xdserve.store import Keeper, Store

GATEWAYS = 10_000
KINDS = (
    ResourceType.CLUSTER,
    ResourceType.CLUSTER,
    ResourceType.ENDPOINT,
    ResourceType.ENDPOINT,
    ResourceType.LISTENER,
    ResourceType.ROUTE,
)
RESOURCES = GATEWAYS * len(KINDS)
BYTES = 600
"""Of a resource; what the fleet's have in the middle."""


def _resources(gateway: int) -> list[Resource]:
    origin = Origin(Ref("serving.kserve.io", "InferenceService", "models", f"iris-{gateway}"), "spec.predictor")
    return [
        resource(kind, f"models/iris-{gateway}/{number}", b"%d" % gateway * (BYTES // len(str(gateway))), origin=origin)
        for number, kind in enumerate(KINDS)
    ]


def _memories(gateway: int) -> tuple[str, list[Memory]]:
    found = _resources(gateway)
    return f"models/iris-{gateway}", [Memory(type=o.type, name=o.name, good=(o,), refused=()) for o in found]


async def _longest_turn(path: Path) -> float:
    """CPU seconds of the process in the longest turn of the event loop, while ACKs of 5,000 names are written.

    By the wall, a turn is as long as other programs have the processors: on a busy machine that is all there is to see.
    """
    store = Store.open(path)
    if store is None:
        raise RuntimeError("no store")
    scope = Scope("models/iris")
    scope.update([resource(ResourceType.ROUTE, f"r{number}", b"x" * BYTES) for number in range(5000)])
    versions = {found.name: found.version for found in scope.resources()}
    scope.acknowledge(ResourceType.ROUTE, versions)
    keeper = Keeper(store, lambda: {"models/iris": scope})
    # As the program does after its first pass: a full collection of all that was read is not the store's.
    gc.collect()
    gc.freeze()
    flushing = asyncio.create_task(keeper.flush())
    longest, before = 0.0, time.process_time()
    while not flushing.done():
        await asyncio.sleep(0)
        now = time.process_time()
        longest, before = max(longest, now - before), now
    await keeper.close()
    gc.unfreeze()
    return longest


def _cpu(path: Path) -> tuple[float, float, float, int]:
    """CPU seconds of a first save, of one that finds nothing changed, and of opening; and the size in bytes."""
    store = Store.open(path)
    if store is None:
        raise RuntimeError("no store")
    said = [_memories(number) for number in range(GATEWAYS)]
    start = time.process_time()
    for first in range(0, GATEWAYS, 200):
        store.save(said[first : first + 200])
    saved = time.process_time()
    store.save(said)
    compared = time.process_time()
    store.close()
    before = time.process_time()
    again = Store.open(path)
    opened = time.process_time()
    if again is None or len(again.load()) != GATEWAYS:
        raise RuntimeError("not what was saved")
    again.close()
    return saved - start, compared - saved, opened - before, path.stat().st_size


def figures() -> list[Figure]:
    """The lines of the table."""
    with TemporaryDirectory(prefix="xdserve-bench-") as name:
        saved, compared, opened, size = _cpu(Path(name) / "store")
        longest = asyncio.run(_longest_turn(Path(name) / "other"))
    how = f"{RESOURCES:,} resources of {BYTES} bytes"
    return [
        Figure("store read at start", opened, "s", "< 2", f"{how}, a file of {size / 1e6:.0f} MB"),
        Figure("store written at first", saved, "s", "", how),
        Figure("store found unchanged", compared, "s", "", how),
        Figure("longest turn of the loop", longest * 1000, "ms", "", "of CPU, while 5,000 names are written"),
    ]
