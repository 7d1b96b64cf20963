"""Bytes to messages. Unknown fields are dropped, lengths are held against the message around them.

Every compiled function reads a message from `i` to `e` into the one given, or a new one: so parts of a message
that come apart are merged, as Protobuf wants it. A length or varint that leads beyond `e` shows at the end, where
`i` is not `e`. Each field takes one from `w`, which ends when there was work enough.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import repeat
from typing import Any, TypeVar

from betterproto2 import Enum, Message

from xds.wire.compiler import FIXED, Field, Functions, fields_of
from xds.wire.encode import seconds_and_nanos
from xds.wire.varint import read_on, read_size, skip

M = TypeVar("M", bound=Message)

MAX_DEPTH = 100

_ENDLESS = repeat(None)


class DecodeError(ValueError):
    """The bytes are not a message of the class."""


def decode(cls: type[M], data: bytes | bytearray | memoryview, *, most: int | None = None) -> M:
    """Decode a message. Raises DecodeError, whatever the bytes, and nothing else.

    Args:
        cls: the class of the message.
        data: its bytes.
        most: fields that it may have, counted at any depth, each message in it for one more. A field may be two bytes
            short and cost half a microsecond and 60 bytes of memory: for bytes of strangers the size is no bound.
    """
    whole = data if isinstance(data, bytes) else bytes(data)
    work = _ENDLESS if most is None else repeat(None, most)
    try:
        message: M = _FUNCTIONS[cls](whole, 0, len(whole), MAX_DEPTH, None, work)
    except UnicodeDecodeError as error:
        raise DecodeError(f"{cls.__name__}: a string that is not UTF-8: {error.reason}") from error
    except (IndexError, struct.error) as error:
        raise DecodeError(f"{cls.__name__}: ends in the middle of a field") from error
    except (ValueError, OverflowError) as error:
        raise DecodeError(f"{cls.__name__}: {error}") from error
    return message


# -- what compiled functions call ------------------------------------------------------------------------------------


def _beyond() -> None:
    raise ValueError("a field reaches beyond its message")


def _too_many() -> None:
    raise ValueError("too many fields")


def _too_deep() -> None:
    raise ValueError(f"messages nested more than {MAX_DEPTH} deep")


class _Members(dict[int, Enum]):
    """The members of an enum by value; an unknown one is made on demand, and not kept."""

    def __init__(self, cls: type[Enum]) -> None:
        super().__init__({int(member): member for member in cls})
        self._cls = cls

    def __missing__(self, value: int) -> Enum:
        return self._cls(value)


# -- the source of a function ----------------------------------------------------------------------------------------

_DEFAULTS = {"string": "''", "bytes": "b''", "bool": "False", "double": "0.0", "float": "0.0"}

# What turns the unsigned 64 bits read into the value.
_READ = {
    "bool": "(v != 0)",
    "uint32": "(v & 0xffffffff)",
    "uint64": "v",
    "int32": "((v & 0xffffffff ^ 0x80000000) - 0x80000000)",
    "enum": "((v & 0xffffffff ^ 0x80000000) - 0x80000000)",
    "int64": "((v ^ 0x8000000000000000) - 0x8000000000000000)",
    "sint32": "(((v & 0xffffffff) >> 1) ^ -(v & 1))",
    "sint64": "((v >> 1) ^ -(v & 1))",
}

# From a tag or length of one byte at hand to the whole of it: two bytes straight, more by a call.
_LENGTH = ["n = b[i]; i += 1", "if n > 127: n, i = read_size(b, i, n)", "j = i + n"]
_TAG = [
    "t = b[i]; i += 1",
    "if t > 127:",
    " if b[i] < 128: t += (b[i] << 7) - 128; i += 1",
    " else: t, i = read_size(b, i, t)",
]
# Envoy's first request has 500 entries of one unknown field, one after the other.
_SKIP_RUN = [
    "for _ in w:",
    " n = b[i]; i += 1",
    " if n > 127:",
    "  if b[i] < 128: n += (b[i] << 7) - 128; i += 1",
    "  else: n, i = read_size(b, i, n)",
    " i += n",
    " if i >= e or b[i] != t: break",
    " i += 1",
]


class _Decoders(Functions):
    purpose = "decode"

    def __init__(self) -> None:
        super().__init__(
            read_on=read_on,
            read_size=read_size,
            skip=skip,
            beyond=_beyond,
            too_deep=_too_deep,
            new=object.__new__,
            too_many=_too_many,
        )
        self.globals |= {f"unpack_{kind}": struct.Struct(form).unpack_from for kind, form in FIXED.items()}

    def make(self, cls: type[Message], name: str) -> Callable[..., Any]:
        fields = fields_of(cls)
        cls_name = self.constant(cls, "C")
        names = [field.name for field in fields]
        lines = [
            " if m is None:",
            *(f"  f_{field.name} = {self._default(field)}" for field in fields),
            f"  m = new({cls_name}); m._unknown_fields = b''",
            " else:",
            *(f"  f_{field} = m.{field}" for field in names),
            "  pass",
            *self._loop(fields),
            *(f" m.{field} = f_{field}" for field in names),
            " return m",
        ]
        return self._function(cls, name, lines)

    def _function(self, cls: type[Message], name: str, lines: list[str]) -> Callable[..., Any]:
        return self.compile(cls, name, [f"def {name}(b, i, e, z, m, w):", " if z < 0: too_deep()", *lines])

    def _loop(self, fields: list[Field]) -> list[str]:
        branches = [(f"t == {tag}", body) for field in fields for tag, body in self._cases(field, fields)]
        branches.append(("t & 7 == 2 and 7 < t < 128", _SKIP_RUN))
        lines = [" for _ in w:", "  if i >= e: break", *(f"  {line}" for line in _TAG)]
        for index, (condition, body) in enumerate(branches):
            lines += [f"  {'elif' if index else 'if'} {condition}:", *(f"   {line}" for line in body)]
        return [*lines, "  else: i = skip(b, i, t, z, w)", " else: too_many()", " if i != e: beyond()"]

    def _default(self, field: Field) -> str:
        if field.kind == "map":
            return "{}"
        if field.repeated:
            return "[]"
        if field.optional:
            return "None"
        return f"{self._members(field)}[0]" if field.kind == "enum" else _DEFAULTS.get(field.kind, "0")

    def _cases(self, field: Field, fields: list[Field]) -> list[tuple[int, list[str]]]:
        """The tags that a field may come with, each with the lines that read it."""
        f = f"f_{field.name}"
        if field.entry:
            entry = self._entry(*field.entry)
            return [(field.tag(), [*_LENGTH, f"k, v = {entry}(b, i, j, z - 1, w)", f"{f}[k] = v", "i = j"])]
        if field.repeated:
            one = (field.tag(), self._value(field, f"{f}.append(%s)", "None"))
            if not field.packs:
                return [one]
            loop = ["while i < j:", *(f" {line}" for line in one[1]), "if i != j: beyond()"]
            return [one, (field.tag(wire=2), [*_LENGTH, *loop])]
        others = [f"f_{other.name}" for other in fields if field.group and other.group == field.group]
        clear = [" = ".join([*(other for other in others if other != f), "None"])] if others[1:] else []
        return [(field.tag(), [*self._value(field, f"{f} = %s", f), *clear])]

    def _value(self, field: Field, store: str, old: str) -> list[str]:
        """The lines that read one value and store it; a message is merged into the old one."""
        if field.kind == "message":
            return [*_LENGTH, store % f"{self._message(field)}(b, i, j, z - 1, {old}, w)", "i = j"]
        if field.kind == "string":
            return [*_LENGTH, store % "b[i:j].decode()", "i = j"]
        if field.kind == "bytes":
            return [*_LENGTH, store % "b[i:j]", "i = j"]
        if field.kind in FIXED:
            size = 4 if field.wire == 5 else 8
            return [store % f"unpack_{field.kind}(b, i)[0]", f"i += {size}"]
        value = _READ[field.kind]
        if field.kind == "enum":
            value = f"{self._members(field)}[{value}]"
        return ["v = b[i]; i += 1", "if v > 127: v, i = read_on(b, i, v)", store % value]

    def _members(self, field: Field) -> str:
        name = f"E_{self.constant(field.cls, 'E')}"
        self.globals.setdefault(name, _Members(field.cls))
        return name

    def _message(self, field: Field) -> str:
        """The name of the function of a field's message; for a wrapper the one that gives the plain value."""
        if not field.wrapped:
            return self.name(field.cls)
        name = f"unwrap_{field.cls.__name__}"
        if name not in self.globals:
            if field.cls.__name__ == "Duration":
                self.globals[name] = _duration(self[field.cls])
            else:
                (value,) = fields_of(field.cls)
                lines = [f" f_value = {self._default(value)} if m is None else m", *self._loop([value])]
                self._function(field.cls, name, [*lines, " return f_value"])
        return name

    def _entry(self, key: Field, value: Field) -> str:
        """The name of the function that reads an entry of a map."""
        name = f"entry_{self.constant(value, 'M')}"
        lines = [f"def {name}(b, i, e, z, w):", " if z < 0: too_deep()", f" f_key = {self._default(key)}"]
        if value.kind == "message":  # an entry without a value has an empty one
            lines += [" f_value = None", *self._loop([key, value])]
            lines += [f" if f_value is None: f_value = {self._message(value)}(b, e, e, z - 1, None, w)"]
        else:
            lines += [f" f_value = {self._default(value)}", *self._loop([key, value])]
        self.compile(Message, name, [*lines, " return f_key, f_value"])
        return name


def _duration(function: Callable[..., Any]) -> Callable[..., timedelta]:
    """From the function of google.protobuf.Duration the one that gives a timedelta."""

    def duration(  # noqa: PLR0913, PLR0917 - called as the compiled functions are
        b: bytes, i: int, e: int, z: int, m: timedelta | None, w: Iterator[None]
    ) -> timedelta:
        parts = function(b, i, i, z, None, w)
        if m is not None:
            parts.seconds, parts.nanos = seconds_and_nanos(m)
        function(b, i, e, z, parts, w)
        # Towards zero: a timedelta has no nanoseconds.
        micros = abs(parts.nanos) // 1000
        return timedelta(seconds=parts.seconds, microseconds=micros if parts.nanos >= 0 else -micros)

    return duration


_FUNCTIONS = _Decoders()
