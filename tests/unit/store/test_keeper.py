"""What scopes remember is written beside the event loop, and nothing is lost when that fails or is cut short."""

from __future__ import annotations

import asyncio
import threading

import pytest
from structlog.testing import capture_logs

from tests.support.documents import policy
from tests.support.memories import files, good, refusal
from tests.support.wait import wait_until
from translator.objects import Ref, parse
from translator.planners.components import ActiveComponents
from xds.scope import Scope
from xds.types import ResourceType
from xdserve.store import Accepted, Keeper

ROUTE, CLUSTER = ResourceType.ROUTE, ResourceType.CLUSTER


def scope_with(*put):
    scope = Scope("models/iris")
    scope.update(put)
    return scope


def acknowledged(scope, *put):
    scope.update(put)
    for one in put:
        scope.acknowledge(one.type, {one.name: one.version})


class Gateways(dict):
    """The scopes of a server."""

    def __call__(self):
        return self


class Policies(dict):
    """What is in force, by target; all that was put is changed."""

    def __init__(self):
        self.changed = set()

    def __setitem__(self, name, found):
        target = Ref("serving.kserve.io", "InferenceService", "models", name)
        super().__setitem__(target, found)
        self.changed.add(target)

    def drain(self):
        changed, self.changed = self.changed, set()
        return changed

    def accepted(self, target):
        return self.get(target)

    def active(self, target):
        return ActiveComponents("predictor", target.name) if self.get(target) else None


def in_force(name="iris", file="policy.yaml"):
    return Accepted(parse(policy(name)), file)


@pytest.fixture
async def keep(reopen):
    """Makes keepers over a store; closed at the end."""
    keepers = []

    def make(scopes, **more):
        keepers.append(Keeper(reopen(), scopes, **more))
        return keepers[-1]

    yield make
    for keeper in keepers:
        await keeper.close()


async def test_what_envoys_say_is_there_after_a_restart(keep, reopen):
    scope = scope_with(good("bad", b"x"))
    acknowledged(scope, good(), good("stable", type_=CLUSTER))
    scope.refuse(ROUTE, "bad", refusal(version=good("bad", b"x").version))
    keeper = keep(Gateways({"models/iris": scope}))
    await keeper.flush()
    await keeper.close()
    again = Scope("models/iris")
    again.restore(reopen().load()["models/iris"])
    again.update([good(), good("bad", b"x")])
    assert [one.name for one in again.rejections()] == ["bad"]
    assert again.get(ROUTE, "bad") is None
    assert again.get(ROUTE, "iris") == good()


async def test_a_reconnect_after_a_restart_writes_nothing(keep, reopen, path):
    scope = Scope("models/iris")
    acknowledged(scope, good(), good("stable", type_=CLUSTER))
    keeper = keep(Gateways({"models/iris": scope}))
    await keeper.flush()
    await keeper.close()
    store = reopen()
    again = Scope("models/iris")
    again.restore(store.load()["models/iris"])
    before = files(path)
    keeper = Keeper(store, Gateways({"models/iris": again}))
    acknowledged(again, good(), good("stable", type_=CLUSTER))
    assert await keeper.flush()
    assert keeper.written == 0
    assert files(path) == before
    await keeper.close()


async def test_it_writes_while_it_runs_and_stops_when_cancelled(keep):
    scope = Scope("models/iris")
    keeper = keep(Gateways({"models/iris": scope}), interval=0.01)
    running = asyncio.create_task(keeper.run())
    acknowledged(scope, good())
    await wait_until(lambda: keeper.written)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_gateway_that_is_forgotten_is_deleted_and_may_come_again(keep, reopen):
    gateways = Gateways()
    for name in ("a", "b", "c"):
        gateways[name] = Scope(name)
        acknowledged(gateways[name], good())
    keeper = keep(gateways)
    await keeper.flush()
    acknowledged(gateways["a"], good(body=b"two"))
    del gateways["a"]
    keeper.forget("a")
    keeper.forget("b")
    gateways["b"] = Scope("b")
    acknowledged(gateways["b"], good("new"))
    await keeper.close()
    found = reopen().load()
    assert {gateway: [one.name for one in kept] for gateway, kept in found.items()} == {"b": ["new"], "c": ["iris"]}


async def test_close_writes_what_is_left(keep, reopen):
    gateways = Gateways()
    for n in range(3000):
        gateways[f"g{n}"] = Scope(f"g{n}")
        acknowledged(gateways[f"g{n}"], good())
    keeper = keep(gateways)
    await keeper.close(30)
    assert keeper.pending == 0
    assert len(reopen().load()) == 3000


async def test_a_wait_that_is_cancelled_loses_nothing(keep, reopen):
    gateways = Gateways({f"g{n}": Scope(f"g{n}") for n in range(300)})
    keeper = keep(gateways)
    for round_ in range(20):
        for scope in gateways.values():
            acknowledged(scope, good(body=b"%d" % round_))
        waiting = asyncio.create_task(keeper.flush())
        for _ in range(round_):
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
    await keeper.close(30)
    found = {one.good[0].body for kept in reopen().load().values() for one in kept}
    assert found == {b"19"}


async def test_a_full_disk_is_told_once_and_what_failed_is_tried_again(keep, reopen):
    scope = Scope("models/iris")
    keeper = keep(Gateways({"models/iris": scope}))
    database = keeper._store._database
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    with capture_logs() as lines:
        for n in range(3):
            acknowledged(scope, good(body=b"%d" % n * 100_000))
            assert not await keeper.flush()
    assert [(line["event"], line["kind"]) for line in lines] == [("last good versions not written", "SQLITE_FULL")]
    assert (keeper.failures, keeper.pending) == (3, 1)
    database.execute("PRAGMA max_page_count = 100000")
    with capture_logs() as lines:
        assert await keeper.flush()
    assert [line["event"] for line in lines] == ["last good versions written again"]
    await keeper.close()
    ((found,),) = reopen().load().values()
    assert [one.body[:1] for one in found.good] == [b"2", b"1"]


async def test_a_fault_of_ours_stays_in_the_store(keep):
    scope = Scope("models/iris")
    acknowledged(scope, good())
    keeper = keep(Gateways({"models/iris": scope}))
    scope.refuse(ROUTE, "iris", refusal(version=good().version, code=2**70))
    with capture_logs() as lines:
        assert not await keeper.flush()
    assert [line["kind"] for line in lines] == ["OverflowError"]
    assert keeper.pending == 1


async def test_a_store_that_hangs_is_given_up_at_the_deadline(keep):
    """A disk that does not answer: the end of the program does not wait for it."""
    scope = Scope("models/iris")
    acknowledged(scope, good())
    keeper = keep(Gateways({"models/iris": scope}))
    answers = threading.Event()
    keeper._thread.submit(answers.wait, 30)
    with capture_logs() as lines:
        await keeper.close(0.05)
    answers.set()
    keeper._thread.shutdown()  # it closes the store when it comes back
    assert [(line["event"], line["names"]) for line in lines] == [("last good versions lost", 1)]


async def test_gathering_leaves_the_loop_free(keep):
    scope = Scope("models/iris")
    acknowledged(scope, *(good(f"r{n}") for n in range(5000)))
    keeper = keep(Gateways({"models/iris": scope}))
    flushing = asyncio.create_task(keeper.flush())
    turns = 0
    while not flushing.done():
        await asyncio.sleep(0)
        turns += 1
    assert await flushing
    assert keeper.written == 10_000
    assert turns > 10


async def test_what_is_in_force_is_written_as_it_is_then_and_deleted(keep, reopen):
    policies = Policies()
    policies["iris"], policies["wine"] = in_force(), in_force("wine")
    keeper = keep(Gateways(), decided=policies)
    assert await keeper.flush()
    assert (keeper.written, keeper.pending) == (4, 0)
    assert await keeper.flush()
    assert keeper.written == 4
    policies["wine"] = None
    policies["iris"] = in_force(file="moved.yaml")
    await keeper.close()
    store = reopen()
    assert [(target.name, found) for target, found in store.policies().items()] == [
        ("iris", in_force(file="moved.yaml"))
    ]
    assert [found.predictor for found in store.active().values()] == ["iris"]


async def test_policies_that_could_not_be_written_are_tried_again(keep, reopen):
    policies = Policies()
    for number in range(1500):
        policies[f"iris-{number}"] = in_force()
    keeper = keep(Gateways(), decided=policies)
    database = keeper._store._database
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages + 1}")
    with capture_logs():
        assert not await keeper.flush()
    assert keeper.pending == 1500
    database.execute("PRAGMA max_page_count = 100000")
    with capture_logs():
        assert await keeper.flush()
    await keeper.close()
    assert len(reopen().policies()) == 1500
