"""A rolling update of a gateway under load: no request fails, and a stream that runs completes.

What a cluster does around it is the test's: it starts and ends pods as a kubelet, in the order of a Deployment with
maxSurge 1 and maxUnavailable 0, and leads clients only to pods that are ready, as a Service does.
"""

from __future__ import annotations

import asyncio
import random
import socket
import sys
import time
from collections import Counter
from contextlib import ExitStack, asynccontextmanager

import aiohttp
import pytest_asyncio
from aiohttp import web
from aiohttp.abc import AbstractResolver

from bootstrap.manifests import HASH
from tests.support.cluster import GATEWAY_PORT, NAME, VARIANTS, Replica
from tests.support.model import Model, serve
from tests.support.podnet import PodNetwork
from tests.support.processes import Children
from tests.support.wait import wait_until

PER_SECOND = 200
RESTARTED = "kubectl.kubernetes.io/restartedAt"
STREAM = "/events"


class Streaming(Model):
    """A model that also streams numbered events until `finish`, and then one more: `done`."""

    def __init__(self, variant):
        super().__init__(variant)
        self.finish = asyncio.Event()

    async def echo(self, request):
        if request.path != STREAM:
            return await super().echo(request)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        number = 0
        while not self.finish.is_set():
            await response.write(f"data: {number}\n\n".encode())
            number += 1
            try:
                await asyncio.wait_for(self.finish.wait(), 0.1)
            except TimeoutError:
                continue
        await response.write(b"data: done\n\n")
        return response


class Service(AbstractResolver):
    """Leads each new connection to one of the pods that are ready."""

    def __init__(self, pods):
        self.pods = list(pods)

    async def resolve(self, host, port=0, family=socket.AF_INET):
        address = random.choice(self.pods).host
        return [{"hostname": host, "host": address, "port": port, "family": family, "proto": 0, "flags": 0}]

    async def close(self):
        """Nothing is open."""


class Load:
    """Requests at a steady rate, whatever becomes of those before: one half on connections that are kept."""

    def __init__(self, service):
        self._url = f"http://{NAME}.test:{GATEWAY_PORT}/v1/models/{NAME}:predict"
        self._service = service
        self.answers = Counter()
        self.seconds = 0.0

    @asynccontextmanager
    async def running(self):
        end, begun = asyncio.Event(), time.perf_counter()
        async with self._session(force_close=False) as keeping, self._session(force_close=True) as fresh:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send(tasks, end, (keeping, fresh)))
                yield self
                end.set()
            self.seconds = time.perf_counter() - begun

    async def _send(self, tasks, end, sessions):
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not end.is_set():
            for session in sessions:
                tasks.create_task(self._ask(session))
            due += len(sessions) / PER_SECOND
            await asyncio.sleep(due - loop.time())

    async def _ask(self, session):
        """POST: what a client may not repeat by itself."""
        try:
            async with session.post(self._url, json={"instances": [1]}) as response:
                await response.read()
                self.answers[response.status] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            self.answers[repr(error)] += 1

    def _session(self, **more):
        connector = aiohttp.TCPConnector(resolver=self._service, use_dns_cache=False, limit=0, **more)
        return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=10), trust_env=False)


@pytest_asyncio.fixture
async def model(network):
    """One for all variants, and where it is."""
    model, address = Streaming("v1"), network.address()
    async with serve(model, address) as port:
        yield model, (address, port)


async def test_a_rolling_update_fails_no_request_and_cuts_no_stream(cluster, model, tmp_path):
    """`kubectl rollout restart`: what it writes into the Deployment is let stand, and its pods come from there."""
    streaming, where = model
    cluster.deploy(dict.fromkeys(VARIANTS, where))
    with ExitStack() as stack:
        await Replica(cluster, "xdserve-0").started(stack.enter_context(Children(tmp_path)))
        await cluster.provisioned()
        old = [await started(cluster, stack, name) for name in ("old-1", "old-2")]
        service = Service(old)
        async with Load(service).running() as load, stream(old[0]) as events:
            await wait_until(lambda: len(events) > 3 and load.answers[200] > PER_SECOND, 20, "the load")
            before = template(cluster)
            cluster.apiserver.kubectl("rollout", "restart", f"deployment/{NAME}-gateway", f"-n={cluster.namespace}")
            assert template(cluster) != before
            ending = []
            for name, leaving in zip(("new-1", "new-2"), old, strict=True):
                service.pods.append(await started(cluster, stack, name))
                ending.append(asyncio.create_task(leaving.stop()))
                await wait_until(lambda pod=leaving: not_ready(pod), 10, "a pod to leave")
                service.pods.remove(leaving)  # as late as a Service may
            assert await ending[1] == 0
            assert not ending[0].done(), "a stream runs there"
            seen, told = load.answers[200], len(events)
            await wait_until(lambda: load.answers[200] > seen + PER_SECOND and len(events) > told, 20, "new pods")
            streaming.finish.set()
            assert await ending[0] == 0
        assert RESTARTED in template(cluster)["annotations"]
        assert HASH in template(cluster)["annotations"]
    assert set(load.answers) == {200}, load.answers
    assert events == [*map(str, range(len(events) - 1)), "done"]
    sent = load.answers.total()
    sys.stdout.write(f"\n{sent} requests in {load.seconds:.1f} s, none failed; a stream of {len(events)} events\n")


async def started(cluster, stack, name):
    """A pod as its manifests are now, when it is ready."""
    return await cluster.pod(stack, NAME, stack.enter_context(PodNetwork()), name).started()


async def not_ready(pod):
    return not await pod.ready()


def template(cluster):
    """What the pods of the gateway are to be."""
    return cluster.get("Deployment", f"{NAME}-gateway")["spec"]["template"]["metadata"]


@asynccontextmanager
async def stream(pod):
    """The events of a stream through a pod as they come; the block ends when it does."""
    events = []
    url = f"http://{pod.host}:{GATEWAY_PORT}{STREAM}"
    connector = aiohttp.TCPConnector(keepalive_timeout=0.1)  # a pod waits for those who keep a connection for more
    async with aiohttp.ClientSession(connector=connector, trust_env=False) as session, session.get(url) as response:
        assert response.status == 200

        async def read():
            nonlocal events
            async for line in response.content:
                field, _, text = line.decode().strip().partition(": ")
                events += [text] if field == "data" else []

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            yield events
