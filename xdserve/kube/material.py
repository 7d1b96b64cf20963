"""The keys of xdserve's own authority: what there must be at a moment, as a pure function of what there was.

Gateways learn of an authority by their ConfigMap, minutes after it is made. So a new one is only shown at first: for
`OVERLAP` it stands beside the old one, which goes on signing; then it signs, and after another `OVERLAP` the old one
goes. At each moment the server's certificate is one that gateways which are `OVERLAP` behind can check.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = timedelta(days=730)
SERVER_LIFE = timedelta(days=90)
OVERLAP = timedelta(days=1)
_SKEW = timedelta(minutes=5)
"""Clocks differ: what is made now is good since then."""

BUNDLE, CERTIFICATE, KEY = "ca.crt", "tls.crt", "tls.key"
AUTHORITIES, AUTHORITY_KEYS = "authorities.crt", "authorities.key"
"""All authorities that are believed, oldest first, and their keys in the same order. `ca.crt` is for others to read."""


class MaterialError(ValueError):
    """What is in the Secret is of no use; the text says what, and nothing that is secret."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def made(self) -> datetime:
        """When it was made."""
        return self.certificate.not_valid_before_utc + _SKEW

    def due(self, now: datetime) -> bool:
        """Whether two thirds of its life are over."""
        return now >= self.made + (self.certificate.not_valid_after_utc - self.made) * 2 / 3

    def over(self, now: datetime) -> bool:
        """Whether it is not valid any more."""
        return now >= self.certificate.not_valid_after_utc


@dataclass(frozen=True, slots=True)
class Material:
    """Authorities, oldest first, of which one has signed the server's certificate."""

    authorities: tuple[Signed, ...]
    server: Signed

    @property
    def bundle(self) -> str:
        """The authorities that gateways are to believe (PEM)."""
        return "".join(_pem(one.certificate) for one in self.authorities)


def renewed(material: Material | None, names: Sequence[str], now: datetime) -> Material:
    """What there must be at `now`; the very same object if nothing is due. At most one step of a rotation at a time.

    Args:
        material: what there is; None at the first start.
        names: the names and addresses that the server is reached by.
        now: aware of its time zone.
    """
    if material is None or all(one.over(now) for one in material.authorities):
        authority = _authority(now)
        return Material((authority,), _server(authority, names, now))
    return _grown(material, now) or _moved(material, names, now) or _shrunk(material, now) or material


def _grown(material: Material, now: datetime) -> Material | None:
    """A new authority beside the others, long before the newest ends."""
    if not material.authorities[-1].due(now):
        return None
    return replace(material, authorities=(*material.authorities, _authority(now)))


def _moved(material: Material, names: Sequence[str], now: datetime) -> Material | None:
    """Another certificate of the server: from the newest authority that is known everywhere."""
    signer = _signer(material, now)
    current = material.server
    if signed_by(current, signer) and not current.due(now) and _names(current) == _wanted(names):
        return None
    return replace(material, server=_server(signer, names, now))


def _shrunk(material: Material, now: datetime) -> Material | None:
    """Without the authorities before the one that has signed, once everybody has seen its certificate."""
    if now < material.server.made + OVERLAP:
        return None
    at = next((at for at, one in enumerate(material.authorities) if signed_by(material.server, one)), 0)
    return replace(material, authorities=material.authorities[at:]) if at else None


def _signer(material: Material, now: datetime) -> Signed:
    known = [one for one in material.authorities if now >= one.made + OVERLAP and not one.over(now)]
    return known[-1] if known else next(one for one in material.authorities if not one.over(now))


def signed_by(server: Signed, authority: Signed) -> bool:
    """Whether an authority has signed a certificate."""
    try:
        server.certificate.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _authority(now: datetime) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    # Two authorities of one name would be told apart by trying both.
    name = _name(f"xdserve {now:%Y-%m-%d} {x509.random_serial_number() & 0xFFFFFFFF:08x}")
    usage = _usage(signs=True)
    builder = _builder(name, name, key, now, AUTHORITY_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return Signed(builder.sign(key, SHA256()), key)


def _server(authority: Signed, names: Sequence[str], now: datetime) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    # What an authority signs does not outlive it.
    life = min(SERVER_LIFE, authority.certificate.not_valid_after_utc - now)
    builder = _builder(_name("xdserve"), authority.certificate.subject, key, now, life)
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(signs=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectAlternativeName(list(map(_general_name, names))), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return Signed(builder.sign(authority.key, SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    begin = now.replace(microsecond=0) - _SKEW
    serial = x509.random_serial_number()
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), serial)
    return builder.not_valid_before(begin).not_valid_after(now.replace(microsecond=0) + life)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs, crl_sign=signs, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _wanted(names: Sequence[str]) -> frozenset[x509.GeneralName]:
    return frozenset(map(_general_name, names))


def _names(server: Signed) -> frozenset[x509.GeneralName]:
    try:
        found = server.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(found.value)


# -- To a Secret and back --------------------------------------------------------------------------------------------


def to_data(material: Material) -> dict[str, str]:
    """What the Secret holds, as text."""
    return {
        BUNDLE: material.bundle,
        CERTIFICATE: _pem(material.server.certificate),
        KEY: _key_pem(material.server.key),
        AUTHORITIES: material.bundle,
        AUTHORITY_KEYS: "".join(_key_pem(one.key) for one in material.authorities),
    }


def from_data(data: Mapping[str, str]) -> Material:
    """What a Secret holds.

    Raises:
        MaterialError: it is not what `to_data` writes.
    """
    keys = _keys(data, AUTHORITY_KEYS)
    certificates = _certificates(data, AUTHORITIES)
    if len(keys) != len(certificates):
        raise MaterialError(
            f"{AUTHORITY_KEYS} has {len(keys)} keys, but {AUTHORITIES} {len(certificates)} certificates"
        )
    (server, *_), (key, *_) = _certificates(data, CERTIFICATE), _keys(data, KEY)
    pairs = [Signed(one, its_key) for one, its_key in zip(certificates, keys, strict=True)]
    for pair in (*pairs, Signed(server, key)):
        if pair.certificate.public_key() != pair.key.public_key():
            raise MaterialError("a key is not that of its certificate")
    return Material(tuple(pairs), Signed(server, key))


def _certificates(data: Mapping[str, str], name: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(data.get(name, "").encode())
    except ValueError:
        raise MaterialError(f"{name} has no certificate in PEM") from None


_END = "-----END PRIVATE KEY-----\n"


def _keys(data: Mapping[str, str], name: str) -> list[ec.EllipticCurvePrivateKey]:
    parts = [part + _END for part in data.get(name, "").split(_END) if part.strip()]
    try:
        found = [load_pem_private_key(part.encode(), None) for part in parts]
    except (ValueError, TypeError):
        raise MaterialError(f"{name} has no key in PEM") from None
    keys = [key for key in found if isinstance(key, ec.EllipticCurvePrivateKey)]
    if not keys or len(keys) != len(found):
        raise MaterialError(f"{name} has no key of an elliptic curve")
    return keys


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
