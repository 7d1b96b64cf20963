"""ConfigMaps that planners name, on a real kube-apiserver: with the rights that the chart gives, and no others."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from tests.support.account import chart_account
from tests.support.certificates import Authority
from tests.support.cluster import Cluster, Replica
from tests.support.documents import backend, isvc, policy, split, to_service
from tests.support.processes import Children
from tests.support.recording_feed import RecordingFeed
from tests.support.wait import wait_until
from translator.objects import Ref
from translator.objects.ref import CORE
from translator.view import OBJECT, Derived, Named, Objects
from xdserve.kube.calls import Calls
from xdserve.kube.config_maps import ConfigMaps, Timing

SOON = Timing(every=0.2, first_retry=0.1, patience=2.0)
ALONE = {"settings": {"provision": "off"}}
"""Who makes gateways may get ConfigMaps anyway."""


def config_map(name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


class Feed(RecordingFeed):
    """Answers what is awaited, as the pipeline does."""

    def apply(self, changes):
        super().apply(changes)
        for change in changes:
            self.named.answer(change.object.ref if hasattr(change, "object") else change.ref)


class World:
    """What is fed of one ConfigMap to an xdserve with the chart's rights."""

    def __init__(self, apiserver, namespace, folder):
        self.apiserver, self.namespace, self.folder = apiserver, namespace, folder
        self.ref = Ref(CORE, "ConfigMap", namespace, "ca")

    @asynccontextmanager
    async def following(self, **rbac):
        self.feed = Feed()
        named = self.feed.named = Named(("ConfigMap",))
        Derived(Objects(()), named).record("a policy", [(OBJECT, self.ref)])
        async with await self.apiserver.client(self.allow(**rbac)) as client:
            following = ConfigMaps(Calls(client), named, self.feed, lambda: asyncio.sleep(0), timing=SOON)
            task = asyncio.create_task(following.run())
            try:
                yield
            finally:
                task.cancel()
                await asyncio.wait([task])

    def allow(self, **rbac):
        return chart_account(self.apiserver, self.folder / "kubeconfig", {**ALONE, "rbac": rbac})

    def put(self, **data):
        self.apiserver.apply(config_map("ca", **data), namespace=self.namespace)

    async def has(self, data):
        await wait_until(lambda: self.ref in self.feed.objects and self.feed.objects[self.ref].data == data, 20)


@pytest.fixture
def world(apiserver, namespace, tmp_path):
    yield World(apiserver, namespace, tmp_path)
    chart_account(apiserver, tmp_path / "kubeconfig")


async def test_one_that_is_named_is_followed_until_it_is_gone(world):
    world.put(**{"ca.crt": "one"})
    async with world.following(configMaps=True):
        await world.has({"ca.crt": "one"})
        world.put(**{"ca.crt": "two"})
        await world.has({"ca.crt": "two"})
        world.apiserver.call("DELETE", f"/api/v1/namespaces/{world.namespace}/configmaps/ca")
        await wait_until(lambda: world.ref not in world.feed.objects, 20)


async def test_without_the_right_it_is_not_readable_until_there_is_one(world):
    world.put(**{"ca.crt": "one"})
    async with world.following():
        await wait_until(lambda: world.ref in world.feed.broken, 20)
        world.allow(configMaps=True)
        await world.has({"ca.crt": "one"})


async def test_a_ca_comes_from_the_cluster_and_a_policy_says_what_keeps_it_away(
    apiserver, namespace, network, tmp_path
):
    cluster = Cluster(apiserver, namespace, tmp_path, network, {**ALONE, "rbac": {"configMaps": True}})
    backends = [to_service("v2", "iris-v2", protocol="HTTPS", tls={"caRef": {"name": "ca"}})]
    made = [isvc(), *backend("iris-predictor"), *backend("iris-v2"), policy(backends=backends, split=split(v2=1))]
    for one in made:
        one["metadata"]["namespace"] = namespace
    apiserver.apply(*made, namespace=namespace)
    with Children(tmp_path) as children:
        await Replica(cluster, "xdserve-0", flags=("--provision", "off")).started(children)

        async def resolved(words):
            found = cluster.get("TrafficPolicy", "iris").get("status", {})
            return words in json.dumps(found)

        await wait_until(lambda: resolved(f"ConfigMap {namespace}/ca not found: backend v2 answers 503"), 30)
        authority = Authority().certificate.decode()
        apiserver.apply(config_map("ca", **{"ca.crt": authority}), namespace=namespace)
        await wait_until(lambda: resolved("has no ready endpoint"), 60, "the CA to be read within a minute")
        assert not await resolved("not found: backend v2")
