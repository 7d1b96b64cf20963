"""Waiting ends with the value, or says what it waited for."""

from __future__ import annotations

import pytest

from tests.support.wait import wait_until


async def test_gives_the_first_true_value():
    values = iter([None, 0, "", "there"])
    assert await wait_until(lambda: next(values)) == "there"


async def test_the_condition_may_be_async():
    values = iter([False, True])

    async def condition():
        return next(values)

    assert await wait_until(condition)


async def test_says_what_did_not_come_and_what_was_seen_last():
    with pytest.raises(TimeoutError, match=r"waited 0\.02 s for the end; the last answer was \[\]"):
        await wait_until(list, seconds=0.02, what="the end")
