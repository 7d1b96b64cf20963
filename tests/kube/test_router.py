"""A policy's `router` on a cluster: it runs in the gateway's pod, has `POST /infer`, and asks by the weights."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager

from bootstrap.manifests import AUDIENCE
from tests.support.cluster import GATEWAY_PORT, NAME, VARIANTS, Replica, weighed
from tests.support.model import Model, serve
from tests.support.podnet import PodNetwork
from tests.support.processes import Children
from tests.support.requests import http1
from tests.support.router_pod import RouterPod
from tests.support.wait import wait_until

GATEWAY = f"{NAME}-gateway"
ROUTER = {"maxConcurrency": 4, "kvEndpoints": ["kv-1:6379"]}


class Named(Model):
    """A model that predicts its own name."""

    async def _per_instance(self, request, field):
        instances = (await request.json())["instances"]
        return self._answer({field: [self.variant] * len(instances)})


@asynccontextmanager
async def named_models(network):
    """variant -> (address, port) of its model server."""
    async with AsyncExitStack() as stack:
        where = {}
        for variant in VARIANTS:
            address = network.address()
            where[variant] = (address, await stack.enter_async_context(serve(Named(variant), address, 0)))
        yield where


def asked(router=ROUTER, **weights):
    """A policy with these weights and a router."""
    made = weighed(**weights)
    return made | {"spec": made["spec"] | ({"router": router} if router else {})}


def containers(cluster):
    (deployment,) = [one for one in cluster.manifests(GATEWAY) if one["kind"] == "Deployment"]
    return {one["name"]: one for one in deployment["spec"]["template"]["spec"]["containers"]}


def told(cluster, variable):
    """What the router's container is told."""
    environment = containers(cluster).get("router", {}).get("env", ())
    return next((one["value"] for one in environment if one["name"] == variable), None)


async def infer(network, prompt="hello"):
    body = json.dumps({"prompt": prompt}).encode()
    reply = await http1(GATEWAY_PORT, "/infer", method="POST", to=network.address, body=body)
    return reply.status, json.loads(reply.body)


async def predicts(network, variant):
    return {(await infer(network))[1].get("output") for _ in range(5)} == {variant}


async def test_prompts_go_by_the_policy_and_only_its_router_rolls_the_pods(cluster, network, tmp_path):
    async with named_models(network) as models:
        cluster.deploy(models)
        cluster.apiserver.apply(asked(v1=50, v2=50), namespace=cluster.namespace)
        with ExitStack() as stack:
            await Replica(cluster, "xdserve-0").started(stack.enter_context(Children(tmp_path)))
            await cluster.provisioned()
            assert list(containers(cluster)) == ["envoy", "router"]
            token = cluster.apiserver.account_token(cluster.namespace, GATEWAY, audiences=[AUDIENCE])
            alone = stack.enter_context(PodNetwork())
            made = cluster.manifests(GATEWAY)
            await stack.enter_context(RouterPod(cluster.folder, made, token=token, network=alone)).started()
            await cluster.programmed("TrafficPolicy", "InferenceService")

            status, answer = await infer(alone)
            assert (status, answer["modelRef"], answer["routerPod"]) == (200, NAME, "pod-1")
            assert answer["kvEndpoints"] == ["kv-1:6379"]
            counts = Counter([(await infer(alone))[1]["output"] for _ in range(100)])
            assert counts.keys() == {"v1", "v2"}
            assert 25 < counts["v1"] < 75, counts

            versions = [one["metadata"]["resourceVersion"] for one in cluster.manifests(GATEWAY)]
            cluster.apiserver.apply(asked(v2=100), namespace=cluster.namespace)
            await wait_until(lambda: predicts(alone, "v2"), 20, "the new weights to be live")
            assert [one["metadata"]["resourceVersion"] for one in cluster.manifests(GATEWAY)] == versions

            cluster.apiserver.apply(asked({**ROUTER, "maxConcurrency": 5}, v2=100), namespace=cluster.namespace)
            await wait_until(lambda: told(cluster, "MAX_CONCURRENCY") == "5", 20, "the pods to be rolled")
            cluster.apiserver.apply(asked(None, v2=100), namespace=cluster.namespace)
            await wait_until(lambda: list(containers(cluster)) == ["envoy"], 20, "the router to go")
            await wait_until(lambda: goes_to_the_model(alone), 20, "/infer to be the model's again")


async def goes_to_the_model(network):
    return (await infer(network))[1].get("variant") == "v2"
