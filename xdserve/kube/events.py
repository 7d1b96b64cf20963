"""Events (events.k8s.io/v1), which `kubectl describe` shows: what became worse for an object, and what is well again.

One thing is one Event, whose count goes up when it happens again. Each object has so many in a time and no more, so
that something that flaps does not flood the apiserver.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple

import structlog

from translator.objects.ref import Ref
from translator.plan import Condition, Reason
from xdserve.conditions import CONTROLLER, GATEWAY_PROGRAMMED, WAITING, Verdict
from xdserve.kube.calls import MERGE, Caller, CallError
from xdserve.kube.patches import PATHS
from xdserve.kube.schedule import Budget
from xdserve.ledger import Entry

logger = structlog.get_logger("xdserve.events")

WARNING, NORMAL = "Warning", "Normal"

LONGEST_NOTE = 1024
"""Bytes; the apiserver refuses more."""
BURST, REFILL_SECONDS = 10, 60.0
"""Of one object: so many at once, then one in so many seconds."""
PER_SECOND = 10.0
"""Requests of all."""
APART_SECONDS = 60.0
"""Between two writes of one Event whose count goes up."""
LASTING_SECONDS = 60.0
"""After which a Warning tells of what most deployments pass through: backends and Envoys take time to start."""
_PASSING = WAITING | {
    one.value for one in (Reason.BACKEND_NOT_READY, Reason.BACKEND_NOT_FOUND, Reason.TARGET_NOT_FOUND)
}
_MOST_WAITING = 1_000
_MOST_KNOWN = 4_096

_WELL_AGAIN = {
    Condition.ACCEPTED.value: "accepted, and in force",
    Condition.RESOLVED_REFS.value: "every backend exists and is ready",
    Condition.PROGRAMMED.value: "every connected Envoy has acknowledged its configuration",
    GATEWAY_PROGRAMMED: "every connected Envoy has acknowledged its configuration",
}


class Occurrence(NamedTuple):
    """Something to be told of an object."""

    type: str
    reason: str
    note: str


def occurrences(
    before: Sequence[Verdict] | None,
    after: Sequence[Verdict],
    warnings: Sequence[Entry],
    lasting: Collection[str] = (),
) -> Iterator[Occurrence]:
    """What is to be told when conditions become others; without a `before`, only what is wrong.

    `before` has been told, `warnings` are those that are new: what is wrong and harms no condition. `lasting` are the
    types of conditions that have been false or unknown for so long that also what mostly passes is told.
    """
    known = {found.type: found for found in before or ()}
    for found in after:
        then = known.get(found.type)
        if then is not None and (then.reason, then.message) == (found.reason, found.message):
            continue
        if _loud(found, lasting):
            yield Occurrence(WARNING, found.reason, found.message)
        elif found.status == "True" and then is not None and then.status != "True":
            yield Occurrence(NORMAL, found.reason, found.message or _WELL_AGAIN[found.type])
    for entry in warnings:
        yield Occurrence(WARNING, entry.reason, f"{entry.field}: {entry.message}")


def remembered(
    before: Sequence[Verdict] | None, after: Sequence[Verdict], lasting: Collection[str] = ()
) -> tuple[Verdict, ...]:
    """The conditions that have been told of, for the next `before`: what passes by itself mends nothing."""
    known = {found.type: found for found in before or () if found.status != "True"}
    told = (found if found.status == "True" or _loud(found, lasting) else known.get(found.type) for found in after)
    return tuple(found for found in told if found is not None)


def _loud(verdict: Verdict, lasting: Collection[str]) -> bool:
    return verdict.status != "True" and (verdict.reason not in _PASSING or verdict.type in lasting)


def _passes(verdict: Verdict) -> bool:
    """Whether it is told when it has lasted. A gateway's waiting is told on its target alone, not on each policy."""
    mostly = verdict.status != "True" and verdict.reason in _PASSING
    return mostly and (verdict.reason not in WAITING or verdict.type == GATEWAY_PROGRAMMED)


@dataclass(slots=True)
class Told:
    """What has been told of one object while this replica leads."""

    verdicts: tuple[Verdict, ...] | None = None
    warned: frozenset[Entry] = frozenset()
    passing: dict[str, float] = field(default_factory=dict)
    """Since when each condition has been false or unknown for what mostly passes; by type."""

    def news(
        self, status: Sequence[Verdict] | None, after: Sequence[Verdict], warnings: Sequence[Entry], now: float
    ) -> list[Occurrence]:
        """What is to be told now; `status` is what the object said when this replica saw it first."""
        passing = [found.type for found in after if _passes(found)]
        self.passing = {kind: self.passing.get(kind, now) for kind in passing}
        lasting = {kind for kind, since in self.passing.items() if now - since >= LASTING_SECONDS}
        then = self.verdicts
        if then is None:
            then = tuple(found for found in status or () if found.reason not in _PASSING)
        warned = frozenset(warnings)
        found = list(occurrences(then, after, sorted(warned - self.warned, key=str), lasting))
        self.verdicts, self.warned = remembered(then, after, lasting), warned
        return found

    def due(self, now: float) -> float | None:
        """When something will have lasted, so that it is to be told; None for never."""
        ends = (since + LASTING_SECONDS for since in self.passing.values())
        return min((end for end in ends if end > now), default=None)


@dataclass(slots=True)
class _Known:
    """An Event that was written, or is to be."""

    path: str
    document: dict[str, Any]
    count: int = 0
    written: int = 0
    at: float = 0.0


class Recorder:
    """Writes Events while it runs and its replica leads.

    Args:
        call: makes requests.
        instance: which replica this is, for people.
        held: whether this replica leads at this moment.
        clock: seconds, monotonic.
        now: the time of day.
    """

    def __init__(
        self,
        call: Caller,
        instance: str,
        *,
        held: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._call, self._instance, self._held = call, instance[:128], held
        self._clock, self._now = clock, now
        self._budgets: OrderedDict[Ref, Budget] = OrderedDict()
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._waiting: dict[str, None] = {}
        self._woken = asyncio.Event()
        self._troubled = False
        self.written = 0
        """Writes that the apiserver took."""
        self.dropped = 0
        """Events that were too many, or could not be written."""

    def tell(self, ref: Ref, document: Mapping[str, Any], occurrence: Occurrence) -> None:
        """Note that it happened to an object, as the apiserver knows that (`document`). Never waits."""
        name = _name(ref, document, occurrence)
        if self._budget(ref).take(self._clock()) or len(self._waiting) >= _MOST_WAITING:
            self.dropped += 1
            return
        known = self._known.get(name)
        if known is None:
            path = f"/apis/events.k8s.io/v1/namespaces/{ref.namespace}/events"
            known = self._known[name] = _Known(path, self._document(name, ref, document, occurrence))
        known.count += 1
        self._known.move_to_end(name)
        self._waiting[name] = None
        self._woken.set()
        self._trim()

    def clear(self) -> None:
        """Another leads now, and tells of what it sees: what waits is dropped, and counts are read anew."""
        self._waiting.clear()
        self._known.clear()

    async def run(self) -> None:
        """Write what is told, until cancelled."""
        while True:
            await self._wait()
            while name := next((one for one in self._waiting if self._due(one)), None):
                if not self._held():
                    self.clear()
                    break
                del self._waiting[name]
                await self._write(name, self._known[name])
                await asyncio.sleep(1 / PER_SECOND)

    async def _wait(self) -> None:
        """Until something is told; for what waits to be counted, it is looked each second."""
        try:
            async with asyncio.timeout(1.0 if self._waiting else None):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()

    def _due(self, name: str) -> bool:
        known = self._known[name]
        return not known.written or self._clock() - known.at >= APART_SECONDS

    async def _write(self, name: str, known: _Known) -> None:
        known.at = self._clock()
        try:
            await (self._again(name, known) if known.written else self._first(name, known))
        except CallError as error:
            self._failed(error)
        else:
            known.written, self._troubled = known.count, False
            self.written += 1

    async def _first(self, name: str, known: _Known) -> None:
        """An Event of this name may be there, of an earlier leader: then it is one more of that."""
        try:
            await self._call("POST", known.path, known.document)
        except CallError as error:
            if error.status != 409:
                raise
            there = await self._call("GET", f"{known.path}/{name}")
            known.count += int((there.get("series") or {}).get("count", 1))
            await self._again(name, known)

    async def _again(self, name: str, known: _Known) -> None:
        """One more; the apiserver forgets Events, after an hour by default, and then it is a first one."""
        series = {"count": max(2, known.count), "lastObservedTime": _micro_time(self._now())}
        try:
            await self._call("PATCH", f"{known.path}/{name}", {"series": series}, content_type=MERGE)
        except CallError as error:
            if error.status != 404:
                raise
            known.count, known.document["eventTime"] = 1, _micro_time(self._now())
            await self._call("POST", known.path, known.document)

    def _failed(self, error: CallError) -> None:
        """Events are for people who look; one that cannot be written is not tried again."""
        self.dropped += 1
        if not self._troubled:
            logger.warning("an Event cannot be written", cause=str(error))
        self._troubled = True

    def _document(self, name: str, ref: Ref, document: Mapping[str, Any], found: Occurrence) -> dict[str, Any]:
        metadata = document["metadata"]
        group, version, _ = PATHS[ref.kind]
        regarding = {"apiVersion": f"{group}/{version}", "kind": ref.kind, "namespace": ref.namespace}
        regarding |= {"name": ref.name, "uid": metadata.get("uid", "")}
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": ref.namespace},
            "eventTime": _micro_time(self._now()),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "action": "Program",
            "type": found.type,
            "reason": found.reason,
            "regarding": regarding,
            "note": _bounded(found.note),
        }

    def _budget(self, ref: Ref) -> Budget:
        if ref not in self._budgets:
            self._budgets[ref] = Budget(BURST, REFILL_SECONDS, self._clock())
        self._budgets.move_to_end(ref)
        return self._budgets[ref]

    def _trim(self) -> None:
        while len(self._budgets) > _MOST_KNOWN:
            self._budgets.popitem(last=False)
        while len(self._known) > _MOST_KNOWN:
            name, _ = self._known.popitem(last=False)
            self._waiting.pop(name, None)


def _name(ref: Ref, document: Mapping[str, Any], found: Occurrence) -> str:
    """The same for the same thing, so that a new leader goes on counting where the old one was."""
    told = "\0".join((document["metadata"].get("uid", ""), ref.kind, *found))
    return f"{ref.name[:200].rstrip('-.')}.{blake2b(told.encode(), digest_size=8).hexdigest()}"


def _bounded(note: str) -> str:
    data = note.encode()
    return note if len(data) <= LONGEST_NOTE else data[: LONGEST_NOTE - 3].decode(errors="ignore") + "..."


def _micro_time(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
