"""Who is let in: at what rate, proven by what, and for which gateway. Asked for on every stream of every method.

The order keeps strangers cheap, and keeps them from using up what is for others: first who it is, by what its call
brought along (a token, a certificate), of strangers at a rate of their own; then the rate of new streams, of which one
identity gets half; only then is a message of it read, and only then is anything made for the gateway that it names.
Streams of load reports have a rate of their own: an Envoy has one beside the one that it is served by.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from ipaddress import ip_network

from xds.admission import Failures, Shares, TokenBucket
from xds.api.envoy.config.core.v3 import Node
from xds.call import Call, Ended, Limits
from xds.hangup import address_of
from xds.identity import Authenticator, Denied, Peer, Undecided, authorize
from xds.session import ProtocolError
from xds.streams import LONGEST_TEXT

UNDECIDED_SECONDS = 10.0
"""Between two lines of the log about peers of whom it cannot be told who they are: all come again all the time."""

_UNREADY = "this server does not know its gateways yet"
_UNDECIDED = "it cannot be told who this peer is"

_GATEWAY = re.compile(r"[!-.0-~]{1,63}/[!-.0-~]{1,253}")

_log = logging.getLogger(__name__)


class Entrance:
    """Decides on each new call.

    Args:
        authenticator: tells who peers are; None lets everybody ask for every gateway.
        limits: see there.
        clock: seconds, monotonic.
    """

    def __init__(self, authenticator: Authenticator | None, limits: Limits, clock: Callable[[], float]) -> None:
        self._authenticator = authenticator
        self._limits = limits
        self._clock = clock
        rate = (limits.admission_rate, max(1.0, limits.admission_rate))
        self._streams, self._reports = Shares(*rate), Shares(*rate)
        self._failures = Failures(*rate)
        self._lines = TokenBucket(1 / UNDECIDED_SECONDS, 1.0)
        self._unsaid = 0
        self.closed: str | None = _UNREADY
        """Why nobody is let in, if so."""

    async def admit(self, call: Call, *, reports: bool) -> Callable[[Node | None], str]:
        """Let a call in, and give what finds and checks the gateway that its node names.

        Args:
            call: it.
            reports: whether it reports loads.

        Raises:
            ProtocolError: it is not let in.
            Ended: the server stops meanwhile.
        """
        if self.closed:
            raise ProtocolError("UNAVAILABLE", self.closed)
        allowed = None if self._authenticator is None else await self._known(self._authenticator, call)
        if not (self._reports if reports else self._streams).take(allowed, self._clock()):
            raise ProtocolError("RESOURCE_EXHAUSTED", "too many new streams; try again")
        return gateway_of if allowed is None else lambda node: _authorized(allowed, gateway_of(node))

    async def _known(self, authenticator: Authenticator, call: Call) -> frozenset[str]:
        """The gateways that a peer may ask for. Strangers are asked about at a rate of their own."""
        host, proof = host_of(call.peer), b""
        try:
            peer = call.who()
            proof = _proof(peer)
            if not self._failures.allow(host, proof, self._clock()):
                raise ProtocolError("RESOURCE_EXHAUSTED", "too many strangers from this host; try again")
            allowed = await self._identify(authenticator, call, peer)
        except Denied as denied:
            self._failures.failed(host, proof, self._clock())
            raise _refusal(denied) from denied
        self._failures.succeeded(proof, self._clock())
        return allowed

    async def _identify(self, authenticator: Authenticator, call: Call, peer: Peer) -> frozenset[str]:
        late = ProtocolError("UNAVAILABLE", "it takes too long to find out who this peer is")
        try:
            return await call.within(self._limits.identify, authenticator.identify(peer), late)
        except (Denied, Ended):
            raise
        except ProtocolError:
            self._undecided(call.peer, f"no answer within {self._limits.identify:g} s")
            raise
        except Undecided as error:
            self._undecided(call.peer, str(error))
            raise ProtocolError("UNAVAILABLE", _UNDECIDED) from error
        except Exception as error:
            # Our fault, so the client is to come again; only the log learns what it is.
            _log.exception("cannot tell who %s is", call.peer)
            raise ProtocolError("UNAVAILABLE", _UNDECIDED) from error

    def _undecided(self, peer: str, cause: str) -> None:
        """One line for many, for none of them is at fault."""
        if not self._lines.take(self._clock()):
            self._unsaid += 1
            return
        more = f" ({self._unsaid} more since the last such line)" if self._unsaid else ""
        _log.error("cannot tell who %s is: %s%s", peer, cause, more)
        self._unsaid = 0


def _proof(peer: Peer) -> bytes:
    """A digest of what a peer brought: tokens are not kept."""
    return hashlib.sha256(repr((peer.token, peer.names)).encode()).digest()


def host_of(peer: str) -> str:
    """The host of a peer as gRPC writes it. One host has 2^64 addresses of IPv6: all of a network count as one."""
    try:
        address = address_of(peer)[0]
    except ValueError:
        return peer
    return str(ip_network(f"{address}/64", strict=False)) if ":" in address else address


def _authorized(allowed: frozenset[str], gateway: str) -> str:
    try:
        authorize(allowed, gateway)
    except Denied as denied:
        raise _refusal(denied) from denied
    return gateway


def _refusal(denied: Denied) -> ProtocolError:
    return ProtocolError(denied.status, denied.message)


def gateway_of(node: Node | None) -> str:
    """The gateway that a node says it belongs to: `<namespace>/<name>`.

    Raises:
        ProtocolError: INVALID_ARGUMENT; it names none.
    """
    cluster = node.cluster if node else ""
    if not _GATEWAY.fullmatch(cluster):
        shown = cluster if len(cluster) <= LONGEST_TEXT else cluster[:LONGEST_TEXT] + "..."
        raise ProtocolError("INVALID_ARGUMENT", f"node.cluster is {shown!r}; wanted: <namespace>/<name>")
    return cluster
