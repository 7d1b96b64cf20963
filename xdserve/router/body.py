"""Request bodies: read within bounds, and parsed strictly."""

from __future__ import annotations

import asyncio
import json
import math
import re
from typing import Any, NoReturn

from aiohttp import web
from aiohttp.client_exceptions import ClientPayloadError
from aiohttp.http_exceptions import HttpProcessingError

from xdserve.router.answers import Failure

# Empty lists need 25 times the memory of their text, and seconds in which nothing else runs.
MAX_ELEMENTS = 2_000_000

# To the end of the body where a string has none, so that no part is looked at twice.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)


class OutOfMemory(Exception):
    """Holding more would be beyond the bound."""


class Memory:
    """Counts the bytes of bodies that are held, and refuses more than `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    def share(self) -> Share:
        """A share for one request, of nothing yet."""
        return Share(self)

    def take(self, size: int) -> None:
        """Hold so much more.

        Raises:
            OutOfMemory: nothing more is held.
        """
        if self.held + size > self._limit:
            raise OutOfMemory
        self.held += size


class Share:
    """What one request holds of the memory."""

    __slots__ = ("_memory", "_size")

    def __init__(self, memory: Memory) -> None:
        self._memory, self._size = memory, 0

    def add(self, size: int) -> None:
        """Hold so much more; raises OutOfMemory."""
        self._memory.take(size)
        self._size += size

    def close(self) -> None:
        """Hold nothing any more."""
        self._memory.held -= self._size
        self._size = 0


async def read(request: web.Request, share: Share, *, limit: int, seconds: float) -> bytes:
    """Read a request's whole body, at most `limit` bytes, as they are after decompression.

    Raises:
        Failure: 400 (it cannot be decompressed), 408 (no next part for `seconds`), 413 (too large).
        OutOfMemory: the share cannot get larger.
    """
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    body = bytearray()
    while part := await _part(request, seconds):
        if len(body) + len(part) > limit:
            raise _too_large(limit)
        share.add(len(part))
        body += part
    return bytes(body)


async def _part(request: web.Request, seconds: float) -> bytes:
    if not request.can_read_body:
        return b""
    try:
        async with asyncio.timeout(seconds):
            return await request.content.readany()
    except TimeoutError:
        raise Failure(408, f"no part of the body came for {seconds:g} s", close=True) from None
    except (HttpProcessingError, ClientPayloadError, web.RequestPayloadError) as error:
        raise Failure(400, f"the body cannot be read: {error}", close=True) from None


def _too_large(limit: int) -> Failure:
    return Failure(413, f"the body is too large: allowed are {limit} bytes")


def parse(body: bytes) -> Any:  # noqa: ANN401 - JSON of any shape
    """Parse JSON as its standard has it: UTF-8, and no NaN or Infinity.

    Raises:
        ValueError: says what is wrong.
    """
    if _has_too_many(body):
        raise ValueError(f"more than {MAX_ELEMENTS} elements")
    try:
        return json.loads(body.decode(), parse_constant=_no_constant, parse_float=_number)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise ValueError("nested too deep") from None


def _has_too_many(body: bytes) -> bool:
    """Whether a body has more values, or strings, than is well; found without making them."""
    strings = (body.count(b'"') - body.count(b'\\"')) // 2
    if strings > MAX_ELEMENTS:
        return True
    # Commas in strings are none: where there are many, the strings are taken out first.
    return _elements(body) > MAX_ELEMENTS and _elements(_STRING.sub(b"", body)) > MAX_ELEMENTS


def _elements(body: bytes) -> int:
    return sum(map(body.count, (b",", b"[", b"{")))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:20]} is beyond a number's range")
    return number


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a body that must be a JSON object.

    Raises:
        Failure: 400.
    """
    try:
        value = parse(body)
    except ValueError as error:
        raise Failure(400, f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Failure(400, f"the body is {kind_of(value)}, allowed is an object")
    return value


def text_of(value: object, where: str) -> str:
    """A value that must be text which can be written as UTF-8.

    Raises:
        Failure: 400.
    """
    if not isinstance(value, str):
        raise Failure(400, f"{where}: found {kind_of(value)}, allowed is a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Failure(400, f"{where}: found half of a surrogate pair, allowed is Unicode text") from None
    return value


_KINDS = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}


def kind_of(value: object) -> str:
    """What JSON calls the value."""
    return _KINDS.get(type(value), "null")
