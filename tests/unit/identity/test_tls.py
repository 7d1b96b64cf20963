"""TLS handshakes with a real grpc.aio server: who gets in, who the peer is said to be, and what is read again."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from tests.support.certificates import Authority
from xds.credentials import Credentials, peer_of
from xds.identity import CertificateAuthenticator, Denied

IRIS = "spiffe://cluster.local/ns/models/gateway/iris"
DEADLINE = 20.0
TOKEN = "t0k3n-0f-1r1s"


class Rig:
    """Files of a server's TLS, the server, and its clients. It answers each message with what it knows of the peer."""

    def __init__(self, folder, told):
        self.authority = Authority("of servers")
        self.clients = Authority("of clients")
        self.folder = folder
        self.told = told
        self.port = 0
        self.peers = []
        self.ca = self.clients.write(folder, "clients")
        self.certificate, self.key = self.authority.server().write(folder, "server")

    def credentials(self, *, mutual=True):
        ca = self.ca if mutual else None
        return Credentials(certificate=self.certificate, key=self.key, client_ca=ca, report=self.told)

    @asynccontextmanager
    async def serving(self, *, mutual=True):
        server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(self._echo)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Echo": handler}),))
        credentials = self.credentials(mutual=mutual).server_credentials()
        self.port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        try:
            yield self
        finally:
            await server.stop(None)

    async def _echo(self, _, context):
        try:
            self.peers.append(peer_of(context))
        except Denied as denied:
            await context.abort(grpc.StatusCode[denied.status], denied.message)
        while (data := await context.read()) is not grpc.aio.EOF:
            await context.write(data)

    @asynccontextmanager
    async def stream(self, pair=None, *, metadata=(), authority=None):
        """A stream over a connection of its own."""
        ca = (authority or self.authority).certificate
        credentials = grpc.ssl_channel_credentials(ca, *((pair.key, pair.certificate) if pair else ()))
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.secure_channel(f"127.0.0.1:{self.port}", credentials, options) as channel:
            yield channel.stream_stream("/test.Echo/Echo")(timeout=DEADLINE, metadata=metadata)

    async def peer(self, pair=None, **more):
        """Whom the server sees."""
        async with self.stream(pair, **more) as stream:
            assert await echo(stream) == b"hello"
            return self.peers[-1]

    async def refused(self, pair=None, **more):
        """The status and words with which a client does not get in."""
        seen = len(self.peers)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.peer(pair, **more)
        assert len(self.peers) == seen
        return caught.value

    async def shown(self):
        """The certificate that the server shows to a new connection, without gRPC on this side."""
        context = ssl.create_default_context(cadata=self.authority.certificate.decode())
        context.set_alpn_protocols(["h2"])
        _, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname="localhost")
        try:
            return ssl.DER_cert_to_PEM_cert(writer.get_extra_info("ssl_object").getpeercert(binary_form=True)).encode()
        finally:
            writer.transport.abort()


async def echo(stream, data=b"hello"):
    await stream.write(data)
    return await stream.read()


@pytest.fixture
def rig(tmp_path, told, secrets):
    rig = Rig(tmp_path, told)
    # The first line is enough: whatever prints a key prints it.
    secrets |= {rig.key.read_text().splitlines()[1], TOKEN}
    return rig


# -- Who gets in ---------------------------------------------------------------------------------------------------


async def test_the_right_client_gets_in_and_is_known_by_its_names(rig):
    async with rig.serving():
        peer = await rig.peer(rig.clients.client(uris=[IRIS], hosts=["iris.models.gateway.cluster.local"]))
    assert peer.names == (IRIS, "iris.models.gateway.cluster.local")
    assert peer.address.startswith("ipv4:127.0.0.1:")
    assert peer.token is None
    assert await CertificateAuthenticator("cluster.local").identify(peer) == {"models/iris"}


async def test_names_are_taken_by_their_kind(rig):
    """An e-mail address or a DNS name that spells a URI is not one; other URIs and addresses do not matter."""
    names = {"uris": ["https://x/y"], "hosts": [IRIS, "a.b"], "mails": ["iris.models.gateway.cluster.local"]}
    async with rig.serving():
        peer = await rig.peer(rig.clients.client(**names))
    assert peer.names == ("a.b",)


async def test_a_certificate_without_names_gets_in_and_names_nobody(rig):
    async with rig.serving():
        assert (await rig.peer(rig.clients.client())).names == ()


@pytest.mark.parametrize("who", ["none", "other authority", "expired", "of servers", "for servers only"])
async def test_a_client_without_a_right_certificate_does_not_get_in(rig, who):
    pair = {
        "none": None,
        "other authority": Authority("of clients").client(uris=[IRIS]),
        "expired": rig.clients.client(uris=[IRIS], expired=True),
        "of servers": rig.authority.client(uris=[IRIS]),
        "for servers only": rig.clients.server(),
    }[who]
    async with rig.serving():
        error = await rig.refused(pair)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        await rig.peer(rig.clients.client(uris=[IRIS]))


async def test_with_mutual_tls_a_token_does_not_replace_a_certificate(rig):
    """gRPC's Python can demand certificates of all clients or of none."""
    bearer = (("authorization", f"Bearer {TOKEN}"),)
    async with rig.serving():
        assert (await rig.refused(metadata=bearer)).code() is grpc.StatusCode.UNAVAILABLE
        peer = await rig.peer(rig.clients.client(uris=[IRIS]), metadata=bearer)
    assert (peer.token, peer.names) == (TOKEN, (IRIS,))


async def test_without_an_authority_of_clients_certificates_are_not_looked_at(rig):
    async with rig.serving(mutual=False):
        assert (await rig.peer()).names == ()
        assert (await rig.peer(Authority().client(uris=[IRIS]))).names == ()


async def test_a_client_that_does_not_trust_the_server_goes_away(rig):
    async with rig.serving(mutual=False):
        assert (await rig.refused(authority=Authority())).code() is grpc.StatusCode.UNAVAILABLE


async def test_what_is_not_tls_harms_nobody(rig):
    async with rig.serving(mutual=False):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{rig.port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await echo(channel.stream_stream("/test.Echo/Echo")(timeout=DEADLINE))
        await rig.peer()


async def test_a_token_comes_with_the_call(rig):
    async with rig.serving(mutual=False):
        assert (await rig.peer(metadata=(("authorization", f"bearer {TOKEN}"),))).token == TOKEN


@pytest.mark.parametrize(
    "metadata",
    [
        (("authorization", TOKEN),),
        (("authorization", f"Basic {TOKEN}"),),
        (("authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {TOKEN}")),
    ],
)
async def test_a_malformed_authorization_is_unauthenticated_and_not_repeated(rig, metadata):
    async with rig.serving(mutual=False):
        error = await rig.refused(metadata=metadata)
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert TOKEN not in error.details()


async def test_plain_text_has_no_names(rig):
    peers = []

    async def handler(_, context):
        peers.append(peer_of(context))
        return b""

    server = grpc.aio.server()
    methods = {"Echo": grpc.unary_unary_rpc_method_handler(handler)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.unary_unary("/test.Echo/Echo")(b"", timeout=DEADLINE)
    await server.stop(None)
    assert [(peer.names, peer.token) for peer in peers] == [((), None)]


# -- What is read again --------------------------------------------------------------------------------------------


async def test_a_new_certificate_is_shown_to_new_connections_and_cuts_no_stream(rig, told):
    async with rig.serving(mutual=False), rig.stream() as old:
        await echo(old)
        assert await rig.shown() == rig.certificate.read_bytes()
        pair = rig.authority.server()
        pair.write(rig.folder, "server")
        assert await rig.shown() == pair.certificate
        assert await echo(old, b"still here") == b"still here"
        await rig.peer()
    assert told.news == [f"read again: {rig.certificate}, {rig.key}"]


async def test_a_certificate_and_key_that_do_not_fit_are_not_used(rig, told):
    """As while one is written and the other not yet; it is told once, not per handshake."""
    async with rig.serving(mutual=False):
        before = await rig.shown()
        pair = rig.authority.server()
        rig.certificate.write_bytes(pair.certificate)
        for _ in range(3):
            assert await rig.shown() == before
        assert told.errors == [
            f"{rig.key}: not the key of the certificate in {rig.certificate}; what was read before stays in use"
        ]
        rig.key.write_bytes(pair.key)
        assert await rig.shown() == pair.certificate
    assert len(told.lines) == 2


async def test_files_that_are_gone_or_broken_keep_the_last_good(rig, told):
    async with rig.serving(mutual=False):
        before = await rig.shown()
        rig.certificate.unlink()
        assert await rig.shown() == await rig.shown() == before
        rig.certificate.write_text("nonsense")
        assert await rig.shown() == await rig.shown() == before
    assert [line.split("; ")[0] for line in told.errors] == [
        f"{rig.certificate}: No such file or directory",
        f"{rig.certificate}: not certificates in PEM",
    ]


async def test_a_secret_that_kubernetes_swaps_is_read_again(rig, tmp_path):
    pairs = {"one": rig.authority.server(), "two": rig.authority.server()}
    for name, pair in pairs.items():
        (tmp_path / name).mkdir()
        pair.write(tmp_path / name, "tls")
    (tmp_path / "..data").symlink_to("one")
    for name in ("tls.pem", "tls.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    rig.certificate, rig.key = tmp_path / "tls.pem", tmp_path / "tls.key"
    async with rig.serving(mutual=False):
        assert await rig.shown() == pairs["one"].certificate
        (tmp_path / "..new").symlink_to("two")
        (tmp_path / "..new").rename(tmp_path / "..data")
        assert await rig.shown() == pairs["two"].certificate


async def test_a_new_authority_of_clients_counts_for_new_connections(rig):
    before, after = rig.clients.client(uris=[IRIS]), Authority("next")
    async with rig.serving(), rig.stream(before) as old:
        await echo(old)
        rig.ca.write_bytes(rig.clients.certificate + after.certificate)
        await rig.peer(before)
        await rig.peer(after.client(uris=[IRIS]))
        rig.ca.write_bytes(after.certificate)
        await rig.refused(before)
        await rig.peer(after.client(uris=[IRIS]))
        assert await echo(old, b"still here") == b"still here"


async def test_a_broken_authority_of_clients_lets_in_who_was_let_in(rig, told):
    pair = rig.clients.client(uris=[IRIS])
    async with rig.serving():
        rig.ca.write_text("")
        await rig.peer(pair)
        await rig.refused()
        await rig.peer(pair)
    assert told.errors == [f"{rig.ca}: not certificates in PEM; what was read before stays in use"]


async def test_a_session_is_not_resumed_past_its_certificate(rig):
    """A resumed session shows no certificate, so one that has expired would get in for two days."""
    certificate, key = rig.clients.client(uris=[IRIS]).write(rig.folder, "client")
    context = ssl.create_default_context(cadata=rig.authority.certificate.decode())
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(certificate, key)
    async with rig.serving():
        session = await asyncio.to_thread(_session, context, rig.port, None)
        assert session.has_ticket
        assert not (await asyncio.to_thread(_session, context, rig.port, session)).resumed


class _Ticket:
    def __init__(self, tls):
        self.session = tls.session
        self.resumed = tls.session_reused
        self.has_ticket = tls.session.has_ticket


def _session(context, port, ticket):
    """Connect, wait for the server's first bytes (behind the tickets) and say what session it was."""
    with (
        socket.create_connection(("127.0.0.1", port), DEADLINE) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=ticket and ticket.session) as tls,
    ):
        assert tls.recv(1)
        return _Ticket(tls)


def test_files_that_did_not_change_are_not_opened(rig, monkeypatch):
    for path in (rig.certificate, rig.key, rig.ca):
        os.utime(path, (1, 1))
    credentials = rig.credentials()
    monkeypatch.setattr("xds.credentials._content", lambda _: pytest.fail("a file was opened"))
    credentials._fetch()


# -- Broken at start -----------------------------------------------------------------------------------------------


def test_what_is_wrong_at_start_is_one_line_that_names_the_file(rig):
    with rig.key.open("a") as file:
        file.write("-----BEGIN CERTIFICATE-----\n")
    rig.credentials()
    for path in (rig.certificate, rig.key, rig.ca):
        good = path.read_bytes()
        for content in (b"", b"nonsense", good[:-40], b"\xff" * 64, good.replace(b"M", b"*")):
            path.write_bytes(content)
            said = _why_not(rig)
            assert said.startswith(f"{path}: not "), said
            assert "\n" not in said
        path.unlink()
        assert _why_not(rig) == f"{path}: No such file or directory"
        path.write_bytes(good)


def test_a_key_of_another_certificate_is_said(rig):
    rig.key.write_bytes(rig.authority.server().key)
    assert _why_not(rig) == f"{rig.key}: not the key of the certificate in {rig.certificate}"


def test_an_encrypted_key_is_said_and_no_password_asked_for(rig):
    rig.authority.server(password="well known").write(rig.folder, "server")
    assert "not an unencrypted private key" in _why_not(rig)


def test_a_bundle_may_have_comments_in_any_language(rig):
    rig.ca.write_bytes("# Autorit\u00e9\n".encode() + rig.clients.certificate)
    rig.credentials()


def _why_not(rig):
    with pytest.raises((OSError, ValueError), match=": ") as caught:
        rig.credentials()
    assert caught.value.__suppress_context__
    return str(caught.value)


def test_reports_go_to_the_log_by_default(rig, caplog):
    caplog.set_level(logging.INFO)
    credentials = Credentials(certificate=rig.certificate, key=rig.key)
    rig.key.unlink()
    credentials._fetch()
    credentials._fetch()
    assert [record[:2] for record in caplog.record_tuples] == [("xds.credentials", logging.ERROR)]
