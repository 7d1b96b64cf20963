"""Makes, mends and takes away the gateways of targets, by server-side apply; the leader alone does.

What is wanted is compared with what was applied, so that an unchanged gateway costs no request. At first and every
minute all that there is is read and compared, so that what others have changed or deleted is mended. When a target
goes, its gateway goes by its owner reference: only of targets that are there, and want none, anything is deleted.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from random import SystemRandom
from typing import Protocol

import structlog

from bootstrap.manifests import Deploying, Unreachable, manifests
from translator.objects.ref import Ref
from xdserve.kube.calls import Caller
from xdserve.kube.holders import Holders
from xdserve.kube.making import Maker
from xdserve.kube.pace import Pace
from xdserve.kube.parts import Listing, Lost, Parts, Trouble
from xdserve.kube.rolling import Roller
from xdserve.kube.schedule import Schedule
from xdserve.kube.wanted import Wanted

logger = structlog.get_logger("xdserve.provision")

PER_SECOND, BURST = 50.0, 50.0
"""Requests."""
LOOK_SECONDS = 60.0
"""Until what others have changed is mended, at the most. A Service is followed: there it is moments."""
LONGEST_LOOK = 20.0
"""Of so many seconds one is spent with looking, at the most: thousands of gateways are looked at less often."""
RETRY_FIRST, RETRY_LONGEST = 1.0, 300.0
UNSETTLED_SECONDS = 1.0
AT_ONCE = 8
"""Gateways that are worked on together, so that a slow answer holds up few."""
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
        looked: called with all that there is, but ConfigMaps, whenever it has been looked at.
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
        looked: Callable[[Listing], None] = lambda _: None,
        told: Callable[[Ref], None] = lambda _: None,
        namespaces: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.errors: dict[Ref, str] = {}
        """What keeps a target's gateway from being as wanted, in one line."""
        self.failures = 0
        """Tries that failed."""
        self._deploying, self._leadership = deploying, leadership
        self._readable, self._settled, self._listens = readable, settled, listens
        self._looked, self._told = looked, told
        pace = Pace(PER_SECOND, BURST)
        self._parts = Parts(call, deploying.release, lambda: self._leadership.held, pace, namespaces)
        self._clock = clock
        self._wanted = Holders()
        self._schedule: Schedule[Ref] = Schedule()
        self._failures: Counter[Ref] = Counter()
        self._kept: set[Ref] = set()
        """Targets that want no gateway and may have one, which stays because not all that could want it is readable."""
        self._woken = asyncio.Event()
        self._look_at: float | None = None
        """When to look at all of them; None while this replica does not lead."""
        self._looks = 0
        self._failed_looks = 0
        self._roller = Roller(self._parts, deploying, clock, self._again, self._mark)
        self._maker = Maker(self._parts, self._roller, deploying.release, listens, self._again)

    @property
    def requests(self) -> Counter[str]:
        """Requests made since the start: `list`, `get`, `apply`, `delete`."""
        return self._parts.requests

    @property
    def wanted(self) -> int:
        """Gateways that there are to be."""
        return len(self._wanted)

    @property
    def targets(self) -> Sequence[Ref]:
        """Whose they are."""
        return tuple(self._wanted)

    @property
    def applied(self) -> int:
        """Of these, the ones that the cluster has as they are wanted; 0 where another replica leads."""
        return 0 if self._look_at is None else len(self._maker.done)

    # -- What is wanted ------------------------------------------------------------------------------------------

    def want(self, target: Ref, wanted: Wanted | None) -> None:
        """What gateway a target is to have now; None for none, or a target that is gone."""
        changed = self._wanted.want(target, wanted)
        if target in self._wanted:
            self._kept.discard(target)
        self._mark(changed)

    def deploy(self, deploying: Deploying) -> None:
        """The operator's part is another now, as when the authorities are."""
        if deploying != self._deploying:
            self._deploying = deploying
            self._roller.deploy(deploying)
            self._mark(self._wanted)

    def moved(self, target: Ref) -> None:
        """Envoys of a target's gateway came, went, took or refused something."""
        wanted = self._wanted.get(target)
        if target in self._maker.waiting and wanted and self._listens(target, wanted.gateway.port):
            self._mark([target])

    def entrance(self, namespace: str, name: str, version: str | None) -> None:
        """A Service is there in another version, or (None) gone: if it is a gateway's, it may have to be mended."""
        target = self._wanted.holder((namespace, name))
        if target and self._maker.entrance(target, version):
            self._mark([target])

    def mended(self, namespace: str) -> None:
        """Something in a namespace that could not be read is readable, or gone."""
        self._mark([target for target in self._kept if target.namespace == namespace])

    def gateway_of(self, namespace: str, account: str) -> str | None:
        """The gateway whose pods have a ServiceAccount; every replica knows, also one that does not lead."""
        target = self._wanted.holder((namespace, account))
        return self._wanted[target].gateway.name if target else None

    def _again(self, target: Ref, seconds: float) -> None:
        self._schedule.later(target, self._clock() + seconds)

    def _mark(self, targets: Iterable[Ref]) -> None:
        if self._look_at is None:
            return  # who begins to lead looks at all of them
        for target in targets:
            self._maker.done.discard(target)
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
            for known in (self._maker, self._kept, self._schedule):
                known.clear()  # another may have written meanwhile
            self._look_at = self._clock() if leads else None
            self._looks = self._failed_looks = 0
            if not leads:
                self._say_nothing()
            self._woken.set()

    async def _work(self) -> None:
        while True:
            try:
                await self._turn()
            except* Lost:
                if self._look_at is not None:
                    self._look_at = self._clock()  # if it leads again, what it began is not known
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
        try:
            async with asyncio.timeout(self._due()):
                await self._woken.wait()
        except TimeoutError:
            return

    def _due(self) -> float | None:
        """Seconds until there is something to do; None while another leads."""
        if self._look_at is None:
            return None
        if not self._leadership.held:
            return UNSETTLED_SECONDS  # it is told soon, unless it leads again before
        looked, marked = self._look_at - self._clock(), self._schedule.wait(self._clock())
        return max(0.0, looked if marked is None else min(looked, marked))

    # -- One gateway ---------------------------------------------------------------------------------------------

    async def _provision(self, target: Ref) -> None:
        self._maker.waiting.discard(target)
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
        name = made[0]["metadata"]["name"]
        holder = self._wanted.holder((target.namespace, name))
        if holder != target:
            raise Trouble(f"the gateway of {holder} is called {name} too")
        return await self._maker.make(target, wanted.gateway.port, made)

    async def _end(self, target: Ref) -> None:
        """Take away the gateway of a target that is known to want none."""
        if not self._settled():
            self._schedule.later(target, self._clock() + UNSETTLED_SECONDS)
        elif not self._readable(target):
            self._kept.add(target)
            self._maker.forget(target)
        else:
            self._kept.discard(target)
            await self._maker.take_away(target)

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
        first = not len(self._maker)
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
        self._looked(found)
        now = self._clock()
        self._look_at = now + max(LOOK_SECONDS, LONGEST_LOOK * (now - begun)) * _random.uniform(0.9, 1.1)

    def _compared(self, target: Ref, wanted: Wanted, found: Listing, *, trust: bool) -> None:
        try:
            made = manifests(wanted.owner, wanted.gateway, self._deploying)
            if not self._maker.compare(target, made, found, looks=self._looks, trust=trust):
                self._mark([target])
        except Exception as error:  # noqa: BLE001 - any fault, so that it harms one gateway; it is told
            self._failed(target, error)

    # -- Troubles ------------------------------------------------------------------------------------------------

    def _failed(self, target: Ref, error: Exception) -> None:
        """Try again later; a fault of ours is logged with its cause."""
        self.failures += 1
        self._failures[target] += 1
        self._maker.failed(target)
        asked = error.retry_after if isinstance(error, Trouble) else 0.0
        self._schedule.later(target, self._clock() + max(_back_off(self._failures[target]), asked))
        if isinstance(error, Trouble | Unreachable):
            self._say(target, str(error))
        else:
            self._say(target, f"internal error ({type(error).__name__})")
            logger.error("provisioning failed", target=str(target), exc_info=error)

    def _say(self, target: Ref, trouble: str | None) -> None:
        if self.errors.get(target) == trouble or (trouble and self._look_at is None):
            return  # a request may fail when another leads already, who tells what is so then
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
