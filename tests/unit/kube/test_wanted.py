"""Which targets get a gateway, and when what is there is what is wanted."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrap.address import Address
from bootstrap.manifests import Deploying, Owner, manifests
from tests.support.documents import inference, isvc, service
from translator.objects import parse
from translator.objects.ref import Origin, Ref
from translator.plan import GatewayPlan
from translator.planners.edge import DEFAULT_EDGE
from xdserve.kube.wanted import ANNOTATION, ours, possible, same, target_of, wanted
from xdserve.settings import Provision

REF = Ref("serving.kserve.io", "InferenceService", "models", "iris")
OUT, IN, OFF = Provision.OPT_OUT, Provision.OPT_IN, Provision.OFF


def plan(kind="InferenceService"):
    return GatewayPlan("models/iris", "0.0.0.0", 8080, 0, Origin(REF._replace(kind=kind), "spec"), edge=DEFAULT_EDGE)


@pytest.mark.parametrize(
    ("mode", "said", "by", "expected"),
    [
        (OUT, None, "InferenceService", True),
        (OUT, "false", "InferenceService", False),
        (OUT, "false", "ServiceGateway", False),
        (OUT, "true", "InferenceService", True),
        (OUT, "perhaps", "InferenceService", True),
        (IN, None, "InferenceService", False),
        (IN, None, "ServiceGateway", True),
        (IN, "true", "InferenceService", True),
        (IN, "false", "ServiceGateway", False),
        (IN, "perhaps", "InferenceService", False),
        (OFF, "true", "ServiceGateway", False),
        (OFF, None, "InferenceService", False),
    ],
)
def test_who_gets_a_gateway(mode, said, by, expected):
    target = parse(isvc(annotations={} if said is None else {ANNOTATION: said}))
    assert (wanted(target, "uid-1", plan(by), mode) is not None) is expected


@pytest.mark.parametrize(
    ("document", "version"), [(isvc(), "v1beta1"), (inference("iris", a=1), "v1alpha1"), (service("iris"), "v1")]
)
def test_it_is_owned_by_the_target_as_the_apiserver_has_it(document, version):
    target = parse(document)
    found = wanted(target, "uid-1", plan(), OUT)
    assert found.owner == Owner(target.ref, version, "uid-1")
    assert wanted(target, "", plan(), OUT) is None


MADE = manifests(Owner(REF, "v1beta1", "1"), plan(), Deploying(xds_address=Address("a.b.svc", 1), ca="x"))


@pytest.mark.parametrize("one", MADE, ids=[one["kind"] for one in MADE])
def test_what_the_apiserver_adds_does_not_count(one):
    found = copy.deepcopy(one)
    found["metadata"] |= {"uid": "7", "resourceVersion": "1", "labels": {**found["metadata"]["labels"], "more": "1"}}
    found["status"] = {}
    assert same(one, found)
    assert ours(one, found)
    assert target_of(found) == REF


def entrance_of(families, policy="PreferDualStack"):
    """A Service of some families."""
    (one,) = (one for one in MADE if one["kind"] == "Service")
    return one | {"spec": one["spec"] | {"ipFamilies": families, "ipFamilyPolicy": policy}}


def test_the_first_family_of_a_service_stays_for_good():
    both = entrance_of(["IPv4", "IPv6"])
    for there in (entrance_of(["IPv6"], "SingleStack"), entrance_of(["IPv6", "IPv4"])):
        assert same(both, there)
        assert possible(both, there) == there
    for there in (entrance_of(["IPv4"], "SingleStack"), entrance_of(["IPv4"])):
        assert not same(both, there)
        assert possible(both, there) == both
    (plain,) = (one for one in MADE if one["kind"] == "Service")
    assert same(plain, both)
    assert possible(plain, both) == plain


@given(st.data())
def test_every_changed_value_is_seen(data):
    one = data.draw(st.sampled_from(MADE))
    found = copy.deepcopy(one)
    places = list(leaves(found))
    *path, last = data.draw(st.sampled_from(places))
    inner = found
    for step in path:
        inner = inner[step]
    change = data.draw(st.sampled_from(["other", "gone"]))
    if change == "gone" and isinstance(inner, dict):
        was = inner.pop(last)
        assert same(one, found) is (was is False)  # the apiserver leaves out a false that is the default
    else:
        inner[last] = "other"
        assert not same(one, found)


def leaves(value, path=()):
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in pairs:
        if isinstance(inner, dict | list):
            yield from leaves(inner, (*path, name))
        else:
            yield (*path, name)


def test_a_list_with_more_in_it_is_another():
    found = copy.deepcopy(MADE[-1])
    found["spec"]["template"]["spec"]["containers"].append({"name": "theirs"})
    assert not same(MADE[-1], found)


@pytest.mark.parametrize("name", ["managed-by", "component", "part-of"])
def test_what_another_installation_or_a_person_made_is_not_ours(name):
    for change in ("other", None):
        found = copy.deepcopy(MADE[0])
        if change:
            found["metadata"]["labels"][f"app.kubernetes.io/{name}"] = change
        else:
            del found["metadata"]["labels"][f"app.kubernetes.io/{name}"]
        assert not ours(MADE[0], found)
    found["metadata"]["labels"] = None
    assert not ours(MADE[0], found)


@pytest.mark.parametrize("references", [None, [], [{"kind": "X", "apiVersion": "v1", "name": "a", "uid": "1"}]])
def test_what_has_no_controller_is_of_no_target(references):
    found = copy.deepcopy(MADE[0])
    found["metadata"]["ownerReferences"] = references
    assert target_of(found) is None


def test_a_core_service_is_a_target_too():
    ref = Ref("", "Service", "models", "iris")
    made = manifests(Owner(ref, "v1", "1"), plan(), Deploying(xds_address=Address("a.b.svc", 1), ca="x"))
    assert {target_of(one) for one in made} == {ref}
