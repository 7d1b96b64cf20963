"""Two servers on one directory, which die and come back by turns; and what they say of themselves."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.support.serve import HOST, Serve
from tests.support.wait import wait_until

GATEWAY = "models/iris"
KILLED = 0.25
"""The share of restarts by SIGKILL."""
STRUCK = 0.6
"""The share of restarts that take the Envoy's server, whichever that is; the others take the first."""


class Replica(Serve):
    """A server that reads a directory of others, with a state of its own."""

    def __init__(self, folder, objects, *flags):
        folder.mkdir()
        super().__init__(folder, "--state-directory", str(folder / "state"), *flags)
        self.objects = objects

    @property
    def address(self):
        return f"{HOST}:{self.xds}"

    async def has_envoy(self):
        return bool(await self.json("/debug/nodes"))

    async def sent(self):
        """Resources sent and removed, by type."""
        sent, removed = await self.metric("resources_sent_total"), await self.metric("resources_removed_total")
        return Counter(sent), Counter(removed)


@dataclass
class Restarts:
    """What was done to the servers."""

    terms: int = 0
    kills: int = 0
    codes: Counter = field(default_factory=Counter)
    """Exit statuses of those that were asked to end."""


class Pair:
    """Both servers; never more than one of them is down."""

    def __init__(self, replicas, rng):
        self.replicas = replicas
        self.restarts = Restarts()
        self._rng = rng

    async def started(self):
        for replica in self.replicas:
            await replica.started()

    async def restart_some(self, until):
        """End one, start it again, wait until it is ready; again and again."""
        while time.monotonic() < until:
            await asyncio.sleep(self._rng.uniform(0.0, 1.0))
            await self.restart(await self._victim())

    async def _victim(self):
        struck = self._rng.random() < STRUCK
        return (await self.with_envoy() if struck else None) or self.replicas[0]

    async def restart(self, replica):
        await self.end(replica)
        await asyncio.sleep(self._rng.choice([0.0, 0.0, 1.0]))
        await replica.started()

    async def end(self, replica):
        """By SIGTERM mostly; the loop goes on meanwhile."""
        process = replica.child.process
        kill = self._rng.random() < KILLED
        process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        code = await wait_until(lambda: process.poll() is not None and (process.returncode,), 15, "a server to end")
        if kill:
            self.restarts.kills += 1
        else:
            self.restarts.terms += 1
            self.restarts.codes[code[0]] += 1

    async def with_envoy(self):
        """The server that the Envoy is connected to now; None while it is to none, or to both."""
        found = [replica for replica in self.replicas if await replica.has_envoy()]
        return found[0] if len(found) == 1 else None
