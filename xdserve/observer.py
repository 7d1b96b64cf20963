"""What happens on streams, as metrics and log lines."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from xds.memory import Rejection
from xds.server import StreamInfo
from xds.session import Acknowledged, Event, Rejected, Response, UnknownType
from xds.types import ResourceType
from xdserve.metrics import Metrics

logger = structlog.get_logger("xdserve.xds")


class _Series:
    """The metrics of one type: to look each up by its label would cost more than to count."""

    def __init__(self, metrics: Metrics, kind: str) -> None:
        self.responses = metrics.responses.labels(type=kind)
        self.resources_sent = metrics.resources_sent.labels(type=kind)
        self.resources_removed = metrics.resources_removed.labels(type=kind)
        self.bytes_sent = metrics.bytes_sent.labels(type=kind)
        self.acks = metrics.acks.labels(type=kind)
        self.ack_seconds = metrics.ack_seconds.labels(type=kind)
        self.rejections = metrics.rejections.labels(type=kind)


class StreamObserver:
    """The server's observer.

    ``left`` is told the gateway of each stream that is over; ``rejections`` all that its Envoys refuse of a gateway,
    whenever that changes.
    """

    def __init__(
        self,
        metrics: Metrics,
        left: Callable[[str], None],
        rejections: Callable[[str, tuple[Rejection, ...]], None],
    ) -> None:
        self._metrics = metrics
        self._left = left
        self._rejections = rejections
        self._series = {type_: _Series(metrics, type_.short) for type_ in ResourceType}

    def opened(self, stream: StreamInfo) -> None:
        """A stream said who it is."""
        self._metrics.streams.inc()
        self._metrics.connected_envoys.inc()
        logger.info("Envoy connected", **_who(stream), user_agent=stream.user_agent)
        if not stream.known:
            logger.warning("no service makes this gateway; its Envoy keeps what it has until one does", **_who(stream))

    def closed(self, stream: StreamInfo) -> None:
        """A stream is over."""
        self._metrics.connected_envoys.dec()
        logger.info("Envoy disconnected", **_who(stream))
        self._left(stream.gateway)

    def sent(self, stream: StreamInfo, response: Response) -> None:
        """A response is about to be written."""
        series = self._series[response.type]
        series.responses.inc()
        series.resources_sent.inc(response.resources)
        series.resources_removed.inc(response.removed)
        series.bytes_sent.inc(len(response.frame))
        logger.debug(
            "sent", type=response.type.short, resources=response.resources, removed=response.removed, **_who(stream)
        )

    def event(self, stream: StreamInfo, event: Event) -> None:
        """A client said something."""
        match event:
            case Acknowledged():
                series = self._series[event.type]
                series.acks.inc()
                series.ack_seconds.observe(event.seconds)
            case Rejected():
                self._series[event.type].rejections.inc()
            case UnknownType():
                logger.warning("asked for an unknown type", type_url=event.type_url, **_who(stream))
            case _:
                pass

    def rejections(self, gateway: str, rejections: tuple[Rejection, ...]) -> None:
        """What Envoys refuse of what a gateway is to have."""
        self._rejections(gateway, rejections)

    def refused(self, peer: str, status: str, message: str) -> None:
        """A stream was ended for what the client did, or refused at its start."""
        if status != "UNAVAILABLE":
            self._metrics.protocol_errors.inc()
            logger.warning("stream refused", peer=peer, status=status, cause=message)


def _who(stream: StreamInfo) -> dict[str, str]:
    return {"gateway": stream.gateway, "node": stream.node_id}
