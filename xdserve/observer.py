"""What happens on streams, as metrics and log lines."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from xds.server import StreamInfo
from xds.session import Acknowledged, Event, Rejected, Response, UnknownType
from xdserve.metrics import Metrics

logger = structlog.get_logger("xdserve.xds")


class StreamObserver:
    """The server's observer; ``left`` is told the gateway of each stream that is over."""

    def __init__(self, metrics: Metrics, left: Callable[[str], None]) -> None:
        self._metrics = metrics
        self._left = left

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
        kind = response.type.short
        self._metrics.responses.labels(type=kind).inc()
        self._metrics.resources_sent.labels(type=kind).inc(response.resources)
        self._metrics.resources_removed.labels(type=kind).inc(response.removed)
        self._metrics.bytes_sent.labels(type=kind).inc(len(response.frame))
        logger.debug("sent", type=kind, resources=response.resources, removed=response.removed, **_who(stream))

    def event(self, stream: StreamInfo, event: Event) -> None:
        """A client said something."""
        match event:
            case Acknowledged():
                self._metrics.acks.labels(type=event.type.short).inc()
                self._metrics.ack_seconds.labels(type=event.type.short).observe(event.seconds)
            case Rejected():
                self._rejected(stream, event)
            case UnknownType():
                logger.warning("asked for an unknown type", type_url=event.type_url, **_who(stream))
            case _:
                pass

    def _rejected(self, stream: StreamInfo, event: Rejected) -> None:
        self._metrics.rejections.labels(type=event.type.short).inc()
        logger.error(
            "Envoy refused a configuration and keeps the one it has",
            type=event.type.short,
            resources=sorted(event.versions),
            envoy_says=event.message,
            **_who(stream),
        )

    def refused(self, peer: str, status: str, message: str) -> None:
        """A stream was ended for what the client did, or refused at its start."""
        if status != "UNAVAILABLE":
            self._metrics.protocol_errors.inc()
            logger.warning("stream refused", peer=peer, status=status, cause=message)


def _who(stream: StreamInfo) -> dict[str, str]:
    return {"gateway": stream.gateway, "node": stream.node_id}
