"""What all gateways read of their cluster: KServe's ConfigMap and the cluster's own Service. What their edits cost."""

from __future__ import annotations

import json

import pytest

from tests.unit.pipeline import documents as d
from tests.unit.pipeline.recorder import Run
from translator.objects import Ref
from translator.planners.options import Options
from xds.types import ResourceType
from xds.wire import decode
from xdserve.printing import CLASSES

GATEWAY = "models/iris"
CONFIG = Ref("", "ConfigMap", "kserve", "inferenceservice-config")


def config(ingress, *, name="inferenceservice-config", **data):
    text = ingress if isinstance(ingress, str) else json.dumps(ingress)
    return d.document("v1", "ConfigMap", name, namespace="kserve", data={"ingress": text, **data})


def hosts(run, gateway=GATEWAY):
    routes = decode(CLASSES[ResourceType.ROUTE], run.said.scopes[gateway].get(ResourceType.ROUTE, gateway).body)
    return [domain for host in routes.virtual_hosts for domain in host.domains]


def own_service(*families, port=443):
    """The Service that the apiserver makes."""
    spec = {"ports": [{"name": "https", "port": port}], "ipFamilies": list(families), "ipFamilyPolicy": "SingleStack"}
    return d.document("v1", "Service", "kubernetes", namespace="default", spec=spec)


def address(run, gateway=GATEWAY):
    listener = run.said.scopes[gateway].get(ResourceType.LISTENER, "gateway/http")
    return decode(CLASSES[ResourceType.LISTENER], listener.body).address.socket_address.address


@pytest.fixture
def run():
    run = Run()
    run.put(*d.served("iris", "10.0.0.1"), *d.served("wine", "10.0.0.2"))
    assert "iris-models.example.com" in hosts(run)
    return run


def test_hosts_follow_the_config_map_of_kserve(run):
    run.put(config({"ingressDomain": "one.example"}))
    assert {"iris-models.one.example", "iris-predictor-models.one.example"} < set(hosts(run))
    run.put(config({"ingressDomain": "one.example", "domainTemplate": "{{.Namespace}}.{{.Name}}.{{.IngressDomain}}"}))
    assert {"models.iris.one.example", "models.iris-predictor.one.example"} < set(hosts(run))
    run.put(config({"INGRESSDOMAIN": "two.example", "pathTemplate": "/{{ .Namespace }}/{{ .Name }}"}))
    assert {"iris-models.two.example", "two.example"} < set(hosts(run))
    run.gone(CONFIG)
    assert "iris-models.example.com" in hosts(run)


def test_only_an_edit_of_what_is_used_plans_anew(run):
    run.put(config({"ingressDomain": "one.example"}))
    planned, _ = run.counted()
    run.put(config({"ingressDomain": "one.example"}, deploy='{"defaultDeploymentMode": "Standard"}'))
    run.put(config({"ingressDomain": "one.example", "ingressClassName": "istio"}))
    run.put(config({"ingressDomain": "one.example"}, name="another"))
    assert run.counted()[0] == planned
    run.put(config({"ingressDomain": "two.example"}))
    assert run.counted()[0] == planned + 2


def test_an_unreadable_one_stays_as_it_was(run):
    run.put(config({"ingressDomain": "one.example"}))
    run.broken(CONFIG)
    assert "iris-models.one.example" in hosts(run)


@pytest.mark.parametrize(
    ("ingress", "said"),
    [
        ("no JSON", "cannot be read as JSON: "),
        ("[]", "found a list of 0, allowed a map"),
        ("[" * 100_000, "cannot be read as JSON: "),
        ({"ingressDomain": "a_b.example"}, 'ingressDomain: found "a_b.example", allowed a DNS name'),
        ({"ingressDomain": 3}, "ingressDomain: found 3, allowed a string"),
        ({"pathTemplate": "x" * 9_999}, "pathTemplate: allowed at most 512 characters"),
    ],
)
def test_what_cannot_be_used_is_said_of_the_config_map_alone(run, ingress, said):
    run.put(config(ingress))
    ((owner, (line,)),) = run.reasons().items()
    assert owner == "ConfigMap kserve/inferenceservice-config"
    assert line.startswith(f"Invalid {owner}: data.ingress: {said}")
    assert len(line) < 300
    assert "iris-models.example.com" in hosts(run)
    run.put(config({}))
    assert run.reasons() == {}


def test_what_is_said_of_a_config_map_ends_with_it(run):
    run.put(config("no JSON"))
    assert run.reasons()
    run.gone(CONFIG)
    assert run.reasons() == {}


@pytest.mark.parametrize("name", ["kserve/another", ""])
def test_the_operator_says_which_config_map_it_is(name):
    run = Run(Options(kserve_config_map=name))
    run.put(*d.served("iris", "10.0.0.1"), config("no JSON"))
    assert run.reasons() == {}
    run.put(config({"ingressDomain": "one.example"}, name="another"))
    assert ("iris-models.one.example" in hosts(run)) == bool(name)


# -- IPv4 and IPv6 ----------------------------------------------------------------------------------------------------


def test_gateways_listen_on_what_the_cluster_has(run):
    assert address(run) == "0.0.0.0"
    run.put(own_service("IPv6"))
    assert (address(run), address(run, "models/wine")) == ("::", "::")
    planned, encoded = run.counted()
    run.put(own_service("IPv6", port=6443))
    assert run.counted() == (planned, encoded)
    run.put(own_service("IPv4"))
    assert address(run) == "0.0.0.0"


def test_a_service_of_ipv6_has_a_gateway_of_ipv6(run):
    run.put(own_service("IPv4"))
    planned, _ = run.counted()
    changed = d.service("iris-predictor")
    changed["spec"] |= {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"}
    run.put(changed)
    assert run.counted()[0] == planned + 1
    assert (address(run), address(run, "models/wine")) == ("::", "0.0.0.0")


@pytest.mark.parametrize(
    ("families", "expected"),
    [(["IPv4"], ["10.0.0.1"]), (["IPv6"], ["fd00::1"]), (["IPv6", "IPv4"], ["fd00::1"]), ([], ["10.0.0.1", "fd00::1"])],
)
def test_pods_that_have_both_families_count_once(run, families, expected):
    also = d.endpoint_slice("iris-predictor", {"fd00::1": True}, suffix="v6") | {"addressType": "IPv6"}
    run.put(also, own_service(*families))
    assert run.addresses(GATEWAY, "predictor") == expected


def test_pods_of_the_other_family_are_reached_where_there_are_no_others(run):
    run.put(own_service("IPv6"), d.endpoint_slice("iris-predictor", {"10.0.0.1": True, "10.0.0.3": False}))
    assert run.addresses(GATEWAY, "predictor") == ["10.0.0.1"]
