"""What comes from a peer: whatever the bytes, a message or DecodeError."""

from __future__ import annotations

import contextlib
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.wire.everything import Color, Everything
from tests.unit.wire.reference import CLASSES, google_class, messages, serialize
from xds.api.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType
from xds.api.envoy.config.core.v3 import Node, SocketAddress
from xds.api.envoy.config.route.v3 import HeaderMatcher, Route, RouteAction, RouteMatch
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest
from xds.api.google.protobuf import Duration, ListValue, Value
from xds.wire import DecodeError, decode, encode
from xds.wire.compiler import fields_of
from xds.wire.varint import delimited, varint


@given(messages(Everything), st.data())
def test_truncated_messages_are_refused_or_shorter(message, data):
    whole = encode(message)
    part = whole[: data.draw(st.integers(0, len(whole)))]
    with contextlib.suppress(DecodeError):
        assert whole.startswith(encode(decode(Everything, part))) or part != whole


@given(st.sampled_from(CLASSES), st.binary())
def test_random_bytes_raise_nothing_but_decode_error(cls, data):
    with contextlib.suppress(DecodeError):
        decode(cls, data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\n", "ends in the middle of a field"),
        (b"\n\x05abc", "a field reaches beyond its message"),
        (b"\n\xff\xff\xff\xff\x0f", "a field reaches beyond its message"),
        (b"\x0a\x02\xff\xff", "not UTF-8"),
        (b"\x80", "ends in the middle of a field"),
        (b"\xff" * 11, "too many bytes"),
        (b"\n\x80\x80\x80\x80\x80\x00", "too many bytes"),
        (b"\xf8\x07" + b"\xff" * 10 + b"\x01", "too many bytes"),
        (b"\x00\x01", "tag 0"),
        (b"\x02\x00", "tag 2"),
        (b"\x0e", "tag 14"),
        (b"\x0c", "tag 12"),  # the end of a group that has not started
        (b"\x7b\x10\x01", "ends in the middle of a field"),  # a group that does not end
        (b"\x79\x01", "a field reaches beyond its message"),  # fixed64
        (b"\x7d\x01", "a field reaches beyond its message"),  # fixed32
    ],
)
def test_says_what_is_wrong(data, reason):
    with pytest.raises(DecodeError, match=reason):
        decode(Node, data)


def test_a_length_is_held_against_the_message_around_it():
    # The node says 3 bytes, its id 4: the fourth belongs to the request.
    with pytest.raises(DecodeError):
        decode(DeltaDiscoveryRequest, b"\n\x03\n\x04a\x12\x00\x12\x00")


def test_unknown_fields_are_dropped():
    unknown = b"".join(
        (
            b"\xf8\x07\x96\x01",  # varint
            b"\xf9\x07" + b"8" * 8,
            b"\xfa\x07" + delimited(b"x" * 300),
            b"\xfb\x07\x08\x01\x0b\x0c\xfc\x07",  # a group with a group inside
            b"\xfd\x07" + b"4" * 4,
            b"J" + delimited(b"x" * 200) + b"J" + delimited(b"") + b"J" + delimited(b"y" * 20_000),  # node.extensions
        )
    )
    node = decode(Node, unknown + b"\n\x01a" + unknown + b"\x12\x01b" + unknown)
    assert (node.id, node.cluster) == ("a", "b")
    assert encode(node) == b"\n\x01a\x12\x01b"


def test_a_known_number_of_another_wire_type_is_unknown():
    assert decode(Node, b"\x08\x05\x12\x01b").cluster == "b"


@pytest.mark.parametrize("kind", ["bool", "int32", "uint64", "sint32", "fixed32", "sfixed64", "double", "enum"])
def test_repeated_numbers_come_packed_or_not(kind):
    value = {"bool": True, "double": -0.5, "enum": Color.BLUE}.get(kind, 300)
    numbers = {field.name: field.number for field in fields_of(Everything)}
    packed = encode(Everything(**{f"many_{kind}": [value, value]}))
    single = encode(Everything(**{f"maybe_{kind}": value}))
    # The single value under the number of the repeated field; all these tags are of two bytes.
    unpacked = varint(numbers[f"many_{kind}"] << 3 | single[0] & 7) + single[2:]
    assert getattr(decode(Everything, unpacked + packed + unpacked), f"many_{kind}") == [value] * 4


def test_parts_of_a_message_are_merged():
    one = encode(Route(match=RouteMatch(prefix="/", case_sensitive=True)))
    other = encode(Route(name="a", match=RouteMatch(headers=[HeaderMatcher(name="x")])))
    merged = decode(Route, one + other + other).match
    assert (merged.prefix, merged.case_sensitive) == ("/", True)
    assert [header.name for header in merged.headers] == ["x", "x"]


def test_parts_of_a_duration_are_merged():
    halves = b"B\x02\x08\x05" + b"B\x05\x10\x80\xe5\x9aw"
    assert decode(RouteAction, halves).timeout == timedelta(seconds=5.25)


def test_the_last_member_of_a_oneof_wins():
    both = encode(RouteMatch(prefix="/")) + encode(RouteMatch(path="/v1"))
    match = decode(RouteMatch, both)
    assert (match.prefix, match.path) == (None, "/v1")


@pytest.mark.parametrize(
    ("seconds", "nanos", "expected"),
    [
        (0, 0, timedelta(0)),
        (5, 250_000_000, timedelta(seconds=5.25)),
        (-1, -500_000_000, timedelta(seconds=-1.5)),
        (0, -1_000, timedelta(microseconds=-1)),
        (0, 999, timedelta(0)),
        (0, -999, timedelta(0)),
    ],
)
def test_durations_become_timedeltas(seconds, nanos, expected):
    inner = encode(Duration(seconds=seconds, nanos=nanos))
    assert decode(RouteAction, b"B" + delimited(inner)).timeout == expected


def test_a_duration_beyond_timedelta_is_refused():
    with pytest.raises(DecodeError):
        decode(RouteAction, b"B" + delimited(encode(Duration(seconds=1 << 62))))


def test_unknown_values_of_enums_are_kept():
    cluster = decode(Cluster, b"\x10\x63")
    assert isinstance(cluster.type, ClusterDiscoveryType)
    assert cluster.type == 99
    assert encode(cluster) == b"\x10\x63"
    assert decode(Cluster, b"\x10\x03").type is ClusterDiscoveryType.EDS


def nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth // 2):
        data = b"2" + delimited(b"\n" + delimited(data))
    return data


def test_depth_is_limited():
    assert isinstance(decode(Value, nested(90)).list_value, ListValue)
    for data in (nested(110), nested(20_000), b"\x7b" * 20_000):
        with pytest.raises(DecodeError):
            decode(Value, data)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_takes_any_bytes(kind):
    assert decode(SocketAddress, kind(b"\x18\x50")).port_value == 80


def test_decoded_messages_are_as_constructed_ones():
    decoded = decode(Node, b"\n\x01a")
    assert decoded == Node(id="a")
    assert vars(decoded) == vars(Node(id="a"))
    assert decode(Node, b"").locality is None


def test_reads_what_google_writes_for_a_request():
    theirs = google_class(DeltaDiscoveryRequest)()
    theirs.node.id = "gateway-0"
    theirs.node.locality.zone = "a"
    theirs.initial_resource_versions["a"] = "1"
    theirs.error_detail.message = "no"
    ours = decode(DeltaDiscoveryRequest, serialize(theirs))
    assert ours.node.locality.zone == "a"
    assert ours.initial_resource_versions == {"a": "1"}
    assert ours.error_detail.message == "no"
