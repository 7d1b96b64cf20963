"""What happens on streams, as metrics and log lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

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

    ``left`` is told the gateway of each stream that is over; ``refuses`` all that an Envoy refuses of a type now, its
    words by the name of the resource.
    """

    def __init__(
        self,
        metrics: Metrics,
        left: Callable[[str], None],
        refuses: Callable[[StreamInfo, ResourceType, Mapping[str, str]], None],
    ) -> None:
        self._metrics = metrics
        self._left = left
        self._refuses = refuses
        self._refused: dict[tuple[int, ResourceType], dict[str, str]] = {}
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
        for type_ in ResourceType:
            if self._refused.pop((stream.id, type_), None):
                self._refuses(stream, type_, {})
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
                if (stream.id, event.type) in self._refused:
                    self._accepted(stream, event)
            case Rejected():
                self._rejected(stream, event)
            case UnknownType():
                logger.warning("asked for an unknown type", type_url=event.type_url, **_who(stream))
            case _:
                pass

    def _rejected(self, stream: StreamInfo, event: Rejected) -> None:
        self._series[event.type].rejections.inc()
        refused = self._refused.setdefault((stream.id, event.type), {})
        # Envoy names what it means; what else was in the response is not to blame.
        named = [name for name in event.versions if name in event.message] or event.versions
        refused.update(dict.fromkeys(named, event.message))
        self._refuses(stream, event.type, refused)

    def _accepted(self, stream: StreamInfo, event: Acknowledged) -> None:
        refused = self._refused[stream.id, event.type]
        for name in (*event.versions, *event.removed):
            refused.pop(name, None)
        if not refused:
            del self._refused[stream.id, event.type]
        self._refuses(stream, event.type, refused)

    def refused(self, peer: str, status: str, message: str) -> None:
        """A stream was ended for what the client did, or refused at its start."""
        if status != "UNAVAILABLE":
            self._metrics.protocol_errors.inc()
            logger.warning("stream refused", peer=peer, status=status, cause=message)


def _who(stream: StreamInfo) -> dict[str, str]:
    return {"gateway": stream.gateway, "node": stream.node_id}
