"""The program put together: a source, the pipeline, the xDS server, the admin endpoints; the outermost layer."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from importlib import metadata
from pathlib import Path
from typing import Any

import grpc
import structlog

from bootstrap.address import Address
from translator import names
from translator.objects.ref import Ref
from translator.plan import Finding
from translator.planners.options import Options
from xds.server import Server
from xdserve import entrance
from xdserve.admin import AdminError, AdminServer
from xdserve.judge import Judge
from xdserve.ledger import Entry, Ledger, Place, entry
from xdserve.memory import LastGood
from xdserve.metrics import KINDS, Metrics
from xdserve.observer import StreamObserver
from xdserve.pipeline import Pipeline
from xdserve.rejections import Rejections
from xdserve.series import GatewaySeries
from xdserve.settings import Settings
from xdserve.sources import Change, SourceError
from xdserve.sources.directory import SourceUnavailable
from xdserve.state import ProgramState
from xdserve.surroundings import OnDirectory, Parts, Surroundings
from xdserve.unreachable import Unreachable

logger = structlog.get_logger("xdserve")

SOURCE_ERRORS = "source"
ANSWERS_SECONDS = 30.0
"""How long the start waits for objects that are asked for by name: each is answered or given up in a third of that,
but somebody may go on naming others."""


def options_of(settings: Settings) -> Options:
    """The settings that planning depends on."""
    return Options(
        domain=settings.domain,
        domain_template=settings.domain_template,
        path_template=settings.path_template,
        url_scheme=settings.url_scheme,
        cluster_domain=settings.cluster_domain,
        kserve_config_map=settings.kserve_config_map,
        allowed_hosts=settings.allowed_hosts,
        trusted_hops=settings.trusted_hops,
        name_backends_in_errors=settings.name_backends_in_errors,
        selective=bool(settings.selector),
        ca_file=settings.gateway_ca_file,
        gateway_address=settings.gateway_address,
    )


def _version(options: Options) -> str:
    """What decides beside the objects what is served: replicas that differ in it may serve something else, rightly."""
    return f"{metadata.version('xdserve')} {blake2b(repr(options).encode(), digest_size=4).hexdigest()}"


def _now() -> datetime:
    return datetime.now(UTC)


def _entry(error: SourceError) -> Entry:
    place = Place(error.source.file, error.source.document)
    return Entry(place, error.object, error.field, error.reason, error.message)


async def serve(settings: Settings) -> int:
    """Run on a directory until told to stop; the exit code."""
    if not isinstance(settings.source, Path):
        raise TypeError("serve needs a directory; xdserve.kube.program serves a cluster")
    return await run(settings, OnDirectory(settings.source))


async def run(settings: Settings, around: Surroundings) -> int:
    """Run until told to stop; the exit code."""
    try:
        await Program(settings, around).run()
    except (OSError, AdminError, SourceUnavailable) as error:
        logger.error("cannot start", cause=str(error))  # noqa: TRY400  one line says it all; nobody needs the traceback
        return 1
    return 0


def _check_free(address: Address) -> None:
    """Say in one line why an address cannot be listened at: gRPC says less, and its core adds a line of another form.

    Raises:
        OSError: the address is in use, not of this machine, or not permitted.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as gRPC does: no waiting for old connections
            probe.bind(address)
    except OSError as error:
        raise OSError(f"xds_address {address}: {error.strerror}") from error


@contextmanager
def _much_that_stays() -> Iterator[None]:
    """What comes to be in the block stays for good, so the garbage collector is not to walk it over and over.

    With 10,000 services it takes two fifths of the first pass to find nothing; and a full collection afterwards, which
    walks all that was read, would hold up the event loop. What is frozen is still freed when its last reference goes.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
    gc.collect()
    gc.freeze()


class Program:
    """One running xdserve. It is the source's feed and the pipeline's reporter."""

    def __init__(self, settings: Settings, around: Surroundings) -> None:
        self._settings, self._around = settings, around
        self._metrics = Metrics()
        self._ledger = Ledger(_now, self._place)
        self._rejections = Rejections(self._ledger, self._metrics, _now)
        streams = StreamObserver(self._metrics, self._left, self._rejections.say)
        failed = self._metrics.credential_failures.inc
        self._server = Server(
            entrance.terms(settings),
            around.observer(streams),
            authenticator=entrance.authenticator(settings, failed, around.authenticators()),
            limits=entrance.limits(settings),
        )
        options = options_of(settings)
        self._pipeline = Pipeline(options, self._server, self, around.named())
        self._unreachable = Unreachable(self._pipeline.backends, self._server.loads, self._ledger)
        judge = Judge(
            self._pipeline,
            self._server,
            self._ledger,
            self._rejections,
            around.elsewhere,
            wanted=around.wanted,
            starting=around.starting,
            version=_version(options),
        )
        self._source = around.source(self)
        around.join(Parts(self._pipeline, self._server, self._ledger, self._rejections, judge, self._metrics))
        self._last_good = LastGood(settings, self._server, self._pipeline, self._source)
        self._state = ProgramState(
            self._pipeline, self._server, self._ledger, self._rejections, self._awaited, judge=judge
        )
        series = GatewaySeries(lambda: self._pipeline.owners, self._server.connected, self._server.loads.reports)
        self._admin = AdminServer(settings.admin_address, self._state, self._metrics, series)
        self._work = asyncio.Event()
        self._since: float | None = None
        self._listening = self._ready = False
        self._show_gauges()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            OSError, AdminError, SourceUnavailable: an address or the directory cannot be used.
        """
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        _check_free(self._settings.xds_address)
        # First of all: who waits for the cluster is alive, and who asks whether it is must get an answer.
        admin = await self._admin.start()
        try:
            if await self._prepared(stop):
                await self._serve(admin, stop)
        finally:
            await self._admin.stop()

    async def _serve(self, admin: Address, stop: asyncio.Event) -> None:
        port = await self._server.start(str(self._settings.xds_address), self._credentials())
        self._listening = True
        try:
            self._last_good.open()
            logger.info("listening", xds=f"{self._settings.xds_address.host}:{port}", admin=str(admin))
            await self._until(stop)
        finally:
            logger.info("stopping")
            await self._server.stop(self._settings.drain)
            await self._last_good.close()

    async def _prepared(self, stop: asyncio.Event) -> bool:
        """Wait until the server may start; False if it was told to stop before."""
        waits = [asyncio.create_task(one) for one in (self._around.ready(), stop.wait())]
        ready, _ = waits
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                ready.result()
            return ready.done()
        finally:
            for one in waits:
                one.cancel()

    def _credentials(self) -> grpc.ServerCredentials | None:
        failed = self._metrics.credential_failures.inc
        begun = self._metrics.tls_handshakes.inc
        return entrance.credentials(self._settings, failed, self._around.certificate(), begun=begun)

    async def _until(self, stop: asyncio.Event) -> None:
        """Work until told to stop, or until a part of the program fails, which ends it."""
        try:
            async with asyncio.TaskGroup() as tasks:
                parts = [tasks.create_task(part) for part in self._parts()]
                await stop.wait()
                for part in parts:
                    part.cancel()
        except* (OSError, SourceUnavailable) as group:
            raise group.exceptions[0] from None

    def _parts(self) -> tuple[Coroutine[Any, Any, None], ...]:
        return self._source.run(), self._plan(), self._last_good.run(), *self._around.tasks()

    def _awaited(self) -> str:
        """What it waits for before it accepts streams, in words; empty when it does."""
        if self._ready:
            return ""
        if not self._listening:
            return "a certificate for the xDS port"
        named = f"ConfigMaps that {len(self._pipeline.waiting)} services name" if self._pipeline.waiting else ""
        return self._source.awaited() or named or "the first pass over all objects"

    def _open(self) -> None:
        """Accept streams, now that everything is known: an Envoy that reconnects must not be emptied."""
        self._ready = True
        self._server.open()
        self._around.opened()
        logger.info("ready", gateways=len(self._pipeline.owners), objects=len(self._pipeline.objects))

    # -- The source's feed ---------------------------------------------------------------------------------------

    def apply(self, changes: Sequence[Change]) -> None:
        """Take changed objects in; also called without any when the source's errors have changed."""
        if self._since is None:
            self._since = time.perf_counter()
        before = self._pipeline.counts.edits
        self._pipeline.apply([*changes, *self._last_good.unread()])
        self._metrics.edits.inc(self._pipeline.counts.edits - before)
        self._around.applied(changes)
        for path, errors in self._source.renewed():
            self._ledger.say((SOURCE_ERRORS, path), map(_entry, errors))
        self._work.set()

    async def _plan(self) -> None:
        """Plan without delay when idle; what comes while planning is a set, so that it coalesces."""
        await self._source.synced.wait()
        with _much_that_stays():
            # What is read for all plans: without it each would be made twice.
            await self._hear(lambda: self._around.named().unknown, plan=False)
            await self._pass()
            await self._hear(lambda: bool(self._pipeline.waiting), plan=True)
        self._pipeline.open()
        self._open()
        while True:
            await self._work.wait()
            await self._pass()

    async def _hear(self, waits: Callable[[], bool], *, plan: bool) -> None:
        """Wait for objects that are asked for by name; with `plan` what waits for one is planned as it comes."""
        until = time.monotonic() + ANSWERS_SECONDS
        while waits() and (left := until - time.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._work.wait()
            self._work.clear()
            if plan:
                await self._pass()

    async def _pass(self) -> None:
        """Do all there is to do, and let streams go on between slices."""
        self._work.clear()
        counts = self._pipeline.counts
        before = (counts.planned_services, counts.encoded_assignments)
        more = True
        while more:
            more = self._pipeline.run()
            await asyncio.sleep(0)
        if self._pipeline.idle:
            waiting = map(names.gateway, self._pipeline.waiting)
            self._last_good.settle({*self._pipeline.owners, *waiting})
        self._metrics.planned_services.inc(counts.planned_services - before[0])
        self._metrics.encoded_assignments.inc(counts.encoded_assignments - before[1])
        if self._since is not None:
            self._metrics.plan_seconds.observe(time.perf_counter() - self._since)
            self._since = None

    # -- The pipeline's reporter ---------------------------------------------------------------------------------

    def found(self, owner: Ref, findings: Sequence[Finding]) -> None:
        """Put what planning found into the ledger."""
        self._ledger.say(owner, [entry(finding) for finding in findings])
        self._unreachable.planned(owner)
        self._around.found(owner, findings)

    def failed(self, service: Ref, error: Exception) -> None:
        """Log a fault of ours with its cause; the service goes on with what it has."""
        self._metrics.plan_failures.inc()
        logger.error("planning failed", service=str(service), exc_info=error)

    def _place(self, ref: Ref) -> Place | None:
        source = self._source.source(ref)
        return None if source is None else Place(source.file, source.document)

    # -- Figures -------------------------------------------------------------------------------------------------

    def _left(self, gateway: str) -> None:
        self._pipeline.release(gateway)

    def _show_gauges(self) -> None:
        self._metrics.store_failures.set_function(lambda: self._last_good.failures)
        self._metrics.gateways.set_function(lambda: len(self._pipeline.owners))
        self._metrics.services.set_function(lambda: len(self._pipeline.units))
        self._metrics.errors.set_function(lambda: len(self._ledger))
        for kind in KINDS:
            self._metrics.objects.labels(kind=kind).set_function(partial(self._pipeline.objects.count, kind))
