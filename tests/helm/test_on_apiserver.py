"""The chart and its CRDs on a real kube-apiserver: applied, installed, upgraded, uninstalled; what its roles allow."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.helm.test_crds import GATEWAY, REFUSED, REFUSED_OF_GATEWAYS, WHOLE, changed, ours, problems
from tests.support import chart, crds
from tests.support.documents import policy
from tests.support.kube import ApiError, Apiserver, KubectlError

PLURALS = {"TrafficPolicy": "trafficpolicies", "ServiceGateway": "servicegateways"}
INSTALL = Path(__file__).parents[2] / "docs/install.md"
STRICT = ("--validate=strict", "--warnings-as-errors")
# What the chart needs of the Prometheus operator: that the kind is there.
SERVICE_MONITORS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "scope": "Namespaced",
        "names": {"kind": "ServiceMonitor", "plural": "servicemonitors"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


@pytest.fixture(scope="module")
def apiserver(tmp_path_factory):
    with Apiserver(tmp_path_factory.mktemp("kube")) as apiserver:
        apiserver.start()
        file = tmp_path_factory.mktemp("crds") / "servicemonitors.yaml"
        file.write_text(yaml.safe_dump(SERVICE_MONITORS))
        apiserver.install(file, crds.FOLDER)
        for name in (chart.NAMESPACE, "models"):
            apiserver.make_namespace(name)
        yield apiserver


def apply(apiserver, *documents, flags=()):
    """What kubectl says; each document has its own namespace. As JSON: to YAML the word y may be a truth value."""
    return apiserver.kubectl(
        "apply", "--server-side", *flags, "-f", "-", text="\n---\n".join(map(json.dumps, documents))
    )


def path_of(document):
    return f"/apis/xdserve.io/v1alpha1/namespaces/{document['metadata']['namespace']}/{PLURALS[document['kind']]}"


def refused(apiserver, document):
    """What the apiserver has against an object, with strict validation as kubectl asks for it; None if it takes it."""
    document = copy.deepcopy(document)
    document["metadata"]["namespace"] = "models"
    try:
        apiserver.call("POST", path_of(document) + "?dryRun=All&fieldValidation=Strict", document)
    except ApiError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", chart.VALUE_FILES)
def test_every_file_of_values_applies_without_a_warning(apiserver, name):
    definitions = [e for e in chart.rendered(chart.values_of(name)) if e["kind"] == "CustomResourceDefinition"]
    rest = [e for e in chart.rendered(chart.values_of(name), hooks=True) if e not in definitions]
    said = apply(apiserver, *definitions, *rest, flags=(*STRICT, "--force-conflicts"))
    assert said.count("serverside-applied") == len(definitions) + len(rest)


@pytest.mark.parametrize("document", [WHOLE, GATEWAY], ids=PLURALS)
def test_the_apiserver_takes_all_that_may_be_said(apiserver, document):
    assert refused(apiserver, document) is None


@pytest.mark.parametrize(("path", "value"), REFUSED)
def test_the_apiserver_refuses_what_is_wrong_in_a_policy(apiserver, path, value):
    assert refused(apiserver, changed(WHOLE, path, value))


@pytest.mark.parametrize(("path", "value"), REFUSED_OF_GATEWAYS)
def test_the_apiserver_refuses_what_is_wrong_in_a_gateway(apiserver, path, value):
    assert refused(apiserver, changed(GATEWAY, path, value))


def test_the_apiserver_says_of_golden_cases_what_the_schema_says(apiserver):
    for each in ours():
        [document] = each.values
        assert bool(refused(apiserver, document)) == bool(crds.refusals(document)), each.id


def test_the_apiserver_drops_nulls_but_of_server_side_apply(apiserver):
    """There Kubernetes refuses them itself, of any kind: docs/install.md says so."""
    document = changed(WHOLE, "rules.1.split", None)
    assert refused(apiserver, document) is None
    document["metadata"]["namespace"] = "models"
    with pytest.raises(KubectlError, match=r"spec\.rules\[1\]\.split.*must be of type array"):
        apply(apiserver, document)


def test_a_message_names_the_field_and_what_to_do(apiserver):
    said = refused(apiserver, changed(WHOLE, "backends.0.ref.port", 80))
    assert "spec.backends[0].ref.port" in said
    assert "port is for kind Service, which needs it" in said


def test_the_list_of_policies_shows_target_and_conditions(apiserver):
    document = copy.deepcopy(WHOLE)
    document["metadata"] |= {"namespace": "models", "name": "listed"}
    apply(apiserver, document, flags=STRICT)
    condition = {"status": "True", "reason": "Any", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    foreign = {
        "controllerName": "example.org/other",
        "conditions": [{**condition, "type": "Accepted", "status": "False"}],
    }
    waits = {**condition, "type": "Programmed", "status": "Unknown", "reason": "Pending"}
    own = {"controllerName": "xdserve.io/controller", "conditions": [{**condition, "type": "Accepted"}, waits]}
    reference = {"ancestorRef": {"group": "serving.kserve.io", "kind": "InferenceService", "name": "iris"}}
    status = {"ancestors": [{**reference, **foreign}, {**reference, **own}]}
    apiserver.call("PUT", f"{path_of(document)}/listed/status", held(apiserver, document) | {"status": status})
    head, line = apiserver.kubectl("get", "tp", "listed", "--namespace=models").splitlines()
    assert head.split() == ["NAME", "TARGET", "ACCEPTED", "PROGRAMMED", "REASON", "AGE"]
    assert line.split()[:5] == ["listed", "iris", "True", "Unknown", "Pending"]


TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


def shown(apiserver, path):
    """What `kubectl get` shows of an object, by column."""
    table = apiserver.call("GET", path, accept=TABLE)
    [row] = table["rows"]
    return dict(zip((one["name"] for one in table["columnDefinitions"]), row["cells"], strict=True))


SAID = [
    ({"Accepted": ("True", "Accepted"), "Programmed": ("True", "Programmed")}, None),
    ({"Accepted": ("False", "Invalid"), "Programmed": ("False", "Pending")}, "Invalid"),
    ({"Accepted": ("True", "Accepted"), "Programmed": ("False", "NoGateway")}, "NoGateway"),
]


@pytest.mark.parametrize(("said", "reason"), SAID, ids=["well", "not accepted", "without a gateway"])
def test_the_list_shows_the_reason_of_the_first_condition_that_is_not_true(apiserver, said, reason):
    date = {"message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    conditions = [{"type": kind, "status": status, "reason": why, **date} for kind, (status, why) in said.items()]
    ancestor = {"ancestorRef": {"name": "iris"}, "controllerName": "xdserve.io/controller", "conditions": conditions}
    for one, status in ((WHOLE, {"ancestors": [ancestor]}), (GATEWAY, {"conditions": conditions})):
        document = copy.deepcopy(one)
        document["metadata"] |= {"namespace": "models", "name": "reasoned"}
        apply(apiserver, document, flags=STRICT)
        path = f"{path_of(document)}/reasoned"
        apiserver.call("PUT", f"{path}/status", held(apiserver, document) | {"status": status})
        row = shown(apiserver, path)
        assert (row["Reason"], row["Accepted"]) == (reason, said["Accepted"][0])


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("timeouts.request", "1.5s", "a duration such as 300ms, 5m or 0s"),
        ("rules.0.timeouts.idle", "5 m", "a duration such as 300ms, 5m or 0s"),
        ("timeouts.connect", "0s", "a duration above 0s"),
        ("sticky.ttl", "00h0ms", "a duration above 0s"),
    ],
)
def test_a_bad_duration_is_answered_in_words(apiserver, path, value, words):
    document = changed(WHOLE, path, value)
    said = refused(apiserver, document)
    assert words in said
    assert "should match" not in said
    [problem] = problems(document)
    assert problem.allowed == words


def lists(value, path=""):
    """(path, list) of all lists in a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        if isinstance(each, list):
            yield f"{path}.{key}", each
        yield from lists(each, f"{path}.{key}")


SPARSE = policy(
    backends=[{"name": "v2", "ref": {"name": "iris-v2", "port": 80}}],
    split=[{"backend": "predictor", "weight": 9}, {"backend": "v2"}],
    rules=[
        {
            "name": "testers",
            "matches": [
                {
                    "headers": [{"name": "x-tester", "value": "true"}],
                    "cookies": [{"name": "beta", "value": "1"}],
                    "queryParams": [{"name": "debug", "value": "y"}],
                    "path": {"value": "/v1/models"},
                }
            ],
            "split": [{"backend": "v2"}],
            "sticky": {"by": "Cookie"},
            "timeouts": {"request": "10s"},
        },
    ],
)


@pytest.mark.parametrize("given", [SPARSE, WHOLE, GATEWAY], ids=["sparse", "whole", "gateway"])
def test_lists_are_read_back_as_they_were_written(apiserver, given):
    """GitOps tools compare a list as a whole: what the apiserver adds to an item is drift."""
    document = copy.deepcopy(given)
    document["metadata"] |= {"namespace": "models", "name": "written"}
    apply(apiserver, document, flags=(*STRICT, "--force-conflicts"))
    assert dict(lists(held(apiserver, document)["spec"])) == dict(lists(document["spec"]))
    assert problems(held(apiserver, document)) == []


def held(apiserver, document):
    return apiserver.call("GET", f"{path_of(document)}/{document['metadata']['name']}")


def test_two_may_each_own_a_weight(apiserver):
    """A rollout tool moves one weight; who applies the rest does not take it back."""
    document = copy.deepcopy(WHOLE)
    document["metadata"] |= {"namespace": "models", "name": "shared"}
    first = copy.deepcopy(document)
    del first["spec"]["split"][1]
    apply(apiserver, first, flags=("--field-manager=owner",))
    second = {key: document[key] for key in ("apiVersion", "kind")}
    second |= {"metadata": {"name": "shared", "namespace": "models"}}
    second["spec"] = {"targetRef": document["spec"]["targetRef"], "split": [{"backend": "v2", "weight": 7}]}
    apply(apiserver, second, flags=("--field-manager=rollout",))
    apply(apiserver, first, flags=("--field-manager=owner",))
    split = {each["backend"]: each["weight"] for each in held(apiserver, document)["spec"]["split"]}
    assert split == {"stable": 90, "v2": 7}


@pytest.fixture
def older(tmp_path):
    """The chart as it might have been: an older version, whose definitions know less."""
    folder = tmp_path / "xdserve"
    shutil.copytree(chart.CHART, folder)
    described = yaml.safe_load((folder / "Chart.yaml").read_text())
    (folder / "Chart.yaml").write_text(yaml.safe_dump(described | {"version": "0.0.9"}))
    for file in folder.glob("files/crds/*.yaml"):
        definition = yaml.safe_load(file.read_text())
        [version] = definition["spec"]["versions"]
        del version["additionalPrinterColumns"]
        file.write_text(yaml.safe_dump(definition))
    return folder


def test_an_upgrade_brings_new_definitions_and_an_uninstall_keeps_them(tmp_path, older):
    with Apiserver(tmp_path) as apiserver:
        apiserver.start().make_namespace(chart.NAMESPACE)
        apiserver.make_namespace("models")
        chart.install(apiserver.kubeconfig, chart=older)
        assert "additionalPrinterColumns" not in version_of(apiserver)
        document = copy.deepcopy(WHOLE)
        document["metadata"]["namespace"] = "models"
        apply(apiserver, document)
        secret = f"/api/v1/namespaces/{chart.NAMESPACE}/secrets/xdserve-ca"
        apiserver.call("PUT", secret, apiserver.call("GET", secret) | {"stringData": {"ca.crt": "ours"}})

        chart.install(apiserver.kubeconfig)
        assert version_of(apiserver)["additionalPrinterColumns"][0]["name"] == "Target"
        assert held(apiserver, document)["spec"]["rules"][0]["name"] == "testers"
        assert apiserver.call("GET", secret)["data"].keys() == {"ca.crt"}

        chart.uninstall(apiserver.kubeconfig)
        assert apiserver.call("GET", secret)["data"].keys() == {"ca.crt"}
        assert held(apiserver, document)["spec"]["rules"][0]["name"] == "testers"
        with pytest.raises(ApiError, match="404"):
            apiserver.call("GET", f"/apis/apps/v1/namespaces/{chart.NAMESPACE}/deployments/xdserve")

        chart.install(apiserver.kubeconfig)
        assert held(apiserver, document)["spec"]["rules"][0]["name"] == "testers"
        assert apiserver.call("GET", secret)["data"].keys() == {"ca.crt"}


def test_another_step_may_take_the_definitions_over_from_the_chart(older, tmp_path):
    """By the very command of docs/install.md: without its last flag kubectl refuses what Helm applied last."""
    with Apiserver(tmp_path) as apiserver:
        apiserver.start().make_namespace(chart.NAMESPACE)
        chart.install(apiserver.kubeconfig)
        chart.install(apiserver.kubeconfig, {"crds": {"install": False}})
        [command] = re.findall(r"^\$ kubectl (apply .*) helm/xdserve/files/crds/$", INSTALL.read_text(), re.MULTILINE)
        apiserver.kubectl(*command.split(), str(older / "files/crds"))
        assert "additionalPrinterColumns" not in version_of(apiserver)
        with pytest.raises(chart.HelmRefused, match=re.escape('conflict with "kubectl": .spec.versions')):
            chart.install(apiserver.kubeconfig, {"crds": {"install": True}})


def version_of(apiserver):
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/trafficpolicies.xdserve.io"
    [version] = apiserver.call("GET", path)["spec"]["versions"]
    return version


ALLOWED = [
    ("list", "", "services", "models"),
    ("watch", "discovery.k8s.io", "endpointslices", "models"),
    ("patch", "xdserve.io", "trafficpolicies/status", "models"),
    ("patch", "serving.kserve.io", "inferenceservices/status", "models"),
    ("create", "apps", "deployments", "models"),
    ("create", "authentication.k8s.io", "tokenreviews", None),
    ("create", "coordination.k8s.io", "leases", chart.NAMESPACE),
    ("watch", "", "configmaps", chart.NAMESPACE),
    ("patch", "events.k8s.io", "events", "models"),
]
FORBIDDEN = [
    ("get", "", "secrets", "models"),
    ("list", "", "secrets", "models"),
    ("watch", "", "secrets", "models"),
    ("create", "", "secrets", chart.NAMESPACE),
    ("list", "", "configmaps", "models"),
    ("list", "", "pods", "models"),
    ("update", "serving.kserve.io", "inferenceservices", "models"),
    ("patch", "serving.kserve.io", "inferenceservices", "models"),
    ("patch", "xdserve.io", "trafficpolicies", "models"),
    ("create", "coordination.k8s.io", "leases", "models"),
    ("create", "rbac.authorization.k8s.io", "roles", "models"),
]


def account(apiserver, values):
    """verb, group, resource, namespace -> whether the chart's ServiceAccount may do it, asked with its own token."""
    apply(apiserver, *chart.rendered(values), flags=("--force-conflicts",))
    token = apiserver.account_token(chart.NAMESPACE, chart.NAME)

    def may(verb, group, resource, namespace):
        resource, _, sub = resource.partition("/")
        asked = {"verb": verb, "group": group, "resource": resource, "subresource": sub, "namespace": namespace}
        spec = {"resourceAttributes": asked}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return apiserver.call("POST", path, review, token=token)["status"]["allowed"]

    return may


def test_the_roles_allow_what_is_done_and_nothing_beyond(tmp_path):
    with Apiserver(tmp_path) as apiserver:
        apiserver.start().make_namespace(chart.NAMESPACE)
        may = account(apiserver, None)
        assert [each for each in ALLOWED if not may(*each)] == []
        assert [each for each in FORBIDDEN if may(*each)] == []


def test_in_one_namespace_nothing_is_allowed_in_another(tmp_path):
    with Apiserver(tmp_path) as apiserver:
        apiserver.start()
        for name in (chart.NAMESPACE, "models", "others"):
            apiserver.make_namespace(name)
        may = account(apiserver, chart.values_of("one-namespace"))
        assert may("list", "", "services", "models")
        assert may("create", "apps", "deployments", "models")
        assert not may("list", "", "services", "others")
        assert not may("get", "", "secrets", "others")
