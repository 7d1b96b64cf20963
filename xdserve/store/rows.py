"""Values to rows and back; nothing here touches a file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from translator.objects.ref import Origin, Ref
from xds.memory import Cause, Refusal
from xds.types import ResourceType
from xds.wire.resource import Resource

LONGEST_MESSAGE = 4096
"""Characters of an Envoy's words that are kept; a peer may send megabytes."""

TYPES = {type_.short: type_ for type_ in ResourceType if type_ is not ResourceType.SECRET}
"""The types that are stored, by the name they have in the file: all but secrets."""


class Key(NamedTuple):
    """The columns that say of what a row is."""

    gateway: bytes
    type: str
    name: bytes


class Good(NamedTuple):
    """A row of `good`, but for its key."""

    digest: bytes
    position: int
    origin: str | None


class Frame(NamedTuple):
    """A row of `frames`: all of a resource that two gateways may share."""

    digest: bytes
    version: bytes
    frame: bytes
    uses: str
    vacant: int
    slow: int


class Refused(NamedTuple):
    """A row of `refused`, but for its key."""

    position: int
    version: bytes
    code: int
    message: bytes
    node: bytes
    cause: str


def blob(text: str) -> bytes:
    """Any text, also one that UTF-8 has no form for."""
    return text.encode("utf-8", "surrogatepass")


def text(data: bytes) -> str:
    """The text of a blob. Raises UnicodeDecodeError."""
    return data.decode("utf-8", "surrogatepass")


def key_of(gateway: str, type_: ResourceType, name: str) -> Key:
    """The key of what a gateway remembers of a name."""
    return Key(blob(gateway), type_.short, blob(name))


def frame_of(key: Key, resource: Resource) -> Frame:
    """The row of a resource's content."""
    uses = json.dumps(sorted(resource.uses))
    frame = Frame(b"", blob(resource.version), resource.frame, uses, int(resource.vacant), int(resource.slow))
    return frame._replace(digest=digest_of(key, frame))


def digest_of(key: Key, frame: Frame) -> bytes:
    """The identity of a frame: of all that two gateways share. It also shows that a row was altered."""
    uses = frame.uses.encode()
    sizes = (len(key.name), len(frame.version), len(uses), frame.vacant, frame.slow)
    head = (b"%d %d %d %d %d " % sizes, key.name, frame.version, uses, key.type.encode(), b" ")
    made = blake2b(b"".join(head), digest_size=16)
    made.update(frame.frame)
    return made.digest()


def refused_of(refusals: Iterable[Refusal]) -> list[Refused]:
    """The rows of refusals."""
    return [
        Refused(
            position,
            blob(refusal.version),
            int(refusal.code),
            blob(refusal.message[:LONGEST_MESSAGE]),
            blob(refusal.node),
            refusal.cause.value,
        )
        for position, refusal in enumerate(refusals)
    ]


def refusal_of(row: Refused) -> Refusal:
    """The refusal of a row. Raises ValueError, TypeError or AttributeError if this program did not write it."""
    return Refusal(
        version=text(row.version),
        code=int(row.code),
        message=text(row.message),
        node=text(row.node),
        cause=Cause(row.cause),
    )


def write_origin(origin: object) -> str | None:
    """An Origin as JSON: the four parts of its object, then the field. What is no Origin is not kept."""
    return json.dumps([*origin.object, origin.field]) if isinstance(origin, Origin) else None


def read_origin(written: str | None) -> Origin | None:
    """What write_origin wrote.

    Raises:
        ValueError, TypeError: it did not write this.
    """
    if written is None:
        return None
    group, kind, namespace, name, field = parts = json.loads(written)
    if not all(isinstance(part, str) for part in parts):
        raise TypeError("an origin is of strings")
    return Origin(Ref(group, kind, namespace, name), field)
