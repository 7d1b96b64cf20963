from __future__ import annotations

import json
import socket
from pathlib import PurePath
from typing import Any

import pytest
import yaml

import bootstrap
from bootstrap import Credentials, CredentialsError


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


def test_replicas_are_endpoints_of_one_cluster() -> None:
    def cluster(*addresses: str) -> dict[str, Any]:
        (made,) = bootstrap.render("models/iris", addresses)["static_resources"]["clusters"]
        return made

    def ports(made: dict[str, Any]) -> list[int]:
        endpoints = made["load_assignment"]["endpoints"][0]["lb_endpoints"]
        return [endpoint["endpoint"]["address"]["socket_address"]["port_value"] for endpoint in endpoints]

    assert (cluster("10.0.0.1:1", "[::1]:2")["type"], ports(cluster("10.0.0.1:1", "[::1]:2"))) == ("STATIC", [1, 2])
    mixed = cluster("10.0.0.1:1", "xdserve.system:2", "10.0.0.1:1")
    assert (mixed["type"], ports(mixed)) == ("STRICT_DNS", [1, 2])


@pytest.mark.parametrize("addresses", [[], ["10.0.0.1:1", "10.0.0.1:0"], ["10.0.0.1:1", "nowhere"]])
def test_refuses_addresses_of_which_one_is_none(addresses: list[str]) -> None:
    with pytest.raises(ValueError, match=r"one address or more|1\.\.65535"):
        bootstrap.render("models/iris", addresses)


def test_loads_are_reported_to_the_same_server() -> None:
    manager = bootstrap.render("models/iris", "127.0.0.1:18000")["cluster_manager"]
    assert manager["load_stats_config"]["grpc_services"] == [{"envoy_grpc": {"cluster_name": bootstrap.XDS_CLUSTER}}]


RUN = PurePath("/run")
CA = {"ca": RUN / "ca.pem", "directory": RUN}
PAIR = {"cert": RUN / "tls.crt", "key": RUN / "tls.key"}
TOKEN = {"token_file": RUN / "token", "directory": RUN}


def cluster_with(credentials: Credentials, *addresses: str) -> dict[str, Any]:
    made = bootstrap.render("models/iris", addresses or ["127.0.0.1:1"], credentials=credentials)
    return made["static_resources"]["clusters"][0]


def test_without_credentials_nothing_is_secret() -> None:
    made = cluster_with(Credentials())
    assert "transport_socket" not in made
    assert "http_filters" not in str(made)
    assert bootstrap.secrets(Credentials(), "127.0.0.1:1") == {}


@pytest.mark.parametrize(
    ("addresses", "server_name", "sni", "names"),
    [
        (["10.0.0.1:1"], None, None, [("IP_ADDRESS", "10.0.0.1")]),
        (["[fd00:0:0::1]:1"], None, None, [("IP_ADDRESS", "fd00::1")]),
        (["XDServe.system.:1"], None, "xdserve.system", [("DNS", "xdserve.system")]),
        (["10.0.0.1:1", "a:1", "a:2"], None, "a", [("IP_ADDRESS", "10.0.0.1"), ("DNS", "a")]),
        (["10.0.0.1:1", "a:1"], "Other.example.", "other.example", [("DNS", "other.example")]),
    ],
)
def test_the_server_must_be_who_was_asked_for(
    addresses: list[str], server_name: str | None, sni: str | None, names: list[tuple[str, str]]
) -> None:
    credentials = Credentials(**CA, server_name=server_name)
    context = cluster_with(credentials, *addresses)["transport_socket"]["typed_config"]
    assert context.get("sni") == sni
    (secret,) = bootstrap.secrets(credentials, addresses)["xdserve-ca.yaml"]["resources"]
    matchers = secret["validation_context"]["match_typed_subject_alt_names"]
    assert [(matcher["san_type"], matcher["matcher"]["exact"]) for matcher in matchers] == names


def test_the_bootstrap_names_the_files_that_name_the_secrets() -> None:
    credentials = Credentials(**CA, **PAIR, token_file=RUN / "token")
    text = json.dumps(cluster_with(credentials))
    files = bootstrap.secrets(credentials, "127.0.0.1:1")
    assert set(files) == {"xdserve-ca.yaml", "xdserve-cert.yaml", "xdserve-token.yaml"}
    for name, content in files.items():
        assert f'"path": "/run/{name}"' in text
        (secret,) = content["resources"]
        assert f"{secret['name']}.yaml" == name


def test_files_are_watched_where_they_are() -> None:
    def certificate(cert: str, key: str) -> dict[str, Any]:
        credentials = Credentials(**CA, cert=PurePath(cert), key=PurePath(key))
        (secret,) = bootstrap.secrets(credentials, "127.0.0.1:1")["xdserve-cert.yaml"]["resources"]
        return secret["tls_certificate"]

    assert certificate("/a/tls.crt", "/a/tls.key")["watched_directory"] == {"path": "/a"}
    assert "watched_directory" not in certificate("/a/tls.crt", "/b/tls.key")


@pytest.mark.parametrize(
    ("given", "field", "allowed"),
    [
        ({"ca": RUN / "ca.pem"}, "directory", "a directory, as ca is given"),
        ({"token_file": RUN / "token"}, "directory", "a directory, as token_file is given"),
        ({**CA, "cert": RUN / "tls.crt"}, "key", "a file, as cert is given"),
        ({**CA, "key": RUN / "tls.key"}, "cert", "a file, as key is given"),
        ({**PAIR, "directory": RUN}, "ca", "a file, as cert is given"),
        ({"server_name": "a"}, "ca", "a file, as server_name is given"),
        ({**CA, "server_name": "a/b"}, "server_name", "a DNS name"),
        ({**CA, "server_name": "10.0.0.1"}, "server_name", "a DNS name"),
        ({"ca": PurePath("ca.pem"), "directory": RUN}, "ca", "an absolute path"),
        ({"directory": PurePath("here")}, "directory", "an absolute path"),
    ],
)
def test_refuses_credentials_that_cannot_work(given: dict[str, Any], field: str, allowed: str) -> None:
    with pytest.raises(CredentialsError, match=allowed) as error:
        Credentials(**given)
    assert error.value.field == field


def test_a_token_is_not_sent_where_others_can_read_it() -> None:
    with pytest.raises(CredentialsError, match="plain text") as error:
        cluster_with(Credentials(**TOKEN), "127.0.0.1:1", "10.0.0.1:1")
    assert error.value.field == "ca"
    assert "credential_injector" in str(cluster_with(Credentials(**TOKEN), "127.0.0.1:1", "localhost:2"))
    assert "credential_injector" in str(cluster_with(Credentials(**TOKEN, ca=RUN / "ca.pem"), "10.0.0.1:1"))
