"""What the server tells of its streams, and to whom. Values and a protocol, without behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from xds.memory import Rejection
from xds.session import Event, Response, TypeView, Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """Who is at the other end of a stream, and what kind of stream it is."""

    id: int
    gateway: str
    node_id: str
    peer: str
    user_agent: str
    connected_since: datetime
    known: bool
    """Whether the gateway was published when the stream came."""
    service: str = "ads"
    """`ads`, or the one type that is served on it: `cds`, `eds`, ..."""
    variant: Variant = Variant.DELTA


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """One connected Envoy, or one stream of it where it has one for each type, for `/debug/nodes`."""

    stream: StreamInfo
    types: tuple[TypeView, ...]


class Observer(Protocol):
    """What the program wants to know: for metrics, logs and status. Called in the event loop; must not block."""

    def opened(self, stream: StreamInfo) -> None:
        """A stream said who it is."""

    def closed(self, stream: StreamInfo) -> None:
        """A stream that was opened is over."""

    def event(self, stream: StreamInfo, event: Event) -> None:
        """A client said something, or said nothing for too long."""

    def sent(self, stream: StreamInfo, response: Response) -> None:
        """A response is about to be written."""

    def rejections(self, gateway: str, rejections: tuple[Rejection, ...]) -> None:
        """What Envoys refuse of what a gateway is to have; all of it, whenever it is something else than before."""

    def refused(self, peer: str, status: str, message: str) -> None:
        """A stream, of resources or of load reports, was ended for what the client did, or refused at its start."""
