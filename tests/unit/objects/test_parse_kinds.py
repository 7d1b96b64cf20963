"""Which kinds are read, however they are written: lists of a kind, and spellings that are nearly right."""

from __future__ import annotations

import pytest

from translator.objects import ObjectInvalid, identify, items_of, parse
from translator.objects.passed_over import passed_over

SERVING = "serving.kserve.io/v1beta1"


def listed(kind: str, *items: object, api_version: str = SERVING) -> dict[str, object]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"resourceVersion": "1"}, "items": list(items)}


def test_a_list_of_a_kind_is_its_items():
    item = {"apiVersion": SERVING, "kind": "InferenceService", "metadata": {"name": "iris"}}
    assert items_of(listed("InferenceServiceList", item)) == [item]
    assert items_of(listed("List", item, api_version="v1")) == [item]
    assert items_of(listed("InferenceServiceList")) == []


def test_the_items_are_of_the_lists_kind_where_they_say_none():
    item = {"metadata": {"name": "iris"}, "spec": {"ports": [{"port": 80}]}}
    [found] = items_of(listed("ServiceList", item, api_version="v1"))
    assert found == {"apiVersion": "v1", "kind": "Service", **item}
    assert items_of(listed("ServiceList", None, 1, api_version="v1")) == [None, 1]


@pytest.mark.parametrize(
    "document",
    [
        listed("PodList", {}, api_version="v1"),
        listed("InferenceServiceList", {}, api_version="serving.kserve.io/v9"),
        {"apiVersion": SERVING, "kind": "InferenceServiceList", "items": {}},
        {"apiVersion": 1, "kind": "ServiceList", "items": []},
        {"kind": ["List"], "items": []},
        {},
        None,
    ],
)
def test_what_is_no_list_of_ours_is_itself(document: object):
    assert items_of(document) == [document]


@pytest.mark.parametrize(
    ("api_version", "kind", "said"),
    [
        (SERVING, "inferenceservice", 'kind: found "inferenceservice", allowed InferenceService'),
        ("v1", "service", 'kind: found "service", allowed Service'),
        ("serving.kserve.io/v1", "Inferenceservice", 'kind: found "Inferenceservice", allowed InferenceService'),
        ("xdserve.io/v1alpha1", "trafficpolicy", 'kind: found "trafficpolicy", allowed TrafficPolicy'),
        (SERVING, "inferenceServiceList", 'kind: found "inferenceServiceList", allowed InferenceServiceList'),
        (SERVING, "InferenceServiceList", "items: found nothing, allowed a list"),
        (
            "serving.kserve.io/v1",
            "InferenceServiceList",
            'apiVersion: found "serving.kserve.io/v1", allowed serving.kserve.io/v1beta1',
        ),
    ],
)
def test_a_kind_that_is_nearly_right_is_told(api_version: str, kind: str, said: str):
    with pytest.raises(ObjectInvalid) as invalid:
        parse({"apiVersion": api_version, "kind": kind, "metadata": {"name": "iris"}})
    assert [str(problem) for problem in invalid.value.problems] == [said]


def test_a_wrong_spelling_is_about_the_object_that_is_meant():
    written = {"apiVersion": SERVING, "kind": "inferenceservice", "metadata": {"name": "iris"}}
    assert identify(written) == identify({**written, "kind": "InferenceService"})


@pytest.mark.parametrize("kind", ["Pod", "pod", "PodList", "Services"])
def test_other_kinds_are_passed_over(kind: str):
    assert parse({"apiVersion": "v1", "kind": kind, "metadata": {"name": "iris"}}) is None


@pytest.mark.parametrize(
    ("api_version", "kind", "field", "advice"),
    [
        ("serving.kserve.io/v1alpha1", "InferenceGraph", "kind", "TrafficPolicy"),
        ("serving.kserve.io/v1alpha1", "InferenceGraphList", "kind", "TrafficPolicy"),
        ("serving.kserve.io/v1alpha1", "LLMInferenceService", "kind", "InferenceService"),
        ("serving.kserve.io/v1alpha2", "LLMInferenceService", "kind", "InferenceService"),
        ("serving.kubeflow.org/v1beta1", "InferenceService", "apiVersion", "serving.kserve.io/v1beta1"),
        ("serving.kubeflow.org/v1alpha2", "TrainedModel", "apiVersion", "serving.kserve.io/v1beta1"),
        ("v1", "Endpoints", "kind", "EndpointSlices"),
    ],
)
def test_of_a_kind_that_says_something_about_traffic_it_is_told_what_to_do(
    api_version: str, kind: str, field: str, advice: str
):
    document = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x" * 1000}, "spec": 5}
    assert parse(document) is None
    note = passed_over(document)
    assert note is not None
    assert note.field == field
    assert "not read" in note.message
    assert advice in note.message


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [
        ("serving.kserve.io/v1alpha1", "TrainedModel"),
        ("serving.kserve.io/v1alpha1", "ServingRuntime"),
        ("serving.kserve.io/v1alpha1", "ClusterServingRuntime"),
        ("serving.kserve.io/v1alpha2", "LLMInferenceServiceConfig"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute"),
        ("networking.istio.io/v1", "VirtualService"),
        ("apps/v1", "Deployment"),
        ("example.org/v1", "Endpoints"),
    ],
)
def test_other_kinds_are_passed_over_without_a_word(api_version: str, kind: str):
    document = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}}
    assert parse(document) is None
    assert passed_over(document) is None
