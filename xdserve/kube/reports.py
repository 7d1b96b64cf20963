"""What replicas tell the leader of the Envoys that are connected to them: a ConfigMap each, in their own namespace.

Only who leads writes status, and Envoys connect to any replica. So whoever does not lead reports, of each gateway that
has Envoys here, of which configuration it speaks, whether all have acknowledged it, and what they refuse. A report that
has not been renewed for `SILENT_SECONDS`, by the leader's own clock, counts no more: its Envoys have gone elsewhere.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import structlog

from translator.objects.ref import Ref
from xdserve.conditions import Delivery, Progress, Refused
from xdserve.judge import Judge
from xdserve.kube.calls import APPLY, Caller, CallError
from xdserve.kube.client import Client
from xdserve.kube.leader import Leadership
from xdserve.kube.reflector import Counts, Deleted, Event, Listed, Reflector, Upserted
from xdserve.kube.resources import Resource, Scope
from xdserve.pauses import Pauses

logger = structlog.get_logger("xdserve.reports")

LABEL = "xdserve.io/report"
BEAT = "xdserve.io/beat"
FIELD_MANAGER = "xdserve-report"
CONFIG_MAPS = Resource("", ("v1",), "configmaps", "ConfigMap")

QUIET_SECONDS = 0.2
RENEW_SECONDS = 5.0
SILENT_SECONDS = 15.0
LARGEST = 16 * 1024 * 1024
"""Bytes of a report, unpacked: nothing of ours is as large."""
MOST_REFUSED = 200
LONGEST_LINE = 1_000

Report = Mapping[str, Delivery]
"""By gateway."""


class Unreadable(Exception):
    """A text is no report."""


def packed(report: Report) -> str:
    """A report as text: of ten thousand gateways about 200 kB."""
    left = MOST_REFUSED
    told: dict[str, list[object]] = {}
    for gateway, one in sorted(report.items()):
        lines = [[list(line.object or ()), line.field, line.message[:LONGEST_LINE]] for line in one.refused[:left]]
        left -= len(lines)
        told[gateway] = [one.digest, one.progress.value, *([lines] if lines else [])]
    return base64.b64encode(zlib.compress(json.dumps(told, separators=(",", ":")).encode())).decode()


def unpacked(text: str, version: str = "") -> Report:
    """The report in a text, of a replica of a version.

    Raises:
        Unreadable: it is none.
    """
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(base64.b64decode(text, validate=True), LARGEST)
        if not unpacker.eof:
            raise Unreadable("too large, or cut off")
        told = json.loads(data).items()
        return {str(gateway): replace(_delivery(*one), version=version) for gateway, one in told}
    except (ValueError, zlib.error, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(str(error)) from error


def _delivery(digest: str, progress: str, refused: Iterable[Sequence[Any]] = ()) -> Delivery:
    lines = tuple(Refused(Ref(*map(str, ref)) if ref else None, str(field), str(text)) for ref, field, text in refused)
    return Delivery(str(digest), Progress(progress), lines)


class _Read(NamedTuple):
    """A ConfigMap, understood."""

    name: str
    beat: str
    report: Report


@dataclass(slots=True)
class _Heard:
    """What a replica said last, and when that was heard."""

    report: Report
    beat: str
    at: float


class Elsewhere:
    """What other replicas say; knows nothing but while its replica leads and it runs.

    Args:
        client: how the apiserver is reached.
        namespace, name: of this replica's own report, which is not heard.
        changed: is told the gateways of which something else is said.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        changed: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._name = client, name
        self._scope = Scope(CONFIG_MAPS, namespace, f"{LABEL}=true")
        self._changed, self._clock = changed, clock
        self._heard: dict[str, _Heard] = {}
        self.synced = False
        """Whether all that is said has been heard, or cannot be."""
        self.counts = Counts()
        """What hearing it took."""

    def of(self, gateway: str) -> list[Delivery]:
        """What each other replica that has Envoys of the gateway says of them."""
        return [heard.report[gateway] for heard in self._heard.values() if gateway in heard.report]

    async def run(self) -> None:
        """Listen until cancelled."""
        reflector = Reflector(self._client, self._scope, _read, self.take, self._trouble, counts=self.counts)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(reflector.run())
                while True:
                    await asyncio.sleep(SILENT_SECONDS / 5)
                    self.expire()
        finally:
            self._heard.clear()
            self.synced = False

    def _trouble(self) -> None:
        self.synced = True

    def take(self, events: Sequence[Event[_Read]]) -> None:
        """Take in what the apiserver says."""
        for event in events:
            match event:
                case Listed():
                    for name in self._heard.keys() - {one.name for one in event.objects}:
                        self._forget(name)
                    for one in event.objects:
                        self._hear(one)
                    self.synced = True
                case Upserted():
                    self._hear(event.object)
                case Deleted():
                    self._forget(event.document["metadata"]["name"])

    def expire(self) -> None:
        """Forget those who have been silent for too long."""
        for name, heard in list(self._heard.items()):
            if heard.report and self._clock() - heard.at > SILENT_SECONDS:
                logger.warning("a replica is silent; what it said counts no more", report=name)
                self._replace(name, _Heard({}, heard.beat, heard.at))

    def _hear(self, read: _Read) -> None:
        known = self._heard.get(read.name)
        if read.name != self._name and (known is None or known.beat != read.beat):
            self._replace(read.name, _Heard(read.report, read.beat, self._clock()))

    def _forget(self, name: str) -> None:
        if name in self._heard:
            self._replace(name, None)

    def _replace(self, name: str, heard: _Heard | None) -> None:
        before = self._heard.pop(name).report if name in self._heard else {}
        now = heard.report if heard else {}
        if heard:
            self._heard[name] = heard
        for gateway in before.keys() | now.keys():
            if before.get(gateway) != now.get(gateway):
                self._changed(gateway)


def _read(document: Mapping[str, Any]) -> _Read:
    """What cannot be understood says nothing: another version of xdserve may have written it."""
    metadata = document["metadata"]
    name, beat = metadata["name"], (metadata.get("annotations") or {}).get(BEAT, "")
    data = document.get("data") or {}
    try:
        return _Read(name, beat, unpacked(data.get("report", ""), data.get("version", "")))
    except Unreadable as error:
        logger.warning("a report cannot be read", report=name, cause=str(error))
        return _Read(name, beat, {})


class Reporter:
    """Writes what this replica's Envoys have, while it runs and its replica does not lead.

    Args:
        call: makes requests.
        judge: knows the Envoys.
        namespace, name: of the ConfigMap.
        owner: an owner reference, to this replica's pod: with it the ConfigMap goes.
    """

    def __init__(
        self, call: Caller, judge: Judge, namespace: str, name: str, owner: Mapping[str, str] | None = None
    ) -> None:
        self._call, self._judge = call, judge
        self._namespace, self._name, self._owner = namespace, name, owner
        self._path = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
        self._own: dict[str, Delivery] = {}
        self._dirty: set[str] = set()
        self._woken = asyncio.Event()
        self._writes = False
        self._beat = 0
        self._life = f"{time.time_ns():x}"
        self._troubled = False
        self.failures = 0
        """Times that a gateway could not be reported, for a fault of ours."""

    def mark_gateway(self, gateway: str) -> None:
        """Envoys of this gateway came, went, acknowledged or refused something, or are to have something else."""
        if self._writes:
            self._dirty.add(gateway)
            self._woken.set()

    async def publish(self) -> None:
        """Report until cancelled; then the report is taken back."""
        self._own.clear()
        self._dirty = set(self._judge.gateways())
        self._writes = True
        try:
            while True:
                await self._look()
                await self._write()
                await self._wait()
        finally:
            self._writes = False
            await self._remove()

    async def _look(self) -> None:
        pauses = Pauses()
        while self._dirty:
            gateway = self._dirty.pop()
            found = self._delivery(gateway)
            if found is None or (found.progress is Progress.ABSENT and not found.refused):
                self._own.pop(gateway, None)
            else:
                self._own[gateway] = found
            if pauses.due:
                await pauses.take()

    def _delivery(self, gateway: str) -> Delivery | None:
        """A fault of ours costs no Envoy its stream: what was said of the gateway before stays, and is out of date.

        To say nothing would mean that no Envoy of it is connected here.
        """
        try:
            return self._judge.delivery(gateway)
        except Exception:
            self.failures += 1
            logger.exception("a gateway cannot be reported", gateway=gateway)
            return self._own.get(gateway)

    async def _write(self) -> None:
        self._beat += 1
        try:
            await self._call(
                "PATCH",
                self._path,
                self._document(),
                query={"fieldManager": FIELD_MANAGER, "force": "true"},
                content_type=APPLY,
                seconds=RENEW_SECONDS,
            )
        except CallError as error:
            self._say(error)
        else:
            self._troubled = False

    async def _wait(self) -> None:
        """Until there is something new that others have had time to join, or it is time to renew."""
        self._woken.clear()
        if not self._dirty:
            try:
                async with asyncio.timeout(RENEW_SECONDS):
                    await self._woken.wait()
            except TimeoutError:
                return
        await asyncio.sleep(QUIET_SECONDS)

    async def _remove(self) -> None:
        """A leader's own word is not to be found by the next one."""
        try:
            await self._call("DELETE", self._path, seconds=2.0)
        except CallError as error:
            if error.status != 404:
                self._say(error)

    def _say(self, error: CallError) -> None:
        if not self._troubled:
            logger.warning("the leader cannot be told of this replica's Envoys", report=self._name, cause=str(error))
        self._troubled = True

    def _document(self) -> dict[str, Any]:
        metadata: dict[str, Any] = {
            "name": self._name,
            "namespace": self._namespace,
            "labels": {LABEL: "true", "app.kubernetes.io/managed-by": "xdserve"},
            "annotations": {BEAT: f"{self._life}-{self._beat}"},
        }
        if self._owner:
            metadata["ownerReferences"] = [dict(self._owner)]
        version = next((one.version for one in self._own.values()), "")
        data = {"report": packed(self._own), "version": version}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


async def exchange(leadership: Leadership, reporter: Reporter, elsewhere: Elsewhere) -> None:
    """Listen while this replica leads, report while it does not, until cancelled."""
    async with asyncio.TaskGroup() as tasks:
        work: asyncio.Task[None] | None = None
        async for leads in leadership.changes():
            if work is not None:
                work.cancel()
                await asyncio.wait([work])
            work = tasks.create_task(elsewhere.run() if leads else reporter.publish())
