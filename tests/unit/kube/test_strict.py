"""Certificates pass the strict verification that Python 3.13 has on by default: all that RFC 5280 asks for is there."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.certificates import Authority
from xdserve.kube.material import AUTHORITY_LIFE, BUNDLE, CERTIFICATE, KEY, OVERLAP, from_data, renewed, to_data

NAMES = ("xdserve.xdserve-system", "xdserve.xdserve-system.svc", "127.0.0.1")
NOW = datetime.now(UTC)


def handshake(server, client, name):
    """TLS between two contexts, without sockets; ssl.SSLCertVerificationError if one does not believe the other."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_hostname=name),
        server.wrap_bio(up, down, server_side=True),
    ]
    for _ in range(10):
        for end in list(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                continue
        if not ends:
            return
    raise AssertionError("no end of the handshake")


def serving(tmp_path, certificate, key):
    """A server's context."""
    for name, text in (("tls.crt", certificate), ("tls.key", key)):
        (tmp_path / name).write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    return context


def strict(authorities):
    """A client's context, as Python 3.13 makes it."""
    context = ssl.create_default_context(cadata=authorities)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def lives(ages):
    """What xdserve's authority holds now, when it was first made that long ago and then renewed at these ages."""
    material = None
    for age in ages:
        material = renewed(material, NAMES, NOW - ages[-1] + age)
    return from_data(to_data(material))


NEW = (timedelta(0),)
SHOWN = (*NEW, AUTHORITY_LIFE * 0.7)
MOVED = (*SHOWN, AUTHORITY_LIFE * 0.7 + 1.1 * OVERLAP)


@pytest.mark.parametrize(("ages", "authorities"), [(NEW, 1), (SHOWN, 2), (MOVED, 2)], ids=["new", "shown", "moved"])
@pytest.mark.parametrize("name", NAMES)
def test_what_xdserves_own_authority_signs_is_believed(tmp_path, ages, authorities, name):
    material = lives(ages)
    if len(ages) == 2:
        material = renewed(material, NAMES, NOW)  # a step more: the server's own certificate is due as well
    assert len(material.authorities) == authorities
    data = to_data(material)
    handshake(serving(tmp_path, data[CERTIFICATE], data[KEY]), strict(data[BUNDLE]), name)


def test_what_another_authority_signed_is_not(tmp_path):
    data, other = to_data(lives(NEW)), to_data(lives(NEW))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(serving(tmp_path, data[CERTIFICATE], data[KEY]), strict(other[BUNDLE]), NAMES[0])


def test_the_certificates_of_tests_are_believed_on_both_sides(tmp_path):
    """The kube-apiserver of the tests is met by Python's own client and by aiohttp's, on any Python."""
    authority = Authority()
    ours = authority.server()
    server = serving(tmp_path, ours.certificate.decode(), ours.key.decode())
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= ssl.VERIFY_X509_STRICT
    server.load_verify_locations(cadata=authority.certificate.decode())
    client = strict(authority.certificate.decode())
    client.load_cert_chain(*authority.client(uris=["spiffe://cluster.local/ns/models/sa/iris"]).write(tmp_path, "own"))
    handshake(server, client, "localhost")
