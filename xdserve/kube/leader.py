"""Which replica writes: leader election by a Lease (coordination.k8s.io/v1).

Only what this process observes on its own clock counts, so no two clocks need agree. A candidate takes a Lease that
has not changed for as long as its holder asked, counted from when the candidate saw its last change. A holder stops
when its last renewal was *sent* longer ago than `RENEW_SECONDS`, which is less: it stops before another can begin.
Every write is bound to the resourceVersion that was read, so of two who take at once one fails.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import SystemRandom
from typing import Any

import structlog

from xdserve.kube.calls import REQUEST_SECONDS, Caller, CallError

logger = structlog.get_logger("xdserve.leader")

LEASE_SECONDS = 15.0
"""How long others wait for a holder that says nothing."""
RENEW_SECONDS = 10.0
"""How long a holder goes on without a renewal that succeeded."""
RETRY_SECONDS = 2.0
"""Between two tries, of holder and candidates alike; candidates wait up to a fifth longer."""
RELEASE_SECONDS = 2.0

NAME = "xdserve"
_CONFLICTS = (404, 409)
_random = SystemRandom()


@dataclass(frozen=True, slots=True)
class Record:
    """What a Lease says: `version` is its resourceVersion, `seconds` how long others are to wait for the holder."""

    version: str
    holder: str
    seconds: float
    transitions: int = 0
    acquired: str = ""


@dataclass(frozen=True, slots=True)
class Terms:
    """How long things take, in seconds."""

    lease: float = LEASE_SECONDS
    renew: float = RENEW_SECONDS
    retry: float = RETRY_SECONDS

    def __post_init__(self) -> None:
        if not 0 < self.retry < self.renew < self.lease:
            raise ValueError(f"found {self}, allowed: retry < renew < lease")


class Election:
    """What a candidate knows, and may do. Pure: the caller brings what it read and the time."""

    def __init__(self, identity: str, terms: Terms) -> None:
        self.identity = identity
        self._terms = terms
        self._record: Record | None = None
        self._observed_at = 0.0
        self._held_until: float | None = None

    def observe(self, record: Record | None, now: float) -> None:
        """The Lease as it was read at `now`, None if there is none; a holder that reads another's name has lost."""
        if record is None or self._record is None or record.version != self._record.version:
            self._observed_at = now
        self._record = record
        if record is None or record.holder != self.identity:
            self._held_until = None

    def due(self, now: float) -> bool:
        """Whether to write: renew what is ours, or take what is free."""
        found = self._record
        if found is None or not found.holder or found.holder == self.identity:
            return True
        return now - self._observed_at >= max(found.seconds, self._terms.lease)

    def wanted(self, now: datetime) -> Record:
        """What to write when it is due, over the record that was observed."""
        found = self._record or Record("", "", 0.0)
        if found.holder == self.identity:
            return replace(found, seconds=self._terms.lease)
        taken = found.transitions + bool(found.version)
        return Record(found.version, self.identity, self._terms.lease, taken, _micro_time(now))

    def written(self, record: Record, sent: float) -> None:
        """It was written; `sent` is when the request began."""
        self._record, self._observed_at = record, sent
        self._held_until = sent + self._terms.renew

    def held(self, now: float) -> bool:
        """Whether this candidate leads."""
        return self._held_until is not None and now < self._held_until

    def left(self, now: float) -> float:
        """Seconds that it leads for certain."""
        return max(0.0, self._held_until - now) if self._held_until is not None else 0.0

    def resign(self) -> Record | None:
        """Lead no more; what to write so that others need not wait, if it led."""
        led, self._held_until = self._held_until is not None, None
        return replace(self._record, holder="", seconds=1.0) if led and self._record else None


class Leadership:
    """Takes part in the election while it runs.

    Args:
        call: makes requests.
        namespace: where the Lease is.
        identity: unlike that of any other candidate, and of this one's earlier life: the pod's name and a random part.
        name: of the Lease.
        clock: seconds, monotonic, and going on while the process is stopped.
        now: the time of day, for people alone.
    """

    def __init__(  # noqa: PLR0913 - what an election is made of
        self,
        call: Caller,
        namespace: str,
        identity: str,
        *,
        name: str = NAME,
        terms: Terms | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._call = call
        self._terms = terms or Terms()
        self._clock, self._now = clock, now
        self._lease = Lease(call, namespace, name)
        self._election = Election(identity, self._terms)
        self.turns = 0
        """How often it began or ceased to lead."""
        self._told = False
        self._turn = asyncio.Event()
        self._trouble = ""

    @property
    def held(self) -> bool:
        """Whether this replica leads at this moment; to be asked before each write."""
        return self._election.held(self._clock())

    def bounded(self, call: Caller) -> Caller:
        """The same, but for requests of a leader: each ends before another can begin to lead.

        What an apiserver takes seconds for would else undo what the next leader has written meanwhile.
        """

        async def within(
            method: str,
            path: str,
            body: object = None,
            *,
            seconds: float = REQUEST_SECONDS,
            **more: Any,  # noqa: ANN401 - as `Caller`
        ) -> dict[str, Any]:
            left = self._election.left(self._clock()) + self._terms.lease - self._terms.renew
            return await call(method, path, body, seconds=min(seconds, left), **more)

        return within

    async def changes(self) -> AsyncIterator[bool]:
        """Whether it leads: now, and whenever that changes. What comes and goes while nobody waits is left out."""
        said: bool | None = None
        while True:
            turn = self._turn
            if said is not self._told:
                said = self._told
                yield said
            else:
                await turn.wait()

    async def run(self) -> None:
        """Stand for election until cancelled; then what is held is released."""
        try:
            while True:
                await self._try()
                self._tell()
                await self._pause()
        finally:
            await self._release()

    async def _try(self) -> None:
        """Read where that is needed, and take or renew where it is due."""
        try:
            async with asyncio.timeout(self._patience()):
                await self._renew() if self.held else await self._stand()
        except (CallError, TimeoutError) as error:
            self._say(error)
        else:
            self._trouble = ""

    def _patience(self) -> float:
        """A holder's request may not outlast what it holds, so that the loss is told in time."""
        return min(self._terms.retry * 2, self._election.left(self._clock()) or self._terms.renew)

    async def _stand(self) -> None:
        found = await self._lease.read()
        self._election.observe(found, self._clock())
        if self._election.due(self._clock()):
            await self._write()

    async def _renew(self) -> None:
        try:
            await self._write()
        except CallError as error:
            if error.status not in _CONFLICTS:
                raise
            await self._stand()

    async def _write(self) -> None:
        sent = self._clock()
        written = await self._lease.write(self._election.wanted(self._now()), self._now())
        self._election.written(written, sent)

    async def _pause(self) -> None:
        """Until the next try; a holder that nears its end wakes to say so."""
        pause = self._terms.retry
        if not self.held:
            await asyncio.sleep(pause * _random.uniform(1, 1.2))
            return
        await asyncio.sleep(min(pause, self._election.left(self._clock())))
        self._tell()

    def _tell(self) -> None:
        if self.held is self._told:
            return
        self._told = self.held
        self.turns += 1
        logger.info("leads" if self._told else "leads no more", identity=self._election.identity)
        self._turn.set()
        self._turn = asyncio.Event()

    def _say(self, error: Exception) -> None:
        """Once while it lasts: apiservers go away for minutes."""
        cause = str(error) or type(error).__name__
        if not self._trouble:
            logger.warning("the Lease can be neither read nor written", lease=str(self._lease), cause=cause)
        self._trouble = cause

    async def _release(self) -> None:
        record = self._election.resign()
        self._tell()
        if record is None:
            return
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._lease.write(record, self._now())
        except (CallError, TimeoutError) as error:
            logger.info("the Lease could not be released; it ends by itself", cause=str(error))


class Lease:
    """A Lease on the apiserver, read and written as a `Record`."""

    def __init__(self, call: Caller, namespace: str, name: str) -> None:
        self._call = call
        self._namespace, self._name = namespace, name
        self._path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"

    def __str__(self) -> str:
        return f"{self._namespace}/{self._name}"

    async def read(self) -> Record | None:
        """What it says; None if there is none.

        Raises:
            CallError: it cannot be read.
        """
        try:
            return _record(await self._call("GET", f"{self._path}/{self._name}"))
        except CallError as error:
            if error.status == 404:
                return None
            raise

    async def write(self, record: Record, now: datetime) -> Record:
        """Make it (a record without version), or change the version that was read; what it says then.

        Raises:
            CallError: 409 if it is another by now, 404 if it is gone.
        """
        document = self._document(record, now)
        if record.version:
            return _record(await self._call("PUT", f"{self._path}/{self._name}", document))
        return _record(await self._call("POST", self._path, document))

    def _document(self, record: Record, now: datetime) -> dict[str, Any]:
        metadata = {"name": self._name, "namespace": self._namespace}
        if record.version:
            metadata["resourceVersion"] = record.version
        spec = {
            "holderIdentity": record.holder,
            "leaseDurationSeconds": max(1, round(record.seconds)),
            "leaseTransitions": record.transitions,
            "acquireTime": record.acquired or _micro_time(now),
            "renewTime": _micro_time(now),
        }
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def _record(document: dict[str, Any]) -> Record:
    """What others may have written is taken as it is: an empty Lease is free.

    Raises:
        CallError: it is no object of the apiserver, as what stands before one that is away may send.
    """
    spec, version = document.get("spec") or {}, (document.get("metadata") or {}).get("resourceVersion")
    if not version:
        raise CallError(0, "the answer is no Lease")
    return Record(
        version=version,
        holder=spec.get("holderIdentity") or "",
        seconds=float(spec.get("leaseDurationSeconds") or 0),
        transitions=spec.get("leaseTransitions") or 0,
        acquired=spec.get("acquireTime") or "",
    )


def _micro_time(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
