"""A gateway that gets no Envoys says why, in the words of its Deployment, and where it may look, of its pods."""

from __future__ import annotations

import pytest

from tests.support.cluster import NAME, PATHS, Cluster, Replica, weighed
from tests.support.processes import Children
from tests.support.wait import wait_until
from xdserve.conditions import GATEWAY_PROGRAMMED

GATEWAY = f"{NAME}-gateway"
WEBHOOK = 'admission webhook "policy.example.org" denied the request: image registry is not trusted'
DATE = "2026-01-01T00:00:00Z"


def deployment_says(cluster, *conditions):
    """What the Deployment's controller does."""
    path = PATHS["Deployment"].format(cluster.namespace, GATEWAY)
    dates = {"lastUpdateTime": DATE, "lastTransitionTime": DATE}
    listed = [
        {"type": kind, "status": status, "reason": reason, "message": message, **dates}
        for kind, status, reason, message in conditions
    ]
    document = cluster.apiserver.call("GET", path)
    cluster.apiserver.call("PUT", f"{path}/status", document | {"status": {"conditions": listed}})


def make_pod(cluster, waiting):
    """A pod of the gateway, with the state of its container as a kubelet writes it."""
    found = cluster.get("Deployment", GATEWAY)["spec"]["template"]
    container = {"name": "envoy", "image": "example.org/envoy:v9"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{GATEWAY}-1", "labels": found["metadata"]["labels"]},
        "spec": {"containers": [container]},
    }
    path = f"/api/v1/namespaces/{cluster.namespace}/pods"
    there = cluster.apiserver.call("POST", path, pod)
    state = {**container, "ready": False, "restartCount": 0, "imageID": "", "state": {"waiting": waiting}}
    status = {"phase": "Pending", "containerStatuses": [state]}
    cluster.apiserver.call("PUT", f"{path}/{GATEWAY}-1/status", there | {"status": status})


def messages(cluster):
    """Of the conditions that speak of the gateway."""
    kinds = (("InferenceService", GATEWAY_PROGRAMMED), ("TrafficPolicy", "Programmed"))
    return {
        f"{one['reason']} {one['message']}"
        for kind, name in kinds
        for one in cluster.conditions(kind)
        if one["type"] == name
    }


async def says(cluster, words):
    """Both the service and its policy."""
    wanted = f"NoGateway no Envoy of {cluster.namespace}/{NAME} is connected; {words}"
    await wait_until(lambda: messages(cluster) == {wanted}, 30, words, 0.1)


async def looks(cluster, children):
    """A start looks at all gateways; else that is done once a minute."""
    replica = Replica(cluster, "xdserve-0")
    await replica.started(children)
    await cluster.provisioned()
    return replica


async def test_a_deployment_that_may_make_no_pods_is_quoted(cluster, models, tmp_path):
    cluster.deploy(models)
    cluster.apiserver.apply(weighed(v2=100), namespace=cluster.namespace)
    hint = f"see the pods of Deployment {GATEWAY}"
    with Children(tmp_path) as children:
        replica = await looks(cluster, children)
        await says(cluster, hint)
        deployment_says(cluster, ("ReplicaFailure", "True", "FailedCreate", WEBHOOK))
        assert replica.child.stop() == 0
        replica = await looks(cluster, children)
        await says(cluster, f"Deployment {GATEWAY}: no pod can be made (FailedCreate): {WEBHOOK}")
        # It may not look at pods, so of an image it can only say where to look.
        make_pod(cluster, {"reason": "ImagePullBackOff", "message": "Back-off"})
        deployment_says(cluster, ("Progressing", "True", "ReplicaSetUpdated", "progressing"))
        assert replica.child.stop() == 0
        await looks(cluster, children)
        await says(cluster, hint)


@pytest.fixture
def allowed(apiserver, namespace, network, tmp_path):
    """With the right to look at pods."""
    yield Cluster(apiserver, namespace, tmp_path, network, {"rbac": {"pods": True}})
    Cluster(apiserver, namespace, tmp_path, network)


async def test_where_it_may_look_at_pods_an_image_that_cannot_be_pulled_is_told(allowed, models, tmp_path):
    allowed.deploy(models)
    allowed.apiserver.apply(weighed(v2=100), namespace=allowed.namespace)
    with Children(tmp_path) as children:
        replica = await looks(allowed, children)
        make_pod(allowed, {"reason": "ImagePullBackOff", "message": "Back-off pulling image"})
        assert replica.child.stop() == 0
        await Replica(allowed, "xdserve-0", flags=("--gateway-pods",)).started(children)
        image = "container envoy cannot get its image example.org/envoy:v9 (ImagePullBackOff)"
        await says(allowed, f"Deployment {GATEWAY}: {image}")
