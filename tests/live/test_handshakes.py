"""Strangers at the xDS port, as a scanner or an Envoy that believes another authority: what they leave in the log."""

from __future__ import annotations

import asyncio
import ssl

import pytest

from tests.support.certificates import Authority
from tests.support.processes import clean_environment
from tests.support.serve import HOST, Serve
from tests.support.wait import wait_until


async def knock(port, **how):
    """Connect, and be refused or refuse; the connection is closed when this returns."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port, **how)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.read()
        writer.close()
        await writer.wait_closed()
    except (ssl.SSLError, ConnectionError):
        pass


@pytest.mark.parametrize("asked", [None, "INFO"])
async def test_a_failed_handshake_is_counted_and_leaves_no_line_that_is_none_of_the_log(tmp_path, monkeypatch, asked):
    """Unless the user asks for what gRPC itself has to say."""
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    if asked:
        monkeypatch.setenv("GRPC_VERBOSITY", asked)
    assert clean_environment().get("GRPC_VERBOSITY") == asked
    certificate, key = Authority().server().write(tmp_path, "server")
    (tmp_path / "tokens.yaml").write_text("{}")
    flags = ("--xds-cert", str(certificate), "--xds-key", str(key), "--xds-tokens", str(tmp_path / "tokens.yaml"))
    with Serve(tmp_path, *flags) as serve:
        await serve.started()
        stranger = ssl.create_default_context(cadata=Authority("other").certificate.decode())
        for how in ({}, {"ssl": stranger, "server_hostname": "localhost"}):
            await knock(serve.port, **how)
        assert await serve.metric("tls_handshakes_total") == {"": 2}
        assert not await serve.metric("streams_total")
        if asked:
            await wait_until(lambda: "ssl_transport_security" in serve.child.log.read_text(), 10, "gRPC's own lines")
        else:
            assert serve.log()  # each an object
