"""The manifests of a gateway: what they promise, and what changes which of them."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bootstrap.address import Address
from bootstrap.manifests import (
    BOOTSTRAP_FILE,
    CA_FILE,
    CONFIG,
    CONFIG_CONTENT,
    CONTENT,
    ENTRANCE_PORT,
    HASH,
    TOKENS,
    Deploying,
    Owner,
    manifests,
    owned,
)
from bootstrap.pod import DRAIN_HEADER
from tests.support.documents import entrance, isvc, policy, split, to_service
from translator import names
from translator.objects import parse
from translator.objects.ref import Origin, Ref
from translator.plan import GatewayPlan
from translator.planners import plan
from translator.planners.hosts import inside
from translator.planners.indexes import INDEXES
from translator.planners.options import Options
from translator.view import Objects, View

REF = Ref("serving.kserve.io", "InferenceService", "models", "iris")
OWNER = Owner(REF, "v1beta1", "0b1c")
DEPLOYING = Deploying(xds_address=Address("xdserve.system.svc", 18000), ca="the authorities")


def gateway(port=8080, address="0.0.0.0", name="models/iris"):
    return GatewayPlan(name, address, port, 0, Origin(REF, "metadata.name"))


def made(owner=OWNER, plan=None, **more):
    given = {"xds_address": DEPLOYING.xds_address, "ca": DEPLOYING.ca, **more}
    return {one["kind"]: one for one in manifests(owner, plan or gateway(), Deploying(**given))}


def pod(found):
    return found["Deployment"]["spec"]["template"]["spec"]


def container(found):
    (one,) = pod(found)["containers"]
    return one


def bootstrap(found):
    return yaml.safe_load(found["ConfigMap"]["data"][BOOTSTRAP_FILE])


def test_everything_has_one_name_the_labels_and_the_target_as_owner():
    found = made()
    assert set(found) == {"ServiceAccount", "ConfigMap", "Service", "PodDisruptionBudget", "Deployment"}
    for one in found.values():
        metadata = one["metadata"]
        assert (metadata["namespace"], metadata["name"]) == ("models", "iris-gateway")
        (owner,) = metadata["ownerReferences"]
        assert (owner["apiVersion"], owner["kind"], owner["name"]) == ("serving.kserve.io/v1beta1", REF.kind, "iris")
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("0b1c", True, False)
        assert {name.removeprefix("app.kubernetes.io/") for name in metadata["labels"]} == {
            "name", "instance", "component", "part-of", "managed-by",
        }  # fmt: skip
        for wanted in owned("xdserve").split(","):
            name, _, value = wanted.partition("=")
            assert metadata["labels"][name] == value


def test_the_owner_may_be_of_the_core_group():
    found = made(Owner(Ref("", "Service", "models", "iris"), "v1", "1"))
    assert found["Service"]["metadata"]["ownerReferences"][0]["apiVersion"] == "v1"


def test_the_selector_finds_the_pods_everywhere():
    found = made()
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        found["Service"]["spec"]["selector"],
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        *(one["labelSelector"]["matchLabels"] for one in pod(found)["topologySpreadConstraints"]),
    ]
    assert all(one.items() <= labels.items() for one in selectors)
    assert {frozenset(one.items()) for one in selectors} == {frozenset(selectors[0].items())}
    other = made(Owner(REF._replace(name="wine"), "v1beta1", "2"))
    assert other["Service"]["spec"]["selector"] != selectors[0]


def test_pods_may_do_as_little_as_can_be():
    found = made()
    security, own = pod(found)["securityContext"], container(found)["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(found)["automountServiceAccountToken"] is False
    assert found["ServiceAccount"]["automountServiceAccountToken"] is False
    assert "memory" in container(found)["resources"]["requests"]
    assert "memory" in container(found)["resources"]["limits"]
    assert "sysctls" not in security


def test_a_low_port_can_be_listened_at_without_a_capability():
    found = made(plan=gateway(80))
    assert pod(found)["securityContext"]["sysctls"] == [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}]


def test_the_token_opens_nothing_but_xdserve():
    (volume,) = [one for one in pod(made())["volumes"] if "projected" in one]
    (source,) = volume["projected"]["sources"]
    assert source["serviceAccountToken"] == {"path": "token", "audience": "xdserve", "expirationSeconds": 3600}


def test_the_entrance_leads_to_the_gateways_port():
    for port in (8080, 9090):
        (found,) = made(plan=gateway(port))["Service"]["spec"]["ports"]
        assert (found["port"], found["targetPort"]) == (ENTRANCE_PORT, port)
        assert "appProtocol" not in found


def test_an_envoy_is_called_by_its_pod():
    found = made()
    arguments = container(found)["args"]
    assert arguments[arguments.index("--service-node") + 1] == "models/iris/$(POD_NAME)"
    assert bootstrap(found)["node"] == {"cluster": "models/iris"}


def test_what_the_bootstrap_names_is_mounted():
    found = made()
    mounts = {one["mountPath"] for one in container(found)["volumeMounts"]}
    assert mounts == {str(CONFIG), str(TOKENS)}
    text = "".join(found["ConfigMap"]["data"].values())
    for name in found["ConfigMap"]["data"]:
        if name != BOOTSTRAP_FILE:
            assert str(CONFIG / name) in text
    assert container(found)["args"][:2] == ["--config-path", str(CONFIG / BOOTSTRAP_FILE)]


def test_a_hook_of_each_gateway_has_a_key_of_its_own():
    def key(found):
        (header,) = container(found)["lifecycle"]["preStop"]["httpGet"]["httpHeaders"]
        assert header["name"] == DRAIN_HEADER
        assert header["value"] in found["ConfigMap"]["data"][BOOTSTRAP_FILE]
        return header["value"]

    assert key(made()) == key(made(plan=gateway(9090)))
    assert key(made()) != key(made(Owner(REF, "v1beta1", "another life")))


@pytest.mark.parametrize("port", [15021, 9901])
def test_the_pods_own_ports_make_way_for_the_gateways(port):
    found = made(plan=gateway(port))
    probe = container(found)["readinessProbe"]["httpGet"]["port"]
    made_bootstrap = bootstrap(found)
    admin = made_bootstrap["admin"]["address"]["socket_address"]["port_value"]
    (listener,) = made_bootstrap["static_resources"]["listeners"]
    assert listener["address"]["socket_address"]["port_value"] == probe
    assert len({probe, admin, port}) == 3


def test_an_ipv6_gateway_is_probed_by_both():
    (listener,) = bootstrap(made(plan=gateway(address="::")))["static_resources"]["listeners"]
    assert listener["address"]["socket_address"] == {"address": "::", "port_value": 15021, "ipv4_compat": True}


def test_one_replica_has_no_budget_that_would_hold_up_a_drained_node():
    found = made(replicas=1)
    assert "PodDisruptionBudget" not in found
    assert found["Deployment"]["spec"]["replicas"] == 1


def test_draining_ends_before_the_grace_period():
    for grace in (15, 60, 600):
        found = made(grace=grace)
        assert pod(found)["terminationGracePeriodSeconds"] == grace
        assert f"for second = 1, {grace - 10} do" in str(bootstrap(found))


@pytest.mark.parametrize("wrong", [{"replicas": 0}, {"grace": 14}])
def test_refuses_what_cannot_work(wrong):
    with pytest.raises(ValueError, match="or more"):
        made(**wrong)


# -- What changes what ---------------------------------------------------------------------------------------------


def template(found):
    return found["Deployment"]["spec"]["template"]


def test_a_changed_bootstrap_rolls_the_pods():
    changed = made(xds_address=Address("elsewhere.system.svc", 18000))
    assert template(changed)["metadata"]["annotations"][HASH] != template(made())["metadata"]["annotations"][HASH]


def test_other_authorities_roll_no_pod():
    before, after = made(), made(ca="others too")
    assert {kind for kind in before if before[kind] != after[kind]} == {"ConfigMap", "Deployment"}
    assert after["Deployment"]["spec"] == before["Deployment"]["spec"]
    held = after["ConfigMap"]["metadata"]["annotations"][CONTENT]
    assert after["Deployment"]["metadata"]["annotations"][CONFIG_CONTENT] == held
    assert after["ConfigMap"]["data"] == before["ConfigMap"]["data"] | {CA_FILE: "others too"}


def test_another_port_is_in_force_without_rolling_the_pods():
    before, after = made(), made(plan=gateway(9090))
    assert {kind for kind in before if before[kind] != after[kind]} == {"Service"}


POLICIES = [
    policy(),
    policy(timeouts={"request": "5s"}),
    policy(
        backends=[to_service("v2", "iris-v2")],
        split=split(v2=1),
        rules=[{"name": "x", "matches": [{"path": {"value": "/x"}}], "split": split(v2=1)}],
    ),
    policy(split=[{"backend": "nobody", "weight": 1}]),
]


@pytest.mark.parametrize("changed", [None, *POLICIES])
def test_a_changed_policy_changes_nothing_here(changed):
    def of(*documents):
        objects = Objects(INDEXES)
        for document in documents:
            objects.put(parse(document))
        planned = plan(View(objects), REF, Options())
        assert planned.gateway is not None
        return manifests(OWNER, planned.gateway, DEPLOYING)

    platform = entrance(9090)
    assert of(isvc(), platform) == of(isvc(), platform, *([changed] if changed else []))


# -- Names ---------------------------------------------------------------------------------------------------------

LABEL = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?\Z")
SUBDOMAIN = st.lists(LABEL, min_size=1, max_size=5).map(".".join)


@given(st.sets(SUBDOMAIN, min_size=1, max_size=5))
def test_every_target_has_a_name_for_a_service_of_its_own(targets):
    entrances = {names.entrance(REF._replace(name=target)) for target in targets}
    assert len(entrances) == len(targets)
    for entrance_name in entrances:
        assert len(entrance_name) <= 63
        assert entrance_name.endswith("-gateway")
        assert entrance_name[0].isalpha()
        assert entrance_name.replace("-", "").isalnum()


@pytest.mark.parametrize("name", ["iris", "a", "a-1", "a" * 55])
def test_a_name_is_kept_where_it_can_be(name):
    assert names.entrance(REF._replace(name=name)) == f"{name}-gateway"


@pytest.mark.parametrize("name", ["iris", "i" * 63, "a.b.c"])
def test_a_service_is_called_by_its_entrance_inside_the_cluster(name):
    """Also by clients of a cluster-local one, which answers to no other host."""
    ref = REF._replace(name=name)
    assert f"{names.entrance(ref)}.models.svc.cluster.local" in inside(ref)


def test_paths_in_the_pod_are_absolute():
    assert PurePosixPath(CONFIG).is_absolute()
    assert PurePosixPath(TOKENS).is_absolute()
