"""What xdserve asks of the apiserver grows with what it does there: counted by the apiserver, in its audit log.

How long it takes with a thousand services is measured by `python -m benchmarks --only kube`.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, asynccontextmanager

import pytest

from tests.support.cluster import VARIANTS, Cluster, Replica, model_servers, sample, weighed
from tests.support.kube import Apiserver
from tests.support.kube_fleet import OWN, Audit, deploy, figures
from tests.support.kube_seed import seed
from tests.support.processes import Children
from tests.support.wait import wait_until
from xdserve.kube.parts import KINDS
from xdserve.kube.resources import RESOURCES

COUNT = 30
FOLLOWED = {resource.plural for resource in RESOURCES}
PARTS = {"serviceaccounts", "configmaps", "services", "poddisruptionbudgets", "deployments"}
RENEWED = ("update", f"{OWN}leases")


class World:
    """A cluster with `COUNT` services, one of which has models that answer."""

    def __init__(self, cluster, audit):
        self.cluster, self.audit = cluster, audit
        self.replica = Replica(cluster, "xdserve-0")
        self._before = audit.made()

    @asynccontextmanager
    async def served(self):
        """xdserve, from its start to when all is done that there was to do; gives what it asked for."""
        with Children(self.cluster.folder) as children:
            self.asked()
            await self.replica.started(children)
            await wait_until(self.all_applied, 60, "all gateways to be applied", 0.05)
            await self.rest()
            yield self.asked()

    async def all_applied(self):
        found = await self.figures()
        return found["xdserve_applied_gateways"] == found["xdserve_wanted_gateways"] == COUNT

    async def rest(self):
        """Wait until nothing is asked for while the Lease is renewed twice."""
        made = None
        while made != (made := _work(self.audit.made())):
            renewed = self.audit.made()[RENEWED]
            await wait_until(lambda n=renewed: self.audit.made()[RENEWED] >= n + 2, 20, "the Lease to be renewed", 0.1)

    def asked(self):
        """How often each (verb, resource) was asked for since this was called last."""
        before, self._before = self._before, self.audit.made()
        return _work(self._before - before)

    async def figures(self):
        return await figures(self.replica.admin)


def _work(made):
    """Without what does not depend on how many services there are: the Lease, the certificate, the word to a leader."""
    return {key: number for key, number in made.items() if not key[1].startswith(OWN)}


@pytest.fixture(scope="module")
def world(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    audit = Audit(folder)
    with Apiserver(seed(folder), *audit.flags) as apiserver:
        apiserver.start()
        namespace = apiserver.make_namespace("models")
        cluster = Cluster(apiserver, namespace, tmp_path_factory.mktemp("xdserve"), network)
        cluster.deploy({name: (network.address(), 8080) for name in VARIANTS})
        asyncio.run(deploy(apiserver, namespace, COUNT - 1))
        yield World(cluster, audit)


async def test_a_start_lists_each_kind_once_and_asks_ten_times_for_a_gateway(world):
    """Each of a gateway's objects is looked for and applied; each target is told once."""
    async with world.served() as asked:
        looks = asked["list", "deployments"]  # one a minute, so more than one on a slow machine
        assert looks in {1, 2, 3}
        expected = {("list", plural): 1 for plural in FOLLOWED}
        expected |= {("list", plural): looks for plural in PARTS - {"configmaps"}} | {("list", "services"): 1 + looks}
        expected |= {(verb, plural): COUNT for verb in ("get", "patch") for plural in PARTS}
        expected |= {("patch", "inferenceservices/status"): COUNT}
        read_again = asked["get", "configmaps"] - COUNT  # some of them at each look, in turn
        assert 0 <= read_again <= COUNT * (looks - 1)
        expected["get", "configmaps"] += read_again
        # An apiserver ends the watches of a definition that is new to it.
        assert {plural for verb, plural in asked if verb == "watch"} == FOLLOWED
        assert {key: number for key, number in asked.items() if key[0] != "watch"} == expected
        found = await world.figures()
        assert found["xdserve_planned_services_total"] == COUNT
        assert found["xdserve_status_writes_total", "written"] == COUNT
        assert found["xdserve_provisioner_requests_total", "apply"] == COUNT * len(KINDS)
        assert [found["xdserve_reflector_requests_total", one.kind, "list"] for one in RESOURCES] == [1] * len(
            RESOURCES
        )
        assert found["xdserve_leader"] == found["xdserve_leader_changes_total"] == 1
        assert found["xdserve_certificate_expiry_timestamp_seconds"] > 1e9


async def test_a_start_that_finds_all_as_it_is_to_be_writes_nothing(world):
    async with world.served():
        pass
    async with world.served() as asked:
        assert {verb for verb, _ in asked} == {"list", "watch"}
        found = await world.figures()
        assert found["xdserve_status_writes_total", "written"] == 0
        assert found["xdserve_provisioner_requests_total", "apply"] == 0


async def test_an_edit_plans_and_sends_one_and_writes_one_status(world):
    cluster = world.cluster
    with ExitStack() as stack:
        async with model_servers(cluster.network) as models, world.served():
            cluster.deploy(models)
            await cluster.gateway(stack)
            cluster.apiserver.apply(weighed(v1=100, v2=0), namespace=cluster.namespace)
            await cluster.programmed("TrafficPolicy", "InferenceService")
            await world.rest()
            world.asked()
            before = await world.figures()

            cluster.apiserver.apply(weighed(v1=0, v2=100), namespace=cluster.namespace)
            await wait_until(lambda: _answers(cluster, "v2"), 10, "the edit to be live")
            await world.rest()
            assert world.asked() == {("patch", "trafficpolicies/status"): 1}
            now = await world.figures()
            assert _moved(before, now, "xdserve_planned_services_total") == 1
            assert _moved(before, now, "xdserve_resources_sent_total", "rds") == 1
            assert sum(_moved(before, now, *key) for key in now if "xdserve_resources_sent_total" in key) == 1

            moved = sample(cluster.namespace, models | {"v2": models["v1"]})
            slices = [one for one in moved if one["kind"] == "EndpointSlice"]
            cluster.apiserver.apply(*slices, namespace=cluster.namespace)
            await wait_until(lambda: _answers(cluster, "v1"), 10, "the endpoint to be live")
            await world.rest()
            assert world.asked() == {}
            later = await world.figures()
            assert _moved(now, later, "xdserve_resources_sent_total", "eds") == 1


async def _answers(cluster, variant):
    return await cluster.ask() == variant


def _moved(before, now, *key):
    name = key if len(key) > 1 else key[0]
    return now[name] - before[name]
