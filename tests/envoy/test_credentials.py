"""What an Envoy proves itself with, and how it comes through another server: a stock Envoy on bootstraps of ours."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import grpc
import pytest
from grpc import aio

import bootstrap
from bootstrap import Credentials
from tests.support.certificates import Authority
from tests.support.envoy import pick_ports, running_envoy
from tests.support.wait import wait_until

logger = logging.getLogger(__name__)

DEADLINE = 30
HOST = "127.0.0.1"
ADS = "DeltaAggregatedResources"
LRS = "StreamLoadStats"
IRIS, MNIST = (f"spiffe://cluster.local/ns/models/gateway/{name}" for name in ("iris", "mnist"))

# DeltaDiscoveryResponse{type_url (4), nonce (5)}: without an answer Envoy would wait longer each time it comes again.
CDS = b"type.googleapis.com/envoy.config.cluster.v3.Cluster"
NOTHING = b"\x22" + bytes([len(CDS)]) + CDS + b"\x2a\x01a"


@dataclass(frozen=True)
class Call:
    """One stream that an Envoy opened, and what it brought."""

    method: str
    authorization: str | None
    names: tuple[str, ...]


@dataclass
class Recorder(grpc.GenericRpcHandler):
    """Takes every stream, keeps what it brought, and sends nothing of use."""

    calls: list[Call] = field(default_factory=list)
    missing: tuple[str, ...] = ()
    _end: asyncio.Event = field(default_factory=asyncio.Event)

    def service(self, details):
        method = details.method.rpartition("/")[2]
        if method in self.missing:
            self.calls.append(Call(method, None, ()))
            return None
        return grpc.stream_stream_rpc_method_handler(partial(self._serve, method))

    async def _serve(self, method, requests, context):
        names = context.auth_context().get("x509_subject_alternative_name", ())
        metadata = dict(context.invocation_metadata())
        self.calls.append(Call(method, metadata.get("authorization"), tuple(name.decode() for name in names)))
        end = self._end
        if method == ADS:
            await anext(requests)
            yield NOTHING
        await end.wait()

    def cut(self):
        """End all streams."""
        self._end.set()
        self._end = asyncio.Event()

    def has(self, method=ADS, **brought):
        return any(
            call.method == method and all(getattr(call, key) == value for key, value in brought.items())
            for call in self.calls
        )


class Site:
    """A folder with an authority, what the server and an Envoy have of it, and the Envoy's bootstrap."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()
        self.ca = self.authority.write(folder)
        self.served = self.authority.server()

    def client(self, name, uri):
        return self.authority.client(uris=[uri]).write(self.folder, name)

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def bootstrap(self, *addresses, admin=0, **given):
        credentials = Credentials(directory=self.folder, **given)
        for name, content in bootstrap.secrets(credentials, addresses).items():
            (self.folder / name).write_text(bootstrap.to_yaml(content))
        return bootstrap.render("models/iris", addresses, credentials=credentials, admin_address=f"{HOST}:{admin}")

    @contextmanager
    def envoy(self, *addresses, **given):
        (admin,) = pick_ports(1)
        with running_envoy(self.folder, self.bootstrap(*addresses, admin=admin, **given), admin) as envoy:
            yield envoy

    def server(self, recorder, *, tls=True, mutual=False):
        return Server(self, recorder, tls=tls, mutual=mutual)


class Server:
    """A server of a recorder, in a block of code; it may come and go at its port."""

    def __init__(self, site, recorder, *, tls, mutual) -> None:
        self.recorder = recorder
        self.port = 0
        self._site, self._tls, self._mutual = site, tls, mutual

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *error):
        await self.stop()

    async def start(self):
        self._server = aio.server()
        self._server.add_generic_rpc_handlers((self.recorder,))
        address = f"{HOST}:{self.port}"
        if self._tls:
            self.port = self._server.add_secure_port(address, self._credentials())
        else:
            self.port = self._server.add_insecure_port(address)
        await self._server.start()

    async def stop(self):
        """Be gone at once."""
        await self._server.stop(0)

    async def restart(self):
        await self.stop()
        await self.start()

    def _credentials(self):
        pair = (self._site.served.key, self._site.served.certificate)
        authorities = self._site.authority.certificate if self._mutual else None
        return grpc.ssl_server_credentials([pair], authorities, require_client_auth=self._mutual)


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


ADDRESSES = {
    "one": [f"{HOST}:1"],
    "several": [f"{HOST}:1", "[::1]:2"],
    "mixed": ["xdserve.example.com:1", f"{HOST}:2", "[::1]:3"],
}


@pytest.mark.parametrize("addresses", list(ADDRESSES))
@pytest.mark.parametrize("proof", ["none", "token", "certificate", "both"])
@pytest.mark.parametrize("server_name", [None, "xdserve.example.com"])
def test_envoy_accepts_every_combination(addresses, proof, server_name, site, envoy_binary):
    given = {"ca": site.ca, "server_name": server_name}
    if proof in {"token", "both"}:
        given["token_file"] = site.write("token", "first\n")
    if proof in {"certificate", "both"}:
        given["cert"], given["key"] = site.client("client", IRIS)
    config = site.write("envoy.json", json.dumps(site.bootstrap(*ADDRESSES[addresses], **given)))
    command = [envoy_binary, "--mode", "validate", "--config-path", config]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "[warning]" not in result.stderr
    assert "[error]" not in result.stderr


async def test_the_token_goes_with_every_stream_and_is_read_again(site):
    token = site.write("token", "first\n")
    recorder = Recorder()
    async with site.server(recorder) as server:
        with site.envoy(f"localhost:{server.port}", ca=site.ca, token_file=token):
            await wait_until(lambda: recorder.has(ADS, authorization="Bearer first"), DEADLINE)
            await wait_until(lambda: recorder.has(LRS, authorization="Bearer first"), DEADLINE)
            site.write("new", "second\n").rename(token)
            await wait_until(lambda: cut_until(recorder, authorization="Bearer second"), DEADLINE, every=0.1)


async def test_a_token_that_kubernetes_swaps_is_read_again(site):
    folder = site.folder / "mounted"
    mount(folder, "1", {"token": "first"})
    recorder = Recorder()
    async with site.server(recorder, tls=False) as server:
        with site.envoy(f"{HOST}:{server.port}", token_file=folder / "token"):
            await wait_until(lambda: recorder.has(authorization="Bearer first"), DEADLINE)
            mount(folder, "2", {"token": "second"})
            await wait_until(lambda: cut_until(recorder, authorization="Bearer second"), DEADLINE, every=0.1)


def mount(folder, version, files):
    """Put files into a folder as the kubelet does: behind a link that is swapped."""
    real = folder / f"..{version}"
    real.mkdir(parents=True)
    for name, content in files.items():
        (real / name).write_text(content)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..new").symlink_to(real.name)
    (folder / "..new").rename(folder / "..data")


def cut_until(recorder, **brought):
    """End streams until a new one brings this: Envoy does not tell when it has read a file again."""
    if recorder.has(**brought):
        return True
    recorder.cut()
    return False


@pytest.mark.parametrize("apart", [False, True])
async def test_the_certificate_is_read_again(apart, site):
    """Also where the key is in a folder of its own."""
    cert, key = site.client("client", IRIS)
    if apart:
        (site.folder / "private").mkdir()
        key = key.rename(site.folder / "private" / "client.key")
    recorder = Recorder()
    async with site.server(recorder, mutual=True) as server:
        with site.envoy(f"{HOST}:{server.port}", ca=site.ca, cert=cert, key=key):
            await wait_until(lambda: recorder.has(names=(IRIS,)), DEADLINE)
            for new, old in zip(site.client("new", MNIST), (cert, key), strict=True):
                new.rename(old)
            await wait_until(lambda: met_again(server, names=(MNIST,)), DEADLINE, every=0.1)


async def test_the_authority_is_read_again(site):
    recorder = Recorder()
    async with site.server(recorder) as server:
        with site.envoy(f"{HOST}:{server.port}", ca=site.ca) as envoy:
            await wait_until(recorder.has, DEADLINE)
            site.authority = Authority("other")
            site.served = site.authority.server()
            await server.stop()
            recorder.calls.clear()
            await server.start()
            await wait_until(lambda: count(envoy, "ssl.fail_verify_error"), DEADLINE)
            assert recorder.calls == []
            site.authority.write(site.folder, "new").rename(site.ca)
            await wait_until(recorder.has, DEADLINE)


async def met_again(server, **brought):
    """Restart the server, each time that the Envoy has come, until it brings this: connections outlive certificates."""
    recorder = server.recorder
    if recorder.has(**brought):
        return True
    if recorder.calls:
        recorder.calls.clear()
        await server.restart()
    return False


async def count(envoy, name):
    return (await envoy.stats(f"^cluster.xdserve.{name}$")).get(f"cluster.xdserve.{name}", 0)


async def test_another_server_than_the_one_named_is_not_spoken_to(site):
    recorder = Recorder()
    token = site.write("token", "secret")
    async with site.server(recorder) as server:
        given = {"ca": site.ca, "token_file": token, "server_name": "other.example"}
        with site.envoy(f"{HOST}:{server.port}", **given) as envoy:
            await wait_until(lambda: count(envoy, "ssl.fail_verify_san"), DEADLINE)
    assert recorder.calls == []


async def test_a_server_that_takes_no_reports_is_asked_again_and_does_no_harm(site):
    recorder = Recorder(missing=(LRS,))
    async with site.server(recorder, tls=False) as server:
        with site.envoy(f"{HOST}:{server.port}") as envoy:
            await wait_until(lambda: sum(call.method == LRS for call in recorder.calls) >= 2, DEADLINE)
            assert (await envoy.stats("^control_plane.connected_state$"))["control_plane.connected_state"] == 1
    assert sum(call.method == ADS for call in recorder.calls) == 1


async def test_it_comes_through_another_server(site):
    """One of three addresses was never there; each of the others goes away while Envoy is connected to it."""
    recorders = [Recorder(), Recorder()]
    async with site.server(recorders[0]) as first, site.server(recorders[1]) as second:
        with (
            closed_port() as closed,
            site.envoy(*(f"{HOST}:{p}" for p in (closed, first.port, second.port)), ca=site.ca),
        ):
            await wait_until(lambda: any(recorder.has() for recorder in recorders), DEADLINE)
            for _ in range(4):
                gone, other = (first, second) if recorders[0].has() else (second, first)
                other.recorder.calls.clear()
                started = time.perf_counter()
                await gone.stop()
                await wait_until(other.recorder.has, DEADLINE)
                logger.info("met another server after %.3f s", time.perf_counter() - started)
                gone.recorder.calls.clear()
                await gone.start()


@contextmanager
def closed_port():
    """A port that refuses connections: bound, so that nobody else gets it, and not listened on."""
    with socket.socket() as held:
        held.bind((HOST, 0))
        yield held.getsockname()[1]
