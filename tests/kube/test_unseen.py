"""Targets that xdserve does not see any more, though they are there: their gateways go on."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.support.cluster import NAME, PATHS, Replica, weighed
from tests.support.kube_fleet import figures
from tests.support.processes import Children
from tests.support.wait import wait_until
from xdserve.kube.parts import KINDS, LISTED


def label(cluster, text):
    cluster.apiserver.kubectl("label", "--overwrite", f"--namespace={cluster.namespace}", "isvc", NAME, text)


async def made_next(cluster, name="wine", labels="team=a"):
    """Whatever was to be done before another target's gateway is made has been done."""
    document = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "labels": dict([labels.split("=")])},
        "spec": {"predictor": {"model": {"modelFormat": {"name": "sklearn"}}}},
    }
    cluster.apiserver.apply(document, namespace=cluster.namespace)
    await wait_until(lambda: cluster.get("Deployment", f"{name}-gateway"), 20, f"the gateway of {name}")


async def figure(replica, name, value):
    async def is_so():
        return (await figures(replica.admin)).get(name) == value

    await wait_until(is_so, 30, f"{name} to be {value}")


async def looked(replica):
    """It leads, and has compared all gateways with what is wanted."""

    await figure(replica, ("xdserve_provisioner_requests_total", "list"), len(LISTED))


@pytest.mark.parametrize("how", ["relabelled", "restarted"])
async def test_a_target_that_the_selector_leaves_out_keeps_its_gateway(cluster, models, tmp_path, how):
    """Also where a policy names it."""
    cluster.deploy(models)
    label(cluster, "team=a")
    cluster.apiserver.apply(weighed(v2=100), namespace=cluster.namespace)
    other = "team=b" if how == "restarted" else "team=a"
    with ExitStack() as stack:
        replica = Replica(cluster, "xdserve-0", flags=("--selector", "team=a"))
        await replica.started(stack.enter_context(Children(tmp_path)))
        await cluster.provisioned()
        if how == "relabelled":
            label(cluster, "team-")
            await figure(replica, "xdserve_wanted_gateways", 0)
            await made_next(cluster)
            assert len(cluster.manifests()) == len(KINDS)
    before = {one["metadata"]["uid"] for one in cluster.manifests()}
    with ExitStack() as stack:
        replica = Replica(cluster, "xdserve-1", flags=("--selector", other))
        await replica.started(stack.enter_context(Children(tmp_path)))
        await looked(replica)
        await made_next(cluster, f"of-{how}", other)
    assert {one["metadata"]["uid"] for one in cluster.manifests()} == before
    assert len(before) == len(KINDS)


async def test_an_entrance_that_is_deleted_comes_back_at_once(cluster, models, tmp_path):
    """It does not wait for the next look."""
    cluster.deploy(models)
    with ExitStack() as stack:
        await Replica(cluster, "xdserve-0").started(stack.enter_context(Children(tmp_path)))
        await cluster.provisioned()
        before = cluster.get("Service", f"{NAME}-gateway")["metadata"]["uid"]
        cluster.apiserver.call("DELETE", PATHS["Service"].format(cluster.namespace, f"{NAME}-gateway"))
        await wait_until(lambda: cluster.get("Service", f"{NAME}-gateway"), 10, "the entrance to come back")
        assert cluster.get("Service", f"{NAME}-gateway")["metadata"]["uid"] != before


async def test_a_service_that_no_policy_names_any_more_loses_its_gateway(cluster, models, tmp_path):
    cluster.deploy(models)
    name = f"{NAME}-v2-predictor"
    named = {
        "apiVersion": "xdserve.io/v1alpha1",
        "kind": "TrafficPolicy",
        "metadata": {"name": name},
        "spec": {"targetRef": {"group": "", "kind": "Service", "name": name}},
    }
    with ExitStack() as stack:
        await Replica(cluster, "xdserve-0").started(stack.enter_context(Children(tmp_path)))
        await cluster.provisioned()
        cluster.apiserver.apply(named, namespace=cluster.namespace)
        await wait_until(lambda: len(cluster.manifests(f"{name}-gateway")) == len(KINDS), 20, "a gateway")
        cluster.apiserver.call("DELETE", PATHS["TrafficPolicy"].format(cluster.namespace, name))
        await wait_until(lambda: not cluster.manifests(f"{name}-gateway"), 20, "the gateway to go")
        assert len(cluster.manifests()) == len(KINDS)
