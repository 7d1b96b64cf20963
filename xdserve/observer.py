"""What happens on streams, as metrics and log lines."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

import structlog

from xds.memory import Rejection
from xds.server import StreamInfo
from xds.session import Acknowledged, Event, Overdue, Rejected, Response, Stale, UnknownType
from xds.types import ResourceType
from xdserve.metrics import AGGREGATED, OTHER, STATUSES, Metrics
from xdserve.words import escaped, shown, shown_of_secret

logger = structlog.get_logger("xdserve.xds")

NAMES_SHOWN = 5
"""Names of resources in a log line."""

SECOND = 1.0
"""For which lines of one kind are counted: what streams do may come by the thousand."""

COMING_AND_GOING = 20
"""Log lines a second of Envoys that connect, and as many of those that leave."""

_MOST_KINDS = 1_000
"""Kinds of lines of which the last is remembered."""

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
        self.stale_answers = metrics.stale_answers.labels(type=kind)
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
        self._seldom = _Seldom(clock)
        self._apart: Counter[tuple[str, str]] = Counter()

    def opened(self, stream: StreamInfo) -> None:
        """A stream said who it is."""
        self._metrics.streams.labels(variant=stream.variant, service=stream.service).inc()
        self._came(stream)
        if (others := self._seldom.passed("connected", COMING_AND_GOING)) is not None:
            how = {"variant": stream.variant, "service": stream.service, "user_agent": escaped(stream.user_agent)}
            logger.info("Envoy connected", **_who(stream), **how, **_and(others))
        if not stream.known and (others := self._seldom.passed("unknown", COMING_AND_GOING)) is not None:
            meaning = "no service makes this gateway; its Envoy keeps what it has until one does"
            logger.warning(meaning, **_who(stream), **_and(others))

    def closed(self, stream: StreamInfo) -> None:
        """A stream is over."""
        self._went(stream)
        self._strangers.discard(stream.id)
        if (others := self._seldom.passed("disconnected", COMING_AND_GOING)) is not None:
            logger.info("Envoy disconnected", **_who(stream), **_and(others))
        self._left(stream.gateway)

    def _came(self, stream: StreamInfo) -> None:
        """Count Envoys as `Server.connected` does: of streams of single types one Envoy has several."""
        envoy = (stream.gateway, stream.node_id)
        if stream.service != AGGREGATED:
            self._apart[envoy] += 1
        if stream.service == AGGREGATED or self._apart[envoy] == 1:
            self._metrics.connected_envoys.inc()

    def _went(self, stream: StreamInfo) -> None:
        envoy = (stream.gateway, stream.node_id)
        if stream.service != AGGREGATED:
            self._apart[envoy] -= 1
            if self._apart[envoy]:
                return
            del self._apart[envoy]
        self._metrics.connected_envoys.dec()

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
                self._refused(stream, event)
            case Stale():
                self._series[event.type].stale_answers.inc()
            case Overdue():
                self._overdue(stream, event)
            case UnknownType():
                self._unknown(stream, event.type_url)
            case _:
                pass

    def _refused(self, stream: StreamInfo, event: Rejected) -> None:
        """Also what condemns nothing is told here, such as a removal; `Rejections` tells what stands."""
        self._series[event.type].rejections.inc()
        if (others := self._seldom.passed((stream.gateway, event.type.short))) is None:
            return
        fit = shown_of_secret if event.type is ResourceType.SECRET else shown
        logger.warning(
            "Envoy refuses a response",
            **_who(stream),
            type=event.type.short,
            resources=_some(event.versions),
            removed=_some(event.removed),
            code=event.code,
            message=fit(event.message),
            **_and(others),
        )

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
        if status != "UNAVAILABLE" and (others := self._seldom.passed(known)) is not None:
            logger.warning("stream refused", peer=peer, status=status, cause=shown(message), **_and(others))


class _Seldom:
    """Lets a few things of a kind through in a second, and counts those that it holds back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._swept = 0.0
        self._seconds: dict[Hashable, _Second] = {}

    def passed(self, kind: Hashable, most: int = 1) -> int | None:
        """How many of the kind were held back before this one, which is let through; None if it is held back too."""
        now = self._clock()
        second = self._seconds.get(kind)
        if second is None or now - second.start >= SECOND:
            self._forget_old(now)
            self._seconds[kind] = _Second(now)
            return second.held if second else 0
        if second.passed < most:
            second.passed += 1
            return 0
        second.held += 1
        return None

    def _forget_old(self, now: float) -> None:
        """What was held back of a kind that never came again is not told: gateways come and go."""
        if len(self._seconds) >= _MOST_KINDS and now - self._swept >= SECOND:
            self._swept = now
            self._seconds = {kind: one for kind, one in self._seconds.items() if now - one.start < SECOND}


@dataclass(slots=True)
class _Second:
    """What there was of a kind since a moment."""

    start: float
    passed: int = 1
    held: int = 0


def _and(others: int) -> dict[str, int]:
    return {"others_before": others} if others else {}


def _some(names: Iterable[str]) -> str:
    """The first few names."""
    ordered = sorted(names)
    more = len(ordered) - NAMES_SHOWN
    return ", ".join(map(escaped, ordered[:NAMES_SHOWN])) + (f" and {more} more" if more > 0 else "")


def _who(stream: StreamInfo) -> dict[str, str]:
    return {"gateway": stream.gateway, "node": escaped(stream.node_id)}
