"""The router's life: listen, serve, and on SIGTERM or Ctrl-C finish what was begun."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import AsyncExitStack, suppress

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from bootstrap.address import Address
from xdserve import log
from xdserve.router.admission import Admission
from xdserve.router.app import RouterApp
from xdserve.router.settings import RouterSettings, variable_of
from xdserve.router.simulation import VARIANT, GrpcSimulation, SimulatedWork, Simulation
from xdserve.router.upstream import LONGEST_HEAD, Upstream

logger = structlog.get_logger("xdserve.router")

# Longer than any gateway keeps a quiet connection: the side that sends must be the side that closes.
_KEEPALIVE_SECONDS = 7200.0
_BACKLOG = 1024
_CUT_SECONDS = 0.2
_SAID = {
    "model_ref", "max_concurrency", "overflow", "queue_limit", "kv_endpoints", "hostname", "variant", "processing_ms",
    "max_body_bytes", "upstream_url", "upstream_protocol", "upstream_headers", "upstream_timeout_seconds",
    "shutdown_seconds",
}  # fmt: skip


def run(settings: RouterSettings) -> int:
    """Serve until SIGTERM or Ctrl-C; the exit code: 0, or 1 if an address cannot be listened on."""
    log.configure(settings.log_level, settings.log_format)
    logging.getLogger("aiohttp.server").addFilter(_in_one_line)
    return asyncio.run(_serve(settings))


async def _serve(settings: RouterSettings) -> int:
    router, stop = Router(settings), asyncio.Event()

    def signalled() -> None:
        if stop.is_set():
            router.hurry()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signalled)
    _say(settings)
    try:
        await router.start()
    except OSError as error:
        logger.critical("cannot listen", error=error.strerror or str(error))
        return 1
    try:
        await stop.wait()
        await router.finish()
    finally:
        await router.stop()
    logger.info("stopped")
    return 0


def _say(settings: RouterSettings) -> None:
    """Say what holds, and which of the main settings were not given."""
    for name in ("model_ref", "max_concurrency"):
        if name not in settings.model_fields_set:
            logger.info("not given: the default holds", variable=variable_of(name), value=getattr(settings, name))
    logger.info("settings", **settings.model_dump(mode="json", include=_SAID))


class Router:
    """One router: HTTP, and gRPC if it is asked for.

    `start` before use, `stop` after; `finish` before that, to end in order.
    """

    def __init__(self, settings: RouterSettings) -> None:
        self.port = 0
        """Of HTTP, once started."""
        self.grpc_port: int | None = None
        """Of gRPC, once started, if it is asked for."""
        self.admission = Admission(settings)
        self._settings = settings
        self._stack = AsyncExitStack()
        self._deadline: asyncio.Timeout | None = None
        self._upstream: Upstream | None = None
        self._grpc: GrpcSimulation | None = None
        if settings.upstream_url is not None:
            self._upstream = Upstream(settings, self.admission.metrics)
            self._app = RouterApp(settings, self.admission, self._upstream)
        else:
            simulation = Simulation(settings, self.admission)
            self._app = RouterApp(settings, self.admission, SimulatedWork(simulation), {VARIANT: simulation.variant})
            if settings.grpc_port is not None:
                self._grpc = GrpcSimulation(simulation, settings.max_body_bytes)
        self._runner = web.AppRunner(
            self._app.application(),
            access_log=None,
            handle_signals=False,
            handler_cancellation=True,  # who leaves the queue frees his place
            keepalive_timeout=_KEEPALIVE_SECONDS,
            shutdown_timeout=_CUT_SECONDS,
            max_line_size=LONGEST_HEAD,
            max_field_size=LONGEST_HEAD,
        )

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: an address cannot be listened on; nothing is left open.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Close everything; requests in work are cut."""
        await self._stack.aclose()

    async def _start(self) -> None:
        if self._upstream is not None:
            await self._upstream.start()
            self._stack.push_async_callback(self._upstream.stop)
        if self._grpc is not None:
            await self._start_grpc(self._grpc, self._settings.grpc_port or 0)
        await self._runner.setup()
        self._stack.push_async_callback(self._runner.cleanup)
        host = self._settings.address
        await web.TCPSite(self._runner, host, self._settings.port, backlog=_BACKLOG).start()
        self.port = self._runner.addresses[0][1]
        logger.info("listening", address=str(Address(host, self.port)))

    async def _start_grpc(self, grpc: GrpcSimulation, port: int) -> None:
        host = self._settings.address
        self._stack.push_async_callback(grpc.stop, 0)
        self.grpc_port = await grpc.start(str(Address(host, port)))
        logger.info("listening for gRPC", address=str(Address(host, self.grpc_port)))

    # -- End -----------------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """Be ready no more; then accept no connection, and finish requests that run or wait while there is time."""
        self._app.stopping = True
        logger.info("stopping", requests=self._app.active, seconds=self._settings.shutdown_seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_seconds) as self._deadline:
                await asyncio.Event().wait()
        for site in list(self._runner.sites):
            await site.stop()
        if (server := self._runner.server) is None:
            return
        server.pre_shutdown()
        try:
            await self._finish(server, self._settings.shutdown_seconds)
        except TimeoutError:
            logger.warning("requests cut: they were not finished in time", requests=self._app.active)
            await server.shutdown(_CUT_SECONDS)

    async def _finish(self, server: web.Server, seconds: float) -> None:
        async with asyncio.timeout(seconds) as self._deadline, asyncio.TaskGroup() as tasks:
            tasks.create_task(server.shutdown(None))
            if self._grpc is not None:
                tasks.create_task(self._grpc.stop(seconds))

    def hurry(self) -> None:
        """End the present wait of `finish` at once."""
        if self._deadline is not None:
            with suppress(RuntimeError):  # it is over by itself
                self._deadline.reschedule(asyncio.get_running_loop().time())


def _in_one_line(record: logging.LogRecord) -> bool:
    """Take the traceback from what is said of requests that are no HTTP: these are others' mistakes."""
    if record.exc_info and isinstance(error := record.exc_info[1], HttpProcessingError | web.RequestPayloadError):
        record.levelno, record.levelname, record.exc_info = logging.WARNING, "WARNING", None
        record.msg, record.args = "not HTTP: %s", (" ".join(str(error).split())[:200],)
    return True
