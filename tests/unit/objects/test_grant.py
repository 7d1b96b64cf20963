"""ReferenceGrants, in both of their versions, and Secrets, which are shown nowhere."""

from __future__ import annotations

import base64

import pytest
from pydantic import ValidationError

from translator.objects import ObjectInvalid, Ref, ReferenceGrant, parse
from translator.objects.secret import Secret

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


def secret(**data: str):
    return Secret.model_validate({"metadata": {"name": "tls", "namespace": "models"}, "data": data})


def test_the_data_of_a_secret_are_decoded_and_never_shown():
    found = secret(token=base64.b64encode(b"open sesame").decode())
    assert found.data == {"token": b"open sesame"}
    assert "sesame" not in repr(found)
    assert found.ref == Ref("", "Secret", "models", "tls")


def test_wrong_data_of_a_secret_are_not_repeated():
    with pytest.raises(ValidationError) as error:
        secret(token="open sesame!")
    [line] = error.value.errors()
    assert line["ctx"] == {"allowed": "base64", "found": "a hidden value"}


def test_secrets_are_read_by_nobody_who_does_not_ask():
    assert parse({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls"}}) is None
