"""How an Envoy and its server prove to each other who they are: TLS, a client certificate, a bearer token.

All of them are files that Envoy reads again when they are replaced. It does so for secrets that come by SDS alone, not
for those that stand in its bootstrap; and a file of SDS holds one secret. So each secret has such a file, which names
the files with what is secret. Tried on Envoy 1.40: replaced by a rename, and by Kubernetes' swap of the link `..data`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from bootstrap.address import Address

CA, CERTIFICATE, TOKEN = "xdserve-ca", "xdserve-cert", "xdserve-token"

_TYPE = "type.googleapis.com/envoy.extensions"
_TLS = f"{_TYPE}.transport_sockets.tls.v3"
_FILES = ("ca", "cert", "key", "token_file")


class CredentialsError(ValueError):
    """Credentials that cannot work; ``field`` is the one at fault, the message what is allowed."""

    def __init__(self, field: str, allowed: str) -> None:
        super().__init__(allowed)
        self.field = field


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Absolute paths of files, where the Envoy finds them.

    Args:
        ca: authorities of the server's certificate (PEM): the server is reached by TLS.
        server_name: the name in the server's certificate, also sent as SNI; without it, a host of its addresses.
        cert: the Envoy's own certificate and its chain (PEM), for mutual TLS.
        key: the private key of ``cert`` (PEM).
        token_file: the bearer token, alone in a file; a line break after it does not count.
        directory: where the files of `secrets` are; needed with any other file.

    Raises:
        CredentialsError: one without another that it needs, or a path that is not absolute.
    """

    ca: PurePath | None = None
    server_name: str | None = None
    cert: PurePath | None = None
    key: PurePath | None = None
    token_file: PurePath | None = None
    directory: PurePath | None = None

    def __post_init__(self) -> None:
        for field in (*_FILES, "directory"):
            path: PurePath | None = getattr(self, field)
            if path is not None and not path.is_absolute():
                raise CredentialsError(field, "an absolute path")
        for field, needed in (("cert", "key"), ("key", "cert"), ("cert", "ca"), ("server_name", "ca")):
            if getattr(self, field) is not None and getattr(self, needed) is None:
                raise CredentialsError(needed, f"a file, as {field} is given")
        given = next((field for field in _FILES if getattr(self, field) is not None), None)
        if given and self.directory is None:
            raise CredentialsError("directory", f"a directory, as {given} is given: Envoy re-reads by files in it")
        if self.server_name is not None and not _is_name(self.server_name):
            raise CredentialsError("server_name", "a DNS name")


def check_token(credentials: Credentials, servers: Sequence[Address]) -> None:
    """Refuse to send a token where others can read it: who reads it once is that gateway from then on.

    Raises:
        CredentialsError: there is a token, no TLS, and a server that is not on loopback.
    """
    if credentials.token_file and not credentials.ca and not all(server.is_loopback for server in servers):
        raise CredentialsError("ca", "a file, as token_file is given: a token is sent as plain text to loopback alone")


def secrets(credentials: Credentials, servers: Sequence[Address]) -> dict[str, dict[str, Any]]:
    """What each file in ``credentials.directory`` must hold, by its name; no secret is in them, only paths."""
    made: dict[str, dict[str, Any]] = {}
    if credentials.ca:
        made[CA] = {"validation_context": _validation(credentials, credentials.ca, servers)}
    if credentials.cert and credentials.key:
        made[CERTIFICATE] = {"tls_certificate": _certificate(credentials.cert, credentials.key)}
    if path := credentials.token_file:
        made[TOKEN] = {"generic_secret": {"secret": _file(path) | _watched(path)}}
    return {_file_name(name): _discovered(name, body) for name, body in made.items()}


def transport_socket(credentials: Credentials, servers: Sequence[Address]) -> dict[str, Any] | None:
    """``Cluster.transport_socket``: TLS, if there is an authority to check the server by."""
    if credentials.ca is None:
        return None
    common: dict[str, Any] = {
        # As a client Envoy would go no further than 1.2, which shows its certificate to whoever listens.
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "validation_context_sds_secret_config": _by_sds(credentials, CA),
    }
    if credentials.cert:
        common["tls_certificate_sds_secret_configs"] = [_by_sds(credentials, CERTIFICATE)]
    names = [name for name in _server_names(credentials, servers) if not Address(name, 0).is_ip]
    context = {"@type": f"{_TLS}.UpstreamTlsContext", "common_tls_context": common}
    # One name for all addresses: they are replicas of one server.
    sni = {"sni": names[0]} if names else {}
    return {"name": "envoy.transport_sockets.tls", "typed_config": context | sni}


def http_filters(credentials: Credentials) -> list[dict[str, Any]]:
    """``HttpProtocolOptions.http_filters``: put the token into each call to the server."""
    if credentials.token_file is None:
        return []
    generic = {
        "@type": f"{_TYPE}.http.injected_credentials.generic.v3.Generic",
        "credential": _by_sds(credentials, TOKEN),
        "header": "authorization",
        "header_value_prefix": "Bearer ",
    }
    injector = {
        "@type": f"{_TYPE}.filters.http.credential_injector.v3.CredentialInjector",
        "overwrite": True,
        "credential": {"name": "envoy.http.injected_credentials.generic", "typed_config": generic},
    }
    codec = {"@type": f"{_TYPE}.filters.http.upstream_codec.v3.UpstreamCodec"}
    return [
        {"name": "envoy.filters.http.credential_injector", "typed_config": injector},
        {"name": "envoy.filters.http.upstream_codec", "typed_config": codec},
    ]


def _server_names(credentials: Credentials, servers: Sequence[Address]) -> list[str]:
    """Any of them in its certificate makes a server the right one."""
    if credentials.server_name is not None:
        return [credentials.server_name.removesuffix(".").lower()]
    return list(dict.fromkeys(server.canonical_host for server in servers))


def _validation(credentials: Credentials, ca: PurePath, servers: Sequence[Address]) -> dict[str, Any]:
    matchers = [
        {"san_type": "IP_ADDRESS" if Address(name, 0).is_ip else "DNS", "matcher": {"exact": name}}
        for name in _server_names(credentials, servers)
    ]
    return {"trusted_ca": _file(ca), "match_typed_subject_alt_names": matchers} | _watched(ca)


def _certificate(cert: PurePath, key: PurePath) -> dict[str, Any]:
    # One directory can be watched. Without it Envoy watches both files themselves: it sees a rename, no swapped link.
    watched = _watched(cert) if cert.parent == key.parent else {}
    return {"certificate_chain": _file(cert), "private_key": _file(key)} | watched


def _file(path: PurePath) -> dict[str, Any]:
    return {"filename": str(path)}


def _watched(path: PurePath) -> dict[str, Any]:
    return {"watched_directory": {"path": str(path.parent)}}


def _file_name(name: str) -> str:
    return f"{name}.yaml"


def _discovered(name: str, body: dict[str, Any]) -> dict[str, Any]:
    """``DiscoveryResponse`` with one ``Secret``."""
    return {"resources": [{"@type": f"{_TLS}.Secret", "name": name, **body}]}


def _by_sds(credentials: Credentials, name: str) -> dict[str, Any]:
    if credentials.directory is None:
        raise ValueError("credentials without a directory have no files")
    path = str(credentials.directory / _file_name(name))
    return {"name": name, "sds_config": {"path_config_source": {"path": path}, "resource_api_version": "V3"}}


def _is_name(text: str) -> bool:
    try:
        return not Address.parse(f"{text}:1").is_ip
    except ValueError:
        return False
