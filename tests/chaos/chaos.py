"""The whole play: an Envoy, two servers, edits, restarts, requests; and moments of rest at which all must agree."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import bootstrap
from tests.chaos.edits import Editor
from tests.chaos.farm import Farm
from tests.chaos.history import History
from tests.chaos.replicas import GATEWAY, Pair, Replica
from tests.chaos.traffic import Streams, Traffic
from tests.chaos.world import World
from tests.support.envoy import pick_ports, running_envoy
from tests.support.plane import Plane
from tests.support.wait import wait_until
from xdserve.printing import SECTIONS

STALE = 10.0
"""Seconds for which an answer may be by what was true: an Envoy waits longer and longer before it connects again."""
LINGER = 1.0
GRACE = STALE + LINGER + 3.0
"""Seconds that processes and Services stay after nothing leads to them any more."""
ROUND = 8.0
"""Seconds of edits and restarts between two moments of rest."""
RATE = 200
LANES = ((60,), (30, 30), (20, 20, 20), (25, 35))

_RESOURCES = {"clusters": "clusters", "routes": "route_configs", "listeners": "listeners"}
_REJECTED = r"update_rejected$|^listener_manager\.(listener_modified|listener_create_failure)$"


@dataclass
class Figures:
    """What is printed."""

    seed: int
    concurrency: int
    rests: int = 0
    reconnects: list = field(default_factory=list)
    """Seconds from the end of a stream to the next one, as far as looking every 50 ms tells."""
    resent: Counter = field(default_factory=Counter)
    """Resources and removals sent upon reconnects at rest."""
    hidden: list = field(default_factory=list)
    """What the Envoy refused, or changed that is to stay."""


class Chaos:
    """One run; everything random comes from `seed`."""

    def __init__(self, folder, seed, *flags, concurrency=1):
        self.figures = Figures(seed, concurrency)
        self.history = History()
        self.farm = Farm()
        self._folder = folder
        self._stack = AsyncExitStack()
        (self._port,) = pick_ports(1)
        self._objects = folder / "objects"
        self._objects.mkdir()
        self.world = World(self._objects, self._port, self.history)
        self.editor = Editor(self.world, self.farm, random.Random(f"{seed} edits"), GRACE)
        self._times = random.Random(f"{seed} times")
        self.traffic = Traffic(self._port, random.Random(f"{seed} requests"), RATE)
        self.streams = Streams(self._port, LANES)
        flags = ("--linger", str(LINGER), *flags)
        self.replicas = [Replica(folder / name, self._objects, *flags) for name in ("first", "second")]
        self.pair = Pair(self.replicas, random.Random(f"{seed} restarts"))
        self.envoy = None

    async def __aenter__(self):
        await self._stack.enter_async_context(self.farm)
        await self.editor.begin()
        self._expected()  # compiles the codec, which is not to hold up requests later
        for replica in self.replicas:
            self._stack.enter_context(replica)
        await self.pair.started()
        self.envoy = self._stack.enter_context(self._envoy())
        await self.envoy.wait_ready()
        return self

    async def __aexit__(self, *error):
        await self._stack.aclose()

    def _envoy(self):
        (admin,) = pick_ports(1)
        servers = [replica.address for replica in self.replicas]
        made = bootstrap.render(GATEWAY, servers, node_id="chaos", admin_address=f"127.0.0.1:{admin}")
        return running_envoy(
            self._folder, bootstrap.to_json(made), admin, name="envoy", concurrency=self.figures.concurrency
        )

    # -- The play ----------------------------------------------------------------------------------------------

    async def run(self, seconds):
        """Traffic all the time, at least `seconds`; rounds of chaos, and a rest after each."""
        stop, until = asyncio.Event(), time.monotonic() + seconds
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.traffic.run(stop))
            streams = tasks.create_task(self.streams.run())
            watcher = tasks.create_task(self._watch())
            while time.monotonic() < until:
                await self._round(min(until, time.monotonic() + ROUND))
                await self._rest()
            await streams
            stop.set()
            watcher.cancel()
        await self._refused()

    async def _round(self, until):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._edit(until))
            tasks.create_task(self.pair.restart_some(until))

    async def _edit(self, until):
        """Edits at times as people and controllers make them: alone, and in bursts."""
        while time.monotonic() < until:
            await self.editor.edit()
            await asyncio.sleep(self._times.choice([0.0, 0.02, 0.1, 0.3, 0.6]))

    async def _watch(self):
        """Note for how long the Envoy has no stream."""
        lost = None
        while True:
            stats = await self.envoy.stats(r"^control_plane\.connected_state$")
            now = time.monotonic()
            if not stats.get("control_plane.connected_state"):
                lost = lost or now
            elif lost is not None:
                self.figures.reconnects.append(now - lost)
                lost = None
            await asyncio.sleep(0.05)

    # -- Rest --------------------------------------------------------------------------------------------------

    async def _rest(self):
        """All agree; then the Envoy moves to the other server, which has nothing to tell it; all agree still."""
        expected = self._expected()
        await self._agree(expected)
        self.history.settle(time.monotonic())
        await self._refused()
        await self._move()
        await self._agree(expected)
        self.figures.rests += 1

    async def _move(self):
        source = await wait_until(self.pair.with_envoy, 30, "one server to have the Envoy", every=0.05)
        [target] = [replica for replica in self.replicas if replica is not source]
        before = await target.sent()
        await self.pair.end(source)
        await wait_until(target.has_envoy, 30, "the Envoy to connect to the other server", every=0.02)
        await wait_until(self._asked_all, 10, "the Envoy to ask for everything", every=0.02)
        for now, then in zip(await target.sent(), before, strict=True):
            self.figures.resent += now - then
        await source.started()

    async def _asked_all(self):
        """Whether the Envoy has subscribed to every type on the stream that it has now."""
        nodes = [
            node for replica in self.replicas if replica.child.running for node in await replica.json("/debug/nodes")
        ]
        return any(len(node["types"]) >= 4 for node in nodes)

    async def _agree(self, expected):
        """Wait until both servers have what the files say, and the Envoy has it too and nothing else."""
        said = []

        async def agreed():
            said[:] = await self._differences(expected)
            return not said

        try:
            await wait_until(agreed, 60, "both servers and the Envoy to have the last edit", every=0.1)
        except TimeoutError as error:
            raise AssertionError("\n".join(map(str, said))) from error

    async def _differences(self, expected):
        """Who has what that the files do not say, and lacks what they say: (who, section and name, version)."""
        found = []
        for replica in self.replicas:
            served = await replica.versions(GATEWAY)
            found += [(replica.address, *one) for one in served.items() ^ expected.items()]
        for section, kind in _RESOURCES.items():
            wanted = {name: version for (of, name), version in expected.items() if of == section}
            found += [("Envoy", *one) for one in (await self.envoy.versions(kind)).items() ^ wanted.items()]
        return found

    def _expected(self):
        """Version by section and name, by a pipeline that reads the same documents."""
        plane = Plane()
        plane.put(*self.world.files.values())
        scope = plane.server.scope(GATEWAY)
        return {(SECTIONS[one.type], one.name): one.version for one in scope.resources()}

    async def _refused(self):
        """Keep what must never happen; counters of a cluster go with it, so this looks more than once."""
        found = await self.envoy.stats(_REJECTED)
        self.figures.hidden += [f"{name}: {count}" for name, count in found.items() if count]
        for replica in self.replicas:
            for metric in ("rejections_total", "plan_failures_total", "quarantined_total"):
                self.figures.hidden += [
                    f"{metric} {labels}: {n}" for labels, n in (await replica.metric(metric)).items()
                ]
