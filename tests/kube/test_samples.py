"""All recorded samples on a real kube-apiserver, with the status that their controllers wrote: each gets its gateway.

Each gateway is a stock Envoy started from the manifests that appear, in a network of its own.
Who gets none: an InferenceGraph (it is no target: it routes by itself, behind a Service that it has), and the Services
of KServe and KubeDL (a core Service gets a gateway if a policy or ServiceGateway names it). A stopped InferenceService,
and one that has no ready pod yet, have theirs: it says 503 until there is something to send to.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from tests.support.cluster import GATEWAY_PORT, Replica
from tests.support.documents import policy, split
from tests.support.podnet import PodNetwork
from tests.support.processes import Children
from tests.support.recorded import SAMPLES, Recorded, status_in_comment
from tests.support.requests import http1, http2
from tests.support.wait import wait_until
from xdserve.conditions import GATEWAY_PROGRAMMED
from xdserve.demo.statistics import agrees
from xdserve.kube.parts import KINDS

KSERVE = sorted((SAMPLES / "kserve-cluster-state/ingress-disabled").glob("*.yaml"))
EARLIER = [path for path in KSERVE if "before-ready" in path.name]
KUBEDL = sorted((SAMPLES / "kubedl").glob("*.yaml"))
WEIGHTS_OF_KUBEDL = KUBEDL[-1]
CALL = "/inference.GRPCInferenceService/ModelInfer"
EMPTY_MESSAGE = bytes(5)
ASKED = 300


class Gateways:
    """The Envoys of gateways, each in a pod's network."""

    def __init__(self, cluster, stack):
        self._cluster, self._stack = cluster, stack
        self._pods = {}

    async def start(self, *names):
        """A pod of each, started from the manifests that are there."""
        for name in names:
            network = self._stack.enter_context(PodNetwork())
            self._pods[name] = self._cluster.pod(self._stack, name, network)
            self._pods[name].start()
        for name in names:
            await self._pods[name].wait_ready(60)

    async def get(self, name, path=None, *, host=None, **more):
        """The variant that answers; a status where none does."""
        host = host or f"{name}-{self._cluster.namespace}.example.com"
        path = path or f"/v1/models/{name}"
        reply = await http1(GATEWAY_PORT, path, host=host, to=self._pods[name].host, **more)
        return reply.header("x-variant") if reply.status == 200 else reply.status

    async def call(self, name):
        """The variant that answers by gRPC; a status where none does."""
        more = {"headers": [("content-type", "application/grpc"), ("te", "trailers")], "body": EMPTY_MESSAGE}
        authority = f"{name}-{self._cluster.namespace}.example.com"
        reply = await http2(GATEWAY_PORT, CALL, method="POST", authority=authority, to=self._pods[name].host, **more)
        return reply.body[len(EMPTY_MESSAGE) :].decode() if reply.status == 200 else reply.status

    async def shares(self, name):
        return Counter([await self.get(name) for _ in range(ASKED)])


@pytest.fixture
def children(tmp_path):
    with Children(tmp_path) as children:
        yield children


async def at_work(cluster, children, stack, targets):
    """xdserve runs, and a gateway for each target from the manifests that it made; all is programmed."""
    await Replica(cluster, "xdserve-0").started(children)
    await provisioned(cluster, targets)
    gateways = Gateways(cluster, stack)
    await gateways.start(*targets)
    for name in targets:
        await programmed(cluster, name)
    return gateways


async def test_each_sample_of_kserve_gets_a_gateway_that_serves_it(cluster, children, network):
    async with Recorded(cluster.namespace, *(set(KSERVE) - set(EARLIER))) as recorded, AsyncExitStack() as stack:
        await recorded.serve(network)
        recorded.put(cluster.apiserver)
        targets = recorded.of("InferenceService")
        assert len(targets) == len(KSERVE) - len(EARLIER) - len(recorded.of("InferenceGraph"))
        gateways = await at_work(cluster, children, stack, targets)

        one_component = targets - {"artserver", "internal-model", "iris-canary", "paused-model", "torch-transformer"}
        for name in one_component - {"triton-grpc"}:
            assert await gateways.get(name) == f"{name}-predictor"
        for name in ("triton-grpc", "dual-protocol"):
            assert await gateways.call(name) == f"{name}-predictor"

        counts = await gateways.shares("iris-canary")
        assert agrees({f"iris-canary-{v}-predictor": share for v, share in CANARY.items()}, counts), counts
        assert await gateways.get("torch-transformer") == "torch-transformer-transformer"
        more = {"method": "POST", "body": b'{"instances": [1]}'}
        assert await gateways.get("artserver", "/v1/models/artserver:explain", **more) == "artserver-explainer"
        assert await gateways.get("artserver", "/v1/models/artserver:predict", **more) == "artserver-predictor"
        inside = f"internal-model.{cluster.namespace}.svc.cluster.local"
        assert await gateways.get("internal-model") == 404
        assert await gateways.get("internal-model", host=inside) == "internal-model-predictor"
        assert await gateways.get("paused-model") == 503


CANARY = {"v1": 0.75, "v2": 0.20, "v3": 0.05}


async def test_a_sample_that_is_not_ready_yet_has_its_gateway_before_its_pods(cluster, children, network):
    """And when its pods come, the gateway that has waited serves."""
    async with Recorded(cluster.namespace, *EARLIER) as recorded, AsyncExitStack() as stack:
        recorded.put(cluster.apiserver)
        targets = recorded.of("InferenceService")
        assert targets == {"iris-canary", "sklearn-iris"}
        gateways = await at_work(cluster, children, stack, targets)
        for name in targets:
            assert await gateways.get(name) == 503

        later = [path for path in KSERVE if path.stem in targets]
        ready = await stack.enter_async_context(Recorded(cluster.namespace, *later))
        await ready.serve(network)
        ready.put(cluster.apiserver)
        for name, variant in (("iris-canary", "iris-canary-v1-predictor"), ("sklearn-iris", "sklearn-iris-predictor")):
            await wait_until(lambda n=name, v=variant: answers(gateways, n, v), 20, f"{variant} to answer")


async def test_each_sample_of_kubedl_gets_a_gateway_and_a_split_with_rules(cluster, children, network):
    """KubeDL's proposal: weights are the Inference's own; a policy adds rules by header and cookie."""
    async with Recorded(cluster.namespace, *KUBEDL) as recorded, AsyncExitStack() as stack:
        await recorded.serve(network)
        weighted = recorded.get("Inference", "mnist")
        weighted["status"] = status_in_comment(WEIGHTS_OF_KUBEDL)
        recorded.put(cluster.apiserver)
        targets = recorded.of("Inference")
        assert targets == {"hello-inference", "mnist", "resnet"}
        await Replica(cluster, "xdserve-0").started(children)
        await provisioned(cluster, targets)
        (port,) = cluster.get("Service", "mnist-gateway")["spec"]["ports"]
        assert (port["port"], port["targetPort"]) == (80, GATEWAY_PORT)
        gateways = Gateways(cluster, stack)
        await gateways.start(*targets)
        await wait_until(lambda: answers(gateways, "mnist", "mnist-v1", times=3), 20, "mnist to answer")
        counts = await gateways.shares("mnist")
        assert agrees({"mnist-v1": 0.9, "mnist-v2": 0.1}, counts), counts
        assert await gateways.call("mnist") in {"mnist-v1", "mnist-v2"}
        for name in targets - {"mnist"}:  # of these there is no Service
            assert await gateways.get(name) == 503

        cluster.apiserver.apply(rules("mnist"), namespace=cluster.namespace)
        await wait_until(lambda: cluster.reason("TrafficPolicy", "Programmed", "mnist") == "Programmed", 20)
        for headers in ((("x-tester", "true"),), (("cookie", "other=2; beta=1"),)):
            assert {await gateways.get("mnist", headers=headers) for _ in range(20)} == {"mnist-v2"}
        counts = await gateways.shares("mnist")
        assert agrees({"mnist-v1": 0.9, "mnist-v2": 0.1}, counts), counts

        patch = json.dumps({"spec": {"predictors": swapped(weighted)}})
        flags = ("--type=merge", f"--namespace={cluster.namespace}", f"--patch={patch}")
        cluster.apiserver.kubectl("patch", "inference", "mnist", *flags)
        await wait_until(lambda: answers(gateways, "mnist", "mnist-v2", times=5), 20, "the weights to be swapped")
        counts = await gateways.shares("mnist")
        assert agrees({"mnist-v1": 0.1, "mnist-v2": 0.9}, counts), counts
        status = cluster.get("Inference", "mnist")["status"]
        assert status["predictorStatuses"] == weighted["status"]["predictorStatuses"]


async def provisioned(cluster, targets):
    """Wait until each of the targets has all of a gateway, and see that nobody else has."""
    wanted = {(kind, f"{name}-gateway") for kind in KINDS for name in targets}
    await wait_until(lambda: cluster.made() >= wanted, 30, "the manifests to appear", 0.1)
    assert cluster.made() == wanted


async def programmed(cluster, name):
    """As KServe's users see it; KubeDL's CRD has no place for conditions.

    Of a stopped service KServe tells no generation, so that it is waited for as long as that is done.
    """
    found = ("InferenceService", GATEWAY_PROGRAMMED, name)
    await wait_until(lambda: cluster.reason(*found) == "Programmed", 50, f"{name} to say Programmed")


async def answers(gateways, name, variant, times=1):
    return {await gateways.get(name) for _ in range(times)} == {variant}


def rules(name):
    """A policy of an Inference: testers, by header or by cookie, get the new version."""
    matches = [{"headers": [{"name": "x-tester", "value": "true"}]}, {"cookies": [{"name": "beta", "value": "1"}]}]
    made = policy(name, "Inference", rules=[{"name": "testers", "matches": matches, "split": split(v2=1)}])
    return made | {"metadata": {"name": name}}


def swapped(inference):
    """Its predictors, the weight of each given to the other."""
    first, second = inference["spec"]["predictors"]
    weights = {"trafficWeight": second["trafficWeight"]}, {"trafficWeight": first["trafficWeight"]}
    return [first | weights[0], second | weights[1]]
