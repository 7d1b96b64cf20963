"""What a replica that does not lead says of its Envoys reaches the one that leads, on a real kube-apiserver."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from tests.support.wait import wait_until
from translator.objects.ref import KSERVE, Ref
from xdserve.conditions import Delivery, Progress, Refused
from xdserve.kube import reports
from xdserve.kube.calls import CallError, Calls
from xdserve.kube.client import connect
from xdserve.kube.leader import Leadership, Terms
from xdserve.kube.reports import Elsewhere, Reporter, exchange

IRIS = "models/iris"
LINE = Refused(Ref(KSERVE, "InferenceService", "models", "iris"), "spec", "Envoy gw-1 refuses it: missing )")
DONE = Delivery("d1", Progress.DONE)
REFUSED = Delivery("d2", Progress.DONE, (LINE,))


class Envoys:
    """A judge that knows the Envoys of one replica."""

    def __init__(self):
        self.known = {}

    def gateways(self):
        return list(self.known)

    def delivery(self, gateway):
        return self.known.get(gateway)


class Replica:
    def __init__(self, client, namespace, name):
        call = Calls(client)
        self.envoys, self.changed = Envoys(), []
        self.leadership = Leadership(call, namespace, name, terms=Terms(8.0, 6.0, 0.15))
        self.reporter = Reporter(call, self.envoys, namespace, f"report-{name}")
        self.elsewhere = Elsewhere(client, namespace, f"report-{name}", self.changed.append)
        self.leading = asyncio.create_task(self.leadership.run())
        self.talking = asyncio.create_task(exchange(self.leadership, self.reporter, self.elsewhere))

    def has(self, gateway, delivery):
        self.envoys.known[gateway] = delivery
        self.reporter.mark_gateway(gateway)

    async def stop(self):
        for task in (self.talking, self.leading):
            task.cancel()
            await asyncio.wait([task])

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.stop()


@asynccontextmanager
async def replicas(apiserver, namespace):
    """One that leads and one that does not."""
    async with await connect(apiserver.kubeconfig) as client, Replica(client, namespace, "a") as first:
        await wait_until(lambda: first.leadership.held)
        async with Replica(client, namespace, "b") as second:
            yield first, second


def config_maps(apiserver, namespace):
    found = apiserver.call("GET", f"/api/v1/namespaces/{namespace}/configmaps")["items"]
    return {one["metadata"]["name"] for one in found}


async def test_the_leader_hears_of_envoys_and_refusals_elsewhere(apiserver, namespace):
    async with replicas(apiserver, namespace) as (leader, follower):
        follower.has(IRIS, DONE)
        await wait_until(lambda: leader.elsewhere.of(IRIS) == [DONE])
        follower.has(IRIS, REFUSED)
        await wait_until(lambda: leader.elsewhere.of(IRIS) == [REFUSED])
        assert IRIS in leader.changed
        follower.has(IRIS, Delivery("d3", Progress.ABSENT))
        await wait_until(lambda: leader.elsewhere.of(IRIS) == [])
        assert config_maps(apiserver, namespace) == {"report-b"}


async def test_who_takes_over_says_nothing_more_and_hears_the_others(apiserver, namespace):
    async with replicas(apiserver, namespace) as (leader, follower):
        follower.has(IRIS, DONE)
        await wait_until(lambda: leader.elsewhere.of(IRIS) == [DONE])
        await leader.stop()
        await wait_until(lambda: follower.leadership.held and follower.elsewhere.synced)
        await wait_until(lambda: config_maps(apiserver, namespace) == set())
        assert follower.elsewhere.of(IRIS) == []


async def test_a_replica_that_has_died_is_forgotten(apiserver, namespace, monkeypatch):
    monkeypatch.setattr(reports, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(reports, "RENEW_SECONDS", 0.3)
    async with replicas(apiserver, namespace) as (leader, follower):
        follower.has(IRIS, DONE)
        await wait_until(lambda: leader.elsewhere.of(IRIS) == [DONE])

        async def unheard(*_, **__):
            raise CallError(0, "no way to the apiserver")

        follower.reporter._call = unheard
        await wait_until(lambda: leader.elsewhere.of(IRIS) == [])
        assert config_maps(apiserver, namespace) == {"report-b"}


@pytest.mark.parametrize("text", ["", "!", "e30=", "x" * 100])
async def test_a_report_that_cannot_be_understood_says_nothing(apiserver, namespace, text):
    async with replicas(apiserver, namespace) as (leader, follower):
        document = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "report-c", "labels": {reports.LABEL: "true"}},
            "data": {"report": text},
        }
        await asyncio.to_thread(apiserver.apply, document, namespace=namespace)
        follower.has(IRIS, DONE)
        await wait_until(lambda: leader.elsewhere.of(IRIS) == [DONE])
