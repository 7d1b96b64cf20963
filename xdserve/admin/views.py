"""What the admin endpoints show: the state they read, as plain data, and its JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime
from enum import Enum
from pathlib import PurePath
from typing import Any, Protocol, TypedDict

from xdserve.pauses import Pauses

# A mapping, or a dataclass instance: both become a JSON object.
Record = Any


class ErrorSource(TypedDict):
    """Where an error was read: the file, relative to the source, and its document (0: the file as a whole)."""

    file: str
    document: int


class ErrorEntry(TypedDict):
    """One thing that is not as its user wants it now (`/debug/errors`)."""

    source: ErrorSource | None
    object: str | None
    field: str
    reason: str
    message: str
    since: str


class RejectionEntry(TypedDict):
    """A version that Envoys refuse of what a gateway is to have now (`/debug/rejections`)."""

    gateway: str
    type: str
    name: str
    version: str
    served: str | None
    cause: str
    node: str
    code: int
    message: str
    since: str
    object: str | None
    field: str | None
    source: ErrorSource | None


class Condition(TypedDict):
    """A condition as Kubernetes has it; `status` is `True`, `False` or `Unknown`."""

    type: str
    status: str
    reason: str
    message: str


class StatusEntry(TypedDict):
    """The conditions of one object (`/debug/status`)."""

    object: str
    conditions: list[Condition]


class State(Protocol):
    """What the endpoints read. Each entry is data of its own, which nobody changes afterwards.

    Lists may be long: entries are made one by one, and others get their turn in between.
    """

    def awaited(self) -> str:
        """What is waited for before Envoys are served, in words; empty when they are."""
        ...

    def gateways(self) -> Iterable[Record]:
        """Each gateway: at least its `name`."""
        ...

    def nodes(self) -> Iterable[Record]:
        """Each connected Envoy: sent, acknowledged and rejected versions by type."""
        ...

    def resources(self, gateway: str) -> Mapping[str, Any] | None:
        """What the gateway is to have, by type; None when there is no such gateway."""
        ...

    def status(self) -> Iterable[Record]:
        """Each object with its conditions: `StatusEntry`."""
        ...

    def errors(self) -> Iterable[Record]:
        """What is wrong now: `ErrorEntry`."""
        ...

    def rejections(self) -> Iterable[Record]:
        """What Envoys refuse now: `RejectionEntry`."""
        ...

    def retry(self, gateway: str) -> int | None:
        """Forget what Envoys refused of the gateway: how many versions; None when there is no such gateway."""
        ...


def plain(value: object) -> object:
    """What `json` does not know as what it knows (its `default` hook).

    Raises:
        TypeError: the value has no JSON form.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for kind, convert in _PLAIN:
        if isinstance(value, kind):
            return convert(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


_PLAIN: tuple[tuple[type, Callable[[Any], object]], ...] = (
    (Enum, lambda value: value.value),
    (Mapping, lambda value: {str(key): item for key, item in value.items()}),
    (AbstractSet, sorted),
    (PurePath, str),
    (datetime, lambda value: value.isoformat(timespec="milliseconds").replace("+00:00", "Z")),
    (bytes, bytes.hex),
)


async def encode(value: object, *, pretty: bool) -> bytes:
    """JSON of a value, ending in a newline; a long list is made in slices, so that streams go on meanwhile."""
    encoder = json.JSONEncoder(default=plain, indent=2 if pretty else None, ensure_ascii=False)
    if not isinstance(value, list | tuple | Iterator):
        return (encoder.encode(value) + "\n").encode()
    parts = []
    pauses = Pauses()
    for entry in value:
        parts.append(encoder.encode([entry])[1:-1].rstrip())
        if pauses.due:
            await pauses.take()
    closing = "\n]" if pretty and parts else "]"
    return ("[" + (",".join(parts) if pretty else ", ".join(parts)) + closing + "\n").encode()
