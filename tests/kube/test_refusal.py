"""What Envoy refuses, and no check can know before, is told on the user's objects; what was served stays."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack

import pytest

from tests.support.cluster import (
    GATEWAY_PORT,
    NAME,
    PATHS,
    VARIANTS,
    Replica,
    listening,
    weighed,
)
from tests.support.documents import split
from tests.support.podnet import PodNetwork
from tests.support.processes import Children
from tests.support.wait import wait_until
from xdserve.conditions import GATEWAY_PROGRAMMED

LONG, SHORT = "[a-z]{100}", "[a-z]+"
OTHER_PORT = 9090
TOO_LONG = "max program size of 100"


@pytest.fixture
def pods(cluster):
    """Starts pods of the gateway whose Envoys bound the size of expressions, as Envoy does by default."""
    with ExitStack() as stack:

        async def start(name):
            pod = cluster.pod(stack, NAME, stack.enter_context(PodNetwork()), name)
            pod.update(bounded(cluster.manifests()))
            return await pod.started()

        yield start


async def test_a_refused_policy_says_so_with_envoys_words_and_the_old_split_is_served(cluster, models, pods, tmp_path):
    cluster.deploy(models)
    with Children(tmp_path) as children:
        await Replica(cluster, "xdserve-0").started(children)
        await cluster.provisioned()
        pod = await pods("pod-1")
        apply(cluster, SHORT, v2=100)
        await cluster.programmed("TrafficPolicy", "InferenceService")

        apply(cluster, LONG, v3=100)
        await wait_until(lambda: cluster.reason("TrafficPolicy", "Programmed") == "Rejected", 20, "the refusal")
        told = condition(cluster, "TrafficPolicy", "Programmed")
        assert told["status"] == "False"
        assert told["message"].startswith("spec: "), "all routes of a policy are one resource"
        assert TOO_LONG in told["message"], told["message"]
        assert condition(cluster, "TrafficPolicy", "Accepted")["status"] == "True"
        await wait_until(lambda: cluster.reason("InferenceService", GATEWAY_PROGRAMMED) == "Rejected", 20)
        await wait_until(lambda: TOO_LONG in note(cluster, "Warning", "Rejected"), 10, "an Event")
        later = await pods("pod-2")
        for one in (pod, later):
            assert {await cluster.ask(one.host) for _ in range(20)} == {"v2"}

        apply(cluster, SHORT, v3=100)
        await cluster.programmed("TrafficPolicy", "InferenceService")
        for one in (pod, later):
            assert {await cluster.ask(one.host) for _ in range(20)} == {"v3"}
        await wait_until(lambda: note(cluster, "Normal", "Programmed"), 10, "an Event")


async def test_a_refused_listener_leaves_the_service_where_envoys_listen(cluster, models, tmp_path):
    """A port that is in use: what no check can know before. The entrance leads there when Envoys do listen."""
    cluster.deploy(models)
    with ExitStack() as stack:
        children = stack.enter_context(Children(tmp_path))
        replica = await Replica(cluster, "xdserve-0").started(children)
        await cluster.provisioned()
        network = stack.enter_context(PodNetwork())
        pod = await cluster.pod(stack, NAME, network).started()
        await cluster.programmed("InferenceService")

        with network.entered():
            taken = stack.enter_context(socket.create_server(("0.0.0.0", 0)))
        refused = taken.getsockname()[1]
        cluster.apiserver.apply(listening(refused), namespace=cluster.namespace)
        await wait_until(lambda: cluster.reason("ServiceGateway", "Programmed") == "Rejected", 20, "the refusal")
        told = condition(cluster, "ServiceGateway", "Programmed")["message"]
        assert told.startswith("spec")
        assert "Address already in use" in told
        await wait_until(lambda: cluster.reason("InferenceService", GATEWAY_PROGRAMMED) == "Rejected", 20)
        await wait_until(lambda: "Address already in use" in note(cluster, "Warning", "Rejected"), 10, "an Event")
        assert leads_to(cluster) == GATEWAY_PORT
        assert await cluster.ask(pod.host) in VARIANTS

        # Who leads next knows nothing of the refusal yet, and mends the gateway, the Service before the budget.
        assert replica.child.stop() == 0
        budget = PATHS["PodDisruptionBudget"].format(cluster.namespace, f"{NAME}-gateway")
        cluster.apiserver.call("DELETE", budget)
        replica.start(children)
        await wait_until(lambda: cluster.get("PodDisruptionBudget", f"{NAME}-gateway"), 30, "the gateway to be mended")
        await wait_until(lambda: cluster.reason("ServiceGateway", "Programmed") == "Rejected", 20, "the refusal")
        assert leads_to(cluster) == GATEWAY_PORT
        assert await cluster.ask(pod.host) in VARIANTS

        taken.close()
        cluster.apiserver.apply(listening(OTHER_PORT), namespace=cluster.namespace)
        await cluster.programmed("ServiceGateway", "InferenceService")
        await wait_until(lambda: note(cluster, "Normal", "Programmed"), 10, "an Event")
        await wait_until(lambda: leads_to(cluster) == OTHER_PORT, 10, "the Service to follow")
        assert await cluster.ask(pod.host, OTHER_PORT) in VARIANTS
        with pytest.raises(ConnectionRefusedError):
            await cluster.ask(pod.host)


def leads_to(cluster):
    """Where the entrance leads in the pods."""
    (port,) = cluster.get("Service", f"{NAME}-gateway")["spec"]["ports"]
    return port["targetPort"]


def apply(cluster, expression, **weights):
    """The policy, with a rule by a regular expression."""
    document = weighed(**weights)
    matches = [{"headers": [{"name": "x-tester", "type": "RegularExpression", "value": expression}]}]
    document["spec"]["rules"] = [{"name": "testers", "matches": matches, "split": split(predictor=1)}]
    cluster.apiserver.apply(document, namespace=cluster.namespace)


def condition(cluster, kind, name):
    return next(one for one in cluster.conditions(kind) if one["type"] == name)


def note(cluster, kind, reason):
    """What the Events on the service of this type and reason say."""
    path = f"/apis/events.k8s.io/v1/namespaces/{cluster.namespace}/events"
    found = cluster.apiserver.call("GET", path)["items"]
    wanted = ("InferenceService", NAME, kind, reason)
    return "\n".join(
        one["note"]
        for one in found
        if (one["regarding"]["kind"], one["regarding"]["name"], one["type"], one["reason"]) == wanted
    )


def bounded(manifests):
    """The same manifests, but for the bootstrap's word that expressions may be of any size."""
    for one in manifests:
        if one["kind"] == "ConfigMap":
            bootstrap = json.loads(one["data"]["envoy.json"])
            (layer,) = bootstrap.pop("layered_runtime")["layers"]
            assert layer["static_layer"].keys() == {"re2.max_program_size.error_level"}
            one["data"]["envoy.json"] = json.dumps(bootstrap)
    return manifests
