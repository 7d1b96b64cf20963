"""The chart as Helm renders it, with every file of values that is shipped for trial."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from bootstrap import manifests
from tests.helm import rights
from tests.support import chart
from tests.support.chart import VALUE_FILES, HelmRefused, findings, rendered, templates, values_of
from translator.objects import KINDS, Ref
from xdserve.settings import Settings, load

ROOT = Path(__file__).parents[2]
ALL = pytest.mark.parametrize("values", [pytest.param(values_of(name), id=name) for name in VALUE_FILES])
NAMESPACED = {
    "ConfigMap", "Deployment", "NetworkPolicy", "Pod", "PodDisruptionBudget", "Role", "RoleBinding", "Secret",
    "Service", "ServiceAccount", "ServiceMonitor",
}  # fmt: skip


def one(kind, objects, name=None):
    [found] = [each for each in objects if each["kind"] == kind and name in {None, each["metadata"]["name"]}]
    return found


def settings_of(objects):
    maps = [each for each in objects if each["kind"] == "ConfigMap"]
    return yaml.safe_load(maps[0]["data"]["xdserve.yaml"])


def pod_of(objects):
    return one("Deployment", objects)["spec"]["template"]["spec"]


def schema():
    return json.loads((chart.CHART / "values.schema.json").read_text())


def test_value_files_are_for_what_the_chart_promises():
    assert set(VALUE_FILES) == {
        "defaults",
        "one-namespace",
        "tls-secret",
        "service-monitor",
        "network-policy-off",
        "ha",
    }


@ALL
def test_helm_has_nothing_against_the_chart(values):
    assert findings(values) == []
    assert "xdserve" in templates(values)["xdserve/templates/NOTES.txt"]


@ALL
def test_every_object_is_whole_and_known_by_its_release(values):
    objects = rendered(values, hooks=True)
    names = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects]
    assert len(set(names)) == len(names)
    for each in objects:
        metadata = each["metadata"]
        assert each["apiVersion"]
        assert len(metadata["name"]) <= 63 or each["kind"].startswith(("Cluster", "Custom"))
        assert ("namespace" in metadata) == (each["kind"] in NAMESPACED), each["kind"]
        if each["kind"] != "CustomResourceDefinition":
            assert metadata["labels"].keys() >= {
                f"app.kubernetes.io/{word}"
                for word in ("name", "instance", "component", "version", "part-of", "managed-by")
            }
        assert all(isinstance(value, str) and len(value) <= 63 for value in metadata.get("labels", {}).values())


@ALL
def test_selectors_choose_the_pods_of_the_server_alone(values):
    objects = rendered(values, hooks=True)
    deployment, test = one("Deployment", objects), one("Pod", objects)
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert not selector.items() <= test["metadata"]["labels"].items()
    selectors = [each["spec"]["selector"] for each in objects if each["kind"] == "Service"]
    selectors += [e["spec"]["selector"]["matchLabels"] for e in objects if e["kind"] == "PodDisruptionBudget"]
    selectors += [e["spec"]["podSelector"]["matchLabels"] for e in objects if e["kind"] == "NetworkPolicy"]
    assert all(each == selector for each in selectors)
    assert all(c["labelSelector"]["matchLabels"] == selector for c in pod_of(objects)["topologySpreadConstraints"])


@ALL
def test_pods_may_do_nothing_that_they_need_not(values):
    """Pod Security Standards, restricted; and a root file system that nobody writes."""
    objects = rendered(values, hooks=True)
    for spec in (pod_of(objects), one("Pod", objects)["spec"]):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        # A Service named xdserve would otherwise set XDSERVE_* variables, which are settings.
        assert spec["enableServiceLinks"] is False
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"]
            assert container["resources"]["limits"]["memory"]


@ALL
def test_what_is_named_is_there(values):
    objects = rendered(values, hooks=True)
    pod = pod_of(objects)
    [container] = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probes = [container[f"{word}Probe"]["httpGet"] for word in ("startup", "liveness", "readiness")]
    assert [(probe["path"], ports[probe["port"]]) for probe in probes] == [
        ("/healthz", 19000),
        ("/healthz", 19000),
        ("/readyz", 19000),
    ]
    for service in (each for each in objects if each["kind"] == "Service"):
        assert all(ports[port["targetPort"]] == port["port"] for port in service["spec"]["ports"])
    accounts = {each["metadata"]["name"] for each in objects if each["kind"] == "ServiceAccount"}
    assert pod["serviceAccountName"] in accounts
    roles = {(e["kind"], e["metadata"].get("namespace"), e["metadata"]["name"]) for e in objects}
    for binding in (each for each in objects if each["kind"].endswith("Binding")):
        role = binding["roleRef"]
        where = None if role["kind"] == "ClusterRole" else binding["metadata"]["namespace"]
        assert (role["kind"], where, role["name"]) in roles
        assert {subject["name"] for subject in binding["subjects"]} <= accounts


@ALL
def test_the_file_of_settings_is_one_that_the_program_reads(values):
    found = settings_of(rendered(values))
    assert found.keys() <= Settings.model_fields.keys()
    assert found["source"] == "kubernetes"
    service = one("Service", rendered(values), found["release"])
    [port] = service["spec"]["ports"]
    assert found["gateway_xds_address"] == f"{found['release']}.{service['metadata']['namespace']}.svc:{port['port']}"
    # The kubelet reaches a pod by its own address, never by loopback.
    assert not re.match(r"127\.|\[::1", found["admin_address"])
    mounts = {mount["mountPath"] for mount in pod_of(rendered(values))["containers"][0]["volumeMounts"]}
    given = {str(Path(found[key]).parent) for key in ("xds_cert", "xds_key", "xds_ca") if key in found}
    assert {found["state_directory"], *given} <= mounts


def test_every_setting_of_the_values_is_one_of_the_program():
    of_the_chart = {"source", "namespaces", "release", "gateway_xds_address", "xds_address", "admin_address"}
    of_the_chart |= {"gateway_pods"}  # with the right to look at them
    # A peer without an identity, and plain text, are for machines that nobody shares.
    never = {"allow_plaintext", "allow_anonymous", "xds_tokens", "xds_client_ca", "xds_cert", "xds_key"}
    never |= {"kubeconfig", "state_directory", "xds_ca"}
    known = Settings.model_fields.keys()
    assert schema()["properties"]["settings"]["properties"].keys() == known - of_the_chart - never


def test_defaults_that_the_values_show_are_those_of_the_program():
    defaults = yaml.safe_load((chart.CHART / "values.yaml").read_text())["settings"]
    assert defaults.pop("log_format") == "json"
    assert defaults == {key: str(Settings.model_fields[key].default) for key in defaults}


@ALL
def test_the_program_takes_the_file_of_settings(values, tmp_path):
    found = settings_of(rendered(values))
    file = tmp_path / "xdserve.yaml"
    file.write_text(yaml.safe_dump(found))
    assert load(config=file).provision == found["provision"]


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ({}, "xdserve:0.1.0"),
        ({"image": {"repository": "mirror:5000/xdserve", "tag": "1"}}, "mirror:5000/xdserve:1"),
        ({"image": {"digest": "sha256:" + "0" * 64}}, "xdserve@sha256:" + "0" * 64),
        ({"settings": {"router_image": "mirror/router:2"}}, "mirror/router:2"),
    ],
    ids=str,
)
def test_the_router_runs_the_image_of_the_chart_unless_another_is_given(values, image):
    found = settings_of(rendered(values))
    assert found["router_image"] == image
    if not values:
        assert found["router_image"] == Settings.model_fields["router_image"].default
        assert pod_of(rendered(values))["containers"][0]["image"] == image


def test_other_settings_are_other_pods():
    checksums = {
        one("Deployment", rendered({"settings": {"domain": domain}}))["spec"]["template"]["metadata"]["annotations"][
            "checksum/config"
        ]
        for domain in ("example.com", "example.org")
    }
    assert len(checksums) == 2


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"replicas": 3}, "replicas"),
        ({"replicaCount": 0}, "replicaCount"),
        ({"replicaCount": "2"}, "replicaCount"),
        ({"image": {"name": "x"}}, "name"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"settings": {"domian": "x"}}, "domian"),
        ({"settings": {"provision": "always"}}, "provision"),
        ({"settings": {"allow_plaintext": True}}, "allow_plaintext"),
        ({"settings": {"linger": -1}}, "linger"),
        ({"settings": {"domain": "a_b"}}, "domain"),
        ({"settings": {"selector": "team = 'models'"}}, "selector"),
        ({"settings": {"gateway_image": "an image"}}, "gateway_image"),
        ({"settings": {"gateway_image": "images:latest:1"}}, "gateway_image"),
        ({"settings": {"router_image": "Image:"}}, "router_image"),
        ({"settings": {"gateway_pull_secrets": "images"}}, "gateway_pull_secrets"),
        ({"settings": {"gateway_pull_secrets": ["a_b"]}}, "gateway_pull_secrets"),
        ({"terminationGracePeriodSeconds": 5}, "(5) must be more than settings.drain (5)"),
        ({"settings": {"drain": 30}}, "(30) must be more than settings.drain (30)"),
        ({"watchNamespaces": "models"}, "watchNamespaces"),
        ({"watchNamespaces": ["Models"]}, "watchNamespaces"),
        ({"tls": {"secret": "x"}}, "secret"),
        ({"networkPolicy": {"enabled": "yes"}}, "enabled"),
        ({"serviceMonitor": {"interval": 30}}, "interval"),
        ({"crds": {"keep": False}}, "keep"),
        ({"fullnameOverride": "a" * 53}, "fullnameOverride"),
        ({"serviceMonitor": {"enabled": True}}, "networkPolicy.metricsFrom"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name"),
    ],
    ids=str,
)
def test_values_that_cannot_be_are_refused_by_name(values, words):
    with pytest.raises(HelmRefused, match=re.escape(words)):
        rendered(values)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"settings": None}, "missing property 'settings'"),
        ({"image": {"repository": None}}, "'/image': missing property 'repository'"),
        ({"rbac": {"create": None}}, "'/rbac': missing property 'create'"),
        ({"networkPolicy": {"enabled": None}}, "'/networkPolicy': missing property 'enabled'"),
        ({"crds": {"install": None}}, "'/crds': missing property 'install'"),
        ({"terminationGracePeriodSeconds": None}, "missing property 'terminationGracePeriodSeconds'"),
    ],
    ids=str,
)
def test_an_empty_key_is_refused_by_name_and_turns_nothing_off(values, words):
    """Helm takes a key without a value for one that is not there: no roles, no NetworkPolicy, and no word of it."""
    with pytest.raises(HelmRefused, match=re.escape(words)):
        rendered(values)


def every_key(values, path=""):
    for key, value in values.items():
        yield f"{path}{key}"
        if isinstance(value, dict):
            yield from every_key(value, f"{path}{key}.")


def test_the_default_values_name_every_key():
    properties = schema()["properties"]
    defaults = yaml.safe_load((chart.CHART / "values.yaml").read_text())
    in_schema = {
        f"{key}{inner}"
        for key, value in properties.items()
        for inner in ("", *(f".{name}" for name in value.get("properties", {})))
    }
    found = {key for key in every_key(defaults) if key.count(".") < 2}
    assert {key for key in in_schema if not key.startswith("settings.")} - found == {"global"}


def test_the_version_of_the_chart_is_that_of_the_program():
    described = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{described["appVersion"]}"' in project


def test_definitions_come_with_the_release_but_can_be_left_out():
    kinds = {e["spec"]["names"]["kind"]: e for e in rendered() if e["kind"] == "CustomResourceDefinition"}
    assert kinds.keys() == {kind for group, _, kind in KINDS if group == "xdserve.io"}
    assert all(each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for each in kinds.values())
    assert "CustomResourceDefinition" not in {e["kind"] for e in rendered({"crds": {"install": False}})}


def test_gateways_alone_reach_the_xds_port():
    [rule] = one("NetworkPolicy", rendered())["spec"]["ingress"]
    assert rule["ports"] == [{"port": "xds", "protocol": "TCP"}]
    gateways, own_test = rule["from"]
    assert gateways == {
        "namespaceSelector": {},
        "podSelector": {
            "matchLabels": {
                "app.kubernetes.io/component": "gateway",
                "app.kubernetes.io/managed-by": "xdserve",
                "app.kubernetes.io/part-of": "xdserve",
            }
        },
    }
    labels = one("Pod", rendered(hooks=True))["metadata"]["labels"]
    found = settings_of(rendered())["release"]
    iris = Ref("serving.kserve.io", "InferenceService", "models", "iris")
    assert gateways["podSelector"]["matchLabels"].items() <= manifests.labels(iris, found).items()
    assert own_test["podSelector"]["matchLabels"].items() <= labels.items()


def test_who_scrapes_reaches_the_metrics_and_no_one_else():
    objects = rendered(values_of("service-monitor"))
    _, rule = one("NetworkPolicy", objects)["spec"]["ingress"]
    assert rule["ports"] == [{"port": "admin", "protocol": "TCP"}]
    assert rule["from"] == values_of("service-monitor")["networkPolicy"]["metricsFrom"]
    monitor = one("ServiceMonitor", objects)
    chosen = monitor["spec"]["selector"]["matchLabels"].items()
    scraped = [
        e["metadata"]["name"] for e in objects if e["kind"] == "Service" and chosen <= e["metadata"]["labels"].items()
    ]
    assert scraped == ["xdserve-metrics"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_one_namespace_alone_is_read_and_reached():
    objects = rendered(values_of("one-namespace"))
    assert settings_of(objects)["namespaces"] == ["models"]
    cluster = one("ClusterRole", objects, "xdserve-system-xdserve")["rules"]
    assert [rule["resources"] for rule in cluster] == [["tokenreviews"]]
    there = [each for each in objects if each["metadata"].get("namespace") == "models"]
    assert sorted(each["kind"] for each in there) == ["Role", "RoleBinding"]
    [rule] = one("NetworkPolicy", objects)["spec"]["ingress"]
    assert rule["from"][0]["namespaceSelector"]["matchExpressions"][0]["values"] == ["models"]


def test_without_provisioning_there_is_no_right_to_make_anything():
    found = chart.roles(values_of("network-policy-off"))
    verbs = {verb for rule, _ in found["ClusterRole xdserve-system-xdserve"] for verb in rule["verbs"]}
    makes = [rule["resources"] for rule, _ in found["ClusterRole xdserve-system-xdserve"] if "create" in rule["verbs"]]
    assert verbs == {"get", "list", "watch", "patch", "create"}
    assert makes == [["tokenreviews"], ["events"]]
    assert settings_of(rendered(values_of("network-policy-off")))["provision"] == "off"


def test_a_secret_of_others_is_read_only_where_somebody_allows_it():
    def read(values):
        role = chart.roles(values)["ClusterRole xdserve-system-xdserve"]
        return [rule["verbs"] for rule, _ in role if "secrets" in rule["resources"]]

    assert read({}) == []
    assert read({"rbac": {"secrets": True}}) == [["get"]]


def test_pods_are_read_only_where_somebody_allows_it():
    def read(values):
        role = chart.roles(values)["ClusterRole xdserve-system-xdserve"]
        return [rule["verbs"] for rule, _ in role if "pods" in rule["resources"]]

    assert read({}) == []
    assert read({"rbac": {"pods": True}}) == [["list"]]
    assert read({"rbac": {"pods": True}, "settings": {"provision": "off"}}) == []
    assert "gateway_pods" not in settings_of(rendered({}))
    assert settings_of(rendered({"rbac": {"pods": True}}))["gateway_pods"] is True


def test_a_short_life_is_long_enough_for_a_short_drain():
    values = {"terminationGracePeriodSeconds": 1, "settings": {"drain": 0}}
    assert pod_of(rendered(values))["terminationGracePeriodSeconds"] == 1


def test_no_role_takes_more_than_it_says():
    for found in chart.roles().values():
        for rule, reason in found:
            assert len(reason) > 10
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "deletecollection" not in rule["verbs"] or rule["resources"] == ["trafficpolicies"]
            if "secrets" in rule["resources"] and "resourceNames" not in rule:
                assert rule["verbs"] == ["get"]


def test_a_given_certificate_is_used_and_no_authority_made():
    objects, roles = rendered(values_of("tls-secret")), chart.roles(values_of("tls-secret"))
    assert settings_of(objects)["xds_cert"] == "/etc/xdserve-tls/tls.crt"
    assert "Secret" not in {each["kind"] for each in objects}
    assert not any("secrets" in rule["resources"] for rule, _ in roles["Role xdserve-own"])


def test_the_authority_is_empty_and_stays():
    """Gateways stay after an uninstall and go on believing it."""
    secret = one("Secret", rendered())
    assert "data" not in secret
    assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_the_table_of_rights_is_that_of_the_chart():
    """Written again by `python -m tests.helm.rights`."""
    text = rights.DOCUMENT.read_text()
    assert text == rights.written(text), "out of date: python -m tests.helm.rights"
