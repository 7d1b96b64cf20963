"""ConfigMaps that planners read, each got by its name: nothing is listed or watched, so the right `get` is enough.

A ConfigMap is got at once when it is first named, and again every minute; one that nobody names any more is forgotten.
Each name has an answer within seconds: the object, that there is none, or that it is not readable. An apiserver that is
away later changes nothing. Namespaces take turns, and each may fill a bounded share of the memory: whoever may write a
policy may name any number of ConfigMaps.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, NamedTuple
from urllib.parse import quote

import structlog

from translator.objects import ConfigMap, ObjectInvalid, Ref, parse
from translator.objects.ref import CORE
from translator.view import Named
from xdserve.kube.calls import Caller, CallError
from xdserve.kube.held import place
from xdserve.kube.pace import Pace
from xdserve.kube.turns import Turns
from xdserve.metrics import FORBIDDEN, FOUND, MISSING, UNANSWERED
from xdserve.sources import Broken, Change, Feed, Gone, Put

logger = structlog.get_logger("xdserve.config_maps")

MOST_OF_NAMESPACE = 4 << 20
"""Characters that are held of the ConfigMaps of one namespace; authorities that all browsers believe are 220,000."""
RIGHT, KSERVE_RIGHT = "rbac.configMaps", "rbac.kserveConfig"
"""The chart's values that give the right to read."""


class Timing(NamedTuple):
    """When ConfigMaps are got: seconds, and requests a second.

    `every` leaves some of the minute in which a change is to be live for the turn and the request.
    """

    every: float = 50.0
    first_retry: float = 1.0
    patience: float = 10.0
    """How long the first answer is waited for, from the first request on; after that it counts as not readable."""
    request: float = 5.0
    rate: float = 50.0
    burst: float = 200.0
    at_once: int = 10


DEFAULT_TIMING = Timing()


@dataclass(slots=True, eq=False)
class _State:
    """What is known of one ConfigMap."""

    said: type[Put | Gone | Broken] | None = None
    version: str = ""
    size: int = 0
    fruitless: int = 0
    due: float = 0.0


class ConfigMaps:
    """Feeds the ConfigMaps that are named. Every replica has one, for each plans by itself.

    Args:
        call: makes requests; needs the verb `get` on `configmaps`.
        named: which are named.
        feed: gets what is found, each when it is new.
        begun: waits until the feed may get anything.
        optional: one that many clusters do not let xdserve read, which is no news; it may be missing too.
        timing: when requests are made.
        clock: seconds, monotonic.
    """

    def __init__(  # noqa: PLR0913 - what it is made of
        self,
        call: Caller,
        named: Named,
        feed: Feed,
        begun: Callable[[], Awaitable[object]],
        *,
        optional: Ref | None = None,
        timing: Timing = DEFAULT_TIMING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reads: Counter[str] = Counter()
        """Requests by what came of them."""
        self._call, self._named, self._feed, self._begun = call, named, feed, begun
        self._optional = optional
        self._timing, self._clock = timing, clock
        self._random = random.SystemRandom().random
        self._pace = Pace(timing.rate, timing.burst, clock)
        self._states: dict[Ref, _State] = {}
        self._unanswered: dict[Ref, float] = {}
        self._sizes: Counter[str] = Counter()
        self._due: list[tuple[float, Ref]] = []
        self._turns = Turns()
        self._asking: set[Ref] = set()
        self._told: set[tuple[str, str]] = set()
        self._wake = asyncio.Event()
        named.subscribe(self._wake.set)

    async def run(self) -> None:
        """Follow what is named until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._give_up())
            while True:
                self._wake.clear()
                self._follow()
                if self._turns and len(self._asking) < self._timing.at_once:
                    await self._pace.turn()
                    self._ask(tasks)
                else:
                    await self._wait(self._due[0][0] if self._due else None)

    async def _wait(self, until: float | None) -> None:
        """Until somebody names something, an answer has come, or that time."""
        left = None if until is None else max(0.0, until - self._clock())
        with suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._wake.wait()

    # -- Who is named --------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Take up what has been named, drop what is not any more, and find what is due."""
        now = self._clock()
        forgotten = [ref for ref in self._named.drain() if not self._followed(ref)]
        if forgotten:
            self._feed.apply([Gone(ref) for ref in forgotten])
        while self._due and self._due[0][0] <= now:
            due, ref = heappop(self._due)
            if ref in self._states and self._states[ref].due == due and ref not in self._asking:
                self._turns.add(ref)

    def _followed(self, ref: Ref) -> bool:
        """Whether an object is named, or is of no concern here; what was known of it is forgotten if not."""
        if ref in self._named:
            if ref not in self._states:
                self._states[ref] = _State()
                self._turns.add(ref)
            return True
        self._unanswered.pop(ref, None)
        self._turns.discard(ref)
        state = self._states.pop(ref, None)
        if state is None:
            return True
        self._resize(ref, state, 0)
        return state.said is None

    # -- Requests ------------------------------------------------------------------------------------------------

    def _ask(self, tasks: asyncio.TaskGroup) -> None:
        """Get the next; while it waited for its turn it may have been dropped."""
        if not self._turns:
            return
        ref = self._turns.take()
        if ref in self._states and ref not in self._asking:
            self._asking.add(ref)
            if self._states[ref].said is None:
                self._unanswered.setdefault(ref, self._clock() + self._timing.patience)
            tasks.create_task(self._read(ref, self._states[ref]))

    async def _read(self, ref: Ref, state: _State) -> None:
        try:
            found = await self._answer(ref)
            await self._begun()
        finally:
            self._asking.discard(ref)
            self._wake.set()
        if self._states.get(ref) is state:
            self._heard(ref, state, found)
        elif ref in self._states:
            self._turns.add(ref)  # it was dropped and named again meanwhile

    async def _answer(self, ref: Ref) -> dict[str, Any] | CallError:
        path = f"/api/v1/namespaces/{quote(ref.namespace, safe='')}/configmaps/{quote(ref.name, safe='')}"
        try:
            return await self._call("GET", path, seconds=self._timing.request)
        except CallError as error:
            return error

    def _heard(self, ref: Ref, state: _State, found: dict[str, Any] | CallError) -> None:
        """Feed what is new, and say when it is asked for again."""
        asked = 0.0
        if isinstance(found, CallError):
            asked = found.retry_after
            change = self._failed(ref, found)
        else:
            change = self._found(ref, state, found)
        state.fruitless = state.fruitless + 1 if isinstance(found, CallError) else 0
        state.due = self._clock() + max(self._delay(state), asked)
        heappush(self._due, (state.due, ref))
        if change is not None:
            self._say(ref, state, change)

    def _delay(self, state: _State) -> float:
        """Spread, so that what was named at one moment is not asked for at one moment for ever."""
        often = self._timing.first_retry * 2.0 ** min(state.fruitless - 1, 30)
        longest = min(often, self._timing.every) if state.fruitless else self._timing.every
        return longest * (0.75 + self._random() / 4)

    # -- Answers -------------------------------------------------------------------------------------------------

    def _found(self, ref: Ref, state: _State, document: dict[str, Any]) -> Change | None:
        self.reads[FOUND] += 1
        metadata = document.get("metadata")
        version = str(metadata.get("resourceVersion", "")) if isinstance(metadata, dict) else ""
        if version and version == state.version:
            return None
        self._told.discard((ref.namespace, FORBIDDEN))
        texts = _shared(document)
        size = sum(map(len, texts))
        if self._sizes[ref.namespace] - state.size + size > MOST_OF_NAMESPACE:
            self._warn(ref, "too large", f"the ConfigMaps that a namespace names have {MOST_OF_NAMESPACE} characters")
            return Broken(ref, (), place(ref))
        state.version = version
        self._resize(ref, state, size)
        try:
            made = parse(document)
        except ObjectInvalid as invalid:
            return Broken(ref, invalid.problems, place(ref))
        return Put(made, place(ref)) if isinstance(made, ConfigMap) and made.ref == ref else Broken(ref, (), place(ref))

    def _failed(self, ref: Ref, error: CallError) -> Change | None:
        """What a refusal means; one that passes means nothing, as long as there is patience."""
        match error.status:
            case 404:
                self.reads[MISSING] += 1
                return Gone(ref)
            case 403:
                self.reads[FORBIDDEN] += 1
                self._warn(ref, FORBIDDEN, str(error))
                return Broken(ref, (), place(ref))
        self.reads[UNANSWERED] += 1
        return None

    async def _give_up(self) -> None:
        """Nobody waits for ever for what an apiserver that is away does not tell."""
        await self._begun()
        while True:
            now = self._clock()
            for ref in [ref for ref, until in self._unanswered.items() if until <= now]:
                self._say(ref, self._states[ref], Broken(ref, (), place(ref)))
            await asyncio.sleep(self._timing.patience / 10)

    def _say(self, ref: Ref, state: _State, change: Change) -> None:
        """Feed a change, if it is one."""
        self._unanswered.pop(ref, None)
        if isinstance(change, Put) or type(change) is not state.said:
            state.said = type(change)
            if not isinstance(change, Put):
                state.version = ""
            if isinstance(change, Gone):
                self._resize(ref, state, 0)
            self._feed.apply([change])

    def _resize(self, ref: Ref, state: _State, size: int) -> None:
        self._sizes[ref.namespace] += size - state.size
        state.size = size
        if not self._sizes[ref.namespace]:
            del self._sizes[ref.namespace]

    def _warn(self, ref: Ref, why: str, cause: str) -> None:
        """Once for each namespace."""
        if (ref.namespace, why) in self._told:
            return
        self._told.add((ref.namespace, why))
        if ref == self._optional:
            logger.info("KServe's ConfigMap is not read", config_map=f"{ref.namespace}/{ref.name}", value=KSERVE_RIGHT)
        elif why == FORBIDDEN:
            logger.warning("ConfigMaps cannot be read", namespace=ref.namespace, value=RIGHT, cause=cause)
        else:
            logger.warning("ConfigMap is not read", config_map=f"{ref.namespace}/{ref.name}", allowed=cause)


def reference(text: str) -> Ref | None:
    """The ConfigMap that a setting names as `namespace/name`; None for the empty text."""
    namespace, _, name = text.partition("/")
    return Ref(CORE, ConfigMap.KIND, namespace, name) if name else None


def _shared(document: dict[str, Any]) -> list[str]:
    """The texts of a ConfigMap. Many namespaces have the same authority, which is held once."""
    data = document.get("data")
    if not isinstance(data, dict):
        return []
    for key, text in data.items():
        if isinstance(text, str):
            data[key] = sys.intern(text)
    return [text for text in data.values() if isinstance(text, str)]
