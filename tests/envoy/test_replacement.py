"""Pods are replaced and become fewer under load: no request fails but what a model had when it was killed.

What a cluster does around it is the test's: a pod is in the EndpointSlice before another is killed, and the one that is
killed leaves it later than it dies. Until then the gateway sends requests to where nobody listens.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import product

import aiohttp
import grpc.aio
import pytest

from tests.support.documents import entrance, isvc
from tests.support.plane import HOST, serving
from tests.support.pods import NUMBER, running_pods, said
from tests.support.wait import wait_until

KIB, MIB = 1 << 10, 1 << 20
KINDS = list(product(("http1", "grpc"), (KIB, 100 * KIB, MIB)))
PER_SECOND = 100
ONE_LEAVES, MANY_LEAVE = 35, 100
"""Requests that are sent from the death of pods until they leave their EndpointSlice: 0.35 s and 1 s."""
LATE = 1
"""Requests for each pod killed that may cross with its death, before the gateway has seen it. There are 0 to 3 for 70
pods, and 24 on a machine with no time left; a gateway that did not look would send 300."""
ROUNDS = 10
SECONDS = 20
PREDICT = "/v1/models/iris:predict"
INFER = "/inference.GRPCInferenceService/ModelInfer"


# -- Requests --------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """The end of a request; `wrong` says how it failed."""

    number: int
    protocol: str
    size: int
    wrong: str
    seconds: float

    def __str__(self):
        return f"{self.number}: {self.protocol}, {self.size} bytes, after {self.seconds:.3f} s: {self.wrong}"


class Load:
    """Requests on a timetable, whatever becomes of those before: every protocol and size in turn."""

    def __init__(self, port, session, channel):
        self._url, self._session = f"http://{HOST}:{port}{PREDICT}", session
        self._call = channel.unary_unary(INFER)
        self._asks = {"http1": self._post, "grpc": self._infer}
        self._loop = asyncio.get_running_loop()
        self._open, self._timer = set(), None
        self.started, self.outcomes = 0, []

    @asynccontextmanager
    async def running(self):
        async with asyncio.TaskGroup() as tasks:
            self._start(tasks, self._loop.time())
            try:
                yield self
            finally:
                self._timer.cancel()

    async def more(self, requests):
        """Wait until so many more have been started: the clock of the test."""
        then = self.started + requests
        await wait_until(lambda: self.started >= then, SECONDS, f"{requests} requests")

    async def caught_up(self):
        """Wait until all that have been started by now have an answer."""
        then = self.started
        await wait_until(lambda: not self._open or min(self._open) >= then, 2 * SECONDS, "answers")

    def _start(self, tasks, due):
        tasks.create_task(self._ask(self.started))
        self.started += 1
        due += 1 / PER_SECOND
        self._timer = self._loop.call_at(due, self._start, tasks, due)

    async def _ask(self, number):
        protocol, size = KINDS[number % len(KINDS)]
        body, begun = body_of(size, number), self._loop.time()
        self._open.add(number)
        answer = await self._asks[protocol](number, body)
        self._open.discard(number)
        wrong = "" if answer == said(body) else answer or "an empty answer"
        self.outcomes.append(Outcome(number, protocol, size, wrong, self._loop.time() - begun))

    async def _post(self, number, body):
        try:
            async with self._session.post(self._url, data=body, headers={NUMBER: str(number)}) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            return repr(error)
        return text if response.status == 200 else f"{response.status} {text}"

    async def _infer(self, number, body):
        try:
            return (await self._call(body, metadata=((NUMBER, str(number)),), timeout=SECONDS)).decode()
        except grpc.aio.AioRpcError as error:
            return f"{error.code()} {error.details()}"


def body_of(size, number):
    """A body that no other request has."""
    return (b"%08d" % number * (size // 8))[:size]


@asynccontextmanager
async def load_on(port):
    """Clients that keep their connections and repeat nothing by themselves."""
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    channel = grpc.aio.insecure_channel(f"{HOST}:{port}", options=[("grpc.enable_retries", 0)])
    connector = aiohttp.TCPConnector(limit=0)
    session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)
    async with channel, session, Load(port, session, channel).running() as load:
        yield load


# -- What is done to pods --------------------------------------------------------------------------------------------


async def grow(gateway, pods, many):
    """So many more pods; they have served a request each."""
    new = pods.start(many)
    gateway.plane.put(pods.slice())
    await wait_until(lambda: all(pod.begun for pod in new), SECONDS, "new pods to be asked")


async def shrink(gateway, load, pods, leaving, lag):
    """These pods die at once, and leave the EndpointSlice later."""
    pods.kill(leaving)
    gateway.plane.put(pods.slice(also=leaving))
    await load.more(lag)
    gateway.plane.put(pods.slice())


async def replace(gateway, load, pods):
    """A rolling update with maxSurge 1 and maxUnavailable 0."""
    for old in list(pods.up):
        await grow(gateway, pods, 1)
        await shrink(gateway, load, pods, [old], ONE_LEAVES)


async def scale_down(gateway, load, pods):
    """All pods but one die at once; then there are as many again."""
    many = len(pods.up) - 1
    await shrink(gateway, load, pods, random.sample(pods.up, many), MANY_LEAVE)
    await grow(gateway, pods, many)
    await load.caught_up()


@pytest.mark.parametrize(("happens", "many"), [(replace, 4), (scale_down, 8)], ids=["replace-4", "scale-8-to-1"])
async def test_no_request_fails_but_what_a_killed_model_had(tmp_path, happens, many):
    with running_pods("iris-predictor", many) as pods:
        async with serving(tmp_path, isvc(), pods.service(), pods.slice(), entrance) as gateway:
            async with load_on(gateway.port) as load:
                await wait_until(lambda: all(pod.begun for pod in pods.up), SECONDS, "all pods to be asked")
                for _ in range(ROUNDS):
                    await happens(gateway, load, pods)
            stats = await gateway.envoy.stats("^cluster.models/iris/predictor.*(_rq_retry|_cx_connect_fail)$")
        found = Found.of(load.outcomes, pods)
        sys.stdout.write(f"\n{found.figures()}; {stats}\n")
        found.check()
        assert len(load.outcomes) == load.started
        assert len(stats) == 4
        assert all(stats.values()), f"nothing was refused and repeated: {stats}"


@dataclass
class Found:
    """The outcomes of a run, and what the logs of its pods say: numbers of requests."""

    outcomes: list
    killed: int
    begun: Counter
    excused: set
    late: list

    @classmethod
    def of(cls, outcomes, pods):
        killed = [pod for pod in pods.ever if pod.dead]
        begun = Counter(number for pod in pods.ever for number in pod.begun)
        excused = set().union(*(pod.lost for pod in killed))
        return cls(outcomes, len(killed), begun, excused, [number for pod in killed for number in pod.late])

    def check(self):
        """The promise of the test, and proof that it was put to the test."""
        failed = [outcome for outcome in self.outcomes if outcome.wrong and outcome.number not in self.excused]
        assert not failed, "in flight in no model that was killed:\n" + "\n".join(map(str, failed))
        twice = [number for number, times in self.begun.items() if times > 1]
        assert not twice, f"came to models more than once: {twice}"
        assert self.excused, "nothing was in flight in a model that was killed"
        assert len(self.late) <= self.killed * LATE, f"sent to models that were dead: {self.late}"
        assert all(self._asked()[kind] > 50 for kind in KINDS), self._asked()

    def figures(self):
        failed = sum(bool(outcome.wrong) for outcome in self.outcomes)
        asked = ", ".join(f"{protocol} {size >> 10} KiB {self._asked()[protocol, size]}" for protocol, size in KINDS)
        slowest = max(outcome.seconds for outcome in self.outcomes)
        return (
            f"{asked}; {self.killed} pods killed, {len(self.excused)} requests in flight there "
            f"({len(self.late)} late); {failed} failed; slowest {slowest:.2f} s"
        )

    def _asked(self):
        return Counter((outcome.protocol, outcome.size) for outcome in self.outcomes)
