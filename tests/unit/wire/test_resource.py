"""Frames: what Envoy gets is a DeltaDiscoveryResponse, whoever reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.wire.reference import google_class, serialize
from xds.api.envoy.config.cluster.v3 import Cluster
from xds.api.envoy.config.route.v3 import RouteConfiguration, VirtualHost
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryResponse
from xds.types import ResourceType
from xds.wire import delta_response, encode, resource, sharing

Response = google_class(DeltaDiscoveryResponse)
CLUSTER = encode(Cluster(name="models/iris"))


def test_a_frame_is_the_field_of_the_response():
    made = resource(ResourceType.CLUSTER, "models/iris", CLUSTER)
    expected = Response()
    item = expected.resources.add(name="models/iris", version=made.version)
    item.resource.type_url = ResourceType.CLUSTER
    item.resource.value = CLUSTER
    assert made.frame == serialize(expected)


def test_a_response_is_its_frames_and_what_is_around_them():
    resources = [resource(ResourceType.CLUSTER, name, encode(Cluster(name=name))) for name in ("a", "b")]
    response = Response.FromString(delta_response(ResourceType.CLUSTER, "7", resources, ["c", "d"], "xdserve-0"))
    assert [(item.name, item.version) for item in response.resources] == [
        (made.name, made.version) for made in resources
    ]
    assert [item.resource.value for item in response.resources] == [made.body for made in resources]
    assert response.type_url == "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    assert response.nonce == "7"
    assert list(response.removed_resources) == ["c", "d"]
    assert response.control_plane.identifier == "xdserve-0"


def test_a_response_may_be_empty():
    response = Response.FromString(delta_response(ResourceType.ROUTE, "1", (), (), "x"))
    assert (list(response.resources), response.type_url) == ([], ResourceType.ROUTE)


@pytest.mark.parametrize("body", [b"", b"x", b"x" * 127, b"x" * 128, b"x" * 20_000])
def test_the_body_is_found_in_the_frame(body):
    made = resource(ResourceType.LISTENER, "n" * len(body), body)
    assert made.body == body
    (item,) = Response.FromString(made.frame).resources
    assert (item.resource.value, item.name) == (body, "n" * len(body))


def test_a_version_is_of_the_content_and_the_same_everywhere():
    made = resource(ResourceType.CLUSTER, "models/iris", CLUSTER)
    assert made.version == "9671374b9a20ee72"
    assert made == resource(ResourceType.CLUSTER, "models/iris", CLUSTER, uses=frozenset({"x"}), origin=object())
    assert hash(made) == hash(resource(ResourceType.CLUSTER, "models/iris", CLUSTER, origin=object()))


@given(st.binary(), st.binary())
def test_other_content_is_another_version(one, other):
    same = resource(ResourceType.ROUTE, "a", one) == resource(ResourceType.ROUTE, "a", other)
    assert same == (one == other)


def test_types_and_names_tell_resources_apart():
    assert resource(ResourceType.CLUSTER, "a", b"") != resource(ResourceType.ENDPOINT, "a", b"")
    assert resource(ResourceType.CLUSTER, "a", b"") != resource(ResourceType.CLUSTER, "b", b"")


def test_what_resources_share_is_held_once_and_sent_as_it_was():
    one, other = (b"x" * 300, b"y" * 200)
    body = encode(RouteConfiguration(name="a", virtual_hosts=[VirtualHost(name=(one + b"-" + other).decode())]))
    made = resource(ResourceType.ROUTE, "r", body)
    held = sharing(made, [b"not there", one, other, one])
    assert held == made
    assert [part for part in held.parts if part is one or part is other] == [one, other]
    assert (held.frame, held.body, bytes(held.bare)) == (made.frame, body, bytes(made.bare))
    sent = [delta_response(ResourceType.ROUTE, "1", [found], [], "x") for found in (made, held)]
    assert sent[0] == sent[1]
