"""What proves who is who on the xDS port: TLS for grpc.aio, the names of a peer, and tokens. Reads files.

All files are read again when they change, also when they are replaced by a link (as Kubernetes does with Secrets). What
cannot be used then is told once, and the last good state goes on.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

import grpc
import grpc.aio
import yaml

from xds.identity import Denied, Peer, Unproven, bearer

Report: TypeAlias = Callable[[int, str], None]
"""Takes a level of `logging` and one line without secrets; may be called in a thread of gRPC."""

_log: Report = logging.getLogger(__name__).log

_T = TypeVar("_T")
_State: TypeAlias = tuple[tuple[int, ...] | None, ...]

_SETTLED_NS = 2_000_000_000
"""A file younger than this is read again though it looks the same: its clock may be too coarse for two quick writes."""


class _Files(Generic[_T]):
    """A value made of the contents of files.

    Args:
        paths: the files.
        parse: makes the value; its OSError or ValueError names the file at fault.
        report: is told once of each new value and of each state that cannot be used.

    Raises:
        OSError: a file cannot be read.
        ValueError: what is in them cannot be used.
    """

    def __init__(self, paths: Sequence[Path], parse: Callable[[Sequence[bytes]], _T], report: Report) -> None:
        self._paths = tuple(paths)
        self._parse = parse
        self._report = report
        self._lock = threading.Lock()
        self._complaint: str | None = None
        self._state = self._look()
        self._contents = self._read()
        self._value = parse(self._contents)

    def value(self) -> _T:
        """The newest good value; costs one `stat` a file while nothing changes."""
        with self._lock:
            state = self._look()
            if state is None or state != self._state:
                self._reload()
                self._state = state
            return self._value

    def _reload(self) -> None:
        try:
            contents = self._read()
            if contents != self._contents:
                self._value = self._parse(contents)
                self._contents = contents
            elif self._complaint is None:
                return
            self._complaint = None
            self._report(logging.INFO, f"read again: {', '.join(map(str, self._paths))}")
        except (OSError, ValueError) as error:
            if (complaint := f"{error}; what was read before stays in use") != self._complaint:
                self._complaint = complaint
                self._report(logging.ERROR, complaint)

    def _read(self) -> tuple[bytes, ...]:
        return tuple(map(_content, self._paths))

    def _look(self) -> _State | None:
        """What the files look like; None if one has just been written."""
        state = tuple(map(_signature, self._paths))
        now = time.time_ns()
        young = any(signature and 0 <= now - signature[0] < _SETTLED_NS for signature in state)
        return None if young else state


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OSError(f"{path}: {error.strerror}") from None


# -- TLS -----------------------------------------------------------------------------------------------------------


class Credentials:
    """TLS of the server: its certificate and key, and for mutual TLS the authorities of its clients.

    gRPC's Python offers all or nothing: with `client_ca` every client must show a certificate of one of these
    authorities, also one that has a token; without it clients are not asked for any. A connection is judged when it is
    made: a certificate that expires, or an authority that is taken away, cuts no stream.

    Args:
        certificate: PEM file: the server's certificate, then those between it and its authority.
        key: PEM file: its private key, not encrypted.
        client_ca: PEM file: authorities of client certificates.
        report: is told of reloads and of files that cannot be used.
        begun: is called for each handshake as it begins, in a thread of gRPC, which says of none how it ends.

    Raises:
        OSError: a file cannot be read.
        ValueError: a file does not hold what it should, or certificate and key do not fit each other.
    """

    def __init__(
        self,
        *,
        certificate: Path,
        key: Path,
        client_ca: Path | None = None,
        report: Report = _log,
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        paths = (certificate, key) if client_ca is None else (certificate, key, client_ca)
        self.mutual = client_ca is not None
        """Whether clients must show a certificate."""
        self._files = _Files(paths, lambda contents: _checked(paths, contents), report)
        self._used = self._files.value()
        self._begun = begun

    def server_credentials(self) -> grpc.ServerCredentials:
        """For `grpc.aio.Server.add_secure_port`; looks at the files at each handshake."""
        return grpc.dynamic_ssl_server_credentials(_configuration(self._used), self._fetch, self.mutual)

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """What the next handshake uses; None for what the one before it used. Called in a thread of gRPC.

        With mutual TLS it is new each time, which costs nothing that can be measured: within one configuration a client
        resumes its session for two days without its certificate being looked at, though that may have expired.
        """
        self._begun()
        now = self._files.value()
        if now is self._used and not self.mutual:
            return None
        self._used = now
        return _configuration(now)


def _configuration(contents: Sequence[bytes]) -> grpc.ServerCertificateConfiguration:
    certificate, key, *authorities = contents
    return grpc.ssl_server_certificate_configuration([(key, certificate)], authorities[0] if authorities else None)


def _checked(paths: Sequence[Path], contents: Sequence[bytes]) -> Sequence[bytes]:
    """The contents, if TLS works with them: gRPC itself finds faults at the first handshake only."""
    for path, content in list(zip(paths, contents, strict=True))[::2]:
        _check_certificates(path, content)
    _check_pair(paths[0], paths[1], contents[0], contents[1])
    return contents


def _check_certificates(path: Path, content: bytes) -> None:
    try:
        # Bundles have comments in any encoding; what is between the lines of PEM is ASCII.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=content.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        raise ValueError(f"{path}: not certificates in PEM") from None


def _check_pair(certificate: Path, key: Path, certificates: bytes, private: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        with _in_memory(certificates) as chain, _in_memory(private) as secret:
            # With an empty password an encrypted key is an error, and not a question on the terminal.
            context.load_cert_chain(chain, secret, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"{key}: not the key of the certificate in {certificate}") from None
        reason = f" ({error.reason})" if error.reason else ""
        raise ValueError(f"{key}: not an unencrypted private key in PEM for {certificate}{reason}") from None


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """A path to read the content from: `ssl` takes pairs from files only, and keys do not belong into new ones."""
    descriptor = os.memfd_create("xdserve")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


# -- The peer ------------------------------------------------------------------------------------------------------


def peer_of(context: grpc.aio.ServicerContext[bytes, bytes]) -> Peer:
    """Who is at the other end of a call, by what it brought.

    The kinds of alternative names are taken from gRPC's properties of each kind: in the common one an e-mail address
    could pass for a DNS name. A client certificate that was not verified does not get here: it is not asked for.

    Raises:
        Denied: UNAUTHENTICATED; its authorization cannot be read.
    """
    found: Mapping[str, Sequence[bytes]] = context.auth_context()
    uris = [uri for uri in _texts(found, "peer_uri") if uri.startswith("spiffe://")]
    hosts = [host for host in _texts(found, "peer_dns") if "/" not in host]
    return Peer(address=context.peer(), token=bearer(context.invocation_metadata() or ()), names=tuple(uris + hosts))


def _texts(found: Mapping[str, Sequence[bytes]], key: str) -> list[str]:
    return [value.decode("ascii") for value in found.get(key, ()) if value.isascii()]


# -- Tokens --------------------------------------------------------------------------------------------------------

_GATEWAY = re.compile(r"[!-.0-~]{1,63}/[!-.0-~]{1,253}")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_PREFIX = 2


class TokenFile:
    """Identifies peers by a file of tokens' digests: a YAML map of gateway -> list of SHA-256 in hexadecimal.

        models/iris:
          - 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

    `printf %s "$TOKEN" | sha256sum` makes one. The digest is not salted, so a token must be long and random (`openssl
    rand -hex 32`). To change a token, list the old and the new digest, change it in Envoy, then take the old one away.
    A digest may stand under several gateways. `{}` lets nobody in; an empty file counts as half written.

    Args:
        path: the file.
        report: is told of reloads and of a file that cannot be used.
        interval: seconds within which the file is looked at once at most; a change may take so long to count.
        clock: seconds, monotonic.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not such a map; names file and line, and nothing that is in the file.
    """

    def __init__(
        self, path: Path, *, report: Report = _log, interval: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._files = _Files([path], lambda contents: _Digests(_tokens(path, contents[0])), report)
        self._digests = self._files.value()
        self._interval = interval
        self._clock = clock
        self._looked_at = clock()

    async def identify(self, peer: Peer) -> frozenset[str]:
        """The gateways that list the digest of the peer's token.

        Raises:
            Unproven: the peer has no token.
            Denied: UNAUTHENTICATED; no gateway lists it.
        """
        if peer.token is None:
            raise Unproven("no bearer token in authorization")
        if self._clock() - self._looked_at >= self._interval:
            self._looked_at = self._clock()
            self._digests = await asyncio.to_thread(self._files.value)
        gateways = self._digests.gateways(peer.token)
        if not gateways:
            raise Denied("UNAUTHENTICATED", "the bearer token is not known")
        return gateways


class _Digests:
    """Finds digests in a time that tells nothing of use.

    Each is compared in constant time. Only those are compared that begin like the one wanted, so that the price does
    not grow with the gateways; what a guesser could learn from that is two bytes of a hash.
    """

    def __init__(self, tokens: Sequence[tuple[bytes, str]]) -> None:
        self._by_prefix: dict[bytes, list[tuple[bytes, str]]] = {}
        for digest, gateway in tokens:
            self._by_prefix.setdefault(digest[:_PREFIX], []).append((digest, gateway))

    def gateways(self, token: str) -> frozenset[str]:
        wanted = hashlib.sha256(token.encode()).digest()
        candidates = self._by_prefix.get(wanted[:_PREFIX], ())
        return frozenset(gateway for digest, gateway in candidates if hmac.compare_digest(digest, wanted))


def _tokens(path: Path, content: bytes) -> list[tuple[bytes, str]]:
    """Digests and gateways of a file.

    Read event by event: nothing deep is followed, and a digest that YAML takes for a number stays as it is written.
    """
    try:
        return list(_entries(path, yaml.parse(content.decode(), Loader=yaml.CSafeLoader)))
    except yaml.MarkedYAMLError as error:
        # Its own words quote the file, which may hold tokens by mistake.
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{path}{line}: not YAML") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ValueError(f"{path}: not YAML in UTF-8") from None


def _entries(path: Path, events: Iterator[yaml.Event]) -> Iterator[tuple[bytes, str]]:
    next(events)  # the stream begins
    next(events)  # its document begins, or there is none
    if not isinstance(root := next(events, None), yaml.MappingStartEvent):
        raise _wrong(path, root, "not a map of gateway -> list of SHA-256 digests")
    seen: set[str] = set()
    while not isinstance(key := next(events), yaml.MappingEndEvent):
        gateway = _gateway_of(path, key)
        if gateway in seen:
            raise _wrong(path, key, "a gateway that stands further up already")
        seen.add(gateway)
        for digest in _digests_of(path, events):
            yield digest, gateway
    next(events)  # the document ends
    if not isinstance(more := next(events), yaml.StreamEndEvent):
        raise _wrong(path, more, "a second document")


def _gateway_of(path: Path, event: yaml.Event) -> str:
    if not isinstance(event, yaml.ScalarEvent) or not _GATEWAY.fullmatch(event.value):
        raise _wrong(path, event, "not a gateway; wanted: <namespace>/<name>")
    return str(event.value)


def _digests_of(path: Path, events: Iterator[yaml.Event]) -> Iterator[bytes]:
    if not isinstance(first := next(events), yaml.SequenceStartEvent):
        raise _wrong(path, first, "not a list of SHA-256 digests")
    while not isinstance(item := next(events), yaml.SequenceEndEvent):
        if not isinstance(item, yaml.ScalarEvent) or not _DIGEST.fullmatch(item.value):
            raise _wrong(path, item, "not a SHA-256 digest of 64 hexadecimal digits")
        yield bytes.fromhex(item.value)


def _wrong(path: Path, event: yaml.Event | None, what: str) -> ValueError:
    """Says where, never what stands there: it may be a token by mistake."""
    mark = event.start_mark if event else None
    return ValueError(f"{path}:{mark.line + 1}: {what}" if mark else f"{path}: {what}")
