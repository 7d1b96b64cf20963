"""Who the apiserver is and who we are to it: the one client, with credentials that are read again as they change.

Credentials come from the pod's ServiceAccount or from a kubeconfig. Tokens in files are rotated while the program runs:
they are read again every minute, and at once when the apiserver refuses one.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable, Coroutine, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple, Protocol, cast
from urllib.parse import urlsplit
from weakref import WeakSet

import aiohttp
import yaml
from aiohttp.connector import AddrInfoType
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.rest import RESTClientObject, RESTResponse
from kubernetes.aio.config import ConfigException, load_kube_config

from xdserve.sources.tree import SourceUnavailable

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its ServiceAccount's token and the apiserver's authority."""

REREAD = 60.0  # seconds: a token is replaced when a fifth of its life is left, which is minutes at least
READ_SECONDS = 60.0
"""How long credentials may take: a kubeconfig's program may ask a person, or nobody who ever answers."""
FAREWELL_SECONDS = 3.0
"""How long connections may take to end over TLS: milliseconds, but on a busy machine."""
LISTS_AT_ONCE = 50
KEEPALIVE = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
"""A peer that is gone without a word is noticed after half a minute."""

_USER_AGENT = "xdserve"
_UNAUTHORIZED = 401


class ClusterUnknown(SourceUnavailable):
    """Nothing says where the apiserver is or who we are to it; the text is one line."""


class Place(NamedTuple):
    """Where credentials are read: a kubeconfig's path (several as in ``KUBECONFIG``), or None for the pod's own."""

    kubeconfig: str | None

    def __str__(self) -> str:
        return f"kubeconfig {self.kubeconfig}" if self.kubeconfig else f"the ServiceAccount in {ACCOUNT}"


def find(kubeconfig: Path | None) -> Place:
    """Where the credentials are: the given file, else the pod's own, else as kubectl has them.

    Raises:
        ClusterUnknown: nowhere.
    """
    if kubeconfig:
        if not kubeconfig.is_file():
            why = "is a directory" if kubeconfig.is_dir() else "no such file"
            raise ClusterUnknown(f"kubeconfig {kubeconfig}: {why}")
        return Place(str(kubeconfig))
    if os.environ.get("KUBERNETES_SERVICE_HOST") and (ACCOUNT / "token").is_file():
        return Place(None)
    paths = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    if any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep) if path):
        return Place(paths)
    raise ClusterUnknown(f"no cluster: this is no pod with a ServiceAccount, and there is no kubeconfig at {paths}")


async def read(place: Place) -> Configuration:
    """The configuration of a client, by what the files say now.

    Raises:
        ClusterUnknown: the files do not say it.
    """
    configuration = Configuration()
    configuration.retries = None
    try:
        if place.kubeconfig is None:
            _read_account(configuration)
        else:
            async with asyncio.timeout(READ_SECONDS):
                await load_kube_config(place.kubeconfig, client_configuration=configuration, persist_config=False)
    except TimeoutError as error:
        raise ClusterUnknown(f"{place}: its credentials are not there after {READ_SECONDS:g} s") from error
    except (ConfigException, OSError, yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        # The library meets a file of another shape with these.
        raise ClusterUnknown(f"{place}: {_one_line(error)}") from error
    if _is_loopback(configuration.host):
        configuration.client_session_kwargs = {"trust_env": False}  # no proxy reaches this machine's own address
    key = configuration.api_key.get("BearerToken")
    if key is not None:
        configuration.api_key["BearerToken"] = _in_a_header(key.strip(), place)
    return configuration


def _in_a_header(token: str, place: Place) -> str:
    if not token.isprintable():
        raise ClusterUnknown(f"{place}: the token is more than one line, or has control characters in it")
    return token


def _read_account(configuration: Configuration) -> None:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT") or "443"
    token = (ACCOUNT / "token").read_text().strip()
    if not host or not token:
        raise ConfigException("the token is empty" if host else "KUBERNETES_SERVICE_HOST is not set")
    configuration.host = f"https://{f'[{host}]' if ':' in host else host}:{port}"
    configuration.ssl_ca_cert = str(ACCOUNT / "ca.crt")
    configuration.api_key["BearerToken"] = f"Bearer {token}"


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Connections(RESTClientObject):
    """The library's connections, on sockets that notice a dead peer and that are known until they are closed."""

    def __init__(self, configuration: Configuration, sockets: WeakSet[socket.socket]) -> None:
        super().__init__(configuration)
        self._sockets = sockets

    def _create_connector(self) -> aiohttp.TCPConnector:
        # Each watch keeps a connection for good, and there are seven for each namespace: with any limit there is a
        # number of namespaces from which on nothing else gets one.
        return aiohttp.TCPConnector(limit=0, ssl=self.ssl_context, socket_factory=self._socket)

    def _socket(self, address: AddrInfoType) -> socket.socket:
        family, kind, protocol, *_ = address
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            made.setsockopt(socket.IPPROTO_TCP, option, value)
        self._sockets.add(made)
        return made


class Client(ApiClient):
    """The client of `kubernetes.aio` that every part of the program uses: raw requests and its typed APIs alike.

    A request that gets 401 is made once more with credentials read anew. Made by `connect`.
    """

    def __init__(self, place: Place, configuration: Configuration, now: Callable[[], float]) -> None:
        super().__init__(configuration)
        self.user_agent = _USER_AGENT
        self.place = place
        self.refused: str | None = None
        """Why the last look at the credentials gave none; they stay as they were."""
        self.lists = asyncio.Semaphore(LISTS_AT_ONCE)
        """Taken for each page of a list: with many namespaces thousands are due at one moment."""
        self._now = now
        self._read_at = now()
        self._reading = asyncio.Lock()
        self._former: list[RESTClientObject] = []
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self.rest_client = _Connections(configuration, self._sockets)
        cast(_Hooked, configuration).refresh_api_key_hook = self._refresh
        self._trust = _trust(configuration)
        self._is_rotated = _is_rotated(place)

    @property
    def url(self) -> str:
        """Where the apiserver is."""
        return str(self.configuration.host)

    async def call_api(
        self, method: str, url: str, header_params: Mapping[str, str] | None = None, *rest: object, **options: object
    ) -> RESTResponse:
        """As the library's; `url` and `header_params` are those of `param_serialize`."""
        host = self.url
        response = await super().call_api(method, url, header_params, *rest, **options)
        if response.status != _UNAUTHORIZED:
            return response
        await response.read()
        await self.reread()
        headers = {key: value for key, value in (header_params or {}).items() if key.lower() != "authorization"}
        await self.update_params_for_auth(headers, [], ["BearerToken"], "", method, None)
        return await super().call_api(method, self.url + url.removeprefix(host), headers, *rest, **options)

    async def reread(self) -> None:
        """Read the credentials anew; where they cannot be read, those that there are stay."""
        asked = self._now()
        async with self._reading:
            if self._read_at > asked:
                return  # another has just done it
            self._read_at = self._now()
            try:
                self._use(await read(self.place))
                self.refused = None
            except (ClusterUnknown, ssl.SSLError, OSError) as error:
                self.refused = _one_line(error)

    async def close(self) -> None:
        """End all connections."""
        for former in [*self._former, self.rest_client]:
            await former.close()
        # To say farewell over TLS takes a moment, in which aiohttp knows these connections no more.
        for _ in range(100):
            if all(one.fileno() == -1 for one in self._sockets):
                break
            await asyncio.sleep(FAREWELL_SECONDS / 100)

    async def _refresh(self, _: Configuration) -> None:
        """Called by the library before each request."""
        if self._now() >= self._read_at + REREAD and self._is_rotated:
            await self.reread()

    def _use(self, found: Configuration) -> None:
        if self.configuration.api_key and not found.api_key:
            raise ClusterUnknown(f"{self.place}: the token is empty")  # its file is being written
        trust = _trust(found)
        if trust != self._trust:
            self._trust = trust
            # Watches that run go on with what they have.
            self._former.append(self.rest_client)
            for name in ("host", "ssl_ca_cert", "cert_file", "key_file", "verify_ssl", "tls_server_name", "proxy"):
                setattr(self.configuration, name, getattr(found, name))
            self.rest_client = _Connections(self.configuration, self._sockets)
        self.configuration.api_key = found.api_key


class _Hooked(Protocol):
    """The library's own type of this field says that it is always None."""

    refresh_api_key_hook: Callable[[Configuration], Coroutine[None, None, None]]


def _is_rotated(place: Place) -> bool:
    """Whether credentials change without a word; those that a kubeconfig's program gives change when refused."""
    return place.kubeconfig is None or "tokenFile" in _text(place.kubeconfig)


def _trust(configuration: Configuration) -> tuple[object, ...]:
    """What a connection is made with: where to, whom it trusts, and the client's own certificate."""
    files = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
    return (configuration.host, configuration.verify_ssl, configuration.proxy, *(map(_text, files)))


def _text(paths: str | None) -> str:
    """What files have now, as far as they can be read."""
    found = []
    for path in (paths or "").split(os.pathsep):
        try:
            found.append(Path(path).expanduser().read_text())
        except OSError:
            continue
    return "\n".join(found)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


async def connect(kubeconfig: Path | None = None, now: Callable[[], float] = time.monotonic) -> Client:
    """A client by the settings; nothing is sent yet, so the apiserver may be away. To be closed.

    Raises:
        ClusterUnknown: nothing says where the apiserver is, or who we are to it.
    """
    place = find(kubeconfig)
    configuration = await read(place)
    try:
        return Client(place, configuration, now)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ClusterUnknown(f"{place}: {_one_line(error)}") from error
