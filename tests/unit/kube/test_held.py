"""What the objects of a cluster say together, without one."""

from __future__ import annotations

import pytest

from tests.support.kube_objects import endpoint_slice, inference_service, policy, service
from translator.objects import Ref
from xdserve.kube.held import Held, Meta, understand
from xdserve.sources import Broken, Gone, Put

ONE, OTHER = "one scope", "another"


def policy_ref(name: str) -> Ref:
    return Ref("xdserve.io", "TrafficPolicy", "models", name)


def good(name: str, weight: int = 90):
    return understand(policy("models", name, weight))


def bad(name: str):
    return understand(policy("models", name, -1))


def kinds(changes) -> list[type]:
    return [type(change) for change in changes]


@pytest.fixture
def held() -> Held:
    return Held()


def test_a_list_replaces_what_its_scope_had_and_nothing_of_others(held: Held):
    list(held.listed(ONE, [good("a"), good("b"), None]))
    list(held.listed(OTHER, [understand(service("models", "web"))]))
    changes = list(held.listed(ONE, [good("b"), good("c")]))
    assert kinds(changes) == [Gone, Put]
    assert (changes[0].ref, changes[1].object.ref) == (policy_ref("a"), policy_ref("c"))
    assert len(held) == 3


def test_what_is_equal_is_not_told(held: Held):
    assert kinds(held.upserted(ONE, good("a"))) == [Put]
    assert kinds(held.upserted(ONE, good("a"))) == []
    assert kinds(held.upserted(ONE, good("a", 5))) == [Put]


def test_meta_is_of_the_newest_state_also_where_that_is_invalid(held: Held):
    for version, weight in (("1", 90), ("2", 90), ("3", -1)):
        document = policy("models", "a", weight)
        document["metadata"] |= {"uid": "u", "resourceVersion": version, "generation": 4}
        list(held.upserted(ONE, understand(document)))
        assert held.meta(policy_ref("a")) == Meta("u", version, 4)
    list(held.deleted(ONE, policy_ref("a")))
    assert held.meta(policy_ref("a")) is None


def test_nobody_writes_to_slices(held: Held):
    found = understand(endpoint_slice("models", "web", "10.0.0.1"))
    assert found.meta is None
    assert found.object is not None


def test_an_invalid_object_is_told_once_and_mended(held: Held):
    list(held.upserted(ONE, good("a")))
    [broken] = held.upserted(ONE, bad("a"))
    assert isinstance(broken, Broken)
    assert kinds(held.upserted(ONE, bad("a"))) == []
    [error] = held.errors()
    assert str(error).startswith("trafficpolicies/models/a: TrafficPolicy models/a: spec.split[0].weight: found -1")
    assert list(held.renewed()) == [("trafficpolicies/models/a", (error,))]
    assert list(held.renewed()) == []
    assert kinds(held.upserted(ONE, good("a"))) == [Put]  # the very one that was good before: it is in force again
    assert list(held.renewed()) == [("trafficpolicies/models/a", ())]
    assert list(held.errors()) == []


def test_an_invalid_object_that_is_deleted_is_gone(held: Held):
    list(held.upserted(ONE, bad("a")))
    assert kinds(held.deleted(ONE, policy_ref("a"))) == [Gone]
    assert kinds(held.deleted(ONE, policy_ref("a"))) == []
    assert list(held.errors()) == []


def test_addresses_that_are_names_are_none_of_ours(held: Held):
    named = understand(endpoint_slice("models", "web", "www.example.com", kind="FQDN"))
    assert kinds(held.upserted(ONE, named)) == []
    list(held.upserted(ONE, understand(endpoint_slice("models", "web", "10.0.0.1"))))
    assert kinds(held.upserted(ONE, named)) == [Gone]
    assert kinds(held.deleted(ONE, named.ref)) == []


@pytest.mark.parametrize("document", [{}, {"metadata": 3}, {"kind": "Service", "metadata": {"name": "x"}}])
def test_what_does_not_say_which_object_it_is_is_nothing(document):
    assert understand(document) is None


def test_a_target_says_where_it_is(held: Held):
    list(held.upserted(ONE, understand(inference_service("models", "iris"))))
    source = held.source(Ref("serving.kserve.io", "InferenceService", "models", "iris"))
    assert str(source.file) == "inferenceservices/models/iris"
    assert held.source(policy_ref("none")) is None


def test_who_writes_to_an_object_is_told_of_what_the_feed_is_not():
    """Another status, another generation, another uid: nothing of that is in the object as it is planned."""
    told = []
    held = Held(told.append)
    document = inference_service("models", "iris", uid="1", resourceVersion="7", generation=1)
    ref = understand(document).ref
    assert kinds(held.upserted(ONE, understand(document))) == [Put]
    assert kinds(held.upserted(ONE, understand(document))) == []
    assert told == []
    condition = {"type": "Ready", "status": "True"}
    document = inference_service("models", "iris", uid="2", resourceVersion="8", generation=1)
    assert kinds(held.upserted(ONE, understand(document | {"status": {"conditions": [condition]}}))) == []
    assert told == [ref]
    assert held.meta(ref) == Meta("2", "8", 1)
    assert held.document(ref)["status"] == {"conditions": [condition]}
    assert held.broken == set()
    list(held.upserted(ONE, bad("a")))
    assert held.broken == {policy_ref("a")}


@pytest.mark.parametrize("field", ["status", "spec"])
@pytest.mark.parametrize("value", ["conditions, targetRef", 7, True, [1]])
def test_what_stands_where_fields_should_be_harms_nobody_else(field: str, value: object):
    """A CRD without a schema lets anything in; one object must not end the program for all."""
    metadata = {"name": "iris", "namespace": "models", "resourceVersion": "1"}
    found = understand(
        {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": metadata, field: value}
    )
    assert found is not None
    assert found.essence == {"metadata": metadata, "spec": {}, "status": {}}
