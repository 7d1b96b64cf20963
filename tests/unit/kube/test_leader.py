"""The election without an apiserver: who may hold the Lease, by each candidate's own clock."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.wait import wait_until
from xdserve.kube.calls import REQUEST_SECONDS
from xdserve.kube.leader import Election, Leadership, Record, Terms

TERMS = Terms(lease=15, renew=10, retry=2)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def held_by(other, version="1"):
    return Record(version, other, 15)


def test_a_lease_that_is_not_there_is_taken():
    election = Election("a", TERMS)
    election.observe(None, 100)
    assert election.due(100)
    wanted = election.wanted(NOON)
    assert (wanted.version, wanted.holder, wanted.transitions) == ("", "a", 0)
    election.written(replace(wanted, version="1"), 100)
    assert election.held(109.9)
    assert not election.held(110)


def test_a_lease_of_another_is_taken_when_it_has_not_changed_for_its_length():
    election = Election("a", TERMS)
    election.observe(held_by("b"), 100)
    election.observe(held_by("b"), 114)
    assert not election.due(114.9)
    assert election.due(115)
    assert election.wanted(NOON).transitions == 1


def test_a_change_begins_the_wait_anew():
    election = Election("a", TERMS)
    election.observe(held_by("b"), 100)
    election.observe(held_by("b", "2"), 114)
    assert not election.due(128)
    assert election.due(129)


def test_the_wait_is_as_long_as_the_holder_asked():
    election = Election("a", TERMS)
    election.observe(Record("1", "b", 60), 100)
    assert not election.due(159)
    assert election.due(160)


def test_a_released_lease_is_taken_at_once():
    election = Election("a", TERMS)
    election.observe(Record("7", "", 1), 100)
    assert election.due(100)


def test_who_reads_another_name_has_lost():
    election = Election("a", TERMS)
    election.observe(None, 100)
    election.written(replace(election.wanted(NOON), version="1"), 100)
    election.observe(held_by("b", "2"), 103)
    assert not election.held(103)


def test_an_earlier_life_of_the_same_pod_is_another():
    election = Election("pod-1/b", TERMS)
    election.observe(held_by("pod-1/a"), 100)
    assert not election.due(101)


def test_who_resigns_holds_nothing_and_leaves_the_lease_free():
    election = Election("a", TERMS)
    election.observe(None, 100)
    election.written(replace(election.wanted(NOON), version="1"), 100)
    left = election.resign()
    assert (left.version, left.holder) == ("1", "")
    assert not election.held(100)
    assert election.resign() is None


@pytest.mark.parametrize("terms", [(10, 10, 2), (15, 10, 10), (15, 10, 0)])
def test_terms_that_let_two_lead_are_refused(terms):
    with pytest.raises(ValueError, match="retry < renew < lease"):
        Terms(*terms)


class Store:
    """A Lease that refuses what was not read last, as the apiserver does."""

    def __init__(self):
        self.record = None
        self.revision = 0

    def write(self, record):
        if (self.record.version if self.record else "") != record.version:
            return None
        self.revision += 1
        self.record = replace(record, version=str(self.revision))
        return self.record


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1]),
        st.floats(0, 6),
        st.sampled_from(["well", "well", "well", "lost answer", "late answer", "no way"]),
    ),
    max_size=120,
)


@given(STEPS, st.floats(0.8, 1.2), st.floats(-1e6, 1e6))
def test_two_never_lead_whatever_is_lost_and_whatever_their_clocks_say(steps, rate, offset):
    """The second's clock has another beginning and goes up to a fifth faster or slower; answers are lost or late."""
    store, now = Store(), 0.0
    elections = [Election("a", TERMS), Election("b", TERMS)]
    clocks = [lambda: now, lambda: now * rate + offset]
    for who, pause, fate in steps:
        now += pause
        election, clock = elections[who], clocks[who]
        if fate == "no way":
            continue
        if not election.held(clock()):
            election.observe(store.record, clock())
        if election.due(clock()):
            sent = clock()
            written = store.write(election.wanted(NOON))
            now += 5 if fate == "late answer" else 0
            if written is None:
                election.observe(store.record, clock())
            elif fate != "lost answer":
                election.written(written, sent)
        assert sum(one.held(read()) for one, read in zip(elections, clocks, strict=True)) <= 1


async def test_a_leaders_request_ends_before_another_can_lead():
    """What it sends as the Lease runs out has what others wait longer than it holds on; never more than asked for."""
    now, asked = [0.0], []

    async def call(method, path, body=None, *, seconds=REQUEST_SECONDS, **more):
        asked.append((method, seconds, more))
        return {"metadata": {"resourceVersion": "1"}, "spec": (body or {}).get("spec")}

    leadership = Leadership(call, "system", "a", terms=TERMS, clock=lambda: now[0], now=lambda: NOON)
    write = leadership.bounded(call)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(leadership.run())
        await wait_until(lambda: leadership.held)
        asked.clear()
        for now[0], seconds in ((0.0, 10.0), (4.0, 10.0), (8.0, 7.0), (10.0, 5.0)):
            await write("PATCH", "/x", content_type="text/plain")
            assert asked.pop() == ("PATCH", seconds, {"content_type": "text/plain"})
        await write("GET", "/x", seconds=1.0)
        assert asked.pop()[1] == 1.0
        task.cancel()


@pytest.mark.parametrize("answer", [{}, {"kind": "Status", "metadata": {}}, {"metadata": None}])
async def test_an_answer_that_is_no_lease_ends_no_program(answer):
    """What stands before an apiserver that is away may say 200; Envoys are served all the same."""
    asked = []

    async def call(method, path, body=None, **more):
        asked.append(method)
        return answer

    leadership = Leadership(call, "system", "a", terms=Terms(lease=0.15, renew=0.1, retry=0.01))
    task = asyncio.create_task(leadership.run())
    await wait_until(lambda: len(asked) > 2 or task.done())
    assert not task.done()
    assert not leadership.held
    task.cancel()
    await asyncio.wait([task])
