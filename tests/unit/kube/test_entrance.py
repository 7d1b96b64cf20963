"""Where the Service of a gateway leads, while Envoys have yet to listen there or refuse to."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

from bootstrap.address import Address
from bootstrap.manifests import Deploying, Owner
from tests.support.wait import wait_until
from translator.objects.ref import Origin, Ref
from translator.plan import GatewayPlan
from translator.planners.edge import DEFAULT_EDGE
from xdserve.kube.calls import CallError
from xdserve.kube.parts import KINDS
from xdserve.kube.provision import Provisioner
from xdserve.kube.wanted import Wanted

DEPLOYING = Deploying(xds_address=Address("xdserve.system.svc", 18000), ca="the authorities")
TARGET = Ref("serving.kserve.io", "InferenceService", "models", "iris")
PLAN = GatewayPlan("models/iris", "0.0.0.0", 8080, 0, Origin(TARGET, "metadata.name"), edge=DEFAULT_EDGE)
WANTED = Wanted(Owner(TARGET, "v1beta1", "uid-1"), PLAN)
OTHER = WANTED._replace(gateway=replace(PLAN, port=9090))


class Cluster:
    """An apiserver that takes what is applied, and Envoys that listen at some ports."""

    held = True

    def __init__(self):
        self.objects, self.ports = {}, set()

    async def __call__(self, method, path, body=None, *, query=None, **_):
        if method == "PATCH":
            self.objects[path] = body
        if "labelSelector" in (query or {}):
            return {"items": [one for key, one in self.objects.items() if key.startswith(f"{path}/")]}
        if path not in self.objects:
            raise CallError(404, "not found")
        return self.objects[path]

    async def changes(self):
        yield True
        await asyncio.Event().wait()

    def leads_to(self):
        """Where the Service leads; None without one."""
        found = [one for path, one in self.objects.items() if "/services/" in path]
        return found[0]["spec"]["ports"][0]["targetPort"] if found else None

    @asynccontextmanager
    async def provisioning(self, wanted):
        made = Provisioner(
            self, DEPLOYING, self, readable=lambda _: True, listens=lambda _, port: port in self.ports,
            namespaces=("models",),
        )  # fmt: skip
        made.want(TARGET, wanted)
        task = asyncio.create_task(made.run())
        try:
            await wait_until(lambda: len(self.objects) == len(KINDS))
            yield made
        finally:
            task.cancel()
            await asyncio.wait([task])


async def looked_at(cluster, made):
    """Wait until the gateway has been gone through: the Deployment comes after the Service."""
    made.deploy(replace(DEPLOYING, image="another"))
    await wait_until(lambda: any("another" in str(one) for one in cluster.objects.values()))


async def test_a_new_service_leads_where_it_is_planned_before_there_are_envoys():
    cluster = Cluster()
    async with cluster.provisioning(OTHER):
        assert cluster.leads_to() == 9090


async def test_a_service_leads_elsewhere_when_envoys_listen_there():
    cluster = Cluster()
    async with cluster.provisioning(WANTED) as made:
        made.want(TARGET, OTHER)
        await looked_at(cluster, made)
        assert cluster.leads_to() == 8080
        made.moved(TARGET)
        cluster.ports.add(9090)
        made.moved(TARGET)
        await wait_until(lambda: cluster.leads_to() == 9090)


async def test_who_leads_next_waits_for_envoys_too():
    cluster = Cluster()
    async with cluster.provisioning(WANTED):
        pass
    async with cluster.provisioning(OTHER) as made:
        await looked_at(cluster, made)
        assert cluster.leads_to() == 8080
        assert not made.errors


async def test_a_service_whose_port_is_planned_back_never_moved():
    cluster = Cluster()
    async with cluster.provisioning(WANTED) as made:
        made.want(TARGET, OTHER)
        await looked_at(cluster, made)
        made.want(TARGET, WANTED)
        cluster.ports.add(9090)
        made.moved(TARGET)
        made.deploy(DEPLOYING)
        await wait_until(lambda: all("another" not in str(one) for one in cluster.objects.values()))
        assert cluster.leads_to() == 8080
