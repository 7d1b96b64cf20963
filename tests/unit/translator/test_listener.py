"""The listener: what is in it for every gateway, and that no release changes it unseen."""

from __future__ import annotations

import json

import pytest
import re2

from translator.envoy.listeners import listener
from translator.envoy.local_replies import LOCAL_REPLIES, OTHER
from translator.envoy.matches import UNSAFE
from translator.objects.edge import Edge
from translator.objects.ref import Origin, Ref
from translator.plan import GatewayPlan, Unsafe
from translator.planners.edge import DEFAULT_EDGE, planned_edge
from xds.wire import encode, resource

VERSION = "625da1fdf71a63c0"
"""Of the listener below. A new one means that the upgrade changes every gateway's listener, which cuts streams of old
connections: CHANGELOG.md and docs/upgrade.md say so."""


def version(edge=DEFAULT_EDGE, **how):
    ref = Ref("serving.kserve.io", "InferenceService", "models", "iris")
    plan = GatewayPlan(
        "models/iris", "0.0.0.0", 8080, 0, Origin(ref, "metadata.name"), edge=edge, default_host="iris.models", **how
    )
    made = listener(plan)
    return resource(made.type, made.name, encode(made.message)).version


def test_its_version_is_pinned():
    assert version() == VERSION


@pytest.mark.parametrize(
    ("field", "value"),
    {
        "http10": "Reject",
        "upgradeTLS": "Reject",
        "trailingDot": "Keep",
        "requestID": "Preserve",
        "underscores": "Drop",
        "escapedSlashes": "Keep",
        "headerCase": "Preserve",
        "streamWindow": "2Mi",
        "connectionWindow": "32Mi",
        "concurrentStreams": 101,
        "requestTimeout": "6m",
    }.items(),
)
def test_every_field_of_edge_is_in_it(field, value):
    assert version(planned_edge(Edge.model_validate({field: value}))) != VERSION


def test_every_field_of_edge_is_tried():
    tried = test_every_field_of_edge_is_in_it.pytestmark[0].args[1]
    assert {field for field, _ in tried} == {field.alias for field in Edge.model_fields.values()}


@pytest.mark.parametrize(
    ("what", "sent", "refused"),
    [
        (Unsafe.HOST, "iris-models.example.com:80", False),
        (Unsafe.HOST, "[::1]:80", False),
        (Unsafe.HOST, "a,b", True),
        (Unsafe.HOST, "user@h", True),
        *((Unsafe.METHOD, method, False) for method in ("GET", "POST", "M-SEARCH", "PROPFIND")),
        *((Unsafe.METHOD, method, True) for method in ("TRACE", "trace", "post", "PoST", "G T")),
        *((Unsafe.PATH, path, False) for path in ("/", "/a%20b?c=%0A", "/%C3%A9%3A%25", "/a?%00")),
        *((Unsafe.PATH, path, True) for path in ("/admin%0A", "/admin%0a?x", "/%00", "/a%1fb/c", "/x%7F")),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(what, sent, refused):
    assert (re2.fullmatch(UNSAFE[what].string_match.safe_regex.regex, sent) is not None) == refused


@pytest.mark.parametrize("reply", [*LOCAL_REPLIES, OTHER], ids=lambda reply: reply.reason)
def test_what_a_local_reply_says_stands_in_json_as_it_is(reply):
    words = f"{reply.reason}{reply.message}"
    assert json.dumps(words) == f'"{words}"'
    assert "%" not in words
