"""Where the apiserver is and who we are to it: the files that say so, and those that do not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml

from tests.support.certificates import Authority
from xdserve.kube import client as module
from xdserve.kube.client import ClusterUnknown, connect, find
from xdserve.sources.tree import SourceUnavailable


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module, "ACCOUNT", tmp_path / "account")


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The ServiceAccount's files of a pod."""
    folder = tmp_path / "account"
    folder.mkdir()
    Authority().write(folder, "ca")
    (folder / "ca.pem").rename(folder / "ca.crt")
    (folder / "token").write_text("first\n")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    return folder


def kubeconfig(path: Path, **user: str) -> Path:
    document = {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:6443"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": user or {"token": "secret"}}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


async def token(client) -> str:
    return (await client.configuration.auth_settings())["BearerToken"]["value"]


async def test_a_pod_has_its_own_credentials(pod: Path):
    client = await connect()
    assert client.url == "https://10.96.0.1:443"
    assert await token(client) == "Bearer first"
    await client.close()


async def test_an_apiserver_may_have_an_ipv6_address(pod: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    client = await connect()
    assert client.url == "https://[fd00::1]:443"
    await client.close()


async def test_a_given_kubeconfig_wins_over_the_pods_own(pod: Path, tmp_path: Path):
    client = await connect(kubeconfig(tmp_path / "config"))
    assert (client.url, await token(client)) == ("https://127.0.0.1:6443", "Bearer secret")
    await client.close()


async def test_kubeconfigs_are_found_as_kubectl_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "home" / ".kube").mkdir(parents=True)
    at_home = kubeconfig(tmp_path / "home" / ".kube" / "config")
    assert find(None).kubeconfig == str(at_home)
    named = kubeconfig(tmp_path / "named")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'missing'}:{named}")
    client = await connect()
    assert client.place.kubeconfig == f"{tmp_path / 'missing'}:{named}"
    assert client.url == "https://127.0.0.1:6443"
    await client.close()


async def test_without_any_one_line_says_what_was_looked_for(tmp_path: Path):
    with pytest.raises(ClusterUnknown) as error:
        await connect()
    assert isinstance(error.value, SourceUnavailable)  # what ends a program that cannot start
    assert str(error.value) == (
        "no cluster: this is no pod with a ServiceAccount, and there is no kubeconfig at "
        f"{tmp_path / 'home' / '.kube' / 'config'}"
    )
    with pytest.raises(ClusterUnknown, match="missing: no such file"):
        await connect(tmp_path / "missing")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "[]",
        "{",
        "\x00",
        "a: b",
        "current-context: c",
        "{current-context: c, contexts: 3, clusters: []}",
        "{current-context: c, contexts: [{name: c, context: {cluster: c}}], clusters: [{name: c}]}",
        "{current-context: c, contexts: [{name: c, context: {cluster: d}}], clusters: [{name: c, cluster: {}}]}",
    ],
)
async def test_a_wrong_kubeconfig_is_one_line(text: str, tmp_path: Path):
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(ClusterUnknown) as error:
        await connect(path)
    assert str(error.value).startswith(f"kubeconfig {path}: ")
    assert str(error.value).isprintable()


async def test_files_that_a_kubeconfig_names_must_be_there(tmp_path: Path):
    path = kubeconfig(tmp_path / "config", **{"client-certificate": "missing.pem", "client-key": "missing.key"})
    with pytest.raises(ClusterUnknown, match=r"missing\.pem"):
        await connect(path)
    with pytest.raises(ClusterUnknown, match="No such file"):
        await connect(kubeconfig(tmp_path / "config", tokenFile=str(tmp_path / "missing")))


async def test_a_pod_without_a_token_is_one_line(pod: Path):
    (pod / "token").write_text("\n")
    with pytest.raises(ClusterUnknown, match="the token is empty"):
        await connect()
    (pod / "token").write_text("t")
    (pod / "ca.crt").write_text("no certificate")
    with pytest.raises(ClusterUnknown, match="the ServiceAccount in "):
        await connect()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_tokens_file_is_read_again_every_minute(pod: Path, tmp_path: Path):
    (tmp_path / "token").write_text("first\n")
    for place in (None, kubeconfig(tmp_path / "config", tokenFile=str(tmp_path / "token"))):
        file = tmp_path / "token" if place else pod / "token"
        clock = Clock()
        client = await connect(place, clock)
        file.write_text("second\n")
        clock.now = module.REREAD - 1
        assert await token(client) == "Bearer first"
        clock.now = module.REREAD + 1
        assert await token(client) == "Bearer second"
        file.write_text("")
        clock.now = 2 * module.REREAD + 2
        assert await token(client) == "Bearer second"  # half a file takes nothing away
        assert "the token is empty" in client.refused
        await client.close()


async def test_another_authority_is_taken_without_a_restart(pod: Path):
    client = await connect()
    before = client.rest_client
    await client.reread()
    assert client.rest_client is before
    Authority().write(pod, "other")
    (pod / "other.pem").rename(pod / "ca.crt")
    await client.reread()
    assert client.rest_client is not before
    await client.close()


async def test_a_token_that_fits_into_no_header_is_one_line_and_the_last_good_one_stays(pod: Path):
    """Each request would fail else, in a way that ends the program."""
    time = [0.0]
    client = await connect(now=lambda: time[0])
    before = await token(client)
    (pod / "token").write_text("one\ntwo\n")
    time[0] += module.REREAD + 1
    assert await token(client) == before
    assert client.refused
    assert "the token is more than one line" in client.refused
    await client.close()
    with pytest.raises(ClusterUnknown, match="more than one line"):
        await connect()


async def test_a_program_that_never_gives_credentials_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All requests wait for who reads the credentials anew, and would for ever."""

    async def never(*_: object, **__: object) -> None:
        # What the library does with a kubeconfig's program, which it would leave behind in this process.
        await asyncio.Event().wait()

    monkeypatch.setattr(module, "READ_SECONDS", 0.05)
    monkeypatch.setattr(module, "load_kube_config", never)
    with pytest.raises(ClusterUnknown, match=r"config: its credentials are not there after 0\.05 s"):
        await connect(kubeconfig(tmp_path / "config", token="one"))
