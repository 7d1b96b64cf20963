"""The limit is exact, the queue is in order, and nothing is lost, whatever leaves when."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.router.rig import cancelled
from xdserve.router.limiter import Full, Limiter


class Guest:
    """One who wants a place, stays until told to go, and writes down when it came in."""

    def __init__(self, limiter, log, name):
        self.leave = asyncio.Event()
        self.task = asyncio.ensure_future(self._stay(limiter, log, name))

    async def _stay(self, limiter, log, name):
        async with limiter.place():
            log.append(name)
            await self.leave.wait()


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def handed_over(limiter, waiting):
    """Run until so many wait, and not one turn of the loop longer."""
    for _ in range(10):
        if limiter.waiting == waiting:
            return
        await asyncio.sleep(0)
    pytest.fail("no place was handed over")


async def test_lets_as_many_run_as_it_says_and_keeps_the_others_in_order():
    limiter, log = Limiter(2, 10), []
    guests = [Guest(limiter, log, name) for name in range(6)]
    await settle()
    assert (log, limiter.running, limiter.waiting) == ([0, 1], 2, 4)
    for guest in guests:
        guest.leave.set()
        await settle()
    assert (log, limiter.running, limiter.waiting, limiter.peak) == ([0, 1, 2, 3, 4, 5], 0, 0, 2)


@pytest.mark.parametrize("queue", [0, 1, 3])
async def test_refuses_at_once_who_would_be_one_too_many(queue):
    limiter, log = Limiter(1, queue), []
    guests = [Guest(limiter, log, name) for name in range(1 + queue)]
    await settle()
    assert limiter.full
    with pytest.raises(Full):
        async with limiter.place():
            pytest.fail("let in")
    await cancelled(*(guest.task for guest in guests))
    assert (limiter.running, limiter.waiting, limiter.full) == (0, 0, False)


async def test_who_leaves_the_queue_frees_his_place_in_it():
    limiter, log = Limiter(1, 1), []
    first, second = Guest(limiter, log, "first"), Guest(limiter, log, "second")
    await settle()
    await cancelled(second.task)
    third = Guest(limiter, log, "third")
    await settle()
    assert limiter.waiting == 1
    first.leave.set()
    await settle()
    assert log == ["first", "third"]
    await cancelled(third.task)


async def test_a_place_handed_to_one_who_just_left_goes_to_the_next():
    limiter, log = Limiter(1, 5), []
    first, second, third = (Guest(limiter, log, name) for name in ("first", "second", "third"))
    await settle()
    first.leave.set()
    await handed_over(limiter, 1)
    # Now the place is the second's, but its task has not run yet.
    second.task.cancel()
    await settle()
    assert log == ["first", "third"]
    assert limiter.running == 1
    third.leave.set()
    await settle()
    assert limiter.running == 0


async def test_a_newcomer_cannot_overtake_a_place_that_is_handed_over():
    limiter, log = Limiter(1, 5), []
    first, second = Guest(limiter, log, "first"), Guest(limiter, log, "second")
    await settle()
    first.leave.set()
    await handed_over(limiter, 0)
    third = Guest(limiter, log, "third")
    await settle()
    assert log == ["first", "second"]
    await cancelled(second.task)
    await settle()
    assert log == ["first", "second", "third"]
    await cancelled(third.task)


async def test_an_error_inside_frees_the_place():
    limiter = Limiter(1, 0)
    for _ in range(2):
        with pytest.raises(ValueError, match="inside"):
            async with limiter.place():
                raise ValueError("inside")
    assert limiter.running == 0


async def test_all_who_wait_leave_while_the_place_gets_free():
    limiter, log = Limiter(1, 5), []
    first, *others = (Guest(limiter, log, name) for name in range(4))
    await settle()
    for guest in others:
        guest.task.cancel()
    first.leave.set()
    await asyncio.gather(*(guest.task for guest in (first, *others)), return_exceptions=True)
    assert (limiter.running, limiter.waiting, log) == (0, 0, [0])


@pytest.mark.parametrize(("limit", "queue"), [(0, 1), (-1, 1), (1, -1)])
def test_a_limit_that_lets_nothing_through_is_refused(limit, queue):
    with pytest.raises(ValueError, match="allowed 1 or more and 0 or more"):
        Limiter(limit, queue)


class LimiterMachine(RuleBasedStateMachine):
    """Guests come, finish and leave in any order, also several before anything else runs; a list says what must be."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.limiter, self.log = Limiter(2, 3), []
        self.guests = {}
        self.inside, self.queue, self.refused = [], [], []
        self.names = iter(range(10_000))
        self.entered = []

    def teardown(self):
        for guest in self.guests.values():
            guest.task.cancel()
        self.loop.run_until_complete(settle())
        assert (self.limiter.running, self.limiter.waiting) == (0, 0)
        self.loop.close()

    def _run(self, act):
        async def inside():
            act()
            await settle()

        self.loop.run_until_complete(inside())

    def _come(self):
        name = next(self.names)
        self.guests[name] = Guest(self.limiter, self.log, name)
        if len(self.inside) < 2:
            self._enter(name)
        elif len(self.queue) < 3:
            self.queue.append(name)
        else:
            self.refused.append(name)

    def _enter(self, name):
        self.inside.append(name)
        self.entered.append(name)

    def _free(self):
        if self.queue and len(self.inside) < 2:
            self._enter(self.queue.pop(0))

    @rule(count=st.integers(1, 7))
    def come(self, count):
        self._run(lambda: [self._come() for _ in range(count)])

    @precondition(lambda self: self.inside)
    @rule(data=st.data(), gone=st.booleans())
    def finish(self, data, gone):
        """One who runs ends: well, or because the client left."""
        name = data.draw(st.sampled_from(self.inside))
        self.inside.remove(name)
        self._run(self.guests[name].task.cancel if gone else self.guests[name].leave.set)
        self._free()

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def leave_the_queue(self, data):
        gone = data.draw(st.lists(st.sampled_from(self.queue), min_size=1, unique=True))
        for name in gone:
            self.queue.remove(name)
        self._run(lambda: [self.guests[name].task.cancel() for name in gone])

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def finish_and_leave_at_once(self, data):
        """A place gets free in the moment in which some of those who wait for it leave."""
        name = data.draw(st.sampled_from(self.inside))
        gone = data.draw(st.lists(st.sampled_from(self.queue), min_size=1, unique=True))
        self.inside.remove(name)
        for each in gone:
            self.queue.remove(each)

        def act():
            self.guests[name].leave.set()
            for each in gone:
                self.guests[each].task.cancel()

        self._run(act)
        self._free()

    @invariant()
    def as_the_list_says(self):
        assert self.log == self.entered
        assert (self.limiter.running, self.limiter.waiting) == (len(self.inside), len(self.queue))
        assert self.limiter.peak <= 2
        for name in self.refused:
            assert isinstance(self.guests[name].task.exception(), Full)


TestLimiterMachine = LimiterMachine.TestCase
TestLimiterMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
