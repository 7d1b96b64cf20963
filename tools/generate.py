"""Make the message classes of xds/api and xdserve/router/api, and descriptors for tests, from tools/wanted*.txt.

Envoy's descriptors come from the wheel `xds-protos`, which owns the import names `xds` and `envoy`; those of the open
inference protocol from `tritonclient`. So the work is done in an environment of its own, in the user's cache, made once
for each state of requirements/generate.txt.

Usage: generate.py [--check]    (--check writes nothing; it exits 1 if what is committed differs)
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import typing
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import betterproto2

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
    from google.protobuf.descriptor_pb2 import (
        DescriptorProto,
        EnumDescriptorProto,
        FileDescriptorProto,
        FileDescriptorSet,
    )
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer
    from google.protobuf.message import Message

    Messages = RepeatedCompositeFieldContainer[DescriptorProto]
    Enums = RepeatedCompositeFieldContainer[EnumDescriptorProto]

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements" / "generate.txt"
# Where the descriptors of a Protobuf package are, if not in a Python package of the same name.
HOMES = {"inference": "tritonclient.grpc"}
# What the linters and tests leave beside generated files.
IGNORED = ("__pycache__",)

API_DOCSTRING = '''"""Envoy's API, cut to the fields that xdserve speaks: made by tools/generate.py.

Build messages by keyword. A field of type `google.protobuf.Any` takes `Any.pack(message)`, which keeps the
message as it is: the encoder writes it in one go with what is around it. Durations are `timedelta`, wrappers
(`UInt32Value`, ...) the plain value or None. An unset message or member of a oneof is None.
"""
'''

POOL = '''"""The pool that every message class registers itself in, by which `Any` finds classes and type URLs.

Registering also gives a class an `__init__` of the same meaning that takes half the time: dataclass's calls a
function for every field that is not given.
"""

import dataclasses
import functools

import betterproto2


class Pool(betterproto2.MessagePool):
    def register_message(self, package_name, message_name, message_type):
        super().register_message(package_name, message_name, message_type)
        message_type.__init__ = _quick_init(message_type)


def _quick_init(cls):
    names = {"missing": object()}
    parameters, lines = [], []
    for field in dataclasses.fields(cls):
        if field.default_factory in (type(None), bool, int, float, str, bytes):
            names[f"d_{field.name}"] = field.default_factory()
            parameters.append(f"{field.name}=d_{field.name}")
            lines.append(f"    _self.{field.name} = {field.name}")
            continue
        if field.default_factory not in (list, dict):  # of an enum: its class may not be there yet
            names[f"new_{field.name}"] = functools.cache(field.default_factory)
        new = {list: "[]", dict: "{}"}.get(field.default_factory, f"new_{field.name}()")
        parameters.append(f"{field.name}=missing")
        lines.append(f"    _self.{field.name} = {new} if {field.name} is missing else {field.name}")
    head = f"def __init__({', '.join(['_self', *parameters])}):"  # a field may be called `self`
    exec("\\n".join([head, *lines, "    _self._unknown_fields = b\'\'"]), names)
    return names["__init__"]


default_message_pool = Pool()
'''


INFERENCE_DOCSTRING = '''"""The open inference protocol, cut to the fields that are spoken: made by tools/generate.py.

Messages are built as those of xds/api.
"""
'''

SHARED_POOL = '''"""The pool that every message class registers itself in: the one of xds/api."""

from xds.api.message_pool import default_message_pool

__all__ = ["default_message_pool"]
'''


class Output(NamedTuple):
    """What one list of wanted messages is made into; paths are relative to the root."""

    wanted: str
    api: Path
    docstring: str
    pool: str
    descriptors: Path | None = None


OUTPUTS = (
    Output("wanted.txt", Path("xds/api"), API_DOCSTRING, POOL, Path("tests/unit/wire/descriptors.binpb")),
    Output("wanted-inference.txt", Path("xdserve/router/api"), INFERENCE_DOCSTRING, SHARED_POOL),
)


class GenerateError(Exception):
    """Something that the user of this script can mend, said in one line."""


# -- the environment ---------------------------------------------------------------------------------------


def environment() -> Path:
    """Give the bin folder of the environment with the descriptors and the compiler; make it if need be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    key = hashlib.sha256(REQUIREMENTS.read_bytes() + f"{version} {sys.base_prefix}".encode()).hexdigest()[:16]
    folder = cache / "xdserve" / f"generate-{key}"
    ready = folder / "ready"
    if not ready.exists():
        venv.create(folder, clear=True, with_pip=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*pip, "--require-hashes", "-r", REQUIREMENTS], check=False).returncode:
            raise GenerateError(f"cannot install {REQUIREMENTS.relative_to(ROOT)} into {folder}")
        ready.touch()
    return folder / "bin"


def run_inside(output: Path) -> None:
    """Run this script in the environment, without this project's `xds` in its way, writing below output."""
    binaries = environment()
    # The compiler wants ruff on PATH; it goes through sets, so their order is fixed.
    surroundings = os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}", "PYTHONHASHSEED": "0"}
    surroundings.pop("PYTHONPATH", None)
    command = [binaries / "python", "-P", Path(__file__).resolve(), "--output", output]
    # Its folder: the compiler looks for __init__.py files where it is started.
    with tempfile.TemporaryDirectory() as folder:
        run = subprocess.run(command, cwd=folder, env=surroundings, check=False)
    if run.returncode:
        raise SystemExit(run.returncode)


# -- wanted.txt --------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """A message wanted: the line that asks for it, its fields, and the file of the line."""

    line: int
    fields: tuple[str, ...]
    file: str

    @property
    def place(self) -> str:
        """`file:line`, as a message names it."""
        return f"{self.file}:{self.line}"


def read_wanted(text: str, file: str = "wanted.txt") -> dict[str, Entry]:
    """Read a list of wanted messages: full name -> entry. Raises GenerateError with the line's number."""
    wanted: dict[str, Entry] = {}
    name = ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.partition("#")[0].rstrip()
        if not line:
            continue
        if line[0].isspace():
            if not name:
                raise GenerateError(f"{file}:{number}: found a line that goes on, but no entry before it")
            fields = line.split()
            wanted[name] = wanted[name]._replace(fields=wanted[name].fields + tuple(fields))
            continue
        name, colon, rest = line.partition(":")
        if not colon or not all(part.isidentifier() for part in name.split(".")):
            raise GenerateError(f"{file}:{number}: found {line!r}, expected `full.name.of.Message: field field`")
        if name in wanted:
            raise GenerateError(f"{file}:{number}: found {name} again, it is on line {wanted[name].line}")
        wanted[name] = Entry(number, tuple(rest.split()), file)
    return wanted


# -- descriptors, inside the environment -------------------------------------------------------------------


def find_message(name: str, entry: Entry) -> Descriptor:
    """Find a message's descriptor by its full name in the packages installed."""
    from google.protobuf import descriptor_pool

    package = name[: next((i for i, letter in enumerate(name) if letter.isupper()), 0)].rstrip(".")
    package = HOMES.get(package, package)
    with contextlib.suppress(ImportError):
        for folder in importlib.import_module(package).__path__ if package else ():
            for file in sorted(Path(folder).glob("*_pb2.py")):
                importlib.import_module(f"{package}.{file.stem}")
    try:
        return descriptor_pool.Default().FindMessageTypeByName(name)
    except KeyError:
        raise GenerateError(f"{entry.place}: found {name}, which the descriptors do not have") from None


def wanted_fields(message: Descriptor, entry: Entry) -> list[FieldDescriptor]:
    """The descriptors of the fields that an entry asks for."""
    if entry.fields == ("*",):
        return list(message.fields)
    for field in entry.fields:
        if field not in message.fields_by_name:
            raise GenerateError(f"{entry.place}: {message.full_name} has no field {field!r}")
        if entry.fields.count(field) > 1:
            raise GenerateError(f"{entry.place}: {message.full_name} lists {field!r} twice")
    return [field for field in message.fields if field.name in entry.fields]


@dataclass
class Cut:
    """Which names of the descriptors are kept, and the files that have them."""

    fields: dict[str, list[FieldDescriptor]]  # of a message
    messages: dict[str, Descriptor]
    enums: dict[str, EnumDescriptor]

    @classmethod
    def of(cls, wanted: dict[str, Entry]) -> Cut:
        """Find all that is wanted. Raises GenerateError on what the descriptors do not have."""
        messages = {name: find_message(name, entry) for name, entry in wanted.items()}
        cut = cls({name: wanted_fields(messages[name], entry) for name, entry in wanted.items()}, messages, {})
        for name, entry in wanted.items():
            for field in cut.fields[name]:
                cut._follow(field, entry, wanted)
        return cut

    def _follow(self, field: FieldDescriptor, entry: Entry, wanted: dict[str, Entry]) -> None:
        if field.enum_type:
            self.enums[field.enum_type.full_name] = field.enum_type
        if not field.message_type:
            return
        if field.message_type.GetOptions().map_entry:
            self.messages[field.message_type.full_name] = field.message_type
            self.fields[field.message_type.full_name] = list(field.message_type.fields)
            self._follow(field.message_type.fields_by_name["value"], entry, wanted)
        elif field.message_type.full_name not in wanted:
            kind = field.message_type.full_name
            raise GenerateError(f"{entry.place}: {field.full_name} is a {kind}, which has no entry")

    def keeps(self, name: str) -> bool:
        """Whether a message or enum is kept: it is wanted, or has something inside that is."""
        return any(kept == name or kept.startswith(f"{name}.") for kept in (*self.messages, *self.enums))

    def files(self) -> list[FileDescriptor]:
        """The files of all that is kept, each after those it needs."""
        order: list[FileDescriptor] = []

        def visit(file: FileDescriptor) -> None:
            if file not in order:
                for dependency in sorted(file.dependencies, key=lambda dependency: dependency.name):
                    visit(dependency)
                order.append(file)

        kept = {item.file.name: item.file for item in (*self.messages.values(), *self.enums.values())}
        for name in sorted(kept):
            visit(kept[name])
        return [file for file in order if file.name in kept]


def cut_message(proto: DescriptorProto, name: str, cut: Cut) -> None:
    """Take from a message's descriptor, in place, what is not kept."""
    numbers = {field.number for field in cut.fields.get(name, ())}
    fields = [field for field in proto.field if field.number in numbers]
    oneofs = sorted({field.oneof_index for field in fields if field.HasField("oneof_index")})
    names = [proto.oneof_decl[index].name for index in oneofs]
    for field in fields:
        field.ClearField("options")
        if field.HasField("oneof_index"):
            field.oneof_index = oneofs.index(field.oneof_index)
    keep(proto.field, fields)
    for unwanted in ("oneof_decl", "extension", "extension_range", "reserved_range", "reserved_name"):
        proto.ClearField(unwanted)
    for oneof in names:
        proto.oneof_decl.add(name=oneof)
    cut_options(proto)
    cut_types(proto.nested_type, proto.enum_type, name, cut)


def cut_options(proto: DescriptorProto) -> None:
    """Drop all options but the one that makes a message the entry of a map."""
    entry = proto.options.map_entry
    proto.ClearField("options")
    if entry:
        proto.options.map_entry = True


def cut_types(messages: Messages, enums: Enums, scope: str, cut: Cut) -> None:
    """Cut the lists of messages and enums of a file or a message."""
    keep(messages, [message for message in messages if cut.keeps(f"{scope}.{message.name}")])
    for message in messages:
        cut_message(message, f"{scope}.{message.name}", cut)
    keep(enums, [enum for enum in enums if f"{scope}.{enum.name}" in cut.enums])
    for enum in enums:
        for unwanted in ("options", "reserved_range", "reserved_name"):
            enum.ClearField(unwanted)
        for value in enum.value:
            value.ClearField("options")


def keep(field: RepeatedCompositeFieldContainer, items: list[Message]) -> None:
    """Leave only these items in a repeated field."""
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(copies)


def cut_file(file: FileDescriptor, cut: Cut) -> FileDescriptorProto:
    """A file's descriptor with what is kept and nothing else."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    full, proto = FileDescriptorProto(), FileDescriptorProto()
    file.CopyToProto(full)
    proto.name, proto.package, proto.syntax = full.name, full.package, full.syntax
    proto.message_type.extend(full.message_type)
    proto.enum_type.extend(full.enum_type)
    cut_types(proto.message_type, proto.enum_type, full.package, cut)
    proto.dependency.extend(sorted(set(needed(file, cut)) - {file.name}))
    return proto


def needed(file: FileDescriptor, cut: Cut) -> Iterator[str]:
    """The names of the files that the kept fields of a file refer to."""
    for name, fields in cut.fields.items():
        if cut.messages[name].file.name == file.name:
            yield from (kind.file.name for field in fields if (kind := field.message_type or field.enum_type))


def descriptors(cut: Cut) -> FileDescriptorSet:
    """All files, cut, each after those it needs."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    return FileDescriptorSet(file=[cut_file(file, cut) for file in cut.files()])


# -- classes, inside the environment -----------------------------------------------------------------------


# Stands for the one that every generated module imports.
default_message_pool = betterproto2.MessagePool()


class AnyMethods:
    """Methods of google.protobuf.Any in place of betterproto2's, which encode at once (and slowly).

    Their source is copied, so they use only what a generated module has.
    """

    @classmethod
    def pack(cls, message: betterproto2.Message) -> typing.Self:
        """Wrap a message; it is kept as it is, until the encoder makes its bytes."""
        return cls(type_url=default_message_pool.type_to_url[type(message)], value=message)

    def unpack(self) -> betterproto2.Message | None:
        """Give the message inside; None if its class is not known here."""
        if not isinstance(self.value, bytes):
            return self.value
        kind = default_message_pool.url_to_type.get(self.type_url)
        return None if kind is None else kind.parse(self.value)

    def to_dict(self, **kwargs: object) -> dict[str, typing.Any]:
        """Give Protobuf's JSON form; a message whose class is not known here as base64."""
        message = self.unpack()
        if message is None:
            return {"@type": self.type_url, "value": betterproto2.b64encode(self.value).decode()}
        inner = message.to_dict(**kwargs)
        plain = type(message).to_dict is betterproto2.Message.to_dict
        return {"@type": self.type_url, **(inner if plain else {"value": inner})}


def compile_classes(files: FileDescriptorSet) -> Iterable[tuple[str, str]]:
    """The generated modules: path below the output's folder, and source."""
    from betterproto2_compiler.known_types import KNOWN_METHODS
    from betterproto2_compiler.lib.google.protobuf.compiler import CodeGeneratorRequest
    from betterproto2_compiler.plugin.parser import generate_code
    from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest as Request

    KNOWN_METHODS["google.protobuf", "Any"] = [AnyMethods.pack, AnyMethods.unpack, AnyMethods.to_dict]
    request = Request(parameter="client_generation=none", proto_file=files.file)
    for file in request.proto_file:
        file.source_code_info.SetInParent()  # the compiler takes it for granted
    with contextlib.redirect_stderr(io.StringIO()):
        response = generate_code(CodeGeneratorRequest.parse(request.SerializeToString()))
    return [(file.name, file.content) for file in response.file]


def generate(folder: Path) -> None:
    """Write all generated files below the folder."""
    for output in OUTPUTS:
        text = (ROOT / "tools" / output.wanted).read_text(encoding="utf-8")
        files = descriptors(Cut.of(read_wanted(text, output.wanted)))
        for name, content in compile_classes(files):
            write(folder / output.api / name, content.encode())
        write(folder / output.api / "__init__.py", output.docstring.encode())
        write(folder / output.api / "message_pool.py", output.pool.encode())
        if output.descriptors:
            write(folder / output.descriptors, files.SerializeToString(deterministic=True))


def write(path: Path, content: bytes) -> None:
    """Write a file, and the folders it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


# -- the command -------------------------------------------------------------------------------------------


def contents(root: Path) -> dict[Path, bytes]:
    """The generated files below a root: path -> content."""
    files = [file for output in OUTPUTS for file in (root / output.api).rglob("*")]
    files += [root / output.descriptors for output in OUTPUTS if output.descriptors]
    return {
        file.relative_to(root): file.read_bytes()
        for file in files
        if file.is_file() and not set(IGNORED) & set(file.parts)
    }


def check(fresh: Path) -> None:
    """Raise GenerateError if what is committed is not what generation gives."""
    old, new = contents(ROOT), contents(fresh)
    differing = sorted(str(path) for path in old.keys() | new.keys() if old.get(path) != new.get(path))
    if differing:
        more = f" and {len(differing) - 1} more" if differing[1:] else ""
        raise GenerateError(f"{differing[0]}{more} differ from what tools/wanted*.txt give: run `make generate`")


def install(fresh: Path) -> None:
    """Put the generated files where they belong."""
    for output in OUTPUTS:
        shutil.rmtree(ROOT / output.api, ignore_errors=True)
    for path in contents(fresh):
        write(ROOT / path, (fresh / path).read_bytes())


def main() -> None:
    """Run the command; inside the environment with --output."""
    parser = argparse.ArgumentParser(description="Make the message classes from tools/wanted*.txt.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if what is committed differs")
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    try:
        if arguments.output:
            generate(arguments.output)
            return
        with tempfile.TemporaryDirectory() as folder:
            run_inside(Path(folder))
            check(Path(folder)) if arguments.check else install(Path(folder))
    except GenerateError as error:
        raise SystemExit(f"generate.py: {error}") from None


if __name__ == "__main__":
    main()
