"""What a session tells the outside: events, responses, views for debugging, errors. Plain values, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from xds.types import ResourceType


class LocalError(RuntimeError):
    """This server broke its own protocol rules: a bug of ours, never the client's doing."""


class ProtocolError(Exception):
    """The client broke the protocol; its stream ends with `status` (the name of a gRPC status) and `message`."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscribed:
    """The client asked for names or let go of some; `*` stands for all of the type."""

    type: ResourceType
    first: bool
    names: frozenset[str]
    dropped: frozenset[str]
    held: Mapping[str, str] = field(default_factory=dict)
    """Versions that the client has of an earlier stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """The client took a response: versions by name, names removed, seconds from sending to the ACK."""

    type: ResourceType
    nonce: str
    versions: Mapping[str, str]
    removed: frozenset[str]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The client refused a response, in its own words. Not atomic: it may still have taken parts of it."""

    type: ResourceType
    nonce: str
    versions: Mapping[str, str]
    removed: frozenset[str]
    seconds: float
    code: int
    message: str
    partial: bool = False
    """Whether the words may mean more: names that the client let go of since, or another response before this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """A request answered a response that is not in flight: its answer did not count."""

    type: ResourceType
    nonce: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownType:
    """The client asked for a type that this server does not have; nothing is answered."""

    type_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdue:
    """A response has no answer for so many seconds; it condemns nothing, for warming clusters look the same."""

    type: ResourceType
    nonce: str
    names: frozenset[str]
    seconds: float


Event = Subscribed | Acknowledged | Rejected | Stale | UnknownType | Overdue


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One response, encoded, with the figures of it that metrics want."""

    type: ResourceType
    nonce: str
    frame: bytes
    resources: int
    removed: int
    coalesced: int = 0
    """Changes that are never sent by themselves, as a later one of the same name came before a response could go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeView:
    """One type that a client asked for, for `/debug/nodes`: versions by name, and what waits for what."""

    type: ResourceType
    wildcard: bool
    subscribed: int
    sent: Mapping[str, str]
    acknowledged: Mapping[str, str]
    in_flight: tuple[str, ...]
    waiting: Mapping[str, str]
