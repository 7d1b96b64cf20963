"""The manifests of a gateway: what they promise, and what changes which of them."""

from __future__ import annotations

import copy
from dataclasses import replace
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
    Unreachable,
    manifests,
    owned,
)
from bootstrap.pod import DRAIN_HEADER
from tests.support.documents import entrance, isvc, policy, split, to_service
from translator import names
from translator.objects import parse
from translator.objects.ref import Origin, Ref
from translator.plan import GatewayPlan, Pods, Resources, Router
from translator.planners import plan, router
from translator.planners.edge import DEFAULT_EDGE
from translator.planners.hosts import inside
from translator.planners.indexes import INDEXES
from translator.planners.options import Options
from translator.view import Objects, View
from xdserve.router.settings import load

REF = Ref("serving.kserve.io", "InferenceService", "models", "iris")
OWNER = Owner(REF, "v1beta1", "0b1c")
DEPLOYING = Deploying(xds_address=Address("xdserve.system.svc", 18000), ca="the authorities")


def gateway(port=8080, address="0.0.0.0", name="models/iris", **pods):
    return GatewayPlan(name, address, port, 0, Origin(REF, "metadata.name"), Pods(**pods), edge=DEFAULT_EDGE)


def made(owner=OWNER, plan=None, **more):
    given = {"xds_address": DEPLOYING.xds_address, "ca": DEPLOYING.ca, **more}
    return {one["kind"]: one for one in manifests(owner, plan or gateway(), Deploying(**given))}


def pod(found):
    return found["Deployment"]["spec"]["template"]["spec"]


def container(found):
    return pod(found)["containers"][0]


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


@pytest.mark.parametrize("port", [80, 8080])
def test_a_low_port_can_be_listened_at_without_a_capability_also_if_it_comes_later(port):
    """A pod of before that could not listen at the new port would refuse it, and so hold up all others."""
    security = pod(made(plan=gateway(port)))["securityContext"]
    assert security["sysctls"] == [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]


def test_images_are_pulled_with_the_given_secrets():
    assert "imagePullSecrets" not in pod(made())
    assert pod(made(pull_secrets=("images", "more")))["imagePullSecrets"] == [{"name": "images"}, {"name": "more"}]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1"])
def test_a_gateway_that_nobody_reaches_is_refused(address):
    with pytest.raises(Unreachable, match=f"spec.address: found {address}, allowed others than loopback"):
        made(plan=gateway(address=address))


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


@pytest.mark.parametrize(("said", "replicas"), [(None, 2), (1, 1), (5, 5)])
def test_a_gateway_may_say_how_many_pods_it_has(said, replicas):
    found = made(plan=gateway(replicas=said))
    assert found["Deployment"]["spec"]["replicas"] == replicas
    assert ("PodDisruptionBudget" in found) is (replicas > 1)


def test_a_gateway_may_say_what_its_envoys_may_use():
    said = Resources(requests=(("cpu", "1"), ("memory", "1Gi")))
    found = made(plan=gateway(resources=said, router=ROUTER))
    assert container(found)["resources"] == {"requests": {"cpu": "1", "memory": "1Gi"}}
    assert container(made())["resources"]["requests"] == {"cpu": "50m", "memory": "96Mi"}
    assert beside(found) == beside(made(plan=gateway(router=ROUTER)))


# -- The router ----------------------------------------------------------------------------------------------------

ROUTER = Router("iris", "v1", 4, "reject", ("kv-1:6379", "kv-2:6379"), port=28080)


def beside(found):
    envoy, one = pod(found)["containers"]
    assert (envoy["name"], one["name"]) == ("envoy", "router")
    return one


def environment(found):
    """As a kubelet gives it."""
    given = {one["name"]: one.get("value", "pod-1").replace("$$", "$") for one in beside(found)["env"]}
    (named,) = [one for one in beside(found)["env"] if "valueFrom" in one]
    assert (named["name"], named["valueFrom"]["fieldRef"]["fieldPath"]) == ("HOSTNAME", "metadata.name")
    return given


def test_there_is_a_router_only_where_one_is_asked_for():
    assert [one["name"] for one in pod(made())["containers"]] == ["envoy"]
    assert "router" not in [each["name"] for each in bootstrap(made())["static_resources"]["clusters"]]
    assert beside(made(plan=gateway(router=ROUTER)))["name"] == "router"


def test_the_router_takes_its_environment():
    """Each variable is one of its own, and has the value that was meant."""
    given = environment(made(plan=gateway(router=ROUTER)))
    settings = load(given)
    assert {name.upper() for name in settings.model_fields_set} == given.keys()
    assert (settings.model_ref, settings.max_concurrency, settings.overflow) == ("iris", 4, "reject")
    assert (settings.kv_endpoints, settings.hostname) == (("kv-1:6379", "kv-2:6379"), "pod-1")
    assert (settings.address, settings.port) == ("127.0.0.1", 28080)
    assert (settings.upstream_url, settings.upstream_protocol) == ("http://127.0.0.1:8080", "v1")
    assert settings.upstream_headers == "all"


def test_a_router_without_caches_is_told_of_none():
    plain = replace(ROUTER, kv_endpoints=(), protocol="openai", overflow="queue")
    settings = load(environment(made(plan=gateway(router=plain))))
    assert (settings.kv_endpoints, settings.upstream_protocol, settings.overflow) == ((), "openai", "queue")


def test_a_models_name_is_no_reference_to_another_variable():
    """As Kubernetes expands them: `$$` is a dollar, whatever follows."""
    found = made(plan=gateway(router=replace(ROUTER, model="$(HOSTNAME)$$(PORT)$")))
    (said,) = [one["value"] for one in beside(found)["env"] if one["name"] == "MODEL_REF"]
    assert said == "$$(HOSTNAME)$$$$(PORT)$$"
    assert load(environment(found)).model_ref == "$(HOSTNAME)$$(PORT)$"


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:8080"),
        ("10.0.0.7", "http://10.0.0.7:8080"),
        ("::", "http://[::1]:8080"),
        ("fd00::7", "http://[fd00::7]:8080"),
    ],
)
def test_the_router_reaches_the_gateways_own_listener(address, url):
    assert environment(made(plan=gateway(address=address, router=ROUTER)))["UPSTREAM_URL"] == url


def test_the_router_may_do_as_little_as_the_envoy():
    found = made(plan=gateway(router=ROUTER), router_image="mirror/xdserve:1")
    one = beside(found)
    assert one["securityContext"] == container(found)["securityContext"]
    assert one["image"] == "mirror/xdserve:1"
    assert (one["command"], one["args"]) == (["xdserve"], ["router"])
    assert "volumeMounts" not in one  # no token, no authorities
    assert {"memory"} <= one["resources"]["requests"].keys() & one["resources"]["limits"].keys()


def test_the_router_is_probed_through_envoy_and_ends_with_it():
    """It listens where no kubelet comes, and requests come as long as Envoy drains."""
    found = made(plan=gateway(router=ROUTER))
    one = beside(found)
    assert one["lifecycle"] == container(found)["lifecycle"]
    assert one["readinessProbe"]["httpGet"] == {"path": "/router", "port": 15021, "scheme": "HTTP"}
    # A container whose liveness fails is ended by its hook, which would drain the Envoy of a pod that goes on.
    assert not {"livenessProbe", "startupProbe"} & one.keys()
    static = bootstrap(found)["static_resources"]
    (cluster,) = [each for each in static["clusters"] if each["name"] == "router"]
    assert "'port_value': 28080" in str(cluster)
    assert "'prefix_rewrite': '/healthz'" in str(static["listeners"])


@given(st.integers(1, 65535))
def test_the_routers_port_is_free_and_needs_no_privilege(port):
    found = router.port(port)
    taken = {port, *(range(15021, 15023)), *(range(9901, 9903))}
    assert 1024 <= found <= 65535
    assert found not in taken


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


@pytest.mark.parametrize("port", [80, 9090])
def test_another_port_is_in_force_without_rolling_the_pods(port):
    before, after = made(), made(plan=gateway(port))
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


def of(*documents):
    objects = Objects(INDEXES)
    for document in documents:
        objects.put(parse(document))
    planned = plan(View(objects), REF, Options())
    assert planned.gateway is not None
    return manifests(OWNER, planned.gateway, DEPLOYING)


@pytest.mark.parametrize("changed", [None, *POLICIES])
def test_a_changed_policy_changes_nothing_here(changed):
    platform = entrance(9090, address="0.0.0.0")
    assert of(isvc(), platform) == of(isvc(), platform, *([changed] if changed else []))


ASKED = {"modelRef": "iris", "maxConcurrency": 4}


@pytest.mark.parametrize("changed", [policy(router={}), *POLICIES])
def test_a_changed_policy_changes_nothing_beside_a_router_either(changed):
    """Not even one that is invalid, of which no valid one before it is known."""
    before, after = policy(router=ASKED), copy.deepcopy(changed)
    after["spec"]["router"] = ASKED
    assert of(isvc(), before) == of(isvc(), after)


@pytest.mark.parametrize(
    "change",
    [
        {"modelRef": "other"},
        {"maxConcurrency": 5},
        {"overflow": "reject"},
        {"protocol": "v2"},
        {"kvEndpoints": ["a"]},
    ],
)
def test_other_settings_of_a_router_roll_the_pods(change):
    def specs(*documents):
        return {one["kind"]: one.get("spec", one.get("data")) for one in of(isvc(), *documents)}

    before, after = specs(policy(router=ASKED)), specs(policy(router=ASKED | change))
    assert {kind for kind in before if before[kind] != after[kind]} == {"Deployment"}
    assert before["Deployment"]["template"]["spec"] != after["Deployment"]["template"]["spec"]


def test_a_router_that_comes_or_goes_rolls_the_pods():
    def hashes(*documents):
        return of(isvc(), *documents)[-1]["spec"]["template"]["metadata"]["annotations"][HASH]

    assert hashes(policy(router=ASKED)) != hashes(policy()) == hashes()


def test_replicas_and_resources_are_those_of_the_servicegateway():
    said = {"requests": {"memory": "1024Mi"}}
    *_, deployment = of(isvc(), entrance(8080, address="0.0.0.0", replicas=3, resources=said))
    *_, plain = of(isvc(), entrance(8080, address="0.0.0.0"))
    assert deployment["spec"]["replicas"] == 3
    assert deployment["spec"]["template"]["spec"]["containers"][0]["resources"] == {"requests": {"memory": "1Gi"}}
    assert plain["spec"]["replicas"] == 2
    # More pods are no other pods.
    *_, more = of(isvc(), entrance(8080, address="0.0.0.0", replicas=5, resources=said))
    assert more["spec"]["template"] == deployment["spec"]["template"]


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
    assert f"{names.entrance(ref)}.models.svc.cluster.local" in inside(ref, "cluster.local")


def test_paths_in_the_pod_are_absolute():
    assert PurePosixPath(CONFIG).is_absolute()
    assert PurePosixPath(TOKENS).is_absolute()
