"""The life of a stream: one task writes, one reads, so that flow control of one way never stops the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from xds.api.envoy.config.core.v3 import Node
from xds.call import Call, Ended
from xds.gateway import Gateway
from xds.loads import LoadSession
from xds.memory import Rejection
from xds.observer import Observer, StreamInfo
from xds.services import Discovery
from xds.session import MOST_FIELDS, Event, ProtocolError, Request, UnknownType
from xds.wire import DecodeError, decode

LONGEST_TEXT = 256
"""Characters that are kept of what a client calls itself, or asks for: they stand in log lines."""

UNKNOWN_TYPES = 10
"""Types that a client can ask for without being served, until no more of them are told."""

SHORT = 0.01
"""Seconds that a request may take of the event loop without its stream having to rest."""

LONGEST_REST = 5.0
"""Seconds; no request takes so long, but the process may have been stopped meanwhile."""

_MOVED = "this connection is old; another server may have room"


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What the streams of a server have in common.

    Args:
        observer: is told what happens.
        clock: seconds, monotonic.
        said: is called when a client of a gateway said something, with what Envoys refused of it before.
    """

    observer: Observer
    clock: Callable[[], float]
    said: Callable[[Gateway, tuple[Rejection, ...]], None]


class Pace:
    """Lets a stream rest after each request as long as the request took, so that it has half of the event loop at most.

    What is read of a client is bounded, but a bound that lets large Envoys in is a good part of a second, in which no
    other stream is served. A stream that is refused for a request rests before it is told: its client would come again
    at once.

    Args:
        clock: seconds, monotonic.
    """

    __slots__ = ("_clock", "_since", "rest")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: float | None = None
        self.rest = 0.0
        """Seconds until the next request is to be read."""

    def begin(self) -> None:
        """A request was read."""
        self._since = self._clock()

    def done(self) -> None:
        """It was dealt with."""
        took = 0.0 if self._since is None else self._clock() - self._since
        self._since = None
        self.rest = min(took, LONGEST_REST) if took > SHORT else 0.0


class Stream:
    """One stream that serves resources.

    Args:
        info: who is at its other end.
        method: how it speaks.
        call: its messages.
        gateway: what it serves; joined now. The caller lets it leave when `run` is over.
        desk: the server's.
        until: when it is to move to another connection, by the clock of the desk.
        first: its first request.
        pace: begun with that request.
    """

    __slots__ = ("_call", "_desk", "_first", "_pace", "_request", "_unknown", "_until", "gateway", "info", "session")

    def __init__(  # noqa: PLR0913 - what a stream is
        self,
        info: StreamInfo,
        method: Discovery,
        *,
        call: Call,
        gateway: Gateway,
        desk: Desk,
        until: float | None,
        first: Request,
        pace: Pace,
    ) -> None:
        self.info = info
        self._call = call
        self.gateway = gateway
        self._desk = desk
        self._until = until
        self._first: list[Request] = [first]
        self._pace = pace
        self._request = method.request
        self._unknown: frozenset[str] = frozenset()
        self.session = gateway.connect(
            info.id,
            node_id=info.node_id,
            variant=method.variant,
            types=method.types,
            wake=call.wake,
            prefix=f"{info.id:x}-",
        )

    async def run(self) -> None:
        """Serve until the client is done.

        Raises:
            ProtocolError, Ended: what the stream is to end with.
        """
        self._receive(self._first.pop())
        self._pace.done()
        reader = asyncio.create_task(self._read())
        reader.add_done_callback(self._read_over)
        try:
            await self._write()
        finally:
            self._call.end()  # the reader ends by itself then: it must not be cancelled
        if isinstance(self._call.over, BaseException):
            raise self._call.over

    # -- Requests ----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Take requests until the client is done or wrong, or the stream is over."""
        while await self._rested() and (data := await self._call.read()) is not None and not self._call.over:
            self._pace.begin()
            self._receive(decoded(self._request, data))
            self._pace.done()
            del data  # or it would be held until the next one comes

    async def _rested(self) -> bool:
        """Let others have their turn after a request that took long; whether the stream goes on."""
        await self._call.rest(self._pace.rest)
        return not self._call.over

    def _read_over(self, reader: asyncio.Task[None]) -> None:
        """However reading ended, it ends the stream."""
        self._call.end(None if reader.cancelled() else reader.exception())

    def _receive(self, request: Request) -> None:
        rejections = self.gateway.rejections()
        for event in self.gateway.receive(self.info.id, request, self._desk.clock()):
            self._tell(event)
        self._desk.said(self.gateway, rejections)

    def _tell(self, event: Event) -> None:
        if isinstance(event, UnknownType):
            type_url = event.type_url[:LONGEST_TEXT]
            if type_url in self._unknown or len(self._unknown) >= UNKNOWN_TYPES:
                return
            self._unknown |= {type_url}
            event = UnknownType(type_url=type_url)
        self._desk.observer.event(self.info, event)

    # -- Responses ---------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        """Send what is to be sent; one response at a time, so that a slow client gets the last version only."""
        while not self._call.over:
            now = self._desk.clock()
            if _is_over(self._until, now):
                self._call.end(Ended(_MOVED))
            elif not self.gateway.published:
                await self._changed(self._until)
            elif not await self._send(now):
                await self._changed(self._wake_at())

    async def _send(self, now: float) -> bool:
        """Send one response, if there is one to send."""
        if _is_over(self.gateway.wake_at(), now):
            rejections = self.gateway.rejections()
            self.gateway.tick(now)
            self._desk.said(self.gateway, rejections)
        for event in self.session.overdue(now):
            self._tell(event)
        response = self.session.next(now)
        if response is None:
            return False
        self._desk.observer.sent(self.info, response)
        await self._call.write(response.frame)
        return True

    def _wake_at(self) -> float | None:
        moments = (self.session.wake_at(), self.gateway.wake_at(), self._until)
        return min((moment for moment in moments if moment is not None), default=None)

    async def _changed(self, wake_at: float | None) -> None:
        await self._call.changed(None if wake_at is None else max(0.0, wake_at - self._desk.clock()))


def _is_over(moment: float | None, now: float) -> bool:
    return moment is not None and now >= moment


def decoded(kind: type[Request], data: bytes) -> Request:
    """A request.

    Raises:
        ProtocolError: INVALID_ARGUMENT; it is none, or takes more work than any Envoy asks for.
    """
    try:
        return decode(kind, data, most=MOST_FIELDS)
    except DecodeError as error:
        raise ProtocolError("INVALID_ARGUMENT", f"not a {kind.__name__}: {error}") from error


def user_agent(node: Node) -> str:
    """Name and version; an Envoy says its version in numbers, other clients as text."""
    build = node.user_agent_build_version and node.user_agent_build_version.version
    version = f"{build.major_number}.{build.minor_number}.{build.patch}" if build else node.user_agent_version
    return f"{node.user_agent_name} {version or ''}".strip()[:LONGEST_TEXT]


async def take_reports(
    call: Call, session: LoadSession, reply: bytes | None, seconds: float | None, pace: Pace
) -> None:
    """Serve a stream of load reports, for so long at most; `reply` answers the one that was taken already.

    No report is held while the next is waited for: one may have megabytes.

    Raises:
        ProtocolError, Ended: what the stream is to end with.
    """
    loop = asyncio.get_running_loop()
    until = None if seconds is None else loop.time() + seconds
    while not call.over:
        if reply:
            await call.write(reply)
        await call.rest(pace.rest)
        left = None if until is None else max(0.0, until - loop.time())
        data = await call.next(left, Ended(_MOVED))
        if data is None:
            break
        pace.begin()
        reply = taken(session, data)
        pace.done()
        del data
    if isinstance(call.over, BaseException):
        raise call.over


def taken(session: LoadSession, data: bytes) -> bytes | None:
    """Take a load report in; the answer to it, if it wants one.

    Raises:
        ProtocolError: INVALID_ARGUMENT; it is none.
    """
    try:
        return session.receive(data)
    except DecodeError as error:
        raise ProtocolError("INVALID_ARGUMENT", f"not a LoadStatsRequest: {error}") from error
