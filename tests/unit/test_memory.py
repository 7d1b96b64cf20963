"""Which policies are remembered, and from which files they may come back."""

from __future__ import annotations

import pytest
import yaml

from tests.support.documents import backend, isvc, policy, split
from tests.unit.pipeline.recorder import Run
from translator.objects import Ref
from xds.memory import Memory
from xds.server import Server
from xds.session import Terms
from xds.types import ResourceType
from xds.wire.resource import resource
from xdserve.memory import LastGood, file_of
from xdserve.settings import Settings
from xdserve.sources import Broken, Gone
from xdserve.sources.files import Files, unreadable
from xdserve.store import Store

IRIS = Ref("serving.kserve.io", "InferenceService", "models", "iris")
POLICY = Ref("xdserve.io", "TrafficPolicy", "models", "iris")


class Program(Run):
    """A pipeline on files, with a memory."""

    def __init__(self, folder, **settings):
        super().__init__()
        self.files = Files()
        self.server = Server(Terms(identifier="test", linger=1), None)
        chosen = Settings(state_directory=folder, **settings)
        self.last_good = LastGood(chosen, self.server, self.pipeline, self.files)
        self.last_good.open()

    def reads(self, **texts):
        """Files by name without ending; None is one that is gone. Gives what the memory adds."""
        changes = []
        for name, text in texts.items():
            content = text if text is None or isinstance(text, str) else yaml.safe_dump_all(text)
            changes += self.files.update(f"a/{name}.yaml", content and content.encode()).changes
        added = self.last_good.unread()
        self.apply([*changes, *added])
        return added

    def connects(self, gateway):
        """An Envoy of the gateway comes; gives what makes it go."""
        known = self.server._gateway(gateway)
        known.connect(1, node_id="envoy")
        return lambda: known.leave(1, lost=False)

    async def ends(self):
        await self.last_good.close()


def shares(weight):
    return [policy(split=split(predictor=100 - weight, v2=weight))]


MODELS = [*backend("iris-predictor", 1), *backend("iris-v2-predictor", 2)]
SERVICE = [isvc(canary=[{"predictor": {"name": "v2"}, "trafficPercent": 10}]), *MODELS]
OWN, IN_FORCE = {"predictor": 90, "v2": 10}, {"predictor": 60, "v2": 40}
NO_YAML = "spec: [half"


@pytest.fixture
async def program(tmp_path):
    """Starts programs, one after the other; one with a policy has run."""
    running = []

    async def start(**settings):
        for one in running:
            await one.ends()
        running.append(Program(tmp_path, **settings))
        return running[-1]

    first = await start()
    first.reads(iris=SERVICE, policy=shares(40))
    yield start
    for one in running:
        await one.ends()


async def test_while_its_file_cannot_be_read_a_policy_stays(program):
    again = await program()
    (added,) = again.reads(iris=SERVICE, policy=NO_YAML)
    assert isinstance(added, Broken)
    assert again.split("models/iris") == IN_FORCE
    assert again.reads(policy=shares(30)) == []
    assert again.split("models/iris") == {"predictor": 70, "v2": 30}
    again.reads(policy=NO_YAML)
    assert again.split("models/iris") == {"predictor": 70, "v2": 30}


@pytest.mark.parametrize("text", [None, SERVICE[1:2], "# nothing\n---\n"])
async def test_when_the_file_is_read_or_gone_without_it_it_is_gone(program, text):
    again = await program()
    again.reads(iris=SERVICE, policy=NO_YAML)
    assert again.reads(policy=text) == [Gone(POLICY)]
    assert again.split("models/iris") == OWN
    assert again.reads(policy=NO_YAML) == []
    third = await program()
    assert third.reads(iris=SERVICE, policy=NO_YAML) == []


async def test_another_file_that_cannot_be_read_is_no_reason(program):
    again = await program()
    assert again.reads(iris=SERVICE, other=NO_YAML) == [Gone(POLICY)]
    assert again.split("models/iris") == OWN


async def test_a_directory_that_cannot_be_listed_stands_for_its_files(program):
    again = await program()
    again.files.apply(unreadable("a", "cannot be listed: Permission denied"))
    (added,) = again.reads(iris=SERVICE)
    assert isinstance(added, Broken)


async def test_a_file_that_is_mended_by_halves_keeps_it(program):
    """It reads, but for the policy: that is known to be broken now."""
    again = await program()
    again.reads(iris=SERVICE, policy=NO_YAML)
    assert again.reads(policy=[policy(split="half")]) == []
    assert again.split("models/iris") == IN_FORCE


async def test_a_restart_that_finds_nothing_new_writes_nothing(program, tmp_path):
    again = await program()
    (file,) = tmp_path.glob("*.sqlite")
    before = file.read_bytes()
    again.reads(iris=SERVICE, policy=shares(40))
    again.last_good.settle(again.pipeline.owners)
    await again.ends()
    assert file.read_bytes() == before


async def test_switched_off_it_knows_and_keeps_nothing(program):
    again = await program(last_good=False)
    assert again.reads(iris=SERVICE, policy=NO_YAML) == []
    assert again.split("models/iris") == OWN
    again.last_good.settle(again.pipeline.owners)
    third = await program()
    third.reads(iris=SERVICE, policy=NO_YAML)
    assert third.split("models/iris") == IN_FORCE


async def test_what_is_no_more_is_forgotten_as_soon_as_all_could_be_read(program):
    again = await program()
    again.reads(other=NO_YAML, policy=NO_YAML)
    again.last_good.settle(again.pipeline.owners)
    assert again.pipeline.accepted(IRIS)
    again.reads(other=None, policy=shares(40))
    again.last_good.settle(again.pipeline.owners)
    assert again.pipeline.accepted(IRIS) is None


async def test_gateways_without_service_are_forgotten_when_all_could_be_read_and_their_envoys_have_left(tmp_path):
    said = Memory(type=ResourceType.CLUSTER, name="c", good=(resource(ResourceType.CLUSTER, "c", b"c"),), refused=())
    store = Store.open(file_of(Settings(state_directory=tmp_path)))
    store.save([("models/iris", [said]), ("models/gone", [said]), ("models/used", [said])])
    store.close()
    again = Program(tmp_path)
    leave = again.connects("models/used")

    def settled():
        again.last_good.settle(again.pipeline.owners)
        return {name for name in ("models/iris", "models/gone", "models/used") if again.server.scope(name) is not None}

    again.reads(other=NO_YAML, iris=SERVICE)
    assert settled() == {"models/iris", "models/gone", "models/used"}
    again.reads(other=None)
    assert settled() == {"models/iris", "models/used"}
    leave()
    assert settled() == {"models/iris"}
    await again.ends()


def test_each_source_has_a_file_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {
        name: file_of(Settings(source=source, state_directory=tmp_path))
        for name, source in {"one": "one", "two": "two", "again": tmp_path / "one", "slash": "one/"}.items()
    }
    assert files["one"] == files["again"] == files["slash"] != files["two"]
    assert {file.parent for file in files.values()} == {tmp_path}
