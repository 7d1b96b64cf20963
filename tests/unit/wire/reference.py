"""Google's Protobuf with the same descriptors, and random messages for both."""

from __future__ import annotations

import importlib
import math
import pkgutil
import struct
from datetime import timedelta
from pathlib import Path

from betterproto2 import Message
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import strategies as st

import xds.api
from tests.unit.wire.everything import PACKAGE, Everything, file_descriptor
from xds.api.google.protobuf import Any
from xds.api.message_pool import default_message_pool
from xds.wire.compiler import Field, fields_of

POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(
    Path(__file__).with_name("descriptors.binpb").read_bytes()
).file:
    POOL.Add(_file)
POOL.Add(file_descriptor())

for _module in pkgutil.walk_packages(xds.api.__path__, "xds.api."):
    importlib.import_module(_module.name)

# The pool is the program's: what else has been imported may have put messages of other packages in.
NAMES = {
    cls: url.partition("/")[2]
    for cls, url in default_message_pool.type_to_url.items()
    if cls.__module__.startswith("xds.api.")
}
API = sorted(NAMES, key=NAMES.__getitem__)
NAMES[Everything] = f"{PACKAGE}.Everything"
CLASSES = sorted(NAMES, key=NAMES.__getitem__)


def google_class(cls):
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(NAMES[cls]))


def serialize(message) -> bytes:
    """Deterministic, but unlike C++ and Go this implementation (upb) puts the entries of maps in descending order."""
    return message.SerializeToString(deterministic=True)


# -- our message -> Google's, field by field, without the codec --------------------------------------------------------


def mirror(message: Message):
    """The same message as an object of Google's class."""
    theirs = google_class(type(message))()
    for field in fields_of(type(message)):
        value = getattr(message, field.name)
        if value is None:
            continue
        name = theirs.DESCRIPTOR.fields_by_number[field.number].name
        if field.kind == "map":
            _mirror_map(getattr(theirs, name), field.entry[1], value)
        elif field.repeated:
            container = getattr(theirs, name)
            for item in value:
                _merge(container.add(), field, item) if field.kind == "message" else container.append(item)
        elif field.kind == "message":
            getattr(theirs, name).SetInParent()
            _merge(getattr(theirs, name), field, value)
        elif isinstance(value, Message):  # packed into Any
            setattr(theirs, name, serialize(mirror(value)))
        else:
            setattr(theirs, name, value)
    return theirs


def _mirror_map(container, value_field: Field, value) -> None:
    for key, item in value.items():
        if value_field.kind == "message":
            _merge(container[key], value_field, item)
        else:
            container[key] = item


def _merge(target, field: Field, value) -> None:
    if not field.wrapped:
        target.CopyFrom(mirror(value))
    elif isinstance(value, timedelta):
        target.FromTimedelta(value)
    else:
        target.value = value


# -- random messages ---------------------------------------------------------------------------------------------------

_LIMIT = timedelta(seconds=315_576_000_000)


def _integers(bits: int, *, signed: bool) -> st.SearchStrategy:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.one_of(st.integers(max(low, -3), 300), st.integers(low, high), st.sampled_from([low, high]))


_VALUES = {
    "bool": st.booleans(),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.just("é" * 70),
    "bytes": st.binary(max_size=5) | st.just(b"\0" * 200),
    "double": st.floats() | st.just(-0.0),
    "float": st.floats(width=32) | st.just(-0.0),
    **{kind: _integers(32, signed=True) for kind in ("int32", "sint32", "sfixed32", "enum")},
    **{kind: _integers(64, signed=True) for kind in ("int64", "sint64", "sfixed64")},
    **{kind: _integers(32, signed=False) for kind in ("uint32", "fixed32")},
    **{kind: _integers(64, signed=False) for kind in ("uint64", "fixed64")},
}


@st.composite
def messages(draw, cls=None, depth=3) -> Message:
    """Any message of a class, or of any class; oneofs have one member set, maps one entry."""
    if cls is None:
        cls = draw(st.sampled_from(API))
    if cls is Any:
        return Any.pack(draw(messages(depth=depth - 1))) if depth > 0 and draw(st.booleans()) else _any(draw)
    fields = [field for field in fields_of(cls) if depth > 0 or not _nests(field)]
    # A few fields at a time, so that large classes are quick too.
    chosen = draw(st.lists(st.sampled_from(fields), max_size=6, unique=True)) if fields else []
    groups = {field.group: field.name for field in chosen}
    wanted = [field for field in chosen if field.group is None or groups[field.group] == field.name]
    return cls(**{field.name: draw(_value(field, depth)) for field in wanted})


def _any(draw) -> Any:
    return Any(type_url=draw(_VALUES["string"]), value=draw(_VALUES["bytes"]))


def _nests(field: Field) -> bool:
    inner = field.entry[1] if field.entry else field
    return inner.kind == "message" and not inner.wrapped


def _value(field: Field, depth: int) -> st.SearchStrategy:
    if field.kind == "map":
        key, value = field.entry
        return st.dictionaries(_VALUES[key.kind], _single(value, depth), max_size=1)
    one = _single(field, depth)
    return st.lists(one, max_size=3) if field.repeated else one


def _single(field: Field, depth: int) -> st.SearchStrategy:
    if field.kind == "enum":
        return st.one_of(st.sampled_from(list(field.cls)), _VALUES["enum"].map(field.cls))
    if field.kind != "message":
        return _VALUES[field.kind]
    if not field.wrapped:
        return messages(field.cls, depth - 1)
    if field.cls.__name__ == "Duration":
        return st.timedeltas(-_LIMIT, _LIMIT) | st.timedeltas(timedelta(seconds=-3), timedelta(seconds=3))
    return _single(fields_of(field.cls)[0], depth)


def same(one: object, other: object) -> bool:
    """Whether two messages, or values of fields, are equal, -0.0 and NaN included, and messages packed not."""
    if isinstance(one, Any) and isinstance(other, Any):
        return one.type_url == other.type_url and (isinstance(one.value, Message) or one.value == other.value)
    if isinstance(one, Message):
        names = [field.name for field in fields_of(type(one))]
        return type(one) is type(other) and all(same(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or struct.pack("<d", one) == struct.pack("<d", other)
    return type(one) is type(other) and one == other
