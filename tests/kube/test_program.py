"""The program as its users meet it: `xdserve serve --source kubernetes` under the chart's ServiceAccount and roles.

On a real kube-apiserver, with a stock Envoy that is started from the very manifests that appear there.
"""

from __future__ import annotations

import asyncio
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
from tests.support.documents import policy, split
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
PATHS = {
    "InferenceService": "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices/{}",
    "TrafficPolicy": "/apis/xdserve.io/v1alpha1/namespaces/{}/trafficpolicies/{}",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts/{}",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps/{}",
    "Service": "/api/v1/namespaces/{}/services/{}",
    "Secret": "/api/v1/namespaces/{}/secrets/{}",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/{}/leases/{}",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets/{}",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments/{}",
}


class Cluster:
    """An apiserver with a namespace, and one xdserve that has a pod's account, name and address."""

    def __init__(self, apiserver, namespace, folder, address):
        self.apiserver, self.namespace, self.folder = apiserver, namespace, folder
        port, self.admin = free_ports(2)
        self.xds = f"{address}:{port}"
        self.child = None

    def start(self, children, *flags, name="xdserve-0"):
        kubeconfig = chart_account(self.apiserver, self.folder / f"{name}-kubeconfig")
        command = [sys.executable, "-m", "xdserve", "serve", "--source", "kubernetes", "--kubeconfig", str(kubeconfig)]
        command += ["--xds-address", self.xds, "--gateway-xds-address", self.xds, "--drain", "0.2"]
        command += ["--admin-address", f"127.0.0.1:{self.admin}", "--state-directory", str(self.folder / name)]
        pod = {"POD_NAME": name, "POD_NAMESPACE": chart.NAMESPACE, "POD_UID": f"uid-of-{name}"}
        self.child = children.start(name, [*command, *flags], env=clean_environment(**pod))

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

    def get(self, kind, name, namespace=None):
        """An object; None if there is none."""
        try:
            return self.apiserver.call("GET", PATHS[kind].format(namespace or self.namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def remove(self, kind, name, namespace):
        if self.get(kind, name, namespace):
            self.apiserver.call("DELETE", PATHS[kind].format(namespace, name))

    def manifests(self):
        """What there is of the gateway."""
        return [found for kind in KINDS if (found := self.get(kind, f"{NAME}-gateway"))]

    def reason(self, kind, condition):
        """Why a condition of the service, or of its policy, is as it is."""
        status = (self.get(kind, NAME) or {}).get("status", {})
        listed = [*status.get("conditions", ())]
        listed += [one for entry in status.get("ancestors", ()) for one in entry["conditions"]]
        return next((one["reason"] for one in listed if one["type"] == condition), None)

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
    cluster = Cluster(apiserver, namespace, tmp_path, network.address())
    # What an earlier xdserve was called and who led then is nobody's business here.
    for kind, name in (("Secret", f"{chart.NAME}-ca"), ("Lease", chart.NAME)):
        cluster.remove(kind, name, chart.NAMESPACE)
    return cluster


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
    documents = list(sample(cluster.namespace, models))
    cluster.apiserver.apply(*documents, namespace=cluster.namespace)
    (service,) = [one for one in documents if one["kind"] == "InferenceService"]
    path = PATHS["InferenceService"].format(cluster.namespace, NAME)
    there = cluster.apiserver.call("GET", path)
    cluster.apiserver.call("PUT", f"{path}/status", there | {"status": service["status"]})
    with ExitStack() as stack:
        children = stack.enter_context(Children(tmp_path))
        begun = time.perf_counter()
        cluster.start(children)
        await wait_until(cluster.ready, 30, "xdserve to be ready")
        started = time.perf_counter() - begun
        await wait_until(lambda: len(cluster.manifests()) == len(KINDS), 20, "the manifests to appear")
        appeared = time.perf_counter() - begun
        await wait_until(lambda: cluster.reason("InferenceService", GATEWAY_PROGRAMMED) == "NoGateway", 15)

        token = cluster.apiserver.account_token(cluster.namespace, f"{NAME}-gateway", audiences=[AUDIENCE])
        pod = stack.enter_context(Pod(tmp_path, cluster.manifests(), token=token))
        await pod.started()
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
