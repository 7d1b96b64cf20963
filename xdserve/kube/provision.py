"""Makes, mends and takes away the gateways of targets, by server-side apply; the leader alone does.

What is wanted is compared with what was applied, so that an unchanged gateway costs no request. At first and every
minute all that there is is read and compared, so that what others have changed or deleted is mended. When a target
goes, its gateway goes by its owner reference: only of targets that are there, and want none, anything is deleted.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from random import SystemRandom
from typing import Protocol
from zlib import crc32

import structlog

from bootstrap.manifests import Deploying, Manifest, Unreachable, labels, manifests
from translator import names
from translator.objects.ref import Ref
from xdserve.kube.calls import Caller
from xdserve.kube.pace import Pace
from xdserve.kube.parts import KINDS, LISTED, Lost, Parts, Trouble
from xdserve.kube.rolling import AGAIN_SECONDS, ROLLED, Roller
from xdserve.kube.schedule import Schedule
from xdserve.kube.wanted import (
    Found,
    Wanted,
    content,
    ending,
    key,
    leads_elsewhere,
    ours,
    same,
    target_of,
    tells_of,
    title,
    version,
)

logger = structlog.get_logger("xdserve.provision")

PER_SECOND, BURST = 50.0, 50.0
"""Requests."""
LOOK_SECONDS = 60.0
"""Until what others have changed is mended, at the most. A Service is followed: there it is moments."""
LOOKS_A_CONFIG = 10
"""Looks until each ConfigMap has been read once: they are read one by one, and running Envoys need none."""
LONGEST_LOOK = 20.0
"""Of so many seconds one is spent with looking, at the most: thousands of gateways are looked at less often."""
RETRY_FIRST, RETRY_LONGEST = 1.0, 300.0
UNSETTLED_SECONDS = 1.0
AT_ONCE = 8
"""Gateways that are worked on together, so that a slow answer holds up few."""
_MOST_CHANGES = 5
"""Times that an object may have changed since it was read, before its deletion is tried later."""
_ALWAYS_READ = frozenset({"Service", "Deployment"})
_NOTHING: Mapping[str, Found | None] = {}
_random = SystemRandom()


class Leads(Protocol):
    """Whether this replica leads; `xdserve.kube.leader.Leadership`."""

    @property
    def held(self) -> bool:
        """Whether it does at this moment."""

    def changes(self) -> AsyncIterator[bool]:
        """Whether it does: now, and whenever that changes."""


class Provisioner:
    """Provisions while it runs and its replica leads. All in one event loop.

    To be run when all targets have been planned: what is not wanted then counts as not wanted.

    Args:
        call: makes requests.
        deploying: what the operator decides for all gateways; `deploy` changes it.
        leadership: whether this replica writes.
        readable: whether a target is there and understood, and so is all that could want a gateway for it (policies,
            ServiceGateways), so that it is known that none is wanted. Of others nothing is deleted.
        settled: whether all that is known has been planned. Until then nothing is deleted.
        listens: whether the Envoys of a target's gateway listen at a port. A Service that is there leads to another
            port not before they do: what Envoys refuse, or have yet to take, nobody would answer at.
        told: called with a target when something else is wrong with its gateway than before: see `errors`.
        namespaces: those that are looked into; empty for all.
        clock: seconds, monotonic.
    """

    def __init__(  # noqa: PLR0913 - what a provisioner is made of
        self,
        call: Caller,
        deploying: Deploying,
        leadership: Leads,
        *,
        readable: Callable[[Ref], bool],
        settled: Callable[[], bool] = lambda: True,
        listens: Callable[[Ref, int], bool] = lambda *_: True,
        told: Callable[[Ref], None] = lambda _: None,
        namespaces: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.errors: dict[Ref, str] = {}
        """What keeps a target's gateway from being as wanted, in one line."""
        self.failures = 0
        """Tries that failed."""
        self._deploying, self._leadership = deploying, leadership
        self._readable, self._settled, self._listens, self._told = readable, settled, listens, told
        pace = Pace(PER_SECOND, BURST)
        self._parts = Parts(call, deploying.release, lambda: self._leadership.held, pace, namespaces)
        self._clock = clock
        self._wanted: dict[Ref, Wanted] = {}
        self._holders: dict[tuple[str, str], Ref] = {}
        self._applied: dict[Ref, dict[str, str]] = {}
        self._services: dict[Ref, str] = {}
        """The version that each entrance had when it was as wanted."""
        self._done: set[Ref] = set()
        self._schedule: Schedule[Ref] = Schedule()
        self._failures: Counter[Ref] = Counter()
        self._waiting: set[Ref] = set()
        self._kept: set[Ref] = set()
        """Targets that want no gateway and may have one, which stays because not all that could want it is readable."""
        self._woken = asyncio.Event()
        self._look_at: float | None = None
        """When to look at all of them; None while this replica does not lead."""
        self._looks = 0
        self._roller = Roller(self._parts, deploying, clock, self._again, self._mark)
        self._failed_looks = 0

    @property
    def requests(self) -> Counter[str]:
        """Requests made since the start: `list`, `get`, `apply`, `delete`."""
        return self._parts.requests

    @property
    def wanted(self) -> int:
        """Gateways that there are to be."""
        return len(self._wanted)

    @property
    def applied(self) -> int:
        """Of these, the ones that the cluster has as they are wanted; 0 where another replica leads."""
        return len(self._done)

    # -- What is wanted ------------------------------------------------------------------------------------------

    def want(self, target: Ref, wanted: Wanted | None) -> None:
        """What gateway a target is to have now; None for none, or a target that is gone."""
        if self._wanted.get(target) == wanted:
            return
        place = (target.namespace, names.entrance(target))
        if wanted is None:
            del self._wanted[target]
            if self._holders.get(place) == target:
                self._hand_over(place)
        else:
            self._wanted[target] = wanted
            self._kept.discard(target)
            self._holders.setdefault(place, target)
        self._mark([target])

    def _hand_over(self, place: tuple[str, str]) -> None:
        """Another target whose gateway would be called the same may have it now."""
        del self._holders[place]
        waiting = [other for other in self._wanted if (other.namespace, names.entrance(other)) == place]
        if waiting:
            self._holders[place] = waiting[0]
            self._mark(waiting[:1])

    def deploy(self, deploying: Deploying) -> None:
        """The operator's part is another now, as when the authorities are."""
        if deploying != self._deploying:
            self._deploying = deploying
            self._roller.deploy(deploying)
            self._mark(self._wanted)

    def moved(self, target: Ref) -> None:
        """Envoys of a target's gateway came, went, took or refused something."""
        wanted = self._wanted.get(target)
        if target in self._waiting and wanted and self._listens(target, wanted.gateway.port):
            self._mark([target])

    def entrance(self, namespace: str, name: str, version: str | None) -> None:
        """A Service is there in another version, or (None) gone: if it is a gateway's, it may have to be mended."""
        target = self._holders.get((namespace, name))
        if target in self._applied and self._services.get(target) != version:
            self._applied[target].pop("Service", None)
            self._mark([target])

    def mended(self, namespace: str) -> None:
        """Something in a namespace that could not be read is readable, or gone."""
        self._mark([target for target in self._kept if target.namespace == namespace])

    def gateway_of(self, namespace: str, account: str) -> str | None:
        """The gateway whose pods have a ServiceAccount; every replica knows, also one that does not lead."""
        target = self._holders.get((namespace, account))
        wanted = self._wanted.get(target) if target else None
        return wanted.gateway.name if wanted else None

    def _again(self, target: Ref, seconds: float) -> None:
        self._schedule.later(target, self._clock() + seconds)

    def _mark(self, targets: Iterable[Ref]) -> None:
        if self._look_at is None:
            return  # who begins to lead looks at all of them
        for target in targets:
            self._done.discard(target)
            self._schedule.mark(target, self._clock())
        self._woken.set()

    # -- While it leads ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Provision until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._work())

    async def _follow(self) -> None:
        async for leads in self._leadership.changes():
            for known in (self._applied, self._services, self._done, self._kept, self._waiting, self._roller):
                known.clear()  # another may have written meanwhile
            self._schedule.clear()
            self._look_at = self._clock() if leads else None
            self._looks = 0
            if not leads:
                self._say_nothing()
            self._woken.set()

    async def _work(self) -> None:
        while True:
            try:
                await self._turn()
            except* Lost:
                await asyncio.sleep(0)
            await self._rest()

    async def _turn(self) -> None:
        """All that is due now."""
        self._woken.clear()
        while self._leadership.held and self._look_at is not None:
            if self._look_at <= self._clock():
                await self._look()
            taken = self._schedule.take(self._clock(), AT_ONCE)
            if not taken:
                return
            async with asyncio.TaskGroup() as tasks:
                for target in taken:
                    tasks.create_task(self._provision(target))

    async def _rest(self) -> None:
        leads = self._leadership.held and self._look_at is not None
        due = (self._look_at or 0.0) - self._clock()
        marked = self._schedule.wait(self._clock())
        seconds = min(due, due if marked is None else marked) if leads else None
        try:
            async with asyncio.timeout(None if seconds is None else max(0.0, seconds)):
                await self._woken.wait()
        except TimeoutError:
            return

    # -- One gateway ---------------------------------------------------------------------------------------------

    async def _provision(self, target: Ref) -> None:
        self._waiting.discard(target)
        trouble = None
        try:
            wanted = self._wanted.get(target)
            if wanted is not None:
                trouble = await self._make(target, wanted)
            else:
                await self._end(target)
        except Lost:
            raise
        except Exception as error:  # noqa: BLE001 - any fault, so that it harms one gateway; it is told
            self._failed(target, error)
        else:
            self._failures.pop(target, None)
            self._say(target, trouble)

    async def _make(self, target: Ref, wanted: Wanted) -> str | None:
        """Make a gateway as it is wanted, as far as that can be now; what it has to wait for."""
        made = manifests(wanted.owner, wanted.gateway, self._deploying)
        holder = self._holders[target.namespace, made[0]["metadata"]["name"]]
        if holder != target:
            raise Trouble(f"the gateway of {holder} is called {made[0]['metadata']['name']} too")
        held = self._applied.setdefault(target, {})
        told = await self._bring_all(target, wanted.gateway.port, made, held)
        for kind in held.keys() - {one["kind"] for one in made}:
            await self._remove(kind, target)
            del held[kind]
        if not told:
            self._done.add(target)
        await self._roller.follow(target, made[-1])
        return next(filter(None, told), None)

    async def _bring_all(
        self, target: Ref, port: int, made: Sequence[Manifest], held: dict[str, str]
    ) -> list[str | None]:
        """What kept some from being brought; None for what needs no word."""
        told: list[str | None] = []
        free, seen = True, _NOTHING
        if held.get("Deployment") != content(made[-1]):
            free, seen = await self._roller.may(target, made[-1])
        if not free:
            await self._roller.believe(made, held)
            told.append(self._roller.why())
            made = [one for one in made if one["kind"] not in ROLLED]
        for one in made:
            if held.get(one["kind"]) == content(one) or await self._bring(target, port, one, held, seen):
                continue
            held.pop(one["kind"], None)
            told.append(f"{title(one)} is being deleted; it is made anew when it is gone")
            self._again(target, AGAIN_SECONDS)
        return told

    async def _bring(
        self, target: Ref, port: int, wanted: Manifest, held: dict[str, str], seen: Mapping[str, Found | None]
    ) -> bool:
        """Apply a manifest, if what there is is another; never over what is somebody else's. Not over what is going."""
        kind = wanted["kind"]
        if kind not in held or kind in _ALWAYS_READ:
            found = seen[kind] if kind in seen else await self._parts.get(wanted)
            if found is not None and not ours(wanted, found):
                raise Trouble(f"{title(wanted)} is there already, and is not xdserve's")
            if found is not None and ending(found):
                return False
            if found is not None and same(wanted, found):
                self._has(target, wanted, found, held)
                return True
            if found is not None and leads_elsewhere(wanted, found) and not self._listens(target, port):
                self._waiting.add(target)
                return True
        self._has(target, wanted, await self._parts.apply(wanted), held)
        logger.info("applied", object=title(wanted))
        return True

    def _has(self, target: Ref, wanted: Manifest, found: Found, held: dict[str, str]) -> None:
        """An object is as it is wanted."""
        held[wanted["kind"]] = content(wanted)
        if wanted["kind"] == "Service":
            self._services[target] = version(found)
        if wanted["kind"] == "Deployment":
            self._roller.applied(target)

    # -- What is not wanted --------------------------------------------------------------------------------------

    async def _end(self, target: Ref) -> None:
        """Take away the gateway of a target that is known to want none."""
        if not self._settled():
            self._schedule.later(target, self._clock() + UNSETTLED_SECONDS)
        elif not self._readable(target):
            self._kept.add(target)
            self._forget(target)
        else:
            self._kept.discard(target)
            await self._take_away(target)

    async def _take_away(self, target: Ref) -> None:
        for kind in reversed(KINDS):
            await self._remove(kind, target)
        self._forget(target)

    def _forget(self, target: Ref) -> None:
        for known in (self._applied, self._services):
            known.pop(target, None)
        self._roller.forget(target)

    async def _remove(self, kind: str, target: Ref) -> None:
        """Delete an object of a target, if it is there, ours and still this target's."""
        metadata = {"namespace": target.namespace, "name": names.entrance(target)}
        shape: Manifest = {
            "kind": kind,
            "metadata": metadata | {"labels": labels(target, self._deploying.release)},
        }
        for _ in range(_MOST_CHANGES):
            found = await self._parts.get(shape)
            if found is None or ending(found) or not ours(shape, found) or target_of(found) != target:
                return
            if await self._parts.delete(shape, found):  # not if it has just become another target's
                logger.info("deleted", object=title(shape))
                return
        raise Trouble(f"{title(shape)} changes too often to be deleted")

    # -- All of them ---------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Compare all that there is with what is wanted, and mark what is not as it should be."""
        begun = self._clock()
        try:
            found = await self._parts.listed()
        except Trouble as trouble:
            self._failed_looks += 1
            self._look_at = self._clock() + _back_off(self._failed_looks)
            logger.warning("cannot look at the gateways", cause=str(trouble))
            if not self._looks and self._failed_looks == 1:
                self._mark(self._wanted)
            return
        first = not self._applied
        self._failed_looks = 0
        for target, wanted in list(self._wanted.items()):
            if self._wanted.get(target) == wanted:
                self._compared(target, wanted, found, trust=first)
            await asyncio.sleep(0)  # a millisecond each
        # Of all others that were kept before, nothing is left.
        unwanted = found.targets - self._wanted.keys()
        self._kept = {ref for ref in unwanted if not self._readable(ref)}
        self._mark(unwanted - self._kept)
        self._looks += 1
        now = self._clock()
        self._look_at = now + max(LOOK_SECONDS, LONGEST_LOOK * (now - begun)) * _random.uniform(0.9, 1.1)

    def _compared(
        self, target: Ref, wanted: Wanted, found: Mapping[tuple[str, str, str], Found], *, trust: bool
    ) -> None:
        try:
            self._compare(target, wanted, found, trust=trust)
        except Exception as error:  # noqa: BLE001 - any fault, so that it harms one gateway; it is told
            self._failed(target, error)

    def _compare(
        self, target: Ref, wanted: Wanted, found: Mapping[tuple[str, str, str], Found], *, trust: bool
    ) -> None:
        """What of a gateway is as wanted. No ConfigMap is listed: see `_held_config`."""
        made = manifests(wanted.owner, wanted.gateway, self._deploying)
        seen = {one["kind"]: found.get(key(one)) for one in made}
        held = self._held_config(target, made, seen, trust=trust)
        for one in made:
            there = seen[one["kind"]]
            if one["kind"] not in LISTED or there is None or not ours(one, there) or ending(there):
                continue
            if same(one, there):
                self._has(target, one, there, held)
            else:
                held[one["kind"]] = ""
        if not self._looks:
            self._roller.resume(target, seen["Deployment"])
        for kind in KINDS:  # one replica has no budget; one that is left over goes
            there = found.get((kind, *key(made[0])[1:]))
            if kind not in seen and there is not None:
                held[kind] = ""
        self._applied[target] = held
        if held != {one["kind"]: content(one) for one in made}:
            self._mark([target])
        else:
            self._done.add(target)

    def _held_config(
        self, target: Ref, made: Sequence[Manifest], seen: Mapping[str, Found | None], *, trust: bool
    ) -> dict[str, str]:
        """What is known of the ConfigMap, by its kind: at first by the Deployment. Nothing if it is to be read."""
        (config,) = (one for one in made if one["kind"] == "ConfigMap")
        if trust:
            return {"ConfigMap": content(config)} if tells_of(seen["Deployment"], config) else {}
        before = self._applied.get(target, {}).get("ConfigMap")
        whole = all(there for kind, there in seen.items() if kind in LISTED)
        due = crc32(target.name.encode()) % LOOKS_A_CONFIG == self._looks % LOOKS_A_CONFIG
        return {"ConfigMap": before} if before and whole and not due else {}

    # -- Troubles ------------------------------------------------------------------------------------------------

    def _failed(self, target: Ref, error: Exception) -> None:
        """Try again later; a fault of ours is logged with its cause."""
        self.failures += 1
        self._failures[target] += 1
        if not self._applied.get(target, {}).get("Deployment"):
            self._roller.give_up(target)
        asked = error.retry_after if isinstance(error, Trouble) else 0.0
        self._schedule.later(target, self._clock() + max(_back_off(self._failures[target]), asked))
        if isinstance(error, Trouble | Unreachable):
            self._say(target, str(error))
        else:
            self._say(target, f"internal error ({type(error).__name__})")
            logger.error("provisioning failed", target=str(target), exc_info=error)

    def _say(self, target: Ref, trouble: str | None) -> None:
        if self.errors.get(target) == trouble:
            return
        if trouble is None:
            del self.errors[target]
        else:
            self.errors[target] = trouble
            logger.warning("gateway not provisioned", target=str(target), cause=trouble)
        self._told(target)

    def _say_nothing(self) -> None:
        """Another replica leads, and says it."""
        self._failures.clear()
        for target in list(self.errors):
            self._say(target, None)


def _back_off(failures: int) -> float:
    seconds: float = RETRY_FIRST * 2 ** min(failures - 1, 20)
    return min(RETRY_LONGEST, seconds) * _random.uniform(0.8, 1.2)
