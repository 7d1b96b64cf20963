"""The router's life: listen, serve, and on SIGTERM or Ctrl-C finish what was begun."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from bootstrap.address import Address
from xdserve import log
from xdserve.router.admission import Admission
from xdserve.router.app import RouterApp, Work
from xdserve.router.settings import RouterSettings, variable_of
from xdserve.router.simulation import VARIANT, GrpcSimulation, SimulatedWork, Simulation
from xdserve.router.upstream import Upstream

logger = structlog.get_logger("xdserve.router")

# Longer than any gateway keeps a quiet connection: the side that sends must be the side that closes.
_KEEPALIVE_SECONDS = 7200.0
_BACKLOG = 1024
_CUT_SECONDS = 0.2
_SAID = {
    "model_ref", "max_concurrency", "overflow", "queue_limit", "kv_endpoints", "hostname", "variant", "processing_ms",
    "max_body_bytes", "upstream_url", "upstream_protocol", "upstream_timeout_seconds", "shutdown_seconds",
}  # fmt: skip


def run(settings: RouterSettings) -> int:
    """Serve until SIGTERM or Ctrl-C; the exit code: 0, or 1 if an address cannot be listened on."""
    log.configure(settings.log_level, settings.log_format)
    logging.getLogger("aiohttp.server").addFilter(_in_one_line)
    return asyncio.run(Router(settings).serve())


class Router:
    """One router in a process of its own: HTTP, and gRPC if it is asked for."""

    def __init__(self, settings: RouterSettings) -> None:
        self._settings = settings
        self._admission = Admission(settings)
        self._stop = asyncio.Event()
        self._deadline: asyncio.Timeout | None = None

    async def serve(self) -> int:
        """Serve until a signal comes; gives the exit code. A second signal ends it at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        self._say_settings()
        async with AsyncExitStack() as stack:
            try:
                app, runner, grpc = await self._start(stack)
            except OSError as error:
                logger.critical("cannot listen", error=error.strerror or str(error))
                return 1
            await self._stop.wait()
            await self._finish(app, runner, grpc)
        logger.info("stopped")
        return 0

    def _signalled(self) -> None:
        if self._deadline is not None:
            with suppress(RuntimeError):  # it is over by itself
                self._deadline.reschedule(asyncio.get_running_loop().time())
        self._stop.set()

    def _say_settings(self) -> None:
        """Say what holds, and which of the main settings were not given."""
        settings = self._settings
        for name in ("model_ref", "max_concurrency"):
            if name not in settings.model_fields_set:
                logger.info("not given: the default holds", variable=variable_of(name), value=getattr(settings, name))
        logger.info("settings", **settings.model_dump(mode="json", include=_SAID))

    # -- Start ---------------------------------------------------------------------------------------------------

    async def _start(self, stack: AsyncExitStack) -> tuple[RouterApp, web.AppRunner, GrpcSimulation | None]:
        settings, grpc, headers = self._settings, None, {}
        work: Work
        if settings.upstream_url is not None:
            work = await stack.enter_async_context(_upstream(settings, self._admission))
        else:
            simulation = Simulation(settings, self._admission)
            work, headers = SimulatedWork(simulation), {VARIANT: simulation.variant}
            grpc = await self._start_grpc(simulation, stack)
        app = RouterApp(settings, self._admission, work, headers)
        runner = web.AppRunner(
            app.application(),
            access_log=None,
            handle_signals=False,
            handler_cancellation=True,  # who leaves the queue frees his place
            keepalive_timeout=_KEEPALIVE_SECONDS,
            shutdown_timeout=_CUT_SECONDS,
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, settings.address, settings.port, backlog=_BACKLOG).start()
        logger.info("listening", address=str(Address(settings.address, runner.addresses[0][1])))
        return app, runner, grpc

    async def _start_grpc(self, simulation: Simulation, stack: AsyncExitStack) -> GrpcSimulation | None:
        settings = self._settings
        if settings.grpc_port is None:
            return None
        grpc = GrpcSimulation(simulation, settings.max_body_bytes)
        stack.push_async_callback(grpc.stop, 0)
        port = await grpc.start(str(Address(settings.address, settings.grpc_port)))
        logger.info("listening for gRPC", address=str(Address(settings.address, port)))
        return grpc

    # -- End -----------------------------------------------------------------------------------------------------

    async def _finish(self, app: RouterApp, runner: web.AppRunner, grpc: GrpcSimulation | None) -> None:
        """Be ready no more; then accept no connection, and finish requests that run or wait while there is time."""
        seconds = self._settings.shutdown_seconds
        app.stopping = True
        logger.info("stopping", requests=app.active, seconds=seconds)
        await self._drain()
        for site in list(runner.sites):
            await site.stop()
        server = runner.server
        if server is None:
            return
        server.pre_shutdown()
        try:
            async with asyncio.timeout(seconds) as self._deadline, asyncio.TaskGroup() as tasks:
                tasks.create_task(server.shutdown(None))
                if grpc is not None:
                    tasks.create_task(grpc.stop(seconds))
        except TimeoutError:
            logger.warning("requests cut: they were not finished in time", requests=app.active)
            await server.shutdown(_CUT_SECONDS)

    async def _drain(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_seconds) as self._deadline:
                await asyncio.Event().wait()


@asynccontextmanager
async def _upstream(settings: RouterSettings, admission: Admission) -> AsyncIterator[Upstream]:
    upstream = Upstream(settings, admission.metrics)
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.stop()


def _in_one_line(record: logging.LogRecord) -> bool:
    """Take the traceback from what is said of requests that are no HTTP: these are others' mistakes."""
    if record.exc_info and isinstance(error := record.exc_info[1], HttpProcessingError | web.RequestPayloadError):
        record.levelno, record.levelname, record.exc_info = logging.WARNING, "WARNING", None
        record.msg, record.args = "not HTTP: %s", (" ".join(str(error).split())[:200],)
    return True
