"""Who is let in: at what rate, proven by what, and for which gateway. Asked for on every stream of every method.

The order keeps a stranger cheap: first the rate, then who it is, by what its call brought along (a token, a
certificate); only then is a message of it read, and only then is anything made for the gateway that it names.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from xds.admission import TokenBucket
from xds.api.envoy.config.core.v3 import Node
from xds.call import Call, Ended, Limits
from xds.identity import Authenticator, Denied, authorize
from xds.session import ProtocolError
from xds.streams import LONGEST_TEXT

_UNREADY = "this server does not know its gateways yet"

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
        self._bucket = TokenBucket(limits.admission_rate, max(1.0, limits.admission_rate))
        self.closed: str | None = _UNREADY
        """Why nobody is let in, if so."""

    async def admit(self, call: Call) -> Callable[[Node | None], str]:
        """Let a call in, and give what finds and checks the gateway that its node names.

        Raises:
            ProtocolError: it is not let in.
            Ended: the server stops meanwhile.
        """
        if self.closed:
            raise ProtocolError("UNAVAILABLE", self.closed)
        if not self._bucket.take(self._clock()):
            raise ProtocolError("RESOURCE_EXHAUSTED", "too many new streams; try again")
        if self._authenticator is None:
            return gateway_of
        allowed = await self._identify(self._authenticator, call)
        return lambda node: _authorized(allowed, gateway_of(node))

    async def _identify(self, authenticator: Authenticator, call: Call) -> frozenset[str]:
        late = ProtocolError("UNAVAILABLE", "it takes too long to find out who this peer is")
        try:
            return await call.within(self._limits.identify, authenticator.identify(call.who()), late)
        except Denied as denied:
            raise _refusal(denied) from denied
        except Ended:
            raise
        except ProtocolError:
            _log.error("cannot tell within %g s who %s is", self._limits.identify, call.peer)
            raise
        except Exception as error:
            # Our fault, so the client is to come again; only the log learns what it is.
            _log.exception("cannot tell who %s is", call.peer)
            raise ProtocolError("UNAVAILABLE", "it cannot be told who this peer is") from error


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
