"""A cluster as xdserve meets it: an apiserver with a namespace, replicas under the chart's account, pods of gateways.

`Cluster.deploy` applies the sample with the status that KServe's controller wrote; `Replica` is one xdserve.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import aiohttp
import yaml

from bootstrap.manifests import AUDIENCE, MANAGER
from tests.support import chart
from tests.support.account import chart_account
from tests.support.documents import entrance, policy, split
from tests.support.kube import ApiError
from tests.support.model import Model, serve
from tests.support.pod import Pod
from tests.support.processes import clean_environment, free_ports
from tests.support.requests import http1
from tests.support.wait import wait_until
from xdserve.conditions import GATEWAY_PROGRAMMED
from xdserve.kube.parts import KINDS

SAMPLE = Path(__file__).parents[1] / "kube/samples/iris-canary.yaml"
NAME = "iris-canary"
VARIANTS = {"v1": "predictor", "v2": "v2", "v3": "v3"}
GATEWAY_PORT = 8080
NO_FINALIZERS = '{"metadata":{"finalizers":[]}}'
PATHS = {
    "InferenceService": "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices/{}",
    "Inference": "/apis/serving.kubedl.io/v1alpha1/namespaces/{}/inferences/{}",
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

    def __init__(self, cluster, name, entrance=None, flags=()):
        (self.admin,) = free_ports(1)
        self.xds = f"{cluster.network.address()}:18000"
        self._command = [sys.executable, "-m", "xdserve", "serve", "--source", "kubernetes", "--drain", "0.2"]
        self._command += ["--kubeconfig", str(cluster.kubeconfig), "--state-directory", str(cluster.folder / name)]
        self._command += ["--xds-address", self.xds, "--gateway-xds-address", entrance or self.xds]
        self._command += ["--admin-address", f"127.0.0.1:{self.admin}", *flags]
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
    """An apiserver with a namespace, and with the account for xdserve of the chart with some values."""

    def __init__(self, apiserver, namespace, folder, network, values=None):
        self.apiserver, self.namespace, self.folder, self.network = apiserver, namespace, folder, network
        # What an earlier xdserve was called and who led then is nobody's business here.
        for kind, name in (("Secret", f"{chart.NAME}-ca"), ("Lease", chart.NAME)):
            if self.get(kind, name, chart.NAMESPACE):
                apiserver.call("DELETE", PATHS[kind].format(chart.NAMESPACE, name))
        self.kubeconfig = chart_account(apiserver, folder / "kubeconfig", values)

    def deploy(self, models):
        """Apply the sample, with the status that KServe's controller wrote; its InferenceService."""
        documents = list(sample(self.namespace, models))
        self.apiserver.apply(*documents, namespace=self.namespace)
        (service,) = [one for one in documents if one["kind"] == "InferenceService"]
        path = PATHS["InferenceService"].format(self.namespace, NAME)
        there = self.apiserver.call("GET", path)
        self.apiserver.call("PUT", f"{path}/status", there | {"status": service["status"]})
        return service

    def pod(self, stack, name, network, pod="pod-1"):
        """A pod of a target's gateway as its manifests are now, in a network of its own; not started."""
        token = self.apiserver.account_token(self.namespace, f"{name}-gateway", audiences=[AUDIENCE])
        manifests = self.manifests(f"{name}-gateway")
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return stack.enter_context(Pod(folder, manifests, token=token, name=pod, network=network))

    async def provisioned(self):
        """Wait for the manifests of the sample's gateway."""
        await wait_until(lambda: len(self.manifests()) == len(KINDS), 20, "the manifests to appear")

    async def gateway(self, stack):
        """A pod of the gateway, when its manifests are there."""
        await self.provisioned()
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

    def manifests(self, name=f"{NAME}-gateway"):
        """What there is of a gateway."""
        return [found for kind in KINDS if (found := self.get(kind, name))]

    def made(self):
        """Kind and name of all that xdserve has made here."""
        query = f"?labelSelector={quote(f'app.kubernetes.io/managed-by={MANAGER}')}"
        found = {kind: PATHS[kind].format(self.namespace, "").rstrip("/") + query for kind in KINDS}
        return {(kind, one["metadata"]["name"]) for kind in found for one in self._list(found[kind])}

    def _list(self, path):
        return self.apiserver.call("GET", path)["items"]

    def owners(self):
        """The uids of whom the gateway is of."""
        return {owner["uid"] for one in self.manifests() for owner in one["metadata"]["ownerReferences"]}

    def events(self):
        """Kind of object, type and reason of all Events."""
        found = self.apiserver.call("GET", f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")["items"]
        return {(one["regarding"]["kind"], one["type"], one["reason"]) for one in found}

    def annotate(self, text):
        self.apiserver.kubectl("annotate", "--overwrite", f"--namespace={self.namespace}", "isvc", NAME, text)

    def conditions(self, kind, name=NAME):
        """Of a service, or of what is attached to it."""
        status = (self.get(kind, name) or {}).get("status", {})
        return [
            *status.get("conditions", ()),
            *(one for each in status.get("ancestors", ()) for one in each["conditions"]),
        ]

    def reason(self, kind, condition, name=NAME):
        """Why a condition is as it is."""
        return next((one["reason"] for one in self.conditions(kind, name) if one["type"] == condition), None)

    async def programmed(self, *kinds):
        for kind in kinds:
            name = GATEWAY_PROGRAMMED if kind == "InferenceService" else "Programmed"
            await wait_until(lambda k=kind, n=name: self.reason(k, n) == "Programmed", 20, f"{kind} to say Programmed")

    async def ask(self, to="127.0.0.1", port=GATEWAY_PORT):
        """The variant that answers; a status where none does."""
        host = f"{NAME}-{self.namespace}.example.com"
        reply = await http1(port, f"/v1/models/{NAME}", host=host, to=to)
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


@asynccontextmanager
async def model_servers(network, variants=VARIANTS):
    """variant -> (address, port) of its model server."""
    async with AsyncExitStack() as stack:
        where = {}
        for variant in variants:
            address = network.address()
            where[variant] = (address, await stack.enter_async_context(serve(Model(variant), address, 0)))
        yield where


def listening(port):
    """A ServiceGateway that listens there."""
    return entrance(port, target=NAME, address="0.0.0.0") | {"metadata": {"name": NAME}}


def weighed(**weights):
    """A policy that splits so."""
    return policy(NAME, split=split(**{VARIANTS[name]: weight for name, weight in weights.items()})) | {
        "metadata": {"name": NAME}
    }
