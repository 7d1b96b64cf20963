"""Messages to bytes: deterministic (fields in number order, maps sorted by key), so equal content is equal bytes.

Every compiled function gives its message with its length before it, ready to be put into the one around it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import lru_cache
from operator import itemgetter
from typing import Any, NoReturn

from betterproto2 import Message

from xds.wire.compiler import FIXED, Field, Functions, fields_of
from xds.wire.varint import MASK_64, SMALL, delimited, varint

_RANGES = {"int32": 32, "int64": 64, "sint32": 32, "sint64": 64, "enum": 32, "uint32": 32, "uint64": 64}
# Protobuf's Duration is at most 10,000 years.
_MAX_SECONDS = 315_576_000_000
_ERRORS = (AttributeError, TypeError, ValueError, OverflowError, struct.error)


class EncodeError(ValueError):
    """A message cannot be encoded: a mistake of who built it. Says the field's path and what is wrong there."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class Encoder:
    """Encodes messages; those of the memoized classes once for each object.

    Objects of memoized classes must not change once encoded. The memo holds them, at most `limit`; when it is full
    it starts anew.
    """

    def __init__(self, memoize: tuple[type[Message], ...] = (), *, limit: int = 100_000) -> None:
        self._functions = _Encoders(memoize, limit)

    def encode(self, message: Message) -> bytes:
        """Encode a message. Raises EncodeError."""
        try:
            data: bytes = self._functions[type(message)](message)
        except _ERRORS as error:
            raise _explain(self._functions, message, error) from error
        except RecursionError as error:
            raise EncodeError(type(message).__name__, "nested too deep") from error
        size = 0
        while data[size] > 127:
            size += 1
        return data[size + 1 :]


# -- what compiled functions call ------------------------------------------------------------------------------------


def _wrong(value: object) -> NoReturn:
    raise TypeError(type(value))


def _two(group: str) -> NoReturn:
    raise ValueError(f"two members of the oneof {group} are set")


def _integer(kind: str) -> Callable[[int], bytes]:
    """The encoder of integers of a kind that checks their range."""
    bits = _RANGES[kind]
    unsigned = kind.startswith("uint")
    low, high = (0, (1 << bits) - 1) if unsigned else (-1 << bits - 1, (1 << bits - 1) - 1)
    zigzag = kind.startswith("sint")

    def integer(value: int) -> bytes:
        if not isinstance(value, int):
            _wrong(value)
        if not low <= value <= high:
            raise ValueError(f"found {value}, allowed are {low} to {high}")
        return varint((value << 1 ^ value >> bits - 1) if zigzag else value & MASK_64)

    return integer


@lru_cache(4096)
def _duration(value: timedelta) -> bytes:
    """A google.protobuf.Duration: seconds and nanoseconds have one sign."""
    if not isinstance(value, timedelta):
        _wrong(value)
    sign = -1 if value.days < 0 else 1
    whole = abs(value)
    seconds = sign * (whole.days * 86_400 + whole.seconds)
    nanos = sign * whole.microseconds * 1000
    if abs(seconds) > _MAX_SECONDS:
        raise ValueError(f"found {value}, allowed are {-_MAX_SECONDS} s to {_MAX_SECONDS} s")
    parts = b"\x08" + varint(seconds & MASK_64) if seconds else b""
    return delimited(parts + b"\x10" + varint(nanos & MASK_64) if nanos else parts)


# -- the source of a function ----------------------------------------------------------------------------------------


class _Encoders(Functions):
    purpose = "encode"

    def __init__(self, memoize: tuple[type[Message], ...], limit: int) -> None:
        super().__init__(S=SMALL, varint=varint, delimited=delimited, wrong=_wrong, two=_two, blob=self._blob)
        self.globals |= {kind: _integer(kind) for kind in _RANGES}
        self.globals |= {f"pack_{kind}": struct.Struct(form).pack for kind, form in FIXED.items()}
        self.globals |= {
            "duration": _duration,
            "sequence": (list, tuple),
            "first": itemgetter(0),
            "memo": {},
            "known": {}.get,
        }
        self._memoize = memoize
        self._limit = limit

    def _blob(self, value: object) -> bytes:
        """A field of bytes; in Any also the message that is packed."""
        if isinstance(value, bytes):
            return delimited(value)
        if not isinstance(value, Message):
            _wrong(value)
        data: bytes = self[type(value)](value)
        return data

    def make(self, cls: type[Message], name: str) -> Callable[..., Any]:
        lines = [f"def {name}(m):", f" if m.__class__ is not {self.constant(cls, 'C')}: wrong(m)", " r = b''"]
        fields = fields_of(cls)
        groups = sorted({field.group for field in fields if field.group})
        lines += [f" g{groups.index(group)} = False" for group in groups]
        for field in fields:
            lines += [f" v = m.{field.name}", *self._field(field, groups)]
        function = self.compile(cls, name, [*lines, " n = len(r)", " return (S[n] if n < 128 else varint(n)) + r"])
        return self._memoized(function) if cls in self._memoize else function

    def _memoized(self, function: Callable[[Message], bytes]) -> Callable[[Message], bytes]:
        memo: dict[int, bytes] = self.globals["memo"]
        held: list[Message] = []
        self.globals["known"] = memo.get

        def memoized(message: Message) -> bytes:
            data = memo.get(id(message))
            if data is None:
                if len(held) >= self._limit:
                    memo.clear()
                    held.clear()
                data = memo[id(message)] = function(message)
                held.append(message)
            return data

        return memoized

    def _field(self, field: Field, groups: list[str]) -> list[str]:
        if field.kind == "map":
            return self._map(field)
        if field.repeated:
            return self._repeated(field)
        add = f"r += {self._one(field, 'v')}"
        if field.group:
            group = groups.index(field.group)
            twice = f"  if g{group}: two({field.group!r})"
            return [" if v is not None:", twice, f"  g{group} = True", f"  {add}"]
        if field.optional:
            return [f" if v is not None: {add}"]
        if field.kind == "bool":
            return [f" if v is not False: {add}"]
        if field.kind in FIXED:
            # By the bits: -0.0 is not the default.
            return [f" v = pack_{field.kind}(v)", f" if v.strip(b'\\0'): r += {_bytes(field.tag())} + v"]
        if field.kind == "bytes":
            return [" v = blob(v)", f" if v != b'\\0': r += {_bytes(field.tag())} + v"]
        return [f" if v: {add}", f" elif v != {'' if field.kind == 'string' else 0!r}: wrong(v)"]

    def _one(self, field: Field, v: str, *, tagged: bool = True) -> str:
        """An expression: one value, with its tag unless told otherwise."""
        tag = _bytes(field.tag()) if tagged else "b''"
        table = self._table(field.tag()) if tagged else "S"
        if field.cls is not None and field.kind == "message":
            return f"{tag} + {self._message(field)}({v})"
        if field.kind == "string":
            return f"({table}[n] + s if (n := len(s := {v}.encode())) < 128 else {tag} + varint(n) + s)"
        if field.kind == "bytes":
            return f"{tag} + blob({v})"
        if field.kind == "bool":
            return f"({table}[1] if {v} is True else {table}[0] if {v} is False else wrong({v}))"
        if field.kind in FIXED:
            return f"{tag} + pack_{field.kind}({v})"
        if field.kind.startswith("sint"):
            return f"{tag} + {field.kind}({v})"
        return f"({table}[{v}] if 0 <= {v} < 128 else {tag} + {field.kind}({v}))"

    def _table(self, tag: int) -> str:
        """The name of a table: a tag with each of the varints of one byte after it."""
        name = f"T{tag}"
        if name not in self.globals:
            self.globals[name] = tuple(varint(tag) + small for small in SMALL)
        return name

    def _message(self, field: Field) -> str:
        """The name of the function of a field's message; for a wrapper the one that takes the plain value."""
        if not field.wrapped:
            return self.name(field.cls)
        if field.cls.__name__ == "Duration":
            return "duration"
        name = f"wrap_{field.cls.__name__}"
        if name not in self.globals:
            (value,) = fields_of(field.cls)
            body = ["r = b''", *(line.strip() for line in self._field(value, []))]
            self.compile(field.cls, name, [f"def {name}(v):", *(f" {line}" for line in body), " return delimited(r)"])
        return name

    def _repeated(self, field: Field) -> list[str]:
        check = ["  if not isinstance(v, sequence): wrong(v)"]
        tag = _bytes(field.tag())
        if field.packs:
            values = f"b''.join([{self._one(field, 'x', tagged=False)} for x in v])"
            add = f"{_bytes(field.tag(wire=2))} + delimited({values})"
        elif field.kind == "message":
            # Joining with the tag puts it before each but the first.
            function = self._message(field)
            known = "known(id(x)) or " if field.cls in self._memoize else ""
            add = f"{tag} + {tag}.join([{known}{function}(x) for x in v])"
        else:
            add = f"b''.join([{self._one(field, 'x')} for x in v])"
        return [" if v:", *check, f"  r += {add}", " elif v is None: wrong(v)"]

    def _map(self, field: Field) -> list[str]:
        assert field.entry  # noqa: S101
        key, value = field.entry
        entry = f"{self._one(key, 'k')} + {self._one(value, 'x')}"
        tag = _bytes(field.tag())
        return [
            " if v:",
            "  if v.__class__ is not dict: wrong(v)",
            f"  r += {tag} + {tag}.join([delimited({entry}) for k, x in sorted(v.items(), key=first)])",
            " elif v is None: wrong(v)",
        ]


def _bytes(tag: int) -> str:
    """A tag as a literal."""
    return repr(varint(tag))


# -- saying what is wrong --------------------------------------------------------------------------------------------


def _explain(functions: _Encoders, message: object, error: Exception) -> EncodeError:
    """Find the field that makes encoding fail, by encoding each alone."""
    path = type(message).__name__
    while isinstance(message, Message):
        found = next(_failures(functions, message), None)
        if found is None:  # every field is well alone: two members of a oneof
            break
        part, message, error = found
        path += part
    if isinstance(error, ValueError | OverflowError):
        return EncodeError(path, str(error))
    return EncodeError(path, f"found {message!r} of type {type(message).__name__}, not what this field holds")


def _failures(functions: _Encoders, message: Message) -> Iterator[tuple[str, object, Exception]]:
    """The fields, or elements of fields, that fail: the piece of the path, the value, the error."""
    for field in fields_of(type(message)):
        value = getattr(message, field.name)
        for step, inner, alone in _elements(value):
            try:
                functions[type(message)](type(message)(**{field.name: alone}))
            except _ERRORS as error:
                yield f".{field.name}{step}", inner, error


def _elements(value: object) -> Iterator[tuple[str, object, object]]:
    """The elements of a list or map, or the value itself: step of the path, element, the field with it alone."""
    if isinstance(value, list | tuple) and value:
        yield from ((f"[{index}]", item, [item]) for index, item in enumerate(value))
    elif isinstance(value, dict):
        yield from ((f"[{key!r}]", item, {key: item}) for key, item in value.items())
    else:
        yield "", value, value


_DEFAULT = Encoder()


def encode(message: Message) -> bytes:
    """Encode a message. Raises EncodeError: two members of a oneof, a value out of its range or of a wrong type."""
    return _DEFAULT.encode(message)
