"""What Envoys said comes back after a restart, written once; secrets are never written."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.memories import ORIGIN, files, good, memory, refusal, table, whole
from translator.objects.ref import Origin, Ref
from xds.memory import Cause, Memory, Refusal
from xds.types import ResourceType
from xds.wire.resource import Resource
from xdserve.store import Store
from xdserve.store.rows import LONGEST_MESSAGE, TYPES

ROUTE, CLUSTER, SECRET = ResourceType.ROUTE, ResourceType.CLUSTER, ResourceType.SECRET


# -- What comes back -------------------------------------------------------------------------------------------------


def test_what_was_good_and_what_was_refused_come_back(reopen):
    first = good(uses=frozenset({"a", "b"}))
    second = good(body=b"two")
    cluster = good("stable", type_=CLUSTER, slow=True)
    vacant = good("stable", type_=ResourceType.ENDPOINT, vacant=True, origin=None)
    said = {
        "models/iris": [
            memory(second, first, refused=(refusal(), refusal(version="f01", cause=Cause.QUARANTINED))),
            memory(cluster, type_=CLUSTER, name="stable"),
            memory(vacant, type_=ResourceType.ENDPOINT, name="stable"),
        ],
        "models/other": [memory(refused=(refusal(),))],
    }
    reopen().save(said.items())
    assert whole(reopen().load()) == whole(said)


def test_an_origin_comes_back_as_one_that_prints_the_same(reopen):
    reopen().save([("models/iris", [memory(good())])])
    ((found,),) = reopen().load().values()
    assert found.good[0].origin == ORIGIN
    assert str(found.good[0].origin) == "InferenceService models/iris spec.predictor"


def test_what_is_no_origin_of_the_translator_is_not_kept(reopen):
    reopen().save([("models/iris", [memory(good(origin=object()))])])
    ((found,),) = reopen().load().values()
    assert found.good[0].origin is None


def test_every_field_of_a_resource_is_kept():
    """One that is added must be stored, and VERSION raised; then this list is to follow."""
    names = {one.name for one in dataclasses.fields(Resource)}
    assert names == {"type", "name", "version", "parts", "uses", "vacant", "slow", "origin"}
    assert {one.name for one in dataclasses.fields(Refusal)} == {"version", "code", "message", "node", "cause"}
    assert set(TYPES.values()) == set(ResourceType) - {SECRET}


# Also NUL, and halves of surrogate pairs, which UTF-8 has no form for.
any_text = st.text(st.characters(exclude_categories=()), max_size=20)
refs = st.builds(Ref, any_text, any_text, any_text, any_text)
resources = st.builds(
    Resource,
    type=st.just(ROUTE),
    name=st.just(""),
    version=any_text,
    parts=st.tuples(st.binary(max_size=40)),
    uses=st.frozensets(any_text, max_size=3),
    vacant=st.booleans(),
    slow=st.booleans(),
    origin=st.none() | st.builds(Origin, refs, any_text),
)
refusals = st.builds(
    Refusal,
    version=any_text,
    code=st.integers(-(2**31), 2**31 - 1),
    message=any_text,
    node=any_text,
    cause=st.sampled_from(Cause),
)


@st.composite
def memories_of_gateways(draw):
    keys = st.tuples(any_text, st.sampled_from(sorted(TYPES.values())), any_text)
    said = {}
    for gateway, type_, name in draw(st.sets(keys, max_size=4)):
        kept = draw(st.lists(resources, max_size=2, unique_by=lambda one: one.version))
        refused = draw(st.lists(refusals, min_size=not kept, max_size=3))
        named = tuple(dataclasses.replace(one, type=type_, name=name) for one in kept)
        said.setdefault(gateway, []).append(Memory(type=type_, name=name, good=named, refused=tuple(refused)))
    return said


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=memories_of_gateways(), second=memories_of_gateways())
def test_whatever_is_said_comes_back(tmp_path, first, second):
    directory = Path(tempfile.mkdtemp(dir=tmp_path))
    for said in first, second:
        store = Store.open(directory / "store")
        store.load()
        store.save(said.items(), forget=first)
        store.close()
    store = Store.open(directory / "store")
    found = whole(store.load())
    kept = {one.frame for found in second.values() for one in found for one in one.good}
    store.close()
    assert found == whole(second)
    assert {row[2] for row in table(directory / "store", "frames")} == kept
    shutil.rmtree(directory)


def test_a_peers_long_words_are_cut(reopen):
    reopen().save([("g", [memory(refused=(refusal(message="a" * 10_000_000),))])])
    ((found,),) = reopen().load().values()
    assert found.refused[0].message == "a" * LONGEST_MESSAGE


def test_what_is_loaded_is_given_once(reopen):
    reopen().save([("g", [memory(good())])])
    store = reopen()
    assert store.load()
    assert not store.load()


# -- What is written -------------------------------------------------------------------------------------------------


def test_what_is_known_already_is_not_written(reopen, path):
    said = [("models/iris", [memory(good(), refused=(refusal(),)), memory(name="never seen")])]
    reopen().save(said)
    store = reopen()
    before = files(path)
    assert store.save(said, forget=["unknown"]) == 0
    assert files(path) == before


def test_a_new_version_and_its_order_are_written(reopen):
    one, two, three = (good(body=body) for body in (b"1", b"2", b"3"))
    store = reopen()
    for kept in ((one,), (two, one), (one, two), (three, one)):
        store.save([("g", [memory(*kept)])])
        store = reopen()
        ((found,),) = store.load().values()
        assert found.good == kept
    assert store.save([("g", [memory(three, good(body=b"1", origin=None))])]) == 1  # the place in the objects alone


def test_equal_frames_are_kept_once_and_go_with_the_last_that_uses_them(reopen, path):
    store = reopen()
    store.save([(gateway, [memory(good(), good(body=gateway.encode()))]) for gateway in ("a", "b")])
    store = reopen()
    a, b = (found[0].good[0] for found in store.load().values())
    assert a.frame is b.frame
    for forget, left in ((["a"], 2), (["b"], 0)):
        store.save([], forget=forget)
        store.close()
        assert len(table(path, "frames")) == left
        store = reopen()


def test_a_memory_of_nothing_is_deleted(reopen, path):
    store = reopen()
    store.save([("g", [memory(good(), refused=(refusal(),))])])
    store.save([("g", [memory()])])
    store = reopen()
    assert store.load() == {}
    store.close()
    assert [table(path, name) for name in ("frames", "good", "refused")] == [[], [], []]


def test_a_save_is_all_or_nothing(reopen):
    def broken():
        yield "a", [memory(good())]
        raise OverflowError

    store = reopen()
    with pytest.raises(OverflowError):
        store.save(broken())
    store.save([("b", [memory(good())])])
    assert list(reopen().load()) == ["b"]


def test_secrets_are_never_on_the_disk(reopen, path):
    key = b"-----BEGIN PRIVATE KEY-----"
    secret = memory(good("tls", key, SECRET), refused=(refusal(message=key.decode()),), type_=SECRET, name="tls")
    store = reopen()
    store.save([("g", [secret, memory(good())])])
    written = b"".join(content for content, _ in files(path).values())
    assert good().frame in written
    store.close()
    written += b"".join(content for content, _ in files(path).values())
    assert b"PRIVATE KEY" not in written
    assert b"tls" not in written
