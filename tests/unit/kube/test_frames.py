"""The bytes of a watch, well formed and not."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdserve.kube.course import Failed, Trouble
from xdserve.kube.frames import Bookmark, Changed, Lines, Removed, failure, frame, parsed, slim, version_of

OBJECT = {"metadata": {"name": "iris", "resourceVersion": "7"}}


def line(kind: object, found: object = None) -> bytes:
    return json.dumps({"type": kind, "object": OBJECT if found is None else found}).encode()


def test_events():
    assert frame(line("ADDED")) == Changed(OBJECT)
    assert frame(line("MODIFIED")) == Changed(OBJECT)
    assert frame(line("DELETED")) == Removed(OBJECT)
    assert frame(line("BOOKMARK")) == Bookmark("7")


@pytest.mark.parametrize(
    ("code", "trouble"),
    [
        (410, Trouble.EXPIRED),
        (404, Trouble.NOT_FOUND),
        (403, Trouble.FORBIDDEN),
        (401, Trouble.AWAY),
        (429, Trouble.AWAY),
        (500, Trouble.AWAY),
        (None, Trouble.AWAY),
    ],
)
def test_errors_in_a_watch(code: int | None, trouble: Trouble):
    with pytest.raises(Failed, match="it is so") as error:
        frame(line("ERROR", {"kind": "Status", "code": code, "message": "it is\nso"}))
    assert error.value.trouble is trouble


def test_a_refusal_may_say_when_to_come_again():
    assert failure(503, {"message": "x"}, 3.0).retry_after == 3.0
    assert failure(429, {"message": "x", "details": {"retryAfterSeconds": 5}}, 3.0).retry_after == 5
    assert str(failure(502, {})) == "status 502"


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000),
        *(line("ADDED", []), line("ADDED", 3), line("RENAMED"), line(3), line("ERROR", "no")),
        *(line("BOOKMARK", {}), line("BOOKMARK", {"metadata": {"resourceVersion": 3}})),
    ],
)
def test_what_is_no_event_is_told(text: bytes):
    with pytest.raises(Failed) as error:
        frame(text)
    assert error.value.trouble is Trouble.BROKEN


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_any_line_is_read_or_refused(text: bytes):
    with suppress(Failed):
        frame(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["metadata", "a", "code"]), inner),
)


@given(st.sampled_from(["ADDED", "DELETED", "BOOKMARK", "ERROR", None]), JSON)
def test_any_object_is_read_or_refused(kind: object, found: object):
    with suppress(Failed):
        frame(json.dumps({"type": kind, "object": found}).encode())


@given(st.lists(st.binary(min_size=1, max_size=20).filter(lambda part: b"\n" not in part), max_size=10), st.data())
def test_lines_are_whole_however_the_bytes_come(whole: list[bytes], data: st.DataObject):
    rest = b"".join(part + b"\n" for part in whole)
    lines, found = Lines(), []
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        found += lines.feed(rest[:size])
        rest = rest[size:]
    assert found == whole


def test_a_line_without_end_is_not_collected_for_ever():
    lines = Lines(longest=10)
    assert list(lines.feed(b"0123456789")) == []
    with pytest.raises(Failed, match="longer than 10 bytes"):
        list(lines.feed(b"0"))


def test_what_nobody_reads_is_dropped():
    bulk = {"kubectl.kubernetes.io/last-applied-configuration": "{...}", "kept": "1"}
    document = {"metadata": {"name": "iris", "managedFields": [{}], "annotations": bulk}}
    assert slim(document) == {"metadata": {"name": "iris", "annotations": {"kept": "1"}}}
    assert slim({"metadata": 3}) == {"metadata": 3}


def test_a_version_is_text():
    assert version_of(OBJECT) == "7"
    assert parsed(b'{"a": 1}') == {"a": 1}
