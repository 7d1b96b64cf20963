"""Load reports (LRS): what Envoys say of their requests, added up per gateway and cluster.

Pure: bytes in, bytes and figures out. A server makes one `LoadSession` a stream, of the node that `node_of` reads from
the first request, hands it every request's bytes, and closes it with the stream. Whoever wants figures asks `Loads`.

What a report is (envoy/service/load_stats/v3/lrs.proto, envoy/config/endpoint/v3/load_report.proto; Envoy 1.40 tried):

- Issued, successful, failed and dropped requests are those since the stream's last report; those in progress are how
  many there are now. They come by locality, where there was traffic, and are added up.
- The first request of a stream that was broken off has what happened meanwhile: it counts like any other.
- `issued` are requests given to a connection. One that got no connection failed without having been issued: the share
  of failures is `errors / (successes + errors)`. A retry counts each of its attempts. A timeout is an error; a request
  whose client hangs up is neither.
- Not in any report is what a new cluster gets until its Envoy's next report, and what a cluster got since the last one
  when it is changed or removed.
- Envoy reports every cluster that it has, its own for the control plane too, whatever their `lrs_server` says, and puts
  its node of 61 KB into every request: hence requests are taken apart here, and the node is decoded once a stream.
- Envoy comes back 5 s after a stream was broken off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import repeat
from operator import length_hint
from typing import NamedTuple

from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.config.endpoint.v3 import ClusterStats
from xds.api.envoy.service.load_stats.v3 import LoadStatsRequest, LoadStatsResponse
from xds.api.google.protobuf import Duration
from xds.wire import DecodeError, decode, encode
from xds.wire.decode import MAX_DEPTH
from xds.wire.varint import delimited, read, skip

SERVICE = "envoy.service.load_stats.v3.LoadReportingService"
METHOD = "StreamLoadStats"

MOST_CLUSTERS = 10_000
"""Clusters in a report, and clusters that are kept of a gateway."""

MAX_REPORT = 4 * 1024 * 1024
"""Bytes of a request: some 250 a busy cluster of three localities."""

MOST_FIELDS = 200_000
"""Fields of a request, at any depth. A busy cluster of three localities has some 30, a node some 1,000.

A field may be two bytes short: without this bound, 4 MiB were a second of the event loop and 200 MB of objects.
"""

SHORTEST_INTERVAL, LONGEST_INTERVAL = 0.1, 86_400.0
"""Seconds. A report is 61 KB before it says anything, so in production some ten seconds are short enough."""

_DELIMITED = 2  # the wire type of what has a length
_NODE, _CLUSTER_STATS = 0x0A, 0x12  # tags of LoadStatsRequest: fields 1 and 2
_INTERVAL = 0x22  # the tag of ClusterStats.load_report_interval: field 4
_NO_MORE = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Requests to one cluster, of all Envoys of its gateway. All but `in_flight` only grow."""

    issued: int
    successes: int
    errors: int
    dropped: int
    in_flight: int
    """Requests that now wait for their answer: the last that each connected Envoy said."""


class Delta(NamedTuple):
    """What one Envoy said of one cluster: requests since it last did, and those that are in flight now."""

    cluster: str
    issued: int
    successes: int
    errors: int
    dropped: int
    in_flight: int
    unconnected: int = 0
    """How many of the errors, at least, are of requests that got no connection. Of a stream's first report it is 0: its
    errors may be of requests that were issued before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one Envoy said at one time, of clusters without traffic too."""

    gateway: str
    seconds: float
    """How long the time is that it tells of."""
    deltas: tuple[Delta, ...]


Subscriber = Callable[[Report], None]
"""Is called in the event loop. It must not raise, and not block."""


class LoadSession:
    """One stream of load reports, of one Envoy of a gateway.

    Args:
        gateway: whose clusters these are, as the stream's first request said, and its identity allows.
        loads: where the figures go.
        interval_seconds: the time between two reports; a change is told to the client with its next report.

    Raises:
        ValueError: the interval would make an Envoy busy with reports, or is none.
    """

    __slots__ = ("_asked", "_loads", "gateway", "in_flight", "interval_seconds")

    def __init__(self, gateway: str, loads: Loads, *, interval_seconds: float) -> None:
        if not SHORTEST_INTERVAL <= interval_seconds <= LONGEST_INTERVAL:
            raise ValueError(f"an interval of {interval_seconds} s, allowed 0.1 s to 1 day")
        self.gateway = gateway
        self.interval_seconds = interval_seconds
        self.in_flight: dict[Counters, int] = {}
        """What the last report said of each cluster; kept by `Loads`."""
        self._loads = loads
        self._asked = 0.0

    def receive(self, data: bytes) -> bytes | None:
        """Take a LoadStatsRequest in; a LoadStatsResponse to send, if there is something new to ask.

        Raises:
            DecodeError: it is not a request, or is beyond what a report may have; nothing more is taken of it.
        """
        self._loads.take(self, _reported(data))
        if self._asked == self.interval_seconds:
            return None
        self._asked = self.interval_seconds
        interval = timedelta(seconds=self.interval_seconds)
        return encode(LoadStatsResponse(send_all_clusters=True, load_reporting_interval=interval))

    def close(self) -> None:
        """The stream is over: nothing of its Envoy's is in flight, as far as is known."""
        self._loads.close(self)


class Loads:
    """The figures of all gateways.

    They last as long as the process, like any counter: after a restart they start at 0, and what Envoys counted while
    there was no server is in their next report.

    Args:
        knows: whether a gateway has a cluster of this name; others are passed over, for clients choose the names.
    """

    def __init__(self, knows: Callable[[str, str], bool]) -> None:
        self._knows = knows
        self._gateways: dict[str, dict[str, Counters]] = {}
        self._subscribers: dict[str, dict[object, Subscriber]] = {}

    def gateways(self) -> list[str]:
        """The gateways that were reported of."""
        return list(self._gateways)

    def reports(self, gateway: str) -> Mapping[str, Load]:
        """The figures of a gateway by cluster: of those that it has and that were reported of."""
        counters = self._gateways.get(gateway, {})
        return {name: found.load() for name, found in counters.items() if self._knows(gateway, name)}

    def forget(self, gateway: str) -> None:
        """A gateway is gone, and its figures with it."""
        self._gateways.pop(gateway, None)

    def subscribe(self, gateway: str, subscriber: Subscriber) -> Callable[[], None]:
        """Be told of each report of the gateway's Envoys as it comes; gives what ends that.

        One call is one report of one Envoy: whoever judges a cluster adds up what came in the time that it looks at,
        and has the share of failures as `errors / (successes + errors)`; both differences of two `reports` do as well.
        """
        subscribers = self._subscribers.setdefault(gateway, {})
        subscribers[key := object()] = subscriber

        def unsubscribe() -> None:
            subscribers.pop(key, None)
            if not subscribers and self._subscribers.get(gateway) is subscribers:
                del self._subscribers[gateway]

        return unsubscribe

    # -- What sessions call ------------------------------------------------------------------------------------

    def take(self, session: LoadSession, reported: Reported) -> None:
        """Add one report. A cluster that it does not name any more is gone from its Envoy."""
        before, session.in_flight = session.in_flight, {}
        deltas: list[Delta] = []
        for delta in map(_sum, reported.clusters):
            if counters := self._counters(session.gateway, delta.cluster):
                counters.add(delta)
                session.in_flight[counters] = session.in_flight.get(counters, 0) + delta.in_flight
                deltas.append(delta._replace(unconnected=_unconnected(delta, before.get(counters))))
        self._settle(session.gateway, before)
        self._tell(session.gateway, reported.seconds, deltas)

    def _tell(self, gateway: str, seconds: float, deltas: list[Delta]) -> None:
        if subscribers := self._subscribers.get(gateway):
            report = Report(gateway=gateway, seconds=seconds, deltas=tuple(deltas))
            for subscriber in tuple(subscribers.values()):
                subscriber(report)

    def close(self, session: LoadSession) -> None:
        """A session is over: what it said is in flight is taken away again."""
        before, session.in_flight = session.in_flight, {}
        self._settle(session.gateway, before)

    def _counters(self, gateway: str, cluster: str) -> Counters | None:
        """Those of a cluster, new ones if need be; None if it is not to be counted."""
        if not self._knows(gateway, cluster):
            return None
        counters = self._gateways.setdefault(gateway, {})
        if cluster not in counters and len(counters) < MOST_CLUSTERS:
            counters[cluster] = Counters(cluster)
        return counters.get(cluster)

    def _settle(self, gateway: str, before: dict[Counters, int]) -> None:
        """Take away what a session said is in flight before, and the clusters of it that the gateway lost since."""
        kept = self._gateways.get(gateway, {})
        for counters, in_flight in before.items():
            counters.in_flight -= in_flight
            if not self._knows(gateway, counters.cluster):
                kept.pop(counters.cluster, None)
        if not kept:
            self._gateways.pop(gateway, None)


class Counters:
    """The figures of one cluster, while they change. Sessions hold them too: none takes away what it never gave."""

    __slots__ = ("cluster", "dropped", "errors", "in_flight", "issued", "successes")

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.issued = self.successes = self.errors = self.dropped = self.in_flight = 0

    def add(self, delta: Delta) -> None:
        """Count what one Envoy said."""
        self.issued += delta.issued
        self.successes += delta.successes
        self.errors += delta.errors
        self.dropped += delta.dropped
        self.in_flight += delta.in_flight

    def load(self) -> Load:
        """The figures now."""
        return Load(
            issued=self.issued,
            successes=self.successes,
            errors=self.errors,
            dropped=self.dropped,
            in_flight=self.in_flight,
        )


def _unconnected(delta: Delta, in_flight_before: int | None) -> int:
    """An error is of a request that was issued since the last report, was in flight then, or got no connection."""
    return 0 if in_flight_before is None else max(0, delta.errors - delta.issued - in_flight_before)


def _sum(stats: ClusterStats) -> Delta:
    """The localities of a cluster, added up."""
    issued = successes = errors = in_flight = 0
    for locality in stats.upstream_locality_stats:
        issued += locality.total_issued_requests
        successes += locality.total_successful_requests
        errors += locality.total_error_requests
        in_flight += locality.total_requests_in_progress
    return Delta(stats.cluster_name, issued, successes, errors, stats.total_dropped_requests, in_flight)


# -- Requests taken apart --------------------------------------------------------------------------------------------


class Reported(NamedTuple):
    """What a request says of clusters."""

    clusters: list[ClusterStats]
    seconds: float
    """The interval of all of them."""


def node_of(data: bytes) -> Node | None:
    """The node of a stream's first LoadStatsRequest; None if it has none.

    Raises:
        DecodeError: it is not a request, or is beyond what a report may have.
    """
    work = repeat(None, MOST_FIELDS)
    nodes = [field for tag, field in _fields(data, work) if tag == _NODE]
    return decode(Node, b"".join(nodes), most=length_hint(work)) if nodes else None


def _reported(data: bytes) -> Reported:
    """What a request says but for its node, of which nothing is decoded.

    Raises:
        DecodeError: it is not a request, or is beyond what a report may have.
    """
    work = repeat(None, MOST_FIELDS)
    stats = [field for tag, field in _fields(data, work) if tag == _CLUSTER_STATS]
    if len(stats) > MOST_CLUSTERS:
        raise DecodeError(f"a load report of more than {MOST_CLUSTERS} clusters")
    joined = b"".join(b"\x12" + delimited(field) for field in stats)
    clusters = decode(LoadStatsRequest, joined, most=length_hint(work)).cluster_stats
    return Reported(clusters, _seconds(stats[-1], work) if stats else 0.0)


def _seconds(stats: bytes, work: repeat[None]) -> float:
    """The interval of a ClusterStats."""
    interval = b"".join(field for tag, field in _fields(stats, work) if tag == _INTERVAL)
    found = decode(Duration, interval, most=length_hint(work))
    return found.seconds + found.nanos / 1e9


def _fields(data: bytes, work: Iterator[None]) -> Iterator[tuple[int, bytes]]:
    """The fields of a message that have a length, by tag. Each field takes one from `work`."""
    if len(data) > MAX_REPORT:
        raise DecodeError(f"a load report of {len(data)} bytes, allowed {MAX_REPORT}")
    at = 0
    while at < len(data):
        if next(work, _NO_MORE) is _NO_MORE:
            raise DecodeError(f"a load report of more than {MOST_FIELDS} fields")
        try:
            tag, start = read(data, at)
            size, start = read(data, start) if tag & 7 == _DELIMITED else (0, start)
            at = start + size if tag & 7 == _DELIMITED else skip(data, start, tag, MAX_DEPTH, work)
        except IndexError as error:
            raise DecodeError("a load report that ends in the middle of a field") from error
        except ValueError as error:
            raise DecodeError(f"a load report with a broken field: {error}") from error
        if at > len(data):
            raise DecodeError("a load report with a field that reaches beyond its end")
        if tag & 7 == _DELIMITED:
            yield tag, data[start:at]
