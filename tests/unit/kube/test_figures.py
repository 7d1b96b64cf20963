"""What is read of the parts' own figures; `tests/kube/test_scale.py` reads them of a whole program."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509

from tests.support.certificates import Authority
from xdserve.kube.course import Trouble
from xdserve.kube.figures import expiry, failures, requests
from xdserve.kube.reflector import Counts


def test_reflectors_of_one_kind_are_added_up():
    """There is one for each namespace."""
    counts = [("Service", Counts(lists=1, pages=3, watches=2)), ("Service", Counts(pages=1)), ("Inference", Counts())]
    found = requests(counts)
    assert (found["Service", "list"], found["Service", "watch"], found["Service", "look"]) == (4, 2, 0)
    assert found["Inference", "list"] == 0


def test_failures_are_told_apart_by_their_trouble():
    one, other = Counts(), Counts()
    one.failures[Trouble.EXPIRED] = 2
    other.failures.update({Trouble.EXPIRED: 1, Trouble.NOT_FOUND: 1})
    found = failures([("Service", one), ("Service", other)])
    assert found == {("Service", "expired"): 3, ("Service", "not found"): 1}


def test_a_certificate_says_when_it_expires(tmp_path):
    pair = Authority().server()
    path, _ = pair.write(tmp_path, "server")
    assert expiry(path) == x509.load_pem_x509_certificate(pair.certificate).not_valid_after_utc.timestamp()
    assert expiry(path) > (datetime.now(UTC) + timedelta(minutes=1)).timestamp()


def test_without_a_certificate_there_is_no_such_time(tmp_path):
    assert expiry(tmp_path / "none") == 0
    (tmp_path / "broken").write_text("-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n")
    assert expiry(tmp_path / "broken") == 0
    (tmp_path / "other").write_bytes(b"\xff\xfe")
    assert expiry(tmp_path / "other") == 0
