"""`provision: off`: xdserve makes no pods and has no right to; those that others make are known, and told of, too.

Under exactly the roles that the chart has for that value.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from contextlib import ExitStack

import pytest

from bootstrap.manifests import AUDIENCE
from tests.support import chart
from tests.support.cluster import NAME, Cluster, Replica, model_servers, weighed
from tests.support.envoy import running_envoy
from tests.support.kube import KubectlError
from tests.support.processes import Children, free_ports
from tests.support.wait import wait_until
from xdserve.conditions import GATEWAY_PROGRAMMED

OFF = {"settings": {"provision": "off"}}


@pytest.fixture
def cluster(lone_apiserver, network, tmp_path):
    return Cluster(lone_apiserver, lone_apiserver.make_namespace("models"), tmp_path, network, OFF)


async def test_a_gateway_that_others_make_is_known_by_its_service_account(cluster, network, tmp_path):
    """An Envoy by `xdserve bootstrap` with a token of the ServiceAccount `<name>-gateway`."""
    with pytest.raises(KubectlError, match="cannot create resource"):
        cluster.apiserver.kubectl("create", "deployment", "any", "--image=any", kubeconfig=cluster.kubeconfig)
    async with model_servers(network) as models:
        cluster.deploy(models)
        with ExitStack() as stack:
            replica = Replica(cluster, "xdserve-0", flags=("--provision", "off"))
            await replica.started(stack.enter_context(Children(tmp_path)))
            cluster.apiserver.apply(weighed(v2=100), namespace=cluster.namespace)
            await wait_until(lambda: cluster.reason("TrafficPolicy", "Programmed") == "NoGateway", 20, "a status")
            # Nobody has said that there is to be one, so nothing is wrong with the service.
            assert cluster.reason("InferenceService", GATEWAY_PROGRAMMED) is None
            assert not cluster.made()

            cluster.apiserver.kubectl("create", "serviceaccount", f"{NAME}-gateway", f"-n={cluster.namespace}")
            (admin,) = free_ports(1)
            stack.enter_context(running_envoy(tmp_path, await bootstrap(cluster, replica, admin), admin))
            await cluster.programmed("InferenceService", "TrafficPolicy")
            assert await cluster.ask() == "v2"
            cluster.apiserver.apply(weighed(v1=100, v2=0), namespace=cluster.namespace)
            await wait_until(lambda: answers(cluster, "v1"), 10, "the new split")
            await cluster.programmed("TrafficPolicy")
            assert not cluster.made()


async def bootstrap(cluster, replica, admin):
    """What `xdserve bootstrap` says, with what a user hands to it: the authority and a token."""
    folder = cluster.folder / "gateway"
    folder.mkdir()
    secret = cluster.get("Secret", f"{chart.NAME}-ca", chart.NAMESPACE)
    ca, token = folder / "ca.crt", folder / "token"
    ca.write_bytes(base64.b64decode(secret["data"]["ca.crt"]))
    token.write_text(cluster.apiserver.account_token(cluster.namespace, f"{NAME}-gateway", audiences=[AUDIENCE]))
    flags = ["--gateway", f"{cluster.namespace}/{NAME}", "--xds-address", replica.xds, "--ca", str(ca)]
    flags += ["--token-file", str(token), "--admin-address", f"127.0.0.1:{admin}", "--output", "json"]
    command = [sys.executable, "-m", "xdserve", "bootstrap", *flags, "--directory", str(folder)]
    assert await (await asyncio.create_subprocess_exec(*command)).wait() == 0
    return json.loads((folder / "envoy.json").read_text())


async def answers(cluster, variant):
    return await cluster.ask() == variant
