"""The program as its users meet it: `xdserve serve --source kubernetes` under the chart's ServiceAccount and roles.

On a real kube-apiserver, with a stock Envoy that is started from the very manifests that appear there.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from statistics import median

import aiohttp
import pytest
import pytest_asyncio
import yaml

from bootstrap.manifests import AUDIENCE
from tests.support import chart
from tests.support.account import chart_account
from tests.support.documents import entrance, policy, split
from tests.support.kube import ApiError
from tests.support.model import Model, serve
from tests.support.pod import Pod
from tests.support.processes import Children, clean_environment, free_ports
from tests.support.requests import http1
from tests.support.wait import wait_until
from xdserve.conditions import GATEWAY_PROGRAMMED
from xdserve.kube.calls import MERGE, Calls
from xdserve.kube.parts import KINDS

SAMPLE = Path(__file__).parent / "samples/iris-canary.yaml"
NAME = "iris-canary"
VARIANTS = {"v1": "predictor", "v2": "v2", "v3": "v3"}
GATEWAY_PORT = 8080
NO_FINALIZERS = '{"metadata":{"finalizers":[]}}'
PATHS = {
    "InferenceService": "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices/{}",
    "TrafficPolicy": "/apis/xdserve.io/v1alpha1/namespaces/{}/trafficpolicies/{}",
    "ServiceGateway": "/apis/xdserve.io/v1alpha1/namespaces/{}/servicegateways/{}",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts/{}",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps/{}",
    "Service": "/api/v1/namespaces/{}/services/{}",
    "Secret": "/api/v1/namespaces/{}/secrets/{}",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/{}/leases/{}",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets/{}",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments/{}",
}


class Replica:
    """One xdserve with the name and the account of a pod; gateways reach the replicas at `entrance`."""

    def __init__(self, cluster, name, entrance=None):
        (self.admin,) = free_ports(1)
        self.xds = f"{cluster.network.address()}:18000"
        self._command = [sys.executable, "-m", "xdserve", "serve", "--source", "kubernetes", "--drain", "0.2"]
        self._command += ["--kubeconfig", str(cluster.kubeconfig), "--state-directory", str(cluster.folder / name)]
        self._command += ["--xds-address", self.xds, "--gateway-xds-address", entrance or self.xds]
        self._command += ["--admin-address", f"127.0.0.1:{self.admin}"]
        self._pod = {"POD_NAME": name, "POD_NAMESPACE": chart.NAMESPACE, "POD_UID": f"uid-of-{name}"}
        self.child = None

    def start(self, children):
        self.child = children.start(self._pod["POD_NAME"], self._command, env=clean_environment(**self._pod))
        return self.child

    async def started(self, children):
        self.start(children)
        await wait_until(self.ready, 30, "xdserve to be ready")
        return self

    async def ready(self):
        self.child.check()
        try:
            async with (
                aiohttp.ClientSession(trust_env=False) as session,
                session.get(f"http://127.0.0.1:{self.admin}/readyz") as response,
            ):
                return response.status == 200
        except aiohttp.ClientError:
            return False


class Cluster:
    """An apiserver with a namespace, and with the chart's account for xdserve."""

    def __init__(self, apiserver, namespace, folder, network):
        self.apiserver, self.namespace, self.folder, self.network = apiserver, namespace, folder, network
        # What an earlier xdserve was called and who led then is nobody's business here.
        for kind, name in (("Secret", f"{chart.NAME}-ca"), ("Lease", chart.NAME)):
            if self.get(kind, name, chart.NAMESPACE):
                apiserver.call("DELETE", PATHS[kind].format(chart.NAMESPACE, name))
        self.kubeconfig = chart_account(apiserver, folder / "kubeconfig")

    def deploy(self, models):
        """Apply the sample, with the status that KServe's controller wrote; its InferenceService."""
        documents = list(sample(self.namespace, models))
        self.apiserver.apply(*documents, namespace=self.namespace)
        (service,) = [one for one in documents if one["kind"] == "InferenceService"]
        path = PATHS["InferenceService"].format(self.namespace, NAME)
        there = self.apiserver.call("GET", path)
        self.apiserver.call("PUT", f"{path}/status", there | {"status": service["status"]})
        return service

    async def gateway(self, stack):
        """A pod of the gateway, when its manifests are there."""
        await wait_until(lambda: len(self.manifests()) == len(KINDS), 20, "the manifests to appear")
        token = self.apiserver.account_token(self.namespace, f"{NAME}-gateway", audiences=[AUDIENCE])
        return await stack.enter_context(Pod(self.folder, self.manifests(), token=token)).started()

    def leader(self):
        """Who holds the Lease, without what makes the name unique."""
        lease = self.get("Lease", chart.NAME, chart.NAMESPACE) or {"spec": {}}
        return lease["spec"].get("holderIdentity", "").partition("_")[0]

    def get(self, kind, name, namespace=None):
        """An object; None if there is none."""
        try:
            return self.apiserver.call("GET", PATHS[kind].format(namespace or self.namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def manifests(self):
        """What there is of the gateway."""
        return [found for kind in KINDS if (found := self.get(kind, f"{NAME}-gateway"))]

    def owners(self):
        """The uids of whom the gateway is of."""
        return {owner["uid"] for one in self.manifests() for owner in one["metadata"]["ownerReferences"]}

    def events(self):
        """Kind of object, type and reason of all Events."""
        found = self.apiserver.call("GET", f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")["items"]
        return {(one["regarding"]["kind"], one["type"], one["reason"]) for one in found}

    def annotate(self, text):
        self.apiserver.kubectl("annotate", "--overwrite", f"--namespace={self.namespace}", "isvc", NAME, text)

    def conditions(self, kind):
        """Of the service, or of what is attached to it."""
        status = (self.get(kind, NAME) or {}).get("status", {})
        return [
            *status.get("conditions", ()),
            *(one for each in status.get("ancestors", ()) for one in each["conditions"]),
        ]

    def reason(self, kind, condition):
        """Why a condition is as it is."""
        return next((one["reason"] for one in self.conditions(kind) if one["type"] == condition), None)

    async def programmed(self, *kinds):
        for kind in kinds:
            name = GATEWAY_PROGRAMMED if kind == "InferenceService" else "Programmed"
            await wait_until(lambda k=kind, n=name: self.reason(k, n) == "Programmed", 20, f"{kind} to say Programmed")

    async def ask(self):
        """The variant that answers; a status where none does."""
        reply = await http1(GATEWAY_PORT, f"/v1/models/{NAME}", host=f"{NAME}-{self.namespace}.example.com")
        return reply.header("x-variant") if reply.status == 200 else reply.status


def sample(namespace, ports):
    """The documents of the sample in a namespace, with endpoints at `address` and `port` of each variant."""
    for document in yaml.safe_load_all(SAMPLE.read_text()):
        metadata = document["metadata"]
        metadata["namespace"] = namespace
        metadata.pop("ownerReferences", None)
        if document["kind"] == "Service":
            document["spec"].pop("clusterIP", None)
            document["spec"].pop("clusterIPs", None)
        if document["kind"] == "EndpointSlice":
            variant = next(name for name in ports if f"-{name}-predictor" in metadata["name"])
            address, port = ports[variant]
            document["endpoints"] = [document["endpoints"][0] | {"addresses": [address]}]
            document["ports"][0]["port"] = port
        yield document


@pytest.fixture
def cluster(apiserver, namespace, network, tmp_path):
    return Cluster(apiserver, namespace, tmp_path, network)


@pytest_asyncio.fixture
async def models(network):
    """variant -> (address, port) of its model server."""
    async with AsyncExitStack() as stack:
        where = {}
        for variant in VARIANTS:
            address = network.address()
            where[variant] = (address, await stack.enter_async_context(serve(Model(variant), address, 0)))
        yield where


async def test_objects_become_a_gateway_that_serves_by_weights(cluster, models, tmp_path):
    """From `kubectl apply` to answers, status, and a weight that is live in milliseconds."""
    service = cluster.deploy(models)
    with ExitStack() as stack:
        begun = time.perf_counter()
        await Replica(cluster, "xdserve-0").started(stack.enter_context(Children(tmp_path)))
        started = time.perf_counter() - begun
        await wait_until(lambda: len(cluster.manifests()) == len(KINDS), 20, "the manifests to appear")
        appeared = time.perf_counter() - begun
        await wait_until(lambda: cluster.reason("InferenceService", GATEWAY_PROGRAMMED) == "NoGateway", 15)
        await cluster.gateway(stack)
        await cluster.programmed("InferenceService")
        counts = Counter([await cluster.ask() for _ in range(300)])
        assert counts.keys() == VARIANTS.keys()
        assert 180 < counts["v1"] < 270, counts  # 75 in 100

        cluster.apiserver.apply(weighed(v1=0, v2=100), namespace=cluster.namespace)
        await cluster.programmed("TrafficPolicy", "InferenceService")
        assert {await cluster.ask() for _ in range(20)} == {"v2"}
        kept = [one["type"] for one in cluster.get("InferenceService", NAME)["status"]["conditions"]]
        assert set(kept) == {one["type"] for one in service["status"]["conditions"]} | {GATEWAY_PROGRAMMED}

        took = await edits(cluster)
        sys.stdout.write(
            f"\nready after {started:.1f} s, manifests after {appeared:.1f} s; a patched weight is live after "
            f"{median(took):.1f} ms (median of {len(took)}, worst {max(took):.1f})\n"
        )


async def test_a_replica_that_does_not_lead_serves_reports_and_takes_over(cluster, models, tmp_path):
    cluster.deploy(models)
    with ExitStack() as stack:
        children = stack.enter_context(Children(tmp_path))
        follower = Replica(cluster, "xdserve-1")
        leader = await Replica(cluster, "xdserve-0", entrance=follower.xds).started(children)
        await wait_until(lambda: cluster.leader() == "xdserve-0", 20, "the first to lead")
        await follower.started(children)
        await cluster.gateway(stack)
        await cluster.programmed("InferenceService")
        assert cluster.leader() == "xdserve-0"
        assert await cluster.ask() in VARIANTS

        assert leader.child.stop() == 0
        await wait_until(lambda: cluster.leader() == "xdserve-1", 10, "the other to lead")
        cluster.apiserver.apply(weighed(v2=100), namespace=cluster.namespace)
        await cluster.programmed("TrafficPolicy")
        assert await cluster.ask() == "v2"


async def test_what_an_envoy_refuses_is_told_on_the_object_and_the_former_state_served(cluster, models, tmp_path):
    """A port that is in use: what no check can know before."""
    cluster.deploy(models)
    with ExitStack() as stack:
        await Replica(cluster, "xdserve-0").started(stack.enter_context(Children(tmp_path)))
        await cluster.gateway(stack)
        cluster.apiserver.apply(listening(GATEWAY_PORT), namespace=cluster.namespace)
        await cluster.programmed("ServiceGateway", "InferenceService")

        with socket.create_server(("0.0.0.0", 0)) as taken:
            cluster.apiserver.apply(listening(taken.getsockname()[1]), namespace=cluster.namespace)
            await wait_until(lambda: cluster.reason("ServiceGateway", "Programmed") == "Rejected", 20, "the refusal")
            await wait_until(lambda: cluster.reason("InferenceService", GATEWAY_PROGRAMMED) == "Rejected", 20)
            told = next(one for one in cluster.conditions("ServiceGateway") if one["type"] == "Programmed")
            assert told["message"].startswith("spec")
            assert "Address already in use" in told["message"]
            assert await cluster.ask() in VARIANTS
            await wait_until(lambda: ("InferenceService", "Warning", "Rejected") in cluster.events(), 10, "an Event")

        cluster.apiserver.apply(listening(GATEWAY_PORT), namespace=cluster.namespace)
        await cluster.programmed("ServiceGateway", "InferenceService")
        await wait_until(lambda: ("InferenceService", "Normal", "Programmed") in cluster.events(), 10, "an Event")
        assert await cluster.ask() in VARIANTS


async def test_a_gateway_goes_and_comes_with_its_annotation_and_belongs_to_the_newest_target(cluster, models, tmp_path):
    cluster.deploy(models)
    with ExitStack() as stack:
        await Replica(cluster, "xdserve-0").started(stack.enter_context(Children(tmp_path)))
        await wait_until(lambda: len(cluster.manifests()) == len(KINDS), 20, "the manifests to appear")
        for said, number in (("false", 0), ("true", len(KINDS))):
            cluster.annotate(f"xdserve.io/gateway={said}")
            await wait_until(lambda n=number: len(cluster.manifests()) == n, 20, f"{number} manifests")

        path = PATHS["InferenceService"].format(cluster.namespace, NAME)
        cluster.apiserver.kubectl(
            "patch", "isvc", NAME, f"-n={cluster.namespace}", "--type=merge", f"-p={NO_FINALIZERS}"
        )
        cluster.apiserver.call("DELETE", path)
        cluster.deploy(models)
        uid = cluster.apiserver.call("GET", path)["metadata"]["uid"]
        await wait_until(lambda: cluster.owners() == {uid}, 20, "the manifests to be of the new target")


async def test_a_program_that_waits_for_the_apiserver_can_be_told_to_stop(cluster, tmp_path):
    text = cluster.kubeconfig.read_text()
    cluster.kubeconfig.write_text(text.replace(str(cluster.apiserver.port), str(free_ports(1)[0])))
    with Children(tmp_path) as children:
        child = Replica(cluster, "xdserve-0").start(children)
        await wait_until(lambda: "no new certificate" in child.log.read_text(), 20, "it to wait")
        assert child.stop() == 0


def listening(port):
    """A ServiceGateway that listens there."""
    return entrance(port, target=NAME, address="0.0.0.0") | {"metadata": {"name": NAME}}


def weighed(**weights):
    """A policy that splits so."""
    return policy(NAME, split=split(**{VARIANTS[name]: weight for name, weight in weights.items()})) | {
        "metadata": {"name": NAME}
    }


async def edits(cluster, number=20):
    """Milliseconds from the apiserver's answer to a patch until the first answer by it, of each edit."""
    took = []
    path = PATHS["TrafficPolicy"].format(cluster.namespace, NAME)
    async with await cluster.apiserver.client() as client:
        call = Calls(client)
        for at in range(number):
            variant = ("v1", "v2")[at % 2]
            other = {"v1": "v2", "v2": "v1"}[variant]
            await call("PATCH", path, {"spec": weighed(**{variant: 100, other: 0})["spec"]}, content_type=MERGE)
            begun = time.perf_counter()
            await wait_until(lambda v=variant: answers(cluster, v), 10, f"{variant} to answer", 0)
            took.append(1000 * (time.perf_counter() - begun))
            await asyncio.sleep(0)
    patch = '{"spec":{"split":[{"backend":"predictor","weight":100}]}}'
    flags = ("--type=merge", f"--namespace={cluster.namespace}", f"--patch={patch}")
    await asyncio.to_thread(cluster.apiserver.kubectl, "patch", "trafficpolicy", NAME, *flags)
    await wait_until(lambda: answers(cluster, "v1"), 10, "v1 to answer")
    return took


async def answers(cluster, variant):
    return await cluster.ask() == variant
