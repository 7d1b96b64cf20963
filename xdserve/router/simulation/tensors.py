"""Tensors of the open inference protocol: as lists, as bytes, and from one to the other. Pure.

Layout of bytes: little-endian elements in row-major order; BYTES has before each element its length in 4 bytes.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

# The letter of `struct` for each type of fixed size. BF16 has none: its bytes can be handed on, not be read.
_FORMATS = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
_SIZES = {name: struct.calcsize("<" + letter) for name, letter in _FORMATS.items()} | {"BF16": 2}
DATATYPES = (*_SIZES, "BYTES")
_MAX_DEPTH = 32
_MAX_ELEMENTS = 2**40


class TensorError(ValueError):
    """A tensor is not what it says it is; the message is one line for the client."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named tensor: its elements as a flat list of values or as bytes, one of them."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Any] | None = None
    raw: bytes | None = None

    def checked(self) -> Tensor:
        """The tensor itself, if its elements are as many and of the type as it says.

        Raises:
            TensorError: they are not.
        """
        if self.datatype not in DATATYPES:
            raise TensorError(f"{self.name}: found datatype {self.datatype!r:.40}, allowed {' '.join(DATATYPES)}")
        if len(self.shape) > _MAX_DEPTH or not all(0 <= extent <= _MAX_ELEMENTS for extent in self.shape):
            raise TensorError(f"{self.name}: shape: allowed are at most {_MAX_DEPTH} extents of 0..{_MAX_ELEMENTS}")
        count, found = math.prod(self.shape), self._count()
        if found != count:
            raise TensorError(f"{self.name}: found {found} elements, allowed {count} by its shape")
        if self.values is not None:
            self.as_raw()
        return self

    def renamed(self, name: str) -> Tensor:
        """The same under another name."""
        return replace(self, name=name)

    def as_raw(self) -> bytes:
        """The elements as bytes; raises TensorError."""
        if self.raw is not None:
            return self.raw
        values = self.values or ()
        if self.datatype == "BYTES":
            return b"".join(_with_length(self._bytes_of(value)) for value in values)
        if self.datatype not in _FORMATS:
            raise TensorError(f"{self.name}: {self.datatype} is given as binary data alone")
        self._check_kinds(values)
        try:
            return struct.pack(f"<{len(values)}{_FORMATS[self.datatype]}", *values)
        except (struct.error, OverflowError):
            raise TensorError(f"{self.name}: has elements that are not {self.datatype}") from None

    def as_values(self) -> list[Any]:
        """The elements as JSON has them, BYTES as strings; raises TensorError."""
        if self.values is not None:
            return list(self.values)
        if self.datatype == "BYTES":
            try:
                return [element.decode() for element in self._elements()]
            except UnicodeDecodeError:
                raise TensorError(f"{self.name}: its bytes are not text, ask for binary data") from None
        if self.datatype not in _FORMATS:
            raise TensorError(f"{self.name}: {self.datatype} is given as binary data alone")
        raw = self.raw or b""
        values = list(struct.unpack(f"<{len(raw) // _SIZES[self.datatype]}{_FORMATS[self.datatype]}", raw))
        if self.datatype.startswith("FP") and not all(map(math.isfinite, values)):
            raise TensorError(f"{self.name}: has NaN or infinite elements, ask for binary data")
        return values

    def _count(self) -> int:
        if self.raw is None:
            return len(self.values or ())
        if self.datatype == "BYTES":
            return len(self._elements())
        count, rest = divmod(len(self.raw), _SIZES[self.datatype])
        if rest:
            raise TensorError(f"{self.name}: found {len(self.raw)} bytes, which are no whole elements")
        return count

    def _elements(self) -> list[bytes]:
        raw, at, found = self.raw or b"", 0, []
        while at < len(raw):
            size = int.from_bytes(raw[at : at + 4], "little")
            if at + 4 + size > len(raw):
                raise TensorError(f"{self.name}: ends in the middle of an element")
            found.append(raw[at + 4 : at + 4 + size])
            at += 4 + size
        return found

    def _bytes_of(self, value: object) -> bytes:
        if isinstance(value, bytes):
            return value
        if isinstance(value, str):
            with suppress(UnicodeEncodeError):
                return value.encode()
        raise TensorError(f"{self.name}: has elements that are not text")

    def _check_kinds(self, values: Sequence[object]) -> None:
        kinds = {type(value) for value in values}
        allowed: set[type] = {bool} if self.datatype == "BOOL" else {int}
        if self.datatype.startswith("FP"):
            allowed = {int, float}
        if kinds - allowed:
            raise TensorError(f"{self.name}: has elements that are not {self.datatype}")


def _with_length(element: bytes) -> bytes:
    return len(element).to_bytes(4, "little") + element


def flat(data: object, depth: int = 0) -> list[Any]:
    """The elements of nested lists in row-major order; raises TensorError when there is no end to them."""
    if depth > _MAX_DEPTH:
        raise TensorError(f"data: nested more than {_MAX_DEPTH} deep")
    if not isinstance(data, list):
        return [data]
    if not any(isinstance(item, list) for item in data):
        return data
    return [element for item in data for element in flat(item, depth + 1)]


def echo(inputs: Sequence[Tensor], wanted: Sequence[str]) -> list[Tensor]:
    """What the simulation answers: its inputs, under the names that are wanted, in turn."""
    if not wanted or not inputs:
        return list(inputs)
    return [inputs[index % len(inputs)].renamed(name) for index, name in enumerate(wanted)]
