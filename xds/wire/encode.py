"""Messages to bytes: deterministic (fields in number order, maps sorted by key), so equal content is equal bytes.

A message's functions are made of expressions that give one value with its tag; what is put together is as few
pieces as can be, for each piece costs a copy.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from functools import lru_cache
from itertools import islice
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
    """Encodes messages; those of the memoized classes, and those that are shared, once for each object.

    Such objects must not change once encoded. The memo holds the objects of memoized classes, at most `limit`; when it
    is full it starts anew. `shared` has messages of any class by their id; it may grow and must never lose one.
    """

    def __init__(
        self,
        memoize: tuple[type[Message], ...] = (),
        *,
        limit: int = 100_000,
        shared: Mapping[int, Message] | None = None,
    ) -> None:
        self._shared = {} if shared is None else shared
        self._functions = _Encoders(memoize, limit, sharing=shared is not None)

    def shared(self, messages: Iterable[Message]) -> list[bytes]:
        """Those of the messages that are shared, encoded, with their length: the same objects each time."""
        known = self._functions.shared
        return [known[id(message)] for message in messages if id(message) in known]

    def encode(self, message: Message) -> bytes:
        """Encode a message. Raises EncodeError."""
        try:
            if len(self._shared) > len(self._functions.shared):
                self._functions.share(self._shared)
            data: bytes = self._functions[type(message)](message)
        except _ERRORS as error:
            raise _explain(self._functions, message, error) from error
        except RecursionError as error:
            raise EncodeError(type(message).__name__, "nested too deep") from error
        return data


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

    # Ports, weights and limits come again and again.
    @lru_cache(4096)
    def integer(value: int) -> bytes:
        if not isinstance(value, int):
            _wrong(value)
        if not low <= value <= high:
            raise ValueError(f"found {value}, allowed are {low} to {high}")
        return varint((value << 1 ^ value >> bits - 1) if zigzag else value & MASK_64)

    return integer


def seconds_and_nanos(value: timedelta) -> tuple[int, int]:
    """The parts of a google.protobuf.Duration: they have one sign."""
    sign = -1 if value.days < 0 else 1
    whole = abs(value)
    return sign * (whole.days * 86_400 + whole.seconds), sign * whole.microseconds * 1000


@lru_cache(4096)
def _duration(value: timedelta) -> bytes:
    if not isinstance(value, timedelta):
        _wrong(value)
    seconds, nanos = seconds_and_nanos(value)
    if abs(seconds) > _MAX_SECONDS:
        raise ValueError(f"found {value}, allowed are {-_MAX_SECONDS} s to {_MAX_SECONDS} s")
    parts = b"\x08" + varint(seconds & MASK_64) if seconds else b""
    return delimited(parts + b"\x10" + varint(nanos & MASK_64) if nanos else parts)


# -- the source of a function ----------------------------------------------------------------------------------------


# One value with its tag, by the kind of field. `table` has the tag with each varint of one byte after it.
_SIZED = "({table}[n] + s if (n := len(s := {data})) < 128 else {tag} + varint(n) + s)"
_SHARED = "({tag} + s if (s := shared(id({v}))) is not None else {made})"
_INTEGER = "({table}[{v}] if 0 <= {v} < 128 else {tag} + {kind}({v}))"
_ONE = {
    "message": _SIZED.replace("{data}", "{message}({v})"),
    "bytes": _SIZED.replace("{data}", "blob({v})"),
    "string": _SIZED.replace("{data}", "{v}.encode()"),
    "bool": "({table}[1] if {v} is True else {table}[0] if {v} is False else wrong({v}))",
    "sint32": "{tag} + sint32({v})",
    "sint64": "{tag} + sint64({v})",
    **dict.fromkeys(FIXED, "{tag} + pack_{kind}({v})"),
}


class _Encoders(Functions):
    purpose = "encode"

    def __init__(self, memoize: tuple[type[Message], ...], limit: int, *, sharing: bool) -> None:
        super().__init__(S=SMALL, varint=varint, delimited=delimited, wrong=_wrong, two=_two, blob=self._blob)
        self.globals |= {kind: _integer(kind) for kind in _RANGES}
        self.globals |= {f"pack_{kind}": struct.Struct(form).pack for kind, form in FIXED.items()}
        self.shared: dict[int, bytes] = {}
        """The shared messages, encoded, with their length, by id."""
        self._sharing = sharing
        self._memo: dict[int, bytes] = {}
        self._held: list[Message] = []
        self._memoize = memoize
        self._limit = limit
        self.globals |= {"duration": _duration, "first": itemgetter(0), "known": self._memo.get}
        self.globals["shared"] = self.shared.get

    def share(self, messages: Mapping[int, Message]) -> None:
        """Encode the shared messages that are new: `messages` has them in the order they came."""
        for message in list(islice(messages.values(), len(self.shared), None)):
            self.shared[id(message)] = delimited(self[type(message)](message))

    def _blob(self, value: bytes | Message) -> bytes:
        """What a field of bytes holds; in Any that may be the message packed."""
        # Without isinstance: Message is an abstract class, whose check is slow.
        kind: Any = type(value)
        made: Callable[..., bytes] = bytes if kind is bytes else self[kind]
        return made(value)

    def make(self, cls: type[Message], name: str) -> Callable[..., Any]:
        lines = [f"def {name}(m):", f" if type(m) is not {self.constant(cls, 'C')}: wrong(m)", " r = b''"]
        fields = fields_of(cls)
        groups = sorted({field.group for field in fields if field.group})
        lines += [f" g{groups.index(group)} = False" for group in groups]
        for field in fields:
            lines += [f" v = m.{field.name}", *self._field(field, groups)]
        function = self.compile(cls, name, [*lines, " return r"])
        if cls in self._memoize:
            self.globals[f"memo_{name}"] = self._memoized(function)
        return function

    def _memoized(self, function: Callable[[Message], bytes]) -> Callable[[Message], bytes]:
        """From a class's function the one that gives the encoded message with its length, from the memo if it can."""
        memo, held = self._memo, self._held

        def memoized(message: Message) -> bytes:
            data = memo.get(id(message))
            if data is None:
                data = delimited(function(message))
                if len(held) >= self._limit:
                    memo.clear()
                    held.clear()
                held.append(message)  # or its id could become another's
                memo[id(message)] = data
            return data

        return memoized

    def _field(self, field: Field, groups: list[str]) -> list[str]:
        if field.entry:
            return self._map(field, *field.entry)
        if field.repeated:
            return self._repeated(field)
        add = f"r += {self._one(field, 'v')}"
        if field.group:
            group = groups.index(field.group)
            twice = f"  if g{group}: two({field.group!r})"
            return [" if v is not None:", twice, f"  g{group} = True", f"  {add}"]
        if field.optional:
            return [f" if v is not None: {add}"]
        return self._implicit(field, add)

    def _implicit(self, field: Field, add: str) -> list[str]:
        """A field without presence: its default is not sent."""
        if field.kind == "bool":
            return [f" if v is not False: {add}"]
        if field.kind in FIXED:
            # By the bits: -0.0 is not the default.
            return [f" v = pack_{field.kind}(v)", f" if v.strip(b'\\0'): r += {_bytes(field.tag())} + v"]
        if field.kind == "bytes":
            return [" v = blob(v)", f" if v: {add}"]
        return [f" if v: {add}", " elif v is None: wrong(v)"]

    def _one(self, field: Field, v: str, *, tagged: bool = True) -> str:
        """An expression: one value, with its tag unless told otherwise."""
        tag = _bytes(field.tag()) if tagged else "b''"
        if field.wrapped and field.cls.__name__ == "Duration":
            return f"{tag} + duration({v})"
        if field.cls in self._memoize:
            return f"{tag} + memo_{self.name(field.cls)}({v})"
        if field.wrapped:
            return self._wrapper(field, v)
        made = _ONE.get(field.kind, _INTEGER).format(
            v=v,
            kind=field.kind,
            tag=tag,
            table=self._table(varint(field.tag()) if tagged else b""),
            message=self.name(field.cls) if field.kind == "message" else "",
        )
        return _SHARED.format(v=v, tag=tag, made=made) if self._sharing and field.kind == "message" else made

    def _wrapper(self, field: Field, v: str) -> str:
        """The expression of a message like UInt32Value, from the plain value."""
        (inner,) = fields_of(field.cls)
        tag = varint(field.tag())
        if inner.kind in ("bool", "int32", "int64", "uint32", "uint64"):
            small = self._table(tag + b"\x02" + varint(inner.tag()), zero=tag + b"\0")
            if inner.kind == "bool":
                return f"({small}[1] if {v} is True else {small}[0] if {v} is False else wrong({v}))"
            large = f"{tag!r} + delimited({_bytes(inner.tag())} + {inner.kind}({v}))"
            return f"({small}[{v}] if 0 <= {v} < 128 else {large})"
        name = f"wrap_{field.cls.__name__}"
        if name not in self.globals:
            self.compile(field.cls, name, [f"def {name}(v):", " r = b''", *self._field(inner, []), " return r"])
        return _ONE["message"].format(v=v, tag=repr(tag), table=self._table(tag), message=name)

    def _table(self, before: bytes, zero: bytes | None = None) -> str:
        """The name of a table: some bytes with each of the varints of one byte after them."""
        name = f"T{before.hex()}"
        if name not in self.globals:
            rows = [before + small for small in SMALL]
            self.globals[name] = (rows[0] if zero is None else zero, *rows[1:])
        return name

    def _repeated(self, field: Field) -> list[str]:
        one = self._one(field, "x", tagged=not field.packs)
        if field.packs:
            adds = [f"  r += {_bytes(field.tag(wire=2))} + delimited(b''.join([{one} for x in v]))"]
        else:
            adds = ["  if len(v) < 9:", f"   for x in v: r += {one}", f"  else: r += {self._many(field, one)}"]
        check = "  if type(v) is not list and type(v) is not tuple: wrong(v)"
        return [" if v:", check, *adds, " elif v is None: wrong(v)"]

    def _many(self, field: Field, one: str) -> str:
        """An expression: a long list, without the copies that adding up makes."""
        if field.cls not in self._memoize:
            return f"b''.join([{one} for x in v])"
        # Joining with the tag puts it before each but the first.
        tag = _bytes(field.tag())
        return f"{tag} + {tag}.join([known(id(x)) or memo_{self.name(field.cls)}(x) for x in v])"

    def _map(self, field: Field, key: Field, value: Field) -> list[str]:
        entry = f"{self._one(key, 'k')} + {self._one(value, 'x')}"
        add = f"r += {_bytes(field.tag())} + delimited({entry})"
        return [
            " if v:",
            "  if type(v) is not dict: wrong(v)",
            f"  for k, x in sorted(v.items(), key=first): {add}",
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
        for step, inner, alone in _elements(field, value):
            try:
                functions[type(message)](type(message)(**{field.name: alone}))
            except _ERRORS as error:
                yield f".{field.name}{step}", inner, error


def _elements(field: Field, value: object) -> Iterator[tuple[str, object, object]]:
    """The elements of a list or map, or the value itself: step of the path, element, the field with it alone."""
    if field.repeated and isinstance(value, list | tuple):
        yield from ((f"[{index}]", item, [item]) for index, item in enumerate(value))
    elif field.entry and isinstance(value, dict):
        yield from ((f"[{key!r}]", item, {key: item}) for key, item in value.items())
    else:
        yield "", value, value


_DEFAULT = Encoder()


def encode(message: Message) -> bytes:
    """Encode a message. Raises EncodeError: two members of a oneof, a value out of its range or of a wrong type."""
    return _DEFAULT.encode(message)
