from __future__ import annotations

import json
import socket

import pytest
import yaml

import bootstrap


def test_says_who_the_envoy_is() -> None:
    made = bootstrap.render("models/iris", "127.0.0.1:18000", node_id="pod-1")
    assert made["node"] == {"id": "pod-1", "cluster": "models/iris"}
    default = bootstrap.render("models/iris", "127.0.0.1:18000")
    assert default["node"]["id"] == f"models/iris/{socket.gethostname()}"
    assert default == bootstrap.render("models/iris", "127.0.0.1:18000")


def test_an_envoy_that_heard_nothing_is_not_ready() -> None:
    resources = bootstrap.render("models/iris", "127.0.0.1:18000")["dynamic_resources"]
    for config in ("cds_config", "lds_config"):
        assert resources[config] == {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    assert resources["ads_config"]["api_type"] == "DELTA_GRPC"
    assert resources["ads_config"]["set_node_on_first_message_only"] is True


@pytest.mark.parametrize(
    ("address", "discovery", "host"),
    [
        ("10.0.0.1:18000", "STATIC", "10.0.0.1"),
        ("[fd00::1]:18000", "STATIC", "fd00::1"),
        ("xdserve.system.svc:18000", "STRICT_DNS", "xdserve.system.svc"),
    ],
)
def test_names_are_looked_up_and_addresses_are_not(address: str, discovery: str, host: str) -> None:
    (cluster,) = bootstrap.render("models/iris", address)["static_resources"]["clusters"]
    assert cluster["type"] == discovery
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"] == {"socket_address": {"address": host, "port_value": 18000}}


def test_the_server_is_no_name_that_a_gateway_could_have() -> None:
    assert "/" not in bootstrap.XDS_CLUSTER


@pytest.mark.parametrize(
    "gateway", ["", "iris", "a/b/c", "/iris", "models/", "Models/iris", "models/ir is", "models/iris\n"]
)
def test_refuses_what_names_no_gateway(gateway: str) -> None:
    with pytest.raises(ValueError, match="NAMESPACE/NAME"):
        bootstrap.render(gateway, "127.0.0.1:18000")


@pytest.mark.parametrize("node_id", ["", "a b", "a\n", "ä", "a" * 513])
def test_refuses_a_node_id_that_no_log_could_show(node_id: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        bootstrap.render("models/iris", "127.0.0.1:18000", node_id=node_id)


def test_refuses_an_address_that_none_can_connect_to() -> None:
    with pytest.raises(ValueError, match=r"1\.\.65535"):
        bootstrap.render("models/iris", "127.0.0.1:0")
    with pytest.raises(ValueError, match="HOST:PORT"):
        bootstrap.render("models/iris", "127.0.0.1:18000", admin_address="nowhere")


def test_yaml_and_json_say_the_same() -> None:
    made = bootstrap.render("models/iris", "xdserve:18000")
    assert yaml.safe_load(bootstrap.to_yaml(made)) == json.loads(bootstrap.to_json(made)) == made
