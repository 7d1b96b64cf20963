"""The token bucket: a rate, and no limit of the number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xds.admission import TokenBucket


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
