"""ReferenceGrants, in both of their versions; and Secrets, which are not read."""

from __future__ import annotations

import pytest

from translator.objects import ObjectInvalid, Ref, ReferenceGrant, parse

POLICY = Ref("xdserve.io", "TrafficPolicy", "models", "iris")
SERVICE = Ref("", "Service", "other", "iris-v2")


def grant(version="v1beta1", namespace="other", trusted=None, to=None):
    document = {
        "apiVersion": f"gateway.networking.k8s.io/{version}",
        "kind": "ReferenceGrant",
        "metadata": {"name": "grant", "namespace": namespace},
        "spec": {
            "from": [trusted or {"group": "xdserve.io", "kind": "TrafficPolicy", "namespace": "models"}],
            "to": [to or {"group": "", "kind": "Service"}],
        },
    }
    found = parse(document)
    assert isinstance(found, ReferenceGrant)
    return found


@pytest.mark.parametrize("version", ["v1beta1", "v1"])
def test_both_versions_are_one_kind(version: str):
    found = grant(version)
    assert found.ref == Ref("gateway.networking.k8s.io", "ReferenceGrant", "other", "grant")
    assert found.permits(POLICY, SERVICE)


@pytest.mark.parametrize("to", [{"kind": "Service"}, {"kind": "Service", "name": "iris-v2"}])
def test_a_name_left_out_is_every_object_of_the_kind(to):
    assert grant(to=to).permits(POLICY, SERVICE)
    assert grant(to=to).permits(POLICY, SERVICE._replace(name="another")) is ("name" not in to)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (POLICY._replace(namespace="shop"), SERVICE),
        (POLICY._replace(kind="ServiceGateway"), SERVICE),
        (POLICY._replace(group="other.io"), SERVICE),
        (POLICY, SERVICE._replace(namespace="models")),
        (POLICY, SERVICE._replace(kind="Secret")),
        (POLICY, SERVICE._replace(group="serving.kserve.io", kind="InferenceService")),
    ],
)
def test_nothing_else_is_permitted(source: Ref, target: Ref):
    assert not grant().permits(source, target)


def test_a_broken_grant_says_where():
    with pytest.raises(ObjectInvalid) as error:
        grant(trusted={"group": "xdserve.io", "kind": "TrafficPolicy", "namespace": "No Namespace"})
    [problem] = error.value.problems
    assert problem.field == "spec.from[0].namespace"


def test_secrets_are_no_objects_of_ours():
    assert parse({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls"}}) is None
