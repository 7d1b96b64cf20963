"""A message with every kind of field that Protobuf has, as betterproto2 class and as descriptor."""

from __future__ import annotations

from dataclasses import make_dataclass

import betterproto2
from betterproto2 import field, map_meta
from google.protobuf import descriptor_pb2

from xds.api.google import protobuf
from xds.wire.compiler import fields_of

PACKAGE = "xdserve.test"

PYTHON = {
    "bool": "bool", "int32": "int", "int64": "int", "uint32": "int", "uint64": "int", "sint32": "int", "sint64": "int",
    "fixed32": "int", "fixed64": "int", "sfixed32": "int", "sfixed64": "int", "float": "float", "double": "float",
    "string": "str", "bytes": "bytes",
}  # fmt: skip


class Color(betterproto2.Enum):
    RED = 0
    GREEN = 1
    BLUE = -5


def _fields():
    """Name, annotation, field: what a generated class would have."""
    for number, (kind, python) in enumerate(PYTHON.items(), 1):
        yield f"one_{kind}", python, field(number, kind)
        yield f"many_{kind}", f"list[{python}]", field(20 + number, kind, repeated=True)
        yield f"maybe_{kind}", f"{python} | None", field(40 + number, kind, optional=True)
    yield "one_enum", "Color", field(61, "enum", default_factory=lambda: Color(0))
    yield "many_enum", "list[Color]", field(62, "enum", repeated=True)
    yield "maybe_enum", "Color | None", field(63, "enum", optional=True)
    yield "message", "Everything | None", field(64, "message", optional=True)
    yield "messages", "list[Everything]", field(65, "message", repeated=True)
    yield "packed", "protobuf.Any | None", field(66, "message", optional=True)

    for number, (name, python) in enumerate(
        (("BoolValue", "bool"), ("UInt32Value", "int"), ("UInt64Value", "int")), 70
    ):
        unwrap = getattr(protobuf, name)
        single = field(number, "message", unwrap=lambda unwrap=unwrap: unwrap, optional=True)
        yield f"maybe_{name}", f"{python} | None", single
        many = field(number + 5, "message", unwrap=lambda unwrap=unwrap: unwrap, repeated=True)
        yield f"many_{name}", f"list[{python}]", many

    yield "choice_uint32", "int | None", field(81, "uint32", group="choice")
    yield "choice_string", "str | None", field(82, "string", group="choice")
    yield "choice_message", "Everything | None", field(83, "message", optional=True, group="choice")
    yield "choice_enum", "Color | None", field(84, "enum", group="choice")

    yield "map_strings", "dict[str, str]", field(91, "map", map_meta=map_meta("string", "string"))
    yield "map_messages", "dict[int, Everything]", field(92, "map", map_meta=map_meta("sint32", "message"))
    yield "map_enums", "dict[bool, Color]", field(93, "map", map_meta=map_meta("bool", "enum"))
    yield "map_doubles", "dict[int, float]", field(94, "map", map_meta=map_meta("fixed64", "double"))
    wrappers = map_meta("int64", "message", unwrap_2=lambda: protobuf.UInt32Value)
    yield "map_wrappers", "dict[int, int]", field(95, "map", map_meta=wrappers)
    yield "far", "bytes", field(536_870_911, "bytes")


Everything = make_dataclass(
    "Everything", _fields(), bases=(betterproto2.Message,), namespace={"__module__": __name__}, eq=False, repr=False
)

_TYPES = {
    name.removeprefix("TYPE_").lower(): number for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}


def file_descriptor() -> descriptor_pb2.FileDescriptorProto:
    """The descriptor of this module's types, made from the same metadata."""
    file = descriptor_pb2.FileDescriptorProto(name="everything.proto", package=PACKAGE, syntax="proto3")
    file.dependency.extend(f"google/protobuf/{name}.proto" for name in ("any", "wrappers"))
    color = file.enum_type.add(name="Color")
    for member in Color:
        color.value.add(name=member.name, number=int(member))
    message = file.message_type.add(name="Everything")
    message.oneof_decl.add(name="choice")
    for item in fields_of(Everything):
        proto = message.field.add(name=item.name, number=item.number)
        if item.kind == "map":
            _fill_map(message, proto, item)
            continue
        _fill(proto, item)
        if item.group:
            proto.oneof_index = 0
        elif item.optional and item.kind != "message":
            proto.proto3_optional = True
            proto.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{item.name}")
    return file


def _fill(proto, item) -> None:
    proto.type = _TYPES[item.kind]
    proto.label = 3 if item.repeated else 1
    if item.kind in ("message", "enum"):
        package = "google.protobuf" if item.cls.__module__.startswith("xds.") else PACKAGE
        proto.type_name = f".{package}.{item.cls.__name__}"


def _fill_map(message, proto, item) -> None:
    entry = message.nested_type.add(name=f"{item.name.title().replace('_', '')}Entry")
    entry.options.map_entry = True
    for part in item.entry:
        _fill(entry.field.add(name=part.name, number=part.number), part)
    proto.type, proto.label = _TYPES["message"], 3
    proto.type_name = f".{PACKAGE}.Everything.{entry.name}"
