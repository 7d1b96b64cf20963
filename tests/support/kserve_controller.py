"""What KServe's controller does to the status of InferenceServices: reads, works, and puts all of it by version.

Its steps are those of a Standard deployment: the components are made, the ingress is, and at some time the model is
ready. It looks at an object on each of its events, also on those of writes by others, and begins anew on a conflict.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from translator.objects.ref import KSERVE, Ref
from xdserve.kube.calls import CallError
from xdserve.kube.patches import path_of
from xdserve.kube.resources import TARGETS
from xdserve.kube.schedule import Schedule
from xdserve.kube.settling import QUIET_SECONDS
from xdserve.kube.source import KubernetesSource

WORK_SECONDS = (0.05, 0.35)
"""Between what it reads and what it writes: it looks at Deployments, Services and HTTPRoutes meanwhile."""
LAG_SECONDS = (0.0, 3.0)
"""Until it takes up an edit: its queue has others."""
READY_SECONDS = (3.0, 8.0)
"""Until the model is ready, after the object was taken up."""
_STEPS = (
    (0.0, "PredictorReady", "Unknown"),
    (0.3, "IngressReady", "False"),
    (0.8, "IngressReady", "True"),
    (1.4, "LatestDeploymentReady", "True"),
)


class Conflict(NamedTuple):
    """A write of the controller that failed because of another's in between."""

    name: str
    read: int
    """The version that it had read."""
    there: int
    """The version that it found then."""
    began_first: bool
    """Whether nobody could know that it was about to write: it had seen the generation, and written nothing for so long
    that its status counts as settled, when the other wrote."""


@dataclass
class _Life:
    """One object, as the controller has it."""

    lags: list[float]
    ready: float
    taken_up: float | None = None
    wrote: float = 0.0
    generation: int = 0
    edited: dict[int, float] = field(default_factory=dict)


class Controller:
    """Runs over one namespace; `conflicts` are those on its side, `writes` what the apiserver took."""

    def __init__(self, client, call, namespace, seed=1):
        self.conflicts, self.writes = [], 0
        self._call, self._random = call, Random(seed)
        self._schedule = Schedule(quiet=0.0, longest=0.0)
        self._lives = {}
        self._busy = set()
        self._source = KubernetesSource(client, self, [namespace], resources=TARGETS[:1], restated=self._mark)

    def apply(self, changes):
        """Its source has seen that objects are others."""
        for change in changes:
            self._mark(change.object.ref)

    def done(self, ref):
        """Whether all steps of an object's newest generation are done."""
        life = self._lives.get(ref)
        return life is not None and life.generation and self._due(life, time.monotonic()) is None

    async def run(self):
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._source.run())
            while True:
                for ref in self._schedule.take(time.monotonic(), 1000):
                    if ref in self._busy:  # a workqueue gives an object to one worker at a time
                        self._schedule.later(ref, time.monotonic() + 0.01)
                    else:
                        self._busy.add(ref)
                        tasks.create_task(self._reconcile(ref))
                await asyncio.sleep(0.005)

    def _mark(self, ref):
        if ref not in self._lives:
            lags = [self._random.uniform(*LAG_SECONDS) for _ in range(9)]
            self._lives[ref] = _Life(lags, self._random.uniform(*READY_SECONDS))
        self._schedule.mark(ref, time.monotonic())

    async def _reconcile(self, ref):
        life = self._lives[ref]
        try:
            document = await self._call("GET", path_of(ref))
            now = time.monotonic()
            seen = life.edited.setdefault(document["metadata"]["generation"], now)
            if now < (at := seen + life.lags[document["metadata"]["generation"]]):
                self._schedule.later(ref, at)
                return
            life.taken_up = life.taken_up or now
            await asyncio.sleep(self._random.uniform(*WORK_SECONDS))
            await self._write(ref, life, document)
        finally:
            self._busy.discard(ref)

    async def _write(self, ref, life, document):
        wanted = _status(document, life, time.monotonic())
        if wanted != document.get("status"):
            try:
                await self._call("PUT", path_of(ref) + "/status", document | {"status": wanted})
            except CallError as error:
                if error.status != 409:
                    raise
                await self._conflict(ref, life, document)
                return
            self.writes += 1
            life.wrote = time.monotonic()
        life.generation = document["metadata"]["generation"]
        if (due := self._due(life, time.monotonic())) is not None:
            self._schedule.later(ref, due)

    async def _conflict(self, ref, life, document):
        """Note it, and begin anew."""
        known = life.generation == document["metadata"]["generation"]
        quiet = time.monotonic() - life.wrote >= QUIET_SECONDS
        there = await self._call("GET", path_of(ref))
        self.conflicts.append(Conflict(ref.name, _version(document), _version(there), known and quiet))
        self._schedule.mark(ref, time.monotonic())

    def _due(self, life, now):
        times = [life.taken_up + after for after in (*(step[0] for step in _STEPS), life.ready)]
        return min((at for at in times if at > now), default=None)


def _status(document, life, now):
    """The status with its own conditions as they are by now; those of others stay."""
    after = now - life.taken_up
    said = {kind: value for since, kind, value in _STEPS if since <= after}
    said |= {"PredictorReady": "True"} if after >= life.ready else {}
    said["Ready"] = "True" if after >= life.ready else "Unknown"
    status = document.get("status") or {}
    known = {one["type"]: one for one in status.get("conditions", ())}
    for kind, value in said.items():
        if known.get(kind, {}).get("status") != value:
            known[kind] = {"type": kind, "status": value, "lastTransitionTime": "2026-01-01T00:00:00Z"}
    listed = sorted(known.values(), key=lambda one: one["type"])
    return status | {"conditions": listed, "observedGeneration": document["metadata"]["generation"]}


def _version(document):
    return int(document["metadata"]["resourceVersion"])


def service_ref(namespace, name):
    """An InferenceService."""
    return Ref(KSERVE, "InferenceService", namespace, name)


async def pods_start(random):
    """The time that a gateway's pods take for one step, which is no event of either writer."""
    await asyncio.sleep(random.uniform(0.3, 2))
