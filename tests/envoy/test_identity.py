"""Who may have a gateway's resources: `xdserve serve` with TLS, and stock Envoys with real certificates and tokens."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager

import pytest
import pytest_asyncio
import yaml

import bootstrap
from bootstrap import Credentials
from tests.support.certificates import Authority
from tests.support.documents import backend, entrance, isvc, policy, split, to_service
from tests.support.envoy import pick_ports, running_envoy
from tests.support.requests import http1
from tests.support.serve import HOST, Serve
from tests.support.wait import wait_until

VARIANTS = {"delta": "DELTA_GRPC", "sotw": "GRPC"}
IRIS, WINE = (f"spiffe://cluster.local/ns/models/gateway/{name}" for name in ("iris", "wine"))
TOKENS = {"models/iris": "token-of-iris", "models/wine": "token-of-wine"}
both_variants = pytest.mark.parametrize("variant", VARIANTS)


class Site:
    """A server with TLS on two services, and what an Envoy of `models/iris` needs to come to it."""

    def __init__(self, folder, models):
        self.folder = folder
        self.authority = Authority()
        self.ca = self.authority.write(folder)
        self.cert, self.key = self.authority.server().write(folder, "server")
        self.port, other = pick_ports(2)
        self.stable, self.v2 = models
        self.serve = Serve(folder, "--xds-cert", str(self.cert), "--xds-key", str(self.key))
        self.serve.write("wine.yaml", isvc("wine"), *backend("wine-predictor", self.v2), entrance(other, "wine"))
        self.serve.write("iris.yaml", isvc(), *backend("iris-predictor", self.stable), entrance(self.port))

    async def start(self, *, mutual=False):
        """Run the server: it tells Envoys by certificate, or by token."""
        if mutual:
            await self.serve.started("--xds-client-ca", str(self.ca))
            return
        tokens = {gateway: [hashlib.sha256(token.encode()).hexdigest()] for gateway, token in TOKENS.items()}
        (self.folder / "tokens.yaml").write_text(yaml.safe_dump(tokens))
        await self.serve.started("--xds-tokens", str(self.folder / "tokens.yaml"))

    @contextmanager
    def envoy(self, variant, **given):
        """An Envoy of `models/iris` with these credentials."""
        (admin,) = pick_ports(1)
        credentials = Credentials(ca=self.ca, directory=self.folder, **given)
        address = f"{HOST}:{self.serve.port}"
        for name, content in bootstrap.secrets(credentials, [address]).items():
            (self.folder / name).write_text(bootstrap.to_yaml(content))
        made = bootstrap.render("models/iris", address, credentials=credentials, admin_address=f"{HOST}:{admin}")
        made["dynamic_resources"]["ads_config"]["api_type"] = VARIANTS[variant]
        with running_envoy(self.folder, bootstrap.to_json(made), admin) as started:
            yield started

    def token(self, text):
        path = self.folder / "token"
        path.write_text(text)
        return {"token_file": path}

    def certificate(self, pair):
        cert, key = pair.write(self.folder, "client")
        return {"cert": cert, "key": key}

    async def refused(self, status):
        return (await self.serve.metric("refused_streams_total")).get(status, 0) >= 2

    def secrets_in_logs(self):
        logs = "".join(path.read_text() for path in self.folder.rglob("xdserve-*.log"))
        return [token for token in TOKENS.values() if token in logs]


@pytest_asyncio.fixture
async def site(tmp_path, model_servers):
    made = Site(tmp_path, [model_servers[name].port for name in ("stable", "v2")])
    with made.serve:
        yield made


async def is_served(site, envoy):
    await envoy.wait_ready()
    assert (await http1(site.port, "/v1/models/iris")).status == 200


async def gets_nothing(envoy):
    """It has asked more than once, and has nothing."""

    async def asked():
        stats = await envoy.stats("^cluster.xdserve.upstream_cx_total|^cluster.xdserve.upstream_rq_total")
        return max(stats.values(), default=0) >= 2

    await wait_until(asked, 20, "the Envoy to ask again")
    assert not await envoy.ready()
    for kind in ("clusters", "listeners", "route_configs"):
        assert await envoy.versions(kind) == {}


@both_variants
async def test_the_right_token(site, variant):
    await site.start()
    with site.envoy(variant, **site.token(TOKENS["models/iris"])) as envoy:
        await is_served(site, envoy)
    assert site.secrets_in_logs() == []


@both_variants
@pytest.mark.parametrize(
    ("token", "status"),
    [
        (TOKENS["models/wine"], "PERMISSION_DENIED"),
        ("token-of-a-stranger", "UNAUTHENTICATED"),
        (None, "UNAUTHENTICATED"),
    ],
    ids=["of-another-gateway", "unknown", "none"],
)
async def test_a_wrong_token(site, variant, token, status):
    await site.start()
    with site.envoy(variant, **(site.token(token) if token else {})) as envoy:
        await wait_until(lambda: site.refused(status), 20, "the server to refuse it twice")
        await gets_nothing(envoy)
    assert site.secrets_in_logs() == []
    (line, *_) = [line for line in site.serve.log() if line["event"] == "stream refused"]
    assert line["status"] == status


@both_variants
async def test_the_right_certificate(site, variant):
    await site.start(mutual=True)
    with site.envoy(variant, **site.certificate(site.authority.client(uris=[IRIS]))) as envoy:
        await is_served(site, envoy)


@both_variants
async def test_the_certificate_of_another_gateway(site, variant):
    await site.start(mutual=True)
    with site.envoy(variant, **site.certificate(site.authority.client(uris=[WINE]))) as envoy:
        await wait_until(lambda: site.refused("PERMISSION_DENIED"), 20, "the server to refuse it twice")
        await gets_nothing(envoy)


@both_variants
@pytest.mark.parametrize("kind", ["none", "expired", "of-an-unknown-authority"])
async def test_a_wrong_certificate(site, variant, kind):
    await site.start(mutual=True)
    given = {
        "none": dict,
        "expired": lambda: site.certificate(site.authority.client(uris=[IRIS], expired=True)),
        "of-an-unknown-authority": lambda: site.certificate(Authority("theirs").client(uris=[IRIS])),
    }[kind]()
    with site.envoy(variant, **given) as envoy:
        await gets_nothing(envoy)
    assert await site.serve.metric("streams_total") == {}


async def test_a_server_of_an_unknown_authority_is_not_believed(site):
    await site.start()
    theirs = Authority("theirs").write(site.folder, "theirs")
    theirs.replace(site.ca)
    with site.envoy("delta", **site.token(TOKENS["models/iris"])) as envoy:
        await gets_nothing(envoy)
    assert await site.serve.metric("streams_total") == {}


async def test_certificates_change_and_no_stream_is_dropped(site):
    """The server's is replaced, then a second Envoy comes: it sees the new one, and the first one's stream goes on."""
    await site.start(mutual=True)
    given = site.certificate(site.authority.client(uris=[IRIS]))
    with site.envoy("delta", **given) as envoy:
        await is_served(site, envoy)
        await wait_until(lambda: site.serve.programmed("InferenceService models/iris"), 20, "all to be acknowledged")
        before = await site.serve.metric("streams_total")
        renewed = site.authority.server()
        for path, new in zip((site.cert, site.key), renewed.write(site.folder, "renewed"), strict=True):
            new.replace(path)
        folder = site.folder / "second"
        folder.mkdir()
        with site.envoy("delta", **given) as second:
            await second.wait_ready()
            (found,) = (await second.stats("^cluster.xdserve.ssl.handshake$")).values()
            assert found >= 1
        v2 = to_service("v2", "wine-predictor")
        site.serve.write("policy.yaml", policy(backends=[v2], split=split(v2=1)))
        await wait_until(site.serve.programmed, 20, "the edit to be in force")
        assert (await http1(site.port, "/v1/models/iris")).header("x-variant") == "v2"
        after = await site.serve.metric("streams_total")
        assert sum(after.values()) == sum(before.values()) + 1
