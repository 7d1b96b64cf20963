"""The codec against Google's Protobuf: the same bytes from the same content, the same content from the same bytes."""

from __future__ import annotations

import contextlib

import pytest
from google.protobuf.message import DecodeError as GoogleDecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.wire.everything import Everything
from tests.unit.wire.reference import CLASSES, NAMES, google_class, messages, mirror, same, serialize
from xds.api.google.protobuf import Duration
from xds.wire import DecodeError, decode, encode
from xds.wire.compiler import fields_of

relaxed = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)


@relaxed
@given(messages(Everything) | messages())
def test_encodes_the_bytes_that_google_does(message):
    assert encode(message) == serialize(mirror(message))


@relaxed
@given(
    st.dictionaries(st.text(max_size=3), st.text(max_size=3)), st.dictionaries(st.integers(-9, 9), messages(Everything))
)
def test_maps_are_sorted_by_key(strings, nested):
    entries = [Everything(map_strings={key: strings[key]}) for key in sorted(strings)]
    entries += [Everything(map_messages={key: nested[key]}) for key in sorted(nested)]
    data = encode(Everything(map_strings=strings, map_messages=nested))
    assert data == b"".join(map(encode, entries))
    theirs = google_class(Everything).FromString(data)
    assert serialize(theirs) == serialize(mirror(Everything(map_strings=strings, map_messages=nested)))


@relaxed
@given(messages(Everything) | messages())
def test_decodes_what_was_encoded(message):
    data = encode(message)
    decoded = decode(type(message), data)
    assert same(message, decoded)
    assert encode(decoded) == data


@pytest.mark.parametrize("cls", CLASSES, ids=NAMES.get)
def test_every_class_goes_both_ways_empty(cls):
    assert encode(cls()) == b""
    assert same(decode(cls, b""), cls())


def _reached(cls, seen: frozenset = frozenset()) -> frozenset:
    """All fields of a class and of the classes inside it, as (class, field)."""
    own = frozenset((cls, field) for field in fields_of(cls))
    parts = [part for field in fields_of(cls) for part in (field.entry or (field,))]
    inner = {part.cls for part in parts if part.kind == "message"} - {cls} - {known for known, _ in seen}
    for item in inner:
        seen |= _reached(item, seen | own)
    return seen | own


# A timedelta holds neither nanoseconds nor all that a Duration may.
EXACT = [cls for cls in CLASSES if Duration not in {inner for inner, _ in _reached(cls)}]


def _loses_entries(cls, theirs) -> bool:
    """Whether Google's upb may have lost entries of maps: it takes those with unknown fields inside as unknown."""
    known = google_class(cls)()
    known.CopyFrom(theirs)
    known.DiscardUnknownFields()
    return serialize(known) != serialize(theirs) and any(field.entry for _, field in _reached(cls))


def agree(cls, data: bytes) -> None:
    """Both refuse the bytes, or both find the same in them."""
    theirs = google_class(cls)()
    try:
        theirs.ParseFromString(data)
    except GoogleDecodeError:
        with pytest.raises(DecodeError):
            decode(cls, data)
        return
    ours = google_class(cls).FromString(encode(decode(cls, data)))
    if not _loses_entries(cls, theirs):
        theirs.DiscardUnknownFields()
        assert serialize(ours) == serialize(theirs)


@relaxed
@given(st.sampled_from(EXACT), st.binary(max_size=40))
def test_agrees_with_google_on_random_bytes(cls, data):
    agree(cls, data)


@st.composite
def mutated(draw, classes) -> tuple[type, bytes]:
    """An encoded message, twice over or cut in pieces, with some bytes changed."""
    cls = draw(st.sampled_from(classes))
    data = bytearray(b"".join(encode(draw(messages(cls))) for _ in range(draw(st.integers(1, 2)))))
    for _ in range(draw(st.integers(0, 3))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        change = draw(st.sampled_from(["set", "drop", "insert", "cut"]))
        if change == "cut":
            del data[at:]
        elif change == "drop":
            del data[at]
        else:
            data[at : at + (change == "set")] = bytes([draw(st.integers(0, 255))])
    return cls, bytes(data)


@relaxed
@given(mutated(EXACT))
def test_agrees_with_google_on_mutated_messages(case):
    agree(*case)


@relaxed
@given(mutated(CLASSES))
def test_mutated_messages_raise_nothing_but_decode_error(case):
    cls, data = case
    with contextlib.suppress(DecodeError):
        decode(cls, data)


@relaxed
@given(messages(Everything), messages(Everything))
def test_merges_as_google_does(one, other):
    data = encode(one) + encode(other)
    theirs = google_class(Everything).FromString(data)
    ours = google_class(Everything).FromString(encode(decode(Everything, data)))
    assert serialize(ours) == serialize(theirs)
