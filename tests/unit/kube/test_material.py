"""The rotation of xdserve's authority, over years that pass in no time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st

from xdserve.kube.material import (
    AUTHORITIES,
    AUTHORITY_KEYS,
    AUTHORITY_LIFE,
    BUNDLE,
    CERTIFICATE,
    KEY,
    OVERLAP,
    SERVER_LIFE,
    MaterialError,
    from_data,
    renewed,
    to_data,
)

START = datetime(2030, 1, 1, tzinfo=UTC)
NAMES = ("xdserve.system", "xdserve.system.svc", "127.0.0.1")


def believed(bundle, server, now, name="xdserve.system.svc"):
    """Whether somebody with these authorities believes the server."""
    store = Store(x509.load_pem_x509_certificates(bundle.encode()))
    verifier = PolicyBuilder().store(store).time(now).build_server_verifier(x509.DNSName(name))
    try:
        verifier.verify(server.certificate, [])
    except VerificationError:
        return False
    return True


def test_the_first_is_believed_by_all_its_names():
    made = renewed(None, NAMES, START)
    for name in NAMES[:2]:
        assert believed(made.bundle, made.server, START, name)
    assert not believed(made.bundle, made.server, START, "elsewhere.system.svc")
    assert not believed(renewed(None, NAMES, START).bundle, made.server, START)


def test_nothing_is_done_while_nothing_is_due():
    made = renewed(None, NAMES, START)
    for days in (0, 1, 30, 59):
        assert renewed(made, NAMES, START + timedelta(days=days)) is made


def test_gateways_that_are_a_day_behind_believe_the_server_for_years():
    material, now = renewed(None, NAMES, START), START
    shown = [(now, material.bundle)]
    signed, most = {material.server.certificate.issuer}, 0
    while now < START + 3 * AUTHORITY_LIFE:
        now += timedelta(hours=6)
        following = renewed(material, NAMES, now)
        if following is not material:
            material = following
            shown.append((now, material.bundle))
            signed.add(material.server.certificate.issuer)
            most = max(most, len(material.authorities))
        for bundle in {bundle for since, bundle in recent(shown, now)}:
            assert believed(bundle, material.server, now)
        left = material.server.certificate.not_valid_after_utc - now
        assert left > SERVER_LIFE / 4
    assert len(signed) >= 4
    assert most == 2
    assert len(shown) < 60


def recent(shown, now):
    """The bundles that a gateway may still have which is OVERLAP behind."""
    for at, (since, bundle) in enumerate(shown):
        until = shown[at + 1][0] if at + 1 < len(shown) else now
        if until > now - OVERLAP:
            yield since, bundle


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 900), min_size=1, max_size=12))
def test_after_any_pause_the_server_is_believed_by_who_has_the_newest(pauses):
    material, now = renewed(None, NAMES, START), START
    for days in pauses:
        now += timedelta(days=days)
        for _ in range(4):
            material = renewed(material, NAMES, now)
        assert believed(material.bundle, material.server, now)
        assert renewed(material, NAMES, now) is material


def test_other_names_are_signed_at_once_by_the_same_authority():
    made = renewed(None, NAMES, START)
    other = renewed(made, ("xdserve.other.svc",), START + timedelta(hours=1))
    assert other.authorities == made.authorities
    assert believed(made.bundle, other.server, START + timedelta(hours=1), "xdserve.other.svc")


def test_what_a_secret_holds_comes_back():
    made = renewed(renewed(None, NAMES, START), NAMES, START + AUTHORITY_LIFE * 0.7)
    assert len(made.authorities) == 2
    data = to_data(made)
    again = from_data(data)
    assert to_data(again) == data
    assert data[BUNDLE].count("BEGIN CERTIFICATE") == 2
    assert renewed(again, NAMES, START + AUTHORITY_LIFE * 0.7) is not None


def test_only_certificates_are_for_gateways():
    assert "PRIVATE" not in renewed(None, NAMES, START).bundle


@pytest.mark.parametrize("name", [CERTIFICATE, KEY, AUTHORITIES, AUTHORITY_KEYS])
@pytest.mark.parametrize("text", [None, "", "nonsense", "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n"])
def test_what_is_of_no_use_is_said(name, text):
    data = to_data(renewed(None, NAMES, START))
    data = {key: value for key, value in data.items() if key != name} | ({} if text is None else {name: text})
    with pytest.raises(MaterialError, match=name):
        from_data(data)


def test_keys_of_other_certificates_are_refused():
    data, other = to_data(renewed(None, NAMES, START)), to_data(renewed(None, NAMES, START))
    for name in (KEY, AUTHORITY_KEYS):
        with pytest.raises(MaterialError, match="a key is not"):
            from_data(data | {name: other[name]})
    with pytest.raises(MaterialError, match="2 keys"):
        from_data(data | {AUTHORITY_KEYS: data[AUTHORITY_KEYS] + other[AUTHORITY_KEYS]})
