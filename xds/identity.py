"""Who is at the other end of a stream, and which gateways it may ask for: values and rules, without I/O.

A peer proves who it is by a bearer token (metadata `authorization`) or by the names of its client certificate. That is
bound to `node.cluster` by `authorize`, on every stream, whatever its variant and its types.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

_BEARER = re.compile(r"bearer +([!-~]+)", re.IGNORECASE)
# The names of Kubernetes objects (RFC 1123): a namespace is one label, a gateway's name a subdomain.
_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_LABEL_LENGTH = 63
_SUBDOMAIN_LENGTH = 253
_SPIFFE = re.compile(r"spiffe://([^/]+)/ns/([^/]+)/gateway/([^/]+)")
_SHOWN = 3
"""Gateways that a refusal lists."""


class Denied(Exception):
    """The peer did not say who it is, or may not have what it asks for.

    Args:
        status: name of the gRPC status that the stream ends with.
        message: one line for the peer and the log; never holds a secret.
    """

    def __init__(self, status: Literal["UNAUTHENTICATED", "PERMISSION_DENIED"], message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Undecided(Exception):
    """It cannot be told now who the peer is, for a reason that is known; it is to come again. The text is one line."""


class Unproven(Denied):
    """The peer brought nothing that this authenticator reads; another one may still know it."""

    def __init__(self, message: str) -> None:
        super().__init__("UNAUTHENTICATED", message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What the other end of a connection brought."""

    address: str
    """As gRPC writes it: `ipv4:10.0.0.1:40000`."""
    token: str | None = field(default=None, repr=False)
    """Its bearer token: a secret, so it is not printed."""
    names: tuple[str, ...] = ()
    """URIs `spiffe://...` and DNS names of its certificate, which has been verified."""


class Authenticator(Protocol):
    """Tells who a peer is."""

    async def identify(self, peer: Peer) -> frozenset[str]:
        """The gateways (`<namespace>/<name>`) that the peer may ask for.

        Raises:
            Unproven: the peer brought nothing that is read here.
            Denied: what it brought is wrong.
            Undecided: it cannot be told now.
        """


def authorize(gateways: frozenset[str], gateway: str) -> None:
    """Let a peer that was identified for `gateways` ask for one of them only.

    Raises:
        Denied: PERMISSION_DENIED; it is another peer's gateway.
    """
    if gateway not in gateways:
        raise Denied(
            "PERMISSION_DENIED", f"node.cluster is {gateway!r}, but this peer is identified for {_some(gateways)}"
        )


def bearer(metadata: Iterable[tuple[str, str | bytes]]) -> str | None:
    """The bearer token (RFC 6750) in a call's metadata, or None without the key `authorization`.

    Raises:
        Denied: UNAUTHENTICATED; there are several, or one of another form.
    """
    values = [value for key, value in metadata if key.lower() == "authorization"]
    if not values:
        return None
    if len(values) > 1:
        raise Denied("UNAUTHENTICATED", f"authorization is given {len(values)} times; wanted: once")
    match = _BEARER.fullmatch(values[0]) if isinstance(values[0], str) else None
    if match is None:
        raise Denied("UNAUTHENTICATED", "authorization is not of the form: Bearer <token>")
    return match[1]


class CertificateAuthenticator:
    """Identifies a peer by the names of its client certificate; each name that has one of two forms is a gateway.

    `spiffe://<trust domain>/ns/<namespace>/gateway/<name>` (exactly; SPIFFE writes trust domains in lower case), or the
    DNS name `<name>.<namespace>.gateway.<trust domain>` (in any case; the name may hold dots). Wildcards and all other
    names are passed over.

    Args:
        trust_domain: whose names are believed, for example `cluster.local`.

    Raises:
        ValueError: the trust domain is not a DNS name in lower case.
    """

    def __init__(self, trust_domain: str) -> None:
        if not _is_subdomain(trust_domain):
            raise ValueError(
                f"trust domain {trust_domain!r} is not a DNS name in lower case, for example cluster.local"
            )
        self._trust_domain = trust_domain
        self._suffix = f".gateway.{trust_domain}"
        self._forms = (
            f"spiffe://{trust_domain}/ns/<namespace>/gateway/<name> or the DNS name <name>.<namespace>{self._suffix}"
        )

    async def identify(self, peer: Peer) -> frozenset[str]:
        """The gateways that the certificate names.

        Raises:
            Unproven: there is no certificate, or it has no names.
            Denied: it names no gateway.
        """
        if not peer.names:
            raise Unproven(f"no client certificate with a name; wanted: {self._forms}")
        gateways = frozenset(gateway for name in peer.names if (gateway := self._gateway(name)))
        if not gateways:
            raise Denied("UNAUTHENTICATED", f"the client certificate names no gateway; wanted: {self._forms}")
        return gateways

    def _gateway(self, name: str) -> str | None:
        parts = _of_uri(name, self._trust_domain) if "/" in name else _of_dns(name, self._suffix)
        if parts is None:
            return None
        namespace, gateway = parts
        return f"{namespace}/{gateway}" if _is_label(namespace) and _is_subdomain(gateway) else None


class AnyOf:
    """Identifies a peer by the first of several authenticators that knows it.

    A token decides alone: a peer that sends one is never identified by its certificate, so a wrong token is refused
    even beside a right certificate, and a right one is not bound to the certificate's names. Who sends a token means to
    be judged by it, and a token that has been revoked must not be mended by something else.
    """

    def __init__(self, authenticators: Sequence[Authenticator]) -> None:
        self._authenticators = tuple(authenticators)

    async def identify(self, peer: Peer) -> frozenset[str]:
        """The gateways that the first authenticator gives which knows the peer.

        Raises:
            Unproven: the peer brought nothing; says all that it could bring.
            Denied: none knows it; says why, of those that read what it brought.
        """
        if peer.token is not None:
            peer = replace(peer, names=())
        refusals: list[Denied] = []
        for authenticator in self._authenticators:
            try:
                return await authenticator.identify(peer)
            except Denied as denied:
                refusals.append(denied)
        raise _joined(refusals)


def _joined(refusals: list[Denied]) -> Denied:
    """One refusal for several: only those of what the peer really brought, if there are any."""
    wrong = [refusal for refusal in refusals if not isinstance(refusal, Unproven)]
    message = "; ".join(dict.fromkeys(refusal.message for refusal in wrong or refusals))
    return Denied(wrong[0].status, message) if wrong else Unproven(message or "no peer is known")


def _of_uri(name: str, trust_domain: str) -> tuple[str, str] | None:
    match = _SPIFFE.fullmatch(name)
    return (match[2], match[3]) if match and match[1] == trust_domain else None


def _of_dns(name: str, suffix: str) -> tuple[str, str] | None:
    lowered = name.lower() if name.isascii() else ""
    if not lowered.endswith(suffix):
        return None
    gateway, _, namespace = lowered.removesuffix(suffix).rpartition(".")
    return namespace, gateway


def _is_label(text: str) -> bool:
    return len(text) <= _LABEL_LENGTH and _LABEL.fullmatch(text) is not None


def _is_subdomain(text: str) -> bool:
    """Whether Kubernetes takes it as an object's name: labels between dots, each of any length."""
    return len(text) <= _SUBDOMAIN_LENGTH and all(map(_LABEL.fullmatch, text.split(".")))


def _some(gateways: frozenset[str]) -> str:
    listed = sorted(gateways)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(map(repr, listed[:_SHOWN])) + more if listed else "no gateway"
