"""Who may ask for what: asked for on every method, before anything is read or made for a peer."""

from __future__ import annotations

import asyncio
import hashlib

import grpc
import pytest

from tests.stream.rig import GATEWAY
from tests.stream.test_input import METHODS, first
from tests.support.certificates import Authority
from tests.support.wait import wait_until as until
from xds import loads
from xds.api.envoy.config.core.v3 import Node
from xds.api.envoy.service.load_stats.v3 import LoadStatsRequest
from xds.credentials import Credentials, TokenFile
from xds.entrance import host_of
from xds.identity import CertificateAuthenticator, Denied, Undecided, Unproven
from xds.types import ResourceType
from xds.wire import encode

CLUSTER = ResourceType.CLUSTER
OTHER = "models/other"
LRS = f"/{loads.SERVICE}/{loads.METHOD}"
PATHS = [*METHODS, LRS]


def word(path, gateway):
    """A first request on a method, for a gateway."""
    node = Node(id="envoy", cluster=gateway)
    return encode(LoadStatsRequest(node=node)) if path == LRS else first(METHODS[path], node=node)


async def served(rig, client, path):
    """Wait until a stream is let in."""
    if path == LRS:
        assert await client.got_something()
    else:
        await until(lambda: [stream.gateway for stream in rig.record.streams] == [GATEWAY])


class Tokens:
    """Knows one token, and counts."""

    def __init__(self):
        self.asked = 0

    async def identify(self, peer):
        self.asked += 1
        if peer.token is None:
            raise Unproven("no bearer token in authorization")
        if peer.token != "right":
            raise Denied("UNAUTHENTICATED", "the bearer token is not known")
        return frozenset({GATEWAY})


def bearer(token):
    return (("authorization", f"Bearer {token}"),)


@pytest.fixture
def tokens():
    return Tokens()


@pytest.fixture
async def guarded(start, tokens):
    return await start(authenticator=tokens)


@pytest.mark.parametrize("path", PATHS)
class TestEveryMethod:
    async def test_the_right_peer_is_served(self, guarded, tokens, path):
        client = guarded.client(path, metadata=bearer("right"))
        await client.raw(word(path, GATEWAY))
        await served(guarded, client, path)
        assert tokens.asked == 1

    async def test_another_gateway_is_refused(self, guarded, path):
        client = guarded.client(path, metadata=bearer("right"))
        await client.raw(word(path, OTHER))
        code, message = await client.end()
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert guarded.record.refusals == {"PERMISSION_DENIED": 1}
        assert guarded.record.words == [message]
        assert OTHER in message
        assert "right" not in message
        assert guarded.server.scope(OTHER) is None
        assert guarded.record.streams == []

    @pytest.mark.parametrize("metadata", [(), bearer("wrong"), (("authorization", "Basic wrong"),)])
    async def test_nobody_is_refused_before_a_word_is_read(self, guarded, path, metadata):
        client = guarded.client(path, metadata=metadata)
        code, message = await client.end()
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert "wrong" not in message
        assert guarded.record.refusals == {"UNAUTHENTICATED": 1}


class TestAnAuthenticator:
    async def test_a_slow_one_has_a_deadline_and_holds_up_nobody_else(self, start, caplog):
        class Slow(Tokens):
            async def identify(self, peer):
                if peer.token == "slow":
                    self.asked += 1
                    await asyncio.Event().wait()
                return await super().identify(peer)

        slow = Slow()
        rig = await start(authenticator=slow, identify=0.3)
        waits = rig.client(metadata=bearer("slow"))
        await waits.raw(first(METHODS["/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters"]))
        await until(lambda: slow.asked)
        client = rig.client(metadata=bearer("right"))
        await client.take(CLUSTER, gateway=GATEWAY)
        code, message = await waits.end()
        assert (code, message) == (
            grpc.StatusCode.UNAVAILABLE,
            "it takes too long to find out who this peer is",
        )
        assert "is: no answer within 0.3 s" in caplog.text

    async def test_one_that_fails_by_our_fault_is_logged_with_its_cause_alone(self, start, caplog):
        class Broken:
            async def identify(self, peer):
                raise ConnectionRefusedError("the cluster does not answer, key=secret")

        rig = await start(authenticator=Broken())
        code, message = await rig.client(metadata=bearer("right")).end()
        assert (code, message) == (grpc.StatusCode.UNAVAILABLE, "it cannot be told who this peer is")
        assert "ConnectionRefusedError: the cluster does not answer" in caplog.text

    async def test_one_that_cannot_tell_now_is_one_line_for_many_streams(self, start, caplog, monkeypatch):
        class Away(Tokens):
            async def identify(self, peer):
                raise Undecided("the apiserver does not review tokens: 403")

        monkeypatch.setattr("xds.entrance.UNDECIDED_SECONDS", 1e6)
        rig = await start(authenticator=Away())
        for _ in range(3):
            code, message = await rig.client(metadata=bearer("right")).end()
            assert (code, message) == (grpc.StatusCode.UNAVAILABLE, "it cannot be told who this peer is")
        lines = [record for record in caplog.records if "does not review tokens: 403" in record.getMessage()]
        assert len(lines) == 1
        assert lines[0].exc_info is None
        assert rig.record.refusals["UNAVAILABLE"] == 3
        assert "Traceback" not in caplog.text

    async def test_its_own_timeout_is_a_failure_too(self, start, caplog):
        class Late:
            async def identify(self, peer):
                raise TimeoutError("the cluster is slow")

        rig = await start(authenticator=Late())
        assert (await rig.client().end())[0] is grpc.StatusCode.UNAVAILABLE
        assert "the cluster is slow" in caplog.text

    async def test_a_server_that_stops_does_not_wait_for_it(self, start):
        class Never:
            async def identify(self, peer):
                await asyncio.Event().wait()

        rig = await start(authenticator=Never())
        client = rig.client()
        await until(lambda: rig.arriving == 1)
        await rig.server.stop(10)
        assert await client.end() == (grpc.StatusCode.UNAVAILABLE, "this server is going down")


class TestStrangers:
    """Past the rate they are not asked about; whoever else comes is let in."""

    @pytest.fixture
    async def flooded(self, start, tokens):
        rig = await start(authenticator=tokens, clock=lambda: 0.0, admission_rate=5)
        ends = [await rig.client(metadata=bearer(f"wrong-{number}")).end() for number in range(8)]
        assert [code for code, _ in ends[:5]] == [grpc.StatusCode.UNAUTHENTICATED] * 5
        assert ends[5:] == [(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many strangers from this host; try again")] * 3
        assert tokens.asked == 5
        return rig

    async def test_they_use_up_nothing_of_another_host(self, flooded, monkeypatch):
        monkeypatch.setattr("xds.entrance.host_of", lambda peer: "another")
        for _ in range(2):  # the half of one peer
            client = flooded.client(metadata=bearer("right"))
            assert set(await client.take(CLUSTER, gateway=GATEWAY)) == {"a"}
        code, message = await flooded.client(metadata=bearer("right")).end()
        assert (code, message) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many new streams; try again")

    async def test_nor_does_one_that_is_known_use_up_what_is_for_others(self, start):
        """A token that was stolen, or an Envoy that asks for another's gateway without end."""

        class ByName:
            async def identify(self, peer):
                return frozenset((peer.token,))

        rig = await start(authenticator=ByName(), clock=lambda: 0.0, admission_rate=6)
        for number in range(20):
            client = rig.client(metadata=bearer("models/other"))
            if number < 3:  # the others are refused before they have said anything
                await client.say(CLUSTER, gateway=GATEWAY)
            await client.end()
        assert rig.record.refusals == {"PERMISSION_DENIED": 3, "RESOURCE_EXHAUSTED": 17}
        for _ in range(3):
            client = rig.client(metadata=bearer(GATEWAY))
            assert set(await client.take(CLUSTER, gateway=GATEWAY)) == {"a"}

    async def test_who_was_let_in_before_comes_again_from_theirs(self, start, tokens):
        rig = await start(authenticator=tokens, clock=lambda: 0.0, admission_rate=5)
        for _ in range(2):
            await rig.client(metadata=bearer("right")).take(CLUSTER, gateway=GATEWAY)
            for _ in range(8):
                await rig.client().end()
        assert rig.record.refusals == {"UNAUTHENTICATED": 5, "RESOURCE_EXHAUSTED": 11}

    @pytest.mark.parametrize(
        ("peer", "host"),
        [
            ("ipv4:10.0.0.1:40000", "10.0.0.1"),
            ("ipv6:%5B::ffff:10.0.0.1%5D:40000", "10.0.0.1"),
            ("ipv6:%5B2001:db8::1:2:3:4%5D:1", "2001:db8::/64"),
            ("ipv6:%5Bfe80::1%25eth0%5D:1", "fe80::/64"),
            ("unix:", "unix:"),
        ],
    )
    def test_hosts(self, peer, host):
        assert host_of(peer) == host


async def test_a_token_file(start, tmp_path):
    file = tmp_path / "tokens.yaml"
    file.write_text(f"{GATEWAY}:\n  - {hashlib.sha256(b'right').hexdigest()}\n")
    rig = await start(authenticator=TokenFile(file))
    client = rig.client(metadata=bearer("right"))
    assert set(await client.take(CLUSTER, gateway=GATEWAY)) == {"a"}
    assert (await rig.client(metadata=bearer("wrong")).end())[0] is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("path", PATHS)
async def test_a_certificate_over_mutual_tls(start, tmp_path, path):
    authority = Authority()
    certificate, key = authority.server().write(tmp_path, "server")
    credentials = Credentials(certificate=certificate, key=key, client_ca=authority.write(tmp_path))
    rig = await start(
        authenticator=CertificateAuthenticator("cluster.local"), credentials=credentials.server_credentials()
    )
    pair = authority.client(uris=["spiffe://cluster.local/ns/models/gateway/iris"])
    mine, other = rig.secure(authority, pair, path), rig.secure(authority, pair, path)
    await mine.raw(word(path, GATEWAY))
    await served(rig, mine, path)
    await other.raw(word(path, OTHER))
    assert (await other.end())[0] is grpc.StatusCode.PERMISSION_DENIED
