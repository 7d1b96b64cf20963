"""What betterproto2 knows of a message class, and the functions that are made from it.

Encoder and decoder are straight-line code, one function a class, written as source text when a class is first met and
compiled once. Tracebacks and debuggers show that source, because `linecache` is told of it.
"""

from __future__ import annotations

import dataclasses
import linecache
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

from betterproto2 import FieldMetadata, Message

VARINTS = {"bool", "enum", "int32", "int64", "uint32", "uint64", "sint32", "sint64"}
FIXED = {"double": "<d", "float": "<f", "fixed32": "<I", "fixed64": "<Q", "sfixed32": "<i", "sfixed64": "<q"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field of a message, or the key or value of a map's entry."""

    name: str
    number: int
    kind: str  # Protobuf's name of the type, or "map"
    repeated: bool = False
    optional: bool = False  # has presence: None is unset
    group: str | None = None  # the oneof
    cls: Any = None  # of a message (for a wrapped one: what wraps), of an enum
    wrapped: bool = False  # messages like UInt32Value and Duration: the object holds the plain value
    entry: tuple[Field, Field] | None = None  # of a map

    @property
    def wire(self) -> int:
        """The wire type of one value."""
        if self.kind in VARINTS:
            return 0
        if self.kind in FIXED:
            return 5 if self.kind.endswith(("32", "float")) else 1
        return 2

    def tag(self, wire: int | None = None) -> int:
        """The number that starts the field on the wire."""
        return self.number << 3 | (self.wire if wire is None else wire)

    @property
    def packs(self) -> bool:
        """Whether values of this type, repeated, share one tag."""
        return self.wire != 2


@cache
def fields_of(cls: type[Message]) -> list[Field]:
    """The fields of a message class, in number order. One list for all who ask: not to be changed."""
    # betterproto2 asks for all hints once a field; this is 30 times faster for a large class.
    hints = get_type_hints(cls, vars(sys.modules[cls.__module__]), {})
    found = [_field(field.name, FieldMetadata.get(field), hints[field.name]) for field in _dataclass_fields(cls)]
    return sorted(found, key=lambda field: field.number)


def _dataclass_fields(cls: type) -> tuple[dataclasses.Field[object], ...]:
    return dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()


def _field(name: str, meta: FieldMetadata, hint: object) -> Field:
    inside = get_args(hint)  # of list[...], dict[..., ...] and ... | None
    if meta.map_meta:
        key, value = meta.map_meta
        entry = (_part(key, "key", inside[0]), _part(value, "value", inside[1]))
        return Field(name=name, number=meta.number, kind="map", entry=entry)
    return _part(meta, name, inside[0] if inside else hint)


def _part(meta: FieldMetadata, name: str, cls: object) -> Field:
    return Field(
        name=name,
        number=meta.number,
        kind=meta.proto_type,
        repeated=bool(meta.repeated),
        optional=bool(meta.optional or meta.group),
        group=meta.group,
        cls=meta.unwrap() if meta.unwrap else cls,
        wrapped=meta.unwrap is not None,
    )


class Functions(dict[type[Message], Callable[..., Any]], ABC):
    """The functions of one kind, made when a class is first looked up.

    They see each other, and what else they need, as their globals, by the names that `name` gives.
    """

    purpose: str

    def __init__(self, **names: object) -> None:
        super().__init__()
        self.globals: dict[str, Any] = names
        self._names: dict[object, str] = {}

    def __missing__(self, cls: type[Message]) -> Callable[..., Any]:
        if not issubclass(cls, Message):
            raise TypeError(f"{cls!r} is not a message class")
        self.name(cls)
        return self[cls]

    def name(self, cls: type[Message]) -> str:
        """The global name of a class's function, which is made if need be."""
        known = self._names.get(cls)
        if known is None:
            known = self._names[cls] = f"{self.purpose}_{cls.__name__}_{len(self._names)}"
            self[cls] = self.globals[known] = self.make(cls, known)
        return known

    def constant(self, value: object, prefix: str) -> str:
        """A global name for a value; equal (prefix, id) share it."""
        key = (prefix, id(value))
        if key not in self._names:
            self._names[key] = f"{prefix}_{len(self._names)}"
            self.globals[self._names[key]] = value
        return self._names[key]

    @abstractmethod
    def make(self, cls: type[Message], name: str) -> Callable[..., Any]:
        """Make the function of a class."""

    def compile(self, cls: type[Message], name: str, lines: list[str]) -> Callable[..., Any]:
        """Make a function from its source; it must define `name`."""
        file = f"<{name} of {cls.__module__}.{cls.__qualname__}>"
        source = "\n".join(lines) + "\n"
        linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
        exec(compile(source, file, "exec"), self.globals)  # noqa: S102  (our own text, from our own classes)
        function: Callable[..., Any] = self.globals[name]
        return function
