"""One resource of the apiserver, followed: a list, then every change, through outages of any kind.

What it does next is decided by ``Course``; here are the requests. Raw JSON, no models: an object is read by whoever
asked for it, page by page, so that a large list is never held as documents.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import aiohttp
from kubernetes.aio.client.rest import RESTResponse
from kubernetes.aio.config import ConfigException

from xdserve.kube.client import Client
from xdserve.kube.course import Course, Do, Failed, Trouble
from xdserve.kube.frames import (
    Bookmark,
    Changed,
    Document,
    Lines,
    failure,
    frame,
    parsed,
    slim,
    version_of,
)
from xdserve.kube.resources import Scope

PAGE = 500
BREATH = 50
"""Objects that are read before others get their turn: a few ms."""

REQUEST_SECONDS = 60.0
CONNECT_SECONDS = 10.0
WATCH_SECONDS = (300, 600)
"""How long the apiserver is asked to keep a watch, at random, so that watches do not end together."""

SILENCE_SECONDS = 150.0
"""A watch without a byte for so long is taken for dead: apiservers send bookmarks about once a minute."""

GRACE_SECONDS = 30.0

T = TypeVar("T")


class Listed(NamedTuple, Generic[T]):
    """All objects of the resource; there are no others. ``installed`` is False where the cluster does not serve it."""

    objects: Sequence[T]
    installed: bool = True


class Upserted(NamedTuple, Generic[T]):
    """An object is new, or has changed to this."""

    object: T


class Deleted(NamedTuple):
    """An object is gone; the document says what it was."""

    document: Document


Event = Listed[T] | Upserted[T] | Deleted


@dataclass(slots=True)
class Counts:
    """Requests made, and why some failed."""

    lists: int = 0
    pages: int = 0
    watches: int = 0
    looks: int = 0
    failures: Counter[Trouble] = field(default_factory=Counter)


class Reflector(Generic[T]):
    """Follows a resource until cancelled.

    Args:
        client: how the apiserver is reached.
        scope: what is followed.
        read: makes of each document what is wanted of it.
        take: gets what has come at once, in order; the first event ever is ``Listed``.
        tell: called when ``trouble`` is another.
        counts: of an earlier reflector of the same, to be added to.
    """

    def __init__(  # noqa: PLR0913 - what a reflector is made of
        self,
        client: Client,
        scope: Scope,
        read: Callable[[Document], T],
        take: Callable[[Sequence[Event[T]]], None],
        tell: Callable[[], None] = lambda: None,
        *,
        counts: Counts | None = None,
    ) -> None:
        self.counts = counts or Counts()
        self._client = client
        self._resource = scope.resource
        self._read = read
        self._take = take
        self._tell = tell
        self._namespace = scope.namespace
        self._selector = {"labelSelector": scope.selector} if scope.selector else {}
        self._version = scope.resource.versions[0]
        self._random = random.SystemRandom().random
        self._course = Course(self._random)

    @property
    def trouble(self) -> str | None:
        """Why nothing comes, in one line; None while all is well."""
        return self._course.trouble

    async def run(self) -> None:
        """Follow the resource until cancelled."""
        while True:
            said = self.trouble
            step = self._course.step
            await asyncio.sleep(step.after)
            try:
                await self._do(step.do)
            except Failed as error:
                self.counts.failures[error.trouble] += 1
                self._course.failed(error)
            self._told(said)

    async def _do(self, do: Do) -> None:
        match do:
            case Do.LIST:
                await self._list()
            case Do.WATCH:
                await self._watch()
            case Do.LOOK:
                await self._look()

    async def _list(self) -> None:
        """All pages of one list, which are of one moment."""
        self.counts.lists += 1
        found: list[T] = []
        token = ""
        while True:
            self.counts.pages += 1
            query = {"limit": str(PAGE), **({"continue": token} if token else {}), **self._selector}
            async with self._client.lists:
                page = parsed(await self._get(self._resource.path(self._version, self._namespace), query))
            await self._read_page(page, found)
            token = page["metadata"].get("continue") or ""
            if not token:
                break
        self._course.listed(version_of(page))
        self._take([Listed(found)])

    async def _read_page(self, page: Document, found: list[T]) -> None:
        version_of(page)
        items = page.get("items", "none")
        items = [] if items is None else items  # as Go writes an empty list
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise Failed(Trouble.BROKEN, f"the list of {self._resource} has no items")
        while items:
            found += [self._read(self._identified(slim(item))) for item in items[:BREATH]]
            del items[:BREATH]
            await asyncio.sleep(0)

    def _identified(self, item: Document) -> Document:
        """In lists the API leaves out what is the same of all items."""
        item.setdefault("kind", self._resource.kind)
        item.setdefault("apiVersion", "/".join(filter(None, (self._resource.group, self._version))))
        return item

    async def _watch(self) -> None:
        """One watch, from the last resourceVersion to its end."""
        self.counts.watches += 1
        begun = asyncio.get_running_loop().time()
        shortest, longest = WATCH_SECONDS
        seconds = shortest + int(self._random() * (longest - shortest))
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
            "resourceVersion": str(self._course.resource_version),
            **self._selector,
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        try:
            async with asyncio.timeout(seconds + GRACE_SECONDS):
                answer = await self._request(self._resource.path(self._version, self._namespace), query, timeout)
                try:
                    await self._follow(answer)
                finally:
                    _hang_up(answer)
        except aiohttp.SocketTimeoutError as error:
            raise Failed(Trouble.AWAY, f"a watch of {self._resource} brings nothing", silent=True) from error
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            raise _away(error, "the watch broke off") from error
        self._course.ended(asyncio.get_running_loop().time() - begun)

    async def _follow(self, answer: RESTResponse) -> None:
        said = self.trouble
        self._course.opened()
        said = self._told(said)
        lines = Lines()
        while chunk := await answer.response.content.readany():
            events: list[Event[T]] = []
            try:
                for line in lines.feed(chunk):
                    self._frame(line, events)
            finally:
                if events:
                    self._take(events)
            said = self._told(said)

    def _told(self, said: str | None) -> str | None:
        """Tell, if the trouble is another than was said; gives what is said now."""
        if self.trouble != said:
            self._tell()
        return self.trouble

    def _frame(self, line: bytes, events: list[Event[T]]) -> None:
        found = frame(line)
        if isinstance(found, Bookmark):
            self._course.moved(found.resource_version)
            return
        version = version_of(found.document)
        if isinstance(found, Changed):
            events.append(Upserted(self._read(self._identified(found.document))))
        else:
            events.append(Deleted(self._identified(found.document)))
        self._course.moved(version)

    async def _look(self) -> None:
        """Whether the cluster serves the resource, by its discovery; an apiserver that is not ready does not say."""
        self.counts.looks += 1
        try:
            await self._get("/readyz", {})
        except Failed as error:
            if error.trouble is not Trouble.FORBIDDEN:
                raise Failed(Trouble.AWAY, f"the apiserver is not ready: {error}", error.retry_after) from error
        version = await self._served()
        self._version = version or self._version
        if self._course.looked(found=version is not None):
            self._take([Listed((), installed=False)])

    async def _served(self) -> str | None:
        """The first of the versions that discovery has."""
        for version in self._resource.versions:
            try:
                described = parsed(await self._get(self._resource.root(version), {}))
            except Failed as error:
                if error.trouble is Trouble.NOT_FOUND:
                    continue
                raise
            if any(one.get("name") == self._resource.plural for one in described.get("resources") or []):
                return version
        return None

    async def _get(self, path: str, query: Mapping[str, str]) -> bytes:
        try:
            answer = await self._request(path, query, aiohttp.ClientTimeout(total=REQUEST_SECONDS))
            return bytes(await answer.read())
        except (aiohttp.ClientError, OSError) as error:
            raise _away(error, "the answer broke off") from error

    async def _request(self, path: str, query: Mapping[str, str], limits: aiohttp.ClientTimeout) -> RESTResponse:
        """An answer of status 200, its body still to be read.

        Raises:
            Failed: any other.
        """
        try:
            request = await self._client.param_serialize(
                "GET", path, None, list(query.items()), {"Accept": "application/json"}, auth_settings=["BearerToken"]
            )
            answer = await self._client.call_api(*request, _request_timeout=limits)
        except (aiohttp.ClientError, OSError, ConfigException) as error:
            raise _away(error, f"the apiserver {self._client.url} cannot be reached") from error
        if answer.status == 200:
            return answer
        raise await self._refused(path, answer)

    async def _refused(self, path: str, answer: RESTResponse) -> Failed:
        data = await answer.read()
        try:
            said = parsed(data)
        except Failed:
            said = {"message": data[:200].decode(errors="replace")}
        asked = answer.headers.get("Retry-After", "")
        found = failure(answer.status, said, float(asked) if asked.isdigit() else 0.0)
        if found.trouble is Trouble.FORBIDDEN:
            what = f"{self._resource} cannot be read, for a role that allows get, list and watch is missing"
            return Failed(Trouble.FORBIDDEN, f"{what}: {found}")
        return Failed(found.trouble, f"GET {path}: {answer.status}: {found}", found.retry_after)


def _hang_up(answer: RESTResponse) -> None:
    """End a watch; one that has not come to its end is cut off, for nobody may be there to say farewell."""
    connection = answer.response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    answer.response.close()


def _away(error: Exception, what: str) -> Failed:
    said = " ".join(str(error).split()) or type(error).__name__
    return Failed(Trouble.AWAY, f"{what}: {said}")
