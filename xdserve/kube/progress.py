"""Says which gateway's Envoys did something that its conditions may speak of; everything else passes through."""

from __future__ import annotations

from collections.abc import Callable

from xds.memory import Rejection
from xds.observer import Observer, StreamInfo
from xds.session import Acknowledged, Event, Response, Subscribed


class ProgressObserver:
    """The server's observer: tells another all that it is told, and whose Envoys came, went or acknowledged.

    What Envoys refuse is told by `Rejections.subscribe`.

    Args:
        observer: is told everything.
        moved: is told the gateway, after `observer` was.
    """

    def __init__(self, observer: Observer, moved: Callable[[str], None]) -> None:
        self._observer, self._moved = observer, moved

    def opened(self, stream: StreamInfo) -> None:
        """A stream said who it is."""
        self._observer.opened(stream)
        self._moved(stream.gateway)

    def closed(self, stream: StreamInfo) -> None:
        """A stream is over."""
        self._observer.closed(stream)
        self._moved(stream.gateway)

    def sent(self, stream: StreamInfo, response: Response) -> None:
        """A response is about to be written."""
        self._observer.sent(stream, response)

    def event(self, stream: StreamInfo, event: Event) -> None:
        """A client said something, or did not."""
        self._observer.event(stream, event)
        if isinstance(event, Acknowledged | Subscribed):
            self._moved(stream.gateway)

    def rejections(self, gateway: str, rejections: tuple[Rejection, ...]) -> None:
        """What Envoys refuse of what a gateway is to have."""
        self._observer.rejections(gateway, rejections)

    def refused(self, peer: str, status: str, message: str) -> None:
        """A stream was refused, or ended by the server."""
        self._observer.refused(peer, status, message)
