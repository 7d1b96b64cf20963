"""What a gateway's pods are told by its ServiceGateway and its policy's router, on a real kube-apiserver."""

from __future__ import annotations

import json

import pytest
import yaml

from bootstrap.address import Address
from bootstrap.manifests import Deploying, Owner, manifests
from tests.support.documents import entrance, isvc, policy
from tests.support.kube import ApiError
from translator.objects import parse
from translator.objects.ref import Ref
from translator.planners import plan
from translator.planners.indexes import INDEXES
from translator.planners.options import Options
from translator.view import Objects, View
from xdserve.kube.wanted import same

DEPLOYING = Deploying(xds_address=Address("xdserve.system.svc", 18000), ca="the authorities")
ROUTER = {"modelRef": "org/$(PORT)", "kvEndpoints": ["kv-1:6379"], "overflow": "reject"}
PATHS = {
    "InferenceService": "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices",
    "TrafficPolicy": "/apis/xdserve.io/v1alpha1/namespaces/{}/trafficpolicies",
    "ServiceGateway": "/apis/xdserve.io/v1alpha1/namespaces/{}/servicegateways",
}


class World:
    """A namespace of the apiserver with one InferenceService in it."""

    def __init__(self, apiserver, namespace):
        self.apiserver, self.namespace = apiserver, namespace
        self.target = self.create(isvc())

    def create(self, document):
        """The object as the apiserver keeps it."""
        path = PATHS[document["kind"]].format(self.namespace)
        document["metadata"]["namespace"] = self.namespace
        return self.apiserver.call("POST", f"{path}?fieldValidation=Strict", document)

    def manifests(self, *documents):
        """Of the gateway, by the objects as the apiserver has them."""
        objects = Objects(INDEXES)
        for document in (self.target, *documents):
            objects.put(parse(document))
        ref = Ref("serving.kserve.io", "InferenceService", self.namespace, "iris")
        owner = Owner(ref, "v1beta1", self.target["metadata"]["uid"])
        return manifests(owner, plan(View(objects), ref, Options()).gateway, DEPLOYING)


@pytest.fixture
def world(apiserver, namespace):
    return World(apiserver, namespace)


@pytest.mark.parametrize(
    "resources",
    [
        {},
        {"requests": {"cpu": 1, "memory": "1024Mi"}, "limits": {"cpu": "1.5", "memory": 2147483648}},
        {"requests": {"cpu": "0.25", "memory": "100000k"}},
        {"limits": {"cpu": "2000m", "memory": "1536Mi"}},
    ],
    ids=str,
)
def test_what_is_applied_equals_what_is_found(world, resources):
    """Also with quantities that the apiserver spells otherwise: else they would be applied again and again."""
    gateway = world.create(entrance(8080, address="0.0.0.0", replicas=3, resources=resources))
    made = world.manifests(gateway, world.create(policy(router=ROUTER)))
    flags = ("--server-side", "--field-manager=xdserve", "-f", "-", "-o", "yaml")
    found = yaml.safe_load(world.apiserver.kubectl("apply", *flags, text=yaml.safe_dump_all(made)))["items"]
    by_kind = {one["kind"]: one for one in found}
    assert by_kind.keys() == {one["kind"] for one in made}
    assert [one["kind"] for one in made if not same(one, by_kind[one["kind"]])] == []
    assert by_kind["Deployment"]["spec"]["replicas"] == 3


def test_a_pod_with_a_router_satisfies_the_strictest_standard(world):
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    world.apiserver.kubectl("patch", "namespace", world.namespace, f"--patch={json.dumps(label)}")
    *_, deployment = world.manifests(world.create(policy(router=ROUTER)))
    pod = deployment["spec"]["template"] | {"apiVersion": "v1", "kind": "Pod"}
    pod["metadata"] |= {"name": "iris"}
    path = f"/api/v1/namespaces/{world.namespace}/pods?dryRun=All&fieldValidation=Strict"
    assert [one["name"] for one in world.apiserver.call("POST", path, pod)["spec"]["containers"]] == ["envoy", "router"]
    pod["spec"]["containers"][1]["securityContext"]["allowPrivilegeEscalation"] = True
    with pytest.raises(ApiError, match="violates PodSecurity"):
        world.apiserver.call("POST", path, pod)


@pytest.mark.parametrize(
    "document",
    [
        entrance(8080, replicas=0),
        entrance(8080, resources={"limits": {"cpu": "fast"}}),
        entrance(8080, resources={"limits": {"cpu": 0.5}}),
        entrance(8080, resources={"limits": {"memory": "1.5Gi"}}),
        entrance(8080, resources={"limits": {"gpu": 1}}),
        policy(router={"maxConcurrency": 0}),
        policy(router={"overflow": "drop"}),
        policy(router={"kvEndpoints": ["a,b"]}),
        policy(router={"queue": 1}),
        policy(rules=[{"name": "x", "router": {}}]),
    ],
    ids=lambda document: str(document["spec"]),
)
def test_what_cannot_be_is_refused_at_once(world, document):
    with pytest.raises(ApiError) as refused:
        world.create(document)
    assert refused.value.status in {400, 422}
