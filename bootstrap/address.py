"""A socket address as users write it: ``HOST:PORT``, an IPv6 address in brackets."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

ALLOWED = "HOST:PORT (an IPv6 address in brackets), the port 1..65535"

_SHAPE = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<host>[^\[\]:/\s]+)):(?P<port>[0-9]{1,5})", re.ASCII)
# A host name by RFC 1123, with the underscores that some resolvers give out.
_NAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\.?", re.IGNORECASE
)
_NUMERIC = re.compile(r"[0-9.]+")


class Address(NamedTuple):
    """A host (an IP literal without brackets, or a name) and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``HOST:PORT``.

        Raises:
            ValueError: the text is no address; the message says what is allowed. Port 0 is read too: whether
                "any free port" makes sense is for the caller to say.
        """
        match = _SHAPE.fullmatch(text)
        if match is None or int(match["port"]) > 65535 or not _is_host(match["ipv6"], match["host"]):
            raise ValueError(ALLOWED)
        return cls((match["ipv6"] or match["host"]).lower(), int(match["port"]))

    @property
    def is_ip(self) -> bool:
        """Whether the host is an IP literal, so that nothing has to be resolved."""
        return _ip(self.host) is not None

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine can reach the address."""
        address = _ip(self.host)
        return self.host == "localhost" if address is None else address.is_loopback

    @property
    def canonical_host(self) -> str:
        """The host as a certificate names it: an IP address in its shortest form, a name without the last dot."""
        address = _ip(self.host)
        return self.host.removesuffix(".") if address is None else address.compressed

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_host(ipv6: str | None, host: str | None) -> bool:
    if host is None:
        return ipv6 is not None and isinstance(_ip(ipv6), ipaddress.IPv6Address) and "%" not in ipv6
    if _NUMERIC.fullmatch(host):  # 1.2.3 or 300.1.1.1: meant as an address, and none
        return _ip(host) is not None
    return _NAME.fullmatch(host) is not None
