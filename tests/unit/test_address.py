from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootstrap.address import Address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:18000", "127.0.0.1", 18000),
        ("[::1]:1", "::1", 1),
        ("xdserve.system.svc:65535", "xdserve.system.svc", 65535),
        ("LocalHost:0", "localhost", 0),
    ],
)
def test_reads_an_address(text: str, host: str, port: int) -> None:
    address = Address.parse(text)
    assert address == (host, port)
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    ["", "localhost", ":80", "::1:80", "[::1]", "[::1]:", "[1.2.3.4]:80", "[fe80::1%eth0]:80", "a:65536", "a:-1",
     "a b:80", "300.1.1.1:80", "1.2.3:80", "a:٣", "http://a:80", "a:80/",
     "-a:80", "a..b:80", "a:80\n", f"{'a' * 64}:80"],
)  # fmt: skip
def test_refuses_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        Address.parse(text)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        address = Address.parse(text)
    except ValueError:
        return
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "loopback", "ip"),
    [
        ("127.8.0.1:1", True, True),
        ("[::1]:1", True, True),
        ("localhost:1", True, False),
        ("0.0.0.0:1", False, True),
        ("[::]:1", False, True),
        ("example.com:1", False, False),
    ],
)
def test_knows_what_others_can_reach(text: str, *, loopback: bool, ip: bool) -> None:
    assert (Address.parse(text).is_loopback, Address.parse(text).is_ip) == (loopback, ip)
