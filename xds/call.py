"""One gRPC call at the server, whatever its service: all that is waited for has a deadline, and can be ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

import grpc
import grpc.aio

from xds.credentials import peer_of
from xds.hangup import Cutter
from xds.identity import Peer
from xds.session import ProtocolError

_T = TypeVar("_T")

_CANCEL_SECONDS = 5.0
"""How long gRPC may take to cancel a call whose connection is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a client may take of the server. Times in seconds.

    Args:
        handshake: until a new connection has shown that it speaks TLS, if that is asked for, and HTTP/2.
        idle: until a connection without a stream is closed.
        first_request: until a new stream has said what it wants.
        identify: until it is known who its client is.
        write: until a client has taken a response; it is cut off then, with its connection.
        admission_rate: new streams a second, and so many at once after a pause; never how many there may be. As many
            of load reports beside them, and as many that fail to say who they are.
        connection_age: after which a stream is moved to a new connection, a tenth more or less; 0: never.
    """

    handshake: float = 10.0
    idle: float = 60.0
    first_request: float = 10.0
    identify: float = 10.0
    write: float = 30.0
    admission_rate: float = 1000.0
    connection_age: float = 0.0


class Ended(Exception):
    """The server ends a stream for reasons of its own; the client is to come again."""

    status = "UNAVAILABLE"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Call:
    """One call. Everything happens in one event loop, so nothing is locked.

    Args:
        context: gRPC's.
        limits: see there.
        cutter: the server's.
    """

    __slots__ = (
        "_alarm", "_context", "_cutter", "_deadline", "_limits", "_loop", "_rest", "_stuck", "_wake", "_write_until",
        "left", "over", "peer", "task",
    )  # fmt: skip

    def __init__(self, context: grpc.aio.ServicerContext[bytes, bytes], limits: Limits, cutter: Cutter) -> None:
        self._context = context
        self._limits = limits
        self._cutter = cutter
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._deadline: asyncio.Timeout | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._write_until: float | None = None
        self._rest: asyncio.Future[None] | None = None
        self._stuck = False
        self.task: asyncio.Task[None] | None = asyncio.current_task()
        self.peer: str = context.peer()
        self.over: BaseException | bool = False
        """Whether the call is to end: True for well, or what to end it with."""
        self.left = False
        """Whether the client ended the call, or went away; or gRPC ended it, for a message of more than it takes.

        The two look alike at a server of grpc.aio: the read gives no more, the task is cancelled, no status is set.
        """

    def wake(self) -> None:
        """There is something to look at."""
        self._wake.set()

    def end(self, error: BaseException | None = None) -> None:
        """Let the call end; what ends it first counts."""
        if not self.over:
            self.over = error or True
            self._wake.set()
            if self._deadline is not None and not self._deadline.expired():
                self._deadline.reschedule(0)
            if self._rest is not None and not self._rest.done():
                self._rest.set_result(None)

    async def changed(self, seconds: float | None) -> None:
        """Wait until something happened, about so long at most; it may also be woken for nothing."""
        if seconds is not None:
            self._arm(self._loop.time() + seconds)
        await self._wake.wait()
        self._wake.clear()

    async def rest(self, seconds: float) -> None:
        """Let others have their turn for so long, or until the call is to end. For the one that reads."""
        if seconds > 0 and not self.over:
            self._rest = self._loop.create_future()
            try:
                await asyncio.wait((self._rest,), timeout=seconds)
            finally:
                self._rest = None

    def finish(self) -> None:
        """The call is over: nothing is to hold on to it."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _arm(self, at: float) -> None:
        """Let the alarm ring at a moment. One that rings sooner stays: a timer for each push would cost too much."""
        if self._alarm is None or at < self._alarm.when():
            self.finish()
            self._alarm = self._loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        if self._write_until is None:
            self._wake.set()
        elif self._loop.time() < self._write_until:
            self._arm(self._write_until)
        elif self.task is not None:
            self._stuck = True
            self.task.cancel()

    async def within(self, seconds: float | None, work: Awaitable[_T], late: ProtocolError | Ended) -> _T:
        """What some work gives.

        Raises:
            ProtocolError, Ended: it took too long (`late`), or the call is to end.
        """
        try:
            async with asyncio.timeout(0 if self.over else seconds) as self._deadline:
                return await work
        except TimeoutError:
            if self._deadline is None or not self._deadline.expired():
                raise
            raise (self.over if isinstance(self.over, BaseException) else late) from None
        finally:
            self._deadline = None

    def who(self) -> Peer:
        """What the client brought along with its call.

        Raises:
            Denied: UNAUTHENTICATED; it cannot be read.
        """
        return peer_of(self._context)

    async def first(self) -> bytes | None:
        """The first message; None if the client left without one.

        Raises:
            ProtocolError, Ended: none came in time, or the call is to end.
        """
        seconds = self._limits.first_request
        return await self.next(seconds, ProtocolError("DEADLINE_EXCEEDED", f"no request within {seconds:g} s"))

    async def next(self, seconds: float | None, late: ProtocolError | Ended) -> bytes | None:
        """The next message, if it comes in so many seconds; None if there are no more.

        Raises:
            ProtocolError, Ended: it did not come (`late`), or the call is to end.
        """
        reading = asyncio.ensure_future(self.read())
        reading.add_done_callback(_retrieve)
        return await self.within(seconds, asyncio.shield(reading), late)

    async def read(self) -> bytes | None:
        """The next message; None if there are no more.

        Not to be cancelled: gRPC ends it with the call, and a read that is cancelled would never give back what it has
        allocated, a hundred bytes for each stream that ever was (grpc/grpc#43360).
        """
        data = await self._context.read()
        if data is grpc.aio.EOF:
            self.left = True
            return None
        return bytes(data)

    async def write(self, message: bytes) -> None:
        """Give the client a message; returns when it was taken by what is between.

        If the client does not read in time, the call is to end.
        """
        self._write_until = self._loop.time() + self._limits.write
        self._arm(self._write_until)
        try:
            await self._context.write(message)
        except asyncio.CancelledError:
            if not self._stuck or (self.task is not None and self.task.uncancel()):
                raise  # gRPC cancels it: the client is gone
            self.end(ProtocolError("DEADLINE_EXCEEDED", f"did not read a response within {self._limits.write:g} s"))
        except grpc.aio.InternalError:
            # The connection broke; gRPC cancels this task next.
            self.left = True
            self.end()
            await asyncio.sleep(_CANCEL_SECONDS)
        finally:
            self._write_until = None

    async def close(self, status: str, message: str) -> None:
        """End the call with a status; one that is stuck by cutting its connection."""
        if self._stuck and await self._cutter.cut(self.peer):
            await asyncio.sleep(_CANCEL_SECONDS)
        await self._context.abort(grpc.StatusCode[status], message)


def _retrieve(reading: asyncio.Future[bytes | None]) -> None:
    """Nobody may be left to see how a read ended; asyncio would say so."""
    if not reading.cancelled():
        reading.exception()
