"""Requests of strangers: whatever the bytes, a message or DecodeError, and work that the size bounds."""

from __future__ import annotations

import contextlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.wire.reference import messages
from xds.api.envoy.config.core.v3 import Locality, Node
from xds.api.envoy.config.endpoint.v3 import ClusterStats, UpstreamLocalityStats
from xds.api.envoy.service.discovery.v3 import DeltaDiscoveryRequest, DiscoveryRequest
from xds.api.envoy.service.load_stats.v3 import LoadStatsRequest
from xds.api.google.rpc import Status
from xds.loads import _reported, node_of
from xds.session import MOST_FIELDS
from xds.types import ResourceType
from xds.wire import DecodeError, decode, encode
from xds.wire.varint import delimited, varint

REQUESTS = (DeltaDiscoveryRequest, DiscoveryRequest, LoadStatsRequest)

NODE = Node(id="envoy", cluster="models/iris", locality=Locality(zone="a"), user_agent_name="envoy")
WHOLE = {
    DeltaDiscoveryRequest: DeltaDiscoveryRequest(
        node=NODE,
        type_url=ResourceType.CLUSTER,
        resource_names_subscribe=["a", "é"],
        resource_names_unsubscribe=["*"],
        initial_resource_versions={"a": "1", "b": ""},
        response_nonce="1-2",
        error_detail=Status(code=13, message="no good"),
    ),
    DiscoveryRequest: DiscoveryRequest(
        node=NODE,
        version_info="1",
        type_url=ResourceType.CLUSTER,
        resource_names=["a", "é"],
        response_nonce="1-2",
        error_detail=Status(code=13, message="no good"),
    ),
    LoadStatsRequest: LoadStatsRequest(
        node=NODE,
        cluster_stats=[
            ClusterStats(
                cluster_name="a",
                upstream_locality_stats=[UpstreamLocalityStats(total_issued_requests=3)],
            )
        ],
    ),
}


def attempt(cls, data):
    """Decode as the server does, with a bound that no message of that size may reach."""
    try:
        return decode(cls, data, most=len(data) + 2)
    except DecodeError as error:
        said = str(error)
    assert "too many fields" not in said
    return None


requests = st.sampled_from(REQUESTS)
numbers = st.integers(0, 12) | st.sampled_from([15, 16, 127, 128, (1 << 29) - 1, 1 << 29, (1 << 61) - 1])
sizes = st.integers(0, 20) | st.sampled_from([127, 128, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 64) - 1])


@st.composite
def fields(draw, depth=3):
    """Tags of all kinds, each with what may or may not belong to it."""
    tag = varint(draw(numbers) << 3 | draw(st.integers(0, 7)))
    inner = st.binary(max_size=9) | st.text(max_size=4).map(str.encode) | st.just(b"\xff\xfe") | st.just(b"")
    if depth:
        inner |= st.lists(fields(depth=depth - 1), max_size=3).map(b"".join)
    body = draw(inner)
    size = varint(draw(sizes)) if draw(st.integers(0, 9)) == 0 else varint(len(body))
    return tag + draw(st.sampled_from([size + body, size + body, size + body, body, size, b""]))


@st.composite
def mutated(draw):
    """A valid request with bytes changed, put in, taken out, and parts of it repeated."""
    cls = draw(requests)
    data = bytearray(encode(draw(st.just(WHOLE[cls]) | messages(cls))))
    for _ in range(draw(st.integers(1, 6))):
        at, to = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        match draw(st.sampled_from(["set", "flip", "insert", "delete", "repeat"])):
            case "set" if at < len(data):
                data[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "delete":
                del data[at:to]
            case "repeat":
                data[at:at] = data[at:to] * draw(st.integers(1, 3))
    return cls, bytes(data)


@given(requests, st.binary(max_size=200))
def test_random_bytes(cls, data):
    attempt(cls, data)


@given(requests, st.lists(fields(), max_size=6).map(b"".join))
def test_random_fields(cls, data):
    attempt(cls, data)


@given(mutated())
def test_mutated_requests_give_a_message_that_can_be_written(case):
    message = attempt(*case)
    if message is not None:
        assert encode(decode(case[0], encode(message))) == encode(message)


@given(mutated())
def test_what_reads_load_reports_in_parts_is_as_careful(case):
    with contextlib.suppress(DecodeError):
        node_of(case[1])
    with contextlib.suppress(DecodeError):
        _reported(case[1])


@pytest.mark.parametrize("cls", REQUESTS)
def test_requests_cut_at_each_byte(cls):
    whole = encode(WHOLE[cls])
    taken = [cut for cut in range(len(whole)) if attempt(cls, whole[:cut]) is not None]
    # Only between fields.
    assert 0 in taken
    assert len(taken) < 12


@pytest.mark.parametrize("cls", REQUESTS)
@pytest.mark.parametrize("size", [1 << 7, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 64) - 1])
def test_lengths_beyond_the_end(cls, size):
    for number in range(1, 12):
        with pytest.raises(DecodeError):
            decode(cls, varint(number << 3 | 2) + varint(size) + b"x")


@pytest.mark.parametrize("depth", [50, 99, 100, 101, 1_000, 100_000])
@pytest.mark.parametrize("cls", REQUESTS)
def test_groups_in_groups(cls, depth):
    number = 15  # unknown to all of them
    data = varint(number << 3 | 3) * depth + varint(number << 3 | 4) * depth
    assert (attempt(cls, data) is not None) is (depth <= 100)


@pytest.mark.parametrize("text", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80"])
def test_strings_that_are_not_utf_8(text):
    for number in (2, 3, 4, 6):
        with pytest.raises(DecodeError, match="not UTF-8"):
            decode(DeltaDiscoveryRequest, varint(number << 3 | 2) + delimited(text))
    for entry in (b"\n" + delimited(text), b"\x12" + delimited(text)):
        with pytest.raises(DecodeError, match="not UTF-8"):
            decode(DeltaDiscoveryRequest, b"*" + delimited(entry))


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([b""], {"": ""}),
        ([b"\n\x01a"], {"a": ""}),
        ([b"\x12\x011"], {"": "1"}),
        ([b"\x12\x011\n\x01a"], {"a": "1"}),
        ([b"\n\x01a\x12\x011\n\x01b\x12\x012"], {"b": "2"}),
        ([b"\n\x01a\x12\x011", b"\n\x01a\x12\x012"], {"a": "2"}),
        ([b"\n\x01a\x18\x05\x12\x011"], {"a": "1"}),
        ([b"\x08\x05\x10\x05"], {"": ""}),
    ],
)
def test_odd_entries_of_a_map(entries, expected):
    data = b"".join(b"*" + delimited(entry) for entry in entries)
    assert decode(DeltaDiscoveryRequest, data).initial_resource_versions == expected


def test_duplicate_fields_do_not_heap_up():
    message = decode(DeltaDiscoveryRequest, encode(WHOLE[DeltaDiscoveryRequest]) * 3)
    assert message.type_url == ResourceType.CLUSTER
    assert message.resource_names_subscribe == ["a", "é"] * 3
    assert message.initial_resource_versions == {"a": "1", "b": ""}
    assert message.node.id == "envoy"


# -- Work --------------------------------------------------------------------------------------------------------------

# Two bytes that make a decoder work, again and again.
DENSE = {
    "empty names": lambda n: b"\x1a\x00" * n,
    "empty nodes": lambda n: b"\x0a\x00" * n,
    "empty errors": lambda n: b"\x3a\x00" * n,
    "empty entries": lambda n: b"\x2a\x00" * n,
    "keys in one entry": lambda n: b"\x2a" + delimited(b"\x0a\x00" * n),
    "localities in one node": lambda n: b"\x0a" + delimited(b"\x22\x00" * n),
    "versions in one node": lambda n: b"\x0a" + delimited(b"\x42\x00" * n),
    "codes in one error": lambda n: b"\x3a" + delimited(b"\x08\x01" * n),
    "unknown numbers": lambda n: b"\x78\x01" * n,
    "unknown texts": lambda n: b"\x4a\x00" * n,
    "unknown texts in turns": lambda n: b"\x4a\x00\x52\x00" * (n // 2),
    "empty groups": lambda n: b"\x7b\x7c" * n,
    "numbers in one group": lambda n: b"\x7b" + b"\x70\x01" * n + b"\x7c",
}


def lines_of(cls, data):
    """Lines of Python that decoding takes."""
    count = 0

    def trace(frame, event, arg):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        decode(cls, data)
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("dense", DENSE.values(), ids=DENSE)
def test_work_grows_with_the_size_and_no_faster(dense):
    few, many = (lines_of(DeltaDiscoveryRequest, dense(n)) for n in (200, 2_000))
    assert many <= 10.5 * few
    assert many <= 40 * len(dense(2_000))


@pytest.mark.parametrize("dense", DENSE.values(), ids=DENSE)
def test_fields_are_counted_at_any_depth(dense):
    for cls in REQUESTS:
        assert attempt(cls, dense(500)) is not None
    with pytest.raises(DecodeError, match="too many fields"):
        decode(DeltaDiscoveryRequest, dense(500), most=499)


def test_32_mib_of_dense_fields_are_given_up_soon():
    for dense in ("empty names", "keys in one entry", "numbers in one group"):
        with pytest.raises(DecodeError, match="too many fields"):
            decode(DeltaDiscoveryRequest, DENSE[dense](1 << 24), most=MOST_FIELDS)


def test_the_largest_request_of_an_envoy_has_room():
    """All names that a stream may have, with their versions, and a node of many extensions."""
    names = [f"cluster-{number}" for number in range(100_000)]
    entries = (b"*" + delimited(b"\n" + delimited(name.encode()) + b"\x12\x011") for name in names)
    request = DeltaDiscoveryRequest(node=NODE, resource_names_subscribe=names)
    data = b"\n" + delimited((b"J" + delimited(b"x" * 100)) * 5_000) + encode(request) + b"".join(entries)
    assert len(decode(DeltaDiscoveryRequest, data, most=MOST_FIELDS).initial_resource_versions) == 100_000
