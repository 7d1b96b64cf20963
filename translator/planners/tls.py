"""TLS towards backends: the authorities that a policy's ``caRef`` names, and what is expected of a certificate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from translator.objects.core import ConfigMap
from translator.objects.policy import BackendTls
from translator.objects.ref import CORE, Ref
from translator.view import Absent, Derivation, View

MOST_CA_BYTES = 512 << 10
"""Of certificates in one bundle. Each cluster that believes them carries them; all public authorities are 220 KB."""

MOST_CA_BYTES_OF_SERVICE = 1 << 20
"""Of certificates in all clusters of a service: a policy of 10 KB has 64 backends, and each may name a large bundle."""

_RIGHT = "is not readable; a cluster gives the right by the chart value rbac.configMaps"


class CaOf(NamedTuple):
    """The key of a ConfigMap in which the certificates of authorities are."""

    namespace: str
    name: str
    key: str

    @property
    def ref(self) -> Ref:
        """The ConfigMap."""
        return Ref(CORE, ConfigMap.KIND, self.namespace, self.name)


@dataclass(frozen=True, slots=True)
class NoCa:
    """Why there are no authorities to believe, as one line."""

    message: str


def _bundle(view: View, wanted: CaOf) -> str | NoCa:
    found = view.get(wanted.ref, ConfigMap)
    if isinstance(found, Absent):
        return NoCa(f"{wanted.ref} {'not found' if found is Absent.MISSING else _RIGHT}")
    if wanted.key not in found.data:
        return NoCa(f"{wanted.ref} has no key {wanted.key}")
    text = found.data[wanted.key]
    if len(text) > MOST_CA_BYTES:
        return NoCa(f"{wanted.ref} has {len(text)} characters in {wanted.key}, allowed are {MOST_CA_BYTES}")
    try:
        return _certificates(text)
    except (ValueError, x509.InvalidVersion):  # each certificate has a version; one of another is no ValueError
        return NoCa(f"{wanted.ref} has no certificates in {wanted.key} that can be read (PEM)")


def _certificates(text: str) -> str:
    """The certificates alone: what else a file holds, as a private key, is told to nobody.

    Raises:
        ValueError, x509.InvalidVersion: there are none, or one cannot be read.
    """
    found = x509.load_pem_x509_certificates(text.encode())
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in found)


CA_BUNDLE: Derivation[CaOf, str | NoCa] = Derivation("CA bundle", _bundle)


@dataclass(frozen=True, slots=True)
class Trust:
    """What a policy says of TLS to a backend. Without ``ca`` the authorities of the gateway's image are believed."""

    hostname: str | None = None
    ca: CaOf | None = None
    verify: bool = True


DEFAULT_TRUST = Trust()


def trust(asked: BackendTls | None, namespace: str) -> Trust | None:
    """What a policy in a namespace says of TLS to a backend, if it says anything."""
    if asked is None:
        return None
    ca = CaOf(namespace, asked.ca_ref.name, asked.ca_ref.key) if asked.ca_ref else None
    return Trust(asked.hostname, ca, verify=not asked.insecure_skip_verify)


def ca_of(view: View, trusted: Trust | None) -> str | NoCa | None:
    """The authorities to believe; None for those of the gateway's image."""
    return view.derive(CA_BUNDLE, trusted.ca) if trusted and trusted.ca else None
