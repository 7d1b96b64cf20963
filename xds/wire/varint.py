"""Protobuf's variable-length integers (protobuf.dev/programming-guides/encoding)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

_ENDLESS = repeat(None)

MASK_64 = (1 << 64) - 1

# The varints of one byte; most lengths and values are among them.
SMALL = tuple(bytes((value,)) for value in range(128))


def varint(value: int) -> bytes:
    """Encode an unsigned integer of up to 64 bits."""
    if value < 128:
        return SMALL[value]
    if value < 1 << 14:
        return (value & 127 | 128 | value >> 7 << 8).to_bytes(2, "little")
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def delimited(data: bytes) -> bytes:
    """Put the length of the data before it."""
    size = len(data)
    return (SMALL[size] if size < 128 else varint(size)) + data


def read_on(data: bytes, at: int, first: int) -> tuple[int, int]:
    """Read the rest of a value's varint whose first byte is over 127: its value, and where the next thing starts.

    What does not fit into 64 bits is dropped, as Protobuf's own decoders do.

    Raises:
        IndexError: the data end in it.
        ValueError: it has more than ten bytes.
    """
    value, at = _read_on(data, at, first, 70)
    return value & MASK_64, at


def read_size(data: bytes, at: int, first: int) -> tuple[int, int]:
    """Read the rest of a tag's or length's varint, at most five bytes. Otherwise like read_on."""
    return _read_on(data, at, first, 35)


def _read_on(data: bytes, at: int, first: int, limit: int) -> tuple[int, int]:
    value = first & 127
    for shift in range(7, limit, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("a varint of too many bytes")


def skip(data: bytes, at: int, tag: int, depth: int, work: Iterator[None] = _ENDLESS) -> int:
    """Pass over a field whose tag was read: where the next one starts. Each field in a group takes one from `work`.

    Raises:
        IndexError: the data end in it.
        ValueError: no field can have such a tag, groups are nested deeper than depth, or there is no work left.
    """
    wire = tag & 7
    if not 7 < tag < 1 << 32:
        raise ValueError(f"tag {tag}")
    if wire == 0:
        first = data[at]
        return read_on(data, at + 1, first)[1] if first > 127 else at + 1
    if wire == 1:
        return at + 8
    if wire == 2:
        size, at = read(data, at)
        return at + size
    if wire == 5:
        return at + 4
    if wire == 3 and depth:
        return _skip_group(data, at, tag, depth - 1, work)
    raise ValueError(f"tag {tag}")


def _skip_group(data: bytes, at: int, start: int, depth: int, work: Iterator[None]) -> int:
    for _ in work:
        tag, at = read(data, at)
        if tag == start + 1:  # the same field number, wire type "end of group"
            return at
        at = skip(data, at, tag, depth, work)
    raise ValueError("too many fields")


def read(data: bytes, at: int) -> tuple[int, int]:
    """Read a tag or length: its value, and where the next thing starts. Raises as read_size does."""
    first = data[at]
    return read_size(data, at + 1, first) if first > 127 else (first, at + 1)
