"""The real kube-apiserver that other tests stand on: what they take for granted of it."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from kubernetes.aio import client, watch

from tests.support.kube import ApiError, Apiserver, KubectlError
from tests.support.kube_binaries import BinaryError, kube_binaries
from tests.support.kube_seed import CRDS
from tests.support.netns import SUBNET
from tests.support.wait import wait_until

SAMPLES = Path(__file__).parents[1] / "samples"


def test_a_bare_apiserver_has_no_crds_until_they_are_installed(bare_apiserver):
    get = ("get", "crd", "--output=name")
    assert not bare_apiserver.kubectl(*get)

    bare_apiserver.install(*CRDS)

    found = bare_apiserver.kubectl(*get).split()
    assert len(found) == sum(len(list(folder.glob("*.yaml"))) for folder in CRDS)


def test_the_kinds_that_xdserve_reads_are_served(apiserver):
    found = apiserver.kubectl("api-resources", "--output=name").split()

    assert {"inferenceservices.serving.kserve.io", "inferences.serving.kubedl.io"} < set(found)
    assert {"referencegrants.gateway.networking.k8s.io", "trafficpolicies.xdserve.io"} < set(found)


def test_kubectl_knows_the_servers_version(apiserver):
    found = json.loads(apiserver.kubectl("version", "--output=json"))

    assert found["serverVersion"]["major"] == "1"
    assert found["serverVersion"]["gitVersion"].startswith("v1.")


@pytest.mark.parametrize("file", ["kserve/01-sklearn-iris.yaml", "kubedl/02-two-predictors-weighted.yaml"])
def test_objects_are_applied_as_users_do(apiserver, file):
    assert "serverside-applied" in apiserver.apply(SAMPLES / file)

    apiserver.kubectl("delete", f"--filename={SAMPLES / file}")


def test_a_mistake_in_an_object_is_refused_with_its_field(apiserver, namespace):
    metadata = {"name": "iris", "namespace": namespace}
    broken = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": metadata}

    with pytest.raises(KubectlError, match=r"spec\.predictor: Required value"):
        apiserver.apply(broken | {"spec": {}}, namespace=namespace)


def test_an_endpoint_slice_has_addresses_of_the_network_but_none_of_loopback(apiserver, namespace, network):
    apiserver.apply(_slice(namespace, network.address()), namespace=namespace)

    with pytest.raises(KubectlError, match="loopback"):
        apiserver.apply(_slice(namespace, "127.0.0.1"), namespace=namespace)


def test_a_server_of_the_network_is_reached_there_and_nowhere_else(network):
    outside = network.outside(_interfaces)
    address = str(SUBNET[4711])
    with socket.create_server((address, 0)) as server, socket.create_connection(server.getsockname(), 5) as caller:
        accepted, _ = server.accept()
        with accepted:
            accepted.sendall(b"here")
        assert caller.recv(10) == b"here"
        with pytest.raises(OSError, match="Cannot assign requested address"):
            network.outside(socket.create_server, (address, 0))

    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    assert outside == network.outside(_interfaces)


def test_a_child_is_in_the_network_of_the_test(apiserver, network):
    assert apiserver.ready()
    with pytest.raises(ConnectionRefusedError):
        network.outside(socket.create_connection, ("127.0.0.1", apiserver.port))


async def test_a_service_account_may_do_what_roles_allow_and_no_more(apiserver, namespace, tmp_path):
    apiserver.kubectl("create", "serviceaccount", "reader", f"--namespace={namespace}")
    token = apiserver.account_token(namespace, "reader")
    kubeconfig = apiserver.write_kubeconfig(tmp_path / "kubeconfig", token=token)
    get = ("get", "services", f"--namespace={namespace}")
    with pytest.raises(
        KubectlError, match=f'"system:serviceaccount:{namespace}:reader" cannot list resource "services"'
    ):
        apiserver.kubectl(*get, kubeconfig=kubeconfig)

    role = ("--role=reader", f"--serviceaccount={namespace}:reader", f"--namespace={namespace}")
    apiserver.kubectl("create", "role", "reader", "--verb=list", "--resource=services", f"--namespace={namespace}")
    apiserver.kubectl("create", "rolebinding", "reader", *role)

    await wait_until(lambda: _allowed(apiserver, get, kubeconfig), what="the authorizer to have seen the role")
    with pytest.raises(KubectlError, match='cannot list resource "secrets"'):
        apiserver.kubectl("get", "secrets", f"--namespace={namespace}", kubeconfig=kubeconfig)


async def test_a_token_is_good_for_the_audience_that_it_was_asked_for(apiserver, namespace):
    apiserver.kubectl("create", "serviceaccount", "iris-gateway", f"--namespace={namespace}")
    token = apiserver.account_token(namespace, "iris-gateway", audiences=["xdserve"])

    async with await apiserver.client() as api:
        good = await _review(api, token, "xdserve")
        other = await _review(api, token, "someone-else")
        forged = await _review(api, token[:-8] + "AAAAAAAA", "xdserve")

    assert good.authenticated
    assert good.audiences == ["xdserve"]
    assert good.user.username == f"system:serviceaccount:{namespace}:iris-gateway"
    assert not other.authenticated
    assert not forged.authenticated
    with pytest.raises(ApiError) as refused:
        apiserver.call("GET", "/api/v1/namespaces", token=token)
    assert refused.value.status == 401


def test_a_removed_namespace_leaves_nothing(apiserver):
    name = apiserver.make_namespace("short-lived")
    apiserver.kubectl("create", "configmap", "settings", f"--namespace={name}")

    apiserver.remove_namespace(name)

    with pytest.raises(ApiError, match="not found"):
        apiserver.call("GET", f"/api/v1/namespaces/{name}")
    apiserver.make_namespace(name)
    assert apiserver.call("GET", f"/api/v1/namespaces/{name}/configmaps")["items"] == []


async def test_a_watch_from_before_a_compaction_is_gone(network, tmp_path):
    with Apiserver(tmp_path, "--watch-cache=false") as apiserver:
        await apiserver.started()
        async with await apiserver.client() as api:
            old = await _revision(api)
            await _edit(api, "one")
            assert await _first_event(api, old) == "one"

            await _edit(api, "two")
            apiserver.compact()

            with pytest.raises(client.ApiException) as gone:
                await _first_event(api, old)
    assert gone.value.status == 410


async def test_a_killed_apiserver_comes_back_with_its_data_and_keys_and_its_old_watches_are_gone(lone_apiserver):
    lone_apiserver.kubectl("create", "serviceaccount", "kept")
    token = lone_apiserver.account_token("default", "kept", audiences=["xdserve"])
    async with await lone_apiserver.client() as api:
        old = await _revision(api)
        await _edit(api, "one")
        lone_apiserver.compact()

        lone_apiserver.kill()
        assert not _listens(lone_apiserver)
        await lone_apiserver.started()

        assert (await _review(api, token, "xdserve")).authenticated
        assert (await client.CoreV1Api(api).read_namespaced_config_map("one", "default")).metadata.name == "one"
        with pytest.raises(client.ApiException) as gone:
            await _first_event(api, old)
    assert gone.value.status == 410


def test_given_programs_that_are_not_there_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))

    with pytest.raises(BinaryError, match=r"KUBEBUILDER_ASSETS: .*/kube-apiserver is not there"):
        kube_binaries()


def test_a_build_that_fails_says_why(monkeypatch, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "go.mod").write_text("module broken\n// k8s.io/kubernetes v1.0.0\n")
    (broken / "main.go").write_text('package main\nimport "nowhere"\n')  # found out before anything is compiled
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("tests.support.kube_binaries.SOURCE", broken)

    with pytest.raises(BinaryError, match="package nowhere is not in std"):
        kube_binaries()
    assert not list((tmp_path / "xdserve").glob("kube-apiserver-*"))


def test_an_apiserver_ends_in_order(lone_apiserver):
    assert lone_apiserver.stop() == 0
    assert not _listens(lone_apiserver)


def _slice(namespace, address):
    metadata = {"name": "iris", "namespace": namespace, "labels": {"kubernetes.io/service-name": "iris"}}
    document = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4"}
    ports, endpoints = [{"name": "http", "port": 8080}], [{"addresses": [address], "conditions": {"ready": True}}]
    return document | {"metadata": metadata, "ports": ports, "endpoints": endpoints}


def _interfaces():
    return Path("/proc/thread-self/net/fib_trie").read_text(), socket.if_nameindex()


def _listens(apiserver):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", apiserver.port)) == 0


def _allowed(apiserver, arguments, kubeconfig):
    try:
        apiserver.kubectl(*arguments, kubeconfig=kubeconfig)
    except KubectlError:
        return False
    return True


async def _review(api, token, audience):
    spec = client.V1TokenReviewSpec(token=token, audiences=[audience])
    review = await client.AuthenticationV1Api(api).create_token_review(client.V1TokenReview(spec=spec))
    return review.status


async def _revision(api):
    return (await client.CoreV1Api(api).list_namespaced_config_map("default")).metadata.resource_version


async def _edit(api, name):
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name))
    await client.CoreV1Api(api).create_namespaced_config_map("default", body)


async def _first_event(api, revision):
    """The name of the first ConfigMap that a watch from a resourceVersion tells of."""
    listed = client.CoreV1Api(api).list_namespaced_config_map
    async with watch.Watch() as stream:
        async for event in stream.stream(listed, "default", resource_version=revision, timeout_seconds=10):
            return event["object"].metadata.name
    return None
