"""Authorities and certificates of tests, as PEM files; elliptic curves, which are made in no time.

They have all that RFC 5280 asks for: Python 3.13 verifies so by default (`ssl.VERIFY_X509_STRICT`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its private key, in PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write `<name>.pem` and `<name>.key`; the paths of both."""
        paths = folder / f"{name}.pem", folder / f"{name}.key"
        for path, content in zip(paths, (self.certificate, self.key), strict=True):
            path.write_bytes(content)
        return paths

    @property
    def serial(self) -> int:
        """Tells one certificate from another."""
        return x509.load_pem_x509_certificate(self.certificate).serial_number


class Authority:
    """Signs certificates of servers and clients."""

    def __init__(self, name: str = "tests") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(f"authority {name}")
        builder = _builder(self._name, self._name, self._key.public_key(), expired=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs=True), critical=True)
        own = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        certificate = builder.add_extension(own, critical=False)
        self.certificate = certificate.sign(self._key, SHA256()).public_bytes(Encoding.PEM)
        """In PEM."""

    def write(self, folder: Path, name: str = "ca") -> Path:
        """Write `<name>.pem`; its path."""
        path = folder / f"{name}.pem"
        path.write_bytes(self.certificate)
        return path

    def server(self, *, password: str = "") -> Pair:
        """A certificate for loopback; its key is encrypted if there is a password."""
        names = [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
        return self._pair(names, ExtendedKeyUsageOID.SERVER_AUTH, password=password)

    def service(self, *hosts: str, expired: bool = False) -> Pair:
        """A certificate for names in DNS, as a cluster's authority makes one for a Service."""
        return self._pair([*map(x509.DNSName, hosts)], ExtendedKeyUsageOID.SERVER_AUTH, expired=expired)

    def client(self, *, uris=(), hosts=(), mails=(), expired: bool = False) -> Pair:
        """A client's certificate, with these alternative names."""
        names = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, hosts), *map(x509.RFC822Name, mails)]
        return self._pair(names, ExtendedKeyUsageOID.CLIENT_AUTH, expired=expired)

    def _pair(self, names, usage, *, expired: bool = False, password: str = "") -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_name("leaf"), self._name, key.public_key(), expired=expired)
        extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_usage(signs=False), True),
            (x509.ExtendedKeyUsage([usage]), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False),
            (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        return Pair(
            builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption),
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, key_cert_sign=signs, crl_sign=signs, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _builder(subject, issuer, public_key, *, expired: bool) -> x509.CertificateBuilder:
    end = datetime.now(UTC) + (-_HOUR if expired else _HOUR)
    return (
        x509.CertificateBuilder(issuer, subject, public_key, x509.random_serial_number())
        .not_valid_before(end - 3 * _HOUR)
        .not_valid_after(end)
    )
