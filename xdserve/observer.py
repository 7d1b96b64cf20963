"""What happens on streams, as metrics and log lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import structlog

from xds.memory import Rejection
from xds.server import StreamInfo
from xds.session import Acknowledged, Event, Overdue, Rejected, Response, UnknownType
from xds.types import ResourceType
from xdserve.metrics import OTHER, STATUSES, Metrics
from xdserve.words import escaped, shown

logger = structlog.get_logger("xdserve.xds")

NAMES_SHOWN = 5
"""Names of resources in a log line."""

REFUSALS_APART = 1.0
"""Seconds between two log lines of refused streams of one status: they may come by the thousand."""

_LONGEST = 256
"""Characters shown of what a client calls a thing."""


class _Series:
    """The metrics of one type: to look each up by its label would cost more than to count."""

    def __init__(self, metrics: Metrics, kind: str) -> None:
        self.responses = metrics.responses.labels(type=kind)
        self.resources_sent = metrics.resources_sent.labels(type=kind)
        self.resources_removed = metrics.resources_removed.labels(type=kind)
        self.bytes_sent = metrics.bytes_sent.labels(type=kind)
        self.pushes_coalesced = metrics.pushes_coalesced.labels(type=kind)
        self.acks = metrics.acks.labels(type=kind)
        self.ack_seconds = metrics.ack_seconds.labels(type=kind)
        self.rejections = metrics.rejections.labels(type=kind)
        self.overdue = metrics.overdue.labels(type=kind)


class StreamObserver:
    """The server's observer.

    Args:
        metrics: counts what happens.
        left: is told the gateway of each stream that is over.
        rejections: is told all that its Envoys refuse of a gateway, whenever that changes.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        metrics: Metrics,
        left: Callable[[str], None],
        rejections: Callable[[str, tuple[Rejection, ...]], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._left = left
        self._rejections = rejections
        self._series = {type_: _Series(metrics, type_.short) for type_ in ResourceType}
        self._strangers: set[int] = set()
        self._refusals = _Seldom(clock, REFUSALS_APART)

    def opened(self, stream: StreamInfo) -> None:
        """A stream said who it is."""
        self._metrics.streams.labels(variant=stream.variant, service=stream.service).inc()
        self._metrics.connected_envoys.inc()
        how = {"variant": stream.variant, "service": stream.service}
        logger.info("Envoy connected", **_who(stream), **how, user_agent=escaped(stream.user_agent))
        if not stream.known:
            logger.warning("no service makes this gateway; its Envoy keeps what it has until one does", **_who(stream))

    def closed(self, stream: StreamInfo) -> None:
        """A stream is over."""
        self._metrics.connected_envoys.dec()
        self._strangers.discard(stream.id)
        logger.info("Envoy disconnected", **_who(stream))
        self._left(stream.gateway)

    def sent(self, stream: StreamInfo, response: Response) -> None:
        """A response is about to be written."""
        series = self._series[response.type]
        series.responses.inc()
        series.resources_sent.inc(response.resources)
        series.resources_removed.inc(response.removed)
        series.bytes_sent.inc(len(response.frame))
        series.pushes_coalesced.inc(response.coalesced)
        logger.debug(
            "sent", type=response.type.short, resources=response.resources, removed=response.removed, **_who(stream)
        )

    def event(self, stream: StreamInfo, event: Event) -> None:
        """A client said something, or did not."""
        match event:
            case Acknowledged():
                series = self._series[event.type]
                series.acks.inc()
                series.ack_seconds.observe(event.seconds)
            case Rejected():
                self._series[event.type].rejections.inc()
            case Overdue():
                self._overdue(stream, event)
            case UnknownType():
                self._unknown(stream, event.type_url)
            case _:
                pass

    def _overdue(self, stream: StreamInfo, event: Overdue) -> None:
        self._series[event.type].overdue.inc()
        logger.warning(
            "Envoy does not answer: a cluster that cannot warm looks like this; routes that need it wait, others go on",
            **_who(stream),
            type=event.type.short,
            seconds=round(event.seconds, 1),
            resources=_some(event.names),
        )

    def _unknown(self, stream: StreamInfo, type_url: str) -> None:
        self._metrics.unknown_types.inc()
        if stream.id not in self._strangers:
            self._strangers.add(stream.id)
            kind = shown(type_url, _LONGEST)
            logger.info("asked for a type that this server does not have; not answered", type_url=kind, **_who(stream))

    def rejections(self, gateway: str, rejections: tuple[Rejection, ...]) -> None:
        """What Envoys refuse of what a gateway is to have."""
        self._rejections(gateway, rejections)

    def refused(self, peer: str, status: str, message: str) -> None:
        """A stream was refused, or ended by the server."""
        known = status if status in STATUSES else OTHER
        self._metrics.refused_streams.labels(status=known).inc()
        if status != "UNAVAILABLE" and (others := self._refusals.passed(known)) is not None:
            more = {"others_before": others} if others else {}
            logger.warning("stream refused", peer=peer, status=status, cause=shown(message), **more)


class _Seldom:
    """Lets one thing of a kind through in so many seconds."""

    def __init__(self, clock: Callable[[], float], apart: float) -> None:
        self._clock, self._apart = clock, apart
        self._last: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def passed(self, kind: str) -> int | None:
        """How many of the kind were held back before this one, which is let through; None if it is held back too."""
        now = self._clock()
        if kind in self._last and now - self._last[kind] < self._apart:
            self._held[kind] = self._held.get(kind, 0) + 1
            return None
        self._last[kind] = now
        return self._held.pop(kind, 0)


def _some(names: Iterable[str]) -> str:
    """The first few names."""
    ordered = sorted(names)
    more = len(ordered) - NAMES_SHOWN
    return ", ".join(map(escaped, ordered[:NAMES_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _who(stream: StreamInfo) -> dict[str, str]:
    return {"gateway": stream.gateway, "node": escaped(stream.node_id)}
