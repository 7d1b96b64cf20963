"""The log: one line an event, for people on a terminal, as JSON elsewhere.

What the libraries log through the standard library (grpc, aiohttp, asyncio) and Python's warnings go the same way.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import Processor

from xdserve.settings import LogFormat, LogLevel
from xdserve.words import escaped

# Loggers that speak of their own working at a level where others speak of the user's matters.
_QUIET = {"asyncio": logging.WARNING, "watchfiles": logging.WARNING, "aiohttp.access": logging.WARNING}

_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
)


def configure(
    level: LogLevel = LogLevel.INFO, log_format: LogFormat = LogFormat.AUTO, stream: TextIO | None = None
) -> None:
    """Send every log line to ``stream`` (stderr), in the form and from the level that the settings say."""
    # gRPC's core writes past the log, to stderr in a form of its own, a line for each stranger's handshake. It reads
    # this when it starts.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_SHARED, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(log_format, stream)],
        )
    )
    number = logging.getLevelNamesMapping()[level.upper()]
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, number))
    logging.captureWarnings(capture=True)
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def is_console(log_format: LogFormat, stream: TextIO) -> bool:
    """Whether the log is for people: asked for, or left open and the stream is a terminal."""
    return log_format is LogFormat.CONSOLE or (log_format is LogFormat.AUTO and stream.isatty())


def _renderers(log_format: LogFormat, stream: TextIO) -> tuple[Processor, ...]:
    if is_console(log_format, stream):
        colors = stream.isatty() and not os.environ.get("NO_COLOR")
        # Plain tracebacks: the rich ones print local variables, and these may hold secrets.
        return _printable, structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
        )
    return structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)


def _printable(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape control characters: what a file or an Envoy says must not drive the terminal."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = escaped(value)
    return event
