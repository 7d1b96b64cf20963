"""Writes what is said of objects into their status, and tells the Events that go with it; the leader alone does.

What may have changed is marked; soon after, it is judged, compared with the object's status as it is, and written if
that says something else. Writes are bounded in rate, and bound to the version that was read. What fails is tried again
later; what somebody else undoes is written again ever more seldom, so that nobody is fought. Objects of others are
written when their own controllers have finished: `xdserve.kube.settling`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import SystemRandom
from typing import Any

import structlog

from translator.objects.ref import Ref
from xdserve.conditions import GATEWAY_PROGRAMMED, NO_GATEWAY, PENDING, Verdict
from xdserve.judge import Judge, Judgement, Voice
from xdserve.kube.calls import Caller, CallError
from xdserve.kube.events import Recorder, Told
from xdserve.kube.leader import Leadership
from xdserve.kube.patches import PATHS, Patch, before, essence, keeps, patch, path_of, present, target_of
from xdserve.kube.schedule import Budget, Schedule
from xdserve.kube.settling import BOUNDS, Bounds, Settling

logger = structlog.get_logger("xdserve.status")

Document = Mapping[str, Any]
Documents = Callable[[Ref], Document | None]
"""An object as the source saw it last, at least its `patches.essence`; None if it is gone."""

PER_SECOND, BURST = 20.0, 20.0
"""Writes."""
BATCH = 20
"""Objects judged together, before streams go on: about 2 ms."""
PATIENCE = {PENDING: 2.0, NO_GATEWAY: 10.0}
"""Seconds that a gateway which was programmed may be without, until it is said: Envoys come and go when they roll."""
ROLLING_SECONDS = 300.0
"""The same while replicas of two versions configure Envoys: what each makes of the same objects may differ."""
RETRY_FIRST, RETRY_LONGEST = 1.0, 300.0
AT_ONCE = 4
"""Conflicts in a row after which the next try waits, as after a first failure: two writers take turns by then."""
FORGIVEN_SECONDS = 600.0
"""What nobody has undone for so long begins anew."""
_random = SystemRandom()


@dataclass(slots=True)
class _Past:
    """What is remembered of an object while this replica leads."""

    told: Told = field(default_factory=Told)
    document: Document | None = None
    """As a write of ours left it, which the source may not have seen yet."""
    written: tuple[tuple[Verdict, ...], object] | None = None
    """What was written last, and of which generation."""
    at: float = 0.0
    failures: int = 0
    undone: int = 0
    until: float = 0.0
    doubted: float | None = None
    settling: Settling = field(default_factory=Settling)


class StatusWriter:
    """Writes while it runs and its replica leads.

    Args:
        call: makes requests.
        judge: says what is to be said.
        documents: objects as the source saw them last.
        leadership: whether this replica writes.
        recorder: gets what is to be told as Events.
        settled: whether all that came has been planned; what is judged before would speak of the wrong generation.
        settling: how long writes to objects of others wait for those.
        clock: seconds, monotonic.
        now: the time of day.
    """

    def __init__(  # noqa: PLR0913 - what a writer is made of
        self,
        call: Caller,
        judge: Judge,
        documents: Documents,
        leadership: Leadership,
        recorder: Recorder,
        *,
        settled: Callable[[], bool] = lambda: True,
        settling: Bounds = BOUNDS,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._call, self._judge, self._documents = call, judge, documents
        self._leadership, self._recorder, self._settled = leadership, recorder, settled
        self._bounds = settling
        self._clock, self._now = clock, now
        self._schedule: Schedule[Ref] = Schedule()
        self._past: dict[Ref, _Past] = {}
        self._budget = Budget(BURST, 1 / PER_SECOND, clock())
        self._woken = asyncio.Event()
        self._leads = False
        self._without: set[str] = set()
        self._told: set[tuple[str, int]] = set()
        self.writes = 0
        """Patches that the apiserver took."""
        self.failures = 0
        """Patches that it did not."""
        self.conflicts = 0
        """Of those, the ones of a version that was not the newest any more."""

    # -- What may have changed ---------------------------------------------------------------------------------

    def mark(self, refs: Iterable[Ref]) -> None:
        """These objects, or what is said of them, are others now."""
        if self._leads:
            for ref in refs:
                self._mark(self._judge.family(ref))

    def mark_gateway(self, gateway: str) -> None:
        """Envoys of this gateway came, went, acknowledged or refused something."""
        if self._leads:
            self._mark(self._judge.concerned(gateway))

    def _mark(self, refs: Iterable[Ref]) -> None:
        for ref in refs:
            if ref.kind in PATHS:
                self._schedule.mark(ref, self._clock())
                self._woken.set()

    # -- Life --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write whenever this replica leads, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            work: asyncio.Task[None] | None = None
            async for leads in self._leadership.changes():
                if work is not None:
                    work.cancel()
                    await asyncio.wait([work])
                self._begin(leads=leads)
                work = tasks.create_task(self._work()) if leads else None

    def _begin(self, *, leads: bool) -> None:
        """Nothing is known of what others wrote meanwhile, so all is looked at."""
        self._leads = leads
        self._past.clear()
        self._schedule.clear()
        if leads:
            self._mark(self._judge.refs())
        else:
            self._recorder.clear()

    async def _work(self) -> None:
        while True:
            await self._wait()
            if not self._settled():
                await asyncio.sleep(0.02)
                continue
            taken = self._schedule.take(self._clock(), BATCH)
            for ref, judgement in self._judged(taken).items():
                await self._guarded(ref, judgement)
            await asyncio.sleep(0)

    async def _wait(self) -> None:
        """Until something is due."""
        self._woken.clear()
        while (seconds := self._schedule.wait(self._clock())) != 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
            except TimeoutError:
                return
            self._woken.clear()

    # -- One object --------------------------------------------------------------------------------------------

    async def _guarded(self, ref: Ref, judgement: Judgement | None) -> None:
        """A fault of ours costs one object its status, and nobody else anything."""
        try:
            await self._look(ref, judgement)
        except Exception as error:  # noqa: BLE001 - any, so that it harms one object; it is told
            self._fault(ref, error)

    def _fault(self, ref: Ref, error: Exception) -> None:
        self.failures += 1
        logger.error("a status cannot be made", object=str(ref), exc_info=error)
        self._later(ref, self._past.setdefault(ref, _Past()), 10)

    def _judged(self, refs: Sequence[Ref]) -> dict[Ref, Judgement | None]:
        """All together, which is cheaper; each by itself where that fails. Without those that cannot be judged."""
        try:
            return dict.fromkeys(refs) | dict(self._judge.judge(refs))
        except Exception as error:  # noqa: BLE001 - as above
            if len(refs) == 1:
                self._fault(refs[0], error)
                return {}
            return {ref: found for one in refs for ref, found in self._judged([one]).items()}

    async def _look(self, ref: Ref, judgement: Judgement | None) -> None:
        past = self._past.setdefault(ref, _Past())
        document = self._newest(ref, past)
        if document is None or judgement is None or self._elsewhere(ref, document):
            self._past.pop(ref, None)
            return
        past.settling.see(document, self._clock())
        judgement = _heard(document, judgement)
        wanted = patch(ref, document, judgement.verdicts, self._now(), silent=judgement.voice is Voice.SILENT)
        if self._patient(ref, document, judgement, past):
            return
        self._tell(ref, document, judgement, past)
        if wanted is None or ref.kind in self._without:
            past.undone = 0 if self._clock() - past.at > FORGIVEN_SECONDS else past.undone
            past.settling.wishes_nothing()
            return
        if not self._unsettled(ref, document, past) and not self._held_up(ref, document, judgement, past):
            await self._write(ref, wanted, judgement, past)

    def _elsewhere(self, ref: Ref, document: Document) -> bool:
        """Whether another release may see the target and speak. By the document: what is broken has a target, too."""
        target = target_of(ref, document)
        return target is not None and self._judge.elsewhere(target)

    def _newest(self, ref: Ref, past: _Past) -> Document | None:
        """As the source saw it, or as a write of ours left it since."""
        seen = self._documents(ref)
        if seen is None or (past.document is not None and not _newer(past.document, seen)):
            past.document = None
        return past.document or seen

    def _patient(self, ref: Ref, document: Document, judgement: Judgement, past: _Past) -> bool:
        """Whether it is too soon to say that a gateway is not programmed any more."""
        seconds = _patience(before(ref, document), judgement) if _observed(document) else 0.0
        if not seconds:
            past.doubted = None
            return False
        if past.doubted is None:
            past.doubted = self._clock()
        if (until := past.doubted + seconds) <= self._clock():
            return False
        self._schedule.later(ref, until)
        return True

    def _tell(self, ref: Ref, document: Document, judgement: Judgement, past: _Past) -> None:
        """Events of what is new, as the status or this replica said it before; none of who wants no gateway."""
        if judgement.muted:
            past.told = Told()
            return
        now = self._clock()
        for found in past.told.news(before(ref, document), judgement.verdicts, judgement.warnings, now):
            self._recorder.tell(ref, document, found)
        if (due := past.told.due(now)) is not None:
            self._schedule.later(ref, due)

    def _unsettled(self, ref: Ref, document: Document, past: _Past) -> bool:
        """Whether a write has to wait for who else writes to the object."""
        now = self._clock()
        if (until := past.settling.until(ref, document, now, self._bounds)) <= now:
            return False
        self._schedule.later(ref, until)
        return True

    def _held_up(self, ref: Ref, document: Document, judgement: Judgement, past: _Past) -> bool:
        """Whether a write has to wait: after failures, and where somebody else has undone the last one."""
        generation = document["metadata"].get("generation")
        if past.until <= self._clock() and past.written == (judgement.verdicts, generation):
            past.written = None
            past.undone += 1
            self._later(ref, past, past.undone)
        if past.until > self._clock():
            self._schedule.later(ref, past.until)
            return True
        return False

    def _later(self, ref: Ref, past: _Past, attempts: int, least: float = 0.0) -> None:
        seconds = min(RETRY_LONGEST, RETRY_FIRST * 2.0 ** min(attempts - 1, 20)) * _random.uniform(0.9, 1.1)
        past.until = self._clock() + max(seconds, least)
        self._schedule.later(ref, past.until)

    async def _write(self, ref: Ref, wanted: Patch, judgement: Judgement, past: _Past) -> None:
        if seconds := self._budget.take(self._clock()):
            await asyncio.sleep(seconds)
            self._budget.take(self._clock())
        if not self._leadership.held:
            return
        path, query, content_type, body = wanted
        try:
            answer = await self._call("PATCH", path, body, query=query, content_type=content_type)
        except CallError as error:
            self.failures += 1
            self.conflicts += error.status == 409
            await self._failed(ref, past, error)
            return
        self.writes += 1
        past.document, past.at, past.failures = essence(answer), self._clock(), 0
        past.settling.wrote(answer["metadata"]["resourceVersion"])
        past.written = (judgement.verdicts, answer["metadata"].get("generation"))
        if judgement.voice is not Voice.SILENT and not keeps(ref, answer):
            self._without.add(ref.kind)
            logger.info("objects of this kind have no conditions; Events tell of them", kind=ref.kind)

    async def _failed(self, ref: Ref, past: _Past, error: CallError) -> None:
        past.failures += 1
        if error.status == 404:
            self._past.pop(ref, None)
        elif error.status == 409 and past.failures <= AT_ONCE:
            await self._again(ref, past)
        else:
            self._say(ref, error)
            waits = past.failures - (AT_ONCE if error.status == 409 else 0)
            self._later(ref, past, waits, RETRY_LONGEST if error.status == 403 else error.retry_after)

    async def _again(self, ref: Ref, past: _Past) -> None:
        """It has changed since the source saw it: read it, and look once more."""
        try:
            past.document = essence(await self._call("GET", path_of(ref)))
        except CallError as error:
            await self._failed(ref, past, error)
            return
        self._schedule.mark(ref, self._clock())

    def _say(self, ref: Ref, error: CallError) -> None:
        """Each kind of trouble with a kind of object once."""
        if (key := (ref.kind, error.status)) not in self._told:
            self._told.add(key)
            logger.warning("a status cannot be written", object=str(ref), cause=str(error))


def _newer(one: Document, other: Document) -> bool:
    """By resourceVersion, of the same object; Kubernetes compares them as numbers."""
    mine, theirs = one["metadata"], other["metadata"]
    same = mine.get("uid") == theirs.get("uid")
    return same and int(mine["resourceVersion"]) > int(theirs["resourceVersion"])


def _observed(document: Document) -> bool:
    """Whether the status speaks of this generation, as far as it says of which it speaks."""
    generation = document["metadata"].get("generation")
    status = document.get("status") or {}
    listed = [*(status.get("conditions") or ())]
    for entry in status.get("ancestors") or ():
        listed += entry.get("conditions") or ()
    return all(one.get("observedGeneration", generation) == generation for one in listed)


def _heard(document: Document, judgement: Judgement) -> Judgement:
    """What goes on where something was said before is not said where nothing was."""
    if judgement.voice is not Voice.GOES_ON or present(document) is not None:
        return judgement
    verdicts = tuple(found for found in judgement.verdicts if found.type != GATEWAY_PROGRAMMED)
    return replace(judgement, verdicts=verdicts, voice=Voice.SILENT)


def _patience(then: Iterable[Verdict] | None, judgement: Judgement) -> float:
    """Seconds to wait if nothing is different but that a programmed gateway is no more."""
    known = {found.type: found.status for found in then or ()}
    if judgement.voice is Voice.SILENT:
        return PATIENCE[NO_GATEWAY] if known.get(GATEWAY_PROGRAMMED) == "True" else 0.0
    changed = [found for found in judgement.verdicts if known.get(found.type, found.status) != found.status]
    patience = PATIENCE | ({PENDING: ROLLING_SECONDS} if judgement.rolling else {})
    return min(
        (patience.get(found.reason, 0.0) if known[found.type] == "True" else 0.0 for found in changed), default=0.0
    )
