"""Gateways of targets on a real kube-apiserver: made, left alone, mended, taken away; by the leader alone."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import replace

import pytest
import pytest_asyncio

from bootstrap.address import Address
from bootstrap.manifests import CA_FILE, HASH, Deploying, Owner, manifests
from tests.support.account import chart_account
from tests.support.kube import ApiError
from tests.support.wait import wait_until
from translator.objects.ref import Origin, Ref
from translator.plan import GatewayPlan
from translator.planners.edge import DEFAULT_EDGE
from xdserve.kube import making, provision
from xdserve.kube.calls import CallError, Calls
from xdserve.kube.parts import KINDS
from xdserve.kube.provision import Provisioner
from xdserve.kube.wanted import Wanted

DEPLOYING = Deploying(xds_address=Address("xdserve.system.svc", 18000), ca="the authorities")
PATHS = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts/{}",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps/{}",
    "Service": "/api/v1/namespaces/{}/services/{}",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets/{}",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments/{}",
}


class Leads:
    """A leadership that the test gives and takes."""

    def __init__(self, *, held=True):
        self.held = held
        self._turn = asyncio.Event()

    def turn(self, *, held):
        self.held = held
        self._turn.set()
        self._turn = asyncio.Event()

    async def changes(self):
        while True:
            turn = self._turn
            yield self.held
            await turn.wait()


class World:
    """A namespace of the apiserver with targets, and what provisions there."""

    def __init__(self, apiserver, namespace, client):
        self.apiserver, self.namespace = apiserver, namespace
        self.calls = Calls(client)
        self.targets = {}
        self.told = []

    def target(self, name="iris"):
        """An InferenceService that is there; what is wanted for it."""
        document = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": name},
            "spec": {"predictor": {"model": {"modelFormat": {"name": "sklearn"}}}},
        }
        path = f"/apis/serving.kserve.io/v1beta1/namespaces/{self.namespace}/inferenceservices"
        uid = self.apiserver.call("POST", path, document)["metadata"]["uid"]
        ref = Ref("serving.kserve.io", "InferenceService", self.namespace, name)
        plan = GatewayPlan(
            f"{self.namespace}/{name}", "0.0.0.0", 8080, 0, Origin(ref, "metadata.name"), edge=DEFAULT_EDGE
        )
        self.targets[ref] = Wanted(Owner(ref, "v1beta1", uid), plan)
        return ref, self.targets[ref]

    def get(self, kind, name="iris-gateway"):
        try:
            return self.apiserver.call("GET", PATHS[kind].format(self.namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def all(self, name="iris-gateway"):
        return {kind: found for kind in KINDS if (found := self.get(kind, name))}

    def patch(self, kind, body, name="iris-gateway"):
        """As a person does, by kubectl."""
        flags = ("--type=merge", f"--namespace={self.namespace}", f"--patch={json.dumps(body)}")
        self.apiserver.kubectl("patch", kind, name, *flags)

    def provisioner(self, leads=None, deploying=DEPLOYING, namespaces=None, **more):
        return Provisioner(
            self.calls, deploying, leads or Leads(), readable=self.targets.__contains__,
            told=self.told.append, namespaces=namespaces or (self.namespace,), **more,
        )  # fmt: skip


@pytest.fixture(scope="module")
def kubeconfig(apiserver, tmp_path_factory):
    """Of xdserve's account, with the chart's roles."""
    return chart_account(apiserver, tmp_path_factory.mktemp("account") / "kubeconfig")


@pytest_asyncio.fixture
async def world(apiserver, namespace, kubeconfig):
    async with await apiserver.client(kubeconfig) as client:
        yield World(apiserver, namespace, client)


async def test_pods_satisfy_the_strictest_standard(world):
    """Pod Security Admission in a namespace that enforces `restricted`, also with a port below 1024."""
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    world.apiserver.kubectl("patch", "namespace", world.namespace, f"--patch={json.dumps(label)}")
    for name, port in (("iris", 8080), ("wine", 80)):
        _, (owner, plan) = world.target(name)
        deployment = deepcopy(manifests(owner, replace(plan, port=port), DEPLOYING)[-1])
        pod = deployment["spec"]["template"] | {"apiVersion": "v1", "kind": "Pod"}
        pod["metadata"] |= {"name": name}
        path = f"/api/v1/namespaces/{world.namespace}/pods"
        assert world.apiserver.call("POST", f"{path}?dryRun=All&fieldValidation=Strict", pod)
        pod["spec"]["securityContext"]["runAsNonRoot"] = False
        with pytest.raises(ApiError, match="violates PodSecurity"):
            world.apiserver.call("POST", f"{path}?dryRun=All", pod)


@asynccontextmanager
async def running(provisioner):
    task = asyncio.create_task(provisioner.run())
    try:
        yield provisioner
    finally:
        assert not task.done(), task.exception()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def settled(provisioner):
    """No request has been made for some time."""
    seen = {}

    def quiet():
        total, now = provisioner.requests.total(), time.monotonic()
        return now - seen.setdefault(total, now) > 0.5

    await wait_until(quiet, 30, "requests to end", 0.05)


async def provisioned(world, name="iris-gateway"):
    await wait_until(lambda: len(world.all(name)) == len(KINDS), 20, f"{name} to be there")


async def test_a_gateway_is_made_once(world):
    ref, wanted = world.target()
    async with running(world.provisioner()) as provisioner:
        provisioner.want(ref, wanted)
        await provisioned(world)
        await settled(provisioner)
        made = provisioner.requests.copy()
        assert made["apply"] == len(KINDS)
        versions = {kind: found["metadata"]["resourceVersion"] for kind, found in world.all().items()}
        provisioner.want(ref, wanted)
        provisioner.deploy(replace(DEPLOYING))
        await settled(provisioner)
        assert provisioner.requests == made
        assert {kind: found["metadata"]["resourceVersion"] for kind, found in world.all().items()} == versions
    assert provisioner.errors == {}
    for found in world.all().values():
        (owner,) = found["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"]) == (wanted.owner.uid, True)
        (manager,) = found["metadata"]["managedFields"]
        assert (manager["manager"], manager["operation"]) == ("xdserve", "Apply")


async def test_another_leader_finds_all_as_it_should_be_and_writes_nothing(world):
    """It asks for lists alone, however many gateways there are."""
    refs = [world.target(name) for name in ("iris", "wine")]
    for turn in range(2):
        provisioner = world.provisioner()
        for ref, wanted in refs:
            provisioner.want(ref, wanted)
        async with running(provisioner):
            await provisioned(world)
            await provisioned(world, "wine-gateway")
            await settled(provisioner)
        if turn:
            assert provisioner.requests == {"list": 4}


async def test_only_what_changes_is_written(world):
    ref, wanted = world.target()
    async with running(world.provisioner()) as provisioner:
        provisioner.want(ref, wanted)
        await provisioned(world)
        await settled(provisioner)
        before = provisioner.requests["apply"]
        provisioner.want(ref, wanted._replace(gateway=replace(wanted.gateway, port=9090)))
        await wait_until(lambda: world.get("Service")["spec"]["ports"][0]["targetPort"] == 9090)
        await settled(provisioner)
        assert provisioner.requests["apply"] - before == 1
        pods = world.get("Deployment")["spec"]["template"]
        provisioner.deploy(replace(DEPLOYING, ca="two authorities"))
        await wait_until(lambda: world.get("ConfigMap")["data"][CA_FILE] == "two authorities")
        await settled(provisioner)
        assert world.get("Deployment")["spec"]["template"] == pods
        provisioner.deploy(replace(DEPLOYING, xds_address=Address("other.system.svc", 18000), replicas=1))
        await wait_until(lambda: not world.get("PodDisruptionBudget"))
        await wait_until(lambda: world.get("Deployment")["spec"]["replicas"] == 1)
        now = world.get("Deployment")["spec"]["template"]["metadata"]["annotations"][HASH]
        assert now != pods["metadata"]["annotations"][HASH]


async def test_what_others_change_is_mended_and_what_they_add_stays(world, monkeypatch):
    monkeypatch.setattr(provision, "LOOK_SECONDS", 1.0)
    monkeypatch.setattr(making, "LOOKS_A_CONFIG", 1)
    ref, wanted = world.target()
    async with running(world.provisioner()) as provisioner:
        provisioner.want(ref, wanted)
        await provisioned(world)
        world.patch("Service", {"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 1}]}})
        world.patch("ConfigMap", {"data": {CA_FILE: "theirs", "more": "theirs"}})
        world.patch("Deployment", {"spec": {"replicas": 7}, "metadata": {"annotations": {"theirs": "yes"}}})
        world.apiserver.call("DELETE", PATHS["ServiceAccount"].format(world.namespace, "iris-gateway"))
        await wait_until(lambda: world.get("Service")["spec"]["ports"][0]["targetPort"] == 8080)
        await wait_until(lambda: world.get("Deployment")["spec"]["replicas"] == 2)
        await wait_until(lambda: world.get("ConfigMap")["data"][CA_FILE] == "the authorities")
        await wait_until(lambda: world.get("ServiceAccount"))
        assert world.get("ConfigMap")["data"]["more"] == "theirs"
        assert world.get("Deployment")["metadata"]["annotations"]["theirs"] == "yes"


async def test_a_target_that_opts_out_loses_its_gateway_and_gets_it_back(world):
    ref, wanted = world.target()
    other, also = world.target("wine")
    async with running(world.provisioner()) as provisioner:
        provisioner.want(ref, wanted)
        provisioner.want(other, also)
        await provisioned(world)
        await provisioned(world, "wine-gateway")
        provisioner.want(ref, None)
        await wait_until(lambda: not world.all())
        assert len(world.all("wine-gateway")) == len(KINDS)
        provisioner.want(ref, wanted)
        await provisioned(world)


async def test_what_was_opted_out_while_nobody_led_is_taken_away(world):
    ref, wanted = world.target()
    async with running(world.provisioner()) as provisioner:
        provisioner.want(ref, wanted)
        await provisioned(world)
    async with running(world.provisioner()):
        await wait_until(lambda: not world.all())


async def test_nothing_is_deleted_of_a_target_that_cannot_be_read(world):
    """It may be gone, and the garbage collector takes its gateway; or it may only be unreadable now."""
    ref, wanted = world.target()
    async with running(world.provisioner()) as provisioner:
        provisioner.want(ref, wanted)
        await provisioned(world)
        del world.targets[ref]
        provisioner.want(ref, None)
        await settled(provisioner)
    async with running(world.provisioner()) as provisioner:
        await settled(provisioner)
        assert provisioner.requests == {"list": 4}
    assert len(world.all()) == len(KINDS)


@pytest.mark.parametrize("kind", ["Service", "ServiceAccount"])
async def test_what_is_somebody_elses_is_never_touched(world, kind, monkeypatch):
    monkeypatch.setattr(provision, "RETRY_FIRST", 0.2)
    theirs = {"metadata": {"name": "iris-gateway"}} | ({"spec": {"ports": [{"port": 9}]}} if kind == "Service" else {})
    path = PATHS[kind].format(world.namespace, "iris-gateway")
    version = world.apiserver.call("POST", path.rpartition("/")[0], theirs)["metadata"]["resourceVersion"]
    ref, wanted = world.target()
    async with running(world.provisioner()) as provisioner:
        provisioner.want(ref, wanted)
        await wait_until(lambda: provisioner.errors)
        message = f"{kind} {world.namespace}/iris-gateway is there already, and is not xdserve's"
        assert provisioner.errors == {ref: message}
        assert world.told == [ref]
        provisioner.want(ref, None)
        await wait_until(lambda: not provisioner.errors)
        await settled(provisioner)
        assert world.get(kind)["metadata"]["resourceVersion"] == version
        provisioner.want(ref, wanted)
        await wait_until(lambda: provisioner.errors)
        world.apiserver.call("DELETE", path)
        await provisioned(world)
        await wait_until(lambda: not provisioner.errors)
        assert world.told == [ref] * 4


async def test_a_refusal_of_the_apiserver_harms_one_gateway_and_is_tried_again(world, monkeypatch):
    monkeypatch.setattr(provision, "RETRY_FIRST", 0.2)
    bad, wrong = world.target("bad")
    ref, wanted = world.target()
    wrong = wrong._replace(gateway=replace(wrong.gateway, port=70_000))
    async with running(world.provisioner()) as provisioner:
        provisioner.want(bad, wrong)
        provisioner.want(ref, wanted)
        await provisioned(world)
        await wait_until(lambda: bad in provisioner.errors)
        assert provisioner.errors[bad].startswith(f"Service {world.namespace}/bad-gateway: 422: ")
        assert "targetPort" in provisioner.errors[bad]
        provisioner.want(bad, world.targets[bad])
        await provisioned(world, "bad-gateway")
        await wait_until(lambda: not provisioner.errors)


async def test_nothing_is_done_by_who_does_not_lead(world):
    ref, wanted = world.target()
    leads = Leads(held=False)
    async with running(world.provisioner(leads)) as provisioner:
        provisioner.want(ref, wanted)
        assert provisioner.gateway_of(world.namespace, "iris-gateway") == f"{world.namespace}/iris"
        await settled(provisioner)
        assert provisioner.requests == {}
        leads.turn(held=True)
        await provisioned(world)
        await settled(provisioner)
        leads.turn(held=False)
        before = provisioner.requests.copy()
        provisioner.want(ref, None)
        await settled(provisioner)
        assert provisioner.requests == before
        leads.turn(held=True)
        await wait_until(lambda: not world.all())


async def test_the_apiserver_may_be_away(world, monkeypatch):
    monkeypatch.setattr(provision, "RETRY_FIRST", 0.1)
    real, away = world.calls, True

    async def calls(*given, **more):
        if away:
            raise CallError(0, "refused")
        return await real(*given, **more)

    world.calls = calls
    ref, wanted = world.target()
    async with running(world.provisioner()) as provisioner:
        provisioner.want(ref, wanted)
        await wait_until(lambda: provisioner.requests["list"] >= 3)
        away = False
        await provisioned(world)
        away = True
        provisioner.want(ref, wanted._replace(gateway=replace(wanted.gateway, port=9090)))
        await wait_until(lambda: provisioner.errors)
        away = False
        await wait_until(lambda: world.get("Service")["spec"]["ports"][0]["targetPort"] == 9090)
        await wait_until(lambda: not provisioner.errors)


async def test_of_two_targets_whose_gateways_are_called_alike_the_first_has_it(world, monkeypatch):
    monkeypatch.setattr(provision, "RETRY_FIRST", 0.1)
    ref, wanted = world.target()
    other = Ref("", "Service", world.namespace, "iris")
    also = Wanted(Owner(other, "v1", "0b1c"), replace(wanted.gateway, origin=Origin(other, "metadata.name")))
    world.targets[other] = also
    async with running(world.provisioner()) as provisioner:
        provisioner.want(ref, wanted)
        provisioner.want(other, also)
        await provisioned(world)
        await wait_until(lambda: other in provisioner.errors)
        assert "called iris-gateway too" in provisioner.errors[other]
        provisioner.want(ref, None)
        await wait_until(lambda: not provisioner.errors)
        await wait_until(lambda: len(world.all()) == len(KINDS))
        await settled(provisioner)
        owners = {found["metadata"]["ownerReferences"][0]["kind"] for found in world.all().values()}
        assert owners == {"Service"}
