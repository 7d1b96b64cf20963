"""The demo's copy of the examples, and the edits that it makes to it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from xdserve import cli
from xdserve.demo.files import PolicyFile, with_connect_timeout, with_rule, with_transformer
from xdserve.demo.models import MODELS, ROUTER
from xdserve.demo.stage import copy_examples

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(EXAMPLES.rglob("*.yaml"))


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "traffic-policy.yaml"
    path.write_bytes((EXAMPLES / "iris" / "traffic-policy.yaml").read_bytes())
    return PolicyFile(path, "iris/traffic-policy.yaml")


def weights(text):
    return {entry["backend"]: entry["weight"] for entry in yaml.safe_load(text)["spec"]["split"]}


def test_an_edit_moves_the_split_and_nothing_else(policy):
    before = yaml.safe_load(policy.good)
    after = yaml.safe_load(policy.split(50, 50))
    assert weights(policy.good) == {"stable": 50, "v2": 50}
    assert after["spec"].pop("split") != before["spec"].pop("split")
    assert after == before


def test_sticky_is_added_beside_the_split(policy):
    document = yaml.safe_load(policy.sticky())
    assert document["spec"]["sticky"] == {"by": "Cookie", "name": "xdserve", "ttl": "1h"}
    assert "sticky" not in policy.good


def test_a_file_is_replaced_at_once_and_nothing_is_left_beside_it(policy):
    inode = policy.path.stat().st_ino
    policy.replace("a: 1\n")
    assert policy.path.read_text() == "a: 1\n"
    assert policy.path.stat().st_ino != inode
    assert list(policy.path.parent.iterdir()) == [policy.path]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(EXAMPLES)))
def test_every_endpoint_slice_belongs_to_a_service_beside_it_and_names_its_ports(file):
    documents = list(yaml.safe_load_all(file.read_text()))
    services = {document["metadata"]["name"]: document for document in documents if document["kind"] == "Service"}
    for slice_ in (document for document in documents if document["kind"] == "EndpointSlice"):
        service = services[slice_["metadata"]["labels"]["kubernetes.io/service-name"]]
        assert slice_["metadata"]["namespace"] == service["metadata"]["namespace"]
        assert [port["name"] for port in slice_["ports"]] == [port["name"] for port in service["spec"]["ports"]]


def text_of(name):
    return (EXAMPLES / name).read_text()


def edited(folder, name, edit):
    """A copy of the examples with one file edited."""
    copy_examples(folder, {})
    file = folder / name
    assert edit(file.read_text()) != file.read_text()
    file.write_text(edit(file.read_text()))
    return folder


@pytest.mark.parametrize("edit", [with_rule, with_connect_timeout])
def test_the_edits_of_the_language_models_policy_are_good_and_each_is_another(tmp_path, edit, capfd):
    name = "llm/traffic-policy.yaml"
    assert cli.main(["validate", str(edited(tmp_path / "examples", name, edit)), "--strict"]) == 0
    assert edit(edit(text_of(name))) != text_of(name)


def test_a_transformer_is_put_beside_the_other_components(tmp_path, capfd):
    folder = edited(tmp_path / "examples", "iris/iris.yaml", with_transformer)
    assert cli.main(["validate", str(folder)]) == 0
    service = next(yaml.safe_load_all((folder / "iris" / "iris.yaml").read_text()))
    assert set(service["spec"]) == {"predictor", "canary", "transformer", "explainer"}


def test_a_copy_has_real_ports_for_gateways_and_endpoints_and_keeps_those_of_services(tmp_path):
    copy_examples(tmp_path / "examples", {8080: 18080, 9001: 19001, 9005: 19005})
    gateway = yaml.safe_load((tmp_path / "examples" / "iris" / "gateway.yaml").read_text())
    assert gateway["spec"]["port"] == 18080
    documents = list(yaml.safe_load_all((tmp_path / "examples" / "iris" / "iris.yaml").read_text()))
    ports = {document["metadata"]["name"]: document.get("ports") for document in documents}
    assert [port["port"] for port in ports["iris-predictor-t2zvp"]] == [19001, 19005]
    services = (tmp_path / "examples" / "mnist" / "mnist.yaml").read_text()
    assert "{name: http, port: 8080, targetPort: 8080, protocol: TCP}" in services


def test_every_endpoint_of_the_examples_has_a_model_server():
    found = [document for file in FILES for document in yaml.safe_load_all(file.read_text())]
    slices = [document for document in found if document["kind"] == "EndpointSlice"]
    assert sorted(port["port"] for one in slices for port in one["ports"]) == sorted(
        port for model in MODELS for port in model.ports()
    )


def test_the_router_stands_before_the_language_model_with_a_small_limit():
    environment = ROUTER.environment({9021: 19021, 9022: 19022})
    assert environment["UPSTREAM_URL"] == "http://127.0.0.1:19021"
    assert (environment["PORT"], environment["MAX_CONCURRENCY"], environment["QUEUE_LIMIT"]) == ("19022", "2", "4")
    assert "GRPC_PORT" not in environment
