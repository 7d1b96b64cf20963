"""Clusters with IPv6 on a real kube-apiserver: what gateways are made of, where they listen, and who reaches them."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from tests.support.cluster import Cluster, Replica
from tests.support.documents import isvc, service
from tests.support.kube import Apiserver
from tests.support.kube_seed import CRDS
from tests.support.model import Model, serve
from tests.support.netns import bindable
from tests.support.pod import Pod
from tests.support.processes import Children
from tests.support.requests import http1, http2
from tests.support.wait import wait_until

V4, V6 = "127.0.0.1", "::1"
SERVICES_V4, SERVICES_V6 = "10.96.0.0/16", "fd00:10:96::/112"
PORT = 8080

CLUSTERS = {
    "ipv6": (SERVICES_V6, V6, ["IPv6"], "SingleStack"),
    "dual-stack": (f"{SERVICES_V4},{SERVICES_V6}", V4, ["IPv4", "IPv6"], "PreferDualStack"),
    "dual-stack, IPv6 first": (f"{SERVICES_V6},{SERVICES_V4}", V6, ["IPv6", "IPv4"], "RequireDualStack"),
}


@pytest.fixture(params=CLUSTERS)
def families(request, network, tmp_path_factory):
    """An apiserver whose Services have these families; the families and policy of the model's Service."""
    ranges, advertised, wanted, policy = CLUSTERS[request.param]
    flags = f"--service-cluster-ip-range={ranges}", f"--advertise-address={advertised}"
    with Apiserver(tmp_path_factory.mktemp("families"), *flags) as apiserver:
        apiserver.start().install(*CRDS)
        yield apiserver, wanted, policy


def endpoints(name, namespace, family, address, port):
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-{family.lower()}",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": family,
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": name, "port": port, "protocol": "TCP"}],
    }


def documents(namespace, wanted, policy, where):
    made = service("iris-predictor")
    made["spec"] |= {"ipFamilies": wanted, "ipFamilyPolicy": policy, "selector": {"app": "iris"}}
    slices = [endpoints("iris-predictor", namespace, family, *where[family]) for family in wanted]
    for one in (found := [isvc(predictor={"model": {"modelFormat": {"name": "sklearn"}}}), made, *slices]):
        one["metadata"]["namespace"] = namespace
    return found


async def test_a_gateway_is_made_for_the_families_of_its_service_and_reached_by_them(families, network, tmp_path):
    apiserver, wanted, policy = families
    namespace = apiserver.make_namespace("models")
    cluster = Cluster(apiserver, namespace, tmp_path, network)
    async with AsyncExitStack() as stack:
        where = {}
        v6 = network.ipv6_address()
        await wait_until(lambda: bindable(v6), 10, "the address of IPv6 to be there", 0.01)
        for family, address in (("IPv4", network.address()), ("IPv6", v6)):
            where[family] = address, await stack.enter_async_context(serve(Model(family), address, 0))
        apiserver.apply(*documents(namespace, wanted, policy, where), namespace=namespace)
        children = stack.enter_context(Children(tmp_path))
        replica = await Replica(cluster, "xdserve-0").started(children)
        await wait_until(lambda: len(cluster.manifests("iris-gateway")) == 5, 30, "the manifests to appear")
        _is_as_the_service(cluster, wanted, policy)
        applied = _version(cluster)
        token = apiserver.account_token(namespace, "iris-gateway", audiences=["xdserve"])
        pod = await _running(stack, cluster, token)
        assert await pod.probe("livenessProbe")
        for host in (V4, V6):
            for ask in (http1, http2):
                reply = await ask(PORT, "/v1/models/iris", to=host)
                assert reply.status == 200, (host, reply)
        # The slices of both families have the same pods: those of the cluster's first family are asked.
        assert {(await http1(PORT, "/v1/models/iris", to=V6)).header("x-variant") for _ in range(20)} == {wanted[0]}
        assert await replica.ready()
        assert _version(cluster) == applied, "what is there is what was wanted: nothing is applied again"


def _is_as_the_service(cluster, wanted, policy):
    entrance = cluster.get("Service", "iris-gateway")["spec"]
    assert (entrance["ipFamilies"], entrance["ipFamilyPolicy"]) == (wanted, policy)
    assert len(entrance["clusterIPs"]) == len(wanted)


async def _running(stack, cluster, token):
    pod = Pod(cluster.folder, cluster.manifests("iris-gateway"), token=token)
    return await stack.enter_context(pod).started()


def _version(cluster):
    return cluster.get("Service", "iris-gateway")["metadata"]["resourceVersion"]
