"""What the admin endpoints show: the state they read, as plain data, and its JSON."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from enum import Enum
from pathlib import PurePath
from typing import Any, Protocol, TypedDict

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
    """What the endpoints read. Each call gives data of its own, which nobody changes afterwards."""

    def ready(self) -> bool:
        """Whether the sources are read and the first pass is done."""
        ...

    def gateways(self) -> Sequence[Record]:
        """Each gateway: at least its `name`."""
        ...

    def nodes(self) -> Sequence[Record]:
        """Each connected Envoy: sent, acknowledged and rejected versions by type."""
        ...

    def resources(self, gateway: str) -> Mapping[str, Any] | None:
        """What the gateway is to have, by type; None when there is no such gateway."""
        ...

    def status(self) -> Sequence[Record]:
        """Each object with its conditions: `StatusEntry`."""
        ...

    def errors(self) -> Sequence[Record]:
        """What is wrong now: `ErrorEntry`."""
        ...


# Entries that are turned into JSON before others get their turn: some milliseconds' work.
_SLICE = 50


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
    indent = 2 if pretty else None
    if not isinstance(value, list | tuple):
        return (json.dumps(value, default=plain, indent=indent, ensure_ascii=False) + "\n").encode()
    parts = []
    for start in range(0, len(value), _SLICE):
        text = json.dumps(value[start : start + _SLICE], default=plain, indent=indent, ensure_ascii=False)
        parts.append(text[1:-1].rstrip())
        await asyncio.sleep(0)
    closing = "\n]" if pretty and parts else "]"
    return ("[" + (",".join(parts) if pretty else ", ".join(parts)) + closing + "\n").encode()
