"""Who makes and renews the Secret of the certificate, and who only reads it."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from bootstrap.address import Address
from tests.support import certificates
from xdserve.kube.authority import SECRET, Authority, CertificateFiles, names_of
from xdserve.kube.calls import CallError
from xdserve.kube.material import SERVER_LIFE

START = datetime(2030, 1, 1, tzinfo=UTC)


class Apiserver:
    """Holds Secrets of one namespace, and counts writes."""

    def __init__(self):
        self.secrets = {}
        self.writes = []
        self.fails = None

    async def __call__(self, method, path, body=None, **rest):
        if self.fails:
            raise self.fails
        if method == "GET":
            name = path.rpartition("/")[2]
            if name not in self.secrets:
                raise CallError(404, "not found")
            return self.secrets[name]
        name = body["metadata"]["name"]
        held = self.secrets.get(name)
        version = body["metadata"].get("resourceVersion")
        if (method == "POST" and held) or (method == "PUT" and version != held["metadata"]["resourceVersion"]):
            raise CallError(409, "conflict")
        self.writes.append((method, name))
        metadata = body["metadata"] | {"resourceVersion": str(len(self.writes))}
        self.secrets[name] = body | {"metadata": metadata}
        return self.secrets[name]


class World:
    def __init__(self, folder):
        self.apiserver, self.folder, self.now = Apiserver(), folder, START
        self.leads = set()
        self.told = []

    def replica(self, name, **more):
        return Authority(
            self.apiserver, "system", ["xdserve.system.svc"], self.folder / name,
            held=lambda: name in self.leads, changed=lambda: self.told.append(name), now=lambda: self.now, **more,
        )  # fmt: skip


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


async def test_whoever_comes_first_makes_it_and_all_have_the_same(world):
    first, second = world.replica("a"), world.replica("b")
    await first.ready()
    await second.ready()
    assert world.apiserver.writes == [("POST", SECRET)]
    assert first.certificate.read_text() == second.certificate.read_text()
    assert first.bundle == second.bundle
    assert "PRIVATE KEY" in first.key.read_text()
    assert first.key.stat().st_mode & 0o077 == 0
    assert world.told == ["a", "b"]


async def test_who_is_second_to_make_it_takes_the_firsts(world):
    first, second = world.replica("a"), world.replica("b")
    await first.ready()
    held = world.apiserver.secrets.pop(SECRET)

    async def late(method, path, body=None, **rest):
        if method == "POST":
            world.apiserver.secrets[SECRET] = held
        return await Apiserver.__call__(world.apiserver, method, path, body)

    second._call = late
    await second.ready()
    assert second.bundle == first.bundle


async def test_the_leader_alone_renews(world):
    first, second = world.replica("a"), world.replica("b")
    await first.ready()
    await second.ready()
    before = first.certificate.read_text()
    world.now += SERVER_LIFE * 0.7
    await first.look()
    await second.look()
    assert first.certificate.read_text() == before
    world.leads = {"b"}
    await second.look()
    assert second.certificate.read_text() != before
    await first.look()
    assert first.certificate.read_text() == second.certificate.read_text()
    assert [method for method, _ in world.apiserver.writes] == ["POST", "PUT"]
    assert first.bundle == second.bundle
    assert world.told == ["a", "b"]  # the same authorities


async def test_nothing_is_written_while_nothing_is_due(world):
    world.leads = {"a"}
    replica = world.replica("a")
    await replica.ready()
    inode = replica.certificate.stat().st_ino
    for _ in range(5):
        world.now += timedelta(days=1)
        await replica.look()
    assert len(world.apiserver.writes) == 1
    assert replica.certificate.stat().st_ino == inode


async def test_other_authorities_are_told(world):
    world.leads = {"a"}
    replica = world.replica("a")
    await replica.ready()
    before = replica.bundle
    while replica.bundle == before:
        world.now += timedelta(days=30)
        assert world.now < START + timedelta(days=800)
        await replica.look()
    assert world.told == ["a", "a"]
    assert before in replica.bundle


@pytest.mark.parametrize("error", [CallError(0, "gone"), CallError(403, "forbidden")])
async def test_without_the_apiserver_what_there_is_stays(world, error):
    replica = world.replica("a")
    await replica.ready()
    world.apiserver.fails = error
    assert await replica.look()
    assert "CERTIFICATE" in replica.certificate.read_text()
    assert not await world.replica("b").look()


async def test_a_broken_secret_is_not_written_over(world):
    world.leads = {"a"}
    replica = world.replica("a")
    await replica.ready()
    for broken in ({"tls.crt": ""}, {"tls.key": "****"}, {"authorities.key": base64.b64encode(b"x").decode()}):
        held = world.apiserver.secrets[SECRET]
        world.apiserver.secrets[SECRET] = held | {"data": held["data"] | broken}
        assert await replica.look()
        assert not await world.replica("b").look()
        world.apiserver.secrets[SECRET] = held
    assert len(world.apiserver.writes) == 1


@pytest.mark.parametrize("emptied", [{}, {"data": {}}, {"data": None}])
async def test_a_broken_secret_is_filled_anew_when_it_has_been_emptied(world, emptied):
    """As the error says: xdserve may fill its Secret, and may not make one."""
    replica = world.replica("a")
    await replica.ready()
    before, held = replica.bundle, world.apiserver.secrets[SECRET]
    world.apiserver.secrets[SECRET] = held | {"data": held["data"] | {"tls.key": "****"}}
    with structlog.testing.capture_logs() as logged:
        await replica.look()
    command = f'kubectl -n system patch secret {SECRET} --type=json -p \'[{{"op": "remove", "path": "/data"}}]\''
    assert command in logged[0]["cause"]
    bare = {name: value for name, value in held.items() if name != "data"}
    world.apiserver.secrets[SECRET] = bare | emptied
    assert await replica.look()
    assert world.apiserver.writes == [("POST", SECRET), ("PUT", SECRET)]
    assert replica.bundle != before


async def test_an_empty_secret_is_filled_by_whoever_comes_first(world):
    """The chart makes it: xdserve may not create any."""
    world.apiserver.secrets[SECRET] = {
        "metadata": {"name": SECRET, "resourceVersion": "1", "labels": {"helm": "x"}}, "type": "Opaque",
    }  # fmt: skip
    await world.replica("a").ready()
    assert world.apiserver.writes == [("PUT", SECRET)]
    assert world.apiserver.secrets[SECRET]["metadata"]["labels"] == {"helm": "x"}


def test_files_that_are_given_are_followed(tmp_path):
    told = []
    paths = [tmp_path / name for name in ("tls.crt", "tls.key", "ca.crt")]
    given = CertificateFiles(*paths, changed=lambda: told.append(given.bundle))
    assert not given.look()
    for number in (1, 2):
        text = certificates.Authority(str(number)).certificate.decode()
        paths[2].write_text(text)
        for _ in range(2):
            assert given.look()
        assert given.bundle == text
        assert len(told) == number
    for wrong in (b"", b"nonsense", b"\xff"):
        paths[2].write_bytes(wrong)
        assert given.look()
        assert given.bundle == text


def test_names_of_a_service_and_of_others():
    assert names_of(Address("xdserve.system.svc", 1), "cluster.local") == (
        "xdserve.system", "xdserve.system.svc", "xdserve.system.svc.cluster.local",
    )  # fmt: skip
    assert names_of(Address("xdserve.example.com", 1), "cluster.local") == ("xdserve.example.com",)
    assert names_of(Address("10.0.0.1", 1), "cluster.local") == ("10.0.0.1",)


async def test_an_empty_secret_that_changes_meanwhile_is_filled_later(world):
    """By a chart that is upgraded, say: its labels change, and it is still empty."""
    replica, empty = world.replica("a"), {"metadata": {"name": SECRET, "resourceVersion": "7"}}

    class Changing(dict):
        def get(self, name, default=None):
            found = super().get(name, default)
            return found and {"metadata": {"name": SECRET, "resourceVersion": "8"}}

    world.apiserver.secrets = Changing({SECRET: empty})
    assert not await replica.look()
    world.apiserver.secrets = {SECRET: empty}
    assert await replica.look()


async def test_a_full_disk_keeps_the_certificate_that_there_is(world, monkeypatch):
    replica = world.replica("a")
    world.leads.add("a")
    await replica.ready()
    before = replica.certificate.read_text()
    world.now += SERVER_LIFE

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.write_text", full)
        assert await replica.look()
    assert replica.certificate.read_text() == before
    assert await replica.look()
    assert replica.certificate.read_text() != before
    assert len([one for one in replica.certificate.parent.parent.iterdir() if not one.is_symlink()]) == 1
