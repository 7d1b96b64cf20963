"""Cutting a connection by the address at its other end.

A server of grpc.aio has no way to end a call whose client does not read: the status waits behind the message that is
stuck, and the call holds that message for as long as its client likes. Without its connection gRPC lets go of both. It
is the whole connection: the other streams on it end too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from urllib.parse import unquote

_OPEN_FILES = Path("/proc/self/fd")

_log = logging.getLogger(__name__)


class Cutter:
    """Cuts the connections of a server, for all who ask meanwhile in one look at its files.

    In a thread of its own: many stuck clients must not keep others from the threads that all the program shares.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "hang-up")
        self._asked: dict[str, asyncio.Future[bool]] = {}
        self._work: asyncio.Task[None] | None = None

    async def cut(self, peer: str) -> bool:
        """Cut the connection to a peer, as gRPC writes it; whether there was one."""
        found = self._asked.setdefault(peer, asyncio.get_running_loop().create_future())
        if self._work is None:
            self._work = asyncio.create_task(self._cut())
        return await asyncio.shield(found)

    async def _cut(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._asked:
                asked, self._asked = self._asked, {}
                cut: set[str] = set()
                try:
                    cut = await loop.run_in_executor(self._thread, hang_up, tuple(asked))
                finally:
                    for peer, found in asked.items():
                        found.set_result(peer in cut)
        finally:
            self._work = None


def hang_up(peers: Collection[str]) -> set[str]:
    """Cut the TCP connections of this process to peers, as gRPC writes them; those to whom there was one.

    Looks at each open file of the process: some 10 µs each, so it belongs into a thread.
    """
    wanted: dict[tuple[str, str], str] = {}
    for peer in peers:
        with suppress(ValueError):
            wanted[address_of(peer)] = peer
    return set(_hang_up(wanted)) if wanted else set()


def _hang_up(wanted: dict[tuple[str, str], str]) -> Iterator[str]:
    try:
        for connection in _sockets():
            with connection, suppress(OSError):
                if peer := wanted.get(_remote(connection)):
                    connection.shutdown(socket.SHUT_RDWR)
                    yield peer
    except OSError as error:  # there are too many open files to open one more
        _log.warning("cannot look for connections to cut: %s", error)


def address_of(peer: str) -> tuple[str, str]:
    """Host, in one form for each, and port of a peer as gRPC writes it.

    Raises:
        ValueError: it is none with an address.
    """
    host, _, port = unquote(peer).partition(":")[2].rpartition(":")
    return _address(host.strip("[]")), port


def _sockets() -> Iterator[socket.socket]:
    """The sockets of this process, each by a descriptor of its own: gRPC may close those that it has meanwhile."""
    for file in _OPEN_FILES.iterdir():
        with suppress(OSError):
            descriptor = os.dup(int(file.name))
            try:
                yield socket.socket(fileno=descriptor)
            except OSError:  # it is a file
                os.close(descriptor)


def _remote(connection: socket.socket) -> tuple[str, str]:
    if connection.family not in {socket.AF_INET, socket.AF_INET6}:
        return "", ""
    host, port, *_ = connection.getpeername()
    return _address(host), str(port)


def _address(host: str) -> str:
    """One form for each address: gRPC listens for IPv4 by IPv6 too."""
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
