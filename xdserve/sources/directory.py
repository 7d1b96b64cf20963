"""A directory of files, watched live: the async shell around ``Files``.

Good news is applied at once, bad news is looked at twice: a text that loses an object or does not read well may be
half written, and a file that is gone may be about to be put back, so both are believed when they still stand
``SETTLE`` later. Of an event only its path is used: what is there now is looked up, and once more after ``SETTLE``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import structlog
import watchfiles

from translator.objects import Ref
from xdserve.sources import Change, Feed, Gone, Put, Source, SourceError, SourceNote
from xdserve.sources.files import Files
from xdserve.sources.tree import Look, SourceUnavailable, Tree, Wanted

__all__ = ["DirectorySource", "SourceUnavailable"]

logger = structlog.get_logger("xdserve.sources")

STEP_MS = 2  # how often the watcher collects; an event is told one to two steps after it
DEBOUNCE_MS = 20  # the longest that a burst of events is held together
TICK = 1.0  # seconds: how often the directory itself is looked at
RESCAN = 30.0  # seconds: how often all files are, for a full queue of the kernel loses events without a word
MOST_EVENTS = 4096  # a batch of more is a reason to look at all files
SETTLE = 0.05  # seconds: when bad news is looked at again
_UNTOLD = "Unable to decode path"  # the watcher's words for an event that it cannot tell; it ends then
SETTLE_AT_LAST = 1.0  # seconds: a file that changes again and again is believed after that


@dataclass(frozen=True, slots=True)
class _Doubt:
    """Bad news that waits for a second look: since when there is any, and since when this."""

    since: float
    unchanged_since: float
    digest: int | None


class DirectorySource:
    """Feeds the objects of a directory, and of all below it, into ``feed``.

    ``synced`` is set when the first scan has been fed.
    """

    def __init__(self, path: Path | str, feed: Feed) -> None:
        self.synced = asyncio.Event()
        self._tree = Tree(Path(path))
        self._files = Files()
        self._feed = feed
        self._lost: SourceError | None = None
        self._said: set[str] = set()  # what was logged of kinds that are not read: few texts
        self._doubts: dict[str, _Doubt] = {}
        self._again: dict[str, float] = {}  # absolute paths to look at again, and when by the loop's clock
        self._waiting: set[str] = set()  # those of them that wait for what becomes of another file: looked at with it
        self._touched: set[str] = set()
        self._woken = asyncio.Event()

    def awaited(self) -> str:
        """The directory until its files have been read, in words; empty then."""
        return "" if self.synced.is_set() else f"the first look at the files of {self._tree.root}"

    def errors(self) -> list[SourceError]:
        """All that is wrong now."""
        return [*([self._lost] if self._lost else []), *self._files.errors()]

    def renewed(self) -> list[tuple[str, tuple[SourceError, ...]]]:
        """The files with which something else is wrong than when this was asked last; `.` is the directory itself."""
        return [(".", (self._lost,) if self._lost else ()), *self._files.renewed()]

    def source(self, ref: Ref) -> Source | None:
        """Where an object is written now."""
        return self._files.source(ref)

    async def run(self) -> None:
        """Feed what is there, then every change, until cancelled.

        Raises:
            SourceUnavailable: there is no such directory, or it cannot be read, at the start.
        """
        self._tree.check()
        while True:
            try:
                await self._follow()
            except SourceUnavailable as error:
                if not self.synced.is_set():
                    raise
                self._lose(str(error))
                await asyncio.sleep(TICK)

    def _lose(self, message: str) -> None:
        """The directory is away: all that it held stays."""
        error = SourceError(Source(".", 0), None, "", message, "Unreadable")
        if error != self._lost:
            self._lost = error
            self._feed.apply([])

    async def _follow(self) -> None:
        """Watch the directory for as long as it is the same one."""
        identity = self._tree.identity()
        async with self._watching() as watcher:
            await self._scan()
            self.synced.set()
            if self._lost and not watcher.done():
                self._lost = None
                self._feed.apply([])
            rescan = self._now() + RESCAN
            while not watcher.done():
                await self._wait()
                if self._tree.identity() != identity:
                    return
                if self._now() >= rescan or len(self._touched) > MOST_EVENTS:
                    rescan = self._now() + RESCAN
                    await self._scan()
                await self._look_at_touched()

    @contextlib.asynccontextmanager
    async def _watching(self) -> AsyncIterator[asyncio.Task[None]]:
        watcher = asyncio.create_task(self._watch())
        try:
            await asyncio.sleep(0)  # the watcher's first step sets up its watches: nothing after it is missed
            yield watcher
        finally:
            watcher.cancel()
            await asyncio.wait([watcher])
        error = None if watcher.cancelled() else _cause(watcher.exception())
        if error and _UNTOLD in str(error):  # a file's name is no text: the watch begins anew, with a look at all files
            await asyncio.sleep(SETTLE)
        elif error:
            # Without events (the kernel's limit of watches is the usual reason) there is still the looking.
            self._lose(f"{self._tree.root} cannot be watched: {error}")
            await asyncio.sleep(TICK)

    async def _watch(self) -> None:
        changes = watchfiles.awatch(
            self._tree.root,
            watch_filter=None,
            step=STEP_MS,
            debounce=DEBOUNCE_MS,
            ignore_permission_denied=True,
        )
        try:
            async for batch in changes:
                self._touched.update(path for _, path in batch)
                self._woken.set()
        finally:
            self._woken.set()

    async def _wait(self) -> None:
        """Until an event, the next second look or the next tick."""
        now = self._now()
        until = min(self._again.values(), default=now + TICK)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(until - now, TICK)):
                await self._woken.wait()

    async def _look_at_touched(self) -> None:
        now = self._now()
        touched, self._touched = self._touched, set()
        self._woken.clear()
        due = {path for path, time in self._again.items() if time <= now}
        for path in due:
            del self._again[path]
        self._again.update(dict.fromkeys(touched, now + SETTLE))
        if touched or due:
            self._apply(*await asyncio.to_thread(self._look, touched | due | self._waiting))

    def _look(self, paths: set[str]) -> tuple[Wanted, list[Look]]:
        wanted = self._tree.touched(paths)
        return wanted, self._tree.look(wanted)

    async def _scan(self) -> None:
        wanted = await asyncio.to_thread(self._tree.everything)
        self._apply(wanted, await asyncio.to_thread(self._tree.look, wanted))

    def _apply(self, wanted: Wanted, looks: list[Look]) -> None:
        """Feed what is certain: the first time all, for there is nothing yet that could be lost."""
        for path in wanted.exact - {look.path for look in looks}:
            self._doubts.pop(path, None)  # it is again what it was
        certain = self._certain(looks) if self.synced.is_set() else looks
        changes: list[Change] = []
        errors_changed = False
        for look in certain:
            self._tree.accept(look)
            update = self._files.apply(look.reading)
            self._say(look.reading.notes)
            changes += update.changes
            errors_changed |= update.errors_changed
        if changes or errors_changed or not self.synced.is_set():
            self._feed.apply(_at_once(changes))

    def _say(self, notes: tuple[SourceNote, ...]) -> None:
        """Log what is not read, once for each kind of it: nothing is wrong with the objects."""
        for note in notes:
            if note.message not in self._said:
                self._said.add(note.message)
                source = note.source
                logger.info("not read", file=source.file, document=source.document, message=note.message)

    def _certain(self, looks: list[Look]) -> list[Look]:
        """What can be believed now.

        What an object's other file is doubted to hold still may have been moved: it is no conflict before that is
        settled.
        """
        now = self._now()
        certain = []
        self._waiting.clear()
        for look in [look for look in looks if self._is_certain(look, now)]:
            if self._doubts.keys().isdisjoint(self._files.rivals(look.reading)):
                certain.append(look)
            else:
                path = str(self._tree.root / look.path)
                self._waiting.add(path)
                self._again[path] = now + SETTLE
        return certain

    def _is_certain(self, look: Look, now: float) -> bool:
        digest = look.seen.digest
        doubt = self._doubts.pop(look.path, None)
        if not look.rewritten and not self._files.doubts(look.reading):
            return True
        since = doubt.since if doubt else now
        unchanged_since = doubt.unchanged_since if doubt and doubt.digest == digest else now
        if now >= unchanged_since + SETTLE or now >= since + SETTLE_AT_LAST:
            return True
        self._doubts[look.path] = _Doubt(since, unchanged_since, digest)
        self._again[str(self._tree.root / look.path)] = unchanged_since + SETTLE
        return False

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _at_once(changes: list[Change]) -> list[Change]:
    """The changes of several files as one: an object that goes from one and is in another is not gone between."""
    kept: list[Change] = []
    later: set[Ref] = set()
    for change in reversed(changes):
        ref = change.object.ref if isinstance(change, Put) else change.ref
        if not (isinstance(change, Gone) and ref in later):
            kept.append(change)
        later.add(ref)
    return kept[::-1]


def _cause(error: BaseException | None) -> BaseException | None:
    """The error itself, where groups of tasks are around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
