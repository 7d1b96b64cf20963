"""Who is let in at which rate: new streams, without a limit of their number, and strangers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xds import admission
from xds.admission import Failures, Shares, TokenBucket


def test_a_burst_passes_and_then_the_rate():
    bucket = TokenBucket(10, 3)
    assert [bucket.take(5.0) for _ in range(5)] == [True, True, True, False, False]
    assert [bucket.take(5.1 + 0.001), bucket.take(5.1 + 0.001)] == [True, False]
    assert [bucket.take(99.0) for _ in range(5)] == [True, True, True, False, False]


def test_a_clock_that_goes_back_gives_nothing():
    bucket = TokenBucket(1, 1)
    assert bucket.take(10.0)
    assert not bucket.take(9.0)
    assert not bucket.take(9.5)
    assert bucket.take(10.1)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0.5), (float("nan"), 1)])
def test_a_bucket_that_lets_nothing_through_is_an_error(rate, burst):
    with pytest.raises(ValueError, match="lets nothing through"):
        TokenBucket(rate, burst)


@given(
    rate=st.floats(0.1, 1000),
    burst=st.integers(1, 100),
    pauses=st.lists(st.floats(0, 10), min_size=1, max_size=200),
)
def test_never_more_than_the_burst_and_the_rate(rate, burst, pauses):
    bucket, now, taken = TokenBucket(rate, burst), 0.0, 0
    for pause in pauses:
        now += pause
        taken += bucket.take(now)
    assert taken <= burst + rate * now + 1e-6


class TestFailures:
    """One failure a second, two at once."""

    def flooded(self):
        failures = Failures(1, 2)
        for _ in range(5):
            failures.failed("bad", b"", 0.0)
        return failures

    def test_a_flood_is_asked_about_at_the_rate(self):
        failures, asked = Failures(1, 2), 0
        for tenth in range(100):
            if failures.allow("bad", b"", tenth / 10):
                failures.failed("bad", b"", tenth / 10)
                asked += 1
        assert asked == 11

    def test_another_host_is_asked_about(self):
        failures = self.flooded()
        assert not failures.allow("bad", b"new", 0.0)
        assert failures.allow("good", b"new", 0.0)

    def test_what_was_right_is_asked_about_until_it_is_wrong(self):
        failures = self.flooded()
        failures.succeeded(b"right", 0.0)
        assert failures.allow("bad", b"right", 0.0)
        failures.failed("bad", b"right", 0.0)
        assert not failures.allow("bad", b"right", 0.0)

    def test_a_host_is_asked_about_while_there_are_few(self):
        failures = Failures(1, 2)
        failures.failed("bad", b"", 0.0)
        assert failures.allow("bad", b"", 0.0)

    def test_a_host_is_forgotten(self):
        failures = self.flooded()
        for second in range(1, 62):
            failures.failed("worse", b"", float(second))
            failures.failed("worse", b"", float(second))
        assert not failures.allow("worse", b"", 61.0)
        assert failures.allow("bad", b"", 61.0)

    def test_the_latest_are_remembered(self, monkeypatch):
        monkeypatch.setattr(admission, "MOST_REMEMBERED", 3)
        failures = self.flooded()
        for number in range(3):
            failures.failed(str(number), b"", 0.0)
            failures.succeeded(bytes([number]), 0.0)
        failures.succeeded(b"x", 0.0)
        assert failures.allow("bad", b"", 0.0)
        assert not failures.allow("2", bytes([0]), 0.0)
        assert failures.allow("2", bytes([1]), 0.0)


class TestShares:
    def test_one_peer_gets_half_and_the_others_the_rest(self):
        shares = Shares(10, 10)
        assert [shares.take("greedy", 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
        assert [shares.take(f"peer-{number}", 0.0) for number in range(6)] == [True] * 5 + [False]

    def test_nobody_in_particular_may_have_all(self):
        shares = Shares(10, 10)
        assert [shares.take(None, 0.0) for _ in range(11)] == [True] * 10 + [False]

    def test_a_peer_gets_in_though_the_rate_is_one(self):
        assert Shares(1, 1).take("one", 0.0)

    def test_who_is_refused_for_all_has_lost_nothing_of_its_own(self):
        shares = Shares(2, 2)
        assert shares.take("a", 0.0)
        assert shares.take("b", 0.0)
        assert not shares.take("c", 0.0)
        assert shares.take("c", 0.6)

    def test_the_memory_is_bounded(self, monkeypatch):
        monkeypatch.setattr(admission, "MOST_REMEMBERED", 3)
        shares = Shares(1000, 1000)
        for number in range(10):
            assert shares.take(f"peer-{number}", 0.0)
        assert len(shares._each) == 3
