"""The store beside an event loop: what is remembered is gathered in slices and written by a thread of its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Protocol, TypeAlias

import structlog

from translator.objects.ref import Ref
from translator.planners.components import ActiveComponents
from xds.memory import Memory
from xds.types import ResourceType
from xdserve.pauses import Pauses
from xdserve.store.database import Store
from xdserve.store.policies import Accepted

logger = structlog.get_logger("xdserve.store")

BATCH = 1000
"""Names after which a transaction takes in no further gateway: what is redone if it fails, or cut at the end."""


class Remembering(Protocol):
    """What the keeper asks of a scope."""

    def drain(self) -> Iterable[tuple[ResourceType, str]]:
        """The names whose memory has changed since the last call."""

    def remembered(self, type_: ResourceType, name: str, /) -> Memory:
        """What is remembered of a name now."""


class Deciding(Protocol):
    """What the keeper asks of who knows what is in force."""

    def drain(self) -> Iterable[Ref]:
        """The targets that have another policy or other components in force than at the last call."""

    def accepted(self, target: Ref, /) -> Accepted | None:
        """The policy that is in force for a target now."""

    def active(self, target: Ref, /) -> ActiveComponents | None:
        """The components that get a target's requests now."""


Scopes: TypeAlias = Callable[[], Mapping[str, Remembering]]
"""Gives the scopes by gateway: all, or those that may have changed since it was last called."""


@dataclass(slots=True)
class _Dirty:
    """The names of one gateway that are to be written, and who knows what is remembered of them."""

    scope: Remembering
    names: set[tuple[ResourceType, str]] = field(default_factory=set)


class Keeper:
    """Writes what is to be remembered at most every ``interval`` seconds. It owns the store from now on.

    A write that fails is told once for each kind of failure and counted in ``failures``; its names stay to be written.
    """

    def __init__(self, store: Store, scopes: Scopes, decided: Deciding | None = None, *, interval: float = 1.0) -> None:
        self._store = store
        self._scopes = scopes
        self._decided = decided
        self._interval = interval
        self._targets: set[Ref] = set()
        self._dirty: dict[str, _Dirty] = {}
        self._forgotten: set[str] = set()
        self._told: set[str] = set()
        self._flushing = asyncio.Lock()
        # One thread: writes keep their order, also after a wait for one of them was cancelled.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._closed = False
        self.failures = 0
        self.written = 0

    @property
    def pending(self) -> int:
        """How many names, gateways and targets are still to be written or forgotten."""
        names = sum(len(dirty.names) for dirty in self._dirty.values())
        return names + len(self._forgotten) + len(self._targets)

    def forget(self, gateway: str) -> None:
        """Delete all that is remembered of a gateway that is no more."""
        self._dirty.pop(gateway, None)
        self._forgotten.add(gateway)

    async def run(self) -> None:
        """Write what changes, until cancelled."""
        while True:
            await self.flush()
            await asyncio.sleep(self._interval)

    async def flush(self) -> bool:
        """Write all that has changed; whether that succeeded. What failed is tried again with the next flush."""
        async with self._flushing:
            await self._gather()
            while self._dirty or self._forgotten or self._targets:
                if not await self._write():
                    return False
            return True

    async def close(self, deadline: float = 2.0) -> None:
        """Write what is left and close the store, within the deadline (seconds) for each of the two."""
        if self._closed:
            return
        self._closed = True
        try:
            async with asyncio.timeout(deadline):
                await self.flush()
        except TimeoutError:
            self._store.interrupt()
        finally:
            closed = self._thread.submit(self._store.close)
            self._thread.shutdown(wait=False)
        waiting = asyncio.wrap_future(closed)
        await asyncio.wait({waiting}, timeout=deadline)
        waiting.cancel()  # a thread that comes back later finds nobody to tell
        if self.pending:
            logger.warning("last good versions lost", names=self.pending)

    async def _gather(self) -> None:
        if self._decided:
            self._targets.update(self._decided.drain())
        pauses = Pauses()
        scopes = self._scopes()
        # A list, for gateways come and go while others run; of names, for ten thousand tuples a second are garbage.
        for gateway in list(scopes):
            scope = scopes.get(gateway)
            if scope is not None and (names := scope.drain()):
                dirty = self._dirty.setdefault(gateway, _Dirty(scope))
                dirty.scope = scope
                dirty.names.update(names)
            if pauses.due:
                await pauses.take()

    async def _write(self) -> bool:
        """One transaction: what is forgotten, the next gateways and targets. They are read at the last moment."""
        forgotten, self._forgotten = self._forgotten, set()
        batch = dict(self._batch())
        targets = set(islice(self._targets, BATCH))
        self._targets -= targets
        try:
            changes = await self._remembered(batch)
            policies = [(target, self._decided.accepted(target)) for target in targets] if self._decided else []
            active = [(target, self._decided.active(target)) for target in targets] if self._decided else []
            save = partial(self._store.save, changes, forgotten, policies, active)
            self.written += await asyncio.get_running_loop().run_in_executor(self._thread, save)
        except BaseException as error:
            self._put_back(batch, forgotten)
            self._targets |= targets
            # Any fault of the store, ours too, so that it stays within it: Envoys are served without. It is told.
            if not isinstance(error, Exception):
                raise
            self._failed(error)
            return False
        self._succeeded()
        return True

    def _batch(self) -> Iterator[tuple[str, _Dirty]]:
        names = 0
        while self._dirty and names < BATCH:
            gateway, dirty = self._dirty.popitem()
            names += len(dirty.names)
            yield gateway, dirty

    async def _remembered(self, batch: dict[str, _Dirty]) -> list[tuple[str, list[Memory]]]:
        pauses = Pauses()
        changes = []
        for gateway, dirty in batch.items():
            memories: list[Memory] = []
            changes.append((gateway, memories))
            for type_, name in dirty.names:
                memories.append(dirty.scope.remembered(type_, name))
                if pauses.due:
                    await pauses.take()
        return changes

    def _put_back(self, batch: dict[str, _Dirty], forgotten: set[str]) -> None:
        """Keep for the next try what was not written; a gateway that was forgotten meanwhile stays forgotten."""
        for gateway, dirty in batch.items():
            if gateway not in self._forgotten:
                self._dirty[gateway] = dirty
        self._forgotten |= forgotten

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        kind = getattr(error, "sqlite_errorname", type(error).__name__)
        if kind not in self._told:
            self._told.add(kind)
            ours = None if isinstance(error, OSError | sqlite3.Error) else error
            logger.error("last good versions not written", kind=kind, cause=str(error), exc_info=ours)

    def _succeeded(self) -> None:
        if self._told:
            self._told.clear()
            logger.info("last good versions written again")
