"""Cutting a connection by the address at its other end.

A server of grpc.aio has no way to end a call whose client does not read: the status waits behind the message that is
stuck, and the call holds that message for as long as its client likes. Without its connection gRPC lets go of both.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from urllib.parse import unquote

_OPEN_FILES = Path("/proc/self/fd")


def hang_up(peer: str) -> bool:
    """Cut the TCP connection of this process to a peer, as gRPC writes it; whether there was one.

    Looks at each open file of the process: some 10 µs each, so it belongs into a thread.
    """
    host, _, port = unquote(peer).partition(":")[2].rpartition(":")
    try:
        wanted = (_address(host.strip("[]")), port)
    except ValueError:
        return False
    for connection in _sockets():
        with connection, suppress(OSError):
            if _remote(connection) == wanted:
                connection.shutdown(socket.SHUT_RDWR)
                return True
    return False


def _sockets() -> Iterator[socket.socket]:
    """The sockets of this process, each by a descriptor of its own: gRPC may close those that it has meanwhile."""
    for file in _OPEN_FILES.iterdir():
        with suppress(OSError):
            descriptor = os.dup(int(file.name))
            try:
                yield socket.socket(fileno=descriptor)
            except OSError:  # it is a file
                os.close(descriptor)


def _remote(connection: socket.socket) -> tuple[str, str] | None:
    if connection.family not in {socket.AF_INET, socket.AF_INET6}:
        return None
    host, port, *_ = connection.getpeername()
    return _address(host), str(port)


def _address(host: str) -> str:
    """One form for each address: gRPC listens for IPv4 by IPv6 too."""
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
