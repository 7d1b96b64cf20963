"""The demo's copy of the examples, and the edits that it makes to it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from xdserve.demo.files import PolicyFile

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
