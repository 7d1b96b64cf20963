"""Objects of other projects, the samples, and that nothing but ObjectInvalid comes of any value."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from translator.objects import (
    KINDS,
    EndpointSlice,
    Inference,
    InferenceService,
    ObjectInvalid,
    Ref,
    Service,
    identify,
    parse,
)
from xdserve.sources.documents import read

# Other work on a machine moves the time that an example takes.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SAMPLES = Path(__file__).parents[2] / "samples"
FILES = sorted(SAMPLES.rglob("*.yaml"))


def documents(path: Path) -> list[object]:
    found, stop = read(path.name, path.read_bytes())
    assert stop is None
    return [document.value for document in found]


def objects(name: str) -> list[object]:
    return [found for document in documents(SAMPLES / name) if (found := parse(document)) is not None]


def only(name: str) -> object:
    [found] = objects(name)
    return found


def kserve(spec: object = None, metadata: object = None, **rest: object) -> dict:
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "iris", **(metadata or {})},
        "spec": {"predictor": {}, **(spec or {})},
        **rest,
    }


def endpoint_slice(**fields: object) -> dict:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "iris-x", "labels": {"kubernetes.io/service-name": "iris"}},
        "addressType": "IPv4",
        **fields,
    }


def problems(document: object) -> list[str]:
    with pytest.raises(ObjectInvalid) as raised:
        parse(document)
    return [str(problem) for problem in raised.value.problems]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SAMPLES)))
def test_every_sample_is_read(path: Path):
    for document in documents(path):
        found = parse(document)
        assert found is None or found.ref == identify(document)


def test_kinds_that_are_not_read_are_passed_over():
    for version, kind in (("apps/v1", "Deployment"), ("serving.kserve.io/v1alpha1", "InferenceGraph"), ("v1", "Pod")):
        assert parse({"apiVersion": version, "kind": kind}) is None
    assert parse({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": 5}) is None


def test_another_version_of_a_known_kind_is_an_error():
    for group, version, kind in KINDS:
        document = {"apiVersion": f"{group}/v99".lstrip("/"), "kind": kind, "metadata": {"name": "x"}}
        [line] = problems(document)
        assert (f"{group}/{version}" if group else version) in line.partition("allowed ")[2].split(", ")


def test_canaries_and_what_their_controller_says_of_them():
    service = next(each for each in objects("kserve-cluster-state/ingress-disabled/iris-canary.yaml"))
    assert isinstance(service, InferenceService)
    assert service.spec.predictor.name == "v1"
    assert [(each.predictor.name, each.traffic_percent) for each in service.spec.canary] == [("v2", 20), ("v3", 5)]
    assert [(each.name, each.ready) for each in service.status.canary_statuses] == [("v2", True), ("v3", True)]
    assert service.deployment_mode == "Standard"
    assert not service.stopped
    assert not service.cluster_local


def test_components_of_an_inference_service():
    assert only("kserve/06-transformer.yaml").spec.transformer is not None
    assert only("kserve/07-explainer.yaml").spec.explainer is not None
    assert only("kserve/12-stopped.yaml").stopped
    assert only("kserve/13-cluster-local.yaml").cluster_local
    slow = only("kserve/10-concurrency-and-timeout.yaml").spec.predictor
    assert (slow.timeout, slow.container_concurrency, slow.name) == (300, 2, None)
    assert only("kserve/04-canary-traffic-percent.yaml").spec.predictor.canary_traffic_percent == 10
    assert only("kserve/01-sklearn-iris.yaml").deployment_mode is None


@pytest.mark.parametrize(
    ("written", "mode"), [("RawDeployment", "Standard"), ("Serverless", "Knative"), ("ModelMesh", "ModelMesh")]
)
def test_earlier_names_of_modes(written: str, mode: str):
    service = parse(kserve(metadata={"annotations": {"serving.kserve.io/deploymentMode": written}}))
    assert service.deployment_mode == mode


def test_the_mode_that_kserve_decided_on_counts():
    """The annotation is not there where it is the cluster's default, and changes nothing once it was decided."""
    assert parse(kserve(status={"deploymentMode": "Serverless"})).deployment_mode == "Knative"
    annotations = {"serving.kserve.io/deploymentMode": "Standard"}
    service = parse(kserve(metadata={"annotations": annotations}, status={"deploymentMode": "Knative"}))
    assert service.deployment_mode == "Knative"


def test_of_conditions_only_those_of_components_count():
    def said(*conditions):
        return parse(kserve(status={"conditions": conditions}))

    ready = {"type": "TransformerReady", "status": "True"}
    service = said(ready, {"type": "ExplainerReady", "status": "False"}, {"type": "Ready", "status": "True"})
    assert service.status.ready_components == {"transformer"}
    assert service == said(ready | {"lastTransitionTime": "2026-01-01T00:00:00Z"})
    strange = ({"type": "ExplainerReady", "status": True}, {"type": ["TransformerReady"], "status": "True"}, {}, "x", 7)
    assert said(*strange).status.ready_components == frozenset()


def test_what_is_not_used_is_not_judged():
    document = kserve(
        {"predictor": {"name": "", "model": 5, "minReplicas": "many"}, "transformer": None, "canary": None, "x": 1},
        {"labels": None, "annotations": None, "namespace": None, "creationTimestamp": None, "ownerReferences": 7},
        status={"canaryStatuses": None, "conditions": "none"},
    )
    service = parse(document)
    assert service.ref == Ref("serving.kserve.io", "InferenceService", "default", "iris")
    assert service.spec.predictor.name is None
    assert service.spec.canary == ()


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ({"predictor": None}, "spec.predictor: found nothing, allowed a value"),
        ({"predictor": {"timeout": "5s"}}, 'spec.predictor.timeout: found "5s", allowed a whole number'),
        ({"predictor": {"timeout": -1}}, "spec.predictor.timeout: found -1, allowed 0 or more"),
        (
            {"canary": [{"trafficPercent": 101, "predictor": {"name": "a"}}]},
            "spec.canary[0].trafficPercent: found 101, allowed 0..100",
        ),
        (
            {"canary": [{"trafficPercent": 60, "predictor": {"name": name}} for name in "ab"]},
            "spec.canary: found a sum of 120, allowed a sum of trafficPercent up to 100",
        ),
        (
            {"canary": [{"trafficPercent": 5, "predictor": {}}]},
            "spec.canary[0].predictor.name: found nothing, allowed a value",
        ),
        ({"canary": {}}, "spec.canary: found a map of 0, allowed a list"),
        (
            {"predictor": {"timeout": "{{ .Values.t }}"}},
            'spec.predictor.timeout: found "{{ .Values.t }}", allowed a whole number; render the template first',
        ),
    ],
)
def test_a_mistake_in_an_inference_service_is_one_line(spec: object, line: str):
    assert problems(kserve(spec)) == [line]


def test_an_inference_of_kubedl():
    inference = only("kubedl/02-two-predictors-weighted.yaml")
    assert isinstance(inference, Inference)
    assert [(each.name, each.traffic_weight) for each in inference.spec.predictors] == [("v1", 90), ("v2", 10)]
    document = {"apiVersion": "serving.kubedl.io/v1alpha1", "kind": "Inference", "metadata": {"name": "x"}}
    assert parse({**document, "spec": {"predictors": [{"name": "a"}]}}).spec.predictors[0].traffic_weight is None
    assert problems({**document, "spec": {"predictors": [{"name": "a", "trafficWeight": -1}]}}) == [
        "spec.predictors[0].trafficWeight: found -1, allowed 0 or more"
    ]


def test_services_and_their_endpoints():
    found = objects("kserve-cluster-state/ingress-disabled/dual-protocol.yaml")
    service = next(each for each in found if isinstance(each, Service))
    assert service.spec.cluster_ip is not None
    assert [(port.port, port.target_port, port.app_protocol) for port in service.spec.ports] == [
        (80, 8080, None),
        (8033, 8033, "kubernetes.io/h2c"),
    ]
    slices = next(each for each in found if isinstance(each, EndpointSlice))
    assert slices.service == service.metadata.name
    assert {port.name: port.app_protocol for port in slices.ports} == {
        "http1": None,
        "grpc-port": "kubernetes.io/h2c",
    }
    [endpoint] = slices.endpoints
    assert endpoint.addresses[0].startswith("10.1.")
    assert (endpoint.ready, endpoint.serving, endpoint.terminating) == (True, True, False)
    assert endpoint.zone.startswith("zone-")


def test_a_service_without_ports_or_address():
    document = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}}
    assert parse(document).spec.ports == ()
    external = parse({**document, "spec": {"type": "ExternalName", "externalName": "a.b", "ports": None}})
    assert (external.spec.type, external.spec.external_name) == ("ExternalName", "a.b")
    named = parse({**document, "spec": {"ports": [{"port": 80, "targetPort": "http"}]}})
    assert (named.spec.ports[0].target_port, named.spec.ports[0].name, named.spec.ports[0].protocol) == (
        "http",
        "",
        "TCP",
    )


def test_a_slice_that_says_little():
    empty = parse(endpoint_slice(endpoints=None, ports=None))
    assert (empty.endpoints, empty.ports) == ((), ())
    bare = parse(endpoint_slice(endpoints=[{"addresses": ["10.0.0.1"]}, {"addresses": None, "conditions": None}]))
    assert [endpoint.ready for endpoint in bare.endpoints] == [None, None]
    assert parse(endpoint_slice(metadata={"name": "x"})).service is None
    assert parse(endpoint_slice(ports=[{"name": None, "port": None}])).ports[0].port is None


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"addressType": "FQDN"}, 'addressType: found "FQDN", allowed IPv4 or IPv6'),
        (
            {"addressType": "FQDN", "endpoints": [{"addresses": ["a.example.org"]}, {"addresses": ["b.example.org"]}]},
            'addressType: found "FQDN", allowed IPv4 or IPv6',
        ),
        (
            {"endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["pod.example.org"]}]},
            'endpoints[1].addresses[0]: found "pod.example.org", allowed an IP address',
        ),
        (
            {"endpoints": [{"addresses": ["10.0.0.256"]}]},
            'endpoints[0].addresses[0]: found "10.0.0.256", allowed an IP address',
        ),
        ({"endpoints": ["10.0.0.1"]}, 'endpoints[0]: found "10.0.0.1", allowed a map'),
        (
            {"endpoints": [{"conditions": {"ready": "true"}}]},
            'endpoints[0].conditions.ready: found "true", allowed true or false',
        ),
        ({"ports": [{"port": 0}]}, "ports[0].port: found 0, allowed 1..65535"),
    ],
)
def test_a_mistake_in_a_slice_is_one_line(fields: dict, line: str):
    assert problems(endpoint_slice(**fields)) == [line]


@pytest.mark.parametrize("document", [None, 5, "x", [], {}, {"kind": "Service"}, {"apiVersion": "v1"}])
def test_what_is_no_object_says_so(document: object):
    with pytest.raises(ObjectInvalid) as raised:
        parse(document)
    assert raised.value.ref is None
    assert len(raised.value.problems) == 1


def test_an_object_is_identified_however_broken_the_rest_is():
    document = kserve(spec={"predictor": 5}, metadata={"namespace": "models", "labels": 5})
    with pytest.raises(ObjectInvalid) as raised:
        parse(document)
    assert raised.value.ref == Ref("serving.kserve.io", "InferenceService", "models", "iris")
    assert str(raised.value).startswith("InferenceService models/iris: metadata.labels: ")
    assert identify({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}}) == Ref(
        "apps", "Deployment", "default", "x"
    )
    for name in (None, "", 5, "a b", "a\nb", "ü", "x" * 254):
        assert identify(kserve(metadata={"name": name})) is None


def test_objects_are_equal_by_content_and_cannot_be_changed():
    one, two = parse(kserve()), parse(kserve())
    assert one.ref
    assert one == two
    assert one != parse(kserve({"predictor": {"name": "a"}}))
    with pytest.raises(Exception, match="frozen"):
        one.spec = None


def test_a_number_that_python_itself_does_not_print_is_told_by_its_size():
    assert problems(kserve({"predictor": {"timeout": -(10**5000)}})) == [
        "spec.predictor.timeout: found a number of 16610 bits, allowed 0 or more"
    ]


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([10**60, "\ud800", "a\nb"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
)
VALID = [
    document
    for path in FILES
    for document in documents(path)
    if (document["apiVersion"].rpartition("/")[0], document["apiVersion"].rpartition("/")[2], document["kind"]) in KINDS
]
POLICIES = [
    json.loads(text)
    for text in (
        """{"apiVersion": "xdserve.io/v1alpha1", "kind": "TrafficPolicy", "metadata": {"name": "x"}, "spec": {
            "targetRef": {"kind": "Service", "name": "x"},
            "backends": [{"name": "a", "ref": {"name": "x", "port": 80}, "protocol": "HTTP"}],
            "split": [{"backend": "a", "weight": 1, "priority": 0}], "sticky": {"by": "Cookie", "ttl": "1s"},
            "rules": [{"name": "r", "matches": [{"headers": [{"name": "a", "type": "Exact", "value": "b"}],
                       "path": {"type": "RegularExpression", "value": "/a"}, "method": "GET"}]}],
            "timeouts": {"request": "1s"}}}""",
        """{"apiVersion": "xdserve.io/v1alpha1", "kind": "ServiceGateway", "metadata": {"name": "x"}, "spec": {
            "targetRef": {"kind": "Service", "name": "x"}, "hosts": ["a.b"], "address": "127.0.0.1", "port": 1}}""",
    )
]


def places(value: object) -> list[tuple]:
    """Every place in a document: the steps that lead there."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [(), *((key, *rest) for key, inner in items for rest in places(inner))]


@relaxed
@given(VALUES)
def test_any_value_is_read_or_refused(value: object):
    _read_or_refused(value)


@relaxed
@given(st.data())
def test_any_value_in_any_place_is_read_or_refused(data: st.DataObject):
    document = copy.deepcopy(data.draw(st.sampled_from(VALID + POLICIES * 10)))
    for _ in range(data.draw(st.integers(1, 3))):
        steps = data.draw(st.sampled_from(places(document)))
        value = data.draw(VALUES)
        place = document
        for step in steps[:-1]:
            place = place[step]
        if steps and data.draw(st.booleans()):
            place[steps[-1]] = value
        elif isinstance(place, dict):
            place[data.draw(st.text())] = value
    _read_or_refused(document)


def _read_or_refused(value: object) -> None:
    invalid = _refusal(value)
    if invalid is not None:
        assert invalid.problems
        assert str(invalid).isprintable()
        assert all(str(problem).isprintable() and len(str(problem)) < 400 for problem in invalid.problems)


def _refusal(value: object) -> ObjectInvalid | None:
    try:
        parse(value)
    except ObjectInvalid as invalid:
        return invalid
    return None
